"""Runs the jobs of a step on a store under its lock."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eegprep.errors import StoreError
from eegprep.locks import store_lock
from eegprep.pool import Budget, run_jobs
from eegprep.recording import ProgressCallback
from eegprep.signals.recipe import Recipe, recipe_fingerprint
from eegprep.steps.jobs import SubjectJob, done_before
from eegprep.steps.origin import StoreOrigin
from eegprep.steps.summary import Summary, left_out_rows, no_usable_recording, summarise
from eegprep.store import format as store
from eegprep.store import recordings as recordings_store
from eegprep.store import root


def run_recordings(
    jobs: Sequence[SubjectJob],
    out: Path,
    stage: str,
    settings: Mapping[str, Any],
    budget: Budget,
    progress: ProgressCallback | None,
    origin: StoreOrigin,
    inherited: Mapping[str, Any] | None = None,
) -> Summary:
    """`inherited`: what an earlier step left out, which no later one can see."""

    def create() -> None:
        recordings_store.create_recordings(out, stage, settings)

    def finish(left_out: dict[str, Any], changed: bool) -> None:
        recordings_store.set_attributes(out, left_out={**(inherited or {}), **left_out})
        recordings_store.finish_recordings(out)

    summary = _run_step(jobs, out, create, finish, budget, progress)
    origin.remember(out)
    return summary


def run_corpus(
    jobs: Sequence[SubjectJob],
    out: Path,
    recipe: Recipe,
    budget: Budget,
    progress: ProgressCallback | None,
    origin: StoreOrigin | None,
    inherited: Mapping[str, Any] | None = None,
) -> Summary:
    settings = recipe.model_dump(mode="json")

    def create() -> None:
        shape = {"channels": recipe.channels, "samples": recipe.window}
        if not (out / "zarr.json").is_file():
            root.create_corpus(out, settings, recipe_fingerprint(recipe), **shape)
            return
        found = root.read_corpus_attributes(out)["fingerprint"]
        root.create_corpus(out, {}, found, **shape)  # checks the shape, which no recipe may change
        if found != recipe_fingerprint(recipe):
            _refuse_strangers(jobs, out)
            root.set_recipe(out, settings, recipe_fingerprint(recipe))

    def finish(left_out: dict[str, Any], changed: bool) -> None:
        left_out = {**(inherited or {}), **left_out}
        node = store.read_node(out / "zarr.json")
        same = node["attributes"].get("left_out") == left_out
        if same and not changed and "consolidated_metadata" in node:
            return  # nothing was done, and an earlier run finished
        if not same:
            root.set_attributes(out, left_out=left_out)
        root.finish_corpus(out)

    summary = _run_step(jobs, out, create, finish, budget, progress)
    if origin is not None:
        origin.remember(out)
    return summary


def _refuse_strangers(jobs: Sequence[SubjectJob], out: Path) -> None:
    """Subjects in the corpus that this command does not name would keep the old recipe, and the corpus would be a mixture."""
    named = {job.name for job in jobs}
    others = [f"{dataset}/{subject}" for dataset, subject in recordings_store.subjects(out)]
    others = [name for name in others if name not in named]
    if others:
        raise StoreError(
            f"{out}: holds {len(others)} subjects made with another recipe that this command does not name ({others[0]}, ...)",
            "name them too, so that they are made again, or choose another --out",
        )


def _run_step(
    jobs: Sequence[SubjectJob],
    out: Path,
    create: Callable[[], None],
    finish: Callable[[dict[str, Any], bool], None],
    budget: Budget,
    progress: ProgressCallback | None,
) -> Summary:
    """Skip what is done, do the rest, and say what came of it."""
    existed = out.exists()
    with store_lock(out):
        try:
            create()
            before = store.read_node(out / "zarr.json").get("attributes", {}).get("left_out", {})
            done = [outcome for outcome in (done_before(job, before) for job in jobs) if outcome is not None]
            known = {outcome.name for outcome in done}
            waiting = [job for job in jobs if job.name not in known]
            outcomes = [*done, *run_jobs(waiting, budget, progress)]
            if not any(outcome.recordings for outcome in outcomes):
                raise no_usable_recording(outcomes)
        except BaseException:
            if not existed and not recordings_store.subjects(out):
                shutil.rmtree(out, ignore_errors=True)  # nothing came of it: leave no empty store behind
            raise
        finish(left_out_rows(outcomes, before), bool(waiting))
        return summarise(outcomes, out)
