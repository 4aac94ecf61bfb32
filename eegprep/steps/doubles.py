"""Refuses to store a recording twice under two names: the same file as another subject, or as another data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eegprep.errors import StoreError
from eegprep.sealed import read_object
from eegprep.steps.jobs import BuildJob, FetchJob, SubjectJob
from eegprep.store import recordings as recordings_store


def refuse_doubles(jobs: Sequence[SubjectJob], out: Path) -> None:
    """Names are derived from files and folders, so a release that derives them better would store everything a second time.

    Subjects that this command makes may share files: then somebody said so.

    Raises:
        StoreError: another subject in the store was made from a recording of one of these jobs.
    """
    for other, digests, planned in _shared(jobs, out):
        job, name = next(planned[digest] for digest in digests if digest in planned)
        dataset = other.partition("/")[0]
        again = "or add --rebuild to make the store again under the new names"
        raise StoreError(
            f"{out}: {name} is in the store as {other}, and this command would store it again as {job.name}",
            f"continue under the old name with --dataset {dataset}, {again}"
            if dataset != job.dataset
            else f"choose another --out, {again}; people are named by the files that are listed together",
        )


def renamed(jobs: Sequence[SubjectJob], out: Path) -> set[str]:
    """Subjects in the store all of whose recordings these jobs store under other names."""
    return {other for other, digests, planned in _shared(jobs, out) if all(digest in planned for digest in digests)}


def _shared(jobs: Sequence[SubjectJob], out: Path) -> Iterator[tuple[str, list[str], Mapping[str, tuple[SubjectJob, str]]]]:
    """Subjects in the store that share recordings with jobs of other names: name, SHA-256 of all that it was made from, and whose they are."""
    named = {job.name for job in jobs}
    planned = {digest: (job, name) for job in jobs for name, digest in _recordings(job)}
    for dataset, subject in recordings_store.subjects(out) if planned else ():
        other = f"{dataset}/{subject}"
        digests = [] if other in named else list(_stored(out / dataset / subject))
        if any(digest in planned for digest in digests):
            yield other, digests, planned


def _recordings(job: SubjectJob) -> Iterator[tuple[str, str]]:
    """(name, SHA-256) of the files that hold a job's recordings; sidecars, and archives of MOABB, are shared by subjects."""
    if not isinstance(job, BuildJob | FetchJob):
        return
    mains = {listed.main for listed in job.task.recordings}
    for file in job.files:
        if file.name in mains:
            yield file.name, file.sha256


def _stored(group: Path) -> Iterator[str]:
    """SHA-256 of what the recordings of a stored subject were made from."""
    records = _attributes(group).get("recordings") or [_attributes(path.parent) for path in group.glob("*.*/zarr.json")]
    for record in records:
        for source in record.get("sources", ()):
            yield source["sha256"]


def _attributes(folder: Path) -> Mapping[str, Any]:
    """Of a zarr node; nothing of one that is damaged, which the step itself will notice."""
    value = (read_object(folder / "zarr.json") or {}).get("attributes")
    return value if isinstance(value, dict) else {}
