"""`eegprep export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .._app import eegprep_app
from .._output import note, progress


@eegprep_app.command(
    inputs=("store",),
    examples="""
    eegprep export corpus.zarr corpus.h5
    eegprep export corpus.zarr folder --format npy
    """,
)
def export(
    store: Annotated[str, typer.Argument(help="Corpus: a folder or a URL")],
    out: Annotated[Path, typer.Argument(help="File (hdf5) or folder (npy) to write")],
    format: Annotated[Literal["hdf5", "npy"], typer.Option(help="One HDF5 file, or one .npy file a window")] = "hdf5",
    dataset: Annotated[list[str] | None, typer.Option(help="Only this data set; may be given several times")] = None,
) -> None:
    """Write a corpus as HDF5 or .npy files.

    The folder of .npy files is what the DreamDiffusion authors' script reads.
    """
    from eegprep.corpus.export import export as work
    from eegprep.corpus.reader import Corpus

    corpus = Corpus.open(store)
    with progress("export") as report:
        n = work(corpus.select(dataset=dataset) if dataset else corpus, out, format, progress=report)
    note(f"{n} windows in {out}")
