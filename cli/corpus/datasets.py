"""`eegprep datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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
    here: Annotated[bool, typer.Option("--here", help="Only what is in the data folder, of OpenNeuro and NEMAR too")] = False,
    data_dir: o.DataDir = None,
    manifest: Annotated[Path | None, typer.Option(help="Also write the list as a manifest (.toml) to build from")] = None,
    notes: Annotated[bool, typer.Option("--notes", help="Add known problems of each data set")] = False,
    as_json: o.Json = False,
) -> None:
    """List the data sets that MOABB offers.

    The facts come from MOABB's own metadata: declared, not measured. Nothing is downloaded. The column `here` says how many subjects are in the
    data folder already.
    """
    from eegprep.catalogue import moabb as catalogue
    from eegprep.download.data_folder import downloaded
    from eegprep.folders import default_data_dir

    from .._output import emit_json, emit_table, note

    entries = catalogue.search(
        min_channels=min_channels, max_channels=max_channels, min_rate=min_rate, max_rate=max_rate, paradigm=paradigm, task=task,
        licences=licence or (), name=name,
    )  # fmt: skip
    folder = data_dir or default_data_dir()
    held = downloaded(folder)
    entries = [entry for entry in entries if not here or entry.name in held]
    others = {key: value for key, value in held.items() if "-" in key} if here else {}
    if as_json:
        emit_json(
            [{**entry.record(), "here": _held(held.get(entry.name))} for entry in entries]
            + [{"class": name.replace("-", ":", 1), "here": _held(value)} for name, value in others.items()]
        )
    else:
        rows = [{**entry.row(), "here": held[entry.name].subjects if entry.name in held else ""} for entry in entries]
        rows += [{"class": name.replace("-", ":", 1), "here": value.subjects} for name, value in others.items()]
        emit_table("data sets", rows, [*catalogue.COLUMNS, "here", *(["note"] if notes else [])])
    note(catalogue.totals(entries))
    if held:
        size = catalogue.format_bytes(sum(value.bytes for value in held.values()))
        note(
            f"{folder}: {len(held)} data sets, {sum(value.subjects for value in held.values())} subjects, {size} are here already"
        )
    if manifest:
        from eegprep.catalogue import manifests

        manifests.write(manifest, entries, min_channels)
        note(f"{manifest}: written; next: eegprep build {manifest} --out corpus.zarr --dry-run")


def _held(value: Any) -> dict[str, int] | None:
    return None if value is None else {"subjects": value.subjects, "bytes": value.bytes}
