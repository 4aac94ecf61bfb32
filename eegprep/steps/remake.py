"""Rebuilds damaged subjects from the sources they were made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from eegprep.errors import StoreError
from eegprep.locks import store_lock
from eegprep.pool import Budget, run_jobs
from eegprep.signals.recipe import make_recipe
from eegprep.steps.inputs import build_jobs, load_sources, store_folder, stored_jobs, subject_tasks
from eegprep.steps.jobs import FetchJob, FilterJob, PadJob, SubjectJob
from eegprep.steps.origin import StoreOrigin
from eegprep.steps.summary import no_usable_recording
from eegprep.store import format as store
from eegprep.store import recordings as recordings_store
from eegprep.store import root as store_root


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
        raise StoreError(f"{root}: where its sources are is not on record here", "name them with --source, or build it again")
    origin = replace(origin, data_dir=store_folder(data_dir) if data_dir else origin.data_dir, offline=origin.offline or offline)
    jobs, finish = _jobs_again(root, into, origin)
    chosen = [job for job in jobs if names is None or job.name in names]
    lost = sorted(set(names or ()) - {job.name for job in chosen})
    if lost:
        raise StoreError(f"{root}: the sources do not hold {lost[0]}", "name the right sources with --source")
    with store_lock(into):
        finish(False)
        outcomes = run_jobs(chosen, Budget(), None)
        empty = [outcome for outcome in outcomes if not outcome.recordings]
        if empty and names is not None:
            raise no_usable_recording(empty)
        finish(True)
    return tuple(job.name for job in chosen)


def _jobs_again(root: Path, into: Path, origin: StoreOrigin) -> tuple[Sequence[SubjectJob], Callable[[bool], None]]:
    """The jobs that made a store, and what to do before and after them."""
    attributes = store.read_node(root / "zarr.json").get("attributes", {})
    if attributes.get("format") == recordings_store.FORMAT:
        stage, settings = attributes["stage"], attributes["recipe"]

        def finish_recordings(done: bool) -> None:
            recordings_store.finish_recordings(into) if done else recordings_store.create_recordings(into, stage, settings)

        if stage == "filtered":
            recipe = make_recipe(**settings)
            return stored_jobs(FilterJob, Path(origin.source[0]), "fetched", into, recipe), finish_recordings
        tasks = subject_tasks(load_sources(origin.source, origin.subjects), origin, ("all",), None)
        return [FetchJob(str(into), t.source.dataset, t.subject, None, t.files, t) for t in tasks], finish_recordings
    recipe = make_recipe(**attributes["recipe"])

    def finish_corpus(done: bool) -> None:
        if done:
            store_root.finish_corpus(into)
        else:
            store_root.create_corpus(
                into, attributes["recipe"], attributes["fingerprint"], channels=recipe.channels, samples=recipe.window
            )

    if origin.command == "pad":
        return stored_jobs(PadJob, Path(origin.source[0]), "filtered", into, recipe), finish_corpus
    manifest = load_sources(origin.source, origin.subjects)
    tasks = subject_tasks(manifest, origin, ("all",), None)
    return build_jobs(tasks, manifest, recipe, into), finish_corpus
