"""Names of recordings: who (subject), when (session) and what (run), from file names and the folders around them.

Two rules hold for everything that is listed together: two people never share a subject, and two recordings never share a name.
A subject that appears in several places (two sites with a `sub-01` each) is several people unless a pattern says otherwise:
splitting one person's recordings costs little, merging two people cannot be undone.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eegprep import patterns
from eegprep.recording import path_part

# endings that are two suffixes
_DOUBLE = re.compile(r"\.(fif|edf|bdf|gdf|vhdr|set|cnt|csv|tsv|mat|rec)\.(gz|bz2|xz|zst)$", re.IGNORECASE)
# BCI2000, and with it PhysioNet's eegmmidb
_BCI2000 = re.compile(r"(?P<subject>S\d+)R(?P<run>\d+)")
# BIDS-like; letters and digits of any alphabet
_BIDS = re.compile(r"(?P<before>.*?)sub-(?P<subject>[^\W_]+)(?:_ses-(?P<session>[^\W_]+))?(?P<run>_.*)?")
# folders that name a session, whatever the files in them are called
_SESSION = re.compile(
    r"(?:ses|session)(?:[-_ ]?(?P<number>\d\w*)|[-_ ](?P<word>\w+))|(?P<day>(?:day|visit|week)[-_ ]?\d+)", re.IGNORECASE
)
# ours: longest part of a name; file systems allow 255 bytes, and partial folders add to it
_LONGEST = 100


@dataclass(frozen=True)
class Named:
    """What a path says of its recording, in its own words.

    place: folders and words that neither subject, session nor run explains, for instance a site.
    path: relative, for telling recordings apart that are otherwise named alike.
    explicit: a pattern of the user's own says who it is, so that `place` does not.
    """

    subject: str
    session: str
    run: str
    path: Path
    place: tuple[str, ...] = ()
    explicit: bool = False


@dataclass(frozen=True)
class Name:
    """A name in the stores. alike: places in which the same subject was found, when it was told apart by place."""

    subject: str
    session: str
    run: str
    alike: tuple[str, ...] = ()


def stem(path: Path) -> str:
    """The file's name without its ending."""
    return _DOUBLE.sub("", path.name) if _DOUBLE.search(path.name) else path.stem


def read_name(path: Path, pattern: str = "") -> Named:
    """(subject, session, run) of a file: from a pattern with named groups, usual names, or the folders that it lies in.

    Args:
        path: relative to the folder that the source begins in.
        pattern: regular expression with the named groups subject, session, run, searched in the file's name.
    """
    name, folders = stem(path), path.parts[:-1]
    said = patterns.search(pattern, path.name) if pattern else None
    if said is not None:
        return Named(said.get("subject") or "0", said.get("session") or "0", said.get("run") or "0", path, explicit=True)
    found = _BCI2000.fullmatch(name) or _BIDS.fullmatch(name)
    if found is not None:
        said = found.groupdict()
        subject = found["subject"]
        own = {subject.casefold(), f"sub-{subject}".casefold()}
        place = [part for part in folders if part.casefold() not in own and part != "eeg" and _SESSION.fullmatch(part) is None]
        before = (said.get("before") or "").strip("_- ")
        session = said.get("session") or _session(folders) or "0"
        run = (said.get("run") or "0").strip("_-")
        return Named(subject, session, run, path, (*place, *([before] if before else [])))
    people = [part for part in folders if _SESSION.fullmatch(part) is None]
    if people and people[-1] == "eeg":
        people = people[:-1]
    session = _session(folders) or "0"
    return Named("/".join(people), session, name, path) if people else Named(name, session, "0", path)


def _session(folders: Sequence[str]) -> str:
    """What the innermost folder of a session says."""
    for part in reversed(folders):
        found = _SESSION.fullmatch(part)
        if found is not None:
            return found["number"] or found["word"] or found["day"]
    return ""


