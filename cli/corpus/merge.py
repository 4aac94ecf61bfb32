"""`eegprep merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import eegprep_app
from .._output import note, progress


@eegprep_app.command()
def merge(
    stores: Annotated[list[str], typer.Argument(help="Corpora with windows of one shape: folders or URLs")],
    out: Annotated[Path, typer.Option(help="Corpus to make, or to go on with")],
) -> None:
    """Bring the subjects of several corpora together; every file is checked on the way."""
    from eegprep.corpus.merge import merge as work

    with progress("merge") as report:
        corpus = work(stores, out, progress=report)
    note(f"{len(corpus)} windows of {len(corpus.subjects)} subjects in {out}")
