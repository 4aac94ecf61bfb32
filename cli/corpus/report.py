"""`eegprep report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import eegprep_app


@eegprep_app.command(
    inputs=("store",),
    examples="""
    eegprep report corpus.zarr --out report.html
    """,
)
def report(
    store: Annotated[Path, typer.Argument(help="A corpus or a recordings store")],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write")] = Path("report.html"),
) -> None:
    """Write one HTML page about a store.

    People, windows, spectra, scalp maps, amplitudes, what was left out, licences. The page needs no other file.
    """
    from eegprep.inspection.report import report as write

    from .._output import note

    note(f"{write(store, out)}: written")
