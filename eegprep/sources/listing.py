"""Lists the recordings of a source, one task per subject, without reading them."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eegprep.catalogue import manifests
from eegprep.catalogue import moabb as catalogue
from eegprep.catalogue.manifests import Source
from eegprep.download import data_folder, fetch
from eegprep.errors import SourceError, ToolkitError
from eegprep.readers.content import Reading
from eegprep.recording import Origin, ProgressCallback, SourceFile, natural_key, path_part


def file_names(path: Path, pattern: str = "") -> tuple[str, str, str]:
    """(subject, session, run) of a file, from a pattern with named groups, usual names, or the folders it lies in."""
    stem = path.name.split(".")[0] if path.name.lower().endswith((".fif.gz",)) else path.stem
    found = re.search(pattern, path.name) if pattern else None
    if found is None:
        found = re.fullmatch(r"(?P<subject>S\d+)R(?P<run>\d+)", stem)  # BCI2000, and with it PhysioNet's eegmmidb
    if found is None:
        found = re.search(r"sub-(?P<subject>[A-Za-z0-9]+)(?:_ses-(?P<session>[A-Za-z0-9]+))?(?P<run>_.*)?$", stem)
    if found is not None:
        names = found.groupdict()
        return names.get("subject") or "0", names.get("session") or "0", path_part(names.get("run") or "0").strip("_-") or "0"
    folders = [path_part(part) for part in path.parts[:-1]]
    if folders:
        return "-".join(folders), "0", path_part(stem)
    return path_part(stem), "0", "0"


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
    def reading(self) -> Reading:
        """What a person says of its files."""
        return Reading()

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
    everything = data_folder.hash_files([path for paths in groups.values() for path in paths], root)
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
