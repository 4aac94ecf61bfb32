"""`eegprep merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import eegprep_app
from .._output import note, progress


@eegprep_app.command(
    inputs=("stores",),
    examples="""
    eegprep merge first.zarr second.zarr --out both.zarr
    """,
)
def merge(
    stores: Annotated[list[str], typer.Argument(help="Corpora with windows of one shape: folders or URLs")],
    out: Annotated[Path, typer.Option(help="Corpus to create or resume")],
) -> None:
    """Join the subjects of several corpora.

    Every file is checked while it is copied. Run again to resume.
    """
    from eegprep.corpus.merge import merge as work
    from eegprep.words import count

    with progress("merge") as report:
        corpus = work(stores, out, progress=report)
    note(f"{count(len(corpus), 'window')} of {count(len(corpus.subjects), 'subject')} in {out}")
