"""`dreamdiff pairs simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .._app import pairs_app
from .._output import note, progress


@pairs_app.command(
    "simulate",
    examples="""
    dreamdiff pairs simulate --out pairs.zarr --people 1 --trials 6
    dreamdiff pairs simulate --out drift.zarr --block-order class --drift 0.3
    """,
)
def pairs_simulate(
    out: Annotated[Path, typer.Option(help="Pairs store to write, e.g. pairs.zarr")],
    snr: Annotated[float, typer.Option(help="Evoked power over background power, 0-500 ms, all channels, dB")] = -6.0,
    people: Annotated[int, typer.Option(min=1, help="Simulated people")] = 2,
    trials: Annotated[int, typer.Option(min=3, help="Trials per category and person")] = 30,
    block_order: Annotated[Literal["random", "class"], typer.Option(help="Mixed blocks, or one category a block")] = "random",
    drift: Annotated[float, typer.Option(min=0, help="Change of background from block to block, e.g. 0.3 for 30 %")] = 0.0,
    background: Annotated[
        Literal["sample", "pink"], typer.Option(help="Genuine recordings that ship with the package, or 1/f noise")
    ] = "sample",
    seed: Annotated[int, typer.Option(help="Seed of everything random")] = 0,
) -> None:
    """Simulate EEG-image pairs with a known answer. Run again to resume."""
    from dreamdiff.simulation.people import SimulateConfig
    from dreamdiff.simulation.simulate import simulate

    config = SimulateConfig(
        snr=snr, people=people, trials=trials, block_order=block_order, drift=drift, background=background, seed=seed
    )
    with progress("simulate") as update:
        pairs = simulate(out, config, progress=update)
    parts = ", ".join(f"{len(indices)} {name}" for name, indices in pairs.splits.items())
    note(f"{out}: {len(pairs)} simulated trials of {len(pairs.subjects)} people and {len(pairs.classes)} categories ({parts})")
