"""`dreamdiff app`: the web page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .._app import dreamdiff_app
from .._described import DeviceOption, PicturePrecision, field_help
from .._env import has_screen, require_package
from .._output import note, progress

_setting = partial(field_help, "dreamdiff.generation.config", "GenerateConfig")


@dreamdiff_app.command(
    inputs=("model", "pairs", "sd", "adapter"),
    examples="""
    dreamdiff app --model demo/aligned --pairs demo/pairs.zarr
    dreamdiff app --model aligned --pairs pairs.zarr --sd stable-diffusion-v1-5 --adapter ip-adapter_sd15.safetensors
    """,
)
def app(
    model: Annotated[
        Path | None,
        typer.Option(help="Run of `train align` or `train finetune`, or pipeline folder; default: the aligned one of the demo"),
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Pairs store to choose trials from; default: that of the demo")] = None,
    sd: Annotated[str | None, typer.Option(help=field_help("dreamdiff.generation.config", "GenerateConfig", "sd"))] = None,
    adapter: Annotated[
        str | None, typer.Option(help=field_help("dreamdiff.generation.config", "GenerateConfig", "adapter"))
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on; the default is reachable from this machine only")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; default: the first free from 7860")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name that the page may be asked for under, such as that of a proxy")
    ] = None,
    device: DeviceOption = None,
    precision: PicturePrecision = None,
    open_browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open the page in a browser [default: where there is a screen]")
    ] = None,
) -> None:
    """Open a web page to try a model on trials or uploads.

    Without --model it takes the demo's: that of ./demo where `dreamdiff demo` has run, else one that is trained on the first call.
    """
    require_package("gradio", "the page", "app")
    if model is None and (Path("demo") / "index.html").is_file() and (Path("demo") / "aligned").is_dir():
        model, pairs = Path("demo") / "aligned", pairs or Path("demo") / "pairs.zarr"
        note(f"the model of the demo: {model}, trials of {pairs}")
    from dreamdiff.programs import demo
    from dreamdiff.programs.app import Studio
    from dreamdiff.web.page import launch

    if model is None:
        with progress("preparing the demo's model") as bar:
            model, demo_pairs = demo.model_and_pairs(device=device or "auto", progress=bar)
        pairs = pairs or demo_pairs
    studio = Studio(model, pairs, sd=sd, adapter=adapter, device=device or "auto", precision=precision or "fp32")
    shown = has_screen() if open_browser is None else open_browser
    launch(
        studio, host=host, port=port, open_browser=shown, allowed_hosts=allow_host or (),
        tell=lambda address: note(f"open {address} (Ctrl-C stops)"),
    )  # fmt: skip
