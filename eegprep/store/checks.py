"""Compares a group on disk with its commit record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eegprep import provenance
from eegprep.errors import StoreError
from eegprep.store import format as store


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


def check_group(folder: Path, name: str, fast: bool = False) -> Verification:
    """Compare the files of one subject's group with its commit record."""
    try:
        attributes = store.read_node(folder / "zarr.json").get("attributes", {})
    except StoreError as error:
        return _failed(folder, Problem(name, "altered", "zarr.json", error.problem))
    commit = attributes.get("commit")
    if not isinstance(commit, dict) or not isinstance(commit.get("files"), dict):
        return _failed(folder, Problem(name, "uncommitted", "zarr.json", "there is no commit record"))
    problems = []
    if provenance.attributes_digest(attributes) != commit.get("attributes_sha256"):
        problems.append(Problem(name, "altered", "zarr.json", "the attributes are not those that were committed"))
    for relative, record in sorted(commit["files"].items()):
        problem = _check_file(folder / relative, record, fast)
        if problem is not None:
            problems.append(Problem(name, problem[0], relative, problem[1]))
    expected = {*commit["files"], "zarr.json"}
    there = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    problems += [Problem(name, "extra", file, "is not in the commit record") for file in sorted(set(there) - expected)]
    size = sum(record["bytes"] for record in commit["files"].values())
    return Verification(folder, 1, len(commit["files"]), size, tuple(problems))


def _failed(folder: Path, problem: Problem) -> Verification:
    return Verification(folder, 1, 0, 0, (problem,))


def _check_file(path: Path, record: Mapping[str, Any], fast: bool) -> tuple[str, str] | None:
    try:
        size = path.stat().st_size
    except OSError:
        return "missing", f"should hold {record['bytes']:,} bytes"
    if size != record["bytes"]:
        return "truncated" if size < record["bytes"] else "altered", f"{size:,} bytes, committed were {record['bytes']:,}"
    if not fast:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != record["sha256"]:
            return "altered", f"SHA-256 {found[:12]}..., committed was {record['sha256'][:12]}..."
    return None
