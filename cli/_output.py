"""Results on stdout, messages on stderr, bars on a terminal and plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import typer

from ._tables import cell, fold_findings
from ._tables import lines as table_lines


class Progress(Protocol):
    def __call__(self, done: int, total: int, message: str) -> None: ...


@dataclass
class _Detail:
    quiet: bool = False
    verbose: bool = False
    wide: bool = False


DETAIL = _Detail()  # of the command that runs; one process runs one command


def set_detail(*, quiet: bool, verbose: bool, wide: bool = False) -> None:
    """Take `-q`, `-v` and `--wide`."""
    DETAIL.quiet, DETAIL.verbose, DETAIL.wide = quiet or not first_process(), verbose, wide
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)


def first_process() -> bool:
    """Whether this is the process that speaks: of those that `accelerate launch` or `torchrun` has started, the first."""
    return os.environ.get("RANK", "0") == "0"


def emit_line(message: str) -> None:
    """A result on stdout, once for all processes of a launcher."""
    if first_process():
        typer.echo(message)


def note(message: str) -> None:
    """A message for the person, on stderr; none under `--quiet`."""
    if not DETAIL.quiet:
        typer.echo(message, err=True)


def emit_json(content: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def emit_table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """A table on stdout: fitted to a terminal unless `--wide` is given, tab-separated elsewhere, so that it can be cut and sorted."""
    names = list(columns or (rows[0] if rows else ()))
    if not sys.stdout.isatty():
        typer.echo("\t".join(names))
        for row in rows:
            typer.echo("\t".join(cell(row.get(name)) for name in names))
        return
    heading, *rest = table_lines(title, rows, names, 0 if DETAIL.wide else None)
    typer.echo(typer.style(heading, bold=True))
    for line in rest:
        typer.echo(line)


def emit_findings(title: str, findings: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Findings as a table in which equal ones are one row with their number; `--json` and `--wide` list each."""
    rows = list(findings) if DETAIL.wide else fold_findings(findings)
    emit_table(title, rows, [*([] if DETAIL.wide else ["times"]), *columns])


def verdict(errors: int, warnings: int) -> str:
    """The last line of `doctor`: "2 warnings, 0 errors: ready"."""
    counted = f"{warnings} warning{'s' * (warnings != 1)}, {errors} error{'s' * (errors != 1)}"
    return f"{counted}: {'not ready, see the fixes above' if errors else 'ready'}"


def training_line(result: Any) -> str:
    """The last line of a training, from its `FitResult`: state, step, loss and validation."""
    state = "done" if result.finished else "stopped (run the same command again to resume)"
    checks = " ".join(f"{name}={value:.4g}" for name, value in sorted(result.validation.items()))
    return f"{state} at step {result.step} of {result.total_steps}, loss {result.loss:.4g}. {checks}".rstrip()


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Yield a callback (done, total, message)."""
    if DETAIL.quiet:
        yield lambda done, total, message: None
        return
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
        task, pace = bar.add_task(title, total=None, message=""), Pace()

        def update(done: int, total: int, message: str) -> None:
            rate, _ = pace(done, total)
            bar.update(task, completed=done, total=total or None, message=f"{message} {rate}".strip())

        yield update


class _PlainProgress:
    """At most a line every two seconds, and always the last."""

    def __init__(self, title: str) -> None:
        self.title, self.last, self.pace = title, 0.0, Pace()

    def __call__(self, done: int, total: int, message: str) -> None:
        now, (rate, left) = time.monotonic(), self.pace(done, total)
        if now - self.last >= 2.0 or done == total:
            self.last = now
            facts = ", ".join(part for part in (rate, left) if part)
            note(f"{self.title}: {done}/{total} {message}{f' ({facts})' if facts else ''}".rstrip())


class Pace:
    """How many a second are done, and how long the rest takes; of the present piece of work, which a smaller `done` or another `total` ends."""

    def __init__(self) -> None:
        self.total, self.first, self.done, self.began = 0, 0, -1, 0.0

    def __call__(self, done: int, total: int) -> tuple[str, str]:
        """("3.2/s", "about 4 min left"); empty while that is not known."""
        now = time.monotonic()
        if total != self.total or done < self.done:
            self.total, self.first, self.began = total, done, now
        self.done = done
        spent, made = now - self.began, done - self.first
        if spent < 1.0 or made < 1:
            return "", ""
        rate = made / spent
        left = (total - done) / rate
        text = f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 0.1 else f"{1 / rate:.0f} s each"
        unit = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"
        return text, f"about {unit} left" if 0 < done < total else ""
