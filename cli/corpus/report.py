"""`eegprep report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import eegprep_app


@eegprep_app.command()
def report(
    store: Annotated[Path, typer.Argument(help="A corpus or a recordings store")],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write")] = Path("report.html"),
) -> None:
    """One self-contained HTML page: people, windows, spectra, topographies, amplitudes, what was left out, licences."""
    from eegprep.inspection.report import report as write

    from .._output import note

    note(f"{write(store, out)}: written")
