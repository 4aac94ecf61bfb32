"""`eegprep pad`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import eegprep_app
from . import _options as o


@eegprep_app.command(
    inputs=("filtered",),
    settings="build",
    examples="""
    eegprep pad filtered.zarr corpus.zarr --stride 256
    """,
)
def pad(
    filtered: Annotated[Path, typer.Argument(help="Store that `eegprep filter` made")],
    corpus: Annotated[Path, typer.Argument(help="Corpus to create or resume")],
    channels: o.Channels = None,
    window: o.Window = None,
    stride: o.Stride = None,
    windows: o.Windows = None,
    short: o.Short = None,
    mode: o.Mode = None,
    channel_order: o.Order = None,
    max_per_subject: o.MaxPerSubject = None,
    seed: o.Seed = None,
    workers: o.Workers = 1,
    scheduler: o.Scheduler = None,
    max_memory: o.MaxMemory = None,
    rebuild: o.Rebuild = False,
    as_json: o.Json = False,
) -> int:
    """Crop and pad filtered recordings into a corpus. Run again to resume."""
    from eegprep.signals.recipe import make_recipe
    from eegprep.steps.build import pad as step

    from .._output import progress
    from ._show import finish

    recipe = make_recipe(
        channels=channels, window=window, stride=stride, windows=windows, short=short, mode=mode,
        channel_order=channel_order, max_per_subject=max_per_subject, seed=seed,
    )  # fmt: skip
    with progress("pad") as bar:
        summary = step(
            filtered,
            corpus,
            recipe=recipe,
            workers=workers,
            scheduler=scheduler,
            max_memory=max_memory,
            rebuild=rebuild,
            progress=bar,
        )
    return finish(summary, as_json)
