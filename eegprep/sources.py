"""Read recordings, one at a time: MOABB classes, BIDS folders, any file MNE reads, and `mne.io.Raw` objects.

Everything that comes out is float32 in uV with EEG channels only, events in s from the first sample, and no names, birthdays or
dates. A recording that cannot be read comes out as an `Unreadable`, so that it never takes the others with it.
Shapes: C channels, T samples.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import catalogue, edf, fetch, manifests
from .errors import SourceError, ToolkitError
from .manifests import Source
from .moabb_source import read_moabb
from .raws import EDF_LIKE, Origin, Unreadable, file_names, from_raw, quiet_mne, read_file
from .recording import ProgressCallback, Recording, SourceFile, natural_key, path_part

# files that belong to a recording but are not the one to open
_COMPANIONS = {".fdt", ".vmrk", ".eeg.json", ".json", ".tsv", ".event", ".txt", ".md", ".xml"}


@dataclass(frozen=True)
class Task:
    """One subject of one source: what one worker does in one go, and what is committed or not as a whole.

    files: what the recordings are made of, names relative to `root`.
    """

    source: Source
    subject: str
    files: tuple[SourceFile, ...]
    root: str
    person: str = ""
    offline: bool = True
    keep_private: bool = False
    problem: ToolkitError | None = None  # why its files could not be had

    @property
    def name(self) -> str:
        """`dataset/subject`."""
        return f"{self.source.dataset}/{self.subject}"

    def origin(self, session: str, run: str, files: tuple[SourceFile, ...]) -> Origin:
        """What is known about one of its recordings."""
        source, licence = self.source, self.source.licence or "unknown"
        return Origin(source.dataset, self.subject, session, run, self.person, licence, source.doi, sources=files)


def list_tasks(
    sources: Sequence[Source],
    data_dir: Path,
    *,
    offline: bool = False,
    accept: Sequence[str] = (),
    keep_private: bool = False,
    download: bool = True,
    progress: ProgressCallback | None = None,
) -> list[Task]:
    """Every subject of every source, with the files it is made of; what MOABB sets lack is downloaded unless offline.

    Args:
        download: False only lists: MOABB subjects then come without files.

    Raises:
        SourceError: a source holds no recordings, or a wanted subject is not there.
        FetchError, LicenceError: nothing at all could be had, see `fetch.ensure`.
    """
    tasks: list[Task] = []
    for source in sources:
        root, found, failed = _find(source, Path(data_dir), offline, accept, download, progress)
        for subject in sorted({*found, *failed}, key=natural_key):
            files, problem = tuple(found.get(subject, ())), failed.get(subject)
            person = manifests.person(source, subject)
            tasks.append(Task(source, subject, files, str(root), person, offline, keep_private, problem))
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
    return tasks


def _find(
    source: Source,
    data_dir: Path,
    offline: bool,
    accept: Sequence[str],
    download: bool,
    progress: ProgressCallback | None,
) -> tuple[Path, Mapping[str, Sequence[SourceFile]], Mapping[str, ToolkitError]]:
    """(folder that names start from, files of each subject, subjects whose files could not be had)."""
    failed: dict[str, ToolkitError] = {}
    if source.kind == "moabb":
        wanted = [str(subject) for subject in source.subjects or catalogue.entry(source.target).subjects]
        if not download:
            return data_dir, dict.fromkeys(wanted, ()), failed
        found = fetch.ensure(
            source,
            data_dir,
            subjects=wanted,
            offline=offline,
            accept=accept,
            progress=progress,
            failed=failed,  # type: ignore[arg-type]
        )
        return data_dir, found, failed
    root, groups = (_group_files if source.kind == "files" else _group_bids)(source, source.subjects)
    hashed: dict[str, Sequence[SourceFile]] = {}
    everything = fetch.hash_files([path for paths in groups.values() for path in paths], root)
    by_name = {file.name: file for file in everything}
    for subject, paths in groups.items():
        hashed[subject] = [by_name[path.resolve().relative_to(root.resolve()).as_posix()] for path in paths]
        for file in hashed[subject]:
            pinned = source.sha256.get(file.name)
            if pinned is not None and pinned != file.sha256:
                failed[subject] = SourceError(
                    f"{file.name}: SHA-256 {file.sha256[:16]}..., the manifest has {pinned[:16]}...",
                    "get the version that was used, or take the hash out of the manifest",
                )
    return root, hashed, failed


def read_task(task: Task) -> Iterator[Recording | Unreadable]:
    """The recordings of one subject, one in memory at a time where the loader allows, in natural order of session and run."""
    if task.problem is not None:
        yield Unreadable.because(task.origin("0", "0", task.files), task.problem)
        return
    if task.source.kind != "files":
        try:
            fetch.check(task.files, Path(task.root))
        except ToolkitError as error:
            yield Unreadable.because(task.origin("0", "0", task.files), error)
            return
    reader = {"moabb": read_moabb, "files": _read_files, "bids": _read_bids}[task.source.kind]
    yield from reader(task)


def read_source(
    source: str | Source, data_dir: Path | None = None, *, subjects: Sequence[str] | None = None, offline: bool = False
) -> Iterator[Recording]:
    """Recordings of a SOURCE or manifest, one at a time; the first that cannot be read raises its error."""
    sources = (source,) if isinstance(source, Source) else manifests.load([source]).sources
    if subjects is not None:
        sources = tuple(item.model_copy(update={"subjects": tuple(subjects)}) for item in sources)
    for task in list_tasks(sources, data_dir or default_data_dir(), offline=offline):
        for item in read_task(task):
            if isinstance(item, Unreadable):
                raise item.error
            yield item


def default_data_dir() -> Path:
    """Where MNE and MOABB keep data sets: `MNE_DATA`, then MNE's own configuration, then ~/mne_data."""
    if "MNE_DATA" in os.environ:
        return Path(os.environ["MNE_DATA"]).expanduser()
    config = Path(os.environ.get("_MNE_FAKE_HOME_DIR", Path.home())) / ".mne" / "mne-python.json"
    if config.is_file():
        import json

        try:
            stored = json.loads(config.read_text()).get("MNE_DATA")
        except (ValueError, OSError):
            stored = None
        if stored:
            return Path(stored)
    return Path.home() / "mne_data"


