"""Tables of samples as headsets export them (Muse, Emotiv, OpenBCI, Mind Monitor): CSV or TSV with one row a sample.

Shapes: T samples, N rows of the table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eegprep.errors import SourceError
from eegprep.readers.content import Channel, Content, Note, Reading, merge, signal_reader, uv_of
from eegprep.readers.triggers import trigger_events
from eegprep.recording import Event

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = {".csv", ".tsv", ".txt"}
_TIME = re.compile(
    r"(lsl[ _]?|unix[ _]?|device[ _]?)?(time|times|timestamps?|t|seconds|datetime|clock)([ _]?stamps?)?"
    r"([ _]?[([]?(s|sec|seconds|ms|us|\u00b5s|ns|formatted)[)\]]?)?(:?\s*\d+(\.\d+)?\s*hz)?",
    re.IGNORECASE,
)
_MARKS = re.compile(r"(marker|label|event|stim|trig|annotation|class|elements|cue)(?!.*(index|type)$).*", re.IGNORECASE)
_COUNTER = re.compile(r"(sample|packet|package)[ _]?(index|num|number|counter)?|(eeg\.)?counter", re.IGNORECASE)
_UNIT = re.compile(r"^(.*?)\s*[\[(]\s*([^\])]{1,12})\s*[\])]$")
_RATE = re.compile(
    r"(\d+(?:\.\d+)?)\s*hz|(?:sampl\w*(?:[ _]?(?:rate|frequency|freq))?|sfreq|srate|fs)\W+(?:eeg_)?(\d+(?:\.\d+)?)", re.IGNORECASE
)
_COUNT = re.compile(r"number of channels\s*=\s*(\d+)", re.IGNORECASE)
_LABELS = re.compile(r"labels:\s*([^,;]+)", re.IGNORECASE)
# ours: rates that devices have, Hz; an estimate from time stamps within half a percent of one is that rate
_USUAL_HZ = (
    100,
    120,
    125,
    128,
    160,
    200,
    220,
    250,
    256,
    300,
    400,
    500,
    512,
    600,
    800,
    1000,
    1024,
    1200,
    2000,
    2048,
    2400,
    4096,
    5000,
    10000,
)
_SNAP = 0.005
# ours: rates that an EEG can have, Hz; decides whether a time column counts s, ms, us or ns
_LEAST_HZ, _MOST_HZ = 20.0, 30000.0


@dataclass(frozen=True)
class _Clock:
    """What the time column says. gaps_N: rows before which samples are missing."""

    sfreq: float
    gaps: tuple[int, ...]
    message: str = ""


def read(path: Path, reading: Reading) -> Content:
    """A table of samples as `Content`.

    Raises:
        SourceError: it is no such table, or its rate is unknown.
    """
    table, preamble = _load(path)
    names = [str(name) for name in table.columns]
    times = [name for name in names if _TIME.fullmatch(name.strip())]
    marks = [name for name in names if name not in times and _MARKS.fullmatch(name.strip())]
    counters = [name for name in names if name not in (*times, *marks) and _COUNTER.fullmatch(name.strip())]
    numbers = {name: _numbers(table[name]) for name in names if name not in (*times, *marks, *counters)}
    values = {name: column for name, column in numbers.items() if column is not None and not _is_index(name, column)}
    if not values:
        raise SourceError(
            f"{path.name}: 0 columns of numbers besides time and markers (least 1)", "give a table of one row a sample"
        )
    values, table = _only_samples(values, table, marks)
    clock = _clock(path.name, table, times, counters, preamble, reading)
    notes = [Note("rate", clock.message, None, clock.sfreq)] if clock.message else []
    channels, assumed = _channels(list(values), clock.sfreq, reading)
    if assumed:
        notes.append(Note("unit_assumed", "the table does not say its unit; read as uV, --unit says otherwise"))
    n_rows = len(table)
    events: list[Event] = []
    for name in marks:
        events = merge(events, _marks(table[name], clock), clock.sfreq)
    return Content(
        channels=channels,
        seconds=n_rows / clock.sfreq,
        read=signal_reader(np.stack(list(values.values()))),
        triggers=tuple(events),
        pauses=tuple((row / clock.sfreq, row / clock.sfreq) for row in clock.gaps),
        findings=tuple(notes),
    )


def _load(path: Path) -> tuple[pd.DataFrame, str]:
    """The table, and the lines above it."""
    import pandas as pd

    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = text.splitlines()
    head = [
        (number, line) for number, line in enumerate(lines[:200]) if line.strip() and not line.lstrip().startswith(("%", "#"))
    ]
    begin, delimiter, names = _header_line(path.name, head, "\n".join(lines[:30]))
    body = "\n".join(line for line in lines[begin + 1 :] if not line.lstrip().startswith(("%", "#")))
    # spreadsheets of some languages write 1,5 and part cells by semicolons; more commas than lines are no accident
    decimal = "," if delimiter == ";" and text.count(",") > len(lines) else "."
    try:
        table = pd.read_csv(
            StringIO(body), sep=delimiter, header=None, names=names, decimal=decimal, skipinitialspace=True, index_col=False, low_memory=False
        )  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())[:120]
        raise SourceError(f"{path.name}: cannot be read as a table ({reason})", "give one row a sample") from None
    return table, "\n".join(lines[:begin])


def _header_line(name: str, head: list[tuple[int, str]], comments: str) -> tuple[int, str, list[str]]:
    """Line of the column names, what parts its cells, and the names; a line of numbers follows it."""
    for (begin, line), (_, after) in pairwise(head):
        delimiter = max("\t;,", key=line.count)
        cells, below = [cell.strip().strip('"') for cell in line.split(delimiter)], after.split(delimiter)
        # the first line of words over a line of numbers
        if len(cells) == len(below) > 1 and _share_of_numbers(below) >= 0.5 > _share_of_numbers(cells):
            return begin, delimiter, [f"{c}-{i}" if cells.count(c) > 1 else c for i, c in enumerate(cells)]
    stated = _COUNT.search(comments)
    if stated is not None and head and _share_of_numbers(head[0][1].split(",")) >= 0.5:  # OpenBCI before 2020 has no names
        names = ["Sample Index", *(f"EXG Channel {i}" for i in range(int(stated[1])))]
        width = len(head[0][1].split(","))
        return head[0][0] - 1, ",", [*names, *(f"aux {i}" for i in range(len(names), width))][:width]
    match = _LABELS.search(head[0][1]) if len(head) > 1 else None  # an early exporter of Emotiv names columns in its first line
    if match is None:
        raise SourceError(
            f"{name}: no table of samples with a line of column names was found",
            "give one row a sample and the names of the channels in the first line",
        )
    names, width = match[1].split(), len(head[1][1].split(","))
    return head[0][0], ",", [*names, *(f"column {i}" for i in range(len(names), width))][:width]


def _share_of_numbers(cells: list[str]) -> float:
    return sum(
        re.fullmatch(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?\s*|\s*nan\s*|\s*", c, re.IGNORECASE) is not None for c in cells
    ) / len(cells)


def _numbers(column: pd.Series[Any]) -> np.ndarray | None:
    """A column as float64, None when it does not hold numbers."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    # a few cells of text, such as a dash for a lost sample, do not make it a column of text
    return numbers if np.isfinite(numbers).any() and np.isfinite(numbers).sum() >= column.notna().sum() / 2 else None


