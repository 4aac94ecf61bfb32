"""`eegprep inspect`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from .._app import eegprep_app
from . import _options as o


@eegprep_app.command(
    inputs=("store",),
    examples="""
    eegprep inspect corpus.zarr
    eegprep inspect corpus.zarr PhysionetMI/1
    eegprep inspect corpus.zarr PhysionetMI/1/0 --plot window.png
    """,
)
def inspect(
    store: Annotated[Path, typer.Argument(help="Corpus or recordings store")],
    key: Annotated[str | None, typer.Argument(help="DATASET[/SUBJECT[/...]]; with --plot also the number of a window")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw one window, or a recording, into this PNG")] = None,
    as_json: o.Json = False,
) -> None:
    """Show what a store holds, or draw one window.

    Without a key: one row per data set. With a key: one row per recording, and what was noted about each.
    """
    from eegprep.inspection.describe import describe
    from eegprep.inspection.describe import plot as draw

    from .._output import emit_findings, emit_json, emit_table, note
    from ._show import COLUMNS

    if plot is not None:
        note(f"{plot}: {draw(store, plot, key)}")
        return
    facts = describe(store, key)
    if as_json:
        emit_json(facts)
        return
    emit_table(str(store), facts["rows"])
    if facts["quarantined"]:
        emit_table("quarantined", facts["quarantined"])
    if key is not None and facts["findings"]:
        emit_findings("findings", facts["findings"], COLUMNS)
    elif facts["findings"]:
        counts = Counter(finding["code"] for finding in facts["findings"])
        note(f"findings: {', '.join(f'{code} {number}' for code, number in counts.items())}; with a key they are listed")
    for sentence in facts.get("doubles", ()):
        note(f"the same recording twice: {sentence}")
    shown = ("kind", "subjects", "people", "recordings", "windows", "hours")
    note(", ".join(f"{name} {facts[name]}" for name in shown if name in facts))
