"""What a file holds, before anything is chosen from it; and the one place where that becomes a `Recording`.

Every reader gives a `Content`: channels with the kind, unit and rate that the file states, annotations, triggers, pauses. Here it
is decided which of the channels are EEG, in uV, at one rate; which events count; and where windows must not cross. Whatever is
left out becomes a finding. Shapes: C channels, T samples.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eegprep.errors import SourceError
from eegprep.provenance import installed
from eegprep.readers.triggers import near
from eegprep.recording import Event, Finding, Origin, Recording
from eegprep.signals.channels import is_other, misplaced, standard_positions, why_not_eeg

# ours: an offset beyond this is taken off before the conversion to float32, whose steps are 2e-5 uV there, uV
OFFSET_UV = 250.0
# ours: events of two routes (events.tsv, annotations, triggers) closer than this are one event, s
_SAME_EVENT = 0.005
# kinds that are worth a word when they are left out; not triggers, and not the hundreds of sensors of an MEG
_OTHER_KINDS = {
    "eog", "ecg", "emg", "misc", "bio", "resp", "temp", "temperature", "gsr", "sao2", "eyegaze", "pupil", "seeg", "ecog", "dbs",
}  # fmt: skip
# what readers and amplifiers write where a recording has a seam
_SEAM = re.compile(
    r"edge[ _]boundary|bad[ _]boundary|edge$|bad_acq_skip|boundary\s*$|boundary,|new segment\b|dc correction\b|buffer overflow|lost ?samples",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reading:
    """What a person says about files that do not say it themselves, and how their marks are taken.

    bad: whether stretches marked BAD are kept, or rejected as if they had not been recorded.
    sfreq: Hz, unit: of the values, channel_names: for tables and arrays that do not say.
    channel_names also names the EEG channels of a file whose own names are not known as electrodes.
    """

    bad: Literal["keep", "reject"] = "keep"
    sfreq: float | None = None
    unit: str = ""
    channel_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Channel:
    """One channel of a file.

    rate: Hz. kind: as in MNE-Python (eeg, eog, stim, ...). declared: the file states the kind; otherwise it is a reader's default.
    unit: as the file writes it, "" when it does not say. place: m in head coordinates. bad: marked so by the file.
    """

    name: str
    rate: float
    kind: str = "eeg"
    declared: bool = False
    unit: str = ""
    place: tuple[float, float, float] | None = None
    bad: bool = False


@dataclass(frozen=True)
class Note:
    """A finding of a reader, not yet tied to a recording."""

    code: str
    message: str
    channel: str | None = None
    value: float | str | None = None


@dataclass(frozen=True)
class Content:
    """A file, open.

    seconds: of signal. read: rows of `channels` and uV of one unit of each -> (C, T) float32 uV and what was taken off each, uV.
    notes: annotations, seams and BAD marks among them; triggers: of trigger channels; onsets in s of signal.
    pauses: (start, end) s of signal; between them nothing was recorded, and equal values are a seam.
    bands: (low, high) Hz of each channel. private: date and person, read only on request.
    """

    channels: tuple[Channel, ...]
    seconds: float
    read: Callable[[Sequence[int], np.ndarray], tuple[np.ndarray, np.ndarray]]
    notes: tuple[Event, ...] = ()
    triggers: tuple[Event, ...] = ()
    pauses: tuple[tuple[float, float], ...] = ()
    bands: tuple[tuple[float, float], ...] = ()
    findings: tuple[Note, ...] = ()
    line_freq: float | None = None
    private: Callable[[], dict[str, Any]] = field(default=dict)


def to_recording(
    content: Content,
    origin: Origin,
    reading: Reading | None = None,
    *,
    events: Sequence[Event] | None = None,
    keep_private: bool = False,
) -> Recording:
    """The EEG channels of a file as a recording.

    Args:
        events: trials, instead of those that the file holds.

    Raises:
        SourceError: no EEG channel with a unit of voltage, or no sample.
    """
    reading = reading or Reading()
    rows, uv_C, left_out = choose(content.channels, reading, origin.name)
    chosen = [content.channels[row] for row in rows]
    rate = chosen[0].rate
    if content.seconds * rate < 1:
        raise SourceError(f"{origin.name}: 0 samples (least 1)", "leave the recording out")
    signal_CT, offsets_C = content.read(rows, uv_C)
    names = tuple(channel.name for channel in chosen)
    seconds = signal_CT.shape[1] / rate
    events_in_file = [note for note in content.notes if not is_seam(note)]
    kept, outside = inside(merge(events_in_file, content.triggers, rate), seconds) if events is None else (list(events), [])
    notes = [*content.findings, *left_out, *outside_note(outside, kept, seconds)]
    places_C3, misplaced_notes = _positions(chosen)
    notes += misplaced_notes
    notes += bad_note(kept, reading)
    notes += [Note("marked_bad", "marked as bad in the source", channel.name) for channel in chosen if channel.bad]
    # the band that all channels share
    lows, highs = zip(*(content.bands[row] for row in rows), strict=True) if content.bands else ((0.0,), (rate / 2,))
    return Recording(
        signal_CT=signal_CT,
        sfreq=rate,
        channels=names,
        dataset=origin.dataset,
        subject=origin.subject,
        session=origin.session,
        run=origin.run,
        positions_C3=places_C3,
        original_sfreq=rate,
        events=tuple(kept),
        segments=stretches(content, kept, rate, signal_CT.shape[1], reading.bad == "reject"),
        sources=origin.sources,
        licence=origin.licence,
        doi=origin.doi,
        reference=origin.reference,
        line_freq=origin.line_freq if content.line_freq is None else content.line_freq,
        band=(max(lows), min(highs)),
        person=origin.person or f"{origin.dataset}/{origin.subject}",
        findings=tuple(finding(note, origin.name) for note in notes),
        software=installed("mne"),
        offsets=tuple(offsets_C.tolist()) if offsets_C.any() else (),
        header=content.private() if keep_private else {},
        named=tuple(name for name in names if is_other(name)) if reading.channel_names else (),
    )


def choose(channels: Sequence[Channel], reading: Reading, name: str) -> tuple[list[int], np.ndarray, list[Note]]:
    """Which channels are EEG in a unit of voltage and of one rate: their rows, uV of one unit of each, and what was left out.

    Raises:
        SourceError: none is.
    """
    left_out: list[Note] = []
    rows = _eeg_rows(channels, reading, name, left_out)
    uv_C = {}
    for row in rows:
        factor = uv_of(channels[row].unit)
        if factor is None and reading.unit and not _other_quantity(channels[row].unit):
            factor = uv_of(reading.unit)
        if factor is None:
            unit = channels[row].unit
            problem = f"its unit {unit!r} is no voltage" if unit else "its unit is missing"
            left_out.append(Note("unit", problem, channels[row].name, unit))
        else:
            uv_C[row] = factor
    rates = Counter(channels[row].rate for row in uv_C)
    if not rates:
        raise _nothing_left(channels, left_out, name)
    # the rate that most channels have; of two that are as frequent, the higher
    rate = max(rates, key=lambda value: (rates[value], value))
    for row in uv_C:
        if channels[row].rate != rate:
            problem = f"recorded at {channels[row].rate:g} Hz, most EEG channels at {rate:g} Hz"
            left_out.append(Note("rate", problem, channels[row].name, channels[row].rate))
    kept = [row for row in uv_C if channels[row].rate == rate]
    return kept, np.array([uv_C[row] for row in kept]), left_out


def _eeg_rows(channels: Sequence[Channel], reading: Reading, name: str, left_out: list[Note]) -> list[int]:
    """Rows that are EEG by what the file, the person or the name says."""
    if reading.channel_names:
        chosen = {text.strip().casefold() for text in reading.channel_names}
        rows = [row for row, channel in enumerate(channels) if channel.name.strip().casefold() in chosen]
        if not rows:
            there = ", ".join(channel.name for channel in channels[:12])
            raise SourceError(
                f"{name}: 0 of {len(chosen)} channels of --channel-names are in the file (it has {there})",
                "name channels of the file in --channel-names",
            )
        if len(rows) < len(chosen):
            left_out.append(Note("channel_names", f"{len(rows)} of {len(chosen)} channels of --channel-names are in the file"))
        left_out += [
            Note("not_eeg", "is not among --channel-names", channel.name)
            for row, channel in enumerate(channels)
            if channel.kind == "eeg" and row not in rows
        ]
        return rows
    left_out += [
        Note("not_eeg", f"declared as {channel.kind}", channel.name) for channel in channels if channel.kind in _OTHER_KINDS
    ]
    candidates = [row for row, channel in enumerate(channels) if channel.kind == "eeg"]
    considered = [channels[row] for row in candidates]
    reasons = why_not_eeg(
        [channel.name for channel in considered],
        [channel.declared for channel in considered],
        [channel.place is not None for channel in considered],
    )
    left_out += [Note("not_eeg", reason, channel.name) for channel, reason in zip(considered, reasons, strict=True) if reason]
    return [row for row, reason in zip(candidates, reasons, strict=True) if not reason]


def _nothing_left(channels: Sequence[Channel], left_out: Sequence[Note], name: str) -> SourceError:
    kinds = ", ".join(sorted({channel.kind for channel in channels})) or "none"
    because = f"; {left_out[0].channel}: {left_out[0].message}" if left_out else ""
    silent = any(note.code == "unit" and not _other_quantity(str(note.value)) for note in left_out)
    unknown = any(note.code == "not_eeg" for note in left_out)
    fix = (
        "say in which unit the values are: --unit uV, mV or V"
        if silent
        else "name the channels that are EEG with --channel-names, if there are any"
        if unknown
        else "leave the recording out, or set the channel types in the file"
    )
    return SourceError(f"{name}: 0 of {len(channels)} channels are EEG (least 1; types found: {kinds}{because})", fix)


# the micro sign as UTF-8 read as Latin-1, as the Greek letter read so, in Shift-JIS, and both letters themselves
_MICRO = re.compile("^(\u00c2\u00b5|\u00ce\u00bc|\u0083\u00ca|\u00b5|\u03bc|micro|mu(?=v))", re.IGNORECASE)
# no "MV": it may be meant as milli or as mega
_UV = {"V": 1e6, "v": 1e6, "mV": 1e3, "mv": 1e3, "uV": 1.0, "uv": 1.0, "UV": 1.0, "Uv": 1.0, "nV": 1e-3, "nv": 1e-3}


@lru_cache(maxsize=1024)
def uv_of(unit: str) -> float | None:
    """uV of one `unit`; None when it is no voltage, missing, or cannot be made out (`MV` may be either of two)."""
    text = _MICRO.sub("u", unit.strip().strip("[]()").strip())
    text = re.sub(r"volts?$", "V", text, flags=re.IGNORECASE)
    text = re.sub(r"^milli(?=V$)", "m", re.sub(r"^nano(?=V$)", "n", text, flags=re.IGNORECASE), flags=re.IGNORECASE)
    return _UV.get(text)


def _other_quantity(unit: str) -> bool:
    """Whether a unit that is no voltage says that plainly; an empty or garbled one does not."""
    return (
        bool(unit.strip())
        and not unit.strip().casefold().endswith("v")
        and unit.strip().casefold() not in ("n/a", "none", "?", "unknown")
    )


def is_seam(note: Event) -> bool:
    """Whether a text marks a place that nothing may cross."""
    return _SEAM.match(note.label) is not None


def merge(first: Sequence[Event], second: Sequence[Event], rate: float) -> list[Event]:
    """Events of two routes that describe one recording; what `first` already has is not taken from `second` again.

    A mark of a bad stretch is not an event: it hides none.
    """
    if not second:
        return list(first)
    times = np.sort([event.onset for event in first if not event.is_bad])
    repeated_N = near(np.array([event.onset for event in second]), times, max(_SAME_EVENT, 1.5 / rate))
    added = [event for event, repeated in zip(second, repeated_N, strict=True) if not repeated or event.is_bad]
    return sorted([*first, *added], key=lambda event: (event.onset, event.duration))


def inside(events: Sequence[Event], seconds: float) -> tuple[list[Event], list[Event]]:
    """Events clipped to the signal, and those that lie wholly outside it."""
    kept, outside = [], []
    for event in events:
        stop = event.onset + event.duration
        if event.onset >= seconds or stop < 0 or (event.onset < 0 and stop == 0):
            outside.append(event)
        elif event.onset < 0 or stop > seconds + 1e-9:
            onset = max(event.onset, 0.0)
            kept.append(Event(round(onset, 9), round(min(stop, seconds) - onset, 9), event.label))
        else:
            kept.append(replace(event, onset=round(event.onset, 9)))
    return kept, outside


def outside_note(outside: Sequence[Event], kept: Sequence[Event], seconds: float) -> list[Note]:
    """A finding about events that lie outside the signal."""
    if not outside:
        return []
    total, first = len(outside) + len(kept), outside[0]
    message = f"{len(outside)} of {total} events lie outside the signal of {seconds:g} s (the first, {first.label!r}, at {first.onset:g} s)"
    # BIDS asks for seconds, and some events.tsv hold milliseconds
    if len(outside) > len(kept) and all(0 <= event.onset / 1000 < seconds for event in outside):
        message += "; they would fit as milliseconds"
    return [Note("events_outside", message, None, first.onset)]


def bad_note(events: Sequence[Event], reading: Reading) -> list[Note]:
    """A finding about stretches that are marked bad, and what became of them."""
    spans = [event.duration for event in events if event.is_bad and event.duration > 0]
    if not spans:
        return []
    done = "taken as not recorded (--bad reject)" if reading.bad == "reject" else "kept; --bad reject takes them as not recorded"
    return [Note("bad_spans", f"{len(spans)} stretches, {sum(spans):g} s, are marked bad: {done}", None, round(sum(spans), 9))]


def stretches(
    content: Content, events: Sequence[Event], rate: float, n_samples: int, reject: bool
) -> tuple[tuple[int, int], ...]:
    """Sample ranges that were recorded in one go (and, with `reject`, are not marked bad)."""
    cuts: list[tuple[int, int]] = []
    pauses = list(content.pauses)
    for note in content.notes:
        if is_seam(note):
            # only this mark has samples under it, which MNE-Python fills with zeros; the others stand at a seam
            lost = note.duration if note.label.lower().startswith("bad_acq_skip") else 0.0
            pauses.append((note.onset, note.onset + lost))
    for start, stop in pauses:
        # a seam between two samples (EEGLAB writes 2999.5) lies before the later one
        cuts.append(
            (math.ceil(start * rate - 1e-3), round(stop * rate)) if stop > start else (math.ceil(start * rate - 1e-3),) * 2
        )
    if reject:
        cuts += [
            (math.floor(e.onset * rate), math.ceil((e.onset + e.duration) * rate - 1e-6))
            for e in events
            if e.is_bad and e.duration > 0
        ]
    kept, start = [], 0
    for first, last in sorted(cuts):
        if min(first, n_samples) > start:
            kept.append((start, min(first, n_samples)))
        start = max(start, last)
    if start < n_samples:
        kept.append((start, n_samples))
    return tuple(kept)


def both(one: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sample ranges that lie in a range of each."""
    shared = [(max(a, c), min(b, d)) for a, b in one for c, d in other]
    return tuple(sorted((first, last) for first, last in shared if first < last))


