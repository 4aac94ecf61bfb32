"""XDF files of LabStreamingLayer, where `pyxdf` is installed. Shapes: C channels, T samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eegprep.errors import SourceError
from eegprep.readers.content import Channel, Content, Note, Reading, merge, needs_package, signal_reader
from eegprep.readers.tables import rate_of
from eegprep.recording import Event

SUFFIXES = {".xdf", ".xdfz"}


def read(path: Path, reading: Reading) -> Content:
    """The EEG stream of a file with the events of its marker streams.

    Raises:
        SourceError: `pyxdf` is not installed, or no stream is EEG.
    """
    try:
        import pyxdf
    except ImportError:
        raise needs_package(path, "pyxdf") from None
    streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False, verbose=False)
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
        found = []
        for time, value in zip(other["time_stamps"], other["time_series"], strict=True):
            row = int(np.searchsorted(stamps_T, time - 0.5 / sfreq)) if stamps_T[0] - 1 <= time <= stamps_T[-1] + 1 else -1
            onset = float(time - stamps_T[0]) if row < 0 else row / sfreq
            found.append(Event(round(onset, 9), 0.0, str(np.atleast_1d(np.asarray(value, object))[0])))
        events = merge(events, sorted(found, key=lambda event: event.onset), sfreq)
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
