"""Imagined left against right fist on genuine EEG (PhysioNet eegmmidb): what earns accuracy, with controls.

    python benchmarks/motor_imagery.py FOLDER [--out OUT] [--quick] [--only SECTION ...] [--encoder RUN]

FOLDER holds S001/S001R04.edf, R08 and R12 of several people. One code path for all models: what is done without labels is done to
each person's windows alone (also to the test person's, which is said in the table), what is fitted sees training people only.
Every cell is kept in OUT/cells.json as soon as it is known, so an interrupted run goes on where it stopped.

Sections: across (5 folds of people, several fold seeds), within (run held out), stretches (seconds and electrode groups, with the
second before the cue as a negative control), labels (labels of few people), adapt (a new person's few trials), pretraining (two
halves: pre-trained without labels on one, tested on the other), tried (targets, masks, labels of another task), fusion (several
models together, learned filters, adaptation at the test).

Shapes: N trials, C channels, T samples, P people.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parents[1]))
from dreamdiff.estimators.classifier import EEGClassifier
from dreamdiff.estimators.features import EEGFeatures
from dreamdiff.estimators.steps import CSP, IMAGERY_BANDS, LogPower, Mirror, PersonAlignment
from dreamdiff.whitening import covariances, inverse_root, riemannian_mean, tangent_vectors
from eegprep import atomic
from eegprep.signals.channels import canonical_name

RUNS = (4, 8, 12)
RATE = 80.0  # Hz, of the trials
FIRST, LAST = -1.0, 4.0  # s around the cue that are kept
STANDARD = (0.5, 3.5)  # s after the cue
STRETCHES = {
    "-1-0 s (before the cue)": (-1.0, 0.0),
    "0-1 s": (0.0, 1.0),
    "0.5-3.5 s": STANDARD,
    "1.5-3.5 s": (1.5, 3.5),
    "1-4 s": (1.0, 4.0),
}
GROUPS = {
    "frontal": ("Fp", "AF", "F5", "F6", "F7", "F8"),
    "central": ("FC", "C", "CP"),
    "posterior": ("P", "PO", "O", "Iz"),
}
CENTRAL = 21


@dataclass(frozen=True)
class Trials:
    """x_NCT: uV at 80 Hz from 1 s before the cue to 4 s after, 4-38 Hz, average reference. y_N: 0 left, 1 right."""

    x_NCT: np.ndarray
    y_N: np.ndarray
    person_N: np.ndarray
    run_N: np.ndarray
    channels: tuple[str, ...]

    def cut(self, seconds: tuple[float, float], channels: Sequence[int] | None = None) -> Trials:
        first, last = (round((s - FIRST) * RATE) for s in seconds)
        rows = list(range(len(self.channels))) if channels is None else list(channels)
        return Trials(
            np.ascontiguousarray(self.x_NCT[:, rows, first:last]),
            self.y_N,
            self.person_N,
            self.run_N,
            tuple(self.channels[i] for i in rows),
        )

    @property
    def people(self) -> list[str]:
        return sorted(set(self.person_N))


CODES = {"T1": 0, "T2": 1}  # annotation -> label


def read(folder: Path, codes: Mapping[str, int] = CODES) -> Trials:
    """All people who have the three imagery runs; trials of the annotations in `codes`."""
    import mne
    from scipy.signal import butter, resample_poly, sosfiltfilt

    parts: dict[str, list] = {"x": [], "y": [], "person": [], "run": []}
    names: tuple[str, ...] = ()
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = {run: next(iter(sorted(person.glob(f"*R{run:02d}.edf"))), None) for run in RUNS}
        if None in files.values():
            continue
        for run, file in files.items():
            raw = mne.io.read_raw_edf(file, preload=True, verbose="error")
            names = tuple(canonical_name(name) for name in raw.ch_names)
            x = raw.get_data() * 1e6
            rate = float(raw.info["sfreq"])
            x = sosfiltfilt(butter(4, (4, 38), "bandpass", fs=rate, output="sos"), x - x.mean(0), axis=1)
            x = resample_poly(x, 1, 2, axis=1) if rate == 160 else resample_poly(x, 5, 8, axis=1)
            for note in raw.annotations:
                code = codes.get(str(note["description"]))
                start = round((float(note["onset"]) + FIRST) * RATE)
                if code is None or start < 0 or start + round((LAST - FIRST) * RATE) > x.shape[1]:
                    continue
                parts["x"].append(x[:, start : start + round((LAST - FIRST) * RATE)].astype(np.float32))
                parts["y"].append(code)
                parts["person"].append(person.name)
                parts["run"].append(run)
    if not parts["x"]:
        raise SystemExit(f"{folder}: nobody has runs {RUNS} as S001/S001R04.edf and so on")
    return Trials(np.stack(parts["x"]), np.array(parts["y"]), np.array(parts["person"]), np.array(parts["run"]), names)


@dataclass(frozen=True)
class Method:
    """without_labels: a person's windows to features or windows, without labels. model: fitted to training trials."""

    without_labels: Callable[[Trials], Callable[[np.ndarray], np.ndarray]]
    model: Callable[[Trials], object]


