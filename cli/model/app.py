"""`dreamdiff app`: the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import dreamdiff_app
from .._described import DeviceOption, PicturePrecision
from .._output import note, progress


@dreamdiff_app.command(
    inputs=("model", "pairs"),
    examples="""
    dreamdiff app --model demo/finetuned --pairs demo/pairs.zarr
    """,
)
def app(
    model: Annotated[
        Path | None, typer.Option(help="Run of `train finetune` or pipeline folder; default: that of the demo")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Pairs store to choose trials from; default: that of the demo")] = None,
    host: Annotated[str, typer.Option(help="Address to serve on; the default is reachable from this machine only")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; default: the first free from 7860")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name that the page may be asked for under, such as that of a proxy")
    ] = None,
    device: DeviceOption = None,
    precision: PicturePrecision = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser")] = False,
) -> None:
    """Open a web page to try a model on trials or uploads."""
    from dreamdiff.programs import demo
    from dreamdiff.programs.app import Studio, launch

    if model is None:
        with progress("preparing the demo's model") as bar:
            model, demo_pairs = demo.model_and_pairs(device=device or "auto", progress=bar)
        pairs = pairs or demo_pairs
    studio = Studio(model, pairs, device=device or "auto", precision=precision or "fp32")
    note("serving; stop with Ctrl-C")
    launch(studio, host=host, port=port, open_browser=open_browser, allowed_hosts=allow_host or ())
