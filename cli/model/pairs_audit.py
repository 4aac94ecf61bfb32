"""`dreamdiff pairs audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import pairs_app
from .._output import emit_json, emit_table


@pairs_app.command(
    "audit",
    inputs=("pairs",),
    examples="""
    dreamdiff pairs audit pairs.zarr --split trial
    dreamdiff pairs audit pairs.zarr --split person --json
    """,
)
def pairs_audit(
    pairs: Annotated[Path, typer.Argument(help="Pairs store")],
    split: Annotated[
        str, typer.Option(help="trial, block, session, person, stimulus, concept, several joined by +, or a split of the store")
    ] = "default",
    seed: Annotated[int, typer.Option(help="Seed of a split that is made now, and of the permutations")] = 0,
    per_trial: Annotated[bool, typer.Option("--per-trial", help="With --json: what each test trial shares")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text")] = False,
) -> None:
    """Say what a split leaks from training into test.

    Lists what test trials share with training, and what a guesser without EEG gets from it. Exit code 3 if the split leaks.
    """
    from dreamdiff.pairs.reader import Pairs

    result = Pairs.open(pairs).audit(split, seed=seed)
    if as_json:
        emit_json(result.to_dict(per_trial=per_trial))
    else:
        typer.echo("\n".join(result.lines()))
        content = result.to_dict()
        emit_table("shared with training", content["shared"])
        if content["shortcuts"]:
            emit_table("guessers without EEG", content["shortcuts"])
    if result.verdict == "leaks":
        raise typer.Exit(3)
