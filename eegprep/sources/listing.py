"""Lists the recordings of a source, one task per subject, without reading them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from eegprep.catalogue import manifests
from eegprep.catalogue import moabb as catalogue
from eegprep.catalogue.manifests import ARCHIVES, Source
from eegprep.catalogue.subjects import choose_subjects
from eegprep.download import archives, data_folder, fetch
from eegprep.errors import FetchError, SourceError, ToolkitError, UsageError
from eegprep.readers.content import Reading
from eegprep.recording import Origin, ProgressCallback, SourceFile, natural_key
from eegprep.sources import bids
from eegprep.sources.companions import Parts, unreadable
from eegprep.sources.files import find_recordings
from eegprep.sources.naming import Name, Named, explain, read_name, settle
from eegprep.sources.participants import named_by, read_participants


@dataclass(frozen=True)
class Listed:
    """One recording of local files.

    main: the file or folder to open, relative to the task's root. files: all that is read for it.
    problem: why it cannot be read. oddities: (code, message) of what does not fit and costs nothing. named: what its path said.
    """

    session: str
    run: str
    main: str
    files: tuple[SourceFile, ...]
    problem: ToolkitError | None = None
    oddities: tuple[tuple[str, str], ...] = ()
    named: Named | None = None


@dataclass(frozen=True)
class Task:
    """One subject of one data set: what one worker does in one go, and what is committed or not as a whole.

    source: the first that names the subject; also: others that do. files: what the recordings are made of, names relative to `root`.
    recordings: of local sources, in natural order of session and run.
    """

    source: Source
    subject: str
    files: tuple[SourceFile, ...]
    root: str
    person: str = ""
    offline: bool = True
    keep_private: bool = False
    problem: ToolkitError | None = None  # why its files could not be downloaded
    recordings: tuple[Listed, ...] = ()
    also: tuple[Source, ...] = ()

    @property
    def reading(self) -> Reading:
        """What a person says of its files."""
        return self.source.reading

    @property
    def name(self) -> str:
        """`dataset/subject`."""
        return f"{self.source.dataset}/{self.subject}"

    def origin(self, session: str, run: str, files: tuple[SourceFile, ...]) -> Origin:
        """What is known about one of its recordings."""
        source, licence = self.source, self.source.licence or "unknown"
        return Origin(source.dataset, self.subject, session, run, self.person, licence, source.doi, sources=files)

    def to_json(self) -> dict[str, object]:
        """What is needed to read its recordings again, without those that had a problem."""
        return {
            "source": self.source.model_dump(mode="json"),
            "also": [source.model_dump(mode="json") for source in self.also],
            "subject": self.subject,
            "person": self.person,
            "root": self.root,
            "keep_private": self.keep_private,
            "files": [file.to_json() for file in self.files],
            "recordings": [
                {"session": item.session, "run": item.run, "main": item.main, "files": [file.to_json() for file in item.files]}
                for item in self.recordings
                if item.problem is None
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            source=Source.model_validate(content["source"]),
            subject=content["subject"],
            files=tuple(SourceFile.from_json(file) for file in content["files"]),
            root=content["root"],
            person=content["person"],
            keep_private=content["keep_private"],
            recordings=tuple(
                Listed(item["session"], item["run"], item["main"], tuple(SourceFile.from_json(file) for file in item["files"]))
                for item in content["recordings"]
            ),
            also=tuple(Source.model_validate(source) for source in content["also"]),
        )


def list_tasks(
    sources: Sequence[Source],
    data_dir: Path,
    *,
    offline: bool = False,
    accept: Sequence[str] = (),
    keep_private: bool = False,
    download: bool = True,
    progress: ProgressCallback | None = None,
    rate: float = 0.0,
) -> list[Task]:
    """Every subject of every source, with the files it is made of; what MOABB sets and archives lack is downloaded unless offline.

    Args:
        download: False only lists: subjects of MOABB and of archives then have files only as far as they are here.
        rate: Hz that is needed of the signal, see `archives.ensure_archive`.

    Raises:
        SourceError: a source holds no recordings.
        UsageError: a requested subject is not there.
        FetchError, LicenceError: nothing at all could be had, see `fetch.ensure`.
    """
    tasks: list[Task] = []
    local = [source for source in sources if source.kind in ("bids", "files")]
    for source in sources:
        if source.kind == "moabb":
            tasks += _moabb_tasks(source, Path(data_dir), offline, accept, download, progress)
        elif source.kind in ARCHIVES:
            tasks += _archive_tasks(source, Path(data_dir), offline or not download, accept, rate, progress)
        elif source is next(other for other in local if other.dataset == source.dataset):
            tasks += _local_tasks([other for other in local if other.dataset == source.dataset])
    counted = Counter(task.name for task in tasks)
    twice = [name for name, count in counted.items() if count > 1]
    if twice:
        raise SourceError(
            f"{twice[0]}: {counted[twice[0]]} sources give this subject (limit 1)",
            "give each source its own `dataset` name in a manifest",
        )
    if tasks and all(task.problem is not None for task in tasks):
        assert tasks[0].problem is not None
        raise tasks[0].problem
    return [replace(task, offline=offline, keep_private=keep_private) for task in tasks]


def _moabb_tasks(
    source: Source, data_dir: Path, offline: bool, accept: Sequence[str], download: bool, progress: ProgressCallback | None
) -> list[Task]:
    failed: dict[str, ToolkitError] = {}
    expected = [str(subject) for subject in source.subjects or catalogue.entry(source.target).subjects]
    result: Mapping[str, Sequence[SourceFile]]
    if not download:
        result = {**dict.fromkeys(expected, ()), **fetch.on_disk(source, data_dir, expected)}
    else:
        result = fetch.ensure(
            source,
            data_dir,
            subjects=expected,
            offline=offline,
            accept=accept,
            progress=progress,
            failed=failed,  # type: ignore[arg-type]
        )
    return [
        Task(
            source,
            subject,
            tuple(result.get(subject, ())),
            str(data_dir),
            manifests.person(source, subject),
            problem=failed.get(subject),
        )
        for subject in sorted({*result, *failed}, key=natural_key)
    ]


def _archive_tasks(
    source: Source, data_dir: Path, offline: bool, accept: Sequence[str], rate: float, progress: ProgressCallback | None
) -> list[Task]:
    """The people of a data set of an archive: it is a BIDS folder once its files are here."""
    failed: dict[str, FetchError] = {}
    here = archives.ensure_archive(source, data_dir, offline=offline, accept=accept, rate=rate, progress=progress, failed=failed)
    tasks: list[Task] = []
    if here.files:
        folder = here.source.model_copy(update={"kind": "bids", "target": str(here.root), "subjects": tuple(here.files)})
        tasks = [replace(task, source=here.source, also=()) for task in _local_tasks([folder])]
    tasks += [
        Task(here.source, subject, (), str(here.root), manifests.person(source, subject), problem=error)
        for subject, error in failed.items()
    ]
    return sorted(tasks, key=lambda task: natural_key(task.subject))


def who_is_who(tasks: Sequence[Task]) -> tuple[str, ...]:
    """A sentence for each data set of files: how many people they are, and by which rule."""
    entries: dict[str, list[tuple[Named | None, str]]] = {}
    for task in tasks:
        if task.source.kind == "files":
            entries.setdefault(task.source.dataset, []).extend((listed.named, task.subject) for listed in task.recordings)
    return tuple(explain(items) for items in entries.values())


# ------------------------------------------------------------------------------------------------------------- local


@dataclass(frozen=True)
class _Item:
    """A recording on disk, before its names are settled."""

    source: Source
    root: Path
    main: Path
    parts: Parts
    named: Named


def file_names(path: Path, pattern: str = "") -> tuple[str, str, str]:
    """(subject, session, run) of one file, see `naming.read_name`."""
    name = settle([read_name(path, pattern)])[0]
    return name.subject, name.session, name.run


def _local_tasks(sources: Sequence[Source]) -> list[Task]:
    """The subjects of one data set, wherever its recordings lie."""
    items = [item for source in sources for item in (_files(source) if source.kind == "files" else _bids(source))]
    items = list({(item.main, item.source.kind): item for item in reversed(items)}.values())[::-1]  # patterns may overlap
    names = settle(_in_one_tree(items))
    chosen = _requested(sources, items, names)
    members: dict[str, list[int]] = {}
    for index in chosen:
        members.setdefault(names[index].subject, []).append(index)
    memories: dict[Path, data_folder.HashMemory] = {}
    try:
        return [
            _task(subject, [items[index] for index in members[subject]], [names[index] for index in members[subject]], memories)
            for subject in sorted(members, key=natural_key)
        ]
    finally:
        for memory in memories.values():
            memory.save()


def _files(source: Source) -> list[_Item]:
    root, result = find_recordings(source.target, source.files)
    patterns = (source.pattern, source.subject_pattern, source.session_pattern)
    table = {} if any(patterns) else read_participants(root)
    items = []
    for main, parts in result.items():
        path = main.relative_to(root)
        named = read_name(path, *patterns)
        items.append(_Item(source, root, main, parts, named_by(table, path, named, root) if table else named))
    return items


def _bids(source: Source) -> list[_Item]:
    root = Path(source.target)
    if not root.is_dir():
        raise SourceError(f"{source.spec}: no such folder", "give the root of a BIDS data set")
    items = [_Item(source, root, main, parts, named) for named, main, parts in bids.find_recordings(root)]
    if not items:
        raise SourceError(
            f"{source.spec}: 0 recordings (least 1): there is no sub-*/eeg or sub-*/ses-*/eeg with a file named *_eeg.*",
            "give the root of a BIDS data set with EEG, or the files themselves with files:FOLDER",
        )
    return items


def _in_one_tree(items: Sequence[_Item]) -> list[Named]:
    """Names of items of several sources: where a source begins is part of the place, so that two sites stay apart."""
    roots = {item.root for item in items}
    if len(roots) == 1:
        return [item.named for item in items]
    common = Path(os.path.commonpath(roots))
    return [
        replace(item.named, place=(*item.root.relative_to(common).parts, *item.named.place), path=item.main.relative_to(common))
        for item in items
    ]


def _requested(sources: Sequence[Source], items: Sequence[_Item], names: Sequence[Name]) -> list[int]:
    """Which items the sources' choices of subjects leave."""
    keep: set[int] = set()
    for source in sources:
        own = [index for index, item in enumerate(items) if item.source is source]
        if source.subjects is None:
            keep.update(own)
            continue
        known = sorted({names[index].subject for index in own}, key=natural_key)
        elsewhere = sorted({name.subject for name in names}, key=natural_key)
        for token in source.subjects:
            try:
                chosen = choose_subjects([token], known)
            except UsageError:
                choose_subjects([token], elsewhere)  # another source of this data set may have it
                continue
            keep.update(index for index in own if names[index].subject in chosen)
    return sorted(keep)


