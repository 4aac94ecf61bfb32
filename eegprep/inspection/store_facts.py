"""Reads what a store says of itself: every recording in it and every one that was left out, from the records that the steps wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eegprep.catalogue import moabb as catalogue
from eegprep.errors import StoreError
from eegprep.recording import LeftOut, natural_key
from eegprep.store import format as store
from eegprep.store import recordings as recordings_store
from eegprep.store.commit import read_node, read_root
from eegprep.store.records import CorpusRecording, SubjectGroup, left_out_subjects


@dataclass(frozen=True)
class Listed:
    """A recording of a store, and whose it is."""

    dataset: str
    subject: str
    person: str
    record: CorpusRecording

    @property
    def windows(self) -> int:
        """0 in a recordings store."""
        return self.record.windows or 0

    @property
    def hours(self) -> float:
        return (self.record.seconds or 0.0) / 3600


@dataclass(frozen=True)
class ListedOut:
    """A recording that was left out, and whose it is."""

    dataset: str
    subject: str
    person: str
    record: LeftOut


@dataclass(frozen=True)
class StoreFacts:
    """What the store says.

    root: attributes of the root. citations: text by data set, where a manifest gave one.
    """

    path: str
    root: Mapping[str, Any]
    recordings: tuple[Listed, ...]
    left_out: tuple[ListedOut, ...]
    citations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_corpus(self) -> bool:
        """Whether it holds windows."""
        return bool(self.root.get("format") in (store.FORMAT, store.VIEW_FORMAT))

    @property
    def datasets(self) -> list[str]:
        """Names, the one with most windows (in a recordings store, most recordings) first."""
        weight: Counter[str] = Counter()
        for listed in self.recordings:
            weight[listed.dataset] += 1 if listed.record.windows is None else listed.record.windows
        for lost in self.left_out:
            weight[lost.dataset] += 0
        return [name for name, _ in sorted(weight.items(), key=lambda item: (-item[1], item[0]))]

    def of(self, dataset: str) -> list[Listed]:
        """Recordings of one data set."""
        return [listed for listed in self.recordings if listed.dataset == dataset]


def gather(root: Path) -> StoreFacts:
    """Read the records of a corpus or a recordings store.

    Raises:
        StoreError: there is no store at `root`.
    """
    node = read_root(root)["attributes"]
    if node.get("format") not in (store.FORMAT, store.VIEW_FORMAT, recordings_store.FORMAT):
        raise StoreError(
            f"{root}: holds {node.get('format')!r}, which is not a store of this software", "give a corpus or a recordings store"
        )
    recordings: list[Listed] = []
    left_out: list[ListedOut] = []
    citations: dict[str, str] = {}
    for dataset, subject in recordings_store.subjects(root):
        group = recordings_store.read_group(root, dataset, subject)
        if group is None:
            continue
        records = _records(root, group) if node["format"] == recordings_store.FORMAT else group.recordings
        recordings += [Listed(dataset, subject, group.person, record) for record in records]
        left_out += [ListedOut(dataset, subject, group.person, record) for record in group.left_out]
        if group.citation:
            citations[dataset] = group.citation
    for key, entry in left_out_subjects(node).items():  # subjects without one usable recording have no group
        dataset, _, subject = key.partition("/")
        person = catalogue.person_of(dataset, subject)
        for number, record in enumerate(entry.recordings):
            known = record.facts or (entry.facts[number] if number < len(entry.facts) else None)
            left_out.append(ListedOut(dataset, subject, person, replace(record, facts=known)))
    return StoreFacts(str(root), node, tuple(recordings), tuple(left_out), citations)


def _records(root: Path, group: SubjectGroup) -> Iterator[CorpusRecording]:
    """Of a recordings store: each array has its own attributes."""
    for name in sorted(recordings_store.array_names(root, group.dataset, group.subject), key=natural_key):
        node = read_node(root / group.dataset / group.subject / name / "zarr.json")
        session, _, run = name.partition(".")
        place = {"session": session, "run": run, "n_samples": node["shape"][1], "pad_mode": ""}
        yield CorpusRecording.from_json({**node["attributes"], **node["attributes"].get("extra", {}), **place})
