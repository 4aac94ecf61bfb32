"""One subject of one step: what it is made of, how it is known to be done, and the doing. Jobs travel to worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from eegprep.provenance import fingerprint, plain_json
from eegprep.readers.content import Reading
from eegprep.recording import Facts, Finding, LeftOut, Processed, Recording, SourceFile, Unreadable
from eegprep.signals import filters
from eegprep.signals.recipe import ALGORITHM, Recipe
from eegprep.sources import reading as sources
from eegprep.sources.listing import Task
from eegprep.steps.plan import store_memory, task_memory
from eegprep.steps.subject import cut_subject, run_subject
from eegprep.store import recordings as recordings_store
from eegprep.store.checks import whole_group
from eegprep.store.commit import StoredFile
from eegprep.store.records import LeftOutSubject, Provenance, SubjectGroup
from eegprep.store.writer import SubjectWriter

# settings that `filter` uses; the others are those of `pad`
FILTER_SETTINGS = (
    "low",
    "high",
    "nyquist",
    "resample",
    "notch",
    "min_channels",
    "min_uv",
    "max_uv",
    "max_channels",
    "select_channels",
)


@dataclass(frozen=True)
class Outcome:
    """What became of one subject.

    left_out: quarantined recordings, with their findings. key: what it was made of. facts: of all that were looked at.
    """

    name: str
    windows: int = 0
    recordings: int = 0
    left_out: tuple[LeftOut, ...] = ()
    findings: tuple[Finding, ...] = ()
    done_before: bool = False
    key: str = ""
    facts: tuple[Facts, ...] = ()


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

    def stored(self, finished: StoredFile | None = None, known: Mapping[str, Any] | None = None) -> SubjectGroup | None:
        """The subject's group; None when it is not there, or not whole, or not what the store was finished with.

        Args:
            finished, known: what the root says of its metadata, see `whole_group`.
        """
        attributes = whole_group(Path(self.root) / self.name, finished, known)
        place = {"dataset": self.dataset, "subject": self.subject}
        return SubjectGroup.from_json({**place, **attributes}) if attributes else None

    def made_from(self, facts: Sequence[Facts]) -> dict[str, object]:
        """What the subject's numbers depend on: files, and the settings that touch these recordings."""
        return {
            "algorithm": ALGORITHM,
            # sorted: file systems list folders in different orders
            "files": sorted([file.name, file.bytes, file.sha256] for file in self.files),
            "recipe": None if self.recipe is None else relevant_settings(self.recipe, facts, pad=self.pad),
            **self.inputs(),
        }

    def inputs(self) -> dict[str, object]:
        """What else they depend on."""
        return {}

    def choices(self) -> dict[str, Any]:
        """See `Provenance`."""
        return {}

    def run(self) -> Outcome:
        raise NotImplementedError

    def key(self, facts: Sequence[Facts]) -> str:
        """Fingerprint of `made_from`: equal key, nothing to do."""
        return fingerprint(self.made_from(facts))

    def outcome(
        self, windows: int, good: Sequence[tuple[Finding, ...]], left_out: Sequence[LeftOut], facts: Sequence[Facts] = ()
    ) -> Outcome:
        """What came of it. good: the findings of each recording that was used."""
        findings = [*chain.from_iterable(good), *chain.from_iterable(record.findings for record in left_out)]
        return Outcome(self.name, windows, len(good), tuple(left_out), tuple(findings), key=self.key(facts), facts=tuple(facts))


@dataclass(frozen=True)
class SourceJob(SubjectJob):
    """A job on source files. task: which, and how they are read."""

    task: Task

    @property
    def memory(self) -> int:
        return task_memory(self.task)

    def inputs(self) -> dict[str, object]:
        return source_inputs(self.task)

    def choices(self) -> dict[str, Any]:
        return choices(self.task)


@dataclass(frozen=True)
class FetchJob(SourceJob):
    """Source files into the recordings store."""

    def run(self) -> Outcome:
        good: list[tuple[Finding, ...]] = []
        left_out: list[LeftOut] = []
        with recordings_store.RecordingsWriter(Path(self.root), self.dataset, self.subject) as writer:
            for item in sources.read_task(self.task):
                if isinstance(item, Unreadable):
                    left_out.append(LeftOut.of(item))
                else:
                    writer.add(item)
                    good.append(item.findings)
            if good:
                # no facts: fetching depends on no setting of the recipe
                writer.commit(self.key([]), replace(about(self.task), left_out=tuple(left_out)))
        return self.outcome(0, good, left_out)