def settle(named: Sequence[Named]) -> list[Name]:
    """Names under which recordings are stored, in the order given: people apart, recordings apart, letters that paths can hold."""
    named = _people_apart(named)
    subjects = _distinct([item.subject for item in named])
    rows: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(named):
        rows[subjects[item.subject]].append(index)
    names: list[Name] = [Name("", "", "")] * len(named)
    places = _places(named)
    for subject, members in rows.items():
        sessions = _distinct([named[index].session for index in members])
        runs = _distinct([named[index].run for index in members])
        own = [(sessions[named[index].session], runs[named[index].run]) for index in members]
        for index, (session, run) in zip(members, _recordings_apart(own, [named[index].path for index in members]), strict=True):
            names[index] = Name(subject, session, run, places.get(named[index].subject, ()))
    return names


def _people_apart(named: Sequence[Named]) -> list[Named]:
    """One subject in several places: the places become part of the name, for all subjects."""
    seen: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for item in named:
        if not item.explicit:
            seen[item.subject].add(item.place)
    if all(len(places) == 1 for places in seen.values()):
        return list(named)
    everywhere = [item.place for item in named if not item.explicit]
    shared = _shared(everywhere)
    return [
        item if item.explicit else replace(item, subject="/".join((*item.place[shared:], item.subject)), place=item.place)
        for item in named
    ]


def _shared(places: Sequence[tuple[str, ...]]) -> int:
    """How many parts all places begin with."""
    count = 0
    for column in zip(*places, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def _places(named: Sequence[Named]) -> dict[str, tuple[str, ...]]:
    """Of subjects that were told apart by place: all places in which the last part of their name was found."""
    found: dict[str, set[str]] = defaultdict(set)
    for item in named:
        if not item.explicit and "/" in item.subject and item.place:
            found[item.subject.rpartition("/")[2]].add("/".join(item.place))
    return {
        item.subject: tuple(sorted(found[item.subject.rpartition("/")[2]]))
        for item in named
        if not item.explicit and item.place and "/" in item.subject and len(found[item.subject.rpartition("/")[2]]) > 1
    }


def encode(text: str) -> str:
    """`text` in letters that every file system, URL and shell takes: parts of a path are joined, long ones are cut."""
    short = "-".join(path_part(part) for part in text.split("/"))
    return short if len(short) <= _LONGEST else f"{short[: _LONGEST - 9]}-{_mark(text, 8)}"


def _distinct(texts: Sequence[str]) -> dict[str, str]:
    """An encoded name for each text; texts that would become the same get a mark of their own."""
    users: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        users[encode(text)].add(text)
    return {
        text: short if len(members) == 1 or text == short else f"{short}-{_mark(text)}"
        for short, members in users.items()
        for text in members
    }


def _recordings_apart(names: Sequence[tuple[str, str]], paths: Sequence[Path]) -> list[tuple[str, str]]:
    """(session, run) of a subject's recordings, without two that are alike."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        groups[name].append(index)
    apart = list(names)
    for (session, run), members in groups.items():
        if len(members) == 1:
            continue
        for token in (_ending, _folders, _whole):
            runs = [
                encode("/".join(part for part in (run if run != "0" else "", token(paths[index])) if part)) for index in members
            ]
            if len(set(runs)) == len(members):
                break
        for index, text in zip(members, runs, strict=True):
            apart[index] = (session, text)
    return (
        apart if len(set(apart)) == len(apart) else [(s, f"{r}-{_mark(str(p))}") for (s, r), p in zip(apart, paths, strict=True)]
    )


def _ending(path: Path) -> str:
    return path.suffix.lstrip(".").lower()


def _folders(path: Path) -> str:
    return "/".join(part for part in path.parts[:-1] if part != "eeg")


def _whole(path: Path) -> str:
    return f"{stem(path)}/{_mark(str(path))}"


def _mark(text: str, digits: int = 4) -> str:
    """Some hexadecimal digits that depend on the text alone."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:digits]
