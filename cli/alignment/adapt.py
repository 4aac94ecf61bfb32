"""`dreamdiff adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import _output
from .._app import dreamdiff_app
from .._described import DeviceOption, TrainingPrecision


@dreamdiff_app.command(
    inputs=("model", "pairs", "config"),
    examples="""
    dreamdiff adapt --model aligned --pairs new-person.zarr --out adapted --minutes 5
    dreamdiff adapt --model aligned --pairs new-person.zarr --out adapted --unlabelled 100
    """,
)
def adapt(
    model: Annotated[Path, typer.Option(help="Run of `dreamdiff train align` on other people")],
    pairs: Annotated[Path, typer.Option(help="Store of EEG-image pairs of the new person")],
    out: Annotated[Path, typer.Option(help="Run folder of the adapted model")],
    minutes: Annotated[float | None, typer.Option(help="Use labelled training trials of the first minutes only")] = None,
    unlabelled: Annotated[int | None, typer.Option(help="Whiten from so many trials, and read no label and no picture")] = None,
    strict_rate: Annotated[
        bool, typer.Option("--strict-rate", help="Refuse EEG of another sampling rate than the model's")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file over the preset `adapt`")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over the file; repeatable")] = None,
    device: DeviceOption = None,
    precision: TrainingPrecision = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never connect to the network")] = False,
) -> None:
    """Adapt a model of other people to a new person. Run again to resume."""
    from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
    from eegprep.settings import resolve

    options = {"loop.device": device, "loop.precision": precision}
    settings = resolve(AlignConfig, presets=ALIGN_PRESETS, preset="adapt", file=config, assignments=set_ or (), options=options)
    from dreamdiff.alignment.adapt import adapt as run

    with _output.progress("adapt") as progress:
        result = run(
            model, pairs, out, settings, minutes=minutes, unlabelled=unlabelled, progress=progress, offline=offline,
            strict_rate=strict_rate, say=_output.note,
        )  # fmt: skip
    spent = "" if result.minutes is None else f" ({result.minutes:.1f} minutes)"
    what = "whitened and tuned" if result.labelled else "whitened, no label read,"
    state = "" if result.finished else "; stopped, run the same command again to resume"
    typer.echo(f"{out}: {', '.join(result.people)} {what} from {result.trials} trials{spent}{state}")
