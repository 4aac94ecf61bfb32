"""What passes between rooms: a recording with its events and files, what the gates found in it, and what is kept of it.

Everything that a store keeps of these has one JSON form: `to_json` writes it, `from_json` reads it. Shapes: C channels, T samples.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from eegprep.errors import SourceError, ToolkitError

# called with (done, total, message); the command line draws a bar or prints lines, a library caller may ignore it
ProgressCallback = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SourceFile:
    """A file that a recording came from; `name` is relative to the data folder, so that stores do not depend on the machine."""

    name: str
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, object]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(content["name"], content["bytes"], content["sha256"])


@dataclass(frozen=True)
class Event:
    """Something that happened: onset in s from the first sample of the recording, duration in s, label."""

    onset: float
    duration: float
    label: str

    @property
    def is_bad(self) -> bool:
        """Whether it marks a stretch as bad, instead of telling of something that happened."""
        return self.label.upper().startswith("BAD")

    def to_json(self) -> list[float | str]:
        """A list of three, because a recording can have a hundred thousand events."""
        return [self.onset, self.duration, self.label]

    @classmethod
    def from_json(cls, content: Sequence[Any]) -> Self:
        return cls(*content)


@dataclass(frozen=True)
class Finding:
    """What a gate saw: `value` against `limit`, what was done about it, and (`fix`) what a person can do."""

    code: str
    recording: str
    channel: str | None
    value: float | str | None
    limit: float | str | None
    action: Literal["noted", "dropped channel", "quarantined"]
    message: str = ""
    fix: str = ""

    @property
    def quarantines(self) -> bool:
        """Whether it keeps the recording out."""
        return self.action == "quarantined"

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "fix" or value}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(**content)


@dataclass(frozen=True)
class Recording:
    """One continuous run of one person.

    signal_CT: (channels, samples) float32, uV, EEG channels only.
    sfreq, original_sfreq: Hz now, and as recorded.
    positions_C3: (channels, 3) m in head coordinates, NaN where unknown.
    segments: (first, last + 1) sample ranges that were recorded without a seam: one range when the recording is continuous (which
        is what leaving it out says), none when no sample can be used.
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
    segments: tuple[tuple[int, int], ...] = None  # type: ignore[assignment]  # filled below
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
    header: dict[str, object] = field(default_factory=dict)
    named: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.segments is None:
            object.__setattr__(self, "segments", ((0, self.signal_CT.shape[1]),))

    @property
    def name(self) -> str:
        """`dataset/subject/session.run`, the key in a recordings store."""
        return f"{self.dataset}/{self.subject}/{self.session}.{self.run}"

    @property
    def quarantined(self) -> bool:
        """Whether a gate keeps this recording out."""
        return any(finding.quarantines for finding in self.findings)

    def to_json(self) -> dict[str, object]:
        """All but the signal and the place in a store, as plain JSON values."""
        return {
            "sfreq": self.sfreq,
            "original_sfreq": self.original_sfreq,
            "channels": list(self.channels),
            "positions": positions_to_json(self.positions_C3),
            "events": [event.to_json() for event in self.events],
            "segments": [list(s) for s in self.segments],
            "sources": [source.to_json() for source in self.sources],
            "licence": self.licence,
            "doi": self.doi,
            "reference": self.reference,
            "line_freq": self.line_freq,
            "band": list(self.band),
            "person": self.person,
            "findings": [finding.to_json() for finding in self.findings],
            "software": self.software,
            **({"offsets": list(self.offsets)} if self.offsets else {}),
            **({"header": self.header} if self.header else {}),
            **({"named": list(self.named)} if self.named else {}),
        }

    describe = to_json  # the name of 0.1.0

    @classmethod
    def from_json(
        cls, content: Mapping[str, Any], signal_CT: np.ndarray, *, dataset: str, subject: str, session: str, run: str
    ) -> Self:
        """The inverse of `to_json`.

        Args:
            content: what `to_json` returned, also after a trip through JSON.
            signal_CT, dataset, subject, session, run: what a store keeps elsewhere: the array and its path.
        """
        return cls(
            signal_CT=signal_CT,
            sfreq=content["sfreq"],
            channels=tuple(content["channels"]),
            dataset=dataset,
            subject=subject,
            session=session,
            run=run,
            positions_C3=positions_from_json(content["positions"]),
            original_sfreq=content["original_sfreq"],
            segments=tuple((first, last) for first, last in content["segments"]),
            events=tuple(Event.from_json(event) for event in content["events"]),
            sources=tuple(SourceFile.from_json(source) for source in content["sources"]),
            licence=content["licence"],
            doi=content["doi"],
            reference=content["reference"],
            line_freq=content["line_freq"],
            band=band_from_json(content["band"]),
            person=content["person"],
            findings=tuple(Finding.from_json(finding) for finding in content["findings"]),
            software=dict(content["software"]),
            offsets=tuple(content.get("offsets", ())),
            header=dict(content.get("header", {})),
            named=tuple(content.get("named", ())),
        )


