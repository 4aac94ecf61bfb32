"""What else could have produced this number? Decoders and generators denied the stimulus, beside those that were not.

Decoding controls use a light decoder (ridge regression on one-hot labels), because a leak that a linear map finds, a network
finds too. Generation controls hand altered EEG to any `generate(eeg) -> images`. Sources: Li et al. 2021 (TPAMI 43(1), doi
10.1109/TPAMI.2020.2973153) for block design and drift; Palazzo et al. 2020 (arXiv 2012.03849) for filters and blank screens.

Legend: N trials, S samples of an image, C channels or classes, T samples in time, D features, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dreamdiff.arrays import Array, Floats, Ints
from dreamdiff.baselines.features import Features, mean_of, neighbours
from dreamdiff.estimators.light import decode
from dreamdiff.metrics.measurement import Measurement, mean_measurement, units
from dreamdiff.pairs.audit import Audit
from dreamdiff.pairs.splits import Exchange, Trials, exchange_units
from eegprep.recording import ProgressCallback

Kind = Literal["result", "no stimulus", "drift", "order"]

ALPHA = 0.05  # for all controls of a report together

PERMUTATIONS = 4000

STRETCH_TRIALS = 8  # fewest trials of a pseudo-block


@dataclass(frozen=True)
class Control:
    """One decoder: what it was given, how far it came, and whether that is more than chance.

    kind: "result" (the EEG as it is), "no stimulus" (nothing of the image can be in its input), "drift" (features that drift
    shows in, though a response may too), "order" (labels that follow the order of recording and no image).
    p: share of permutations of the test labels, by block where a block holds one class, that reach the same accuracy.
    """

    name: str
    kind: Kind
    told: str
    measurement: Measurement
    p: float

    def above_chance(self, tests: int) -> bool:
        """Whether this is more than chance, with Bonferroni's correction for `tests` controls."""
        return self.p <= ALPHA / tests

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "told": self.told,
            "p": self.p,
            **{"measurement": self.measurement.to_json()},
        }


@dataclass(frozen=True)
class DistanceBin:
    """Accuracy of the test trials whose nearest training trial is between `near` and `far` seconds away."""

    near: float
    far: float
    measurement: Measurement

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return {"near": self.near, "far": self.far, "measurement": self.measurement.to_json()}


@dataclass(frozen=True)
class DecodingControls:
    """All decoders on one split. `verdict` is "leaks", "clean" or "unknown"; `sentence` is the first line of the report."""

    controls: tuple[Control, ...]
    distances: tuple[DistanceBin, ...]
    verdict: Literal["leaks", "clean", "unknown"]
    sentence: str
    left_out: Mapping[str, str]

    def __getitem__(self, name: str) -> Control:
        for control in self.controls:
            if control.name == name:
                return control
        raise KeyError(name)

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "decoders": [c.to_json() for c in self.controls],
            "time_distance": [b.to_json() for b in self.distances],
            "left_out": dict(self.left_out),
        }


# altered labels and altered trials


def shuffle_by_trial(labels_N: Array, rng: np.random.Generator, within_N: Array | None = None) -> Ints:
    """Labels permuted among trials, within each person where `within_N` says who is who."""
    labels = np.asarray(labels_N)
    groups = np.zeros(len(labels), int) if within_N is None else np.asarray(within_N)
    out = labels.copy()
    for group in np.unique(groups):
        here = np.flatnonzero(groups == group)
        out[here] = labels[rng.permutation(here)]
    return out


def shuffle_by_block(labels_N: Array, blocks_N: Array, rng: np.random.Generator) -> Ints:
    """Every block keeps one label for all of its trials, the commonest one, and blocks exchange labels among themselves."""
    labels, blocks = np.asarray(labels_N), np.asarray(blocks_N)
    names, member = np.unique(blocks, return_inverse=True)
    commonest = np.array([np.bincount(labels[member == b]).argmax() for b in range(len(names))])
    return np.asarray(commonest[rng.permutation(len(names))][member])


