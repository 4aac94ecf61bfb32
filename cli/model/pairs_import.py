"""`dreamdiff pairs import`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from .._app import pairs_app
from .._described import field_help
from .._output import note, progress
from ..corpus import _options as o

_setting = partial(field_help, "dreamdiff.pairs.importers.importer", "ImportConfig")


@pairs_app.command(
    "import",
    inputs=("source", "images", "splits", "trials"),
    examples="""
    dreamdiff pairs import trials.csv --kind table --out pairs.zarr
    dreamdiff pairs import THINGS-EEG2 --kind things-eeg2 --images images --out things.zarr
    dreamdiff pairs import THINGS-EEG2 --kind things-eeg2 --recipe image --electrodes posterior --images images --out things.zarr
    dreamdiff pairs import ds003825 --kind things-eeg1 --images THINGS --mvnn --out things1.zarr
    dreamdiff pairs import study --kind bids --stimulus-column stim_file --out pairs.zarr
    dreamdiff pairs import corpus.zarr --kind corpus --trials trials.csv --out pairs.zarr
    """,
)
def pairs_import(
    source: Annotated[
        Path,
        typer.Argument(
            help="eeg_5_95_std.pth or its folder; the folder of sub-01, ...; a CSV or Parquet table; a BIDS folder; a corpus"
        ),
    ],
    kind: Annotated[
        Literal["imagenet-eeg", "things-eeg2", "things-eeg2-raw", "things-eeg1", "alljoined", "table", "bids", "corpus"],
        typer.Option(
            metavar="KIND",
            help=_setting("kind"),
        ),
    ],
    out: Annotated[Path, typer.Option(help="Pairs store to write, e.g. pairs.zarr")],
    trials: Annotated[
        Path | None,
        typer.Option(help=_setting("trials")),
    ] = None,
    images: Annotated[Path | None, typer.Option(help=_setting("images"))] = None,
    splits: Annotated[Path | None, typer.Option(help=_setting("splits"))] = None,
    subjects: Annotated[str | None, typer.Option(help=_setting("subjects"))] = None,
    window: Annotated[str, typer.Option(help=_setting("window"))] = "20:460",
    repetitions: Annotated[Literal["keep", "average"], typer.Option(help=_setting("repetitions"))] = "keep",
    recipe: Annotated[
        Literal["paper", "image"] | None,
        typer.Option(help=_setting("recipe")),
    ] = None,
    window_ms: Annotated[
        str | None,
        typer.Option(metavar="FIRST:LAST", help=_setting("window_ms")),
    ] = None,
    baseline_ms: Annotated[
        str | None,
        typer.Option(metavar="FIRST:LAST", help=_setting("baseline_ms")),
    ] = None,
    electrodes: Annotated[Literal["all", "posterior"], typer.Option(help=_setting("electrodes"))] = "all",
    mvnn: Annotated[bool, typer.Option("--mvnn", help=_setting("mvnn"))] = False,
    low: Annotated[float | None, typer.Option(help=_setting("low"))] = None,
    high: Annotated[float | None, typer.Option(help=_setting("high"))] = None,
    nyquist: Annotated[Literal["clip", "highpass", "error"], typer.Option(help=_setting("nyquist"))] = "clip",
    resample: Annotated[float | None, typer.Option(help=_setting("resample"))] = None,
    offset: Annotated[
        float | None,
        typer.Option(help=_setting("offset")),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME=COLUMN,...", help=_setting("columns")),
    ] = None,
    stimulus_column: Annotated[
        str | None,
        typer.Option(help="bids: column of events.tsv that names the pictures [default: a usual name, such as stim_file]"),
    ] = None,
    subject_pattern: o.SubjectPattern = None,
    session_pattern: o.SessionPattern = None,
    sfreq: o.Sfreq = None,
    unit: o.Unit = None,
    channel_names: o.ChannelNames = None,
    scale: o.Scale = None,
    licence: Annotated[str, typer.Option(help=_setting("licence"))] = "unknown",
    split_by: Annotated[str, typer.Option(help=_setting("split_by"))] = "stimulus",
    seed: Annotated[int, typer.Option(help=_setting("seed"))] = 0,
    simulated: Annotated[bool, typer.Option("--simulated", help=_setting("simulated"))] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Where the store was made with other settings, make it again; the old one stays until then"
        ),
    ] = False,
) -> None:
    """Import EEG-image pairs into a pairs store. Run again to resume.

    Images stay where they are and are checked whenever they are read.
    """
    from dreamdiff.pairs.importers.design import describe_design
    from dreamdiff.pairs.importers.importer import ImportConfig
    from dreamdiff.pairs.importers.run import import_pairs, parse_stretch, parse_window
    from dreamdiff.pairs.importers.trial_log import parse_columns
    from dreamdiff.simulation.twins import describe_twin
    from eegprep.catalogue.subjects import parse_subjects
    from eegprep.settings import validated
    from eegprep.words import count

    if stimulus_column is not None and kind != "bids":
        raise typer.BadParameter(f"--stimulus-column belongs to --kind bids; for {kind} write --columns image={stimulus_column}")
    own = parse_columns(columns) | ({"image": stimulus_column} if stimulus_column else {})
    given = {
        "recipe": recipe, "low": low, "high": high, "resample": resample, "offset": offset,
        "window_ms": None if window_ms is None else parse_stretch(window_ms, "--window-ms"),
    }  # fmt: skip
    options: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if baseline_ms is not None:
        options["baseline_ms"] = None if baseline_ms == "none" else parse_stretch(baseline_ms, "--baseline-ms")
    config = validated(ImportConfig, dict(
        kind=kind, trials=str(trials) if trials else None, images=str(images) if images else None, splits=str(splits) if splits else None,
        subjects=parse_subjects(subjects) if subjects else None, window=parse_window(window), repetitions=repetitions,
        nyquist=nyquist, licence=licence, electrodes=electrodes, mvnn=mvnn, split_by=split_by, seed=seed,
        columns=own, subject_pattern=subject_pattern or "", session_pattern=session_pattern or "", sfreq=sfreq,
        unit=unit or "", channel_names=o.names_of(channel_names) or (), scale=scale, simulated=simulated, **options,
    ))  # fmt: skip
    with progress("import") as update:
        pairs = import_pairs(source, out, config, rebuild=rebuild, progress=update, tell=note)
    parts = ", ".join(f"{len(indices)} {name}" for name, indices in pairs.splits.items())
    note(
        f"{out}: {count(len(pairs), 'trial')} of {count(len(pairs.subjects), 'person')}, {count(len(pairs.image_names), 'image')} ({parts})"
    )
    for line in (*describe_design(pairs), *describe_twin(pairs)):
        note(line)
    note(f"next: dreamdiff pairs audit {out}, which says what this split can and cannot show")
