"""Turns the arguments of a step into sources, a recipe, tasks and jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from eegprep import folders
from eegprep.catalogue import balance, manifests
from eegprep.download import data_folder
from eegprep.errors import StoreError
from eegprep.offline import no_network
from eegprep.recording import ProgressCallback, SourceFile, natural_key
from eegprep.signals.recipe import Recipe, make_recipe
from eegprep.sources import listing
from eegprep.sources.listing import Task
from eegprep.steps.jobs import BuildJob, StoredJobT
from eegprep.steps.origin import Choice, StoreOrigin
from eegprep.steps.plan import count_windows, read_headers
from eegprep.store import recordings as recordings_store
from eegprep.store.commit import check_finished, finished_files, read_root


def plain_settings(source: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """Sources as text that means the same in any folder."""
    listed = [source] if isinstance(source, str | Path) else list(source)
    return tuple(_absolute(str(item)) for item in listed)


def _absolute(item: str) -> str:
    kind, colon, target = item.partition(":")
    if colon and kind in ("files", "bids"):
        return f"{kind}:{Path(target).expanduser().absolute()}"
    plain = Path(item).expanduser()
    return str(plain.absolute()) if plain.is_file() or manifests.is_path(item, Path.cwd()) else item


def store_folder(data_dir: str | Path | None) -> str:
    return str((Path(data_dir) if data_dir is not None else folders.default_data_dir()).expanduser().absolute())


def load_sources(source: str | Path | Sequence[str | Path], choice: Choice) -> manifests.Manifest:
    """Manifests and SOURCEs, with what was chosen for all of them."""
    manifest = manifests.load(source)
    chosen = tuple(
        manifests.with_options(manifests.with_subjects(item, choice.subjects), choice.options) for item in manifest.sources
    )
    return manifest.model_copy(update={"sources": chosen})


def recipe_from(manifest: manifests.Manifest, settings: Mapping[str, Any]) -> Recipe:
    given = {key: value for key, value in settings.items() if value is not None}
    seed = {"seed": manifest.seed} if manifest.seed else {}
    return make_recipe(**{**seed, **manifest.recipe, **given})


def subject_tasks(
    manifest: manifests.Manifest,
    origin: StoreOrigin,
    accept: Sequence[str],
    progress: ProgressCallback | None,
    recipe: Recipe | None = None,
) -> list[Task]:
    """recipe: what the signal has to hold, where that is known: a copy of too low a rate is then passed over."""
    folder = Path(origin.data_dir or store_folder(None))
    with ExitStack() as stack:
        if origin.offline:
            stack.enter_context(no_network())
        # only downloads of MOABB's data sets write into the data folder
        if any(source.kind == "moabb" for source in manifest.sources):
            stack.enter_context(data_folder.data_folder_lock(folder, progress=progress))
        return listing.list_tasks(
            manifest.sources,
            folder,
            offline=origin.offline,
            accept=accept,
            keep_private=origin.keep_private,
            progress=progress,
            rate=needed_rate(recipe),
        )


def needed_rate(recipe: Recipe | None) -> float:
    """Hz: the rate that is asked for, or one whose usable band (45 % of it) holds the pass band."""
    return 0.0 if recipe is None else recipe.resample or recipe.high / 0.45


def build_jobs(
    tasks: Sequence[Task], manifest: manifests.Manifest, recipe: Recipe, out: str | Path, *, kind: type[BuildJob] = BuildJob
) -> list[BuildJob]:
    """One job a subject; each with its own cap, when the manifest wants a balanced draw."""
    caps = subject_caps(tasks, manifest, recipe)
    jobs = []
    for task in tasks:
        cap = caps.get(task.name, recipe.max_per_subject)
        own = recipe if cap == recipe.max_per_subject else recipe.model_copy(update={"max_per_subject": cap})
        # the draw left this subject nothing: no group is better than an empty one
        if cap != 0:
            jobs.append(kind(str(out), task.source.dataset, task.subject, own, task.files, task))
    return jobs


def subject_caps(tasks: Sequence[Task], manifest: manifests.Manifest, recipe: Recipe) -> dict[str, int]:
    """Windows to take from each subject: the command line's cap, else the source's, within the manifest's target."""
    caps = {
        task.name: task.source.max_per_subject
        for task in tasks
        if task.source.max_per_subject is not None and recipe.max_per_subject is None
    }
    if manifest.target_windows is None or recipe.max_per_subject is not None:
        return caps
    available = {(task.source.dataset, task.subject): count_windows(task, recipe, read_headers(task))[1] for task in tasks}
    people = {(task.source.dataset, task.subject): task.person for task in tasks}
    drawn = balance.caps_by_group(available, people, manifest.target_windows, recipe.seed)
    # the balanced draw may not take more than the manifest allows a source
    return {f"{dataset}/{subject}": min(cap, caps.get(f"{dataset}/{subject}", cap)) for (dataset, subject), cap in drawn.items()}


def stored_jobs(kind: type[StoredJobT], root: Path, stage: str, out: Path, recipe: Recipe) -> list[StoredJobT]:
    """A job for each subject of a recordings store."""
    content = recordings_store.read_root(root)["stage"]
    if content != stage:
        step = {"fetched": "filter", "filtered": "pad"}
        raise StoreError(f"{root}: holds {content} recordings, not {stage} ones", f"`eegprep {step[content]}` takes such a store")
    if out.resolve() == root.resolve():
        raise StoreError(f"{out}: input and output are the same store", "choose another output")
    # a group that was changed by hand must not get into a new store with a good record
    check_finished(root, finished_files(read_root(root), str(root)))
    jobs = []
    for dataset, subject in recordings_store.subjects(root):
        stored = recordings_store.StoredSubject.open(root, dataset, subject)
        # run 2 before run 10: windows lie in the order of the recordings
        arrays = tuple(sorted(stored.names, key=natural_key))
        carried = recordings_store.read_group(root, dataset, subject)
        if carried is None or carried.commit is None:
            raise StoreError(f"{root}: {dataset}/{subject} has no commit record, so it is not whole", "fetch the subject again")
        made = SourceFile("store", 0, carried.commit.key)  # a subject of another store stands for its files
        jobs.append(kind(str(out), dataset, subject, recipe, (made,), str(root.resolve()), arrays, carried))
    if not jobs:
        raise StoreError(f"{root}: 0 subjects (least 1)", "fetch recordings into it first")
    return jobs