def pseudo_blocks(trials: Trials, classes: int, rng: np.random.Generator) -> Ints:
    """Labels that follow the order of recording and nothing else: each recording cut into stretches of equal length.

    Stretches of one person get different labels in random order, at most `classes` of them, each with at least
    `STRETCH_TRIALS` trials. -1 where the order is not known.
    """
    out = np.full(len(trials), -1, np.int64)
    for person in np.unique(trials.person):
        of_person = np.flatnonzero(trials.person == person)
        moments = np.where(np.isnan(trials.time[of_person]), np.inf, trials.time[of_person])
        if np.isinf(moments).any():
            continue
        of_person = of_person[np.lexsort((moments, trials.session[of_person]))]
        stretches = int(np.clip(len(of_person) // STRETCH_TRIALS, 0, classes))
        if stretches < 2:
            continue
        names = rng.permutation(stretches)
        out[of_person] = names[np.arange(len(of_person)) * stretches // len(of_person)]
    return out


# decoding controls


def decoding_controls(
    features: Features, trials: Trials, train: Array, test: Array, *, classes: int, audit: Audit | None = None, seed: int = 0,
    progress: ProgressCallback | None = None,
) -> DecodingControls:  # fmt: skip
    """Train the light decoder on what it should and should not be able to use, and judge the split by what comes out.

    Args:
        features: of all trials, from `extract_features`.
        trials: table of all trials.
        train, test: indices.
        classes: number of labels.
        audit: of the same split; says whether the class follows from block or time.

    Decoders are fitted per person where the person has training trials, else over all people. Accuracy is the mean over
    classes of the share that is named correctly (balanced), whose chance level is 1 / classes whatever the frequencies.
    """
    train, test = np.asarray(train), np.asarray(test)
    labels = np.asarray(trials.concept)
    rng = np.random.default_rng(seed)
    blocks = trials.groups("block")
    jobs: list[tuple[str, Kind, str, Array, Ints]] = [
        ("eeg", "result", "the EEG after image onset", features.sets["eeg"], labels)
    ]
    left_out = dict(features.left_out)
    noise = rng.standard_normal((len(labels), 64)).astype(np.float32)
    jobs.append(("noise", "no stimulus", "noise in place of EEG", noise, labels))
    shuffled = labels.copy()
    shuffled[train] = shuffle_by_trial(labels[train], rng, trials.person[train])
    jobs.append(
        (
            "labels shuffled by trial",
            "no stimulus",
            "EEG, with labels shuffled among training trials",
            features.sets["eeg"],
            shuffled,
        )
    )
    if "pre-stimulus" in features.sets:
        jobs.append(("pre-stimulus", "no stimulus", "only the EEG before image onset", features.sets["pre-stimulus"], labels))
    drift = {
        "band power": "only the power of each channel in six bands",
        "channel means": "only the mean of each channel",
        "below 5 Hz": "only what is slower than 5 Hz",
    }
    around = neighbours(trials, features.window)
    whose = "of the trials before and after, not of the trial itself" if around is not None else "(a response shows in it too)"
    for name, description in drift.items():
        values = features.sets[name] if around is None else mean_of(features.sets[name], around)
        jobs.append((name, "drift", f"{description} {whose}", values, labels))
    stretches = pseudo_blocks(trials, classes, rng)
    if (stretches >= 0).all():
        description = "EEG, with arbitrary labels given to stretches of the recording"
        jobs.append(("pseudo-blocks", "order", description, features.sets["eeg"], stretches))
    else:
        left_out["pseudo-blocks"] = "the time of the trials is not recorded, or there are too few of them"
    if audit is not None and audit.block_design == "class blocks" and (audit.blocks_per_class or 0) > 1:
        swapped = shuffle_by_block(labels, blocks, rng)
        description = "EEG, with labels exchanged among whole blocks"
        jobs.append(("labels shuffled by block", "order", description, features.sets["eeg"], swapped))
    else:
        left_out["labels shuffled by block"] = _why_no_block_shuffle(audit)
    controls, predictions = [], {}
    unit = exchange_units(trials)[test]
    by_unit, by_trial = (Exchange(codes, np.zeros(len(test), np.int64)) for codes in (unit, np.arange(len(test))))
    drawn = units(labels[test], trials.person[test], trials.stimulus[test] if len(np.unique(unit)) == len(unit) else unit)
    for number, (name, kind, description, values, expected) in enumerate(jobs):
        if progress is not None:
            progress(number, len(jobs), f"control: {name}")
        predicted = decode([values], expected, trials.person, train, test)
        truth = labels[test] if name == "labels shuffled by trial" else expected[test]
        predictions[name] = predicted
        exchange = by_trial if name == "pseudo-blocks" else by_unit  # these are given to any trials, whatever was shown
        controls.append(Control(name, kind, description, *_judge(name, predicted, truth, drawn, exchange, seed)))
    if progress is not None:
        progress(len(jobs), len(jobs), "controls done")
    distances = time_distance(predictions["eeg"] == labels[test], trials, train, test, seed=seed)
    if not distances:
        left_out["time distance"] = "the time of the trials is not recorded, or no test trial shares a recording with training"
    verdict, sentence = _verdict(controls, audit)
    return DecodingControls(tuple(controls), tuple(distances), verdict, sentence, left_out)


def time_distance(hits_N: Array, trials: Trials, train: Array, test: Array, *, bins: int = 5, seed: int = 0) -> list[DistanceBin]:
    """Accuracy against the time to the nearest training trial of the same recording; a fall with distance is drift at work."""
    distance_N = nearest_training(trials, train, test)
    known = np.isfinite(distance_N)
    if known.sum() < 2 * bins:
        return []
    edges = np.unique(np.quantile(distance_N[known], np.linspace(0, 1, bins + 1)))
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0] + 1e-9])
    place = np.clip(np.searchsorted(edges, distance_N, side="right") - 1, 0, len(edges) - 2)
    distances = []
    for b in range(len(edges) - 1):
        here = known & (place == b)
        if here.any():
            protocol = f"light decoder, nearest training trial {edges[b]:.3g} to {edges[b + 1]:.3g} s away"
            value = mean_measurement("accuracy", protocol, np.asarray(hits_N)[here][:, None], seed=seed, floor=None)
            distances.append(DistanceBin(float(edges[b]), float(edges[b + 1]), value))
    return distances


