"""What the text files of BIDS say of a recording: types and bad channels, events, positions, line frequency.

The signal decides: a sidecar that is empty, in another order, or odd in another way is a finding and never costs the recording.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from eegprep.readers.content import Channel, Content, Note, is_seam, merge, uv_of
from eegprep.recording import Event
from eegprep.signals.channels import canonical_name
from eegprep.sources.bids import Sidecars
from eegprep.sources.companions import decode, unreadable

# channel types of the standard, and those that people write, as MNE-Python calls them
_TYPES = {
    "EEG": "eeg", "EOG": "eog", "VEOG": "eog", "HEOG": "eog", "ECG": "ecg", "EKG": "ecg", "EMG": "emg", "TRIG": "stim", "STIM": "stim",
    "RESP": "resp", "TEMP": "temperature", "GSR": "gsr", "SEEG": "seeg", "ECOG": "ecog", "DBS": "dbs",
}  # fmt: skip
_OTHER = {"MISC", "REF", "OTHER", "AUDIO", "EYEGAZE", "PUPIL", "PPG", "SYSCLOCK", "ADC", "DAC", "PD", "PHOTO"}
_UNSAID = {"", "n/a", "na", "nan", "none"}
# coordinate systems whose first axis points to the front and whose second points left
_FRONT_LEFT_UP = {"ctf", "eeglab", "eeglab-hj", "als", "4dbti", "kityokogawa"}
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}


@dataclass
class _Oddities:
    """What was odd in the sidecars of one recording."""

    notes: list[Note] = field(default_factory=list)

    def note(self, message: str) -> None:
        self.notes.append(Note("sidecar", message))


def with_sidecars(content: Content, sidecars: Sidecars) -> tuple[Content, str]:
    """A file with what its sidecars say, and the reference that they name ("" for none)."""
    oddities = _Oddities()
    settings: dict[str, object] = {}
    for path in sidecars.description:
        # nearer files come later and win: the inheritance of BIDS
        settings.update(_json(path, oddities))
    rates = Counter(channel.rate for channel in content.channels)
    # the rate of most channels; of a tie the higher, which is that of the EEG rather than of a slow sensor
    rate = max(rates, key=lambda value: (rates[value], value), default=1.0)
    channels = list(content.channels)
    if sidecars.channels is not None:
        channels = _typed(channels, sidecars.channels, oddities)
    if sidecars.electrodes is not None:
        channels = _placed(channels, sidecars.electrodes, sidecars.coordsystem, oddities)
    notes = content.notes
    if sidecars.events is not None:
        events = _events(sidecars.events, rate, oddities)
        seams = tuple(note for note in (*notes, *events) if is_seam(note))
        own = [note for note in notes if not is_seam(note)]
        notes = (*merge([note for note in events if not is_seam(note)], own, rate), *seams)
    reference = settings.get("EEGReference")
    named = reference if isinstance(reference, str) and reference.strip().lower() not in _UNSAID else ""
    frequency = _line_frequency(settings, rate, oddities)
    content = replace(content, channels=tuple(channels), notes=notes, line_freq=frequency or content.line_freq)
    return replace(content, findings=(*content.findings, *oddities.notes)), named


def _json(path: Path, oddities: _Oddities) -> Mapping[str, Any]:
    try:
        content = json.loads(decode(path.read_bytes()))
        if isinstance(content, dict):
            return content
        reason = f"{path.name} is not a JSON object"
    except OSError as error:
        reason = unreadable(path, error).problem
    except (ValueError, RecursionError) as error:
        reason = f"{path.name} is not JSON ({str(error)[:80]})"
    oddities.note(f"{reason}; not used")
    return {}


def _line_frequency(settings: Mapping[str, Any], own: float, oddities: _Oddities) -> float | None:
    rate = _number(settings.get("SamplingFrequency"))
    if rate is not None and abs(rate - own) > 0.01 * own:
        oddities.note(f"SamplingFrequency is {rate:g} Hz in the description and {own:g} Hz in the recording, which is used")
    value = settings.get("PowerLineFrequency")
    number = _number(value)
    if number is not None and 0 < number < 1000:
        return number
    if value is not None and str(value).strip().lower() not in _UNSAID:
        oddities.note(f"PowerLineFrequency {str(value)[:40]!r} is no frequency; not used")
    return None


def _number(value: Any) -> float | None:
    """A finite number, from text too."""
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return number if np.isfinite(number) else None


@dataclass(frozen=True)
class Table:
    """A table of text; cells that a row lacks are empty."""

    columns: dict[str, list[str]]
    rows: int

    def cell(self, column: str, row: int) -> str:
        """Text of a cell, "" where there is no such column."""
        return self.columns[column][row] if column in self.columns else ""


def read_table(path: Path, needed: Sequence[str], oddities: _Oddities) -> Table | None:
    """A TSV file, or one with commas or semicolons, which is noted; None, with a note, when it has not what is needed.

    Args:
        needed: names of columns, one of which must be there.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        oddities.note(f"{unreadable(path, error).problem}; not used")
        return None
    text = content.decode("utf-16") if content[:2] in (b"\xff\xfe", b"\xfe\xff") else decode(content)
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]
    if not lines:
        oddities.note(f"{path.name} is empty ({len(content)} bytes), so there is no column {needed[0]!r}; not used")
        return None
    # commas last: they occur inside cells
    mark = next((mark for mark in ("\t", ";", ",") if mark in lines[0]), "\t")
    names = [name.strip().strip('"').lower() for name in lines[0].split(mark)]
    if not set(needed) & set(names):
        listed = ", ".join(names[:8])
        oddities.note(f"{path.name} has no column {needed[0]!r} (its columns: {listed}); not used")
        return None
    if mark != "\t" and len(names) > 1:
        oddities.note(
            f"{path.name} has {'commas' if mark == ',' else 'semicolons'} between its columns where the standard has tabs"
        )
    rows = [[cell.strip().strip('"') for cell in line.split(mark)] for line in lines[1:]]
    if mark == ";":  # spreadsheets that separate by semicolons write decimal commas
        rows = [[re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) for cell in row] for row in rows]
    ragged = sum(1 for row in rows if len(row) != len(names))
    if ragged:
        oddities.note(f"{path.name}: {ragged} of {len(rows)} rows have not {len(names)} cells")
    return Table({name: [row[k] if k < len(row) else "" for row in rows] for k, name in enumerate(names)}, len(rows))