def _task(subject: str, items: Sequence[_Item], names: Sequence[Name], memories: dict[Path, data_folder.HashMemory]) -> Task:
    """One subject: names of files relative to where its source begins, or to what its sources have in common.

    memories: remembered hashes by folder, for all subjects together.
    """
    source, roots = items[0].source, {item.root for item in items}
    root = items[0].root if len(roots) == 1 else Path(os.path.commonpath(roots))
    _require_alike(subject, items)
    paths = list(
        dict.fromkeys(path for item in items if item.parts.problem is None for path in item.parts.files if not path.is_dir())
    )
    failed: dict[Path, OSError] = {}
    # once a subject: recordings share files, as the sidecars of BIDS
    if root not in memories:
        memories[root] = data_folder.HashMemory(root)
    hashed = {file.name: file for file in data_folder.hash_files(paths, root, failed, memories[root])}
    pinned = {name: digest for item in items for name, digest in item.source.sha256.items()}
    recordings, problem = [], None
    for item, name in zip(items, names, strict=True):
        own = [hashed.get(data_folder.name_under(path, root)) for path in item.parts.files if not path.is_dir()]
        files = tuple(file for file in own if file is not None)
        bad = next((unreadable(path, failed[path]) for path in item.parts.files if path in failed), item.parts.problem)
        oddities = item.parts.oddities
        if name.alike:
            text = (
                f"this subject was found in {len(name.alike)} places ({', '.join(name.alike)}) and is taken as a person in each"
            )
            oddities = (*oddities, ("people", text))
        recordings.append(
            Listed(
                name.session, name.run, data_folder.name_under(item.main, root), () if bad else files, bad, oddities, item.named
            )
        )
        problem = problem or _not_pinned(files, pinned)
    # run 2 before run 10
    order = sorted(recordings, key=lambda item: (natural_key(item.session), natural_key(item.run)))
    everything = sorted({file for item in order for file in item.files}, key=lambda file: file.name)
    also = tuple({(item.source.spec, item.source.files): item.source for item in items if item.source is not source}.values())
    return Task(
        source, subject, tuple(everything), str(root), manifests.person(source, subject), problem=problem, recordings=tuple(order),
        also=also,
    )  # fmt: skip


def _require_alike(subject: str, items: Sequence[_Item]) -> None:
    """Sources that name one person must say the same of the data: a licence is stored once a subject."""
    first = items[0].source
    for other in (item.source for item in items):
        for key in ("kind", "licence", "doi", "citation", "person_family", "max_per_subject", "scale"):
            if getattr(other, key) != getattr(first, key):
                raise SourceError(
                    f"{first.dataset}/{subject}: {first.spec} and {other.spec} differ in {key} ({getattr(first, key)!r}, {getattr(other, key)!r})",
                    "give each source its own dataset name",
                )


def _not_pinned(files: Sequence[SourceFile], pinned: Mapping[str, str]) -> ToolkitError | None:
    for file in files:
        if pinned.get(file.name, file.sha256) != file.sha256:
            return SourceError(
                f"{file.name}: SHA-256 {file.sha256[:16]}..., the manifest has {pinned[file.name][:16]}...",
                "get the version that was used, or take the hash out of the manifest",
            )
    return None