def nearest_training(trials: Trials, train: Array, test: Array) -> Floats:
    """(n_test,): s to the nearest training trial of the same person and session, infinite where there is none."""
    recording = trials.person.astype(np.int64) * 100_000 + trials.session
    out = np.full(len(test), np.inf)
    for name in np.unique(recording[test]):
        times = np.sort(trials.time[train][recording[train] == name])
        here = recording[test] == name
        if len(times) == 0 or np.isnan(times).any():
            continue
        moments = trials.time[test][here]
        right = np.clip(np.searchsorted(times, moments), 0, len(times) - 1)
        left = np.maximum(right - 1, 0)
        out[here] = np.minimum(np.abs(times[right] - moments), np.abs(times[left] - moments))
    return np.where(np.isnan(out), np.inf, out)


def _judge(name: str, predicted_N: Ints, truth_N: Ints, drawn: Ints, exchange: Exchange, seed: int) -> tuple[Measurement, float]:
    """Balanced accuracy with its interval, and the share of permuted truths that give as much.

    Blocks of one class are permuted as wholes: what drifts gives one answer to all trials of a block, right or wrong.
    """
    present, codes, counts = np.unique(truth_N, return_inverse=True, return_counts=True)
    weight_N = len(truth_N) / (len(present) * counts[codes])
    hits_N = (predicted_N == truth_N) * weight_N
    # chance over permutations of the truth: a class is named as often as it is, whatever the trial
    named = np.array([(predicted_N == c).mean() for c in present])
    chance = float(named.sum() / len(present))
    rng = np.random.default_rng(seed)
    place = np.minimum(np.searchsorted(present, predicted_N), len(present) - 1)
    called = np.where(present[place] == predicted_N, place, -1)
    score = hits_N.mean()
    reached = 0
    for _ in range(PERMUTATIONS):
        dealt = exchange(codes, rng)
        right = np.bincount(dealt[dealt == called], minlength=len(present))
        sizes = np.bincount(dealt, minlength=len(present))
        reached += (right / np.maximum(sizes, 1)).sum() / (sizes > 0).sum() >= score - 1e-12
    protocol = f"{len(present)}-way balanced accuracy, ridge decoder, {name}"
    value = mean_measurement(f"accuracy: {name}", protocol, hits_N[:, None], seed=seed, floor=chance, groups_N=drawn)
    return value, (1 + reached) / (1 + PERMUTATIONS)


def _why_no_block_shuffle(audit: Audit | None) -> str:
    if audit is None or audit.block_design == "unknown":
        return "the block structure is not known"
    if audit.block_design == "mixed blocks":
        return "blocks hold several classes, so there is no label of a block to exchange (see pseudo-blocks)"
    return "every class has one block, so exchanging labels among blocks only renames the classes (see pseudo-blocks)"


def _verdict(controls: Sequence[Control], audit: Audit | None) -> tuple[Literal["leaks", "clean", "unknown"], str]:
    """The first line of the report.

    Drift can name a class only where the class follows from block, session, person or time, which the audit measures. There,
    drift features and pseudo-blocks above chance count as a leak; elsewhere they are a property of the recording. A decoder
    without any stimulus above chance always counts.
    """
    asked = [c for c in controls if c.kind != "result"]
    above = [c for c in asked if c.above_chance(len(asked))]
    tied = audit is not None and any(s.works for s in audit.shortcuts)
    guilty = [c for c in above if c.kind == "no stimulus" or tied]
    result = controls[0].measurement
    actual = f"the decoder that sees the EEG after image onset reaches {_share(result)}"
    counted = f"{len(asked) - len(above)} of {len(asked)} controls are at chance"
    named = " and ".join(c.name for c in above)
    if guilty:
        worst = max(guilty, key=lambda c: (c.kind == "no stimulus", c.measurement.value))
        return "leaks", (
            f"NOT EVIDENCE OF DECODING: a decoder that was given {worst.told} names the class in {_share(worst.measurement)} "
            f"(chance {worst.measurement.floor:.1%}); {actual}"
        )
    if audit is not None and audit.verdict == "leaks":
        return "leaks", f"NOT EVIDENCE OF DECODING: {audit.leaks[0]}; {actual}"
    if audit is None or audit.verdict == "unknown" or audit.block_design == "unknown":
        why = audit.unknown[0] if audit is not None and audit.unknown else "the block structure is not recorded"
        return "unknown", f"UNKNOWN whether this is decoding: {why}; {counted}{f'; {named} above' if above else ''}; {actual}"
    remark = f"; {named} above chance, but here the class does not follow from the time" if above else ""
    return "clean", f"no leak found: the audit is clean and {counted}{remark}; {actual}"


def _share(measurement: Measurement) -> str:
    return f"{measurement.value:.1%} {measurement.interval()} of {measurement.n} test trials"