def logistic(c: float = 0.01) -> object:
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))


def lda() -> object:
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def tangent_space(recentre: bool) -> Callable[[Trials], Callable[[np.ndarray], np.ndarray]]:
    """Logarithm of each trial's covariance, about the person's own Riemannian mean when `recentre`."""

    def of(trials: Trials) -> Callable[[np.ndarray], np.ndarray]:
        def features(x_NCT: np.ndarray) -> np.ndarray:
            cov = covariances(x_NCT)
            cov = cov + 0.05 * np.trace(cov, axis1=1, axis2=2)[:, None, None] / cov.shape[1] * np.eye(cov.shape[1])
            return tangent_vectors(cov, inverse_root(riemannian_mean(cov) if recentre else np.eye(cov.shape[1]), 0.0))

        return features

    return of


def narrow(x_NCT: np.ndarray) -> np.ndarray:
    """8-32 Hz of windows that hold 4-38 Hz."""
    from dreamdiff.whitening import WhiteningConfig, to_rate_and_band

    return to_rate_and_band(x_NCT, RATE, WhiteningConfig(sfreq=RATE, band=(8.0, 32.0)))


def encoder_features(run: str | object, align: str | None = None) -> Callable[[Trials], Callable[[np.ndarray], np.ndarray]]:
    return lambda t: lambda x: EEGFeatures(run, align, sfreq=RATE, channels=list(t.channels)).fit_transform(x)


def methods() -> dict[str, Method]:
    """Closed forms; the learned ones are added where an encoder is known."""
    align = PersonAlignment
    return {
        "CSP + LDA": Method(lambda t: narrow, lambda t: make_pipeline(CSP(), lda())),
        "aligned, CSP + LDA": Method(lambda t: lambda x: align().fit_transform(narrow(x)), lambda t: make_pipeline(CSP(), lda())),
        "tangent space": Method(tangent_space(False), lambda t: logistic(0.01)),
        "recentred, tangent space": Method(tangent_space(True), lambda t: logistic(0.01)),
        "band power": Method(
            lambda t: LogPower(RATE, ((8.0, 32.0),), align="none", centre=False).fit_transform, lambda t: logistic()
        ),
        "log-power map": Method(lambda t: LogPower(RATE, IMAGERY_BANDS).fit_transform, lambda t: logistic()),
        "log-power map, mirror": Method(
            lambda t: LogPower(RATE, IMAGERY_BANDS).fit_transform, lambda t: make_pipeline(Mirror(t.channels), logistic(1e-3))
        ),
    }


def features(trials: Trials, method: Method) -> np.ndarray:
    """What the method makes of every person's windows without labels: each person alone."""
    make = method.without_labels(trials)
    rows = [(np.flatnonzero(trials.person_N == person)) for person in trials.people]
    made = [make(trials.x_NCT[index]) for index in rows]
    out = np.empty((len(trials.y_N), *made[0].shape[1:]), made[0].dtype)
    for index, values in zip(rows, made, strict=True):
        out[index] = values
    return out


def per_person(trials: Trials, guess_N: np.ndarray, where_N: np.ndarray | None = None) -> dict[str, float]:
    """Balanced accuracy of every person, percent."""
    keep = np.ones(len(guess_N), bool) if where_N is None else where_N
    out = {}
    for person in trials.people:
        mine = (trials.person_N == person) & keep
        if mine.any():
            out[person] = 100 * float(
                np.mean([np.mean(guess_N[mine & (trials.y_N == k)] == k) for k in np.unique(trials.y_N[mine])])
            )
    return out


def folds(people: Sequence[str], seed: int, n: int = 5) -> list[list[str]]:
    order = np.random.default_rng(seed).permutation(len(people))
    return [[people[i] for i in sorted(part)] for part in np.array_split(order, min(n, len(people)))]


def across(trials: Trials, method: Method, seeds: Sequence[int], labels_N: np.ndarray | None = None) -> dict[str, float]:
    """Held-out people, mean over fold seeds."""
    made = features(trials, method)
    y_N = trials.y_N if labels_N is None else labels_N
    scores = []
    for seed in seeds:
        guess_N = np.empty_like(trials.y_N)
        for part in folds(trials.people, seed):
            test = np.isin(trials.person_N, part)
            guess_N[test] = fitted(method, trials, made[~test], y_N[~test], trials.person_N[~test]).predict(made[test])
        scores.append(per_person(trials, guess_N))
    return {person: float(np.mean([score[person] for score in scores])) for person in scores[0]}