# ----------------------------------------------------------------------------------------------------------- channels


def _typed(channels: Sequence[Channel], path: Path, oddities: _Oddities) -> list[Channel]:
    """Types, bad channels and missing units, row by name: the order of the rows says nothing."""
    table = read_table(path, ["name"], oddities)
    if table is None:
        return list(channels)
    own, names = [channel.name for channel in channels], table.columns["name"]
    rows = match_names(own, names)
    if not rows:
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            oddities.note(f"{path.name} names {twice} twice")
        oddities.note(f"{path.name} names none of the {len(own)} channels ({', '.join(names[:3])}, ...); not used")
        return list(channels)
    _note_differences(own, names, rows, path, oddities)
    strange: Counter[str] = Counter()

    def described(channel: Channel) -> Channel:
        row = rows.get(channel.name)
        if row is None:
            return channel
        kind, unit, status = (table.cell(name, row) for name in ("type", "units", "status"))
        if kind.lower() not in _UNSAID:
            if kind.upper() not in _TYPES and kind.upper() not in _OTHER:
                strange[kind] += 1
            channel = replace(channel, kind=_TYPES.get(kind.upper(), "misc"), declared=True)
        if not channel.unit.strip() and uv_of(unit) is not None:
            channel = replace(channel, unit=unit)
        return replace(channel, bad=channel.bad or status.lower() == "bad")

    typed = [described(channel) for channel in channels]
    for kind, count in strange.items():
        oddities.note(f"{path.name}: {count} channels of the unknown type {kind!r} are not taken as EEG")
    return typed


