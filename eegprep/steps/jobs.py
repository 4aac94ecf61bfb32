"""One subject of one step: what it is made of, how it is known to be done, and the doing. Jobs travel to worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from eegprep.provenance import fingerprint
from eegprep.recording import Recording, SourceFile, Unreadable
from eegprep.signals import filters
from eegprep.signals.recipe import ALGORITHM, Recipe
from eegprep.sources import reading as sources
from eegprep.sources.listing import Task
from eegprep.steps.plan import store_memory, task_memory
from eegprep.steps.subject import cut_subject, quarantine_record, run_subject
from eegprep.store import recordings as recordings_store
from eegprep.store import writer as store_writer

# settings that `filter` uses; the others are those of `pad`
FILTER_SETTINGS = ("low", "high", "nyquist", "resample", "notch", "min_channels", "min_uv", "max_uv")


@dataclass(frozen=True)
class Outcome:
    """What became of one subject.

    left_out: quarantined recordings, with their findings. key: what it was made of. facts: see `process.Processed`.
    """

    name: str
    windows: int = 0
    recordings: int = 0
    left_out: tuple[dict[str, Any], ...] = ()
    findings: tuple[dict[str, Any], ...] = ()
    done_before: bool = False
    key: str = ""
    facts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class SubjectJob:
    """What all jobs share: a task, where it goes, and how it is known to be done."""

    root: str
    dataset: str
    subject: str
    recipe: Recipe | None
    files: tuple[SourceFile, ...]
    pad: ClassVar[bool] = True  # whether the step cuts windows

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.subject}"

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def memory(self) -> int:
        """Bytes that a worker needs at its peak, estimated."""
        return 0

    def stored(self) -> dict[str, Any]:
        """Attributes of the subject's group, empty when it is not there."""
        return recordings_store.group_attributes(Path(self.root), self.dataset, self.subject)

    def made_from(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the subject's numbers depend on: files, and the settings that touch these recordings."""
        return {
            "algorithm": ALGORITHM,
            "files": sorted([file.name, file.bytes, file.sha256] for file in self.files),
            "recipe": None if self.recipe is None else relevant_settings(self.recipe, facts, pad=self.pad),
            **self.inputs(),
        }

    def inputs(self) -> dict[str, Any]:
        """What else they depend on."""
        return {}

    def run(self) -> Outcome:
        raise NotImplementedError

    def key(self, facts: Sequence[Mapping[str, Any]]) -> str:
        """Fingerprint of `made_from`: equal key, nothing to do."""
        return fingerprint(self.made_from(facts))

    def outcome(
        self,
        windows: int,
        good: Sequence[Mapping[str, Any]],
        left_out: Sequence[dict[str, Any]],
        facts: Sequence[dict[str, Any]] = (),
    ) -> Outcome:
        """What came of it."""
        findings = [finding for record in (*good, *left_out) for finding in record["findings"]]
        key = self.key(facts)
        return Outcome(self.name, windows, len(good), tuple(left_out), tuple(findings), key=key, facts=tuple(facts))


@dataclass(frozen=True)
class FetchJob(SubjectJob):
    """Source files into the recordings store."""

    task: Task

    @property
    def memory(self) -> int:
        return task_memory(self.task)

    def inputs(self) -> dict[str, Any]:
        return source_inputs(self.task)

    def run(self) -> Outcome:
        good: list[dict[str, Any]] = []
        left_out: list[dict[str, Any]] = []
        with recordings_store.RecordingsWriter(Path(self.root), self.dataset, self.subject) as writer:
            for item in sources.read_task(self.task):
                if isinstance(item, Unreadable):
                    left_out.append(quarantine_record(item))
                else:
                    writer.add(item)
                    good.append({"findings": [vars(finding) for finding in item.findings]})
            if good:
                writer.commit(self.key([]), {**about(self.task), "left_out": left_out, "facts": []})
        return self.outcome(0, good, left_out)


@dataclass(frozen=True)
class StoredJob(SubjectJob):
    """A job on a subject of a recordings store. names: its recordings, in order; carried: attributes of its group."""

    source: str
    names: tuple[str, ...]
    carried: dict[str, Any]

    @property
    def memory(self) -> int:
        return store_memory(Path(self.source) / self.dataset / self.subject)

    @property
    def about(self) -> dict[str, str]:
        """Who it is and what to cite, as the step before wrote it."""
        return {name: self.carried.get(name, "") for name in ("person", "citation")}


StoredJobT = TypeVar("StoredJobT", bound=StoredJob)


@dataclass(frozen=True)
class FilterJob(StoredJob):
    """One recordings store into another."""

    pad: ClassVar[bool] = False

    def run(self) -> Outcome:
        assert self.recipe is not None
        good: list[dict[str, Any]] = []
        left_out: list[dict[str, Any]] = list(self.carried.get("left_out", []))
        facts = []
        items = recordings_store.iterate(Path(self.source), self.dataset, self.subject, self.names)
        with recordings_store.RecordingsWriter(Path(self.root), self.dataset, self.subject) as writer:
            for processed in run_subject(items, self.recipe, left_out):
                writer.add(processed.recording, processed.extra, processed.facts)
                facts.append(processed.facts)
                good.append({"findings": [vars(finding) for finding in processed.recording.findings]})
            facts += [record["facts"] for record in left_out if "facts" in record]
            if good:
                attributes = {**self.about, "left_out": left_out, "facts": facts}
                writer.commit(self.key(facts), attributes)
        return self.outcome(0, good, left_out, facts)


@dataclass(frozen=True)
class PadJob(StoredJob):
    """A filtered recordings store into the corpus."""

    def run(self) -> Outcome:
        assert self.recipe is not None
        left_out: list[dict[str, Any]] = list(self.carried.get("left_out", []))
        items = recordings_store.iterate_processed(Path(self.source), self.dataset, self.subject, self.names)
        return _write_corpus(self, items, self.about, self.recipe, left_out)


@dataclass(frozen=True)
class BuildJob(SubjectJob):
    """Source files into the corpus, with nothing in between on disk."""

    task: Task

    @property
    def memory(self) -> int:
        return task_memory(self.task)

    def inputs(self) -> dict[str, Any]:
        return source_inputs(self.task)

    def run(self) -> Outcome:
        assert self.recipe is not None
        left_out: list[dict[str, Any]] = []
        items = run_subject(sources.read_task(self.task), self.recipe, left_out)
        return _write_corpus(self, items, about(self.task), self.recipe, left_out)


@dataclass(frozen=True)
class RawJob(SubjectJob):
    """Recordings that are in memory into the corpus."""

    recordings: tuple[Recording, ...]

    def run(self) -> Outcome:
        assert self.recipe is not None
        left_out: list[dict[str, Any]] = []
        items = run_subject(self.recordings, self.recipe, left_out)
        about_raw = {"person": f"{self.dataset}/{self.subject}", "citation": ""}
        return _write_corpus(self, items, about_raw, self.recipe, left_out)


def about(task: Task) -> dict[str, str]:
    """Who a subject is, and what to cite for it, where the manifest says so."""
    return {"person": task.person, "citation": task.source.citation}


def source_inputs(task: Task) -> dict[str, Any]:
    source = task.source
    return {
        "source": source.kind if source.kind != "moabb" else source.spec,
        "options": source.options,
        "pattern": source.pattern,
        "person": task.person,
        "licence": source.licence,
        "doi": source.doi,
        "citation": source.citation,
        "private": task.keep_private,
    }


def _write_corpus(
    job: SubjectJob, items: Iterable[Any], who: Mapping[str, str], recipe: Recipe, left_out: list[dict[str, Any]]
) -> Outcome:
    root = Path(job.root)
    with store_writer.SubjectWriter(root, job.dataset, job.subject, channels=recipe.channels, samples=recipe.window) as writer:
        facts = cut_subject(items, recipe, writer, left_out)
        facts += [record["facts"] for record in left_out if "facts" in record]
        if writer.windows:
            writer.commit(job.key(facts), {**who, "left_out": left_out, "facts": facts})
        return job.outcome(writer.windows, writer.recordings, left_out, facts)


def relevant_settings(recipe: Recipe, facts: Sequence[Mapping[str, Any]], *, pad: bool = True) -> dict[str, Any]:
    """The settings that touch these recordings, so that changing another one does not rebuild them.

    Args:
        facts: of each recording, see `process.Processed`.
        pad: whether windows are cut, or recordings only filtered.
    """
    settings = recipe.model_dump(mode="json")
    if not pad:
        settings = {key: settings[key] for key in FILTER_SETTINGS}
    rates = [min(fact["original_sfreq"], recipe.resample or fact["original_sfreq"]) for fact in facts]
    if all(filters.fits(rate, recipe.high) for rate in rates):
        settings.pop("nyquist")
    least, low, high = (settings.pop(key) for key in ("min_channels", "min_uv", "max_uv"))
    settings["gates"] = [
        [fact["channels"] >= least, None if fact["amplitude"] is None else low <= fact["amplitude"] <= high] for fact in facts
    ]
    if pad:
        _drop_idle_pad_settings(settings, recipe, facts)
    return settings


def _drop_idle_pad_settings(settings: dict[str, Any], recipe: Recipe, facts: Sequence[Mapping[str, Any]]) -> None:
    cut = [fact for fact in facts if "shortest" in fact]
    if recipe.windows == "sliding" and all(fact["shortest"] >= recipe.window for fact in cut):
        settings.pop("short")
    if all(fact["channels"] >= recipe.channels for fact in cut) and recipe.mode != "spline":
        settings.pop("mode")
    capped = recipe.max_per_subject is not None and sum(fact["total"] for fact in cut) > recipe.max_per_subject
    if not capped:
        settings.pop("max_per_subject")
    if not capped and all(fact["channels"] <= recipe.channels for fact in cut):
        settings.pop("seed")


def done_before(job: SubjectJob, before: Mapping[str, Any] | None = None) -> Outcome | None:
    """The outcome of an earlier run, when it was made of the same files with the same settings."""
    stored = job.stored()
    if "commit" not in stored:
        entry = (before or {}).get(job.name)
        if entry is None or entry["key"] != job.key(entry["facts"]):
            return None
        findings = [finding for record in entry["recordings"] for finding in record["findings"]]
        return Outcome(job.name, 0, 0, tuple(entry["recordings"]), tuple(findings), True, entry["key"], tuple(entry["facts"]))
    key = stored["commit"].get("key")
    if key != job.key(stored.get("facts", [])):
        return None
    left_out = stored.get("left_out", [])
    good = stored.get("recordings", [])
    findings = [finding for record in (*good, *left_out) for finding in record.get("findings", [])]
    recordings = len(good) or len(recordings_store.array_names(Path(job.root), job.dataset, job.subject))
    windows = stored["commit"].get("windows", 0)
    return Outcome(job.name, windows, recordings, tuple(left_out), tuple(findings), True, key)
