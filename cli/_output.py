"""Results on stdout, messages on stderr, bars on a terminal and plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import typer


class Progress(Protocol):
    def __call__(self, done: int, total: int, message: str) -> None: ...


def note(message: str) -> None:
    """A message for the person, on stderr."""
    typer.echo(message, err=True)


def emit_json(content: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def emit_table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """A table on stdout: drawn on a terminal, tab-separated elsewhere, so that it can be cut and sorted."""
    names = list(columns or (rows[0] if rows else ()))
    if not sys.stdout.isatty():
        typer.echo("\t".join(names))
        for row in rows:
            typer.echo("\t".join(_cell(row.get(name)) for name in names))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    Console().print(table)


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Yield a callback (done, total, message)."""
    if not sys.stderr.isatty():
        yield _PlainProgress(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[message]}"), console=Console(stderr=True),
    ) as bar:  # fmt: skip
        task = bar.add_task(title, total=None, message="")

        def update(done: int, total: int, message: str) -> None:
            bar.update(task, completed=done, total=total or None, message=message)

        yield update


class _PlainProgress:
    """At most a line every two seconds, and always the last."""

    def __init__(self, title: str) -> None:
        self.title, self.last = title, 0.0

    def __call__(self, done: int, total: int, message: str) -> None:
        now = time.monotonic()
        if now - self.last >= 2.0 or done == total:
            self.last = now
            note(f"{self.title}: {done}/{total} {message}".rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    return str(value)
