"""Draws tables that fit the terminal.

A column that is the same in every row moves above the table, then less important columns go, then the last column is wrapped,
and a table that is still too wide becomes a block of lines per row. No word is cut.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

GAP = "  "
LEAST_TEXT = 24  # columns; the last column is wrapped only where it keeps this much
NARROW = 40
# what a table that is too wide can do without, in this order
DROPPED_FIRST = (
    "files",
    "licence",
    "person",
    "limit",
    "action",
    "findings",
    "doi",
    "citation",
    "protocol",
    "unit",
    "hours",
    "recordings",
)


def cell(value: Any) -> str:
    """One value as text."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return str(value)


def terminal_width() -> int:
    """Columns of the terminal, at least 40."""
    return max(NARROW, shutil.get_terminal_size((80, 24)).columns)


def lines(
    title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, width: int | None = None
) -> list[str]:
    """A table as lines of at most `width` columns, as long as no single word is longer. `width` 0 sets no limit.

    No word is ever cut: a table that does not fit loses first the columns that are equal in every row (they stand above it,
    once), then wraps its last column between words, and else becomes a block of `name: value` lines a row.
    """
    names = list(columns or (rows[0] if rows else ()))
    texts = [[cell(row.get(name)) for name in names] for row in rows]
    limit = terminal_width() if width is None else width
    out = [title] if title else []
    if not rows:
        return [*out, "(none)"]
    if not limit or _needed(names, texts) <= limit:
        return out + _grid(names, texts)
    same = [i for i in range(len(names)) if len(texts) > 1 and len({row[i] for row in texts}) == 1]
    shared = [f"{names[i]}: {texts[0][i]}" for i in same if texts[0][i]]
    out += _wrap("all rows: " + "; ".join(shared), limit, "  ") if shared else []
    keep = [i for i in range(len(names)) if i not in same]
    names, texts = [names[i] for i in keep], [[row[i] for i in keep] for row in texts]
    if not names:
        return out
    if _needed(names, texts) <= limit:
        return out + _grid(names, texts)
    dropped, whole = [], (names, texts)
    for name in DROPPED_FIRST:
        if name in names and _needed(names, texts) > limit and len(names) > 2:
            at = names.index(name)
            names, texts = names[:at] + names[at + 1 :], [row[:at] + row[at + 1 :] for row in texts]
            dropped.append(name)
    more = [f"(--wide also shows: {', '.join(dropped)})"] if dropped else []
    if dropped and _needed(names, texts) <= limit:
        return [*out, *_grid(names, texts), *more]
    others = _needed(names[:-1], [row[:-1] for row in texts]) + len(GAP) if len(names) > 1 else 0
    if limit - others >= max(LEAST_TEXT, *(len(word) for row in texts for word in row[-1].split() or [""])):
        return [*out, *_grid(names, texts, limit - others), *more]
    return out + _blocks(*whole, limit)


def _needed(names: Sequence[str], texts: Sequence[Sequence[str]]) -> int:
    return sum(_widths(names, texts)) + len(GAP) * max(0, len(names) - 1)


def _widths(names: Sequence[str], texts: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(name), *(len(row[i]) for row in texts)) for i, name in enumerate(names)]


def _grid(names: Sequence[str], texts: Sequence[Sequence[str]], last: int | None = None) -> list[str]:
    widths = _widths(names, texts)
    if last is not None:
        widths[-1] = last
    numeric = [all(_is_number(row[i]) for row in texts) for i in range(len(names))]
    out = [_line(names, widths, numeric), GAP.join("-" * width for width in widths)]
    for row in texts:
        parts = textwrap.wrap(row[-1], widths[-1], break_long_words=False, break_on_hyphens=False) if last else [row[-1]]
        for number, part in enumerate(parts or [""]):
            out.append(_line([*([""] * (len(row) - 1) if number else row[:-1]), part], widths, numeric))
    return out


def _line(values: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    return GAP.join(
        value.rjust(width) if right else value.ljust(width) for value, width, right in zip(values, widths, numeric, strict=True)
    ).rstrip()


def _blocks(names: Sequence[str], texts: Sequence[Sequence[str]], limit: int) -> list[str]:
    label = max(len(name) for name in names)
    out: list[str] = []
    for row in texts:
        if out:
            out.append("")
        for name, text in zip(names, row, strict=True):
            if text:
                out += _wrap(f"{name:<{label}}{GAP}{text}", limit, " " * (label + len(GAP)))
    return out


def _wrap(text: str, limit: int, indent: str) -> list[str]:
    return textwrap.wrap(text, limit, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [text]


def _is_number(text: str) -> bool:
    """Also of sizes, as in `3.7 GB`."""
    try:
        float(re.sub(r" [kMGTP]?B$", "", text).replace(",", "") or "0")
    except ValueError:
        return False
    return True


def fold(rows: Sequence[Mapping[str, Any]], differing: str = "recording", count: str = "times") -> list[dict[str, object]]:
    """Rows that differ only in `differing` (and in the measured `value`) as one row with their number, in the order of the first."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = tuple(cell(value) for name, value in row.items() if name not in {differing, "value", count})
        groups.setdefault(key, []).append(row)
    return [_folded(group, differing, count) for group in groups.values()]


def fold_findings(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Equal findings as one row: first the channels of a recording, then recordings. What was left out stays one row a recording."""
    rows = fold(findings, "channel")
    lost = [row for row in rows if row["action"] == "quarantined"]
    return [*fold([row for row in rows if row["action"] != "quarantined"]), *lost]


def _folded(group: Sequence[Mapping[str, Any]], differing: str, count: str) -> dict[str, object]:
    first = dict(group[0])
    names = [str(row[differing]) for row in group if row[differing] is not None]
    if len(names) > 1:
        first[differing] = _together(names) if differing == "channel" else f"{names[0]} and {len(group) - 1} more"
    values = [row.get("value") for row in group]
    if len({cell(value) for value in values}) > 1:
        first["value"] = _range(values)
    times = sum(row.get(count, 1) for row in group)
    return {count: times, **{name: value for name, value in first.items() if name != count}}


def _range(values: Sequence[Any]) -> str:
    """The least and the largest of numbers, else the first of several texts."""
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        return f"{cell(min(numbers))} to {cell(max(numbers))}"
    return f"{cell(next(value for value in values if value is not None))}, ..."


def _together(names: Sequence[str]) -> str:
    """`120 channels, E101 to E220` where the names count on, else `7 channels, Fp1, Fp2, AF7 ...`."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) <= 3:
        return ", ".join(distinct)
    matches = [re.fullmatch(r"(.*?)(\d+)", name) for name in distinct]
    numbers = [int(match[2]) for match in matches if match is not None]
    counts_on = len(numbers) == len(distinct) and len({match[1] for match in matches if match is not None}) == 1
    if counts_on and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{len(distinct)} channels, {distinct[0]} to {distinct[-1]}"
    return f"{len(distinct)} channels, {', '.join(distinct[:3])} ..."