def _is_index(name: str, column: np.ndarray) -> bool:
    """Whether a column without a name only counts the rows, as pandas writes it."""
    return not name.strip() and len(column) > 1 and bool((np.diff(column) == 1).all())


def _only_samples(
    values: dict[str, np.ndarray], table: pd.DataFrame, marks: list[str]
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Without rows that hold no number at all: some programs write an event as a row of its own. It goes to the next sample."""
    empty_N = np.isnan(np.stack(list(values.values()))).all(axis=0)
    texts = table.drop(columns=list(values)).notna().sum(axis=1).to_numpy() > 1
    drop_N = empty_N & texts
    if not drop_N.any():
        return values, table
    kept_N = np.flatnonzero(~drop_N)
    for name in marks:
        column = table[name].astype(object)
        for row in np.flatnonzero(drop_N & table[name].notna().to_numpy()).tolist():
            after = np.searchsorted(kept_N, row)
            if after < len(kept_N):
                column.iloc[kept_N[after]] = column.iloc[row]
        table = table.assign(**{name: column})
    return {name: column[~drop_N] for name, column in values.items()}, table[~drop_N].reset_index(drop=True)


def _channels(names: list[str], sfreq: float, reading: Reading) -> tuple[tuple[Channel, ...], bool]:
    """Names and units out of the column names, and whether the unit had to be assumed."""
    channels, assumed = [], False
    for name in names:
        match = _UNIT.match(name.strip())
        short, unit = (match[1], match[2]) if match else (name.strip(), "")
        short = re.sub(r"^(RAW_|EEG[._])", "", short)
        if not unit and not reading.unit:
            unit, assumed = "uV", True
        channels.append(Channel(short, sfreq, unit=unit or reading.unit))
    return tuple(channels), assumed and any(uv_of(channel.unit) for channel in channels)


def _clock(name: str, table: pd.DataFrame, times: list[str], counters: list[str], preamble: str, reading: Reading) -> _Clock:
    """Rate and gaps: from --sfreq, a rate that is written somewhere, or the number of samples over the time that they span."""
    matches = [m for text in (*times, preamble) for m in _RATE.finditer(text)]
    stated = reading.sfreq or (float(matches[0][1] or matches[0][2]) if matches else None)
    stamps_N = next((stamps for stamps in (_stamps(table[column], stated) for column in times) if stamps is not None), None)
    lost = _lost_packets(table, counters)
    if stamps_N is None:
        if stated is None:
            raise SourceError(
                f"{name}: neither a time column nor a rate is in the table",
                "give the rate: --sfreq HZ (eegprep fetch and build; for other commands save it as EDF or FIF)",
            )
        return _Clock(stated, lost)
    sfreq, estimate, gaps = rate_of(stamps_N, stated)
    message = "" if stated else f"{sfreq:g} Hz, from {len(stamps_N):,} samples over the time that they span ({estimate:.2f} Hz)"
    return _Clock(sfreq, tuple(sorted({*gaps, *lost})), message)


def _stamps(column: pd.Series[Any], stated: float | None) -> np.ndarray | None:
    """Times in s: (N,) float64, None when the column holds no usable time."""
    import pandas as pd

    stamps_N = _numbers(column)
    if stamps_N is None:
        parsed = pd.to_datetime(column, errors="coerce")
        if parsed.isna().mean() > 0.5:
            return None
        stamps_N = parsed.astype("datetime64[ns]").to_numpy().astype(np.int64) / 1e9
    if np.isnan(stamps_N).any():
        known = np.flatnonzero(np.isfinite(stamps_N))
        stamps_N = np.interp(np.arange(len(stamps_N)), known, stamps_N[known])
    steps = np.diff(stamps_N)
    if not len(steps) or np.median(steps) < 0 or stamps_N[-1] <= stamps_N[0]:
        return None
    # several samples of a packet may share a stamp: the mean step over the ordinary ones
    typical = float(np.mean(steps[np.abs(steps) <= 20 * np.median(np.abs(steps)) + 1e-12])) or float(np.mean(steps))
    # s, ms, us, ns: the one that gives a rate that an EEG can have
    for scale in (1.0, 1e-3, 1e-6, 1e-9):
        rate = 1.0 / (typical * scale)
        if (stated and abs(rate / stated - 1) < 0.2) or (not stated and _LEAST_HZ <= rate <= _MOST_HZ):
            return np.asarray(stamps_N * scale)
    return None


def rate_of(stamps_N: np.ndarray, stated: float | None = None) -> tuple[float, float, tuple[int, ...]]:
    """Rate in Hz, its estimate before it was brought to a usual one, and the rows before which samples are missing.

    Stamps of packets jitter by tens of milliseconds and may go backwards, so the rate is the number of samples over the time that
    they span without the gaps, and a gap is what shifts all later stamps against the ones before, not one long step.

    Args:
        stamps_N: s, in the order of the rows.
        stated: Hz, when it is known.
    """
    steps = np.diff(stamps_N)
    # ours, s: longer steps are taken for gaps before the rate is known
    coarse = 0.25
    breaks = np.flatnonzero(np.abs(steps) > coarse) + 1
    edges = [0, *breaks.tolist(), len(stamps_N)]
    estimate = _estimate(stamps_N, edges)
    sfreq = stated or _usual(estimate)
    # what shifts everything after it: medians of half a second on both sides
    reach = max(4, round(sfreq / 2))
    fine = []
    for row in (np.flatnonzero(steps > 2.5 / sfreq) + 1).tolist():
        if any(abs(row - edge) < reach for edge in edges):
            continue
        before, after = np.arange(row - reach, row), np.arange(row, row + reach)
        shift = np.median(stamps_N[after] - after / sfreq) - np.median(stamps_N[before] - before / sfreq)
        if shift > max(2.5 / sfreq, 0.04) and abs(steps[row - 1]) > 0.5 * shift:
            fine.append(row)
    edges = sorted({*edges, *fine})
    estimate = _estimate(stamps_N, edges)
    return stated or _usual(estimate), estimate, tuple(edges[1:-1])


def _estimate(stamps_N: np.ndarray, edges: list[int]) -> float:
    """Samples over time, within the pieces between gaps."""
    pieces = [(first, last) for first, last in pairwise(edges) if last - first > 1]
    span = sum(float(stamps_N[last - 1] - stamps_N[first]) for first, last in pieces)
    return sum(last - 1 - first for first, last in pieces) / span if span > 0 else float("nan")


def _usual(estimate: float) -> float:
    nearest = min(_USUAL_HZ, key=lambda rate: abs(rate - estimate))
    return float(nearest) if abs(estimate / nearest - 1) <= _SNAP else float(f"{estimate:.6g}")


def _lost_packets(table: pd.DataFrame, counters: list[str]) -> tuple[int, ...]:
    """Rows before which a running number skips; it may start again from 0 at a fixed value."""
    for name in counters:
        numbers = _numbers(table[name])
        if numbers is None or np.isnan(numbers).any() or len(numbers) < 3:
            continue
        steps = np.diff(numbers)
        usual = np.median(steps)
        wrap = numbers.max() - numbers.min() + usual
        odd = np.flatnonzero((steps != usual) & (np.abs(steps + wrap - usual) > 1e-9))
        # more breaks than one in a hundred: whatever it counts, it is not packets
        if usual > 0 and len(odd) < len(numbers) / 100:
            return tuple((odd + 1).tolist())
    return ()


def _marks(column: pd.Series[Any], clock: _Clock) -> list[Event]:
    """Events of a marker column: where its value changes to something; how long it stays, at most to a gap, is the duration."""
    sfreq = clock.sfreq
    numbers = _numbers(column)
    if numbers is not None:
        codes = np.rint(np.nan_to_num(numbers)).astype(np.int64)
        starts = trigger_events(codes, sfreq)
        changes = np.append(np.flatnonzero(np.diff(codes)) + 1, len(codes))
        return [_lasting(event, changes, sfreq) for event in starts]
    texts = column.fillna("").astype(str).str.strip().to_numpy()
    if (texts == texts[0]).all():
        return []  # one text for the whole table tells of no event
    changes = np.unique([0, *(np.flatnonzero(texts[1:] != texts[:-1]) + 1), *clock.gaps, len(texts)])
    return [
        Event(round(int(first) / sfreq, 9), 0.0 if last - first == 1 else round(int(last - first) / sfreq, 9), str(texts[first]))
        for first, last in pairwise(changes.tolist())
        if texts[first]
    ]


def _lasting(event: Event, changes: np.ndarray, sfreq: float) -> Event:
    first = round(event.onset * sfreq)
    last = int(changes[np.searchsorted(changes, first, side="right")])
    return event if last - first == 1 else Event(event.onset, round((last - first) / sfreq, 9), event.label)
