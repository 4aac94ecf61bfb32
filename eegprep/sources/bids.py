"""Finds the recordings of a BIDS folder as it is, and the text files that hold for each.

Sidecars are inherited as the standard says: a file in a folder above holds for all that its name fits, and the nearest one wins.
Each one that is read is among the recording's files. Standard: Pernet et al. (2019), Scientific Data 6:103, and BIDS 1.9.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eegprep.folders import is_folder
from eegprep.readers import serving_copy
from eegprep.sources.companions import Parts, closed, not_here, parts_of
from eegprep.sources.files import RECORDINGS, TABLES, ending
from eegprep.sources.naming import Named


@dataclass(frozen=True)
class Sidecars:
    """The text files that hold for one recording. description: `_eeg.json`, the outermost first."""

    channels: Path | None = None
    events: Path | None = None
    electrodes: Path | None = None
    coordsystem: Path | None = None
    description: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        single = (self.channels, self.events, self.electrodes, self.coordsystem)
        return (*(path for path in single if path is not None), *self.description)


def find_recordings(root: Path) -> Iterator[tuple[Named, Path, Parts]]:
    """Every recording below a BIDS root: its name, the file to open, and all files that are read for it."""
    for person in sorted(path for path in root.glob("sub-*") if is_folder(path)):
        for folder in _eeg_folders(person):
            try:
                listed = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
            except OSError:
                yield _named(root, person, folder / f"{person.name}_eeg"), folder, Parts((folder,), problem=closed(folder))
                continue
            mains = [path for path in listed if _is_recording(path)]
            files = {path: parts_of(path) for path in mains}
            inner = {part for parts in files.values() for part in parts.files[1:]}
            for path in mains:
                if path not in inner:
                    yield _named(root, person, path), path, _with_sidecars(root, path, files[path])


def _eeg_folders(person: Path) -> list[Path]:
    """The folders of a person's recordings; one that cannot be looked into stands for what is in it."""
    try:
        sessions = sorted(entry for entry in person.iterdir() if entry.name.startswith("ses-") and is_folder(entry))
    except OSError:
        return [person]
    shut = [session for session in sessions if not os.access(session, os.R_OK | os.X_OK)]
    inside = [folder for folder in (person / "eeg", *(session / "eeg" for session in sessions)) if is_folder(folder)]
    return [*inside, *shut]


def _is_recording(path: Path) -> bool:
    stem = path.name.split(".")[0]
    return (
        ending(path) in (*RECORDINGS, *TABLES, *serving_copy.SUFFIXES)
        and stem.endswith("_eeg")
        and not path.name.endswith("_eeg.tsv")
    )


def _with_sidecars(root: Path, path: Path, parts: Parts) -> Parts:
    sidecars, lost = [], list(parts.oddities)
    for side in sidecars_of(root, path).files:
        problem = not_here(side)
        if problem is None:
            sidecars.append(side)
        else:
            lost.append(("sidecar", problem.problem))
    return Parts((*parts.files, *sidecars), tuple(lost), parts.problem)


def _named(root: Path, person: Path, path: Path) -> Named:
    entities = _entities(path)
    subject, session = person.name.removeprefix("sub-"), "0"
    for part in path.relative_to(root).parts:
        if part.startswith("ses-") and "_" not in part:
            session = part.removeprefix("ses-")
    session = entities.get("ses", session)
    usual = [entities[key] for key in ("task", "acq", "run") if key in entities]
    other = [f"{key}-{value}" for key, value in entities.items() if key not in ("sub", "ses", "task", "acq", "run", "split")]
    return Named(subject, session, "-".join((*usual, *other)) or "0", path.relative_to(root))


def _entities(path: Path) -> dict[str, str]:
    """`sub-01_task-rest_eeg.edf` as {"sub": "01", "task": "rest"}."""
    parts = (part.partition("-") for part in path.name.split(".")[0].split("_"))
    return {key: value for key, dash, value in parts if dash}


def sidecars_of(root: Path, recording: Path) -> Sidecars:
    """What holds for a recording: the nearest table of each kind, and every `_eeg.json` on the way down."""
    own = _entities(recording)
    folders = [root, *reversed([p for p in recording.parents if p != root and p.is_relative_to(root)])]

    def fitting(suffix: str, ignored: tuple[str, ...] = ()) -> list[Path]:
        paths = []
        for folder in folders:
            fits = []
            for path in sorted(folder.glob(f"*{suffix}")):
                entities = {key: value for key, value in _entities(path).items() if key not in ignored}
                whole = path.name == suffix or path.name.endswith(f"_{suffix}")
                if whole and not path.name.startswith(".") and all(own.get(key) == value for key, value in entities.items()):
                    fits.append((len(entities), path))
            paths += [path for _, path in sorted(fits)]
        return paths

    def nearest(suffix: str, ignored: tuple[str, ...] = ()) -> Path | None:
        return next(reversed(fitting(suffix, ignored)), None)

    return Sidecars(
        nearest("channels.tsv"), nearest("events.tsv"), nearest("electrodes.tsv", ("space",)),
        nearest("coordsystem.json", ("space",)), tuple(fitting("eeg.json")),
    )  # fmt: skip
