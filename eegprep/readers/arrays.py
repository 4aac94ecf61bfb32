"""Plain arrays in `.mat` and `.npy` files, and FieldTrip structures: the numbers without what a recording format says about them.

Shapes: C channels, T samples, E trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eegprep.errors import SourceError
from eegprep.readers.content import Channel, Content, Note, Reading, signal_reader

SUFFIXES = {".mat", ".npy"}
_RATE_NAMES = ("sfreq", "srate", "fs", "fsample", "sampling_rate", "samplerate", "sample_rate")
_NAME_NAMES = (
    "channel_names",
    "ch_names",
    "chan_names",
    "channels",
    "channel_labels",
    "labels",
    "label",
    "chans",
    "chanlabels",
    "electrodes",
)
# ours: an array with fewer samples than this is no signal
_LEAST_SAMPLES = 32


@dataclass
class _Found:
    """What a file of arrays holds. trial_CT: one (C, T) array for each stretch; names and sfreq where the file has them."""

    where: str
    trials: list[np.ndarray]
    sfreq: float | None = None
    names: list[str] = field(default_factory=list)


def read(path: Path, reading: Reading) -> Content:
    """An array as `Content`; what the file does not say has to be said with --sfreq, --unit and --channel-names.

    Raises:
        SourceError: no array of numbers that can be a signal, or its rate or unit is not known.
    """
    variables = _variables(path)
    data = _fieldtrip(variables) or _plain(path.name, variables, reading)
    n_channels = data.trials[0].shape[0]
    sfreq = reading.sfreq or data.sfreq
    names = list(reading.channel_names) or data.names
    shape = " x ".join(str(size) for size in data.trials[0].shape) + (
        f", {len(data.trials)} trials" if len(data.trials) > 1 else ""
    )
    missing = [
        option
        for option, known in (("--sfreq HZ", sfreq), ("--unit uV", reading.unit), ("--channel-names A,B,...", names))
        if not known
    ]
    if sfreq is None or not reading.unit:
        raise SourceError(
            f"{path.name}: the array {data.where} ({shape}) comes without {' and '.join(_SAYS[option[:6]] for option in missing)}",
            f"say what the file does not: {' '.join(missing)} (options of eegprep fetch and build; for other commands save it as EDF or FIF)",
        )
    notes = [Note("array", f"read the array {data.where} ({shape}) at {sfreq:g} Hz in {reading.unit}")]
    if names and len(names) != n_channels:
        raise SourceError(
            f"{path.name}: {len(names)} channel names for an array of {shape}",
            "give one name for each channel in --channel-names",
        )
    if not names:
        names = [f"ch{number}" for number in range(1, n_channels + 1)]
        notes.append(Note("channel_names", "the array has no channel names; --channel-names gives them"))
    signal_CT = np.concatenate(data.trials, axis=1).astype(np.float64)
    ends = np.cumsum([trial.shape[1] for trial in data.trials])[:-1] / sfreq
    return Content(
        channels=tuple(Channel(name, float(sfreq), declared=bool(reading.channel_names), unit=reading.unit) for name in names),
        seconds=signal_CT.shape[1] / sfreq,
        read=signal_reader(signal_CT),
        pauses=tuple((float(end), float(end)) for end in ends),
        findings=tuple(notes),
    )


_SAYS = {"--sfre": "its rate (sfreq)", "--unit": "its unit", "--chan": "its channel names"}


def _variables(path: Path) -> Mapping[str, Any]:
    """Everything in the file by name; structures as dictionaries."""
    try:
        if path.suffix.lower() == ".npy":
            # a pickled array could run code
            return {path.stem: np.load(path, allow_pickle=False)}
        with path.open("rb") as file:
            hdf5 = file.read(520)[512:520] == b"\x89HDF\r\n\x1a\n" or (file.seek(0) == 0 and file.read(8) == b"\x89HDF\r\n\x1a\n")
        if hdf5:
            return _hdf5(path)
        from scipy.io import loadmat

        loaded = loadmat(path, simplify_cells=True)
        return {name: value for name, value in loaded.items() if not name.startswith("__")}
    except Exception as error:  # anything, from ValueError to zlib.error
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SourceError(
            f"{path.name}: not a file of arrays that can be read ({reason})", "give an EEG file, or leave it out"
        ) from None


def _hdf5(path: Path) -> Mapping[str, Any]:
    """Arrays of a MATLAB 7.3 file in MATLAB's order of axes; texts where the file marks them as text."""
    import h5py

    variables: dict[str, object] = {}
    with h5py.File(path, "r") as file:

        def take(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset) and not name.startswith("#"):
                kind = node.attrs.get("MATLAB_class", b"").decode() if isinstance(node.attrs.get("MATLAB_class"), bytes) else ""
                if node.dtype.kind == "O":
                    texts = [
                        "".join(map(chr, np.asarray(file[ref]).ravel()))
                        for ref in np.asarray(node).ravel()
                        if file[ref].dtype.kind in "ui"
                    ]
                    variables[name.rpartition("/")[2]] = texts
                elif kind == "char":
                    variables[name.rpartition("/")[2]] = "".join(map(chr, np.asarray(node).T.ravel()))
                elif node.dtype.kind in "fiu":
                    # HDF5 holds MATLAB's axes in reverse
                    variables[name.rpartition("/")[2]] = np.asarray(node).T

        file.visititems(take)
    return variables


