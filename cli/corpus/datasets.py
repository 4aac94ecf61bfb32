"""`eegprep datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .._app import eegprep_app
from . import _options as o


@eegprep_app.command(
    examples="""
    eegprep datasets --min-channels 60 --paradigm imagery
    eegprep datasets --licence open --manifest open.toml
    """,
)
def datasets(
    min_channels: Annotated[int, typer.Option(min=0, help="Minimum number of declared EEG channels")] = 30,
    max_channels: Annotated[int | None, typer.Option(min=1, help="Maximum number of EEG channels")] = None,
    min_rate: Annotated[float, typer.Option(min=0, help="Minimum sampling rate, Hz")] = 0.0,
    max_rate: Annotated[float | None, typer.Option(min=0, help="Maximum sampling rate, Hz")] = None,
    paradigm: Annotated[
        Literal["cvep", "imagery", "p300", "rstate", "ssvep"] | None, typer.Option(help="Only this paradigm")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only this task, e.g. viewing, 'motor imagery', oddball")] = None,
    licence: Annotated[
        list[str] | None, typer.Option(help="SPDX id in any spelling, or 'open'; may be given several times")
    ] = None,
    name: Annotated[str, typer.Option(help="Part of the class name")] = "",
    manifest: Annotated[Path | None, typer.Option(help="Also write the list as a manifest (.toml) to build from")] = None,
    notes: Annotated[bool, typer.Option("--notes", help="Add known problems of each data set")] = False,
    as_json: o.Json = False,
) -> None:
    """List the data sets that MOABB offers.

    The facts come from MOABB's own metadata: declared, not measured. Nothing is downloaded.
    """
    from eegprep.catalogue import moabb as catalogue

    from .._output import emit_json, emit_table, note

    entries = catalogue.search(
        min_channels=min_channels, max_channels=max_channels, min_rate=min_rate, max_rate=max_rate, paradigm=paradigm, task=task,
        licences=licence or (), name=name,
    )  # fmt: skip
    if as_json:
        emit_json([entry.record() for entry in entries])
    else:
        emit_table("data sets", [entry.row() for entry in entries], [*catalogue.COLUMNS, *(["note"] if notes else [])])
    note(catalogue.totals(entries))
    if manifest:
        from eegprep.catalogue import manifests

        manifests.write(manifest, entries, min_channels)
        note(f"{manifest}: written; next: eegprep build {manifest} --out corpus.zarr --dry-run")
