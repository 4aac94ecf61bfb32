"""Lists of sources: which data sets, which people, under which licence, and how many windows of each.

A manifest is a TOML file::

    title = "Sample"
    description = "what it is for"
    target_windows = 120000             # optional: a balanced draw over people, see `balanced_caps`
    seed = 0                            # of that draw

    [[source]]
    spec = "files:sample/*.edf"         # or "moabb:PhysionetMI", "bids:ROOT"; paths are relative to the manifest
    dataset = "PhysionetMI"             # group name in the store; default: class name, or the folder's name
    subjects = "1-10,12"                # optional
    pattern = 'S(?P<subject>\\d+)R(?P<run>\\d+)'   # files: only; named groups subject, session, run of the file name
    options = { imagined = true }       # moabb: only; constructor arguments of the class
    person_family = "PhysionetMI"       # people of one family with the same id are one person; default: from the catalogue
    licence = "ODC-By-1.0"              # for files: and bids:; MOABB's classes declare theirs
    doi = "10.13026/C28G6P"
    citation = "..."
    max_per_subject = 237               # optional
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from .settings import Settings


class Source(Settings):
    """One `[[source]]` of a manifest, or a SOURCE of the command line."""

    kind: Literal["moabb", "bids", "files"]
    target: str  # MOABB class name, BIDS root, or glob; paths are absolute once loaded
    dataset: str
    subjects: tuple[str, ...] | None = None
    pattern: str = ""
    options: dict[str, Any] = {}
    person_family: str = ""
    licence: str = ""
    doi: str = ""
    citation: str = ""
    max_per_subject: int | None = None

    @property
    def spec(self) -> str:
        """`kind:target`."""
        return f"{self.kind}:{self.target}"


class Manifest(Settings):
    """A loaded manifest."""

    title: str = ""
    description: str = ""
    target_windows: int | None = None
    seed: int = 0
    sources: tuple[Source, ...] = ()


def load(names: list[str] | str, root: Path | None = None) -> Manifest:
    """Manifest files (path, or name of a shipped one) and SOURCE strings, joined in the order given."""
    raise NotImplementedError


def parse_subjects(text: str) -> tuple[str, ...]:
    """`"1-3,7"` as `("1", "2", "3", "7")`."""
    raise NotImplementedError


def person(source: Source, subject: str) -> str:
    """Identity of `subject` across data sets: equal for the same person in several classes."""
    raise NotImplementedError