def _flat(variables: Mapping[str, Any], prefix: str = "") -> Mapping[str, Any]:
    """Variables with those inside structures, `eeg.data`."""
    flat: dict[str, object] = {}
    for name, value in variables.items():
        flat[prefix + name] = value
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
    return flat


def _fieldtrip(variables: Mapping[str, Any]) -> _Found | None:
    """A raw data structure of FieldTrip: label, trial, time."""
    for name, value in _flat(variables).items():
        if isinstance(value, dict) and {"label", "trial", "time"} <= set(value):
            trials, times = value["trial"], value["time"]
            trials = [trials] if getattr(trials, "ndim", 0) == 2 else list(trials)
            times = [times] if getattr(times, "ndim", 0) == 1 and np.asarray(times).dtype != object else list(times)
            step = float(np.median(np.diff(np.asarray(times[0], float))))
            # FieldTrip deprecates fsample: newer structures have only the time axis
            rate = float(value["fsample"]) if np.size(value.get("fsample", ())) == 1 else round(1 / step, 6)
            labels = [str(label) for label in np.atleast_1d(value["label"])]
            return _Found(name, [np.asarray(trial, float) for trial in trials], rate, labels)
    return None


def _plain(name: str, variables: Mapping[str, Any], reading: Reading) -> _Found:
    """The largest array of numbers with two or three axes, and a rate and names beside it."""
    flat = _flat(variables)
    arrays = {
        key: value
        for key, value in flat.items()
        if isinstance(value, np.ndarray)
        and value.dtype.kind in "fiu"
        and value.ndim in (2, 3)
        and max(value.shape) >= _LEAST_SAMPLES
        and min(value.shape) >= 1
    }
    if not arrays:
        there = ", ".join(list(flat)[:8]) or "nothing"
        raise SourceError(
            f"{name}: 0 arrays of channels by samples (least 1; it holds {there})", "give a file with such an array"
        )
    count = len(reading.channel_names) or len(_names(flat))
    # an array with as many rows as there are names wins over a larger one, such as a spectrogram
    where = max(arrays, key=lambda key: (bool(count) and count in arrays[key].shape, arrays[key].size))
    array = arrays[where]
    # the axis that has as many entries as there are names is that of the channels, else the shortest
    sizes = list(array.shape)
    axis = sizes.index(count) if count in sizes else int(np.argmin(sizes)) if array.ndim == 2 else _channel_axis(sizes)
    moved = np.moveaxis(array, axis, 0)
    if array.ndim == 2:
        trials = [moved]
    else:  # the longer of the two others is time
        moved = moved if moved.shape[1] >= moved.shape[2] else moved.swapaxes(1, 2)
        trials = [moved[:, :, number] for number in range(moved.shape[2])]
    rate = next(
        (float(np.asarray(value).ravel()[0]) for key, value in flat.items()
         if key.rpartition(".")[2].casefold() in _RATE_NAMES and np.size(value) == 1 and np.asarray(value).dtype.kind in "fiu"),
        None,
    )  # fmt: skip
    names = _names(flat)
    return _Found(where, trials, rate, names if len(names) == array.shape[axis] else [])


def _channel_axis(sizes: list[int]) -> int:
    """MATLAB writes channels x samples x trials, Python trials x channels x samples."""
    return 1 if sizes[2] > sizes[1] else 0


def _names(flat: Mapping[str, Any]) -> list[str]:
    for key, value in flat.items():
        if key.rpartition(".")[2].casefold() == "chanlocs" and isinstance(value, list | np.ndarray) and len(value):
            labels = [item.get("labels") for item in value if isinstance(item, dict)]  # as EEGLAB keeps them
            if len(labels) == len(value) and all(isinstance(label, str) for label in labels):
                return [str(label).strip() for label in labels]
    for key, value in flat.items():
        if key.rpartition(".")[2].casefold() in _NAME_NAMES and not isinstance(value, dict):
            items = np.atleast_1d(np.asarray(value, dtype=object)).ravel().tolist()
            if items and all(isinstance(item, str) for item in items):
                return [item.strip() for item in items]
    return []
