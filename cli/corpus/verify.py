"""`eegprep verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import eegprep_app
from . import _options as o


@eegprep_app.command(
    inputs=("store",),
    examples="""
    eegprep verify corpus.zarr
    eegprep verify corpus.zarr --repair
    """,
)
def verify(
    store: Annotated[Path, typer.Argument(help="Corpus or recordings store")],
    fast: Annotated[bool, typer.Option("--fast", help="Presence and sizes only")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Make the damaged subjects again from their sources")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Make every window again from its sources and compare bit for bit")
    ] = False,
    source: Annotated[list[str] | None, typer.Option(help="SOURCE to use [default: what the store was built from]")] = None,
    data_dir: o.DataDir = None,
    offline: o.Offline = False,
    as_json: o.Json = False,
) -> int:
    """Check that every window is present and unchanged."""
    from eegprep.inspection.verify import verify as check

    from .._output import emit_json, emit_table, note, progress

    with progress("verify") as bar:
        result = check(
            store, fast=fast, repair=repair, deep=deep, source=source, data_dir=data_dir, offline=offline, progress=bar
        )
    problems = [vars(problem) for problem in result.problems]
    if as_json:
        emit_json({"path": str(result.path), "checked": result.checked, "files": result.files, "bytes": result.bytes,
                   "problems": problems, "repaired": list(result.repaired), "exit_code": result.exit_code})  # fmt: skip
    elif problems:
        emit_table("problems", problems)
    note(result.text)
    if problems:
        note("  fix: run `eegprep verify --repair`, which makes just these subjects again")
    return result.exit_code
