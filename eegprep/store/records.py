"""What the metadata of a store says, as typed records: a recording of a corpus, a subject's group with its commit record, the root.

`to_json` gives the attributes that are written, `from_json` reads those of every version. C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from eegprep.recording import (
    Facts,
    FilterRecord,
    Finding,
    LeftOut,
    Processed,
    SourceFile,
    Spectra,
    band_from_json,
    positions_from_json,
    positions_to_json,
)
from eegprep.store.commit import Commit


@dataclass(frozen=True)
class FromRecording:
    """What is on record of a recording only when windows were cut from it; windows that came as arrays have none of this.

    n_samples: at the stored rate. pad_mode: how rows beyond the recording's channels were filled.
    stretched: (first sample, samples) of the windows that were shorter. offsets: uV taken off each channel. named: see `Recording`.
    """

    n_samples: int
    pad_mode: str
    positions_C3: np.ndarray
    segments: tuple[tuple[int, int], ...]
    reference: str
    line_freq: float | None
    person: str
    software: Mapping[str, str]
    stretched: tuple[tuple[int, int], ...] = ()
    offsets: tuple[float, ...] = ()
    header: Mapping[str, Any] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    filter: FilterRecord | None = None
    spectra: Spectra | None = None

    def to_json(self) -> dict[str, object]:
        content: dict[str, object] = {
            "n_samples": self.n_samples,
            "pad_mode": self.pad_mode,
            "positions": positions_to_json(self.positions_C3),
            "segments": [list(segment) for segment in self.segments],
            "reference": self.reference,
            "line_freq": self.line_freq,
            "person": self.person,
            "software": dict(self.software),
        }
        # fields that came later are written only when there is something in them: older groups keep their bytes
        if self.offsets:
            content["offsets"] = list(self.offsets)
        if self.header:
            content["header"] = dict(self.header)
        if self.named:
            content["named"] = list(self.named)
        if self.filter is not None:
            content["filter"] = self.filter.to_json()
        if self.spectra is not None:
            content["summary"] = self.spectra.to_json()
        if self.stretched:
            content["stretched"] = [list(piece) for piece in self.stretched]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            n_samples=content["n_samples"],
            pad_mode=content["pad_mode"],
            positions_C3=positions_from_json(content["positions"]),
            segments=tuple((first, last) for first, last in content["segments"]),
            reference=content["reference"],
            line_freq=content["line_freq"],
            person=content["person"],
            software=content["software"],
            stretched=tuple((first, samples) for first, samples in content.get("stretched", ())),
            offsets=tuple(content.get("offsets", ())),
            header=content.get("header", {}),
            named=tuple(content.get("named", ())),
            filter=FilterRecord.from_json(content["filter"]) if "filter" in content else None,
            spectra=Spectra.from_json(content["summary"]) if "summary" in content else None,
        )


@dataclass(frozen=True)
class CorpusRecording:
    """A recording of a corpus.

    sfreq, original_sfreq: Hz, as stored and as recorded. band: (low, high) Hz, None when nobody said.
    pad_map: source channel of each row of a window, -1 for none. windows: None until the subject is committed.
    """

    session: str
    run: str
    sfreq: float
    original_sfreq: float
    channels: tuple[str, ...]
    n_channels: int
    pad_map: tuple[int, ...]
    band: tuple[float, float] | None
    licence: str
    doi: str = ""
    sources: tuple[SourceFile, ...] = ()
    findings: tuple[Finding, ...] = ()
    windows: int | None = None
    made: FromRecording | None = None

    @classmethod
    def of(
        cls, item: Processed, pad_map: Sequence[int], pad_mode: str, stretched: Sequence[tuple[int, int]] = ()
    ) -> CorpusRecording:
        """What the corpus keeps of a recording that windows are cut from."""
        recording = item.recording
        made = FromRecording(
            n_samples=recording.signal_CT.shape[1],
            pad_mode=pad_mode,
            positions_C3=recording.positions_C3,
            segments=recording.segments,
            reference=recording.reference,
            line_freq=recording.line_freq,
            person=recording.person,
            software=recording.software,
            stretched=tuple(stretched),
            offsets=recording.offsets,
            header=recording.header,
            named=recording.named,
            filter=item.filter,
            spectra=item.spectra,
        )
        return cls(
            session=recording.session,
            run=recording.run,
            sfreq=recording.sfreq,
            original_sfreq=recording.original_sfreq,
            channels=recording.channels,
            n_channels=len(recording.channels),
            pad_map=tuple(pad_map),
            band=recording.band,
            licence=recording.licence,
            doi=recording.doi,
            sources=recording.sources,
            findings=recording.findings,
            made=made,
        )

    @property
    def name(self) -> str:
        """`session.run`."""
        return f"{self.session}.{self.run}"

    @property
    def seconds(self) -> float | None:
        """Length at the stored rate, s; None for windows that came as arrays."""
        return None if self.made is None else self.made.n_samples / self.sfreq

    def to_json(self) -> dict[str, object]:
        content: dict[str, object] = {
            "session": self.session,
            "run": self.run,
            "sfreq": self.sfreq,
            "original_sfreq": self.original_sfreq,
            "channels": list(self.channels),
            "n_channels": self.n_channels,
            "pad_map": list(self.pad_map),
            "band": None if self.band is None else list(self.band),
            "licence": self.licence,
            "doi": self.doi,
            "sources": [source.to_json() for source in self.sources],
            "findings": [finding.to_json() for finding in self.findings],
        }
        if self.windows is not None:
            content["windows"] = self.windows
        return content if self.made is None else content | self.made.to_json()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        channels = tuple(content.get("channels") or ())
        return cls(
            session=content.get("session", "0"),
            run=content.get("run", "0"),
            sfreq=content["sfreq"],
            # windows that came as arrays carry only what their owner knew
            original_sfreq=content.get("original_sfreq") or content["sfreq"],
            channels=channels,
            n_channels=content.get("n_channels") or len(channels),
            pad_map=tuple(content.get("pad_map") or ()),
            band=None if content.get("band") is None else band_from_json(content["band"]),
            licence=content.get("licence") or "unknown",
            doi=content.get("doi") or "",
            sources=tuple(SourceFile.from_json(source) for source in content.get("sources", ())),
            findings=tuple(Finding.from_json(finding) for finding in content.get("findings", ())),
            windows=content.get("windows"),
            made=FromRecording.from_json(content) if "segments" in content else None,
        )


@dataclass(frozen=True)
class SubjectGroup:
    """A subject's group in a corpus or a recordings store.

    recordings: of a corpus; in a recordings store each array has its own attributes. labels: of the windows, by code.
    left_out: recordings that a gate kept out. facts: of all recordings that were looked at, for the key.
    choices: see `Provenance`.
    """

    dataset: str
    subject: str
    person: str
    citation: str = ""
    recordings: tuple[CorpusRecording, ...] = ()
    labels: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    facts: tuple[Facts, ...] = ()
    commit: Commit | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`dataset/subject`."""
        return f"{self.dataset}/{self.subject}"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            dataset=content["dataset"],
            subject=content["subject"],
            person=content.get("person") or f"{content['dataset']}/{content['subject']}",
            citation=content.get("citation") or "",
            recordings=tuple(CorpusRecording.from_json(record) for record in content.get("recordings", ())),
            labels=tuple(content.get("labels", ())),
            left_out=tuple(LeftOut.from_json(record) for record in content.get("left_out", ())),
            facts=tuple(Facts.from_json(facts) for facts in content.get("facts", ())),
            commit=Commit.from_json(content["commit"], f"{content['dataset']}/{content['subject']}")
            if "commit" in content
            else None,
            choices=content.get("choices", {}),
        )


