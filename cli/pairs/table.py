"""`dreamdiff pairs table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._app import pairs_app
from .._output import note, progress
from ..corpus import _options as o


@pairs_app.command(
    "table",
    inputs=("images",),
    examples="""
    dreamdiff pairs table "files:lab/*.bdf" --log "*_log.csv" --out trials.csv
    dreamdiff pairs table "files:lab/*.bdf" --log codes.csv --columns image=picture,trigger=code --images stimuli --out trials.csv
    dreamdiff pairs table bids:study --columns image=stim_file,label=trial_type --out trials.csv
    """,
)
def pairs_table(
    sources: o.Sources,
    out: Annotated[Path, typer.Option(help="Table to write, e.g. trials.csv")],
    log: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB", help="Stimulus logs, here or beside the recordings; not needed where BIDS events name the pictures"
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures [default: looked for near the logs]")] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME=COLUMN,...", help="What the log calls image, label, trigger, onset, recording or subject"),
    ] = None,
    events: Annotated[str | None, typer.Option(help="Labels of the events that are pictures, e.g. 1,2,7")] = None,
    subjects: o.Subjects = None,
    subject_pattern: o.SubjectPattern = None,
    session_pattern: o.SessionPattern = None,
    sfreq: o.Sfreq = None,
    unit: o.Unit = None,
    channel_names: o.ChannelNames = None,
) -> None:
    """Make the table of `pairs import` from recordings and stimulus logs.

    Trigger codes are compared with the log's column of codes; without such a column, events and rows are matched one by one. Counts
    that differ are an error. Where the log has times, the offsets of its clock are shown.
    """
    from dreamdiff.pairs.importers.trial_log import parse_columns
    from dreamdiff.pairs.importers.trial_table import make_table
    from eegprep.errors import UsageError
    from eegprep.steps.origin import Choice
    from eegprep.words import count

    if out.suffix.lower() not in (".csv",):
        raise UsageError(f"--out {out} is not named like a table", f"write it to {out.with_suffix('.csv')}")
    choice = Choice(
        subjects=subjects, sfreq=sfreq, unit=unit, channel_names=o.names_of(channel_names), subject_pattern=subject_pattern,
        session_pattern=session_pattern,
    )  # fmt: skip
    expected = tuple(part.strip() for part in (events or "").split(",") if part.strip())
    with progress("table") as update:
        table = make_table(
            sources, out.resolve().parent, log=log, images=images, columns=parse_columns(columns), events=expected, choice=choice,
            progress=update,
        )  # fmt: skip
    table.write(out)
    for line in table.notes:
        note(line)
    people, pictures, labels = (len({row[name] for row in table.rows}) for name in ("subject", "image", "label"))
    note(
        f"{out}: {count(len(table.rows), 'trial')} of {count(people, 'person')}, {count(pictures, 'picture')} of {count(labels, 'category')}"
    )
    note(f"next: dreamdiff pairs import {out} --kind table --out pairs.zarr")