# ------------------------------------------------------------------------------------------------------------- files


def _group_files(source: Source, wanted: Sequence[str] | None) -> tuple[Path, dict[str, list[Path]]]:
    """Folder that names are relative to, and the files of each subject."""
    paths = [Path(path) for path in glob.glob(source.target, recursive=True)]  # noqa: PTH207  (absolute patterns)
    paths = sorted(path for path in paths if path.is_file() or path.suffix in (".ds", ".mff"))
    if len(paths) > 1:
        paths = [path for path in paths if path.suffix.lower() not in _COMPANIONS]
    if not paths:
        raise SourceError(f"files:{source.target}: no file matches", "check the path; quote patterns with * in the shell")
    root = _fixed_part(source.target)
    groups: dict[str, list[Path]] = {}
    for path in paths:
        subject = file_names(path.relative_to(root), source.pattern)[0]
        if wanted is None or subject in wanted:
            groups.setdefault(subject, []).append(path)
    _require_subjects(source, wanted, groups)
    return root, groups


def _fixed_part(pattern: str) -> Path:
    """The folders of a glob before its first wildcard."""
    path = Path(pattern)
    parts = []
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts) if parts else Path()


def _require_subjects(source: Source, wanted: Sequence[str] | None, groups: Mapping[str, Any]) -> None:
    missing = [subject for subject in wanted or () if subject not in groups]
    if missing:
        raise SourceError(
            f"{source.spec}: subject {missing[0]!r} is not there ({len(groups)} of {len(wanted or ())} wanted were found)",
            "choose --subjects from those that the source holds",
        )


def _read_files(task: Task) -> Iterator[Recording | Unreadable]:
    items = []
    for file in task.files:
        _, session, run = file_names(Path(file.name), task.source.pattern)
        items.append((natural_key(session), natural_key(run), session, run, file))
    for _, _, session, run, file in sorted(items, key=lambda item: item[:2]):
        origin = task.origin(session, run, (file,))
        try:
            fetch.check([file], Path(task.root))
            recording = read_file(Path(task.root) / file.name, origin, keep_private=task.keep_private)
        except Exception as error:
            yield Unreadable.because(origin, error)
        else:
            yield recording


# -------------------------------------------------------------------------------------------------------------- BIDS


def _group_bids(source: Source, wanted: Sequence[str] | None) -> tuple[Path, dict[str, list[Path]]]:
    root = Path(source.target)
    if not (root / "dataset_description.json").is_file():
        raise SourceError(f"bids:{root}: no dataset_description.json, so not a BIDS folder", "give the root of a BIDS data set")
    groups: dict[str, list[Path]] = {}
    for folder in sorted(root.glob("sub-*")):
        subject = folder.name.removeprefix("sub-")
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name == "eeg")
        if files and (wanted is None or subject in wanted):
            groups[subject] = files
    if not groups and not wanted:
        raise SourceError(f"bids:{root}: 0 subjects with an eeg folder (least 1)", "give the root of a BIDS data set with EEG")
    _require_subjects(source, wanted, groups)
    return root, groups


def _read_bids(task: Task) -> Iterator[Recording | Unreadable]:
    import mne_bids

    root = Path(task.root)
    paths = mne_bids.find_matching_paths(root, subjects=task.subject, datatypes="eeg", suffixes="eeg", ignore_json=True)
    paths = [path for path in paths if path.extension not in (".json", ".tsv", ".fdt", ".vmrk", ".eeg")]
    items = []
    for path in paths:
        run = "-".join(part for part in (path.task, path.acquisition, path.run) if part) or "0"
        items.append((natural_key(path.session or "0"), natural_key(run), path.session or "0", run, path))
    for _, _, session, run, path in sorted(items, key=lambda item: item[:2]):
        stem = str(path.fpath.relative_to(root)).rpartition("_eeg")[0]
        origin = task.origin(session, path_part(run), tuple(file for file in task.files if file.name.startswith(stem)))
        try:
            if path.extension in EDF_LIKE:
                edf.read_header(path.fpath)
            with quiet_mne():
                raw = mne_bids.read_raw_bids(path, verbose="error")
                recording = from_raw(raw, origin, keep_private=task.keep_private)
        except Exception as error:
            yield Unreadable.because(origin, error)
        else:
            yield recording
