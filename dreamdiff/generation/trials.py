"""Opens the EEG to generate from: a pairs store, a corpus, or a recording cut at its events."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr

from dreamdiff.eeg_input import CapMatch, SignalConfig, inside, prepare_for, rows_for, starts_of
from dreamdiff.origin import roll_up
from dreamdiff.pairs.format import FORMAT as PAIRS_FORMAT
from dreamdiff.pairs.importers.epochs import without_baseline
from dreamdiff.pairs.reader import Pairs
from dreamdiff.rates import ModelWindows, plan_rate
from eegprep.corpus.opening import open_files
from eegprep.download.hub import dataset_name
from eegprep.errors import DataError, ModelError, StoreError, UsageError, require_path
from eegprep.recording import Recording, positions_from_json
from eegprep.signals.spectra import spread
from eegprep.signals.windows import ChannelPlan, Cut, make_windows
from eegprep.sources.file_reading import FileReading

# ours: windows of a corpus whose electrodes are compared before anything is generated
_LOOKED_AT = 2000


@dataclass(frozen=True)
class Montage:
    """Names and positions of the rows of a window, and its time axis. sfreq: Hz; start: s relative to the image or recording."""

    channels: tuple[str, ...]
    positions_C3: np.ndarray
    sfreq: float
    start: float


class ReadsEEG(Protocol):
    """A pipeline, or whatever else says which EEG it reads: `encoder.config` has channels, window and scaling."""

    @property
    def details(self) -> Any: ...

    @property
    def encoder(self) -> Any: ...


@dataclass(frozen=True)
class TrialSet:
    """EEG to generate from, wherever it comes from.

    source: as given by the person. kind: "pairs", "corpus" or "file". names, labels: for people.
    numbers: position of each trial in the source, which its random numbers depend on.
    read: positions in this set -> (n, C, T) float32 uV. seen: positions and size -> the images that were shown, if known.
    people: name of each trial's person, if known.
    notes: what is not as it was for training, a sentence each. montage: of a recording's rows.
    provenance: "recorded", "simulated" or "unknown". licence: of the EEG.
    """

    source: str
    kind: str
    numbers: np.ndarray
    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    read: Callable[[Sequence[int]], np.ndarray]
    seen: Callable[[Sequence[int], int], np.ndarray] | None = None
    people: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    montage: Montage | None = None
    provenance: str = "unknown"
    licence: str = "unknown"

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, positions: Sequence[int] | np.ndarray) -> TrialSet:
        """Some of the trials, in the given order."""
        chosen = [int(p) for p in positions]
        seen = self.seen
        return TrialSet(
            self.source, self.kind, self.numbers[chosen],
            tuple(self.names[p] for p in chosen), tuple(self.labels[p] for p in chosen),
            lambda at: self.read([chosen[int(p)] for p in at]),
            None if seen is None else (lambda at, size: seen([chosen[int(p)] for p in at], size)),
            None if self.people is None else tuple(self.people[p] for p in chosen),
            self.notes, self.montage, self.provenance, self.licence,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------- whose EEG


def open_trials(
    source: str | Path,
    pipeline: ReadsEEG,
    select: str | None = None,
    images: Path | None = None,
    cap: CapMatch = "name",
    *,
    strict_rate: bool = False,
    reading: FileReading | None = None,
) -> TrialSet:
    """Trials of a pairs store, windows of a corpus, or stretches after the events of an EEG file.

    Args:
        source: a path, or an address: pairs and corpora of the Hub (hf://datasets/OWNER/NAME), corpora of object stores.
        select: for pairs, a part of a split ("test", "block/val", ...) or None for all; for a corpus or a file, a label.
        images: folder of the image files of a pairs store, if they have moved.
        cap: how other electrodes than the model's are taken: by name, or by "spline" where some are missing.
        strict_rate: refuse another sampling rate than the model's, to which EEG is resampled otherwise (`dreamdiff.rates`).
        reading: what a file does not say: rate, unit, names of channels, a factor.

    Raises:
        StoreError, DataError, ModelError: nothing there, or EEG of another shape or unit than the model was trained with, or too
            short at its rate.
    """
    address = _address(source)
    place, path = address or str(source), Path(source)
    if address is None:
        require_path(path)
    kind = _store_format(path) if address is None else _remote_format(address)
    if reading is not None and reading.given and (kind is not None or path.is_dir()):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in reading.given)
        raise UsageError(f"{options}: {source} is a store, which says that of its EEG", "leave it out, or give an EEG file")
    if kind == PAIRS_FORMAT:
        return _pairs_trials(place, pipeline, select, images, cap, strict_rate)
    if kind == "eegprep-corpus":
        return _corpus_trials(place, pipeline, select, cap, strict_rate)
    if kind is not None or path.is_dir():
        raise StoreError(
            f"{source}: neither a pairs store nor a corpus (format {kind!r})", "give a pairs store, a corpus, or an EEG file"
        )
    return _file_trials(str(source), path, pipeline, select, cap, strict_rate, reading or FileReading())


def _address(source: str | Path) -> str | None:
    """An address of the Hub or of an object store; None for a path of this machine."""
    text = str(source)
    name = dataset_name(text)
    return str(name) if name is not None else text if "://" in text else None


def _remote_format(address: str) -> str:
    """What the store at an address is.

    Raises:
        StoreError: it is no store, or pairs that are not on the Hub.
    """
    try:
        content = json.loads(open_files(address).metadata("zarr.json"))
        kind = str(content["attributes"].get("format"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{address}: is no zarr store", "give a pairs store, a corpus, or an EEG file") from None
    if kind == PAIRS_FORMAT and dataset_name(address) is None:
        raise StoreError(
            f"{address}: pairs are read from a folder or from the Hub", "copy them here, or publish them with `dreamdiff push`"
        )
    return kind


def _store_format(path: Path) -> str | None:
    try:
        return str(zarr.open_group(path, mode="r").attrs.get("format"))
    except (FileNotFoundError, ValueError, KeyError, NotADirectoryError, OSError):
        return None


def _pairs_trials(
    source: str, pipeline: ReadsEEG, select: str | None, images: Path | None, cap: CapMatch, strict_rate: bool
) -> TrialSet:
    signal, window = pipeline.details.signal, pipeline.encoder.config.window
    store, rate_notes = Pairs.open(source, images=images).at_model_rate(signal, window, strict=strict_rate)
    check_shape(source, store.eeg_shape, pipeline)
    for subject in store.subjects:
        check_unit(f"{source}, subject {subject}", store.attributes[subject].get("unit", "uV"), pipeline)
    chosen = store if select in (None, "all") else store.select(split=select)
    if len(chosen) == 0:
        raise DataError(f"{source}: --select {select} leaves no trial", "choose another part of the split")
    names = tuple(f"{store.subjects[p]} trial {t}" for p, t in zip(chosen.person, chosen.trial, strict=True))
    labels = tuple(store.classes[label] for label in chosen.labels)
    same = pipeline.details.training.get("pairs") == store.fingerprint
    plans = [
        None if same else _row_plan(f"{source}, subject {name}", store.attributes[name], pipeline, cap) for name in store.subjects
    ]
    notes = (*rate_notes, *dict.fromkeys(plan.note for plan in plans if plan is not None and plan.note))

    def read(at: Sequence[int]) -> np.ndarray:
        eeg_NCT = chosen.eeg(list(at))
        return _laid_out(eeg_NCT, [plans[person] for person in chosen.person[list(at)]])

    return TrialSet(source, "pairs", np.asarray(chosen.indices), names, labels, read,
                    lambda at, size: chosen.images(list(at), size=size),
                    tuple(store.subjects[p] for p in chosen.person), notes, None, store.provenance, store.licence)  # fmt: skip


def _corpus_trials(source: str, pipeline: ReadsEEG, select: str | None, cap: CapMatch, strict_rate: bool) -> TrialSet:
    from eegprep.corpus.reader import Corpus

    corpus = Corpus.open(source)
    windows = ModelWindows(corpus, pipeline.details.signal, pipeline.encoder.config.window, strict=strict_rate)
    check_shape(source, (corpus.channels, windows.samples), pipeline)
    check_unit(source, "uV", pipeline)
    labels = [None if value in (None, "") else str(value) for value in corpus.labels]
    keep = _with_label(labels, select, source)
    names = tuple(f"window {number}" for number in keep)
    plans: dict[tuple[Any, ...], _RowPlan] = {}

    def plan(number: int) -> _RowPlan:
        record = corpus.record(number)
        key = (tuple(record["channels"]), tuple(record["pad_map"]))
        if key not in plans:
            plans[key] = _row_plan(f"{source}, {record['session']}.{record['run']}", record, pipeline, cap)
        return plans[key]

    every = keep[spread(len(keep), _LOOKED_AT)]
    notes = (*windows.notes, *dict.fromkeys(note for note in (plan(int(number)).note for number in every) if note))

    def read(at: Sequence[int]) -> np.ndarray:
        numbers = keep[list(at)]
        return _laid_out(windows.read(numbers), [plan(int(number)) for number in numbers])

    provenance = corpus.attributes.get("provenance")
    files = any(record.get("sources") for key in corpus.keys for record in corpus.attributes_of(key)["recordings"])
    licence = roll_up(corpus.recordings["licence"].tolist())
    return TrialSet(
        source, "corpus", keep, names, tuple(labels[n] for n in keep), read, None, None, notes, None,
        str(provenance or ("recorded" if files else "unknown")), licence,
    )  # fmt: skip


@dataclass(frozen=True)
class _RowPlan:
    """How rows of a store become the rows that the model reads; None: as they are."""

    plan: ChannelPlan | None
    note: str = ""


def _row_plan(source: str, facts: Mapping[str, Any], pipeline: ReadsEEG, cap: CapMatch) -> _RowPlan:
    signal, rows = pipeline.details.signal, pipeline.encoder.config.channels
    channels, pad_map = facts.get("channels"), facts.get("pad_map")
    if not channels or not pad_map or min(pad_map) < 0:
        note = "" if not signal.caps else f"{source} does not say which electrodes its rows show: they are taken as they are"
        return _RowPlan(None, note)
    if not signal.caps or any(tuple(channels[row] for row in pad_map) == known.shown for known in signal.caps):
        return _RowPlan(None)
    first = {int(row): place for place, row in reversed(list(enumerate(pad_map)))}  # where each channel is shown
    shown = [row for row in range(len(channels)) if row in first]
    places_C3 = np.full((len(shown), 3), np.nan)
    if facts.get("positions"):
        places_C3 = positions_from_json([facts["positions"][row] for row in shown])
    plan, note = rows_for([channels[row] for row in shown], places_C3, signal, rows, source, cap)
    where = np.array([first[row] for row in shown])
    if plan.weights is None:
        return _RowPlan(ChannelPlan(tuple(-1 if row < 0 else int(where[row]) for row in plan.pad_map)), note)
    weights = np.zeros((rows, len(pad_map)))
    weights[:, where] = plan.weights
    return _RowPlan(ChannelPlan(plan.pad_map, weights), note)


def _laid_out(eeg_NCT: np.ndarray, plans: Sequence[_RowPlan | None]) -> np.ndarray:
    if all(plan is None or plan.plan is None for plan in plans):
        return eeg_NCT
    out = np.empty_like(eeg_NCT)
    for index, plan in enumerate(plans):
        if plan is None or plan.plan is None:
            out[index] = eeg_NCT[index]
        else:
            plan.plan.fill(eeg_NCT[index], out[index])
    return out


def _file_trials(
    source: str, path: Path, pipeline: ReadsEEG, select: str | None, cap: CapMatch, strict_rate: bool, reading: FileReading
) -> TrialSet:
    from eegprep.readers.content import Reading
    from eegprep.sources.reading import read_file, scaled

    shape = pipeline.encoder.config.channels, pipeline.encoder.config.window
    told = Reading(sfreq=reading.sfreq, unit=reading.unit, channel_names=reading.channel_names)
    recording = read_file(path, reading=told)
    if reading.scale is not None:
        recording = scaled(recording, reading.scale)
    trials = cut_events(recording, pipeline.details.signal, *shape, cap, strict_rate=strict_rate)
    keep = _with_label(trials.labels, select, source)
    return replace(trials.take(keep), source=source)


def _with_label(labels: Sequence[str | None], select: str | None, source: str) -> np.ndarray:
    keep = np.array([n for n, label in enumerate(labels) if select in (None, "all") or label == select], dtype=np.int64)
    if len(keep) == 0:
        known = sorted({label for label in labels if label})
        raise DataError(
            f"{source}: no trial has the label {select!r}", f"use one of: {', '.join(known[:20]) or 'none are labelled'}"
        )
    return keep


def cut_events(
    recording: Recording, signal: SignalConfig, channels: int, samples: int, cap: CapMatch = "name", *, strict_rate: bool = False
) -> TrialSet:
    """A window after every event: gated, filtered, resampled, cut and laid out as the training pairs were.

    Args:
        recording: uV. signal: what the model was trained on. channels, samples: shape of a window.
        cap: see `eeg_input.rows_for`. strict_rate: see `open_trials`.

    Returns:
        trials of (channels, samples) float32 uV; events whose window leaves the recording or crosses a seam are left out.
    """
    stimuli = [event for event in recording.events if not event.is_bad]
    if not stimuli:
        raise DataError(
            f"{recording.name}: has no events, so it is not known when an image was seen",
            "add annotations, or build a corpus and give that",
        )
    # a recording is as long as it needs to be: it is resampled as a whole, so that nothing of a window is lost
    rate = plan_rate(recording.name, recording.sfreq, 1 << 62, signal, samples, strict=strict_rate)
    made = prepare_for(recording, signal)
    plan, note = rows_for(made.channels, made.positions_C3, signal, channels, recording.name, cap)
    starts_N = starts_of((event.onset for event in stimuli), signal.t0 or 0.0, made.sfreq)
    kept = np.flatnonzero(inside(made, starts_N, samples))
    if not len(kept):
        raise DataError(
            f"{recording.name}: none of {len(stimuli)} events is followed by {samples} samples at {made.sfreq:g} Hz",
            "use a recording that goes on after its events",
        )
    cut = Cut(starts_N[kept], np.full(len(kept), samples), (None,) * len(kept))
    eeg_NCT = without_baseline(make_windows(made.signal_CT, cut, plan, samples), made.sfreq, signal.t0 or 0.0, signal.baseline_ms)
    events = [stimuli[index] for index in kept]
    notes = [text for text in (rate.note.partition(";")[0], note) if text]
    if len(kept) < len(stimuli):
        notes.append(f"{len(stimuli) - len(kept)} of {len(stimuli)} events have no whole window behind them and are left out")
    rows = np.array(plan.pad_map)
    known = rows >= 0
    places_C3 = np.full((channels, 3), np.nan)
    places_C3[known] = made.positions_C3[rows[known]]
    names = tuple(made.channels[row] if row >= 0 else f"row {number}" for number, row in enumerate(rows.tolist()))
    return TrialSet(
        recording.name, "file", np.arange(len(kept)), tuple(f"{event.label} at {event.onset:.3f} s" for event in events),
        tuple(event.label or None for event in events), lambda at: eeg_NCT[[int(p) for p in at]], None, None, tuple(notes),
        Montage(names, places_C3, made.sfreq, signal.t0 or 0.0), "recorded", recording.licence or "unknown",
    )  # fmt: skip


def check_shape(source: str, shape: tuple[int, int], pipeline: ReadsEEG) -> None:
    """Raises ModelError when (channels, samples) is not what the encoder reads."""
    expected = (pipeline.encoder.config.channels, pipeline.encoder.config.window)
    if tuple(shape) != expected:
        raise ModelError(
            f"{source}: windows of {shape[0]} channels and {shape[1]} samples, the model reads {expected[0]} and {expected[1]}",
            f"pad and crop with `eegprep pad --channels {expected[0]} --window {expected[1]}`, or train a model for this shape",
        )


def check_unit(source: str, unit: str, pipeline: ReadsEEG) -> None:
    """Raises ModelError when the unit is not that of the training pairs."""
    expected = pipeline.details.signal
    if unit != expected.unit and pipeline.encoder.config.scaling != "robust":
        raise ModelError(
            f"{source}: in {unit!r}, the model was trained on {expected.unit!r}", "convert the EEG, or train on this unit"
        )
