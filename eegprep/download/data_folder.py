"""Keeps a data folder: one writer, records of what was fetched, remembered hashes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eegprep.atomic import write_json
from eegprep.catalogue import moabb as catalogue
from eegprep.catalogue.manifests import Source
from eegprep.download.moabb_child import published_sha256
from eegprep.errors import FetchError
from eegprep.folders import cache_folder, state_folder
from eegprep.locks import folder_lock
from eegprep.provenance import fingerprint, sha256, sha256_file
from eegprep.recording import ProgressCallback, SourceFile
from eegprep.sealed import read_object

STATE_FORM = 1
_SAVE_EVERY_S = 20.0  # of hashing that is lost when a process is killed


def hash_files(
    paths: Iterable[Path], root: Path, failed: dict[Path, OSError] | None = None, memory: HashMemory | None = None
) -> list[SourceFile]:
    """Names relative to `root` (for files elsewhere: the bare name), sizes and SHA-256 of local files, in the order of names.

    Links keep the name that they have here. Hashes are remembered in the user's cache folder by path, size and time of change,
    unless a file changed a moment ago.

    Args:
        failed: give a dictionary to continue without files that cannot be read; it is filled with the reasons.
        memory: remembered hashes of `root`, for many calls; whoever made it saves it.
    """
    own = HashMemory(root) if memory is None else memory
    hashed = []
    for path in paths:
        try:
            hashed.append(SourceFile(name_under(path, root), path.stat().st_size, own.sha256(path)))
        except OSError as error:
            if failed is None:
                raise
            failed[path] = error
    # ten thousand subjects of one folder: to write all hashes again after each of them would take hours
    own.save(every=0 if memory is None else _SAVE_EVERY_S)
    return sorted(hashed, key=lambda file: file.name)


@contextmanager
def data_folder_lock(data_dir: Path, timeout: float = -1.0, progress: ProgressCallback | None = None) -> Iterator[None]:
    """Hold the data folder for this process; the same process may take it again.

    Args:
        timeout: s to wait for another process; below 0 for ever. A process that dies lets go.
        progress: called with the name of whoever holds the lock.

    Raises:
        FetchError: still held by another process after `timeout`; names it.
    """

    def waiting(holder: str) -> None:
        if progress:
            progress(0, 0, f"waiting for {holder}, which holds {data_dir}")

    def refused(holder: str, fix: str) -> FetchError:
        return FetchError(f"{data_dir} is in use by {holder}", f"{fix}, or use another --data-dir")

    with folder_lock(state_folder(data_dir), wait=timeout, again=True, waiting=waiting, refused=refused):
        yield


class FetchRecords:
    """What is known about the files of one data set in one data folder."""

    def __init__(self, source: Source, data_dir: Path) -> None:
        name = source.target if source.kind == "moabb" else f"{source.kind}-{source.target}"
        self.data_dir, self.path = data_dir, state_folder(data_dir) / f"{name}.json"
        # another MOABB or other options may name other files for the same subject
        version = {"moabb": catalogue.moabb_version()} if source.kind == "moabb" else {"archive": source.kind}
        self.key = fingerprint({**version, "options": source.options})
        content = self._read() if self.path.exists() else {}
        usable = content.get("form") == STATE_FORM
        self.known: dict[str, Mapping[str, Any]] = content["files"] if usable else {}
        self.subjects: dict[str, Mapping[str, Any]] = content["subjects"] if usable else {}

    def _read(self) -> Mapping[str, Any]:
        """Records are written in one step: a damaged one was not written by us, and to forget it would forget the hashes."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return {"form": content["form"], "files": dict(content["files"]), "subjects": dict(content["subjects"])}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise FetchError(
                f"{self.path}: the record of fetched files cannot be read ({type(error).__name__})",
                "delete it to record the files anew as they are now",
            ) from None

    def holds(self, subject: str) -> bool:
        """Whether the subject's files are on record for this MOABB and these options, and look unchanged."""
        record = self.subjects.get(self._name(subject))
        return record is not None and all(self._unchanged(name) for name in record["files"])

    def files(self, subject: str) -> list[SourceFile]:
        names = self.subjects[self._name(subject)]["files"]
        return [SourceFile(name, self.known[name]["bytes"], self.known[name]["sha256"]) for name in names]

    def add(self, subject: str, answer: Mapping[str, Any]) -> None:
        """Hash what is new or changed, compare with the record, and write the record."""
        for name in answer["files"]:
            if not self._unchanged(name):
                self.known[name] = self._examine(name)
        self.subjects[self._name(subject)] = {
            "files": list(answer["files"]),
            "provider": answer["provider"],
            "downloads": list(answer["fetched"]),
            "moabb": catalogue.moabb_version(),
        }
        write_json(self.path, {"form": STATE_FORM, "files": self.known, "subjects": self.subjects})

    def _examine(self, name: str) -> dict[str, object]:
        path = self.data_dir / name
        status, digest = path.stat(), sha256_file(path)
        before = self.known.get(name)
        if before and before["sha256"] != digest:
            raise FetchError(
                f"{name} has changed: SHA-256 {digest[:16]}..., on record {before['sha256'][:16]}...",
                f"delete {path} and fetch it again, or delete {self.path} if the change was meant",
            )
        record = {"bytes": status.st_size, "sha256": digest, "mtime_ns": status.st_mtime_ns}
        published = published_sha256(f"/{name}")  # downloads were compared before they got their name; this file was here
        return record if published in (None, digest) else record | {"published": published}

    def unlike_published(self, subject: str) -> list[str]:
        """Files that were in the data folder and are not what their authors published: somebody's own, or damaged."""
        return [name for name in self.subjects[self._name(subject)]["files"] if "published" in self.known[name]]

    def _unchanged(self, name: str) -> bool:
        record = self.known.get(name)
        with suppress(OSError):
            status = (self.data_dir / name).stat()
            return record is not None and (record["bytes"], record["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
        return False

    def _name(self, subject: str) -> str:
        return f"{self.key[:16]}/{subject}"


@dataclass(frozen=True)
class Downloaded:
    """What of a data set is in a data folder. bytes: of files that are there as they were recorded."""

    subjects: int
    bytes: int


def downloaded(data_dir: Path) -> dict[str, Downloaded]:
    """Data sets that were fetched into a data folder: a MOABB class, or `openneuro-ID` and `nemar-ID` of an archive.

    Files are looked at, not hashed; a record that cannot be read is passed over.
    """
    result: dict[str, Downloaded] = {}
    for path in sorted(state_folder(data_dir).glob("*.json")):
        content = read_json_or_empty(path)
        if content.get("form") != STATE_FORM or not isinstance(content.get("subjects"), dict):
            continue
        try:
            files = {name: int(record["bytes"]) for name, record in content["files"].items()}
            there = {name for name, size in files.items() if _size(data_dir / name) == size}
            people = {
                key.rpartition("/")[2]
                for key, record in content["subjects"].items()
                if record["files"] and there.issuperset(record["files"])
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        if people:
            result[path.stem] = Downloaded(len(people), sum(files[name] for name in there))
    return result


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


class HashMemory:
    """Hashes of local files by path, size and time of change."""

    YOUNG_S = 1.0  # a file that changed so recently may change again without its time showing it

    def __init__(self, root: Path) -> None:
        name = sha256(str(root.resolve()))[:16]
        self.path = cache_folder("hashes", f"{name}.json")
        self.known: dict[str, list[Any]] = dict(read_json_or_empty(self.path))
        self.changed, self.saved = False, time.monotonic()
        self._folders: dict[Path, str] = {}  # where they really lie

    def _real(self, path: Path) -> str:
        """The path without links; each folder is looked at once."""
        if path.is_symlink():
            return str(path.resolve())
        if path.parent not in self._folders:
            self._folders[path.parent] = str(path.parent.resolve())
        return f"{self._folders[path.parent].rstrip('/')}/{path.name}"

    def sha256(self, path: Path) -> str:
        key, status = self._real(path), path.stat()
        record = self.known.get(key)
        if record and record[:2] == [status.st_size, status.st_mtime_ns]:
            return str(record[2])
        digest = sha256_file(path)
        if time.time() - status.st_mtime > self.YOUNG_S:
            self.known[key] = [status.st_size, status.st_mtime_ns, digest]
            self.changed = True
        return digest

    def save(self, every: float = 0) -> None:
        """Write what is new; at most once in `every` seconds."""
        if self.changed and time.monotonic() - self.saved >= every:
            with suppress(OSError):  # a home folder that cannot be written only costs time
                write_json(self.path, self.known)
            self.changed, self.saved = False, time.monotonic()


def read_json_or_empty(path: Path) -> Mapping[str, Any]:
    """A JSON object, or an empty one: for what can be made anew."""
    return read_object(path) or {}


def name_under(path: Path, root: Path) -> str:
    """The name of a file relative to a folder, as it is written: links into a store of content elsewhere are not followed."""
    text, start = str(path), f"{root}/"
    if text.startswith(start) and path.is_absolute():  # the usual case, a tenth of the time
        return text[len(start) :]
    # not resolved: DataLad and git-annex keep files as links to hashed names, which say nothing to a person
    plain, base = path.absolute(), root.absolute()
    if not plain.is_relative_to(base):
        plain, base = path.resolve(), root.resolve()
    return plain.relative_to(base).as_posix() if plain.is_relative_to(base) else path.name
