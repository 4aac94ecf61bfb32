"""Finds the folders of the user and of a data set: data, state, cache."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from pathlib import Path

import platformdirs

from eegprep.errors import StoreError


def state_folder(data_dir: Path) -> Path:
    """Where the data folder keeps our records; for one that cannot be written, a folder in the user's cache."""
    inside = data_dir / ".eegprep"
    if os.access(inside if inside.exists() else data_dir, os.W_OK) or not data_dir.exists():
        return inside
    # one folder of records for each data folder
    name = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
    return cache_folder("data-folders", name)


def cache_folder(*parts: str) -> Path:
    """A place in the user's cache; what lies there can be made again."""
    return Path(platformdirs.user_cache_dir("eeg-dreamdiff", appauthor=False)).joinpath(*parts)


def is_desktop_file(name: str) -> bool:
    """Whether a file is one that macOS lays beside others on foreign disks; nothing that we write is called so."""
    return name.startswith("._") or name == ".DS_Store"


def free_bytes(folder: Path) -> int:
    """Free on the disk that a folder is on, or will be on once it is made."""
    # what is not there yet will be on the disk of its nearest folder
    there = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if is_there(parent))
    return shutil.disk_usage(there).free


def require_free(folder: Path, size: float, what: str, fix: str) -> None:
    """Stop before a disk runs full.

    Args:
        folder: where it will be written; need not be there yet. size: bytes that are needed. what: what needs them.

    Raises:
        StoreError: with both numbers.
    """
    free = free_bytes(folder)
    if free < size:
        raise StoreError(f"{folder}: {what} need about {size / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free", fix)


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


# folders that are one recording: EGI, CTF, zarr copies
FOLDER_FORMATS = (".mff", ".ds", ".zarr")


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False, where Path.is_dir raises, when permission to look is missing."""
    return os.path.isdir(path)  # noqa: PTH112


def is_there(path: Path) -> bool:
    """Whether a path leads to something; False, where Path.exists raises, when permission to look is missing."""
    return os.path.exists(path)  # noqa: PTH110


def is_container(path: Path) -> bool:
    """Whether a path is a folder that holds recordings, rather than one that is a recording."""
    return is_folder(path) and path.suffix.lower() not in FOLDER_FORMATS


def fixed_part(pattern: str) -> Path:
    """The folders of a pattern in front of its first wildcard; those that exist as they are written have none."""
    path = Path(pattern)
    known = Path(path.anchor)
    for part in path.parts[1 if path.anchor else 0 : -1]:
        if glob.has_magic(part) and not is_folder(known / part):
            break
        known = known / part
    return known
