"""`dreamdiff demo`: everything in a row on what ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import dreamdiff_app
from .._described import DeviceOption, TrainingPrecision
from .._output import note, progress


@dreamdiff_app.command(
    settings="demo",
    examples="""
    dreamdiff demo
    dreamdiff demo --out small --set trials=5 --set people=1
    """,
)
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo; run again to resume")] = Path("demo"),
    device: DeviceOption = None,
    precision: TrainingPrecision = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A size, e.g. --set trials=10 (repeat)")] = None,
) -> None:
    """Run everything on bundled data and open one page.

    Recordings, corpus, models, pictures, and which part earns them; two processor cores are enough. Run again to resume.
    """
    from dreamdiff.programs.demo_config import DemoConfig, claim
    from eegprep.settings import resolve

    settings = resolve(DemoConfig, assignments=set_ or (), options={"device": device, "precision": precision})
    claim(out)  # before PyTorch is imported: another folder costs no time
    from dreamdiff.programs.demo import run

    with progress("demo") as bar:
        done = run(out, settings, progress=bar, tell=note)
    typer.echo(done.says)
    typer.echo("next:")
    for command in done.next_commands:
        typer.echo(f"    {command}")
    typer.echo(f"open this page in a browser: {done.page.resolve()}")
