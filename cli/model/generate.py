"""`dreamdiff generate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from .._app import dreamdiff_app
from .._described import DeviceOption, PicturePrecision, field_help
from .._output import emit_json, note, progress
from ..corpus import _options as o

_setting = partial(field_help, "dreamdiff.generation.config", "GenerateConfig")


@dreamdiff_app.command(
    "generate",
    inputs=("model", "eeg", "images", "config", "replay"),
    settings="generate",
    examples="""
    dreamdiff generate --model run --eeg pairs.zarr --out images --select test --samples 3
    dreamdiff generate --model aligned --eeg pairs.zarr --out pictures --select test --sd embedded
    dreamdiff generate --model run --eeg session.csv --sfreq 256 --unit uV --out images
    dreamdiff generate --replay images/000.json --out again
    """,
)
def generate(
    model: Annotated[str | None, typer.Option(help="Run of `train finetune` or `train align`, or a pipeline folder")] = None,
    eeg: Annotated[
        str | None,
        typer.Option(help="Pairs store, corpus (or the address of one: hf://datasets/OWNER/NAME), or EEG file with events"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for images, sidecars and contact sheet")] = None,
    select: Annotated[
        str | None, typer.Option(help="Part of a split (test, val, block/test, ...) or, for corpora and files, a label")
    ] = None,
    trials: Annotated[str | None, typer.Option(help="Numbers of trials, e.g. 0,7,12")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help=_setting("samples"))] = None,
    steps: Annotated[int | None, typer.Option(min=1, help=_setting("steps"))] = None,
    seed: Annotated[int | None, typer.Option(min=0, help=_setting("seed"))] = None,
    scheduler: Annotated[str | None, typer.Option(help=_setting("scheduler"))] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help=_setting("guidance"))] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help=_setting("batch_size"))] = None,
    device: DeviceOption = None,
    precision: PicturePrecision = None,
    sd: Annotated[str | None, typer.Option(help=_setting("sd"))] = None,
    adapter: Annotated[str | None, typer.Option(help=_setting("adapter"))] = None,
    prior: Annotated[bool, typer.Option("--prior", help=_setting("prior"))] = False,
    images: Annotated[Path | None, typer.Option(help="Folder of the pairs' image files, if they have moved")] = None,
    cap: Annotated[
        Literal["auto", "name", "spline"],
        typer.Option(
            help="Other electrodes than the model's: by name; where some are missing, spline interpolates, name refuses"
        ),
    ] = "auto",
    strict_rate: Annotated[
        bool, typer.Option("--strict-rate", help="Refuse EEG of another sampling rate than the model's")
    ] = False,
    sfreq: o.Sfreq = None,
    unit: o.Unit = None,
    channel_names: o.ChannelNames = None,
    scale: o.Scale = None,
    preset: Annotated[
        str,
        typer.Option(
            help="default, paper (250 PLMS steps, 3 images a trial), released (the same, 5 images), or turbo (4 steps, for SDXL-Turbo)"
        ),
    ] = "default",
    config: Annotated[Path | None, typer.Option(help="TOML file with settings")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. --set precision=bf16 (repeat)")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load, check, say what it would take (memory, time), then stop; nothing is written")
    ] = False,
    replay: Annotated[Path | None, typer.Option(help="Sidecar (.json) of an image to make again")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> int:
    """Make images from EEG. Run again to finish or to add.

    Writes a PNG and a JSON sidecar per image, and a contact sheet.
    """
    from dreamdiff.generation.config import GENERATE_PRESETS, GenerateConfig
    from eegprep.settings import resolve
    from eegprep.sources.file_reading import FileReading

    if replay is not None:
        return _again(replay, out, model, eeg, images, device)
    if model is None or eeg is None or (out is None and not dry_run):
        raise typer.BadParameter("--model, --eeg and --out are needed, or --replay FILE")
    options = {
        "samples": samples, "steps": steps, "seed": seed, "scheduler": scheduler, "guidance": guidance, "batch_size": batch_size,
        "sd": sd, "adapter": adapter, "prior": prior or None, "device": device, "precision": precision,
    }  # fmt: skip
    settings = resolve(
        GenerateConfig, presets=GENERATE_PRESETS, preset=preset, file=config, assignments=set_ or (), options=options
    )
    names = o.names_of(channel_names) or ()
    reading = FileReading(sfreq=sfreq, unit=unit or "", channel_names=names, scale=scale)
    if dry_run or out is None:
        from dreamdiff.generation.plan import generation_plan

        plan = generation_plan(
            model, eeg, settings, select=select, trials=_numbers(trials), images=images, cap=cap, strict_rate=strict_rate,
            reading=reading,
        )  # fmt: skip
        if json:
            emit_json(plan.to_json())
        for line in () if json else plan.lines():
            note(line)
        return 0
    from dreamdiff.generation.files import generate_to_folder

    with progress("generating") as report:
        sheets = generate_to_folder(
            model, eeg, out, settings, select=select, trials=_numbers(trials), images=images, cap=cap, strict_rate=strict_rate,
            reading=reading, say=note, progress=report,
        )  # fmt: skip
    if json:
        emit_json({"out": str(out), "contact_sheets": [str(sheet) for sheet in sheets]})
    else:
        note(f"contact sheet: {sheets[0]}")
    return 0


def _again(sidecar: Path, out: Path | None, model: str | None, eeg: str | None, images: Path | None, device: str | None) -> int:
    from dreamdiff.generation.files import replay

    file, same = replay(sidecar, out, model=model, eeg=eeg, images=images, device=device)
    verdict = "the same image, pixel for pixel" if same else "differs; compare software and threads with the sidecar"
    note(f"{file}: {verdict}")
    return 0 if same else 1


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--trials {text!r} is not a list of numbers such as 0,7,12") from None
