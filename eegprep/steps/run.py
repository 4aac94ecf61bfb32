"""Runs the jobs of a step on a store under its lock."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eegprep.atomic import partial_path, publish_folder, remove, remove_whole
from eegprep.corpus.rates import rates_remark, root_rates
from eegprep.locks import store_lock
from eegprep.pool import Budget, run_jobs
from eegprep.recording import ProgressCallback
from eegprep.settings import differences
from eegprep.steps.doubles import refuse_doubles, renamed
from eegprep.steps.jobs import Outcome, SubjectJob, done_before
from eegprep.steps.origin import StoreOrigin
from eegprep.steps.summary import Summary, no_usable_recording, summarise, without_recordings
from eegprep.steps.target import CorpusTarget, Target, refuse_changes, refuse_others
from eegprep.store import recordings as recordings_store
from eegprep.store.commit import finished_files, finished_groups, no_collection, read_root, reopen_root, roots_parsed_once
from eegprep.store.records import left_out_subjects


def run_step(
    jobs: Sequence[SubjectJob],
    target: Target,
    budget: Budget,
    progress: ProgressCallback | None = None,
    origin: StoreOrigin | None = None,
    *,
    rebuild: bool = False,
) -> Summary:
    """Skip what is done, do the rest, and say what came of it.

    Args:
        rebuild: make a store that is there with other settings again: beside the old one, which is replaced at the end.

    Raises:
        StoreError: the store was made with other settings, and `rebuild` is False.
    """
    out = target.out
    existed = out.exists()
    with store_lock(out), roots_parsed_once():
        if rebuild and (existed or partial_path(out).exists()):
            outcomes = _made_again(jobs, target, budget, progress)
        else:
            try:
                if existed:
                    refuse_doubles(jobs, out)
                outcomes = _run(jobs, target, budget, progress)
            except BaseException:
                if not existed and out.is_dir() and not recordings_store.subjects(out):
                    remove_whole(out)  # nothing came of it: leave no empty store behind
                raise
            remove(partial_path(out))  # of a rebuild that was given up
        remark = rates_remark(str(out), root_rates(read_root(out))) if isinstance(target, CorpusTarget) else ""
    if origin is not None:
        origin.remember(out)
    summary = summarise(outcomes, out)
    return replace(summary, remarks=(remark,) if remark else ())


def _run(jobs: Sequence[SubjectJob], target: Target, budget: Budget, progress: ProgressCallback | None) -> list[Outcome]:
    """The outcomes of all jobs, in a store that is finished afterwards."""
    with no_collection():  # all that is read of a large store stays, and none of it is garbage
        target.create()
        node = read_root(target.out)
        before, finished, known = (
            left_out_subjects(node["attributes"]),
            finished_files(node, str(target.out)),
            finished_groups(node),
        )
        done = [outcome for outcome in (done_before(job, before, finished, known) for job in jobs) if outcome is not None]
        there = {outcome.name for outcome in done}
        waiting = [job for job in jobs if job.name not in there]
    if "commit" in node["attributes"]:  # finished once; a store on its way may hold anything
        for job in waiting:
            refuse_changes(target.out, _other_choices(job))
    outcomes = [*done, *run_jobs(waiting, budget, progress)]
    if not any(outcome.recordings for outcome in outcomes):
        raise no_usable_recording(outcomes)
    target.finish(without_recordings(outcomes, before), bool(waiting), there)
    return outcomes


def _other_choices(job: SubjectJob) -> list[str]:
    """How a stored subject was read, and would be read now, where that differs."""
    group = job.stored()
    return [] if group is None else differences(group.choices, job.choices(), options=True)


# ----------------------------------------------------------------------------------------------------------- rebuild


def _made_again(jobs: Sequence[SubjectJob], target: Target, budget: Budget, progress: ProgressCallback | None) -> list[Outcome]:
    """The same in a store beside the old one, which takes its place when it is whole.

    Subjects that the settings do not touch are linked, not made again. A killed rebuild is taken up by the next.
    """
    out, new = target.out, partial_path(target.out)
    gone, changes = renamed(jobs, out), target.changes()
    if changes:
        refuse_others(out, {job.name for job in jobs} | gone)
    with store_lock(new):
        _link_subjects(out, new, gone)
        (new / "zarr.json").unlink(missing_ok=True)
        if not changes and (out / "zarr.json").is_file():
            shutil.copy2(out / "zarr.json", new / "zarr.json")
            reopen_root(new)
        outcomes = _run([replace(job, root=str(new)) for job in jobs], target.at(new), budget, progress)
    publish_folder(new, out)
    return outcomes


def _link_subjects(old: Path, new: Path, gone: set[str]) -> None:
    """Give `new` the subjects of `old` but those that are gone, its own version where it has one."""
    expected = {f"{dataset}/{subject}" for dataset, subject in recordings_store.subjects(old)} - gone
    for dataset, subject in recordings_store.subjects(new):
        if f"{dataset}/{subject}" not in expected:
            remove(new / dataset / subject)
    for name in sorted(expected):
        place = new / name
        if place.exists():
            continue
        half = place.with_name(f".{place.name}.partial")
        remove(half)
        shutil.copytree(old / name, half, symlinks=True, copy_function=_link)
        half.rename(place)


def _link(source: str, target: str) -> None:
    """A second name of a file; files of a store are never changed in place. A copy where there are no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
