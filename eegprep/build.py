"""`fetch`, `filter`, `pad`, and `build`, which is all three in one pass: plan, skip what is done, work, finish.

A job is one subject: read or written as a whole, by one worker, under a key that says what it was made of. Running the same
command again does what is missing; changing a setting does again what that setting touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from . import fetch as downloads
from . import filters, manifests, recordings_store, sources, store
from .errors import SourceError, StoreError, ToolkitError
from .pool import Budget, run_jobs, store_lock
from .process import cut_subject, quarantine_record, run_subject
from .recipe import ALGORITHM, Recipe, make_recipe, recipe_fingerprint
from .recording import Finding, ProgressCallback, SourceFile
from .settings import fingerprint
from .sources import Task, Unreadable


@dataclass(frozen=True)
class Outcome:
    """What became of one subject. left_out: quarantined recordings, with their findings."""

    name: str
    windows: int = 0
    recordings: int = 0
    left_out: tuple[dict[str, Any], ...] = ()
    findings: tuple[dict[str, Any], ...] = ()
    done_before: bool = False
    made_from: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """What a step did. `exit_code` is 3 when recordings were quarantined."""

    out: Path
    subjects: int
    built: int
    recordings: int
    windows: int
    findings: tuple[Finding, ...]
    quarantined: tuple[str, ...]

    @property
    def skipped(self) -> int:
        """Subjects that were there already."""
        return self.subjects - self.built

    @property
    def exit_code(self) -> int:
        return 3 if self.quarantined else 0

    @property
    def text(self) -> str:
        """One line for people."""
        parts = [f"{self.out}: {self.subjects} subjects ({self.skipped} were there already), {self.recordings} recordings"]
        if self.windows:
            parts.append(f"{self.windows:,} windows")
        if self.quarantined:
            parts.append(f"{len(self.quarantined)} recordings quarantined")
        return ", ".join(parts)


@dataclass(frozen=True)
class _SubjectJob:
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

    def _outcome(
        self, windows: int, good: Sequence[Mapping[str, Any]], left_out: Sequence[dict[str, Any]], made_from: dict[str, Any]
    ) -> Outcome:
        findings = [finding for record in (*good, *left_out) for finding in record["findings"]]
        return Outcome(self.name, windows, len(good), tuple(left_out), tuple(findings), made_from=made_from)


@dataclass(frozen=True)
class FetchJob(_SubjectJob):
    """Source files into the recordings store."""

    task: Task

    def inputs(self) -> dict[str, Any]:
        return _source_inputs(self.task)

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
            made_from = self.made_from([])
            if good:
                writer.commit(fingerprint(made_from), {"person": self.task.person, "left_out": left_out, "facts": []})
        return self._outcome(0, good, left_out, made_from)


@dataclass(frozen=True)
class FilterJob(_SubjectJob):
    """One recordings store into another."""

    source: str
    names: tuple[str, ...]
    carried: dict[str, Any]
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
            made_from = self.made_from(facts)
            if good:
                attributes = {"person": self.carried.get("person", ""), "left_out": left_out, "facts": facts}
                writer.commit(fingerprint(made_from), attributes)
        return self._outcome(0, good, left_out, made_from)


@dataclass(frozen=True)
class PadJob(_SubjectJob):
    """A filtered recordings store into the corpus."""

    source: str
    names: tuple[str, ...]
    carried: dict[str, Any]

    def run(self) -> Outcome:
        assert self.recipe is not None
        left_out: list[dict[str, Any]] = list(self.carried.get("left_out", []))
        items = recordings_store.iterate_processed(Path(self.source), self.dataset, self.subject, self.names)
        return _write_corpus(self, items, self.carried.get("person", ""), self.recipe, left_out)


@dataclass(frozen=True)
class BuildJob(_SubjectJob):
    """Source files into the corpus, with nothing in between on disk."""

    task: Task

    def inputs(self) -> dict[str, Any]:
        return _source_inputs(self.task)

    def run(self) -> Outcome:
        assert self.recipe is not None
        left_out: list[dict[str, Any]] = []
        items = run_subject(sources.read_task(self.task), self.recipe, left_out)
        return _write_corpus(self, items, self.task.person, self.recipe, left_out)


def _source_inputs(task: Task) -> dict[str, Any]:
    source = task.source
    return {
        "source": source.kind if source.kind != "moabb" else source.spec,
        "options": source.options,
        "pattern": source.pattern,
        "person": task.person,
        "licence": source.licence,
        "doi": source.doi,
        "private": task.keep_private,
    }


def _write_corpus(job: _SubjectJob, items: Iterable[Any], person: str, recipe: Recipe, left_out: list[dict[str, Any]]) -> Outcome:
    root = Path(job.root)
    with store.SubjectWriter(root, job.dataset, job.subject, channels=recipe.channels, samples=recipe.window) as writer:
        facts = cut_subject(items, recipe, writer, left_out)
        facts += [record["facts"] for record in left_out if "facts" in record]
        made_from = job.made_from(facts)
        if writer.windows:
            writer.commit(fingerprint(made_from), {"person": person, "left_out": left_out, "facts": facts})
        return job._outcome(writer.windows, writer.recordings, left_out, made_from)


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


# ------------------------------------------------------------------------------------------------------------ the steps


def fetch(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    subjects: str | None = None,
    data_dir: str | Path | None = None,
    accept: Sequence[str] = (),
    offline: bool = False,
    keep_private: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    max_memory: str | int | None = None,
    progress: ProgressCallback | None = None,
) -> Summary:
    """Bring source files here and turn each run into one array of a recordings store."""
    manifest = _load(source, subjects)
    tasks = _tasks(manifest, data_dir, accept, offline, keep_private, progress)
    jobs = [FetchJob(str(out), task.source.dataset, task.subject, None, task.files, task) for task in tasks]
    budget = Budget.make(workers, scheduler, max_memory)
    return _run_step(jobs, Path(out), lambda: recordings_store.create_recordings(Path(out), "fetched", {}), budget, progress)


def filter_recordings(
    store_in: str | Path,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    max_memory: str | int | None = None,
    progress: ProgressCallback | None = None,
) -> Summary:
    """Gates, then a zero-phase band-pass of every recording."""
    recipe = recipe or Recipe()
    names = _stored_names(Path(store_in), "fetched", Path(out))
    jobs = [
        FilterJob(str(out), d, s, recipe, _key_file(carried), str(store_in), arrays, carried) for d, s, arrays, carried in names
    ]
    settings = recipe.model_dump(mode="json")
    create = lambda: recordings_store.create_recordings(Path(out), "filtered", settings)  # noqa: E731
    return _run_step(jobs, Path(out), create, Budget.make(workers, scheduler, max_memory), progress)


def pad(
    store_in: str | Path,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    max_memory: str | int | None = None,
    progress: ProgressCallback | None = None,
) -> Summary:
    """Crop and pad filtered recordings into the corpus. Settings of the filter are taken from the store."""
    names = _stored_names(Path(store_in), "filtered", Path(out))
    made = recordings_store.read_root(Path(store_in))["recipe"]
    own = (recipe or Recipe()).model_dump(mode="json")
    recipe = make_recipe(**{**own, **{key: made[key] for key in FILTER_SETTINGS}})
    jobs = [PadJob(str(out), d, s, recipe, _key_file(carried), str(store_in), arrays, carried) for d, s, arrays, carried in names]
    return _build_corpus(jobs, Path(out), recipe, Budget.make(workers, scheduler, max_memory), progress)


# settings that `filter` uses; the others are those of `pad`
FILTER_SETTINGS = ("low", "high", "nyquist", "resample", "notch", "min_channels", "min_uv", "max_uv")


def build(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    subjects: str | None = None,
    data_dir: str | Path | None = None,
    accept: Sequence[str] = (),
    offline: bool = False,
    keep_private: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    max_memory: str | int | None = None,
    progress: ProgressCallback | None = None,
    **settings: Any,
) -> Summary:
    """Sources into a corpus of windows, with nothing in between on disk. Run again to resume; nothing is done twice.

    Args:
        source: a manifest, "moabb:NAME", "bids:ROOT", "files:GLOB", or several of them.
        out: folder of the corpus.
        recipe: how windows are made; or give its settings as keywords (`high=45.0`, `nyquist="skip"`, ...).
        subjects: for instance "1-10,12".
        data_dir: where MOABB's data sets lie; default as MNE has it.
        accept: licences to accept.
        offline: open no socket.
        keep_private: keep measurement date and subject information of the headers.
        workers: processes. scheduler: address of a Dask scheduler to use instead.
        max_memory: bytes, or text such as "4GB", for all workers together.

    Returns:
        what was done, with every finding of the gates.
    """
    manifest = _load(source, subjects)
    recipe = recipe or make_recipe(**{**manifest.recipe, **settings})
    tasks = _tasks(manifest, data_dir, accept, offline, keep_private, progress)
    jobs = [BuildJob(str(out), task.source.dataset, task.subject, _capped(recipe, task), task.files, task) for task in tasks]
    return _build_corpus(jobs, Path(out), recipe, Budget.make(workers, scheduler, max_memory), progress)


def _capped(recipe: Recipe, task: Task) -> Recipe:
    cap = task.source.max_per_subject
    return recipe if cap is None or recipe.max_per_subject is not None else recipe.model_copy(update={"max_per_subject": cap})


def _load(source: str | Path | Sequence[str | Path], subjects: str | None) -> manifests.Manifest:
    manifest = manifests.load(source)
    chosen = tuple(manifests.with_subjects(item, subjects) for item in manifest.sources)
    return manifest.model_copy(update={"sources": chosen})


def _tasks(
    manifest: manifests.Manifest,
    data_dir: str | Path | None,
    accept: Sequence[str],
    offline: bool,
    keep_private: bool,
    progress: ProgressCallback | None,
) -> list[Task]:
    folder = Path(data_dir) if data_dir is not None else sources.default_data_dir()
    with ExitStack() as stack:
        if any(source.kind == "moabb" for source in manifest.sources):
            stack.enter_context(downloads.data_folder_lock(folder))
        return sources.list_tasks(
            manifest.sources, folder, offline=offline, accept=accept, keep_private=keep_private, progress=progress
        )


def _stored_names(root: Path, stage: str, out: Path) -> list[tuple[str, str, tuple[str, ...], dict[str, Any]]]:
    """(dataset, subject, recordings in natural order, attributes) of every subject in a recordings store."""
    found = recordings_store.read_root(root)["stage"]
    if found != stage:
        step = {"fetched": "filter", "filtered": "pad"}
        raise StoreError(f"{root}: holds {found} recordings, not {stage} ones", f"`eegprep {step[found]}` takes such a store")
    if out.resolve() == root.resolve():
        raise StoreError(f"{out}: input and output are the same store", "choose another output")
    names = []
    for dataset, subject in recordings_store.subjects(root):
        arrays = sorted(recordings_store.array_names(root, dataset, subject), key=sources.natural_key)
        names.append((dataset, subject, tuple(arrays), recordings_store.group_attributes(root, dataset, subject)))
    if not names:
        raise StoreError(f"{root}: 0 subjects (least 1)", "fetch recordings into it first")
    return names


def _key_file(carried: Mapping[str, Any]) -> tuple[SourceFile, ...]:
    """A subject of another store stands for the files it was made of."""
    return (SourceFile("store", 0, carried["commit"]["key"]),)


def _build_corpus(
    jobs: Sequence[_SubjectJob], out: Path, recipe: Recipe, budget: Budget, progress: ProgressCallback | None
) -> Summary:
    settings = recipe.model_dump(mode="json")

    def create() -> None:
        if (out / "zarr.json").is_file():
            _refuse_strangers(jobs, out, recipe)
            store.set_recipe(out, settings, recipe_fingerprint(recipe))
        store.create_corpus(out, settings, recipe_fingerprint(recipe), channels=recipe.channels, samples=recipe.window)

    summary = _run_step(jobs, out, create, budget, progress)
    store.finish_corpus(out)
    return summary


def _refuse_strangers(jobs: Sequence[_SubjectJob], out: Path, recipe: Recipe) -> None:
    """Subjects in the corpus that this command does not name must fit its recipe, or the corpus would be a mixture."""
    attributes = store.read_corpus_attributes(out)
    if attributes["fingerprint"] == recipe_fingerprint(recipe):
        return
    named = {job.name for job in jobs}
    others = [name for name in _groups(out) if name not in named]
    if others:
        raise StoreError(
            f"{out}: holds {len(others)} subjects made with another recipe that this command does not name ({others[0]}, ...)",
            "name them too, so that they are made again, or choose another --out",
        )


def _groups(out: Path) -> list[str]:
    return sorted(
        f"{path.parent.parent.name}/{path.parent.name}"
        for path in out.glob("*/*/zarr.json")
        if not path.parent.name.startswith(".") and not path.parent.parent.name.startswith(".")
    )


def _run_step(
    jobs: Sequence[_SubjectJob], out: Path, create: Callable[[], None], budget: Budget, progress: ProgressCallback | None
) -> Summary:
    """Skip what is done, do the rest, and say what came of it."""
    existed = out.exists()
    if not existed and not out.parent.exists():
        out.parent.mkdir(parents=True)
    with store_lock(out):
        create()
        done = [outcome for outcome in (_done_before(job) for job in jobs) if outcome is not None]
        known = {outcome.name for outcome in done}
        waiting = [job for job in jobs if job.name not in known]
        outcomes = [*done, *run_jobs(waiting, budget, progress)]
        if not any(outcome.recordings for outcome in outcomes):
            if not existed:
                _remove_empty(out)
            raise _nothing(outcomes)
        return _summarise(outcomes, out)


def _done_before(job: _SubjectJob) -> Outcome | None:
    """The outcome of an earlier run, when it was made of the same files with the same settings."""
    stored = job.stored()
    if not stored or "commit" not in stored:
        return None
    if stored["commit"]["key"] != fingerprint(job.made_from(stored.get("facts", []))):
        return None
    left_out = stored.get("left_out", [])
    good = stored.get("recordings", [])
    findings = [finding for record in (*good, *left_out) for finding in record.get("findings", [])]
    recordings = len(good) or len(recordings_store.array_names(Path(job.root), job.dataset, job.subject))
    windows = stored["commit"].get("windows", 0)
    return Outcome(job.name, windows, recordings, tuple(left_out), tuple(findings), done_before=True)


def _nothing(outcomes: Sequence[Outcome]) -> ToolkitError:
    """No recording could be used: the first reason is the error."""
    reasons = [finding for outcome in outcomes for finding in outcome.findings if finding["action"] == "quarantined"]
    if not reasons:
        return SourceError("0 recordings were found (least 1)", "check the source")
    first = reasons[0]
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return SourceError(
        f"no recording could be used: {first['recording']}: {first['message']}{more}", _FIXES.get(first["code"], _FIX)
    )


_FIX = "mend or leave out the recordings that are named"
_FIXES = {
    "unreadable": "give EEG files that MNE-Python can read, whole and with EEG channels",
    "few_channels": "lower --min-channels, or leave such recordings out",
    "too_short": "use --short stretch, a smaller --window, or longer recordings",
    "units": "store the recordings in volts as MNE expects, or widen --min-uv and --max-uv",
    "nyquist": "use --nyquist clip or highpass, or a lower --high",
}


def _remove_empty(out: Path) -> None:
    """Take away the empty store that this run made."""
    import shutil

    shutil.rmtree(out, ignore_errors=True)


def _summarise(outcomes: Sequence[Outcome], out: Path) -> Summary:
    findings = tuple(Finding(**finding) for outcome in outcomes for finding in outcome.findings)
    return Summary(
        out=out,
        subjects=len(outcomes),
        built=sum(not outcome.done_before for outcome in outcomes),
        recordings=sum(outcome.recordings for outcome in outcomes),
        windows=sum(outcome.windows for outcome in outcomes),
        findings=findings,
        quarantined=tuple(record["recording"] for outcome in outcomes for record in outcome.left_out),
    )
