"""Opens the EEG to generate from: a pairs store, a corpus, or a recording cut at its events."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr

from dreamdiff.diffusion.pipeline import SignalConfig
from dreamdiff.pairs.format import FORMAT as PAIRS_FORMAT
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import DataError, ModelError, StoreError, require_path
from eegprep.recording import Recording


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
    """

    source: str
    kind: str
    numbers: np.ndarray
    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    read: Callable[[Sequence[int]], np.ndarray]
    seen: Callable[[Sequence[int], int], np.ndarray] | None = None
    people: tuple[str, ...] | None = None

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
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------- whose EEG


def open_trials(source: str | Path, pipeline: ReadsEEG, select: str | None = None, images: Path | None = None) -> TrialSet:
    """Trials of a pairs store, windows of a corpus, or stretches after the events of an EEG file.

    Args:
        select: for pairs, a part of a split ("test", "block/val", ...) or None for all; for a corpus or a file, a label.
        images: folder of the image files of a pairs store, if they have moved.

    Raises:
        StoreError, DataError, ModelError: nothing there, or EEG of another shape, rate or unit than the model was trained with.
    """
    path = Path(source)
    require_path(path)
    kind = _store_format(path)
    if kind == PAIRS_FORMAT:
        return _pairs_trials(str(source), path, pipeline, select, images)
    if kind == "eegprep-corpus":
        return _corpus_trials(str(source), path, pipeline, select)
    if kind is not None or path.is_dir():
        raise StoreError(
            f"{source}: neither a pairs store nor a corpus (format {kind!r})", "give a pairs store, a corpus, or an EEG file"
        )
    return _file_trials(str(source), path, pipeline, select)


def _store_format(path: Path) -> str | None:
    try:
        return str(zarr.open_group(path, mode="r").attrs.get("format"))
    except (FileNotFoundError, ValueError, KeyError, NotADirectoryError, OSError):
        return None


def _pairs_trials(source: str, path: Path, pipeline: ReadsEEG, select: str | None, images: Path | None) -> TrialSet:
    store = Pairs.open(path, images=images)
    check_shape(source, store.eeg_shape, pipeline)
    for subject in store.subjects:
        found = store.attributes[subject]
        check_signal(f"{source}, subject {subject}", found.get("sfreq"), found.get("unit", "uV"), pipeline)
    chosen = store if select in (None, "all") else store.select(split=select)
    if len(chosen) == 0:
        raise DataError(f"{source}: --select {select} leaves no trial", "choose another part of the split")
    names = tuple(f"{store.subjects[p]} trial {t}" for p, t in zip(chosen.person, chosen.trial, strict=True))
    labels = tuple(store.classes[label] for label in chosen.labels)
    return TrialSet(source, "pairs", np.asarray(chosen.indices), names, labels, lambda at: chosen.eeg(list(at)),
                    lambda at, size: chosen.images(list(at), size=size),
                    tuple(store.subjects[p] for p in chosen.person))  # fmt: skip


def _corpus_trials(source: str, path: Path, pipeline: ReadsEEG, select: str | None) -> TrialSet:
    from eegprep.corpus.reader import Corpus

    corpus = Corpus.open(path)
    check_shape(source, (corpus.channels, corpus.samples), pipeline)
    for sfreq in sorted({float(value) for value in corpus.recordings["sfreq"]}):
        check_signal(source, sfreq, "uV", pipeline)
    labels = [None if value in (None, "") else str(value) for value in corpus.labels]
    keep = _with_label(labels, select, source)
    names = tuple(f"window {number}" for number in keep)
    return TrialSet(source, "corpus", keep, names, tuple(labels[n] for n in keep), lambda at: corpus.read(keep[list(at)]))


def _file_trials(source: str, path: Path, pipeline: ReadsEEG, select: str | None) -> TrialSet:
    from eegprep.sources.reading import read_file

    eeg_NCT, names, labels = cut_events(
        read_file(path), pipeline.details.signal, pipeline.encoder.config.channels, pipeline.encoder.config.window
    )
    keep = _with_label(labels, select, source)
    return TrialSet(
        source, "file", keep, tuple(names[n] for n in keep), tuple(labels[n] for n in keep), lambda at: eeg_NCT[keep[list(at)]]
    )


