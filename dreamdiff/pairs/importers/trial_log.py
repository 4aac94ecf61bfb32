"""Which picture was shown when: the rows of a stimulus log, matched with the events of a recording.

Events are triggers, annotations or markers as `eegprep` reads them; a log is what the stimulus program wrote. They are matched by trigger
code (the log has a column of codes), or row by row; what does not fit in number or order is an error, never a shift by one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dreamdiff.pairs.importers.table_file import numbers, read_table
from eegprep.errors import DataError, UsageError
from eegprep.recording import Event

# what stimulus programs call these columns; the first that a log has is taken
USUAL: Mapping[str, tuple[str, ...]] = {
    "recording": ("recording", "file", "filename", "eeg_file"),
    "onset": ("onset", "time", "start", "stim_onset", "image_onset", "onset_time", "started"),
    "image": ("image", "image_file", "stimulus_file", "stim_file", "stimulus", "picture", "image_path", "stim"),
    "label": ("label", "category", "class", "condition", "concept", "trial_type"),
    "trigger": ("trigger", "code", "trigger_code", "marker", "event", "value", "stim_code"),
    "subject": ("subject", "participant_id", "participant", "participants", "person"),
}
LARGEST_SPREAD_S = 0.05  # ours: clocks of log and amplifier that differ by more from trial to trial are worth a look


@dataclass(frozen=True)
class Matched:
    """The trials of one recording.

    events, rows: what was seen in the EEG, and the row of the log (from 0) that it is. how: a sentence.
    """

    events: tuple[Event, ...]
    rows: tuple[int, ...]
    how: str


def parse_columns(text: str | None) -> dict[str, str]:
    """`"recording=file,image=stimulus"` as {"recording": "file", "image": "stimulus"}.

    Raises:
        UsageError: not of that form.
    """
    result: dict[str, str] = {}
    for part in (text or "").split(","):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if part.strip() and not (equals and name and column):
            raise UsageError(
                f"--columns {part.strip()!r} is not of the form NAME=COLUMN", "write --columns recording=file,image=stimulus"
            )
        if part.strip():
            result[name] = column
    return result


def column_of(table: pd.DataFrame, what: str, columns: Mapping[str, str], file: Path) -> str | None:
    """The column of a table that holds `what`: as `--columns` says, else by a usual name; None where there is none.

    Raises:
        DataError: `--columns` names a column that is not there.
    """
    if what in columns:
        if columns[what] not in table:
            raise DataError(
                f"{file.name}: there is no column {columns[what]!r} (found: {', '.join(map(str, table.columns))})",
                f"name one of them with --columns {what}=...",
            )
        return columns[what]
    folded = {str(name).casefold(): str(name) for name in table.columns}
    return next((folded[name] for name in USUAL.get(what, (what,)) if name in folded), None)


def read_log(file: Path) -> pd.DataFrame:
    """A log as text, rows without anything in them left out."""
    table = read_table(file, [name for names in USUAL.values() for name in names]).reset_index(drop=True)
    if len(table) == 0:
        raise DataError(f"{file.name}: 0 rows (at least 1 is needed)", "give one row a picture that was shown")
    return table


def code_of(label: str) -> str:
    """`Stimulus/S  5`, `S 5`, `005` and `5` are code 5; other labels are themselves."""
    match = re.search(r"(?:^|[^\d.])0*(\d+)$", label.strip())
    return match[1] if match else label.strip().casefold()


def match_events(
    events: Sequence[Event],
    log: pd.DataFrame,
    columns: Mapping[str, str],
    recording: str,
    file: Path,
    picture_labels: Sequence[str] = (),
) -> Matched:
    """Bring the rows of a log and the events of its recording together.

    Args:
        events: of the recording, in order.
        picture_labels: labels of the events that stand for pictures; without any, those that the log's codes name, or all.

    Raises:
        DataError: counts or codes that do not fit; both are given.
    """
    usable = [event for event in events if not event.is_bad]
    if picture_labels:
        asked = {code_of(label) for label in picture_labels}
        usable = [event for event in usable if code_of(event.label) in asked]
    trigger = column_of(log, "trigger", columns, file)
    codes = [] if trigger is None else [code_of(str(cell)) for cell in log[trigger]]
    if trigger is not None and any(code_of(event.label) in set(codes) for event in usable):
        return _by_code(usable, codes, log, columns, recording, file, trigger)
    if len(usable) != len(log):
        raise DataError(
            f"{recording}: {len(usable)} events ({_counts(usable)}), {file.name} has {len(log)} rows",
            "name the events that are pictures with --events, or the column of trigger codes with --columns trigger=...",
        )
    return Matched(
        tuple(usable), tuple(range(len(log))), f"row by row, {len(log)} of {len(log)}{_offsets(usable, log, columns, file)}"
    )


def _by_code(
    usable: Sequence[Event],
    codes: Sequence[str],
    log: pd.DataFrame,
    columns: Mapping[str, str],
    recording: str,
    file: Path,
    trigger: str,
) -> Matched:
    known = set(codes)
    seen = [event for event in usable if code_of(event.label) in known]
    result = [code_of(event.label) for event in seen]
    if result == list(codes):
        how = f"{len(seen)} events, codes equal column {trigger!r} row by row{_offsets(seen, log, columns, file)}"
        return Matched(tuple(seen), tuple(range(len(seen))), how)
    if len(known) == len(codes):  # one row a code: a list of what the codes mean
        rows = {code: row for row, code in enumerate(codes)}
        return Matched(tuple(seen), tuple(rows[code] for code in result), f"{len(seen)} events by code, column {trigger!r}")
    first = next((k for k, (a, b) in enumerate(zip(result, codes, strict=False)) if a != b), min(len(result), len(codes)))
    there, here = (values[first] if first < len(values) else "nothing" for values in (result, codes))
    raise DataError(
        f"{recording}: {len(result)} events with codes of {file.name}, which has {len(codes)} rows; "
        f"the first difference is at row {first + 1}: {there} in the recording, {here} in the log",
        "give the log of this recording, or remove the rows of trials that were not recorded",
    )


def _offsets(events: Sequence[Event], log: pd.DataFrame, columns: Mapping[str, str], file: Path) -> str:
    """Where the log has times: how far its clock is from the recording's, and by how much that varies."""
    name = column_of(log, "onset", columns, file)
    if name is None or len(events) < 2:
        return ""
    times = numbers(log[name], decimal_comma=True).to_numpy(float)
    onsets = np.array([event.onset for event in events])
    if not np.isfinite(times).all() or np.ptp(times) <= 0 or np.ptp(onsets) <= 0:
        return ""
    ratio = float(np.ptp(times) / np.ptp(onsets))
    unit, factor = next(((unit, f) for unit, f in (("s", 1.0), ("ms", 1e3), ("us", 1e6)) if 0.9 < ratio / f < 1.1), ("", 0.0))
    if not unit:
        return f"; the times in {name!r} are in no unit of time that fits the recording"
    apart = onsets - times / factor
    middle = float(np.median(apart))
    spread = float(np.abs(apart - middle).max())
    warning = " (more than 50 ms: is it the log of this recording?)" if spread > LARGEST_SPREAD_S else ""
    return f"; onset minus {name!r} ({unit}) is {middle:+.3f} s, at most {1e3 * spread:.0f} ms from that{warning}"


def _counts(events: Sequence[Event]) -> str:
    """`1: 8, 2: 8` for the labels of events."""
    counted = Counter(event.label for event in events).most_common()
    return ", ".join(f"{label}: {count}" for label, count in counted[:8]) + (", ..." if len(counted) > 8 else "") or "none"
