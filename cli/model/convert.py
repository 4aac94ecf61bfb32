"""`dreamdiff convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import _output
from .._app import dreamdiff_app


@dreamdiff_app.command(
    inputs=("checkpoint",),
    examples="""
    dreamdiff convert checkpoint.pth --out converted
    """,
)
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' .pth file; or a folder of ours, to go back")],
    out: Annotated[Path, typer.Option(help="Folder to write; or the .pth file, when CHECKPOINT is a folder of ours")],
    scaling: Annotated[
        Literal["none", "divide-by-10", "robust"] | None,
        typer.Option(help="Input scaling; default: what the authors' data loader does for that stage"),
    ] = None,
    encoder_only: Annotated[bool, typer.Option("--encoder-only", help="Take just the EEG encoder")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print what was found as JSON")] = False,
) -> None:
    """Convert a checkpoint of the DreamDiffusion authors' code.

    Nothing in the file is executed; pre-trained and fine-tuned checkpoints are recognised.
    """
    from dreamdiff.programs.convert import convert_any

    facts = convert_any(checkpoint, out, scaling=scaling, encoder_only=encoder_only)
    if json_:
        _output.emit_json(facts)
    else:
        _output.emit_table(str(out), [{"item": name, "value": value} for name, value in facts.items()])
