"""`fetch`, `filter`, `pad`, and `build`, which is all three in one pass: plan, skip what is done, work, finish.

A job is one subject: read or written as a whole, by one worker, under a key that says what it was made of. Running the same
command again does what is missing; changing a setting does again what that setting touches.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from . import fetch as downloads
from . import manifests, recordings_store, sources, store
from .atomic import write_json
from .errors import SourceError, StoreError, ToolkitError
from .jobs import FILTER_SETTINGS, BuildJob, FetchJob, FilterJob, Outcome, PadJob, RawJob, StoredJobT, SubjectJob, done_before
from .lockfile import changed_software, write_lock
from .plan import PlanRow, count_windows, make_plan
from .pool import Budget, run_jobs, store_lock
from .raws import from_raw
from .recipe import Recipe, make_recipe, recipe_fingerprint
from .recording import Finding, ProgressCallback, SourceFile, natural_key
from .sources import Task

if TYPE_CHECKING:
    from mne.io import BaseRaw


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
    budget = Budget.make(workers, scheduler, max_memory)
    manifest = _load(source, subjects)
    origin = _Origin("fetch", _plain(source), subjects, _folder(data_dir), offline, keep_private)
    tasks = _tasks(manifest, origin, accept, progress)
    jobs = [FetchJob(str(out), task.source.dataset, task.subject, None, task.files, task) for task in tasks]
    return _build_recordings(jobs, Path(out), "fetched", {}, budget, progress, origin)


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
    budget = Budget.make(workers, scheduler, max_memory)
    recipe = recipe or Recipe()
    jobs = _stored_jobs(FilterJob, Path(store_in), "fetched", Path(out), recipe)
    settings = {key: value for key, value in recipe.model_dump(mode="json").items() if key in FILTER_SETTINGS}
    origin = _Origin("filter", (str(Path(store_in).resolve()),))
    inherited = recordings_store.read_root(Path(store_in)).get("left_out", {})
    return _build_recordings(jobs, Path(out), "filtered", settings, budget, progress, origin, inherited)


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
    budget = Budget.make(workers, scheduler, max_memory)
    made = recordings_store.read_root(Path(store_in))
    recipe = make_recipe(**{**(recipe or Recipe()).model_dump(mode="json"), **made["recipe"]})
    jobs = _stored_jobs(PadJob, Path(store_in), "filtered", Path(out), recipe)
    origin = _Origin("pad", (str(Path(store_in).resolve()),))
    return _build_corpus(jobs, Path(out), recipe, budget, progress, origin, made.get("left_out", {}))


def build(
    source: str | Path | Sequence[str | Path] | Mapping[str, Any] | BaseRaw,
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
    lock: str | Path | None = None,
    progress: ProgressCallback | None = None,
    **settings: Any,
) -> Summary:
    """Sources into a corpus of windows, with nothing in between on disk. Run again to resume; nothing is done twice.

    Args:
        source: a manifest, "moabb:NAME", "bids:ROOT", "files:GLOB", or several of them; or an `mne.io.Raw`, or a mapping from
            subject to a Raw or a list of them, see `build_raw`.
        out: folder of the corpus.
        recipe: how windows are made; or give its settings as keywords (`high=45.0`, `nyquist="skip"`, ...).
        subjects: for instance "1-10,12".
        data_dir: where MOABB's data sets lie; default as MNE has it.
        accept: licences to accept.
        offline: open no socket.
        keep_private: keep measurement date and subject information of the headers.
        workers: processes. scheduler: address of a Dask scheduler to use instead.
        max_memory: bytes, or text such as "4GB", for all workers together.
        lock: write a lock file here: a manifest that names every file with its hash, every setting and every version.

    Returns:
        what was done, with every finding of the gates.
    """
    if isinstance(source, Mapping) or hasattr(source, "get_data"):
        return build_raw(source if isinstance(source, Mapping) else {"0": source}, out, recipe=recipe, **settings)
    budget = Budget.make(workers, scheduler, max_memory)
    manifest = _load(source, subjects)
    recipe = recipe or _recipe(manifest, settings)
    origin = _Origin("build", _plain(source), subjects, _folder(data_dir), offline, keep_private)
    tasks = _tasks(manifest, origin, accept, progress)
    summary = _build_corpus(_build_jobs(tasks, manifest, recipe, out), Path(out), recipe, budget, progress, origin)
    if lock is not None:
        write_lock(Path(lock), tasks, manifest, recipe, Path(out))
    return replace(summary, findings=(*changed_software(manifest), *summary.findings))


def plan(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    subjects: str | None = None,
    data_dir: str | Path | None = None,
    workers: int = 1,
    **settings: Any,
) -> list[PlanRow]:
    """What `build` would do: a row for each data set. Downloads and writes nothing."""
    manifest = _load(source, subjects)
    recipe = _recipe(manifest, settings)
    tasks = sources.list_tasks(manifest.sources, Path(_folder(data_dir)), download=False)
    jobs = _build_jobs(tasks, manifest, recipe, out)
    done = [job.name for job in jobs if job.files and done_before(job) is not None]
    return make_plan(tasks, recipe, done, workers, _caps(tasks, manifest, recipe))


def fetch_plan(
    source: str | Path | Sequence[str | Path], *, subjects: str | None = None, data_dir: str | Path | None = None
) -> list[downloads.PlanRow]:
    """Sizes and licences of what `fetch` and `build` would download. Opens no socket."""
    return downloads.plan(_load(source, subjects).sources, Path(_folder(data_dir)))


def build_raw(
    raws: Mapping[str, Any], out: str | Path, *, dataset: str = "raw", recipe: Recipe | None = None, **settings: Any
) -> Summary:
    """A corpus from `mne.io.Raw` objects in memory, one subject each.

    Args:
        raws: subject -> a Raw, or a list of Raws (its runs).
    """
    recipe = recipe or make_recipe(**settings)
    jobs = []
    for subject, given in raws.items():
        runs = list(given) if isinstance(given, list | tuple) else [given]
        recordings = tuple(from_raw(raw, dataset=dataset, subject=subject, run=str(number)) for number, raw in enumerate(runs))
        digests = tuple(
            SourceFile(item.name, item.signal_CT.nbytes, hashlib.sha256(item.signal_CT.tobytes()).hexdigest())
            for item in recordings
        )
        jobs.append(RawJob(str(out), dataset, subject, recipe, digests, recordings))
    return _build_corpus(jobs, Path(out), recipe, Budget(), None, None)


def remake(
    root: Path,
    names: Sequence[str] | None,
    into: Path,
    *,
    source: Sequence[str] | None = None,
    data_dir: str | Path | None = None,
    offline: bool = False,
) -> tuple[str, ...]:
    """Make groups of a store again from its sources, into the same store or another folder.

    Args:
        root: the store, for its recipe and its origin.
        names: `dataset/subject` of the groups; None for all.
        into: where to; equal to `root` for a repair.
        source, data_dir, offline: instead of what the store was built from.

    Returns:
        the names of the groups that were made.

    Raises:
        StoreError: it is not known where the sources are, or they no longer hold a group.
    """
    origin = _Origin.recall(root)
    if source:
        origin = replace(origin or _Origin("build", ()), source=tuple(source))
    if origin is None:
        raise StoreError(f"{root}: where its sources are is not on record here", "name them with --source, or build it again")
    origin = replace(origin, data_dir=_folder(data_dir) if data_dir else origin.data_dir, offline=origin.offline or offline)
    jobs, finish = _jobs_again(root, into, origin)
    chosen = [job for job in jobs if names is None or job.name in names]
    lost = sorted(set(names or ()) - {job.name for job in chosen})
    if lost:
        raise StoreError(f"{root}: the sources do not hold {lost[0]}", "name the right sources with --source")
    with store_lock(into):
        finish(False)
        outcomes = run_jobs(chosen, Budget(), None)
        empty = [outcome for outcome in outcomes if not outcome.recordings]
        if empty and names is not None:
            raise _nothing(empty)
        finish(True)
    return tuple(job.name for job in chosen)


def _jobs_again(root: Path, into: Path, origin: _Origin) -> tuple[Sequence[SubjectJob], Callable[[bool], None]]:
    """The jobs that made a store, and what to do before and after them."""
    attributes = store.read_node(root / "zarr.json").get("attributes", {})
    if attributes.get("format") == recordings_store.FORMAT:
        stage, settings = attributes["stage"], attributes["recipe"]

        def finish_recordings(done: bool) -> None:
            recordings_store.finish_recordings(into) if done else recordings_store.create_recordings(into, stage, settings)

        if stage == "filtered":
            recipe = make_recipe(**settings)
            return _stored_jobs(FilterJob, Path(origin.source[0]), "fetched", into, recipe), finish_recordings
        tasks = _tasks(_load(origin.source, origin.subjects), origin, ("all",), None)
        return [FetchJob(str(into), t.source.dataset, t.subject, None, t.files, t) for t in tasks], finish_recordings
    recipe = make_recipe(**attributes["recipe"])

    def finish_corpus(done: bool) -> None:
        if done:
            store.finish_corpus(into)
        else:
            store.create_corpus(
                into, attributes["recipe"], attributes["fingerprint"], channels=recipe.channels, samples=recipe.window
            )

    if origin.command == "pad":
        return _stored_jobs(PadJob, Path(origin.source[0]), "filtered", into, recipe), finish_corpus
    manifest = _load(origin.source, origin.subjects)
    tasks = _tasks(manifest, origin, ("all",), None)
    return _build_jobs(tasks, manifest, recipe, into), finish_corpus


@dataclass(frozen=True)
class _Origin:
    """What a store was made from. Kept in the user's cache, not in the store: it holds paths of this machine."""

    command: str
    source: tuple[str, ...]
    subjects: str | None = None
    data_dir: str = ""
    offline: bool = False
    keep_private: bool = False

    @staticmethod
    def _file(root: Path) -> Path:
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:24]
        return Path(platformdirs.user_cache_dir("eeg-dreamdiff", appauthor=False)) / "origins" / f"{name}.json"

    def remember(self, root: Path) -> None:
        """Note it; a cache that cannot be written only means that `--repair` needs `--source`."""
        content = {**vars(self), "source": list(self.source)}
        file = self._file(root)
        with suppress(OSError, ValueError):
            if file.is_file() and json.loads(file.read_text()) == content:
                return
        with suppress(OSError):
            write_json(file, content)

    @classmethod
    def recall(cls, root: Path) -> _Origin | None:
        try:
            content = json.loads(cls._file(root).read_text())
            return cls(**{**content, "source": tuple(content["source"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _plain(source: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """Sources as text that means the same in any folder."""
    listed = [source] if isinstance(source, str | Path) else list(source)
    return tuple(_absolute(str(item)) for item in listed)


def _absolute(item: str) -> str:
    kind, colon, target = item.partition(":")
    if colon and kind in ("files", "bids"):
        return f"{kind}:{Path(target).expanduser().absolute()}"
    return str(Path(item).absolute()) if Path(item).is_file() else item


def _folder(data_dir: str | Path | None) -> str:
    return str((Path(data_dir) if data_dir is not None else sources.default_data_dir()).expanduser().absolute())


def _load(source: str | Path | Sequence[str | Path], subjects: str | None) -> manifests.Manifest:
    manifest = manifests.load(source)
    chosen = tuple(manifests.with_subjects(item, subjects) for item in manifest.sources)
    return manifest.model_copy(update={"sources": chosen})


def _recipe(manifest: manifests.Manifest, settings: Mapping[str, Any]) -> Recipe:
    given = {key: value for key, value in settings.items() if value is not None}
    seed = {"seed": manifest.seed} if manifest.seed else {}
    return make_recipe(**{**seed, **manifest.recipe, **given})


def _tasks(manifest: manifests.Manifest, origin: _Origin, accept: Sequence[str], progress: ProgressCallback | None) -> list[Task]:
    folder = Path(origin.data_dir or _folder(None))
    with ExitStack() as stack:
        if any(source.kind == "moabb" for source in manifest.sources):
            stack.enter_context(downloads.data_folder_lock(folder, progress=progress))
        return sources.list_tasks(
            manifest.sources,
            folder,
            offline=origin.offline,
            accept=accept,
            keep_private=origin.keep_private,
            progress=progress,
        )


def _build_jobs(tasks: Sequence[Task], manifest: manifests.Manifest, recipe: Recipe, out: str | Path) -> list[BuildJob]:
    """One job a subject; each with its own cap, when the manifest wants a balanced draw."""
    caps = _caps(tasks, manifest, recipe)
    jobs = []
    for task in tasks:
        cap = caps.get(task.name, recipe.max_per_subject)
        own = recipe if cap == recipe.max_per_subject else recipe.model_copy(update={"max_per_subject": cap})
        if cap != 0:
            jobs.append(BuildJob(str(out), task.source.dataset, task.subject, own, task.files, task))
    return jobs


def _caps(tasks: Sequence[Task], manifest: manifests.Manifest, recipe: Recipe) -> dict[str, int]:
    """Windows to take from each subject: the command line's cap, else the source's, within the manifest's target."""
    caps = {
        task.name: task.source.max_per_subject
        for task in tasks
        if task.source.max_per_subject is not None and recipe.max_per_subject is None
    }
    if manifest.target_windows is None or recipe.max_per_subject is not None:
        return caps
    available = {(task.source.dataset, task.subject): count_windows(task, recipe)[1] for task in tasks}
    people = {(task.source.dataset, task.subject): task.person for task in tasks}
    drawn = manifests.caps_by_group(available, people, manifest.target_windows, recipe.seed)
    return {f"{dataset}/{subject}": min(cap, caps.get(f"{dataset}/{subject}", cap)) for (dataset, subject), cap in drawn.items()}


def _stored_jobs(kind: type[StoredJobT], root: Path, stage: str, out: Path, recipe: Recipe) -> list[StoredJobT]:
    """A job for each subject of a recordings store."""
    found = recordings_store.read_root(root)["stage"]
    if found != stage:
        step = {"fetched": "filter", "filtered": "pad"}
        raise StoreError(f"{root}: holds {found} recordings, not {stage} ones", f"`eegprep {step[found]}` takes such a store")
    if out.resolve() == root.resolve():
        raise StoreError(f"{out}: input and output are the same store", "choose another output")
    jobs = []
    for dataset, subject in recordings_store.subjects(root):
        arrays = tuple(sorted(recordings_store.array_names(root, dataset, subject), key=natural_key))
        carried = recordings_store.group_attributes(root, dataset, subject)
        made = SourceFile("store", 0, carried["commit"]["key"])  # a subject of another store stands for its files
        jobs.append(kind(str(out), dataset, subject, recipe, (made,), str(root.resolve()), arrays, carried))
    if not jobs:
        raise StoreError(f"{root}: 0 subjects (least 1)", "fetch recordings into it first")
    return jobs


def _build_recordings(
    jobs: Sequence[SubjectJob],
    out: Path,
    stage: str,
    settings: Mapping[str, Any],
    budget: Budget,
    progress: ProgressCallback | None,
    origin: _Origin,
    inherited: Mapping[str, Any] | None = None,
) -> Summary:
    """`inherited`: what an earlier step left out, which no later one can see."""

    def create() -> None:
        recordings_store.create_recordings(out, stage, settings)

    def finish(left_out: dict[str, Any], changed: bool) -> None:
        recordings_store.set_attributes(out, left_out={**(inherited or {}), **left_out})
        recordings_store.finish_recordings(out)

    summary = _run_step(jobs, out, create, finish, budget, progress)
    origin.remember(out)
    return summary


def _build_corpus(
    jobs: Sequence[SubjectJob],
    out: Path,
    recipe: Recipe,
    budget: Budget,
    progress: ProgressCallback | None,
    origin: _Origin | None,
    inherited: Mapping[str, Any] | None = None,
) -> Summary:
    settings = recipe.model_dump(mode="json")

    def create() -> None:
        shape = {"channels": recipe.channels, "samples": recipe.window}
        if not (out / "zarr.json").is_file():
            store.create_corpus(out, settings, recipe_fingerprint(recipe), **shape)
            return
        found = store.read_corpus_attributes(out)["fingerprint"]
        store.create_corpus(out, {}, found, **shape)  # checks the shape, which no recipe may change
        if found != recipe_fingerprint(recipe):
            _refuse_strangers(jobs, out)
            store.set_recipe(out, settings, recipe_fingerprint(recipe))

    def finish(left_out: dict[str, Any], changed: bool) -> None:
        left_out = {**(inherited or {}), **left_out}
        node = store.read_node(out / "zarr.json")
        same = node["attributes"].get("left_out") == left_out
        if same and not changed and "consolidated_metadata" in node:
            return  # nothing was done, and an earlier run finished
        if not same:
            store.set_attributes(out, left_out=left_out)
        store.finish_corpus(out)

    summary = _run_step(jobs, out, create, finish, budget, progress)
    if origin is not None:
        origin.remember(out)
    return summary


def _refuse_strangers(jobs: Sequence[SubjectJob], out: Path) -> None:
    """Subjects in the corpus that this command does not name would keep the old recipe, and the corpus would be a mixture."""
    named = {job.name for job in jobs}
    others = [f"{dataset}/{subject}" for dataset, subject in recordings_store.subjects(out)]
    others = [name for name in others if name not in named]
    if others:
        raise StoreError(
            f"{out}: holds {len(others)} subjects made with another recipe that this command does not name ({others[0]}, ...)",
            "name them too, so that they are made again, or choose another --out",
        )


def _run_step(
    jobs: Sequence[SubjectJob],
    out: Path,
    create: Callable[[], None],
    finish: Callable[[dict[str, Any], bool], None],
    budget: Budget,
    progress: ProgressCallback | None,
) -> Summary:
    """Skip what is done, do the rest, and say what came of it."""
    existed = out.exists()
    with store_lock(out):
        try:
            create()
            before = store.read_node(out / "zarr.json").get("attributes", {}).get("left_out", {})
            done = [outcome for outcome in (done_before(job, before) for job in jobs) if outcome is not None]
            known = {outcome.name for outcome in done}
            waiting = [job for job in jobs if job.name not in known]
            outcomes = [*done, *run_jobs(waiting, budget, progress)]
            if not any(outcome.recordings for outcome in outcomes):
                raise _nothing(outcomes)
        except BaseException:
            if not existed and not recordings_store.subjects(out):
                shutil.rmtree(out, ignore_errors=True)  # nothing came of it: leave no empty store behind
            raise
        finish(_left_out(outcomes, before), bool(waiting))
        return _summarise(outcomes, out)


def _left_out(outcomes: Sequence[Outcome], before: Mapping[str, Any]) -> dict[str, Any]:
    """Subjects without one usable recording, for the root of the store: they have no group."""
    named = {outcome.name for outcome in outcomes}
    kept = {name: entry for name, entry in before.items() if name not in named}
    for outcome in outcomes:
        if not outcome.recordings:
            kept[outcome.name] = {"key": outcome.key, "facts": list(outcome.facts), "recordings": list(outcome.left_out)}
    return store.plain_json(dict(sorted(kept.items())))  # type: ignore[no-any-return]


def _nothing(outcomes: Sequence[Outcome]) -> ToolkitError:
    """No recording could be used: the first reason is the error."""
    reasons = [finding for outcome in outcomes for finding in outcome.findings if finding["action"] == "quarantined"]
    if not reasons:
        return SourceError("0 recordings were found (least 1)", "check the source")
    first = reasons[0]
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    problem = f"no recording could be used: {first['recording']}: {first['message']}{more}"
    return SourceError(problem, _FIXES.get(first["code"], _FIX))


_FIX = "mend or leave out the recordings that are named"
_FIXES = {
    "unreadable": "give EEG files that MNE-Python can read, whole and with EEG channels",
    "few_channels": "lower --min-channels, or leave such recordings out",
    "too_short": "use --short stretch, a smaller --window, or longer recordings",
    "no_trials": "use --windows sliding, or recordings with events",
    "units": "store the recordings in volts as MNE expects, or widen --min-uv and --max-uv",
    "nyquist": "use --nyquist clip or highpass, or a lower --high",
    "positions": "use --mode replicate, or give the electrodes' positions",
}


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
