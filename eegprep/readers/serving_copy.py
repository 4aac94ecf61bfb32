"""Zarr copies of recordings, as `biosigio` writes them and NEMAR serves them: the signal of level 0, scaled.

    <modality>_<rate>hz/0      (channels, samples) int16 or float32; attributes scale and offset: physical = stored * scale + offset
    <modality>_<rate>hz        attribute channels: name, type, unit, usable_for_inference, row_index
    events/                    onset, duration (s), code; attribute label_map

Envelopes for drawing (`view/`) are never read. Unscaled integers look like EEG: a store without scales is refused.
Shapes: C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import obstore
from obstore.store import from_url

from eegprep.errors import SourceError
from eegprep.offline import is_offline
from eegprep.readers.content import OFFSET_UV, Channel, Content, Note, Reading
from eegprep.readers.edf import split_labels
from eegprep.recording import Event
from eegprep.sealed import read_object

SUFFIXES = {".zarr"}
FORMAT, NEWEST = "biosigio-zarr", 2
_FIX = "fetch the copy again, or take the original recording"
_UNREADABLE = (obstore.exceptions.BaseError, OSError, RuntimeError, ValueError, KeyError)
_KINDS = {
    "EEG": "eeg",
    "EOG": "eog",
    "ECG": "ecg",
    "EMG": "emg",
    "TRIG": "stim",
    "TRIGGER": "stim",
    "STIM": "stim",
    "MISC": "misc",
}
# what `biosigio` writes where neither the file nor a channels.tsv says what a channel is; an EDF file seldom does
_UNSTATED = ("OTHER", "")


def read(path: Path, reading: Reading) -> Content:
    """A copy, open.

    Raises:
        SourceError: another store, one without EEG, scales or a part of its signal, or damaged metadata.
    """
    import zarr

    node = read_object(path / "zarr.json")
    attributes = (node or {}).get("attributes", {})
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        held = attributes.get("format") if isinstance(attributes, dict) else None
        raise SourceError(
            f"{path.name}: holds {held!r}, not a copy of a recording ({FORMAT!r})",
            "give recordings; a corpus is read by Corpus.open",
        )
    if not isinstance(attributes.get("format_version"), int | float) or attributes["format_version"] > NEWEST:
        raise SourceError(f"{path.name}: version {attributes.get('format_version')!r} (this release reads up to {NEWEST})", _FIX)
    try:
        root = zarr.open_group(path, mode="r")
        name = eeg_group(path)
        group: Any = root[name]
        array: Any = group["0"]
        return _content(path, name, dict(group.attrs), signal_of(path, name, array), _events(path, root))
    except SourceError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise SourceError(f"{path.name}: damaged, or not a copy of a recording ({reason})", _FIX) from None


def eeg_group(path: Path) -> str:
    """The group with most channels of EEG."""
    found = {}
    for metadata in sorted(path.glob("*/zarr.json")):
        name = metadata.parent.name
        attributes = (read_object(metadata) or {}).get("attributes", {})
        if str(attributes.get("modality", "")).upper() == "EEG":
            found[name] = len(attributes.get("channels", ()))
    if not found:
        raise SourceError(f"{path.name}: 0 groups of EEG (least 1)", "leave it out")
    return max(found, key=lambda name: (found[name], name))


def _content(path: Path, name: str, group: Mapping[str, Any], signal: Signal, events: tuple[Event, ...]) -> Content:
    array = signal.array
    attributes = dict(array.attrs)
    if attributes.get("kind", "signal") != "signal" or array.ndim != 2:
        raise SourceError(f"{path.name}/{name}/0: no signal of channels and samples", _FIX)
    if array.dtype not in (np.dtype("int16"), np.dtype("float32")):
        raise SourceError(f"{path.name}/{name}/0: of type {array.dtype} (int16 or float32)", _FIX)
    rows, samples = (int(size) for size in array.shape)
    scale_C, offset_C = (np.asarray(attributes.get(key, ()), float) for key in ("scale", "offset"))
    if array.dtype == np.dtype("float32") and not len(scale_C):
        scale_C, offset_C = np.ones(rows), np.zeros(rows)
    if len(scale_C) != rows or len(offset_C) != rows or not np.isfinite([*scale_C, *offset_C]).all():
        raise SourceError(f"{path.name}/{name}/0: {len(scale_C)} scales and {len(offset_C)} offsets for {rows} channels", _FIX)
    rate = float(group["rate"])
    usable, left_out = [], []
    for entry in group["channels"]:
        row = int(entry["row_index"])
        if not 0 <= row < rows:
            raise SourceError(f"{path.name}: channel {entry.get('label')!r} is in row {row} of {rows}", _FIX)
        if entry.get("usable_for_inference") is True:
            usable.append((row, entry))
        elif str(entry.get("channel_type", "")).upper() in ("EEG", *_UNSTATED):
            gaps = int(entry.get("nonfinite_samples") or 0)
            why = f"{gaps} samples without a value are filled with zeros" if gaps else "its archive says so"
            left_out.append(Note("not_usable", f"not usable in this copy: {why}", str(entry.get("label")), gaps or None))
    channels = _channels(path, [entry for _, entry in usable], rate)
    own = float(group.get("original_rate") or rate)
    notes = [*left_out, *_origin_note(path, rate, own)]
    places = [row for row, _ in usable]

    def read_rows(chosen: Sequence[int], uv_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stored_CT = signal.read(0, samples)  # one pass over the shards; half the size of what comes of it
        signal_CT, offsets_C = np.empty((len(chosen), samples), np.float32), np.zeros(len(chosen))
        for index, (number, uv) in enumerate(zip(chosen, uv_C, strict=True)):
            row = places[number]
            exact_T = (stored_CT[row].astype(np.float64) * scale_C[row] + offset_C[row]) * uv
            if len(exact_T) and abs(exact_T[0]) > OFFSET_UV:
                offsets_C[index] = np.rint(exact_T[0])
            signal_CT[index] = exact_T - offsets_C[index]
        return signal_CT, offsets_C

    return Content(channels, samples / rate, read_rows, notes=events, findings=tuple(notes))


def _channels(path: Path, entries: Sequence[Mapping[str, Any]], rate: float) -> tuple[Channel, ...]:
    """Channels as the recording itself would give them: where the copy states no kind, the name decides, as it does in an EDF file."""
    labels = [str(entry["label"]) for entry in entries]
    names, kinds, declared = split_labels(labels) if _is_of_edf(path) else (labels, ["eeg"] * len(labels), [False] * len(labels))
    channels = []
    for entry, name, kind, own in zip(entries, names, kinds, declared, strict=True):
        stated = str(entry.get("channel_type", "")).upper()
        known = stated not in _UNSTATED
        channels.append(
            Channel(name, rate, _KINDS.get(stated, "misc") if known else kind, known or own, _unit(entry.get("unit")))
        )
    return tuple(channels)


def _is_of_edf(path: Path) -> bool:
    """Whether the recording is an EDF or BDF file, whose labels hold the kind as well: `EEG Fp1`."""
    attributes = (read_object(path / "zarr.json") or {}).get("attributes", {})
    made_from = attributes.get("recording_metadata")
    source = (read_object(path / "source.json") or {}).get("path") or (made_from or {}).get("source_file")
    return str(source or "").lower().endswith((".edf", ".bdf", ".edf.gz", ".bdf.gz"))


@dataclass(frozen=True)
class Signal:
    """The stored numbers of a copy: in the folder, or, where only its metadata are here, at its archive, read by ranges."""

    path: Path
    array: Any
    url: str = ""

    def read(self, first: int, last: int) -> np.ndarray:
        """(C, last - first) as they are stored.

        Raises:
            SourceError: offline, no answer, or the store of the archive is not the one whose metadata are here.
        """
        if self.url:
            self._require_same()
        stored_CT = self.piece(first, last)
        if self.url:
            self._require_same()  # overwritten in between, the pieces would be of two stores
        return stored_CT

    def piece(self, first: int, last: int) -> np.ndarray:
        """As `read`, for callers that compare what they get with a checksum: nobody asks whether the store is still the same."""
        if not self.url:
            return np.asarray(self.array[:, first:last])
        self._require_online()
        try:
            return np.asarray(self._remote[:, first:last])
        except _UNREADABLE as error:
            raise self._unread(error) from None

    @cached_property
    def _remote(self) -> Any:
        import zarr
        from zarr.storage import ObjectStore

        # a shard is read by ranges: its index, then the chunks that are asked for
        return zarr.open_array(ObjectStore(_store(self.url), read_only=True), path=self.array.path, mode="r")

    def _require_online(self) -> None:
        if is_offline():
            raise SourceError(
                f"{self.path.name}: its signal is at its archive, and this is offline", 'fetch it without copy = "ranges"'
            )

    def _unread(self, error: BaseException) -> SourceError:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        return SourceError(
            f"{self.path.name}: cannot be read from its archive ({reason})", "check the network, then run it again"
        )

    def _require_same(self) -> None:
        self._require_online()
        try:
            content = bytes(obstore.get(_store(self.url), "zarr.json").bytes())
        except _UNREADABLE as error:
            raise self._unread(error) from None
        if content != (self.path / "zarr.json").read_bytes():
            raise SourceError(
                f"{self.path.name}: was overwritten by its archive since its metadata were fetched",
                f"delete {self.path} and fetch it again",
            )


def signal_of(path: Path, name: str, array: Any) -> Signal:
    """Where the signal of the group `name` of the copy at `path` is.

    Raises:
        SourceError: a part of it is missing.
    """
    url = str((read_object(path / "source.json") or {}).get("url") or "")
    if not url:
        _require_whole(path / name / "0", array)
    return Signal(path, array, url)


def _store(url: str) -> Any:
    options: Any = {
        "timeout": "60s",
        "connect_timeout": "15s",
        "allow_http": url.startswith(("http://127.0.0.1", "http://localhost")),
    }
    return from_url(url, client_options=options)


def _origin_note(path: Path, rate: float, own: float) -> list[Note]:
    """Which commit of its archive, and what the copy has lost: it is no original."""
    known = read_object(path / "source.json") or {}
    commit = f" at commit {str(known['commit'])[:12]}" if known.get("commit") else ""
    less = f", {rate:g} of {own:g} Hz" if rate < own else ""
    return [Note("serving_copy", f"read from a copy in 16 bits{less}{commit}", None, rate)]


def _unit(unit: Any) -> str:
    text = str(unit or "")
    return "" if text.lower() in ("n/a", "na", "") else text


def _require_whole(folder: Path, array: Any) -> None:
    """Every file of the signal must be there: zarr would show its fill value instead."""
    shards = array.shards or array.chunks
    columns = -(-int(array.shape[1]) // int(shards[1]))
    rows = -(-int(array.shape[0]) // int(shards[0]))
    for row in range(rows):
        for column in range(columns):
            if not (folder / "c" / str(row) / str(column)).is_file():
                raise SourceError(f"{folder.parent.parent.name}: part {row}/{column} of its signal is missing", _FIX)


def _events(path: Path, root: Any) -> tuple[Event, ...]:
    if "events" not in root:
        return ()
    group: Any = root["events"]
    attributes = dict(group.attrs)
    count = int(attributes.get("n_events") or 0)
    if not count:
        return ()
    onset, duration, code = (np.asarray(group[name][:]) for name in ("onset", "duration", "code"))
    if not len(onset) == len(duration) == len(code) == count:
        raise SourceError(f"{path.name}: {len(onset)} onsets, {len(code)} codes and {count} events", _FIX)
    labels = dict(attributes.get("label_map", {}))
    durations = np.where(np.isfinite(duration), duration, 0.0)
    return tuple(
        Event(float(start), float(length), str(labels.get(str(int(which)), int(which))))
        for start, length, which in zip(onset, durations, code, strict=True)
        if np.isfinite(start)
    )