def _with_label(labels: Sequence[str | None], select: str | None, source: str) -> np.ndarray:
    keep = np.array([n for n, label in enumerate(labels) if select in (None, "all") or label == select], dtype=np.int64)
    if len(keep) == 0:
        known = sorted({label for label in labels if label})
        raise DataError(
            f"{source}: no trial has the label {select!r}", f"use one of: {', '.join(known[:20]) or 'none are labelled'}"
        )
    return keep


def cut_events(
    recording: Recording, signal: SignalConfig, channels: int, samples: int
) -> tuple[np.ndarray, list[str], list[str | None]]:
    """A window after every event, filtered, resampled and padded as the training pairs were.

    Args:
        recording: uV. signal: what the model was trained on. channels, samples: shape of a window.

    Returns:
        (n, channels, samples) float32 uV, a name and a label for each; events whose window leaves the recording are left out.
    """
    from eegprep.signals.filters import band_pass, effective_band, resample, scaled
    from eegprep.signals.windows import pad_channels

    stimuli = [event for event in recording.events if not event.is_bad]
    if not stimuli:
        raise DataError(
            f"{recording.name}: has no events, so it is not known when an image was seen",
            "add annotations, or build a corpus and give that",
        )
    if signal.unit != "uV":
        raise ModelError(
            f"the model was trained on EEG in {signal.unit!r}, {recording.name} is in uV",
            "import the recording as pairs in that unit",
        )
    x_CT, sfreq = recording.signal_CT, recording.sfreq
    segments = recording.segments or ((0, x_CT.shape[1]),)
    if signal.band is not None:
        band = effective_band(sfreq, *signal.band)
        assert band is not None
        x_CT = band_pass(x_CT, sfreq, band.low, band.high, segments=segments)
    if signal.sfreq is not None and signal.sfreq != sfreq:
        x_CT = resample(x_CT, sfreq, signal.sfreq, segments=segments)
        segments = tuple(scaled(segment, signal.sfreq / sfreq) for segment in segments)
        sfreq = signal.sfreq
    windows, names, labels = [], [], []
    for event in stimuli:
        first = round((event.onset + (signal.t0 or 0.0)) * sfreq)
        if any(start <= first and first + samples <= stop for start, stop in segments):
            windows.append(x_CT[:, first : first + samples])
            names.append(f"{event.label} at {event.onset:.3f} s")
            labels.append(event.label or None)
    if not windows:
        raise DataError(
            f"{recording.name}: none of {len(stimuli)} events is followed by {samples} samples at {sfreq:g} Hz",
            "use a recording that goes on after its events",
        )
    return pad_channels(np.stack(windows).astype(np.float32), channels), names, labels


def check_shape(source: str, found: tuple[int, int], pipeline: ReadsEEG) -> None:
    """Raises ModelError when (channels, samples) is not what the encoder reads."""
    wanted = (pipeline.encoder.config.channels, pipeline.encoder.config.window)
    if tuple(found) != wanted:
        raise ModelError(
            f"{source}: windows of {found[0]} channels and {found[1]} samples, the model reads {wanted[0]} and {wanted[1]}",
            f"pad and crop with `eegprep pad --channels {wanted[0]} --window {wanted[1]}`, or train a model for this shape",
        )


def check_signal(source: str, sfreq: float | None, unit: str, pipeline: ReadsEEG) -> None:
    """Raises ModelError when rate or unit are not those of the training pairs; unknown rates pass."""
    wanted = pipeline.details.signal
    if sfreq is not None and wanted.sfreq is not None and not math.isclose(sfreq, wanted.sfreq, rel_tol=1e-3):
        raise ModelError(
            f"{source}: sampled at {sfreq:g} Hz, the model was trained at {wanted.sfreq:g} Hz",
            f"resample to {wanted.sfreq:g} Hz first (eegprep filter --resample)",
        )
    if unit != wanted.unit and pipeline.encoder.config.scaling != "robust":
        raise ModelError(
            f"{source}: in {unit!r}, the model was trained on {wanted.unit!r}", "convert the EEG, or train on this unit"
        )
