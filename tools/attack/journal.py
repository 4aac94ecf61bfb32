"""Outcomes of a campaign: one line of JSON per attack, appended as it ends, so that a campaign can be stopped and taken up again."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

GOOD = ("right", "refused", "no effect")
BAD = ("lost", "silent", "crashed", "outside", "over")


@dataclass(frozen=True)
class Entry:
    """One attack. name: what was attacked. number: which attack on it. signals: that were sent. said: what went wrong."""

    kind: str
    name: str
    number: int
    outcome: str
    said: str = ""
    signals: int = 0

    @property
    def row(self) -> tuple[str, str]:
        """The line of the table that it belongs to: hostile files are counted by group, what stands before the colon."""
        return self.kind, self.name.partition(":")[0] if self.kind == "files" else self.name


class Journal:
    """What is known of a campaign; several processes append to one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, entry: Entry) -> None:
        """Append one line in one write, which no other process divides."""
        line = json.dumps(vars(entry), ensure_ascii=False) + "\n"
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode("utf-8", "backslashreplace"))

    def entries(self) -> list[Entry]:
        """Everything so far; the last outcome of an attack counts."""
        if not self.path.is_file():
            return []
        found = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):  # the line that a killed campaign was writing
                continue
            found[entry.kind, entry.name, entry.number] = entry
        return list(found.values())

    def done(self, kind: str, name: str) -> set[int]:
        """Numbers of attacks that ended well; the others are tried again."""
        return {e.number for e in self.entries() if (e.kind, e.name) == (kind, name) and e.outcome in GOOD}

    def clean(self) -> None:
        """Forget the lines of attacks that were tried again."""
        entries = self.entries()
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        partial.write_text("".join(json.dumps(vars(entry)) + "\n" for entry in entries), encoding="utf-8")
        partial.replace(self.path)


def total(entries: Iterable[Entry], kind: str) -> int:
    return sum(entry.kind == kind for entry in entries)


def table(entries: Iterable[Entry]) -> str:
    """A Markdown table, one row for what was attacked in one way."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for entry in entries:
        counts = rows.setdefault(entry.row, Counter())
        counts[entry.outcome] += 1
        counts["signals"] += entry.signals
    order = {kind: number for number, kind in enumerate(("kills", "errors", "flips", "files"))}
    columns = (*GOOD, *BAD)
    lines = ["| attack | on | tries | signals | " + " | ".join(columns) + " |", "|---|---|" + "---:|" * (2 + len(columns))]

    def line(kind: str, name: str, counts: Counter[str]) -> str:
        tries = sum(counts[key] for key in columns)
        cells = [tries, counts["signals"] if kind == "kills" else "", *(counts[key] for key in columns)]
        return f"| {kind} | {name} | " + " | ".join(map(str, cells)) + " |"

    for kind in order:
        mine = [(name, counts) for (of, name), counts in rows.items() if of == kind]
        lines += [line(kind, name, counts) for name, counts in mine]
        if len(mine) > 1:
            lines.append(line(kind, "**all**", sum((counts for _, counts in mine), Counter())))
    return "\n".join(lines)
