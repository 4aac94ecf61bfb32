"""Rebuilds damaged subjects from the sources they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eegprep.errors import StoreError
from eegprep.locks import store_lock
from eegprep.pool import Budget, run_jobs
from eegprep.signals.recipe import make_recipe
from eegprep.steps.index import IndexJob
from eegprep.steps.inputs import build_jobs, load_sources, store_folder, stored_jobs, subject_tasks
from eegprep.steps.jobs import BuildJob, FetchJob, FilterJob, PadJob, SubjectJob
from eegprep.steps.origin import StoreOrigin
from eegprep.steps.summary import no_usable_recording
from eegprep.steps.target import CorpusTarget, RecordingsTarget, Target
from eegprep.store import recordings as recordings_store
from eegprep.store.commit import read_root
from eegprep.store.format import VIEW_FORMAT


def remake(
    root: Path,
    names: Sequence[str] | None,
    into: Path,
    *,
    source: Sequence[str] | None = None,
    data_dir: str | Path | None = None,
    offline: bool = False,
) -> tuple[str, ...]:
    """Make groups of a store again from its sources, into the same store or another folder.

    Args:
        root: the store, for its recipe and its origin.
        names: `dataset/subject` of the groups; None for all.
        into: where to; equal to `root` for a repair.
        source, data_dir, offline: instead of what the store was built from.

    Returns:
        the names of the groups that were made.

    Raises:
        StoreError: it is not known where the sources are, or they no longer hold a group.
    """
    origin = StoreOrigin.recall(root)
    if source:
        origin = replace(origin or StoreOrigin("build", ()), source=tuple(source))
    if origin is None:
        raise StoreError(
            f"{root}: this machine has no record of what the store was built from", "name them with --source, or build it again"
        )
    origin = replace(origin, data_dir=store_folder(data_dir) if data_dir else origin.data_dir, offline=origin.offline or offline)
    jobs, target = _jobs_again(root, into, origin)
    chosen = [job for job in jobs if names is None or job.name in names]
    lost = sorted(set(names or ()) - {job.name for job in chosen})
    if lost:
        raise StoreError(f"{root}: the sources do not hold {lost[0]}", "name the right sources with --source")
    with store_lock(into):
        target.create()
        outcomes = run_jobs(chosen, Budget(), None)
        empty = [outcome for outcome in outcomes if not outcome.recordings]
        # a group that was asked for by name was in the store, so its source has changed
        if empty and names is not None:
            raise no_usable_recording(empty)
        target.finish(None, True)
    return tuple(job.name for job in chosen)


def _jobs_again(root: Path, into: Path, origin: StoreOrigin) -> tuple[Sequence[SubjectJob], Target]:
    """The jobs that made a store, and where they write this time."""
    attributes = read_root(root)["attributes"]
    if attributes.get("format") == recordings_store.FORMAT:
        target = RecordingsTarget(into, attributes["stage"], attributes["recipe"])
        if target.stage == "filtered":
            recipe = make_recipe(**attributes["recipe"])
            return stored_jobs(FilterJob, Path(origin.source[0]), "fetched", into, recipe), target
        # licences were accepted when the store was built
        tasks = subject_tasks(load_sources(origin.source, origin.choice), origin, ("all",), None)
        return [FetchJob(str(into), t.source.dataset, t.subject, None, t.files, t) for t in tasks], target
    recipe = make_recipe(**attributes["recipe"])
    jobs: Sequence[SubjectJob]
    if origin.command == "pad":
        jobs = stored_jobs(PadJob, Path(origin.source[0]), "filtered", into, recipe)
    else:
        manifest = load_sources(origin.source, origin.choice)
        kind = IndexJob if attributes["format"] == VIEW_FORMAT else BuildJob
        jobs = build_jobs(subject_tasks(manifest, origin, ("all",), None), manifest, recipe, into, kind=kind)
    names = frozenset(job.name for job in jobs)
    # settings and fingerprint as they are stored: an older version may have written them differently
    stored = (attributes["recipe"], attributes["fingerprint"])
    return jobs, CorpusTarget(into, *stored, recipe.channels, recipe.window, names, kind=attributes["format"])