def fitted(method: Method, trials: Trials, x: np.ndarray, y: np.ndarray, person: np.ndarray) -> object:
    model = method.model(trials)
    return model.fit(x, y, groups=person) if isinstance(model, EEGClassifier) else model.fit(x, y)


def within(trials: Trials, method: Method) -> dict[str, float]:
    """Two runs to train, the third to test."""
    made = features(trials, method)
    guess_N = np.empty_like(trials.y_N)
    for person in trials.people:
        for run in RUNS:
            test = (trials.person_N == person) & (trials.run_N == run)
            train = (trials.person_N == person) & (trials.run_N != run)
            guess_N[test] = fitted(method, trials, made[train], trials.y_N[train], trials.person_N[train]).predict(made[test])
    return per_person(trials, guess_N)


def few_labels(trials: Trials, method: Method, people: int, draws: int) -> dict[str, float]:
    """Labels of `people` training people; everybody else's windows are used without labels only where the method whitens."""
    made = features(trials, method)
    scores = []
    for draw in range(draws):
        guess_N = np.empty_like(trials.y_N)
        for number, part in enumerate(folds(trials.people, 0)):
            pool = [person for person in trials.people if person not in part]
            chosen = np.random.default_rng([draw, number]).permutation(pool)[:people]
            train, test = np.isin(trials.person_N, chosen), np.isin(trials.person_N, part)
            guess_N[test] = fitted(method, trials, made[train], trials.y_N[train], trials.person_N[train]).predict(made[test])
        scores.append(per_person(trials, guess_N))
    return {person: float(np.mean([score[person] for score in scores])) for person in scores[0]}


def new_person(trials: Trials, method: Method, count: int, how: str, draws: int = 3, weight: int = 5) -> dict[str, float]:
    """`count` trials a class of run 4 of a person who is new; runs 8 and 12 test. how: own, others, both (own trials `weight` times)."""
    made = features(trials, method)
    scores: dict[str, float] = {}
    for person in trials.people:
        mine = trials.person_N == person
        test = mine & (trials.run_N != RUNS[0])
        found = []
        for draw in range(1 if how == "others" else draws):
            rng = np.random.default_rng([trials.people.index(person), draw])
            pool = [np.flatnonzero(mine & (trials.run_N == RUNS[0]) & (trials.y_N == k)) for k in (0, 1)]
            own = np.concatenate([rng.permutation(index)[:count] for index in pool])
            rest = np.flatnonzero(~mine)
            rows = {"own": own, "others": rest, "both": np.concatenate([rest, *[own] * weight])}[how]
            guess_N = np.empty_like(trials.y_N)
            guess_N[test] = fitted(method, trials, made[rows], trials.y_N[rows], trials.person_N[rows]).predict(made[test])
            found.append(per_person(trials, guess_N, test)[person])
        scores[person] = float(np.mean(found))
    return scores


