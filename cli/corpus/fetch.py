"""`eegprep fetch`."""

from __future__ import annotations

from .._app import eegprep_app
from . import _options as o


@eegprep_app.command(
    examples="""
    eegprep fetch moabb:PhysionetMI --subjects 1-10 --out recordings.zarr
    eegprep fetch "files:lab/*.bdf" --out recordings.zarr
    """,
)
def fetch(
    sources: o.Sources,
    out: o.Out,
    subjects: o.Subjects = None,
    dataset: o.Dataset = None,
    scale: o.Scale = None,
    bad: o.Bad = None,
    sfreq: o.Sfreq = None,
    unit: o.Unit = None,
    channel_names: o.ChannelNames = None,
    subject_pattern: o.SubjectPattern = None,
    session_pattern: o.SessionPattern = None,
    data_dir: o.DataDir = None,
    accept: o.Accept = None,
    offline: o.Offline = False,
    workers: o.Workers = 1,
    scheduler: o.Scheduler = None,
    max_memory: o.MaxMemory = None,
    keep_private: o.KeepPrivate = False,
    rebuild: o.Rebuild = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
) -> int:
    """Download sources and store each recording as one array. Run again to resume."""
    from eegprep.steps.build import fetch as step
    from eegprep.steps.build import fetch_plan

    from .._output import progress
    from ._show import finish, show_plan

    if dry_run:
        rows = fetch_plan(sources, subjects=subjects, dataset=dataset, data_dir=data_dir)
        totals = {"subjects": sum(row.subjects for row in rows), "done": sum(row.subjects_on_disk for row in rows)}
        return show_plan(rows, totals, as_json)
    with progress("fetch") as bar:
        summary = step(
            sources, out, subjects=subjects, dataset=dataset, scale=scale, bad=bad, sfreq=sfreq, unit=unit,
            channel_names=o.names_of(channel_names), subject_pattern=subject_pattern, session_pattern=session_pattern, data_dir=data_dir, accept=accept or (), offline=offline, workers=workers,
            scheduler=scheduler, max_memory=max_memory, keep_private=keep_private, rebuild=rebuild, progress=bar,
        )  # fmt: skip
    return finish(summary, as_json)