@dataclass(frozen=True)
class StoredJob(SubjectJob):
    """A job on a subject of a recordings store. names: its recordings, in order; carried: its group there."""

    source: str
    names: tuple[str, ...]
    carried: SubjectGroup

    @property
    def memory(self) -> int:
        return store_memory(Path(self.source) / self.dataset / self.subject)

    @property
    def about(self) -> Provenance:
        """Who it is and what to cite, as the step before wrote it."""
        return Provenance(self.carried.person, self.carried.citation)


StoredJobT = TypeVar("StoredJobT", bound=StoredJob)


@dataclass(frozen=True)
class FilterJob(StoredJob):
    """One recordings store into another."""

    pad: ClassVar[bool] = False

    def run(self) -> Outcome:
        assert self.recipe is not None
        good: list[tuple[Finding, ...]] = []
        left_out = list(self.carried.left_out)
        facts: list[Facts] = []
        items = recordings_store.iterate(Path(self.source), self.dataset, self.subject, self.names)
        with recordings_store.RecordingsWriter(Path(self.root), self.dataset, self.subject) as writer:
            for processed in run_subject(items, self.recipe, left_out):
                writer.add(processed)
                facts.append(processed.facts)
                good.append(processed.recording.findings)
            facts += [record.facts for record in left_out if record.facts is not None]
            if good:
                writer.commit(self.key(facts), replace(self.about, left_out=tuple(left_out), facts=tuple(facts)))
        return self.outcome(0, good, left_out, facts)


@dataclass(frozen=True)
class PadJob(StoredJob):
    """A filtered recordings store into the corpus."""

    def run(self) -> Outcome:
        assert self.recipe is not None
        left_out = list(self.carried.left_out)
        items = recordings_store.iterate_processed(Path(self.source), self.dataset, self.subject, self.names)
        return _write_corpus(self, items, self.about, self.recipe, left_out)


@dataclass(frozen=True)
class BuildJob(SourceJob):
    """Source files into the corpus, with nothing in between on disk."""

    def run(self) -> Outcome:
        assert self.recipe is not None
        left_out: list[LeftOut] = []
        items = run_subject(sources.read_task(self.task), self.recipe, left_out)
        return _write_corpus(self, items, about(self.task), self.recipe, left_out)


@dataclass(frozen=True)
class RawJob(SubjectJob):
    """Recordings that are in memory into the corpus."""

    recordings: tuple[Recording, ...]

    def inputs(self) -> dict[str, Any]:
        """Seams and trials, which are no part of the signal whose hash stands for a file."""
        cut = [item.segments for item in self.recordings if len(item.segments) != 1]
        return {"segments": cut} if cut else {}

    def run(self) -> Outcome:
        assert self.recipe is not None
        left_out: list[LeftOut] = []
        items = run_subject(self.recordings, self.recipe, left_out)
        return _write_corpus(self, items, Provenance(self.name, ""), self.recipe, left_out)


def about(task: Task) -> Provenance:
    """Who a subject is, and what to cite for it, where the manifest says so."""
    return Provenance(task.person, task.source.citation, choices=choices(task))


def choices(task: Task) -> dict[str, Any]:
    """The options that change how its files are read and that differ from their defaults, as JSON values by name."""
    source, usual = task.source, Reading()
    given = {key: value for key, value in vars(source.reading).items() if value != getattr(usual, key)}
    given |= {"scale": source.scale} if source.scale is not None else {}
    given |= {key: getattr(source, key) for key in ("subject_pattern", "session_pattern") if getattr(source, key)}
    given |= {"options": dict(source.options)} if source.options else {}
    given |= {"keep_private": True} if task.keep_private else {}
    return dict(sorted(plain_json(given).items()))


def source_inputs(task: Task) -> dict[str, object]:
    source = task.source
    given = [
        [listed.main, listed.session, listed.run]
        for listed in task.recordings
        if source.subject_pattern or source.session_pattern or (listed.named and listed.named.rule == "participants")
    ]
    problems = [[listed.main, listed.problem.problem] for listed in task.recordings if listed.problem is not None]
    return {
        # the folder is left out, so that a copy of the files elsewhere gives the same key
        "source": source.kind if source.kind in ("files", "bids") else source.spec,
        "options": source.options,
        "pattern": source.pattern,
        "person": task.person,
        "licence": source.licence,
        "doi": source.doi,
        "citation": source.citation,
        "private": task.keep_private,
        # settings of 0.2 enter only when used: subjects of 0.1.0 keep their keys and are not built again
        **({"scale": source.scale} if source.scale is not None else {}),
        **({"reading": vars(source.reading)} if source.reading != Reading() else {}),
        **({"problems": problems} if problems else {}),
        **({"names": given} if given else {}),
    }


