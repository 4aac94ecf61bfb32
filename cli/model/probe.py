"""`dreamdiff probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import _output
from .._app import dreamdiff_app
from .._described import DeviceOption


@dreamdiff_app.command(
    inputs=("model", "store"),
    examples="""
    dreamdiff probe --model msm --store corpus.zarr
    dreamdiff probe --model msm --store corpus.zarr --hold-out recording --labels T1,T2
    """,
)
def probe(
    model: Annotated[Path, typer.Option(help="Run of `dreamdiff train msm`, or an encoder folder")],
    store: Annotated[str, typer.Option(help="Corpus with labels")],
    hold_out: Annotated[Literal["person", "recording"], typer.Option(help="What is held out together")] = "person",
    labels: Annotated[str | None, typer.Option(help="Labels to tell apart, separated by commas; default all")] = None,
    seed: Annotated[int, typer.Option(help="Of folds, resampling and the random encoder")] = 0,
    device: DeviceOption = None,
    strict_rate: Annotated[
        bool, typer.Option("--strict-rate", help="Refuse windows of another sampling rate than the encoder's")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON")] = False,
) -> None:
    """Measure what labels a frozen encoder can tell apart.

    Beside it stand the same encoder with random weights, band power, and chance.
    """
    from dreamdiff.pretraining import probe as probing

    expected = labels.split(",") if labels else None
    with _output.progress("probe") as progress:
        report = probing.probe(
            model,
            store,
            labels=expected,
            hold_out=hold_out,
            seed=seed,
            device=device or "auto",
            strict_rate=strict_rate,
            progress=progress,
        )
    if json_:
        _output.emit_json(report.to_dict())
        return
    for text in report.notes:
        _output.note(text)
    title = f"balanced accuracy, {report.windows} windows, {report.groups} x {report.hold_out}, chance {report.chance:.3f}"
    _output.note(f"{title}; intervals 95 % over {report.interval_over}; labels: {', '.join(report.labels)}")
    _output.emit_table(title, [vars(row) for row in report.rows])
    if report.carriers is not None:
        _output.emit_table("which part carries it (light decoder, balanced accuracy)", report.carriers.table())