class Cells:
    """Scores by name, kept on disk."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.cells: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.is_file() else {}

    def get(self, name: str, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        if name not in self.cells:
            self.cells[name] = make()
            atomic.write_json(self.file, self.cells)
        print(f"{name:78s} {summary(self.cells[name])}", flush=True)
        return self.cells[name]


def summary(score: dict[str, float], other: dict[str, float] | None = None) -> str:
    """Mean and standard error over people; against another score the paired difference with its 95 % bootstrap interval."""
    values = np.array(list(score.values()))
    text = f"{values.mean():5.1f} (se {values.std(ddof=1) / np.sqrt(len(values)):.1f}), {int((values > 50).sum())}/{len(values)} above 50"
    if other is not None:
        d = np.array([score[person] - other[person] for person in score])
        means = d[np.random.default_rng(0).integers(0, len(d), (4000, len(d)))].mean(1)
        text += f"  diff {d.mean():+.1f} [{np.percentile(means, 2.5):+.1f}, {np.percentile(means, 97.5):+.1f}]"
    return text


def electrode_rows(trials: Trials, group: str) -> list[int]:
    """Channels whose name without its number is in the group (or whole, for names with numbers in the group)."""
    wanted = GROUPS[group]
    return [i for i, name in enumerate(trials.channels) if name in wanted or name.rstrip("0123456789z") in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("motor-imagery"))
    parser.add_argument("--quick", action="store_true", help="one fold seed, closed forms and one short pre-training")
    parser.add_argument("--only", nargs="*", default=[], help="sections to run")
    parser.add_argument(
        "--encoder",
        help="run of `dreamdiff train msm --preset positions`, pre-trained on other people, or braindecode:NAME (random weights)",
    )
    parser.add_argument("--steps", type=int, default=1200, help="steps of pre-training")
    parser.add_argument("--seeds", type=int, nargs="*", help="seeds of folds and pre-training (0 1 2)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cells = Cells(args.out / "cells.json")
    whole = read(args.folder)
    trials = whole.cut(STANDARD)
    seeds = tuple(args.seeds) if args.seeds else (0,) if args.quick else (0, 1, 2)
    print(f"{len(whole.people)} people, {len(whole.y_N)} trials ({int((whole.y_N == 0).sum())} left), {STANDARD} s after the cue")
    print("test people's windows are used without labels by everything that is aligned, recentred or centred\n")

    def wanted(section: str) -> bool:
        return not args.only or section in args.only

    from motor_imagery_library import frozen, networks

    known = {**methods(), **networks()}
    if args.encoder:
        kind, _, rest = args.encoder.partition(":")
        known[f"frozen {args.encoder}"] = (
            frozen(rest) if kind == "braindecode" else Method(encoder_features(args.encoder), lambda t: logistic())
        )
    if wanted("across"):
        table = {n: cells.get(f"across, 0.5-3.5 s: {n}", lambda m=m: across(trials, m, seeds)) for n, m in known.items()}
        rng = np.random.default_rng(0)
        shuffled_N = trials.y_N.copy()
        for person in trials.people:
            mine = trials.person_N == person
            shuffled_N[mine] = rng.permutation(shuffled_N[mine])
        best = known["log-power map, mirror"]
        cells.get("control: training labels shuffled, log-power map, mirror", lambda: across(trials, best, seeds, shuffled_N))
        for name, score in table.items():
            print(f"    {name} against aligned CSP + LDA: {summary(score, table['aligned, CSP + LDA'])}")
    if wanted("within"):
        for name in ("CSP + LDA", "tangent space", "log-power map", "log-power map, mirror"):
            cells.get(f"within person, run held out: {name}", lambda name=name: within(trials, known[name]))
    if wanted("stretches"):
        for title, seconds in STRETCHES.items():
            for group in ("all", *GROUPS):
                part = whole.cut(seconds, None if group == "all" else electrode_rows(whole, group))
                cells.get(f"{title}, {group} ({len(part.channels)}): aligned, CSP + LDA",
                          lambda part=part: across(part, known["aligned, CSP + LDA"], (0,)))  # fmt: skip
    if wanted("labels"):
        for people in (1, 2, 5):
            for name in ("aligned, CSP + LDA", "log-power map", "log-power map, mirror"):
                cells.get(
                    f"labels of {people} people: {name}",
                    lambda p=people, n=name: few_labels(trials, known[n], p, 1 if args.quick else 3),
                )
    if wanted("adapt"):
        best = known["log-power map, mirror"]
        base = cells.get("new person, no trials: others only", lambda: new_person(trials, best, 1, "others"))
        for count in (1, 3, 7):
            own = cells.get(f"new person, {count} trials a class: own only", lambda c=count: new_person(trials, best, c, "own"))
            both = cells.get(
                f"new person, {count} trials a class: others + own x 5", lambda c=count: new_person(trials, best, c, "both")
            )
            print(f"    both against own only: {summary(both, own)}; against others only: {summary(both, base)}")
    if wanted("pretraining"):
        from motor_imagery_pretraining import pretraining

        pretraining(
            args.folder,
            args.out,
            whole,
            cells,
            150 if args.quick else args.steps,
            seeds,
            1 if args.quick else 3,
        )
        for seed in seeds:
            name = f"halves, seed {seed}: "
            frozen = cells.cells[name + "frozen pre-trained, positions"]
            print(f"    frozen pre-trained against random: {summary(frozen, cells.cells[name + 'frozen random, positions'])}")
            print(
                f"    frozen pre-trained against log power: {summary(frozen, cells.cells[name + 'log power of the same electrodes'])}"
            )
            for people in (2, 5, "all"):
                tuned, scratch = (
                    cells.cells[f"{name}labels of {people} people, {kind}, tuned"] for kind in ("pre-trained", "scratch")
                )
                print(f"    tuned against scratch, labels of {people}: {summary(tuned, scratch)}")
    if wanted("tried"):
        from motor_imagery_tried import tried

        tried(
            args.folder,
            args.out,
            whole,
            cells,
            100 if args.quick else args.steps,
            seeds,
            1 if args.quick or len(seeds) == 1 else 3,
        )
    if wanted("fusion"):
        from motor_imagery_fusion import fusion

        fusion(args.out, trials, cells, seeds)


if __name__ == "__main__":
    main()
