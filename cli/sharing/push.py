"""`eegprep push` and `dreamdiff push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .._app import dreamdiff_app, eegprep_app
from .._output import emit_json, note

To = Annotated[str, typer.Option(help="Repository OWNER/NAME; made where it is not there", metavar="OWNER/NAME")]
Private = Annotated[bool, typer.Option("--private", help="Into a repository that only you can read")]
NonCommercial = Annotated[bool, typer.Option("--non-commercial", help="Publish under terms of non-commercial use")]
Licence = Annotated[
    list[str] | None,
    typer.Option(
        "--licence", metavar="NAME=LICENCE", help="Licence of a part that states none, e.g. of your own recordings (repeat)"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout")]


@eegprep_app.command(
    "push",
    inputs=("store",),
    examples="""
    eegprep push corpus.zarr --to my-lab/eeg-corpus
    eegprep push corpus.zarr --to my-lab/eeg-corpus --licence "lab=CC-BY-4.0"
    """,
)
def push_corpus(
    store: Annotated[Path, typer.Argument(help="Corpus to publish")],
    to: To,
    private: Private = False,
    non_commercial: NonCommercial = False,
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Publish a corpus on the Hugging Face Hub, with a card, citations and checksums.

    Recordings under "no derivatives" or an unknown licence are refused by name. It is read by ranges as hf://datasets/OWNER/NAME.
    """
    import eegprep
    from eegprep.sharing.licences import stated_licences

    licences = stated_licences(licence or ())
    _show(eegprep.push_corpus(store, to, private=private, non_commercial=non_commercial, licences=licences, say=note), as_json)


@dreamdiff_app.command(
    "push",
    inputs=("run",),
    examples="""
    dreamdiff push aligned --to my-lab/eeg-to-clip --report retrieved
    dreamdiff push pairs.zarr --to my-lab/pairs --private
    """,
)
def push(
    run: Annotated[Path, typer.Argument(help="Run or folder of a model, store of EEG-image pairs, or corpus")],
    to: To,
    report: Annotated[
        list[Path] | None, typer.Option("--report", help="Report of evaluate or retrieve on this model, for its card (repeat)")
    ] = None,
    private: Private = False,
    non_commercial: NonCommercial = False,
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Publish a model, pairs or a corpus on the Hugging Face Hub.

    Weights go as safetensors, with SHA-256 of every file and a card made from the run and its reports, which are checked first.
    Where a licence of any part forbids it, nothing is sent, and the part is named.
    """
    import dreamdiff
    from eegprep.sharing.licences import stated_licences

    pushed = dreamdiff.push_to_hub(
        run,
        to,
        reports=report or (),
        private=private,
        non_commercial=non_commercial,
        licences=stated_licences(licence or ()),
        say=note,
    )
    _show(pushed, as_json)


def _show(pushed: Any, as_json: bool) -> None:
    if as_json:
        emit_json(pushed.to_json())
        return
    state = "private" if pushed.private else f"licence {pushed.licence}"
    typer.echo(f"{pushed.url}: {pushed.files} files, {pushed.bytes / 1e6:.1f} MB, {state}, commit {pushed.commit}")
