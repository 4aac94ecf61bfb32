"""`dreamdiff train finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import train_app
from .._described import DeviceOption, TrainingPrecision
from .._output import emit_json, emit_table, note, progress, training_line


@train_app.command(
    "finetune",
    inputs=("pairs", "encoder", "config"),
    settings="train finetune",
    examples="""
    dreamdiff train finetune --pairs pairs.zarr --encoder msm --out run --preset tiny
    dreamdiff train finetune --pairs pairs.zarr --encoder msm --sd sd15 --clip ViT-L-14:clip.safetensors --out run --dry-run
    """,
)
def finetune(
    pairs: Annotated[Path, typer.Option(help="Store of EEG-image pairs, e.g. pairs.zarr")],
    encoder: Annotated[
        str,
        typer.Option(
            help="Run of `dreamdiff train msm` or `dreamdiff train align`, encoder folder, or random:PRESET for an untrained one"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder; made, or continued when it holds this run")],
    sd: Annotated[
        str, typer.Option(help="Stable Diffusion: diffusers folder, .ckpt or .safetensors file, hub name")
    ] = "embedded",
    clip: Annotated[str, typer.Option(help="CLIP: open_clip folder, ARCHITECTURE:FILE, ARCHITECTURE:TAG")] = "embedded",
    preset: Annotated[str, typer.Option(help="Starting point of all settings")] = "paper",
    config: Annotated[Path | None, typer.Option(help="TOML file with settings")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. --set loop.epochs=10 (repeat)")] = None,
    device: DeviceOption = None,
    precision: TrainingPrecision = None,
    strict_rate: Annotated[
        bool, typer.Option("--strict-rate", help="Refuse trials of another sampling rate than the encoder's")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Load, check, show what would be trained and what it would cost, then stop; nothing is written"
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Fine-tune Stable Diffusion on EEG-image pairs. Run again to resume.

    Sections 3.2 and 3.3 of the DreamDiffusion paper.
    """
    from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
    from eegprep.settings import resolve

    settings = resolve(
        FinetuneConfig, presets=FINETUNE_PRESETS, preset=preset, file=config, assignments=set_ or (),
        options={"loop.device": device, "loop.precision": precision},
    )  # fmt: skip
    from dreamdiff.finetuning.prepare import fit_task, prepare

    with progress("fine-tuning") as report:
        task = prepare(
            pairs, encoder, sd, clip, out, settings, progress=report, offline=offline, dry_run=dry_run, strict_rate=strict_rate
        )
        for line in task.remarks:
            note(line)
        if not json:
            emit_table("what is trained", task.trainable_table())
            for line in task.plan.lines() if task.plan else ():
                note(line)
        result = None if dry_run else fit_task(task, progress=report)
    if json:
        plan = task.plan.to_json() if task.plan else None
        emit_json(
            {"trained": task.trainable_table(), "remarks": task.remarks, "plan": plan, "result": vars(result) if result else None}
        )
    elif result:
        note(f"{out}: {training_line(result)}")
