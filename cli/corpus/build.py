"""`eegprep build` and `eegprep index`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    subject_pattern: o.SubjectPattern = None,
    session_pattern: o.SessionPattern = None,
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
    rebuild: o.Rebuild = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
) -> int:
    """Fetch, filter, crop and pad sources into a corpus. Run again to resume."""
    import eegprep

    from .._output import progress
    from ._show import finish, show_plan

    settings, chosen = _settings(locals()), _chosen(locals())
    if dry_run:
        from eegprep.steps.build import plan
        from eegprep.steps.plan import totals

        rows = plan(sources, out, data_dir=data_dir, workers=workers, offline=offline, **chosen, **settings)
        return show_plan(rows, totals(rows), as_json)
    with progress("build") as bar:
        summary = eegprep.build(
            sources, out, data_dir=data_dir, accept=accept or (), offline=offline, workers=workers, scheduler=scheduler,
            max_memory=max_memory, keep_private=keep_private, lock=lock, rebuild=rebuild, progress=bar, **chosen, **settings,
        )  # fmt: skip
    return finish(summary, as_json)


@eegprep_app.command(
    settings="build",
    examples="""
    eegprep index "files:lab/**/*.edf" --out view.zarr
    eegprep index bids:study --out view.zarr --workers 2
    dreamdiff train msm --store view.zarr --out run
    """,
)
def index(
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
    rebuild: o.Rebuild = False,
    as_json: o.Json = False,
) -> int:
    """A view of recordings that reads like a corpus: windows are cut and filtered when they are read. The recordings must stay."""
    import eegprep

    from .._output import progress
    from ._show import finish

    settings, chosen = _settings(locals()), _chosen(locals())
    with progress("index") as bar:
        summary = eegprep.index(
            sources, out, data_dir=data_dir, accept=accept or (), offline=offline, workers=workers, max_memory=max_memory,
            rebuild=rebuild, progress=bar, **chosen, **settings,
        )  # fmt: skip
    return finish(summary, as_json)


_RECIPE = (
    *("low", "high", "nyquist", "resample", "notch", "channels", "window", "stride", "windows", "short", "mode", "channel_order"),
    *("max_per_subject", "seed", "min_channels", "max_channels", "min_uv", "max_uv"),
)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the recipe, out of all arguments of a command."""
    return {**{name: given[name] for name in _RECIPE}, "select_channels": o.names_of(given["select_channels"])}


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is chosen for all sources."""
    names = ("subjects", "dataset", "scale", "bad", "sfreq", "unit", "subject_pattern", "session_pattern")
    return {**{name: given[name] for name in names}, "channel_names": o.names_of(given["channel_names"])}
