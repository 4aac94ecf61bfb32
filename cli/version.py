"""`--version` of both scripts."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from ._app import dreamdiff_app, eegprep_app


def _show(requested: bool) -> None:
    if requested:
        typer.echo(f"eeg-dreamdiff {metadata.version('eeg-dreamdiff')}")
        raise typer.Exit


@eegprep_app.callback()
@dreamdiff_app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_show, is_eager=True, help="Print the version and stop")] = False,
) -> None:
    pass