def positions_to_json(positions_C3: np.ndarray) -> list[list[float | None]]:
    """Rows of three, null where a position is unknown."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in positions_C3]


def positions_from_json(content: Sequence[Sequence[float | None]]) -> np.ndarray:
    """(C, 3) m; JSON has null where a position is unknown."""
    return np.array([[math.nan if value is None else value for value in row] for row in content], float).reshape(len(content), 3)


def band_from_json(content: Sequence[float | None]) -> tuple[float, float]:
    """(low, high) Hz; JSON has null for no upper edge."""
    low, high = content
    return low or 0.0, math.inf if high is None else high


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
        """`dataset/subject/session.run`, as in `Recording.name`."""
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
        return Finding("unreadable", self.name, None, None, None, "quarantined", self.error.problem, self.error.fix)

    @classmethod
    def because(cls, origin: Origin, error: BaseException) -> Unreadable:
        """What `error` says of the recording of `origin`."""
        name = origin.name
        if isinstance(error, MemoryError):
            error = SourceError(f"{name}: not enough memory to read it", "use fewer --workers or raise --max-memory")
        if not isinstance(error, ToolkitError):
            # one line: messages of libraries can be pages
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            error = SourceError(f"{name}: cannot be read ({reason})", "exclude the recording, or repair its file")
        return cls(name, error, origin.sources)


@dataclass(frozen=True)
class FilterRecord:
    """The band-pass that a recording went through.

    low, high: edges, Hz; `high` is None for a high-pass. clipped: whether the sampling rate moved the upper edge.
    """

    low: float
    high: float | None
    clipped: bool
    design: str = "firwin, Hamming, zero phase"

    def to_json(self) -> dict[str, object]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(**content)


@dataclass(frozen=True)
class Spectra:
    """What a report draws of a recording without its signal.

    psd_before, psd_after: uV^2/Hz at `signals.spectra.SUMMARY_FREQS`, median over channels, before and after filtering;
        None above half the sampling rate.
    std: uV, one value a channel, after filtering; None where it is not finite.
    """

    psd_before: tuple[float | None, ...] = ()
    psd_after: tuple[float | None, ...] = ()
    std: tuple[float | None, ...] = ()

    def to_json(self) -> dict[str, object]:
        return {name: list(values) for name, values in vars(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(**{name: tuple(values) for name, values in content.items()})


@dataclass(frozen=True)
class CutFacts:
    """shortest: samples of the shortest stretch without a seam. total: windows that fit, before any cap."""

    shortest: int
    total: int


@dataclass(frozen=True)
class Facts:
    """What decides which settings touch a recording, so that changing another setting does not build it again.

    original_sfreq: Hz, as recorded. channels: after the gate. amplitude: median channel standard deviation after filtering, uV;
    None when it was not filtered. cut: None before the step that cuts windows.
    """

    original_sfreq: float
    channels: int
    amplitude: float | None = None
    cut: CutFacts | None = None

    def to_json(self) -> dict[str, object]:
        content: dict[str, object] = {
            "original_sfreq": self.original_sfreq,
            "amplitude": self.amplitude,
            "channels": self.channels,
        }
        return content if self.cut is None else content | vars(self.cut)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        cut = CutFacts(content["shortest"], content["total"]) if "shortest" in content else None
        return cls(content["original_sfreq"], content["channels"], content["amplitude"], cut)


@dataclass(frozen=True)
class Processed:
    """A recording after gates and filters, and what was measured on the way. filter, spectra: None when it was not filtered."""

    recording: Recording
    facts: Facts
    filter: FilterRecord | None = None
    spectra: Spectra | None = None

    @property
    def usable(self) -> bool:
        """Whether no gate keeps it out."""
        return not self.recording.quarantined


@dataclass(frozen=True)
class LeftOut:
    """A recording that a gate kept out, or that could not be read. facts: None when it was not read."""

    recording: str
    findings: tuple[Finding, ...]
    sources: tuple[SourceFile, ...] = ()
    facts: Facts | None = None

    @classmethod
    def of(cls, item: Recording | Unreadable, facts: Facts | None = None) -> Self:
        """What is kept of a recording that is left out."""
        findings = (item.finding,) if isinstance(item, Unreadable) else item.findings
        return cls(item.name, findings, item.sources, facts)

    @property
    def reasons(self) -> tuple[Finding, ...]:
        """Those of the findings that kept it out."""
        return tuple(finding for finding in self.findings if finding.quarantines)

    def to_json(self) -> dict[str, object]:
        content: dict[str, object] = {
            "recording": self.recording,
            "findings": [finding.to_json() for finding in self.findings],
            "sources": [source.to_json() for source in self.sources],
        }
        return content if self.facts is None else content | {"facts": self.facts.to_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            content["recording"],
            tuple(Finding.from_json(finding) for finding in content["findings"]),
            tuple(SourceFile.from_json(source) for source in content.get("sources", ())),
            Facts.from_json(content["facts"]) if "facts" in content else None,
        )


def natural_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts "2" before "10"."""
    return tuple((0, int(part)) if part.isdecimal() and len(part) < 20 else (1, part) for part in re.findall(r"\d+|\D+", text))


def path_part(text: str) -> str:
    """`text` as part of a zarr path. Different texts may become the same part: see `sources.naming`, which keeps them apart."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", plain_letters(text)).strip("-") or "0"


def plain_letters(text: str) -> str:
    """ASCII that reads like `text`: letters without their accents, and `u` with the code for letters of other alphabets."""
    if text.isascii():
        return text
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() else f"u{ord(letter):x}" if letter.isalnum() else "-" for letter in bare)
