"""Finds the recordings of a source of files: a name, a pattern, or a folder; in place, links and all.

One bad item never ends a listing: what cannot be read, followed or fetched comes out with its problem.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from eegprep.errors import SourceError
from eegprep.folders import FOLDER_FORMATS, fixed_part, is_container
from eegprep.sources.companions import Parts, closed, parts_of, unreadable

# what a folder is searched for
RECORDINGS = (
    ".edf", ".bdf", ".rec", ".gdf", ".vhdr", ".ahdr", ".set", ".fif", ".cnt", ".mff", ".eeg", ".nxe", ".lay", ".cdt", ".dap",
    ".egi", ".raw", ".data", ".xdf", ".xdfz",
)  # fmt: skip
# formats that other things have as well: taken from a folder only when nothing else is in it
TABLES = (".csv", ".tsv", ".mat", ".npy", ".txt")
PACKED = (".gz", ".bz2", ".xz", ".zst")
# what never is a recording, however wide the pattern is
_OTHER = {
    ".fdt", ".vmrk", ".json", ".tsv", ".event", ".txt", ".md", ".rst", ".xml", ".html", ".htm", ".pdf", ".doc", ".docx", ".xls",
    ".xlsx", ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".svg", ".tif", ".tiff", ".py", ".m", ".r", ".ipynb", ".toml", ".yml", ".yaml",
    ".log", ".ini", ".cfg", ".bak", ".tmp", ".md5", ".sha256", ".ds_store", ".db", ".wav", ".mp3", ".mp4", ".avi",
}  # fmt: skip


def ending(path: Path) -> str:
    """The suffix in lower case; of packed files the one in front (`rec.edf.gz`: `.edf`)."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() or suffix if suffix in PACKED else suffix


def find_recordings(target: str, only: Sequence[str] = ()) -> tuple[Path, dict[Path, Parts]]:
    """Folder that names are relative to, and each recording with its files.

    Args:
        target: a file, a folder or a pattern, absolute. What exists by that name is meant literally.
        only: names inside the folder `target`, where a command line named them one by one.

    Raises:
        SourceError: nothing is there.
    """
    literal = Path(target)
    if only:
        root, paths = literal, _several(literal, only)
    elif os.path.lexists(literal) and not is_container(literal):
        root, paths = literal.parent, [literal]
    elif literal.is_dir():
        root, paths = literal, in_folder(literal)
    else:
        root, paths = fixed_part(target), _matching(target)
    if not paths:
        raise SourceError(*_no_usable_recording(target, literal))
    return root, _recordings(paths)


def _no_usable_recording(target: str, literal: Path) -> tuple[str, str]:
    if literal.is_dir():
        return f"files:{target}: 0 recordings in this folder (least 1)", "name the files, for instance with files:FOLDER/*.EXT"
    return f"files:{target}: no file matches", "check the path; quote patterns with * in the shell"


def in_folder(folder: Path) -> list[Path]:
    """Recordings at any depth, each once, however many links lead to its folder."""
    paths = _walk(folder)
    sure = [path for path in paths if ending(path) in RECORDINGS]
    return sure or [path for path in paths if ending(path) in TABLES and path.suffix.lower() != ".txt"]


def _walk(folder: Path) -> list[Path]:
    """Files and folder formats below a folder. A folder that cannot be looked into is in the list itself."""
    paths: list[Path] = []
    # links are followed, so that each real folder is entered once, or a circle would never end
    seen = {os.path.realpath(folder)}

    def refuse(error: OSError) -> None:
        paths.append(Path(str(error.filename)))

    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(place)
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(here / name)
            if name.startswith(".") or real in seen:
                continue
            seen.add(real)
            if Path(name).suffix.lower() in FOLDER_FORMATS:
                paths.append(here / name)
            else:
                kept.append(name)
        folders[:] = kept
        paths += [here / name for name in sorted(files) if not name.startswith(".")]
    return sorted(paths)


def _several(root: Path, only: Sequence[str]) -> list[Path]:
    paths: list[Path] = []
    for name in only:
        path = root / name
        paths += in_folder(path) if is_container(path) else [path]
    return _only_recordings(dict.fromkeys(paths))


def _matching(target: str) -> list[Path]:
    """What a pattern matches. Folders in front that exist as they are written are meant literally, brackets included."""
    known = fixed_part(target)
    parts = Path(target).relative_to(known).parts
    inside: dict[tuple[str, str], Path] = {}
    real = cache(os.path.realpath)
    for path in sorted(_expand(known, parts, {os.path.realpath(known)}), key=lambda path: (len(path.parts), path)):
        inside.setdefault((real(path.parent), path.name), path)  # a link to a folder shows its files twice
    paths = sorted(inside.values())
    return _only_recordings(paths) if len(paths) > 1 else paths


def _expand(folder: Path, parts: Sequence[str], seen: set[str]) -> Iterator[Path]:
    """Files below `folder` that match; a folder that cannot be looked into comes out itself.

    glob.glob would pass over such folders in silence, and follow links in circles.
    """
    head, rest = parts[0], parts[1:]
    if head == "**":
        # `**` stands for no folder, too
        yield from _expand(folder, rest or ("*",), seen)
        for path in _list(folder):
            real = os.path.realpath(path)
            if is_container(path) and not path.name.startswith(".") and real not in seen:
                seen.add(real)
                yield from _expand(path, parts, seen)
        return
    names = [head] if os.path.lexists(folder / head) else []
    if glob.has_magic(head):
        try:
            listed = sorted(path.name for path in folder.iterdir())
        except FileNotFoundError:
            return
        except OSError:
            yield folder
            return
        names += [name for name in fnmatch.filter(listed, head) if head.startswith(".") or not name.startswith(".")]
    for path in (folder / name for name in dict.fromkeys(names)):
        if not rest and not is_container(path):
            yield path
        elif rest and is_container(path):
            yield from _expand(path, rest, seen)


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []  # `_expand` names it


def _only_recordings(paths: Iterable[Path]) -> list[Path]:
    """Without what lies beside recordings; tables count when there is nothing else."""
    listed = [path for path in paths if not path.name.startswith(".")]
    sure = [path for path in listed if path.suffix.lower() not in _OTHER]
    return sure or [path for path in listed if path.suffix.lower() in TABLES]


def _recordings(paths: Sequence[Path]) -> dict[Path, Parts]:
    """Each recording with its files; what another one reads is none of its own."""
    parts: dict[Path, Parts] = {}
    for path in paths:
        if is_container(path):
            parts[path] = Parts((path,), problem=closed(path))
            continue
        try:
            parts[path] = parts_of(path)
        except OSError as error:
            parts[path] = Parts((path,), problem=unreadable(path, error))
    # a file of samples has an ending that recordings have, as `.eeg` of BrainVision
    inner = {part for path in paths for part in parts[path].files[1:]}
    return {path: parts[path] for path in paths if path not in inner}
