"""`dreamdiff train align`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .. import _output
from .._app import train_app
from .._described import DeviceOption, TrainingPrecision, field_help

_setting = partial(field_help, "dreamdiff.alignment.config", "AlignConfig")


@train_app.command(
    inputs=("pairs", "config"),
    settings="train align",
    examples="""
    dreamdiff train align --pairs pairs.zarr --out aligned
    dreamdiff train align --pairs pairs.zarr --out aligned --encoder msm:pretrained --target embedded --target efficientnet-lite0
    """,
)
def align(
    pairs: Annotated[Path, typer.Option(help="Store of EEG-image pairs")],
    out: Annotated[Path, typer.Option(help="Run folder; training resumes where it stood when the folder holds this run")],
    encoder: Annotated[
        str,
        typer.Option(
            help="conv, msm:RUN (or any folder with an encoder), random:PRESET for an untrained one, nice, atm-s or enigma (published encoders), or braindecode:NAME, a network of braindecode"
        ),
    ] = "conv",
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Image encoder to align to: embedded, clip:NAME, efficientnet-lite0, timm:NAME[:FILE], dir:FOLDER or vectors:FILE;"
            " repeatable, the first one is what the model gives by default [default: embedded]"
        ),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="default (error and contrastive), cosine, paper-loss (L_clip) or regression")
    ] = None,
    people: Annotated[str | None, typer.Option(help=_setting("maps"))] = None,
    preset: Annotated[str, typer.Option(help="default, jitter, few-labels or tiny")] = "default",
    strict_rate: Annotated[bool, typer.Option("--strict-rate", help="Refuse people at several sampling rates")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file over the preset")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over the file; repeatable")] = None,
    device: DeviceOption = None,
    precision: TrainingPrecision = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never connect to the network")] = False,
) -> None:
    """Align EEG to the vectors of images, without any U-Net. Run again to resume.

    Kill it at any moment and run it again: the result is the same.
    """
    from dreamdiff.alignment.config import ALIGN_PRESETS, LOSSES, AlignConfig
    from eegprep.settings import named, resolve

    options = {"maps": people, "loop.device": device, "loop.precision": precision}
    mixture = {} if loss is None else named(LOSSES, loss, "--loss")
    weights = [f"loss.{name}={weight}" for name, weight in mixture.items()]  # over a file; --set can still change one of them
    settings = resolve(
        AlignConfig, presets=ALIGN_PRESETS, preset=preset, file=config, assignments=[*weights, *(set_ or ())], options=options
    )
    from dreamdiff.alignment.prepare import prepare
    from dreamdiff.training.loop import fit

    with _output.progress("train align") as progress:
        task = prepare(
            pairs, out, settings, encoder=encoder, targets=tuple(target or ("embedded",)), progress=progress, offline=offline,
            strict_rate=strict_rate,
        )  # fmt: skip
        result = fit(task, settings.loop, settings.optim, out, progress=progress)
    for line in task.remarks:
        _output.note(line)
    _output.emit_line(f"{out}: {_output.training_line(result)}")
