"""Bare paths as sources, and the name that a person would give to the data set in a folder."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from eegprep.folders import fixed_part, is_container
from eegprep.recording import plain_letters

# folders that say nothing of whose data are in them: versions, PhysioNet's and BIDS' own, parts of a whole
_NAMELESS = re.compile(r"v?\d+(\.\d+)+|files|part[-_ ]?\d+|eeg|ses-\w+|sub-\w+", re.IGNORECASE)


def data_set_name(kind: str, target: str) -> str:
    """The folder of a BIDS root, or the last one in front of the first wildcard; a version number is no name."""
    path = Path(target)
    if kind == "files" and not (os.path.lexists(path) and is_container(path)):
        path = fixed_part(target) if glob.has_magic(target) and not os.path.lexists(path) else path.parent
    while _NAMELESS.fullmatch(path.name) and path.parent.name:
        path = path.parent
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "_", plain_letters(path.name)).strip("_.-")
    return name or kind


def is_bare(name: str, root: Path) -> bool:
    """Whether `name` is a file, a folder or a pattern that matches something."""
    path = root / Path(name).expanduser()
    return os.path.lexists(path) or (glob.has_magic(name) and next(glob.iglob(str(path), recursive=True), None) is not None)  # noqa: PTH207


def bare_sources(names: Sequence[str], root: Path) -> list[dict[str, object]]:
    """What bare paths mean: keys of a `[[source]]` table each.

    Files are one data set, named after the folder that holds them all; a folder is a data set of its own, in BIDS where it looks
    like it; folders of people (`study/sub-*`) are chosen from the folder that holds them.
    """
    paths = [Path(os.path.abspath(root / Path(name).expanduser())) for name in names]  # noqa: PTH100  (links stay)
    files = [path for path in paths if os.path.lexists(path) and not is_container(path)]
    tables: list[dict[str, object]] = []
    if len(files) == 1:
        tables.append({"spec": f"files:{files[0]}"})
    elif files:
        tables += [_listed(*group) for group in _together(files)]
    people: dict[Path, list[str]] = {}
    for path in paths:
        if path in files:
            continue
        if path.name.startswith("sub-") and path.is_dir():
            people.setdefault(path.parent, []).append(path.name)
        else:
            tables.append({"spec": f"{'bids' if looks_like_bids(path) else 'files'}:{path}"})
    for folder, listed in people.items():
        if looks_like_bids(folder):
            tables.append({"spec": f"bids:{folder}", "subjects": [name.removeprefix("sub-") for name in listed]})
        else:
            tables.append(_listed(folder, [folder / name for name in listed]))
    return tables


def looks_like_bids(folder: Path) -> bool:
    """Whether a folder is described as BIDS, or ordered so."""
    if not folder.is_dir():
        return False
    if (folder / "dataset_description.json").is_file():
        return True
    return any(next(folder.glob(pattern), None) is not None for pattern in ("sub-*/eeg/*_eeg.*", "sub-*/ses-*/eeg/*_eeg.*"))


def _together(files: Sequence[Path]) -> list[tuple[Path, list[Path]]]:
    """(folder, files in it): the folder that holds all of them, or each one's own where that is the root of the disk."""
    common = Path(os.path.commonpath([path.parent for path in files]))
    if common.name:
        return [(common, list(files))]
    groups: dict[Path, list[Path]] = {}
    for path in files:
        groups.setdefault(path.parent, []).append(path)
    return list(groups.items())


def _listed(folder: Path, paths: Sequence[Path]) -> dict[str, object]:
    return {"spec": f"files:{folder}", "files": [path.relative_to(folder).as_posix() for path in paths]}
