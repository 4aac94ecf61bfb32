"""Gathers what a store holds: people, recordings, hours, licences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eegprep.catalogue import licences
from eegprep.catalogue import moabb as catalogue
from eegprep.errors import StoreError
from eegprep.store import format as store
from eegprep.store import recordings as recordings_store


@dataclass(frozen=True)
class Facts:
    """What the store says.

    recordings: records of what is in it, each with dataset, subject and person. left_out: the same of what is not.
    citations: text by data set, where a manifest gave one.
    """

    path: str
    root: Mapping[str, Any]
    recordings: tuple[Mapping[str, Any], ...]
    left_out: tuple[Mapping[str, Any], ...]
    citations: Mapping[str, str] = field(default_factory=dict)

    @property
    def datasets(self) -> list[str]:
        """Names, the one with most windows (in a recordings store, most recordings) first."""
        weight: Counter[str] = Counter()
        for record in self.recordings:
            weight[record["dataset"]] += record.get("windows", 1)
        for record in self.left_out:
            weight[record["dataset"]] += 0
        return [name for name, _ in sorted(weight.items(), key=lambda item: (-item[1], item[0]))]

    def of(self, dataset: str) -> list[Mapping[str, Any]]:
        """Records of one data set."""
        return [record for record in self.recordings if record["dataset"] == dataset]


def gather(root: Path) -> Facts:
    """Read the records of a store."""
    node = store.read_node(root / "zarr.json").get("attributes", {})
    if node.get("format") not in (store.FORMAT, recordings_store.FORMAT):
        raise StoreError(
            f"{root}: holds {node.get('format')!r}, which is no store of ours", "give a corpus or a recordings store"
        )
    recordings: list[Mapping[str, Any]] = []
    left_out: list[Mapping[str, Any]] = []
    citations: dict[str, str] = {}
    for dataset, subject in recordings_store.subjects(root):
        attributes = recordings_store.group_attributes(root, dataset, subject)
        who = {"dataset": dataset, "subject": subject, "person": attributes.get("person") or f"{dataset}/{subject}"}
        recordings += [record | who for record in _records(root, dataset, subject, attributes)]
        left_out += [record | who for record in attributes.get("left_out", [])]
        if attributes.get("citation"):
            citations[dataset] = attributes["citation"]
    for key, entry in node.get("left_out", {}).items():  # subjects without one usable recording have no group
        dataset, _, subject = key.partition("/")
        who = {"dataset": dataset, "subject": subject, "person": catalogue.person_of(dataset, subject)}
        facts = entry.get("facts") or []
        for number, record in enumerate(entry.get("recordings", [])):
            left_out.append({"facts": facts[number]} | record | who if number < len(facts) else record | who)
    return Facts(str(root), node, tuple(recordings), tuple(left_out), citations)


def _records(root: Path, dataset: str, subject: str, attributes: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    if "recordings" in attributes:
        yield from attributes["recordings"]
        return
    for name in recordings_store.array_names(root, dataset, subject):
        node = store.read_node(root / dataset / subject / name / "zarr.json")
        session, _, run = name.partition(".")
        yield {**node["attributes"], "session": session, "run": run, "n_samples": node["shape"][1]}


# -- small things -----------------------------------------------------------------------------------------------------------


def _known(name: str) -> catalogue.Entry | None:
    """The catalogue's entry for a data set that is named like one of MOABB's classes."""
    return next((entry for entry in catalogue.entries() if entry.name == name), None)


def _licence(record: Mapping[str, Any]) -> str:
    return record.get("licence") or licences.UNKNOWN_LICENCE


def _licence_names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({_licence(record) for record in records})


def _n_channels(record: Mapping[str, Any]) -> int:
    return int(record.get("n_channels") or len(record["channels"]))


def _hours(records: Iterable[Mapping[str, Any]]) -> float:
    return sum((record.get("n_samples") or 0) / record["sfreq"] for record in records) / 3600


def _counts(values: Iterable[float]) -> str:
    """`64`, or `62 (150), 64 (225)` where they differ."""
    counted = sorted(Counter(values).items())
    if len(counted) == 1:
        return f"{counted[0][0]:g}"
    return ", ".join(f"{value:g} ({times})" for value, times in counted)


def _sum_by(records: Iterable[Mapping[str, Any]], key: str, value: str) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for record in records:
        found[record[key]] += record.get(value, 0)
    return found


def _datasets_of_people(records: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        found[record["person"]].add(record["dataset"])
    return found