def needs_package(path: Path, package: str) -> SourceError:
    """The reader of this format is a package that is not installed."""
    return SourceError(
        f"{path.name}: reading this format needs the package {package}, which is not installed", f"pip install {package}"
    )


def finding(note: Note, recording: str) -> Finding:
    """A reader's note as a finding about a recording."""
    dropped = note.channel is not None and note.code != "marked_bad"
    return Finding(note.code, recording, note.channel, note.value, None, "dropped channel" if dropped else "noted", note.message)


def _positions(channels: Sequence[Channel]) -> tuple[np.ndarray, list[Note]]:
    """(C, 3) m in head coordinates: what the file says, else the standard place of that name, else NaN.

    A place that cannot be an electrode's counts as unknown and is named: the file's word on it is not replaced by another's.
    """
    places_C3 = standard_positions([channel.name for channel in channels])
    given = [row for row, channel in enumerate(channels) if channel.place is not None]
    for row in given:
        places_C3[row] = channels[row].place
    wrong: dict[str, list[str]] = {}
    for row, reason in zip(given, misplaced(places_C3[given]), strict=True):
        if reason:
            places_C3[row] = np.nan
            wrong.setdefault(reason, []).append(channels[row].name)
    notes = [
        Note("positions", f"{len(names)} of {len(channels)} electrodes lie {reason}, so their places are not known: {', '.join(names[:3])}"
             f"{', ...' if len(names) > 3 else ''}")
        for reason, names in wrong.items()
    ]  # fmt: skip
    return places_C3, notes


def signal_reader(values_CT: np.ndarray) -> Callable[[Sequence[int], np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A `Content.read` for a signal that is in memory, in float64 and in the file's unit."""

    def read(rows: Sequence[int], uv_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        signal_CT = np.empty((len(rows), values_CT.shape[1]), np.float32)
        offsets_C = np.zeros(len(rows))
        for index, (row, uv) in enumerate(zip(rows, uv_C, strict=True)):
            exact_T = values_CT[row] * uv
            first = exact_T[np.isfinite(exact_T)][:1]
            if len(first) and abs(first[0]) > OFFSET_UV:
                # a whole number of uV: short in the metadata, and exact as text
                offsets_C[index] = np.rint(first[0])
            signal_CT[index] = exact_T - offsets_C[index]
        return signal_CT, offsets_C

    return read
