"""`dreamdiff pairs fetch`."""

from __future__ import annotations

from typing import Annotated

import typer

from .._app import pairs_app
from .._output import emit_json, emit_table, note, progress
from ..corpus import _options as o


@pairs_app.command(
    "fetch",
    examples="""
    dreamdiff pairs fetch things-eeg2 --subjects 1 --dry-run
    dreamdiff pairs fetch alljoined-1.6m --subjects 1-2 --accept CC-BY-NC-ND-4.0
    """,
)
def pairs_fetch(
    name: Annotated[str, typer.Argument(help="things-eeg1, things-eeg2, alljoined1 or alljoined-1.6m")],
    subjects: o.Subjects = None,
    data_dir: o.DataDir = None,
    accept: o.Accept = None,
    offline: o.Offline = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
) -> None:
    """Download the EEG of public EEG-image pairs, and say how to come by their pictures.

    Files are compared with the published checksums, and a broken download is resumed. Pictures are never downloaded: their terms are for you to accept.
    """
    from dreamdiff.sharing import public

    known = public.public_pairs(name)
    if dry_run:
        row = public.plan_pairs(name, data_dir, subjects).row()
        if as_json:
            emit_json(row)
        else:
            emit_table(known.title, [row])
            note(f"pictures: {known.images}")
        return
    with progress("fetch") as bar:
        done = public.fetch_pairs(name, subjects=subjects, data_dir=data_dir, accept=accept or (), offline=offline, progress=bar)
    if as_json:
        emit_json(
            {
                "folder": str(done.folder),
                "people": done.people,
                "files": done.files,
                "bytes": done.bytes,
                "licence": done.licence,
                "next": done.steps,
            }
        )
        return
    typer.echo(f"{done.folder}: {len(done.people)} people, {done.files} files, {done.bytes / 1e6:.1f} MB, licence {done.licence}")
    for step in done.steps:
        note(step)