@dataclass(frozen=True)
class Provenance:
    """What a step says of a subject in the attributes of its group.

    choices: options that changed how its files were read, by name; written only where there are any.
    """

    person: str
    citation: str
    left_out: tuple[LeftOut, ...] = ()
    facts: tuple[Facts, ...] = ()
    choices: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return {
            **({"choices": dict(self.choices)} if self.choices else {}),
            "person": self.person,
            "citation": self.citation,
            "left_out": [record.to_json() for record in self.left_out],
            "facts": [facts.to_json() for facts in self.facts],
        }


@dataclass(frozen=True)
class LeftOutSubject:
    """A subject without one usable recording: it has no group, so the root keeps what was found.

    key: what it was looked at with; an equal key means that it need not be looked at again.
    """

    key: str
    facts: tuple[Facts, ...]
    recordings: tuple[LeftOut, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "key": self.key,
            "facts": [facts.to_json() for facts in self.facts],
            "recordings": [record.to_json() for record in self.recordings],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            content["key"],
            tuple(Facts.from_json(facts) for facts in content.get("facts", ())),
            tuple(LeftOut.from_json(record) for record in content.get("recordings", ())),
        )


def left_out_subjects(attributes: Mapping[str, Any]) -> dict[str, LeftOutSubject]:
    """By `dataset/subject`, from the attributes of a root."""
    return {name: LeftOutSubject.from_json(entry) for name, entry in attributes.get("left_out", {}).items()}
