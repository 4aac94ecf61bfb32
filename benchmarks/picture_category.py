"""What people look at, from genuine EEG of consumer and wearable devices: house or face (Muse), and which light flickers (SSVEP).

    python benchmarks/picture_category.py --muse FOLDER --ssvep FOLDER [--json FILE]

--muse: PERSON/SESSION/*.csv of the N170 experiment of eeg-notebooks (NeuroTechX; TP9 AF7 AF8 TP10, 256 Hz, `Marker0` 1 house, 2 face).
--ssvep: PERSON/*_raw.fif with *-eve.fif beside them (Kalunga et al. 2016; 8 occipital channels; 2 = 13 Hz, 3 = 21 Hz, 4 = 17 Hz).

House or face: within each person, whole recordings held out, 1-30 Hz, 0 to 0.8 s after the picture; covariances with the mean responses
in the tangent space and logistic regression, beside a light decoder. Controls: training labels permuted; the time before the picture;
which part carries it. Recordings that lie in two folders are named and used once. Every figure comes with n and a 95 % interval over
pictures (house or face) or trials (flicker). Nothing is pooled over people: across people the sign of the response differs.

Shapes: N pictures, C channels, T samples.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline

import eegprep
from dreamdiff.estimators.carriers import Carriers, carriers
from dreamdiff.estimators.steps import EventCovariances
from eegprep import atomic
from eegprep.corpus.doubles import same_recordings
from eegprep.errors import ToolkitError
from eegprep.readers.content import Reading
from eegprep.recording import Recording
from eegprep.sources.reading import read_file

MUSE_RATE = 256.0  # Hz, by the device; time stamps of some recordings run backwards, so none is taken from them
MUSE_CHANNELS = ("TP9", "AF7", "AF8", "TP10")
AFTER, BEFORE = (0.0, 0.8), (-0.4, 0.0)  # s around the picture
WHOLE = (-0.4, 0.8)
REJECT = 100.0  # uV peak to peak within 0 to 0.8 s
FEWEST, LARGEST = 50, 100.0  # pictures of a recording; standard deviation, uV
FLICKER = {2: 13.0, 3: 21.0, 4: 17.0}  # event -> Hz
HARMONICS = 2


@dataclass(frozen=True)
class Pictures:
    """x_NCT: uV, from 0.4 s before the picture to 0.8 s after. y_N: 0 house, 1 face. recording_N: of the person."""

    x_NCT: np.ndarray
    y_N: np.ndarray
    recording_N: np.ndarray

    def cut(self, seconds: tuple[float, float]) -> np.ndarray:
        first, last = (round((s - WHOLE[0]) * MUSE_RATE) for s in seconds)
        return np.ascontiguousarray(self.x_NCT[:, :, first:last])


def muse_recordings(folder: Path) -> tuple[dict[str, list[Recording]], list[str]]:
    """Person -> usable recordings, each once; and a sentence for every file that was left out."""
    people: dict[str, list[Recording]] = {}
    notes: list[str] = []
    for file in sorted(folder.rglob("*.csv")):
        name = file.relative_to(folder).as_posix()
        try:
            recording = read_file(file, reading=Reading(sfreq=MUSE_RATE))
        except ToolkitError as error:
            notes.append(f"{name}: left out, {error.problem}")
            continue
        rows = [recording.channels.index(channel) for channel in MUSE_CHANNELS]
        recording = replace(
            recording, signal_CT=recording.signal_CT[rows], channels=MUSE_CHANNELS, positions_C3=recording.positions_C3[rows],
            offsets=(), run=name,
        )  # fmt: skip
        count = sum(event.label in ("1", "2") for event in recording.events)
        spread = float(recording.signal_CT.std())
        if count < FEWEST or spread > LARGEST:
            notes.append(f"{name}: left out, {count} pictures (at least {FEWEST}), SD {spread:.0f} uV (at most {LARGEST:g})")
            continue
        people.setdefault(name.partition("/")[0], []).append(recording)
    return people, notes


def without_doubles(
    people: Mapping[str, Sequence[Recording]], seconds: float = 2.0
) -> tuple[dict[str, list[Recording]], list[str]]:
    """Each recording once: those that the audit of a corpus finds under two names stay under the first."""
    with tempfile.TemporaryDirectory() as folder:
        entries = []
        for person, recordings in people.items():
            for recording in recordings:
                length = round(seconds * recording.sfreq)
                whole = recording.signal_CT[:, : recording.signal_CT.shape[1] // length * length]
                windows = whole.reshape(len(whole), -1, length).swapaxes(0, 1)
                entries.append(
                    {"windows": windows, "subject": f"{person}_{len(entries)}", "sfreq": recording.sfreq, "key": recording}
                )
        corpus = eegprep.from_arrays(
            Path(folder) / "c.zarr", entries, sfreq=entries[0]["sfreq"], pad_to=max(len(e["windows"][0]) for e in entries)
        )
        found = same_recordings(corpus)
    known = {f"arrays/{entry['subject']}#0": entry["key"] for entry in entries}
    dropped, notes = [], []
    for double in found:
        first, *others = [known[name] for name in double.recordings]
        notes += [f"{other.run} and {first.run} are the same recording, sample for sample; it is used once" for other in others]
        dropped += others
    kept = {
        person: [one for one in recordings if not any(one is other for other in dropped)] for person, recordings in people.items()
    }
    return {person: recordings for person, recordings in kept.items() if recordings}, notes


def pictures_of(recordings: Sequence[Recording]) -> Pictures:
    """Windows around every picture that was followed by no artefact."""
    parts, labels, numbers = [], [], []
    before, after = round(-WHOLE[0] * MUSE_RATE), round(WHOLE[1] * MUSE_RATE)
    for number, recording in enumerate(recordings):
        signal_CT = eegprep.band_pass(recording.signal_CT, MUSE_RATE, 1.0, 30.0)
        for event in recording.events:
            start = round(event.onset * MUSE_RATE)
            if event.label not in ("1", "2") or start < before or start + after > signal_CT.shape[1]:
                continue
            window_CT = signal_CT[:, start - before : start + after]
            if np.ptp(window_CT[:, before:], axis=1).max() < REJECT:
                parts.append(window_CT)
                labels.append(int(event.label == "2"))
                numbers.append(number)
    return Pictures(np.stack(parts).astype(np.float32), np.array(labels), np.array(numbers))


def model() -> object:
    return make_pipeline(EventCovariances(), LogisticRegression(max_iter=2000))


def held_out(x_NCT: np.ndarray, y_N: np.ndarray, recording_N: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """(N,) how much each picture looks like a face, by a model of the other recordings; with `rng` training labels are permuted."""
    out = np.empty(len(y_N))
    for number in np.unique(recording_N):
        test = recording_N == number
        taught_N = y_N[~test] if rng is None else rng.permutation(y_N[~test])
        out[test] = model().fit(x_NCT[~test], taught_N).predict_proba(x_NCT[test])[:, 1]
    return out


def area(y_N: np.ndarray, score_N: np.ndarray, recording_N: np.ndarray) -> float:
    """Mean over recordings of the area under the curve: scores of different models are not compared."""
    numbers = np.unique(recording_N)
    return float(np.mean([roc_auc_score(y_N[recording_N == n], score_N[recording_N == n]) for n in numbers]))


def interval(measure: Callable[[np.ndarray], float], recording_N: np.ndarray, draws: int = 500) -> tuple[float, float]:
    """95 % bootstrap interval over pictures, drawn within each recording."""
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(recording_N == number) for number in np.unique(recording_N)]
    values = [measure(np.concatenate([rng.choice(part, len(part)) for part in rows])) for _ in range(draws)]
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def muse(folder: Path) -> dict[str, object]:
    """All figures of the house / face recordings, and what was left out."""
    people, notes = muse_recordings(folder)
    people, same = without_doubles(people)
    found: dict[str, object] = {"notes": [*notes, *same], "people": {}}
    for person, recordings in people.items():
        pictures = pictures_of(recordings)
        if len(recordings) < 2:
            found["notes"].append(f"{person}: one usable recording, {len(pictures.y_N)} pictures; none to hold out")  # type: ignore[attr-defined]
            continue
        found["people"][person] = _person(pictures)  # type: ignore[index]
    return found


def _person(pictures: Pictures) -> dict[str, object]:
    y_N, recording_N = pictures.y_N, pictures.recording_N
    numbers: dict[str, object] = {"pictures": len(y_N), "recordings": len(np.unique(recording_N)), "faces": int(y_N.sum())}
    kinds = {
        "after the picture": (AFTER, None),
        "before the picture": (BEFORE, None),
        "training labels permuted": (AFTER, np.random.default_rng(0)),
    }
    for name, (seconds, rng) in kinds.items():
        score_N = held_out(pictures.cut(seconds), y_N, recording_N, rng)
        low, high = interval(lambda rows, s=score_N: area(y_N[rows], s[rows], recording_N[rows]), recording_N)
        accuracy = balanced_accuracy_score(y_N, score_N > 0.5)
        numbers[name] = {"auc": area(y_N, score_N, recording_N), "low": low, "high": high, "accuracy": float(accuracy)}
    folds = [(np.flatnonzero(recording_N != n), np.flatnonzero(recording_N == n)) for n in np.unique(recording_N)]
    parts: Carriers = carriers(
        pictures.x_NCT, y_N, np.zeros(len(y_N), int), folds, sfreq=MUSE_RATE, first=WHOLE[0], channels=MUSE_CHANNELS,
        unit_N=np.arange(len(y_N)),
    )  # fmt: skip
    numbers["carriers"] = parts.to_json()
    return numbers


def ssvep(folder: Path) -> dict[str, object]:
    """Which light flickered, by canonical correlation with sines: nothing is trained, so any error is one of reading or filtering."""
    import mne

    events, people = {}, {}
    for file in sorted(folder.rglob("*_raw.fif")):
        name = file.relative_to(folder).as_posix()
        recording = replace(read_file(file), run=name)
        people[name.partition("/")[0]] = [recording]
        marks = mne.read_events(file.with_name(file.name.replace("_raw.fif", "-eve.fif")), verbose="error")
        first = mne.io.read_raw_fif(file, verbose="error").first_samp
        events[name] = [(int(sample - first), int(code)) for sample, _, code in marks]
    kept, notes = without_doubles(people)
    found: dict[str, object] = {"notes": notes, "people": {}}
    for person, (recording,) in kept.items():
        signal_CT = eegprep.band_pass(recording.signal_CT, recording.sfreq, 5.0, 45.0)
        rows = {}
        # the stretch before a trial holds what is left of the flicker before it; where no frequency follows itself, that is below chance
        for title, (start, stop) in {"0.5 to 4.5 s of the flicker": (0.5, 4.5), "1.5 s before the trial": (-1.5, 0.0)}.items():
            hits, count = 0, 0
            for sample, code in events[recording.run]:
                first, last = (sample + round(s * recording.sfreq) for s in (start, stop))
                if code in FLICKER and first >= 0 and last <= signal_CT.shape[1]:
                    hits += strongest(signal_CT[:, first:last], recording.sfreq, list(FLICKER.values())) == FLICKER[code]
                    count += 1
            test = binomtest(hits, count, 1 / len(FLICKER))
            low, high = test.proportion_ci(0.95, "exact")
            rows[title] = {"accuracy": hits / count, "low": low, "high": high, "trials": count, "p": test.pvalue}
        found["people"][person] = rows  # type: ignore[index]
    return found


def strongest(x_CT: np.ndarray, sfreq: float, frequencies: Sequence[float]) -> float:
    """The frequency whose sines and cosines, harmonics included, have the largest canonical correlation with the channels (Lin 2006)."""
    time_T = np.arange(x_CT.shape[1]) / sfreq
    q_TC = np.linalg.qr((x_CT - x_CT.mean(1, keepdims=True)).T)[0]
    best, chosen = -1.0, frequencies[0]
    for frequency in frequencies:
        phase_TH = 2 * np.pi * frequency * time_T[:, None] * np.arange(1, HARMONICS + 1)
        waves_TH = np.concatenate([np.sin(phase_TH), np.cos(phase_TH)], axis=1)
        q_TH = np.linalg.qr(waves_TH - waves_TH.mean(0))[0]
        correlation = float(np.linalg.svd(q_TC.T @ q_TH, compute_uv=False)[0])
        if correlation > best:
            best, chosen = correlation, frequency
    return chosen


def show(found: Mapping[str, Mapping[str, object]]) -> None:
    """The figures as text."""
    for part, content in found.items():
        print(f"\n{part}")
        for note in content["notes"]:  # type: ignore[attr-defined]
            print(f"  {note}")
        for person, numbers in content["people"].items():  # type: ignore[attr-defined]
            for name, value in numbers.items():
                if name == "carriers":
                    rows = value["rows"]
                    print(f"  {person}, light decoder, balanced accuracy: " + "; ".join(
                        f"{r['name']} {100 * r['accuracy']:.1f} [{100 * r['low']:.1f}, {100 * r['high']:.1f}]" for r in rows
                    ))  # fmt: skip
                    print("".join(f"    warning: {text}\n" for text in value["warnings"]), end="")
                elif isinstance(value, Mapping):
                    print(f"  {person}, {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in value.items()))
                else:
                    print(f"  {person}: {value} {name}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--muse", type=Path, help="folder of house / face recordings")
    parser.add_argument("--ssvep", type=Path, help="folder of flicker recordings")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args(arguments)
    if args.muse is None and args.ssvep is None:
        parser.error("give --muse FOLDER, --ssvep FOLDER, or both")
    found = {}
    if args.muse is not None:
        found["house or face (Muse), within person, recording held out"] = muse(args.muse)
    if args.ssvep is not None:
        found["flicker frequency (SSVEP), no training"] = ssvep(args.ssvep)
    show(found)
    if args.json is not None:
        atomic.write_json(args.json, found)


if __name__ == "__main__":
    main()
