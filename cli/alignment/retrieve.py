"""`dreamdiff retrieve`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .._app import dreamdiff_app
from .._described import DeviceOption, field_help
from .._output import emit_json, emit_table, note, progress

_setting = partial(field_help, "dreamdiff.protocols.config", "RetrieveConfig")


@dreamdiff_app.command(
    inputs=("model", "pairs", "config", "centres"),
    settings="retrieve",
    examples="""
    dreamdiff retrieve --model aligned --pairs pairs.zarr --out retrieval
    dreamdiff retrieve --model aligned --pairs pairs.zarr --out retrieval --repetitions 1,2,4,all --split test
    dreamdiff retrieve --model others --pairs new-person.zarr --out new-person --new-person --unlabelled 100 --minutes 5
    """,
)
def retrieve(
    model: Annotated[Path, typer.Option(help="Run of `dreamdiff train align` or `dreamdiff adapt`")],
    pairs: Annotated[Path, typer.Option(help="Store of EEG-image pairs")],
    out: Annotated[Path, typer.Option(help="Folder for report.json, report.html and predictions.npz")],
    gallery: Annotated[str | None, typer.Option(help=_setting("gallery"))] = None,
    repetitions: Annotated[str | None, typer.Option(help=_setting("repetitions"))] = None,
    ways: Annotated[int | None, typer.Option(min=2, help=_setting("ways"))] = None,
    centres: Annotated[
        Path | None,
        typer.Option(help=_setting("centres")),
    ] = None,
    split: Annotated[str | None, typer.Option(help=_setting("split"))] = None,
    target: Annotated[str | None, typer.Option(help=_setting("target"))] = None,
    seed: Annotated[int | None, typer.Option(min=0, help=_setting("seed"))] = None,
    new_person: Annotated[
        bool,
        typer.Option(
            "--new-person",
            help="Four rows for people that the model has not seen: nothing, whitening, orthogonal recovery (transductive), minutes of labels",
        ),
    ] = False,
    unlabelled: Annotated[int, typer.Option(min=2, help="With --new-person: trials for whitening, no label is read")] = 100,
    minutes: Annotated[float, typer.Option(help="With --new-person: minutes of labelled recording")] = 5.0,
    strict_rate: Annotated[
        bool, typer.Option("--strict-rate", help="Refuse EEG of another sampling rate than the model's")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting (repeat)")] = None,
    device: DeviceOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never connect to the network")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON")] = False,
) -> None:
    """Find the shown picture among others by EEG.

    The protocol is part of each number's name: split, gallery, repetitions, selection, and what was seen of the person.
    """
    from dreamdiff.protocols.config import RetrieveConfig
    from eegprep.settings import resolve

    sizes = tuple(part.strip() for part in repetitions.split(",")) if repetitions is not None else None
    options = {
        "gallery": gallery,
        "split": split,
        "seed": seed,
        "device": device,
        "repetitions": sizes,
        "target": target,
        "ways": ways,
        "centres": None if centres is None else str(centres),
    }
    settings = resolve(RetrieveConfig, file=config, assignments=set_ or (), options=options)
    # late: what is wrong with the command line is said before PyTorch is imported
    from dreamdiff.evaluation.retrieve import retrieve as run

    if new_person:
        from dreamdiff.evaluation.new_person import new_person as rows_of

        with progress("new person") as report:
            rows = rows_of(
                model,
                pairs,
                out,
                settings,
                unlabelled=unlabelled,
                minutes=minutes,
                progress=report,
                offline=offline,
                strict_rate=strict_rate,
            )
        if json:
            emit_json(rows.to_json())
            return
        emit_table("new person", rows.table())
        for row, why in rows.not_computed.items():
            note(f"not computed: {row}: {why}")
        note(f"report: {out / 'report.html'}")
        return
    with progress("retrieving") as report:
        result = run(model, pairs, out, settings, progress=report, offline=offline, strict_rate=strict_rate, say=note)
    if json:
        emit_json(result.to_json())
        return
    note(result.first_line)
    for warning in result.identity.get("warnings", ()):
        note(warning)
    if result.epochs is not None:
        note(result.epochs.sentence)
    rows = [
        {"row": row["name"], **{measure: figure["value"] for measure, figure in row["accuracy"].items()}}
        for row in result.certificate.to_json()["rows"]
    ]
    emit_table("what carries it", rows, ["row", *result.certificate.truth])
    figures = [{**m.to_json(), "interval": m.between()} for m in result.measurements]
    emit_table("retrieval", figures, ["name", "value", "interval", "floor", "n"])
    if result.carriers is not None:
        emit_table("which part carries it (light decoder, balanced accuracy)", result.carriers.table())
        for warning in result.carriers.warnings:
            note(f"warning: {warning}")
    note(f"report: {out / 'report.html'}; verify it with `dreamdiff evaluate --check {out}`")
