"""`eegprep filter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import eegprep_app
from . import _options as o


@eegprep_app.command(
    "filter",
    inputs=("recordings",),
    settings="build",
    examples="""
    eegprep filter recordings.zarr filtered.zarr --low 1 --high 40
    """,
)
def filter_(
    recordings: Annotated[Path, typer.Argument(help="Store that `eegprep fetch` made")],
    filtered: Annotated[Path, typer.Argument(help="Store to create or resume")],
    low: o.Low = None,
    high: o.High = None,
    nyquist: o.Nyquist = None,
    resample: o.Resample = None,
    notch: o.Notch = None,
    window: o.Window = None,
    short: o.Short = None,
    min_channels: o.MinChannels = None,
    max_channels: o.MaxChannels = None,
    select_channels: o.SelectChannels = None,
    min_uv: o.MinUv = None,
    max_uv: o.MaxUv = None,
    workers: o.Workers = 1,
    scheduler: o.Scheduler = None,
    max_memory: o.MaxMemory = None,
    rebuild: o.Rebuild = False,
    as_json: o.Json = False,
) -> int:
    """Band-pass every recording without phase shift.

    Recordings that fail a quality gate are left out and listed. Run again to resume.
    """
    from eegprep.signals.recipe import make_recipe
    from eegprep.steps.build import filter_recordings as step

    from .._output import progress
    from ._show import finish

    recipe = make_recipe(
        low=low, high=high, nyquist=nyquist, resample=resample, notch=notch, window=window, short=short,
        min_channels=min_channels, max_channels=max_channels, select_channels=o.names_of(select_channels), min_uv=min_uv, max_uv=max_uv,
    )  # fmt: skip
    with progress("filter") as bar:
        summary = step(
            recordings,
            filtered,
            recipe=recipe,
            workers=workers,
            scheduler=scheduler,
            max_memory=max_memory,
            rebuild=rebuild,
            progress=bar,
        )
    return finish(summary, as_json)
