"""Bring source files here: resume, retry, TLS, checksums, a licence gate, and no socket at all when offline.

What callers use, in this order::

    rows = plan(sources, data_dir)                     # bytes and licences; opens no socket, downloads nothing
    require_licences(rows, accept)                     # LicenceError names what has to be accepted
    with data_folder_lock(data_dir):                   # one process per data folder
        files = ensure(source, data_dir, subjects=("1", "2"), offline=..., accept=..., progress=...)
    check(files["1"], data_dir)                        # in the worker, right before the files of a subject are read

`ensure` needs neither MOABB nor the network for subjects whose files are on record and unchanged in size and time, so that a
re-run with nothing to do is fast. `check` hashes, so that what is read is what was fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .manifests import Source
from .recording import ProgressCallback, SourceFile


@dataclass(frozen=True)
class PlanRow:
    """One source before anything is downloaded.

    bytes: declared size of the chosen subjects (share of the whole set), None where nobody declares one.
    licence: SPDX id, or "unknown"; needs_accept: the licence has to be named in `accept` first.
    provider: "nemar", "upstream" or "local"; subjects_on_disk: how many subjects are on record in the data folder.
    """

    source: str
    dataset: str
    subjects: int
    subjects_on_disk: int
    bytes: int | None
    licence: str
    needs_accept: bool
    provider: str
    doi: str


def plan(sources: Sequence[Source], data_dir: Path, subjects: Sequence[str] | None = None) -> list[PlanRow]:
    """What `ensure` would bring, with sizes and licences. Opens no socket."""
    raise NotImplementedError


def require_licences(rows: Iterable[PlanRow], accept: Iterable[str] = ()) -> None:
    """Raise LicenceError unless every licence that needs it is in `accept` (SPDX ids, any spelling, or "all")."""
    raise NotImplementedError


def ensure(
    source: Source,
    data_dir: Path,
    *,
    subjects: Sequence[str] | None = None,
    offline: bool = False,
    accept: Iterable[str] = (),
    progress: ProgressCallback | None = None,
) -> dict[str, list[SourceFile]]:
    """Files of each subject, by subject id, downloaded when missing; names are relative to `data_dir`.

    For `files:` and `bids:` sources nothing is downloaded: use `hash_files`.

    Raises:
        FetchError: a file is missing while offline, or its download failed.
        LicenceError: the licence has not been accepted.
    """
    raise NotImplementedError


def check(files: Iterable[SourceFile], data_dir: Path, *, quick: bool = False) -> None:
    """Raise FetchError unless every file is there, unchanged. `quick` compares sizes only; the default hashes."""
    raise NotImplementedError


def hash_files(paths: Iterable[Path], root: Path) -> list[SourceFile]:
    """Names relative to `root`, sizes and SHA-256 of local files; hashes are remembered by size and time in the user cache."""
    raise NotImplementedError


@contextmanager
def data_folder_lock(data_dir: Path, timeout: float = 0.0) -> Iterator[None]:
    """Hold the data folder for this process, or raise FetchError that names the holder."""
    raise NotImplementedError
    yield


@contextmanager
def no_network() -> Iterator[None]:
    """In this thread no socket of the internet families can be opened and no name resolved: FetchError instead."""
    raise NotImplementedError
    yield
