"""What passes between rooms: a recording, its events and files, and what the gates found in it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from eegprep.errors import SourceError, ToolkitError


@dataclass(frozen=True)
class Processed:
    """A recording after gates and filters.

    extra: JSON values that go into the corpus with it (filter, summary). facts: what decides which settings touch it.
    """

    recording: Recording
    extra: dict[str, Any]
    facts: dict[str, Any]

    @property
    def usable(self) -> bool:
        return not quarantined(self.recording)


@dataclass(frozen=True)
class Origin:
    """What is known about a recording besides its signal."""

    dataset: str
    subject: str
    session: str = "0"
    run: str = "0"
    person: str = ""
    licence: str = "unknown"
    doi: str = ""
    reference: str = ""
    line_freq: float | None = None
    sources: tuple[SourceFile, ...] = field(default=())

    @property
    def name(self) -> str:
        """`dataset/subject/session.run`, as of the recording."""
        return f"{self.dataset}/{self.subject}/{self.session}.{self.run}"


@dataclass(frozen=True)
class Unreadable:
    """A recording that could not be read, and why."""

    name: str
    error: ToolkitError
    sources: tuple[SourceFile, ...] = ()

    @property
    def finding(self) -> Finding:
        """The row for the table of findings."""
        return Finding("unreadable", self.name, None, None, None, "quarantined", self.error.problem)

    @classmethod
    def because(cls, origin: Origin, error: BaseException) -> Unreadable:
        """What `error` says of the recording of `origin`."""
        name = origin.name
        if isinstance(error, MemoryError):
            error = SourceError(f"{name}: not enough memory to read it", "use fewer --workers or raise --max-memory")
        if not isinstance(error, ToolkitError):
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            error = SourceError(f"{name}: cannot be read ({reason})", "leave the recording out, or mend its file")
        return cls(name, error, origin.sources)


# called with (done, total, message); the command line draws a bar or prints lines, a library caller may ignore it
ProgressCallback = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SourceFile:
    """A file that a recording came from; `name` is relative to the data folder, so that stores do not depend on the machine."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Event:
    """Something that happened: onset in s from the first sample of the recording, duration in s, label."""

    onset: float
    duration: float
    label: str


@dataclass(frozen=True)
class Finding:
    """What a gate saw: `value` against `limit`, and what was done about it."""

    code: str
    recording: str
    channel: str | None
    value: float | str | None
    limit: float | str | None
    action: Literal["noted", "dropped channel", "quarantined"]
    message: str = ""


@dataclass(frozen=True)
class Recording:
    """One continuous run of one person.

    signal_CT: (channels, samples) float32, uV, EEG channels only.
    sfreq, original_sfreq: Hz now, and as recorded.
    positions_C3: (channels, 3) m in head coordinates, NaN where unknown.
    segments: (first, last + 1) sample ranges that were recorded without a seam; one range when continuous.
    band: (low, high) Hz, what the signal can hold after all filters so far.
    person: identity across data sets; people who appear in several share it.
    offsets: uV that were taken off each channel before the conversion to float32, empty when none were.
    header: date and subject information of the file, empty unless asked for.
    named: channels that a person named as EEG although their names say otherwise.
    """

    signal_CT: np.ndarray
    sfreq: float
    channels: tuple[str, ...]
    dataset: str
    subject: str
    session: str
    run: str
    positions_C3: np.ndarray
    original_sfreq: float
    events: tuple[Event, ...] = ()
    segments: tuple[tuple[int, int], ...] = ()
    sources: tuple[SourceFile, ...] = ()
    licence: str = "unknown"
    doi: str = ""
    reference: str = ""
    line_freq: float | None = None
    band: tuple[float, float] = (0.0, float("inf"))
    person: str = ""
    findings: tuple[Finding, ...] = ()
    software: dict[str, str] = field(default_factory=dict)
    offsets: tuple[float, ...] = ()
    header: dict[str, Any] = field(default_factory=dict)
    named: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`dataset/subject/session.run`, the key in a recordings store."""
        return f"{self.dataset}/{self.subject}/{self.session}.{self.run}"

    def describe(self) -> dict[str, Any]:
        """All but the signal, as plain JSON values."""
        return {
            "sfreq": self.sfreq,
            "original_sfreq": self.original_sfreq,
            "channels": list(self.channels),
            "positions": [[None if np.isnan(v) else float(v) for v in row] for row in self.positions_C3],
            "events": [[e.onset, e.duration, e.label] for e in self.events],
            "segments": [list(s) for s in self.segments],
            "sources": [vars(s) for s in self.sources],
            "licence": self.licence,
            "doi": self.doi,
            "reference": self.reference,
            "line_freq": self.line_freq,
            "band": list(self.band),
            "person": self.person,
            "findings": [vars(f) for f in self.findings],
            "software": self.software,
            **({"offsets": list(self.offsets)} if self.offsets else {}),
            **({"header": self.header} if self.header else {}),
            **({"named": list(self.named)} if self.named else {}),
        }


def natural_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts "2" before "10"."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"\d+|\D+", text))


def path_part(text: str) -> str:
    """`text` as part of a zarr path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "0"


def recording_from(
    stored: Mapping[str, Any], signal_CT: np.ndarray, dataset: str, subject: str, session: str, run: str
) -> Recording:
    """The inverse of `Recording.describe`."""
    positions = [[math.nan if value is None else value for value in row] for row in stored["positions"]]
    low, high = stored["band"]
    return Recording(
        signal_CT=signal_CT,
        sfreq=stored["sfreq"],
        channels=tuple(stored["channels"]),
        dataset=dataset,
        subject=subject,
        session=session,
        run=run,
        positions_C3=np.array(positions, float).reshape(len(stored["channels"]), 3),
        original_sfreq=stored["original_sfreq"],
        events=tuple(Event(*event) for event in stored["events"]),
        segments=tuple((first, last) for first, last in stored["segments"]),
        sources=tuple(SourceFile(**source) for source in stored["sources"]),
        licence=stored["licence"],
        doi=stored["doi"],
        reference=stored["reference"],
        line_freq=stored["line_freq"],
        band=(low, math.inf if high is None else high),
        person=stored["person"],
        findings=tuple(Finding(**finding) for finding in stored["findings"]),
        software=dict(stored["software"]),
        offsets=tuple(stored.get("offsets", ())),
        header=dict(stored.get("header", {})),
        named=tuple(stored.get("named", ())),
    )


def quarantined(recording: Recording) -> bool:
    """Whether a gate keeps this recording out."""
    return any(finding.action == "quarantined" for finding in recording.findings)
