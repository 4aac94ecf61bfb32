"""Runs the jobs of a step on a store under its lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eegprep.atomic import remove_whole
from eegprep.corpus.rates import corpus_rates, rates_remark
from eegprep.corpus.reader import Corpus
from eegprep.locks import store_lock
from eegprep.pool import Budget, run_jobs
from eegprep.recording import ProgressCallback
from eegprep.steps.doubles import refuse_doubles
from eegprep.steps.jobs import SubjectJob, done_before
from eegprep.steps.origin import StoreOrigin
from eegprep.steps.summary import Summary, no_usable_recording, summarise, without_recordings
from eegprep.steps.target import CorpusTarget, Target
from eegprep.store import recordings as recordings_store
from eegprep.store.commit import finished_files, read_root
from eegprep.store.records import left_out_subjects


def run_step(
    jobs: Sequence[SubjectJob],
    target: Target,
    budget: Budget,
    progress: ProgressCallback | None = None,
    origin: StoreOrigin | None = None,
) -> Summary:
    """Skip what is done, do the rest, and say what came of it."""
    out = target.out
    existed = out.exists()
    with store_lock(out):
        try:
            if existed:
                refuse_doubles(jobs, out)
            target.create()
            node = read_root(out)
            before, finished = left_out_subjects(node["attributes"]), finished_files(node, str(out))
            done = [outcome for outcome in (done_before(job, before, finished) for job in jobs) if outcome is not None]
            known = {outcome.name for outcome in done}
            waiting = [job for job in jobs if job.name not in known]
            outcomes = [*done, *run_jobs(waiting, budget, progress)]
            if not any(outcome.recordings for outcome in outcomes):
                raise no_usable_recording(outcomes)
        except BaseException:
            if not existed and out.is_dir() and not recordings_store.subjects(out):
                remove_whole(out)  # nothing came of it: leave no empty store behind
            raise
        target.finish(without_recordings(outcomes, before), bool(waiting))
    if origin is not None:
        origin.remember(out)
    summary = summarise(outcomes, out)
    if not isinstance(target, CorpusTarget):
        return summary
    remark = rates_remark(str(out), corpus_rates(Corpus.open(out)))
    return replace(summary, remarks=(remark,) if remark else ())