def match_names(channels: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Which row says something of which channel: names as they are, then without regard to case, then as the electrodes they mean."""
    rows: dict[str, int] = {}
    free = dict(enumerate(names))
    # the strictest form first, so that "Fp1" and "FP1" of one file stay two channels
    for form in (str, lambda text: text.strip().casefold(), lambda text: canonical_name(text).casefold()):
        known: dict[str, list[int]] = {}
        for row, name in free.items():
            known.setdefault(form(name), []).append(row)
        for channel in channels:
            places = known.get(form(channel), [])
            if channel not in rows and len(places) == 1:
                rows[channel] = places[0]
        free = {row: name for row, name in free.items() if row not in rows.values()}
    return {channel: rows[channel] for channel in channels if channel in rows}


def _note_differences(
    channels: Sequence[str], names: Sequence[str], rows: Mapping[str, int], path: Path, oddities: _Oddities
) -> None:
    order = list(rows.values())
    differ = [what for what, yes in (
        ("the order", order != sorted(order)),
        ("the spelling", any(names[row] != channel for channel, row in rows.items())),
    ) if yes]  # fmt: skip
    if differ:
        oddities.note(f"{path.name} differs from the recording in {' and '.join(differ)} of its names; rows were matched by name")
    without = [channel for channel in channels if channel not in rows]
    beyond = [name for row, name in enumerate(names) if row not in set(rows.values())]
    for what, listed in (("says nothing of", without), ("has rows that the recording lacks:", beyond)):
        if listed:
            more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
            oddities.note(f"{path.name} {what} {', '.join(listed[:3])}{more}")


# ------------------------------------------------------------------------------------------------------------- events


def _events(path: Path, rate: float, oddities: _Oddities) -> list[Event]:
    table = read_table(path, ["onset", "sample"], oddities)
    if table is None:
        return []
    if "onset" in table.columns:
        onsets = [_number(text) for text in table.columns["onset"]]
    else:
        oddities.note(f"{path.name} has no column 'onset'; its samples were taken")
        samples = [_number(text) for text in table.columns["sample"]]
        onsets = [None if sample is None else sample / rate for sample in samples]
    events = []
    for row, onset in enumerate(onsets):
        if onset is not None:
            named = (table.cell(name, row) for name in ("trial_type", "value", "stim_type", "event_type"))
            label = next((text for text in named if text.lower() not in _UNSAID), "event")
            # nanoseconds: a quotient of samples and rate has digits that mean nothing
            events.append(Event(round(onset, 9), max(_number(table.cell("duration", row)) or 0.0, 0.0), label))
    if len(events) < table.rows:
        oddities.note(f"{path.name}: {table.rows - len(events)} of {table.rows} rows have no onset that is a number; left out")
    return events


# ---------------------------------------------------------------------------------------------------------- positions


def _placed(channels: Sequence[Channel], path: Path, coordsystem: Path | None, oddities: _Oddities) -> list[Channel]:
    """Positions in head coordinates, m."""
    table = read_table(path, ["name"], oddities)
    if table is None or not {"x", "y", "z"} <= set(table.columns):
        if table is not None:
            oddities.note(f"{path.name} lacks one of the columns x, y, z; not used")
        return list(channels)
    numbers = [[_number(table.cell(axis, row)) for axis in "xyz"] for row in range(table.rows)]
    places_N3 = np.array([[np.nan if value is None else value for value in row] for row in numbers], float).reshape(-1, 3)
    frame = {} if coordsystem is None else _json(coordsystem, oddities)
    places_N3 = _in_head(places_N3 * _unit(places_N3, frame, path, oddities), frame, oddities)
    rows = match_names([channel.name for channel in channels], table.columns["name"])
    known = {name: places_N3[row] for name, row in rows.items() if np.isfinite(places_N3[row]).all()}
    return [
        replace(channel, place=tuple(float(v) for v in known[channel.name])) if channel.name in known else channel  # type: ignore[arg-type]
        for channel in channels
    ]


def _unit(places: np.ndarray, frame: Mapping[str, Any], path: Path, oddities: _Oddities) -> float:
    """m for a unit of the table: as the coordinate system states it, else the one that gives the size of a head."""
    named = str(frame.get("EEGCoordinateUnits", "")).strip().lower()
    if named in _METRES:
        return _METRES[named]
    known = places[np.isfinite(places).all(axis=1)]
    size = float(np.median(np.linalg.norm(known, axis=1))) if len(known) else 0.0
    # a head's radius is about 90 mm, 9 cm or 0.09 m
    unit = "mm" if size > 30 else "cm" if size > 1.5 else "m"
    oddities.note(f"{path.name}: no unit of its positions is given; taken as {unit} by their size")
    return _METRES[unit]


def _in_head(places: np.ndarray, frame: Mapping[str, Any], oddities: _Oddities) -> np.ndarray:
    landmarks = frame.get("AnatomicalLandmarkCoordinates") or {}
    named = {str(key).upper(): value for key, value in landmarks.items()} if isinstance(landmarks, dict) else {}
    scale = _METRES.get(
        str(frame.get("AnatomicalLandmarkCoordinateUnits", frame.get("EEGCoordinateUnits", "m"))).strip().lower(), 1.0
    )
    points = [_point(named.get(key)) for key in ("NAS", "LPA", "RPA")]
    if all(point is not None for point in points):
        from mne.transforms import apply_trans, get_ras_to_neuromag_trans

        try:
            turn = get_ras_to_neuromag_trans(*(point * scale for point in points if point is not None))
            return np.asarray(apply_trans(turn, places))
        except Exception:  # landmarks on one line, or in one place
            oddities.note("the landmarks of coordsystem.json define no head; not used")
    if str(frame.get("EEGCoordinateSystem", "")).strip().lower() in _FRONT_LEFT_UP:
        # x front, y left -> x right, y front
        return places[:, [1, 0, 2]] * np.array([-1.0, 1.0, 1.0])
    return places


def _point(value: Any) -> np.ndarray | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    numbers = [_number(item) for item in value]
    return None if any(number is None for number in numbers) else np.array(numbers, float)
