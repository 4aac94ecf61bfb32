"""`eegprep build`."""

from __future__ import annotations

from .._app import eegprep_app
from . import _options as o


@eegprep_app.command(
    settings="build",
    examples="""
    eegprep build sample.toml --out corpus.zarr
    eegprep build moabb:PhysionetMI --subjects 1-10 --out corpus.zarr --dry-run
    eegprep build "files:lab/*.bdf" --out lab.zarr --resample 512 --workers 2
    """,
)
def build(
    sources: o.Sources,
    out: o.Out,
    subjects: o.Subjects = None,
    dataset: o.Dataset = None,
    scale: o.Scale = None,
    bad: o.Bad = None,
    sfreq: o.Sfreq = None,
    unit: o.Unit = None,
    channel_names: o.ChannelNames = None,
    data_dir: o.DataDir = None,
    accept: o.Accept = None,
    offline: o.Offline = False,
    workers: o.Workers = 1,
    scheduler: o.Scheduler = None,
    max_memory: o.MaxMemory = None,
    low: o.Low = None,
    high: o.High = None,
    nyquist: o.Nyquist = None,
    resample: o.Resample = None,
    notch: o.Notch = None,
    channels: o.Channels = None,
    window: o.Window = None,
    stride: o.Stride = None,
    windows: o.Windows = None,
    short: o.Short = None,
    mode: o.Mode = None,
    channel_order: o.Order = None,
    max_per_subject: o.MaxPerSubject = None,
    seed: o.Seed = None,
    min_channels: o.MinChannels = None,
    max_channels: o.MaxChannels = None,
    select_channels: o.SelectChannels = None,
    min_uv: o.MinUv = None,
    max_uv: o.MaxUv = None,
    keep_private: o.KeepPrivate = False,
    lock: o.Lock = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
) -> int:
    """Fetch, filter, crop and pad sources into a corpus. Run again to resume."""
    import eegprep

    from .._output import progress
    from ._show import finish, show_plan

    settings = {
        "low": low,
        "high": high,
        "nyquist": nyquist,
        "resample": resample,
        "notch": notch,
        "channels": channels,
        "window": window,
        "stride": stride,
        "windows": windows,
        "short": short,
        "mode": mode,
        "channel_order": channel_order,
        "max_per_subject": max_per_subject,
        "seed": seed,
        "min_channels": min_channels,
        "max_channels": max_channels,
        "select_channels": o.names_of(select_channels),
        "min_uv": min_uv,
        "max_uv": max_uv,
    }
    chosen = {
        "subjects": subjects,
        "dataset": dataset,
        "scale": scale,
        "bad": bad,
        "sfreq": sfreq,
        "unit": unit,
        "channel_names": o.names_of(channel_names),
    }
    if dry_run:
        from eegprep.steps.build import plan
        from eegprep.steps.plan import totals

        rows = plan(sources, out, data_dir=data_dir, workers=workers, **chosen, **settings)
        return show_plan(rows, totals(rows), as_json)
    with progress("build") as bar:
        summary = eegprep.build(
            sources, out, data_dir=data_dir, accept=accept or (), offline=offline, workers=workers, scheduler=scheduler,
            max_memory=max_memory, keep_private=keep_private, lock=lock, progress=bar, **chosen, **settings,
        )  # fmt: skip
    return finish(summary, as_json)
