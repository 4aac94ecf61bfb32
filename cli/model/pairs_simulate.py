"""`dreamdiff pairs simulate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from .._app import pairs_app
from .._described import field_help
from .._output import note, progress

_setting = partial(field_help, "dreamdiff.simulation.config", "SimulateConfig")


@pairs_app.command(
    "simulate",
    examples="""
    dreamdiff pairs simulate --out pairs.zarr --people 1 --trials 6
    dreamdiff pairs simulate --out short.zarr --sfreq 128 --trials 30 --test-share 0.4
    dreamdiff pairs simulate --out twin.zarr --concepts 826 --drawings icons --people 10 --sfreq 128 --length 0.8
    dreamdiff pairs simulate --out linear.zarr --sources linear --snr -6
    dreamdiff pairs simulate --out drift.zarr --block-order class --drift 0.3
    """,
)
def pairs_simulate(
    out: Annotated[Path, typer.Option(help="Pairs store to write, e.g. pairs.zarr")],
    sources: Annotated[
        Literal["network", "linear"],
        typer.Option(help=_setting("sources")),
    ] = "network",
    snr: Annotated[float | None, typer.Option(help=_setting("snr"))] = None,
    people: Annotated[int, typer.Option(min=1, help=_setting("people"))] = 2,
    trials: Annotated[int, typer.Option(min=3, help=_setting("trials"))] = 30,
    test_share: Annotated[float, typer.Option(min=0, help=_setting("test_share"))] = 0.2,
    block_order: Annotated[Literal["random", "class"], typer.Option(help=_setting("block_order"))] = "random",
    drift: Annotated[float, typer.Option(min=0, help=_setting("drift"))] = 0.0,
    background: Annotated[Literal["sample", "pink"], typer.Option(help=_setting("background"))] = "sample",
    sfreq: Annotated[float | None, typer.Option(help=_setting("sfreq"))] = None,
    length: Annotated[float | None, typer.Option(help=_setting("length"))] = None,
    common: Annotated[float | None, typer.Option(help=_setting("common"))] = None,
    category: Annotated[float | None, typer.Option(help=_setting("category"))] = None,
    own: Annotated[float | None, typer.Option(help=_setting("own"))] = None,
    jitter: Annotated[float | None, typer.Option(help=_setting("jitter"))] = None,
    anatomy: Annotated[float | None, typer.Option(help=_setting("anatomy"))] = None,
    concepts: Annotated[int | None, typer.Option(min=3, help=_setting("concepts"))] = None,
    drawings: Annotated[
        Path | None, typer.Option(help="Folder with icon sets, as `npm install --prefix icons @iconify-json/noto ...` makes it")
    ] = None,
    test_concepts: Annotated[int | None, typer.Option(min=1, help=_setting("test_concepts"))] = None,
    test_set: Annotated[
        str | None, typer.Option(help="Icon set that draws the test pictures [default: the first that is there]")
    ] = None,
    first_person: Annotated[
        int | None,
        typer.Option(min=1, help=_setting("first_person")),
    ] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help=_setting("repetitions"))] = None,
    test_repetitions: Annotated[int | None, typer.Option(min=1, help=_setting("test_repetitions"))] = None,
    seed: Annotated[int, typer.Option(help=_setting("seed"))] = 0,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Where the store was made with other settings, make it again; the old one stays until then"
        ),
    ] = False,
) -> None:
    """Simulate EEG-image pairs with a known answer. Run again to resume."""
    from dreamdiff.simulation.config import SimulateConfig
    from dreamdiff.simulation.simulate import simulate
    from eegprep.settings import validated
    from eegprep.words import count

    given = {
        "sources": sources, "people": people, "trials": trials, "test_share": test_share, "block_order": block_order, "drift": drift,
        "background": background, "seed": seed,
    }  # fmt: skip
    dials = {
        "snr": snr, "sfreq": sfreq, "length": length, "common": common, "category": category, "own": own, "jitter": jitter,
        "anatomy": anatomy, "concepts": concepts, "test_concepts": test_concepts, "repetitions": repetitions,
        "test_repetitions": test_repetitions, "first_person": first_person,
    }  # fmt: skip
    config = validated(SimulateConfig, {**given, **{name: value for name, value in dials.items() if value is not None}})
    with progress("simulate") as update:
        images = None
        if config.concepts and drawings is not None:
            from dreamdiff.simulation.drawings import drawn_images

            images = drawn_images(
                drawings, config.concepts, config.test_concepts, test_set=test_set, seed=config.seed, progress=update
            )
        pairs = simulate(out, config, images=images, rebuild=rebuild, progress=update)
    parts = ", ".join(f"{len(indices)} {name}" for name, indices in pairs.splits.items())
    note(
        f"{out}: {len(pairs)} simulated trials of {count(len(pairs.subjects), 'person')} and {count(len(pairs.classes), 'category')} ({parts})"
    )
