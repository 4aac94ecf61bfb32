"""Names of recordings: who (subject), when (session) and what (run), from file names and the folders around them.

`read_name` reads one path and says by which rule; `explain` puts the rules into a sentence, which every command prints. Two rules hold for everything that is listed together: two people never share a subject, and two recordings never share a name.
A subject that appears in several places (two sites with a `sub-01` each) is several people unless a pattern says otherwise:
splitting one person's recordings costs little, merging two people cannot be undone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eegprep import patterns
from eegprep.errors import SourceError
from eegprep.provenance import sha256
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
# what usually stands in front of a person's number; `P01_lab_run1` and `Subject02_1` are of P01 and Subject02
_PERSON = re.compile(
    r"(?P<subject>(?:s|p|sub|subj|subject|vp|pp|ppt|participant|person|proband|pat|patient|id)-?\d+)(?:[-_. ]+(?P<rest>.+))?",
    re.IGNORECASE,
)
# what says at the end of a name that it is one of several recordings: `lab_session1`, `anna_day2_run1`, `anna-rest`
_PART = re.compile(
    r"(?:(?P<subject>.+?)[-_. ]+)??(?P<rest>(?:(?:ses|sess|session|run|block|bloc|day|visit|week|trial|take|part|rec|recording)[-_ ]?\d+[-_. ]*)+)",
    re.IGNORECASE,
)
_SESSION_PART = re.compile(r"(?<![A-Za-z])(?:ses|sess|session|day|visit|week)[-_ ]?(\d+)", re.IGNORECASE)
# ours: longest part of a name; file systems allow 255 bytes, and partial folders add to it
_LONGEST = 100


@dataclass(frozen=True)
class Named:
    """What a path says of its recording, in its own words.

    place: folders and words that neither subject, session nor run explains, for instance a site.
    path: relative, for telling recordings apart that are otherwise named alike.
    explicit: a pattern of the user's own says who it is, so that `place` does not.
    rule: by which of `_SENTENCES` it was read.
    """

    subject: str
    session: str
    run: str
    path: Path
    place: tuple[str, ...] = ()
    explicit: bool = False
    rule: str = "file"


# rule -> how a person was found; {subject} and {file} are an example
_SENTENCES = {
    "pattern": "by the pattern that was given ({subject} of {file})",
    "participants": "by the table of participants ({subject} of {file})",
    "sub": "by sub-LABEL ({subject} of {file})",
    "bci2000": "by SxxxRyy in file names ({subject} of {file})",
    "id": "by the number of a person that file names begin with ({subject} of {file})",
    "part": "by file names without their session, run or block ({subject} of {file})",
    "folder": "by the folder that holds them ({subject} of {file})",
    "file": "each file by itself ({subject} of {file})",
}


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


def read_name(path: Path, pattern: str = "", subject_pattern: str = "", session_pattern: str = "") -> Named:
    """(subject, session, run) of a file: from a pattern with named groups, usual names, or the folders that it lies in.

    Args:
        path: relative to the folder that the source begins in.
        pattern: regular expression with the named groups subject, session, run, searched in the file's name.
        subject_pattern, session_pattern: regular expressions searched in the file's name, then in its path; what the first group
            matches, or the whole match without one, is the name.

    Raises:
        SourceError: one of the latter two fits nowhere.
    """
    named = _read_name(path, pattern)
    if subject_pattern:
        subject = _matched(subject_pattern, path, "--subject-pattern")
        rest = stem(path).replace(subject, "", 1).strip("_-. ") or "0"
        run = named.run if named.subject == subject else rest
        named = replace(named, subject=subject or "0", run=run, explicit=True, rule="pattern", place=())
    if session_pattern:
        named = replace(named, session=_matched(session_pattern, path, "--session-pattern") or "0")
    return named


def _matched(pattern: str, path: Path, option: str) -> str:
    for text in (path.name, path.as_posix()):
        result = patterns.first_group(pattern, text)
        if result is not None:
            return result
    raise SourceError(
        f"{path.as_posix()}: {option} {pattern!r} fits nowhere in this name",
        "correct the pattern, or name only files that it fits",
    )


def _read_name(path: Path, pattern: str) -> Named:
    name, folders = stem(path), path.parts[:-1]
    matched = patterns.search(pattern, path.name) if pattern else None
    if matched is not None:
        subject, session, run = (matched.get(key) or "0" for key in ("subject", "session", "run"))
        return Named(subject, session, run, path, explicit=True, rule="pattern")
    match = _BCI2000.fullmatch(name) or _BIDS.fullmatch(name)
    if match is not None:
        groups = match.groupdict()
        subject = match["subject"]
        own = {subject.casefold(), f"sub-{subject}".casefold()}
        place = [part for part in folders if part.casefold() not in own and part != "eeg" and _SESSION.fullmatch(part) is None]
        before = (groups.get("before") or "").strip("_- ")
        session = groups.get("session") or _session(folders) or "0"
        run = (groups.get("run") or "0").strip("_-")
        rule = "sub" if "before" in groups else "bci2000"
        return Named(subject, session, run, path, (*place, *([before] if before else [])), rule=rule)
    people = [part for part in folders if _SESSION.fullmatch(part) is None]
    if people and people[-1] == "eeg":
        people = people[:-1]
    session = _session(folders) or "0"
    person = _PERSON.fullmatch(name)
    if person is not None and not any(_PERSON.fullmatch(part) or part.startswith("sub-") for part in people):
        return _of_parts(path, person, session, tuple(people), "id")
    if people:
        return Named("/".join(people), session, name, path, rule="folder")
    part = _PART.fullmatch(name)
    return Named(name, session, "0", path) if part is None else _of_parts(path, part, session, (), "part")


def _of_parts(path: Path, match: re.Match[str], session: str, place: tuple[str, ...], rule: str) -> Named:
    """A name in which a person stands in front of the rest; the rest names session and run."""
    rest = match["rest"] or ""
    session_match = _SESSION_PART.search(rest)
    run = rest if session_match is None else (rest[: session_match.start()] + rest[session_match.end() :]).strip("_-. ")
    return Named(match["subject"] or "0", session_match[1] if session_match else session, run or "0", path, place, rule=rule)


def explain(items: Sequence[tuple[Named | None, str]]) -> str:
    """How many people the files of a source are, and by which rule.

    Args:
        items: what a path said and the subject it is stored under, of each recording.
    """
    examples: dict[str, tuple[str, str]] = {}
    for named, subject in items:
        if named is not None:
            examples.setdefault(named.rule, (subject, named.path.name))
    files, people = len(items), len({subject for _, subject in items})
    how = "; ".join(_SENTENCES[rule].format(subject=subject, file=file) for rule, (subject, file) in examples.items())
    text = f"names: {_count(files, 'recording')} of {_count(people, 'person', 'people')}, {how}"
    advice = "if several are one person's, say how names are read" if set(examples) == {"file"} else "to read names otherwise"
    return f"{text}; {advice}: --subject-pattern RE" if people < files or "file" in examples else text


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"


def _session(folders: Sequence[str]) -> str:
    """What the innermost folder of a session says."""
    for part in reversed(folders):
        match = _SESSION.fullmatch(part)
        if match is not None:
            return match["number"] or match["word"] or match["day"]
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
    result: dict[str, set[str]] = defaultdict(set)
    for item in named:
        if not item.explicit and "/" in item.subject and item.place:
            result[item.subject.rpartition("/")[2]].add("/".join(item.place))
    return {
        item.subject: tuple(sorted(result[item.subject.rpartition("/")[2]]))
        for item in named
        if not item.explicit and item.place and "/" in item.subject and len(result[item.subject.rpartition("/")[2]]) > 1
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
    return sha256(text)[:digits]
