"""Compares a group on disk with its commit record."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eegprep.errors import StoreError
from eegprep.folders import is_desktop_file
from eegprep.provenance import sha256_stream
from eegprep.store.commit import Commit, StoredFile, attributes_digest, parse_node
from eegprep.store.names import open_inside, read_inside, status_inside


@dataclass(frozen=True)
class Problem:
    """What is wrong with a group. code: missing, truncated, altered, extra, uncommitted or different."""

    group: str
    code: str
    file: str
    message: str


@dataclass(frozen=True)
class Verification:
    """What `verify` found. checked: groups; repaired: those that were made again."""

    path: Path
    checked: int
    files: int
    bytes: int
    problems: tuple[Problem, ...]
    repaired: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 1 if self.problems else 0

    @property
    def text(self) -> str:
        """One line for people."""
        state = f"{len(self.problems)} problems" if self.problems else "whole and unchanged"
        done = f", {len(self.repaired)} groups made again" if self.repaired else ""
        return f"{self.path}: {self.checked} groups, {self.files} files, {self.bytes / 1e6:,.0f} MB: {state}{done}"


def check_group(folder: Path, name: str, fast: bool = False, finished: StoredFile | None = None) -> Verification:
    """Compare the files of one subject's group with its commit record.

    Args:
        fast: sizes only.
        finished: what the root says of the group's `zarr.json`.
    """
    try:
        content = read_inside(folder, "zarr.json")
        attributes = parse_node(content, str(folder / "zarr.json"))["attributes"]
        commit = Commit.of(attributes, name)
    except FileNotFoundError:
        return _failed(folder, Problem(name, "uncommitted", "zarr.json", "there is no commit record"))
    except StoreError as error:
        missing = "has no commit record" in error.problem
        return _failed(folder, Problem(name, "uncommitted" if missing else "altered", "zarr.json", error.problem))
    problems = []
    if attributes_digest(attributes) != commit.attributes_sha256:
        problems.append(Problem(name, "altered", "zarr.json", "the attributes are not those that were committed"))
    # the group is whole in itself, but an older or another one stands in its place
    elif finished is not None and finished.problem(content) is not None:
        problems.append(Problem(name, "altered", "zarr.json", "not the group that the store was finished with"))
    for relative, record in sorted(commit.files.items()):
        problem = check_file(folder, relative, record, fast)
        if problem is not None:
            problems.append(Problem(name, problem[0], relative, problem[1]))
    expected = {*commit.files, "zarr.json"}
    problems += [Problem(name, "extra", file, "is not in the commit record") for file in sorted(set(_files(folder)) - expected)]
    size = sum(record.size for record in commit.files.values())
    return Verification(folder, 1, len(commit.files), size, tuple(problems))


def whole_group(folder: Path, finished: StoredFile | None = None, known: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """The attributes of a group whose files are there in their sizes; empty when the group is not, and has to be made again.

    Args:
        finished: what the root says of the group's `zarr.json`. known: the attributes that the root repeats from it.
    """
    try:
        content = read_inside(folder, "zarr.json")
        if finished is not None and finished.problem(content):
            return {}
        # bytes with the SHA-256 that the root has for them need not be parsed again, nor their own digest computed
        attributes = known if finished and known else parse_node(content, str(folder))["attributes"]
        commit = Commit.of(attributes, str(folder))
        if finished is None and attributes_digest(attributes) != commit.attributes_sha256:
            return {}
        # sizes only: hashing terabytes to find out that nothing is to be done would cost more than most builds
        plain: set[str] = set()
        if any(check_file(folder, relative, record, True, plain) for relative, record in commit.files.items()):
            return {}
    except (StoreError, FileNotFoundError):
        return {}
    return attributes


def check_file(
    folder: Path, relative: str, record: StoredFile, fast: bool, plain: set[str] | None = None
) -> tuple[str, str] | None:
    """(code, message) of what is wrong with one file; `fast` compares sizes only; `plain` as in `status_inside`."""
    try:
        status = status_inside(folder, relative, plain)
    except StoreError as error:
        return "altered", error.problem
    except OSError:
        return "missing", f"should hold {record.size:,} bytes"
    if not stat.S_ISREG(status.st_mode):
        return "altered", "is no regular file"
    if status.st_size != record.size:
        code = "truncated" if status.st_size < record.size else "altered"
        return code, f"{status.st_size:,} bytes, committed were {record.size:,}"
    if not fast:
        try:
            with os.fdopen(open_inside(folder, relative), "rb") as file:
                digest = sha256_stream(file)
        except (StoreError, OSError) as error:
            return "altered", f"cannot be read ({error})"
        if digest != record.sha256:
            return "altered", f"SHA-256 {digest[:12]}..., committed was {record.sha256[:12]}..."
    return None


def _files(folder: Path) -> Iterator[str]:
    """Everything in a group that is no folder; links are not followed."""
    for place, folders, names in os.walk(folder):
        # os.walk lists links to folders as folders
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in (*names, *links):
            if not is_desktop_file(name):
                yield (Path(place) / name).relative_to(folder).as_posix()


def _failed(folder: Path, problem: Problem) -> Verification:
    return Verification(folder, 1, 0, 0, (problem,))
