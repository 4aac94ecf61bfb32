"""`fetch`, `filter`, `pad`, and `build`, which is all three in one pass: plan, skip what is done, work, finish.

A job is one subject: read or written as a whole, by one worker, under a key that says what it was made of. Running the same
command again does what is missing; another setting on a store that is there is refused, unless `rebuild` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eegprep.catalogue import manifests
from eegprep.download import fetch as downloads
from eegprep.download.archives import expect_archive, is_here, plan_archive
from eegprep.errors import FetchError
from eegprep.pool import Budget
from eegprep.provenance import sha256
from eegprep.readers.content import Reading
from eegprep.readers.raws import from_raw
from eegprep.recording import ProgressCallback, SourceFile
from eegprep.signals.recipe import Recipe, make_recipe
from eegprep.sources import listing
from eegprep.sources.reading import scaled
from eegprep.steps.inputs import (
    build_jobs,
    load_sources,
    needed_rate,
    plain_settings,
    recipe_from,
    store_folder,
    stored_jobs,
    subject_caps,
    subject_tasks,
)
from eegprep.steps.jobs import FILTER_SETTINGS, FetchJob, FilterJob, PadJob, RawJob, done_before
from eegprep.steps.lockfile import changed_software, check_lock_name, write_lock
from eegprep.steps.origin import Choice, StoreOrigin, choose
from eegprep.steps.plan import PlanRow, archive_row, local_row, make_plan
from eegprep.steps.run import run_step
from eegprep.steps.summary import Summary
from eegprep.steps.target import CorpusTarget, RecordingsTarget
from eegprep.store import recordings as recordings_store
from eegprep.store.records import left_out_subjects

if TYPE_CHECKING:
    from mne.io import BaseRaw


def fetch(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    subjects: str | None = None,
    dataset: str | None = None,
    scale: float | None = None,
    bad: str | None = None,
    sfreq: float | None = None,
    unit: str | None = None,
    channel_names: Sequence[str] | None = None,
    subject_pattern: str | None = None,
    session_pattern: str | None = None,
    data_dir: str | Path | None = None,
    accept: Sequence[str] = (),
    offline: bool = False,
    keep_private: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    max_memory: str | int | None = None,
    rebuild: bool = False,
    progress: ProgressCallback | None = None,
) -> Summary:
    """Bring source files here and turn each run into one array of a recordings store.

    Example:
        >>> import eegprep
        >>> eegprep.fetch("sample.toml", "recordings.zarr").recordings
        4
    """
    budget = Budget.make(workers, scheduler, max_memory)
    choice = choose(subjects, dataset, scale, bad, sfreq, unit, channel_names, subject_pattern, session_pattern)
    origin = StoreOrigin("fetch", plain_settings(source), store_folder(data_dir), offline, keep_private, choice)
    manifest = load_sources(source, origin.choice)
    tasks = subject_tasks(manifest, origin, accept, progress)
    jobs = [FetchJob(str(out), task.source.dataset, task.subject, None, task.files, task) for task in tasks]
    summary = run_step(jobs, RecordingsTarget(Path(out), "fetched", {}), budget, progress, origin, rebuild=rebuild)
    return replace(summary, names=listing.who_is_who(tasks))


def filter_recordings(
    store_in: str | Path,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    max_memory: str | int | None = None,
    rebuild: bool = False,
    progress: ProgressCallback | None = None,
) -> Summary:
    """Gates, then a zero-phase band-pass of every recording.

    Example:
        >>> import eegprep
        >>> eegprep.filter_recordings("recordings.zarr", "filtered.zarr").recordings  # after eegprep.fetch
        4
    """
    budget = Budget.make(workers, scheduler, max_memory)
    recipe = recipe or Recipe()
    jobs = stored_jobs(FilterJob, Path(store_in), "fetched", Path(out), recipe)
    settings = {key: value for key, value in recipe.model_dump(mode="json").items() if key in FILTER_SETTINGS}
    origin = StoreOrigin("filter", (str(Path(store_in).resolve()),))
    inherited = left_out_subjects(recordings_store.read_root(Path(store_in)))
    return run_step(jobs, RecordingsTarget(Path(out), "filtered", settings, inherited), budget, progress, origin, rebuild=rebuild)


def pad(
    store_in: str | Path,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    max_memory: str | int | None = None,
    rebuild: bool = False,
    progress: ProgressCallback | None = None,
) -> Summary:
    """Crop and pad filtered recordings into the corpus. Settings of the filter are taken from the store.

    Example:
        >>> import eegprep
        >>> eegprep.pad("filtered.zarr", "corpus3.zarr").windows  # after eegprep.filter_recordings
        148
    """
    budget = Budget.make(workers, scheduler, max_memory)
    made = recordings_store.read_root(Path(store_in))
    recipe = make_recipe(**{**(recipe or Recipe()).model_dump(mode="json"), **made["recipe"]})
    jobs = stored_jobs(PadJob, Path(store_in), "filtered", Path(out), recipe)
    origin = StoreOrigin("pad", (str(Path(store_in).resolve()),))
    target = CorpusTarget.of(Path(out), recipe, [job.name for job in jobs], left_out_subjects(made))
    return run_step(jobs, target, budget, progress, origin, rebuild=rebuild)


def build(
    source: str | Path | Sequence[str | Path] | Mapping[str, Any] | BaseRaw,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    subjects: str | None = None,
    dataset: str | None = None,
    scale: float | None = None,
    bad: str | None = None,
    sfreq: float | None = None,
    unit: str | None = None,
    channel_names: Sequence[str] | None = None,
    subject_pattern: str | None = None,
    session_pattern: str | None = None,
    data_dir: str | Path | None = None,
    accept: Sequence[str] = (),
    offline: bool = False,
    keep_private: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    max_memory: str | int | None = None,
    lock: str | Path | None = None,
    rebuild: bool = False,
    progress: ProgressCallback | None = None,
    **settings: Any,
) -> Summary:
    """Sources into a corpus of windows, with nothing in between on disk. Run again to resume; nothing is done twice.

    Args:
        source: a manifest, "moabb:NAME", "openneuro:ID", "nemar:ID", "bids:ROOT", "files:GLOB", or several of them; or an `mne.io.Raw`, or a mapping from
            subject to a Raw or a list of them, see `build_raw`.
        out: folder of the corpus.
        recipe: how windows are made; or give its settings as keywords:
            low, high: pass band, Hz (5, 95). nyquist: "clip" (default), "highpass", "skip" or "error", where `high` does not fit.
            resample: common rate, Hz (each recording's own). notch: line frequency to remove, Hz, or "auto" (off).
            channels, window, stride: rows (128), samples (512) and samples between windows (512).
            windows: "sliding" or "trials". short: "skip" or "stretch", for recordings shorter than a window.
            mode: "replicate", "zeros" or "spline", for rows without a channel. channel_order: "source" or "canonical".
            max_per_subject: most windows of a subject (all), drawn with `seed` (0).
            select_channels: names of the channels to take (all). max_channels: most EEG channels of a recording (no limit).
            min_channels: least EEG channels (1). min_uv, max_uv: limits of the median channel standard deviation, uV (1, 300).
        subjects: for instance "1-10,12".
        dataset: name of the data set, instead of the class's or the folder's. scale: factor for all values, kept as a finding.
        bad: "keep" (default) or "reject": whether stretches marked BAD are taken as if they had not been recorded.
        sfreq, unit, channel_names: rate in Hz, "uV", "mV" or "V", and names, for files that do not say them; `channel_names` also
            says which channels are EEG where their names are not those of electrodes.
        subject_pattern, session_pattern: regular expressions for names of files; what they match (their first group) is the person
            and the session. Default: usual names and folders, as `Summary.names` says.
        data_dir: where data sets of MOABB and of archives lie; default as MNE has it.
        accept: licences to accept.
        offline: open no socket.
        keep_private: keep measurement date and subject information of the headers.
        workers: processes. scheduler: address of a Dask scheduler to use instead.
        max_memory: bytes, or text such as "4GB", for all workers together.
        lock: write a lock file here: a manifest that names every file with its hash, every setting and every version.
        rebuild: make a store that is there with other settings again; without it, other settings are refused. The old store
            stays until the new one is whole.

    Returns:
        what was done, with every finding of the gates.

    Example:
        >>> import eegprep
        >>> summary = eegprep.build("sample.toml", "again.zarr", low=1.0, high=40.0, stride=256)
        >>> summary.windows, summary.exit_code
        (292, 0)
    """
    if lock is not None:
        check_lock_name(Path(lock))
    if isinstance(source, Mapping) or hasattr(source, "get_data"):
        raws = source if isinstance(source, Mapping) else {"0": source}
        return build_raw(
            raws,
            out,
            dataset=dataset or "raw",
            recipe=recipe,
            scale=scale,
            bad=bad,
            unit=unit,
            channel_names=channel_names,
            rebuild=rebuild,
            **settings,
        )
    budget = Budget.make(workers, scheduler, max_memory)
    choice = choose(subjects, dataset, scale, bad, sfreq, unit, channel_names, subject_pattern, session_pattern)
    origin = StoreOrigin("build", plain_settings(source), store_folder(data_dir), offline, keep_private, choice)
    manifest = load_sources(source, origin.choice)
    recipe = recipe or recipe_from(manifest, settings)
    tasks = subject_tasks(manifest, origin, accept, progress, recipe)
    jobs = build_jobs(tasks, manifest, recipe, out)
    target = CorpusTarget.of(Path(out), recipe, [job.name for job in jobs])
    summary = run_step(jobs, target, budget, progress, origin, rebuild=rebuild)
    if lock is not None:
        write_lock(Path(lock), tasks, manifest, recipe, Path(out))
    findings = (*changed_software(manifest), *summary.findings)
    return replace(summary, findings=findings, names=listing.who_is_who(tasks))


def plan(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    subjects: str | None = None,
    dataset: str | None = None,
    scale: float | None = None,
    bad: str | None = None,
    sfreq: float | None = None,
    unit: str | None = None,
    channel_names: Sequence[str] | None = None,
    subject_pattern: str | None = None,
    session_pattern: str | None = None,
    data_dir: str | Path | None = None,
    workers: int = 1,
    offline: bool = False,
    **settings: Any,
) -> list[PlanRow]:
    """What `build` would do: a row for each data set. Downloads and writes nothing; of archives whose files are not here it reads the listing.

    Raises:
        FetchError: `offline`, and an archive would have to be asked.
    """
    manifest = load_sources(
        source, choose(subjects, dataset, scale, bad, sfreq, unit, channel_names, subject_pattern, session_pattern)
    )
    recipe = recipe_from(manifest, settings)
    folder = Path(store_folder(data_dir))
    away = [item for item in manifest.sources if item.kind in manifests.ARCHIVES and not is_here(item, folder)]
    if away and offline:
        raise FetchError(
            f"{away[0].spec}: is not all in {folder}, and this is offline", "run it without --offline to ask the archive"
        )
    tasks = listing.list_tasks([item for item in manifest.sources if item not in away], folder, download=False)
    jobs = build_jobs(tasks, manifest, recipe, out)
    done = [job.name for job in jobs if job.files and done_before(job) is not None]
    rows = make_plan(tasks, recipe, done, workers, subject_caps(tasks, manifest, recipe))
    return [*rows, *(archive_row(*expect_archive(item, needed_rate(recipe)), recipe, workers) for item in away)]


def fetch_plan(
    source: str | Path | Sequence[str | Path],
    *,
    subjects: str | None = None,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
) -> list[downloads.PlanRow]:
    """Sizes and licences of what `fetch` and `build` would download. Only archives are asked, for their listing."""
    folder = Path(store_folder(data_dir))
    sources = load_sources(source, Choice(subjects, dataset)).sources
    moabb = downloads.plan([item for item in sources if item.kind == "moabb"], folder)
    moabb += [plan_archive(item, folder) for item in sources if item.kind in manifests.ARCHIVES]
    tasks = listing.list_tasks([item for item in sources if item.kind in ("bids", "files")], folder)
    names = list(dict.fromkeys(task.source.dataset for task in tasks))
    return [*moabb, *(local_row([task for task in tasks if task.source.dataset == name]) for name in names)]


def build_raw(
    raws: Mapping[str, Any],
    out: str | Path,
    *,
    dataset: str = "raw",
    scale: float | None = None,
    bad: str | None = None,
    unit: str | None = None,
    channel_names: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    rebuild: bool = False,
    **settings: Any,
) -> Summary:
    """A corpus from `mne.io.Raw` objects in memory, one subject each.

    Args:
        raws: subject -> a Raw, or a list of Raws (its runs).
        scale, bad, unit, channel_names, rebuild: as in `build`.
    """
    recipe = recipe or make_recipe(**settings)
    reading = Reading("reject" if bad == "reject" else "keep", unit=unit or "", channel_names=tuple(channel_names or ()))
    jobs = []
    for subject, given in raws.items():
        runs = list(given) if isinstance(given, list | tuple) else [given]
        recordings = tuple(
            from_raw(raw, dataset=dataset, subject=subject, run=str(number), reading=reading) for number, raw in enumerate(runs)
        )
        if scale is not None:
            recordings = tuple(scaled(item, scale) for item in recordings)
        digests = tuple(SourceFile(item.name, item.signal_CT.nbytes, sha256(item.signal_CT.tobytes())) for item in recordings)
        jobs.append(RawJob(str(out), dataset, subject, recipe, digests, recordings))
    return run_step(jobs, CorpusTarget.of(Path(out), recipe, [job.name for job in jobs]), Budget(), rebuild=rebuild)
