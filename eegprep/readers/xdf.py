"""XDF files of LabStreamingLayer, where `pyxdf` is installed. Shapes: C channels, T samples."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from eegprep.errors import SourceError
from eegprep.readers.content import Channel, Content, Note, Reading, merge, needs_package, signal_reader
from eegprep.readers.tables import rate_of
from eegprep.recording import Event

SUFFIXES = {".xdf", ".xdfz"}


def read(path: Path, reading: Reading) -> Content:
    """The EEG stream of a file with the events of its marker streams.

    Raises:
        SourceError: `pyxdf` is not installed, the file is damaged, or no stream is EEG.
    """
    try:
        import pyxdf
    except ImportError:
        raise needs_package(path, "pyxdf") from None
    try:
        with gzip.open(path) if path.suffix.lower() == ".xdfz" else path.open("rb") as file:
            _check_promises(cast("IO[bytes]", file))
        streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False, verbose=False)
        return _content(path, streams, reading)
    except SourceError:
        raise
    except Exception as error:  # of the reader, of XML and of gzip: each damage has its own
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SourceError(
            f"{path.name}: damaged, or not an XDF file ({reason})", "copy the file again, or leave it out"
        ) from None


def _check_promises(file: IO[bytes]) -> None:
    """Raise ValueError where a chunk promises more samples than its bytes can hold: the reader makes room for all of them first."""
    if file.read(4) != b"XDF:":
        raise ValueError("it does not begin with XDF:")
    row_bytes: dict[bytes, int] = {}
    while head := file.read(1):
        length = _number(file, head)
        start, tag = file.tell(), file.read(2)
        if tag == b"\2\0":
            stream, text = file.read(4), file.read(min(length, 1 << 20))
            count, kind = (re.search(rb"<%s>\s*(\w+)\s*</" % name, text) for name in (b"channel_count", b"channel_format"))
            sizes = {b"string": 1, b"int8": 1, b"int16": 2, b"int32": 4, b"float32": 4}
            row_bytes[stream] = 1 + (int(count[1]) if count else 1) * (sizes.get(kind[1], 8) if kind else 1)
        elif tag == b"\3\0":
            stream = file.read(4)
            samples, least = _number(file, file.read(1)), row_bytes.get(stream, 2)
            if samples * least > length:
                raise ValueError(f"{samples:,} samples of at least {least} bytes are promised in {length:,} bytes")
        file.seek(start + length)


def _number(file: IO[bytes], head: bytes) -> int:
    """A whole number of XDF, whose first byte says how many bytes follow."""
    if head not in (b"\1", b"\4", b"\10"):
        raise ValueError("a length is damaged")
    return int.from_bytes(file.read(head[0]), "little")


def _content(path: Path, streams: Sequence[Mapping[str, Any]], reading: Reading) -> Content:
    signals = [stream for stream in streams if _text(stream, "type").casefold() == "eeg" and np.ndim(stream["time_series"]) == 2]
    if not signals:
        kinds = ", ".join(sorted({_text(stream, "type") or "none" for stream in streams})) or "none"
        raise SourceError(
            f"{path.name}: 0 of {len(streams)} streams are EEG (least 1; types: {kinds})", "give a file with an EEG stream"
        )
    stream = max(signals, key=lambda item: np.size(item["time_series"]))
    values_CT = np.asarray(stream["time_series"], np.float64).T
    stamps_T = np.asarray(stream["time_stamps"], np.float64)
    nominal = float(_text(stream, "nominal_srate") or 0) or None
    sfreq, _, gaps = rate_of(stamps_T, reading.sfreq or nominal)
    notes = []
    if len(signals) > 1:
        notes.append(Note("streams", f"{len(signals)} EEG streams; {_text(stream, 'name')!r}, the largest, was read"))
    channels = []
    for number in range(len(values_CT)):
        about = _described(stream, number)
        unit = {"microvolts": "uV", "millivolts": "mV", "volts": "V"}.get(about["unit"].casefold(), about["unit"])
        kind = about["type"].casefold() or "eeg"
        kind = {"": "eeg", "markers": "stim", "trigger": "stim"}.get(kind, kind)
        channels.append(Channel(about["label"] or f"ch{number + 1}", sfreq, kind, bool(about["type"]), unit))
    events: list[Event] = []
    for other in streams:
        if other is stream or _text(other, "type").casefold() not in ("markers", "marker", "events", "stim"):
            continue
        markers = []
        for time, value in zip(other["time_stamps"], other["time_series"], strict=True):
            row = int(np.searchsorted(stamps_T, time - 0.5 / sfreq)) if stamps_T[0] - 1 <= time <= stamps_T[-1] + 1 else -1
            onset = float(time - stamps_T[0]) if row < 0 else row / sfreq
            markers.append(Event(round(onset, 9), 0.0, str(np.atleast_1d(np.asarray(value, object))[0])))
        events = merge(events, sorted(markers, key=lambda event: event.onset), sfreq)
    return Content(
        channels=tuple(channels),
        seconds=values_CT.shape[1] / sfreq,
        read=signal_reader(values_CT),
        triggers=tuple(events),
        pauses=tuple((row / sfreq, row / sfreq) for row in gaps),
        findings=tuple(notes),
    )


def _text(stream: Mapping[str, Any], name: str) -> str:
    return str((stream["info"].get(name) or [""])[0] or "")


def _described(stream: Mapping[str, Any], number: int) -> dict[str, str]:
    """Label, type and unit of a channel as the stream describes it."""
    try:
        about = stream["info"]["desc"][0]["channels"][0]["channel"][number]
    except (KeyError, IndexError, TypeError):
        about = {}
    return {name: str((about.get(name) or [""])[0] or "").strip() for name in ("label", "type", "unit")}