def _write_corpus(
    job: SubjectJob, items: Iterable[Processed], about: Provenance, recipe: Recipe, left_out: list[LeftOut]
) -> Outcome:
    root = Path(job.root)
    with SubjectWriter(root, job.dataset, job.subject, channels=recipe.channels, samples=recipe.window) as writer:
        good, facts = cut_subject(items, recipe, writer, left_out)
        facts += [record.facts for record in left_out if record.facts is not None]
        # a subject without windows gets no group; the root says why it is missing
        if writer.windows:
            writer.commit(job.key(facts), replace(about, left_out=tuple(left_out), facts=tuple(facts)).to_json())
        return job.outcome(writer.windows, good, left_out, facts)


def relevant_settings(recipe: Recipe, facts: Sequence[Facts], *, pad: bool = True) -> dict[str, Any]:
    """The settings that touch these recordings, so that changing another one does not rebuild them.

    Args:
        facts: of each recording that was looked at.
        pad: whether windows are cut, or recordings only filtered.
    """
    settings = recipe.model_dump(mode="json")
    if not pad:
        settings = {key: settings[key] for key in FILTER_SETTINGS if key in settings}
    # a policy matters only where some rate does not fit; a limit matters only by what it decided
    rates = [min(fact.original_sfreq, recipe.resample or fact.original_sfreq) for fact in facts]
    if all(filters.fits(rate, recipe.high) for rate in rates):
        settings.pop("nyquist")
    least, low, high = (settings.pop(key) for key in ("min_channels", "min_uv", "max_uv"))
    most = settings.pop("max_channels", None)
    settings["gates"] = [
        [least <= fact.channels <= (most or fact.channels), None if fact.amplitude is None else low <= fact.amplitude <= high]
        for fact in facts
    ]
    if pad:
        _drop_idle_pad_settings(settings, recipe, facts)
    return settings


def _drop_idle_pad_settings(settings: dict[str, Any], recipe: Recipe, facts: Sequence[Facts]) -> None:
    # recordings that a gate kept out before the cut have no say in how windows are cut
    cut = [(fact.channels, fact.cut) for fact in facts if fact.cut is not None]
    if recipe.windows == "trials":
        settings["labels"] = "every window"  # 0.1.0 gave none to windows longer than their trial
    if recipe.windows == "sliding" and all(cut_facts.shortest >= recipe.window for _, cut_facts in cut):
        settings.pop("short")
    if all(channels >= recipe.channels for channels, _ in cut) and recipe.mode != "spline":
        settings.pop("mode")
    capped = recipe.max_per_subject is not None and sum(cut_facts.total for _, cut_facts in cut) > recipe.max_per_subject
    if not capped:
        settings.pop("max_per_subject")
        settings.pop("seed")
    if recipe.mode != "spline" and any(channels > recipe.channels for channels, _ in cut):
        settings["more_channels"] = "spread over the head"  # 0.1.0 took a seeded block of each recording


def done_before(
    job: SubjectJob,
    before: Mapping[str, LeftOutSubject] | None = None,
    finished: Mapping[str, StoredFile] | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outcome | None:
    """The outcome of an earlier run, when it was made of the same files with the same settings, and its files are there.

    Args:
        before: subjects without a usable recording, as the root has them. finished: what the root says of the groups' metadata.
        known: the groups' attributes as the root repeats them.
    """
    group = job.stored((finished or {}).get(f"{job.name}/zarr.json"), (known or {}).get(job.name))
    if group is None or group.commit is None:
        # nothing usable was found last time: no group, but the root knows what was looked at
        entry = (before or {}).get(job.name)
        if entry is None or entry.key != job.key(entry.facts):
            return None
        findings = tuple(chain.from_iterable(record.findings for record in entry.recordings))
        return Outcome(job.name, 0, 0, entry.recordings, findings, True, entry.key, entry.facts)
    if group.commit.key != job.key(group.facts):
        return None
    used, left_out = (
        (finding for record in records for finding in record.findings) for records in (group.recordings, group.left_out)
    )
    recordings = len(group.recordings) or len(recordings_store.array_names(Path(job.root), job.dataset, job.subject))
    return Outcome(job.name, group.commit.windows or 0, recordings, group.left_out, (*used, *left_out), True, group.commit.key)
