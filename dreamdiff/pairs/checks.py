"""Checks what a pairs store says of itself before anything of it is believed: its root, its metadata and its columns.

Format 2 has the commit record of a corpus (`eegprep.store.commit`): the root names every file of the store with its SHA-256, and carries
a digest of itself; `crc32c` of each subject binds a trial's EEG to its place. Format 1 had none of this: there, what is missing is an error.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr

from dreamdiff.pairs.format import FORMAT
from eegprep.atomic import partial_path
from eegprep.corpus.files import Checksums
from eegprep.errors import StoreError, no_zarr_group
from eegprep.store.commit import Commit, read_root
from eegprep.store.format import CHECKSUMS
from eegprep.store.names import check_name

AGAIN = "make the store again"


def checked_root(path: Path) -> tuple[dict[str, Any], Commit | None]:
    """The attributes of a finished store, and what its files have to be (None in format 1).

    Raises:
        StoreError: missing, unfinished, damaged, not a pairs store, or of a newer version.
    """
    if not (path / "zarr.json").is_file():
        if partial_path(path).exists():
            raise StoreError(f"{path}: the store was not finished", "run the command that makes it again")
        raise no_zarr_group(path)
    attributes = read_root(path)["attributes"]
    if attributes.get("format") != FORMAT or not attributes.get("complete"):
        raise StoreError(
            f"{path}: not a pairs store (format {attributes.get('format')!r}, expected {FORMAT!r})",
            "give a store made by `dreamdiff pairs import` or `dreamdiff pairs simulate`",
        )
    subjects = attributes.get("subjects")
    if not isinstance(subjects, list) or not subjects:
        raise StoreError(f"{path}: its root names no subjects", AGAIN)
    for name in subjects:
        check_name(name, f"{path}: subject")
        if not (path / name / "zarr.json").is_file():
            raise StoreError(f"{path}: subject {name!r} is missing", AGAIN)
    commit = Commit.of(attributes, str(path)) if attributes["version"] > 1 else None
    if commit is not None:
        _check_files(path, commit)
    return attributes, commit


def has_all_files(path: Path) -> bool:
    """Whether the root and the metadata of a finished store are as they were written, and every file has its size: costs nothing.

    Raises:
        StoreError: it is of a newer version.
    """
    try:
        _, commit = checked_root(path)
        files = {} if commit is None else commit.files
        return all((path / name).stat().st_size == record.size for name, record in files.items())
    except OSError:
        return False
    except StoreError as error:
        if "this software reads up to" in error.problem:
            raise
        return False


def has_lost_its_root(path: Path) -> bool:
    """Whether a folder holds the parts of a pairs store beside a `zarr.json` that is empty or no JSON."""
    try:
        json.loads((path / "zarr.json").read_bytes())
    except (ValueError, RecursionError):
        return (path / "images" / "zarr.json").is_file()
    except OSError:
        pass
    return False


def _check_files(path: Path, commit: Commit) -> None:
    """Metadata, by SHA-256: small files. Columns are compared when they are read, EEG and images piece by piece."""
    for name in commit.files:
        if name.endswith("zarr.json"):
            commit.read(path, name)


def read_column(path: Path, root: zarr.Group, commit: Commit | None, name: str, n: int, stored: str | None = None) -> np.ndarray:
    """A column, `SUBJECT/COLUMN`, with one value a trial. stored: its data type where it is none of the columns of every store.

    Raises:
        StoreError: its chunk is missing or damaged, or it has another length.
    """
    if commit is not None and n:
        content = commit.read(path, f"{name}/c/0")
        data_type = np.dtype(stored or ("<f8" if name.endswith("/onset") else "<i4"))
        if len(content) != n * data_type.itemsize + 4:
            raise StoreError(f"{path / name}: {len(content)} bytes are not {n} trials", AGAIN)
        return np.frombuffer(content[:-4], data_type)
    if n and not (path / name / "c" / "0").is_file():  # plain zarr would show the fill value, which means "unknown"
        raise StoreError(f"{path / name}: its chunk is missing", AGAIN)
    try:
        return np.asarray(root[name][:])  # type: ignore[index]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path / name}: cannot be read ({error})", AGAIN) from None


def trial_checksums(commit: Commit | None, subject: str, n: int, first: int) -> Checksums | None:
    """Where the checksums of a shard's trials are; None in format 1."""
    if commit is None:
        return None
    path = f"{subject}/{CHECKSUMS}/c/0"
    return Checksums(path, commit.file(path, subject), n, first)


class Store(Protocol):
    """What `trial_contents` needs of `Pairs`."""

    indices: np.ndarray
    looked_up: dict[str, np.ndarray | None]
    subjects: list[str]
    _root: zarr.Group

    def eeg(self, indices: Any = None) -> np.ndarray: ...


def trial_contents(pairs: Store) -> np.ndarray | None:
    """(n,) of the trials of `pairs`: equal numbers for equal EEG; None where trials have no checksums (format 1, views of a corpus)."""
    if "content" not in pairs.looked_up:
        columns = [f"{name}/{CHECKSUMS}" for name in pairs.subjects]
        value = None
        if all(column in pairs._root for column in columns):
            sums_N = np.concatenate([np.asarray(pairs._root[column]) for column in columns])
            whole = copy.copy(pairs)
            whole.indices = np.arange(len(sums_N))
            value = same_trials(sums_N, lambda number: whole.eeg([number])[0])
        pairs.looked_up["content"] = value
    everything = pairs.looked_up["content"]
    return None if everything is None else everything[pairs.indices]


def same_trials(sums_N: np.ndarray, read: Callable[[int], np.ndarray]) -> np.ndarray:
    """(N,) a number for each trial, equal where the EEG is, sample for sample.

    Args:
        sums_N: checksums; only trials that share one are read. read: number of a trial -> (C, T).

    A trial without any signal is like no other.
    """
    number_N = np.arange(len(sums_N))
    _, member_N, count = np.unique(sums_N, return_inverse=True, return_counts=True)
    seen: dict[bytes, int] = {}
    for number in np.flatnonzero(count[member_N] > 1).tolist():
        eeg_CT = read(number)
        if eeg_CT.std() > 0:
            number_N[number] = seen.setdefault(hashlib.sha256(eeg_CT.tobytes()).digest(), number)
    return number_N


def check_image_names(path: Path, attributes: Mapping[str, Any]) -> None:
    """Raise StoreError unless names and digests belong together, and no name leads out of the images' folder."""
    names, digests = attributes.get("names"), attributes.get("sha256")
    if not isinstance(names, list) or not isinstance(digests, list) or len(names) != len(digests):
        raise StoreError(f"{path}/images: names and digests do not belong together", AGAIN)
    for name in names if attributes.get("kind") == "files" else ():
        parts = str(name).replace("\\", "/").split("/")
        # nothing before the first slash: absolute; a colon: a drive of Windows
        if not parts[0] or ".." in parts or "\0" in str(name) or ":" in parts[0]:
            raise StoreError(f"{path}/images: names the file {name!r}, which is not inside the images' folder", AGAIN)
