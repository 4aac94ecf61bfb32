"""Read recordings, one at a time: MOABB classes, BIDS folders, any file MNE reads, and `mne.io.Raw` objects.

Everything that comes out is float32 in uV with EEG channels only, events in s from the first sample, and no names, birthdays or
dates. A recording that cannot be read comes out as an `Unreadable`, so that it never takes the others with it.
Shapes: C channels, T samples.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import catalogue, edf, fetch, manifests, moabb_files, network
from .channels import standard_positions
from .errors import SourceError, ToolkitError
from .manifests import Source
from .recording import Event, Finding, ProgressCallback, Recording, SourceFile

if TYPE_CHECKING:
    from mne.io import BaseRaw

UV_PER_VOLT = 1e6
# ours: samples x channels converted at once; 32 MB of float64
_CHUNK_VALUES = 4_000_000
# ours: an offset beyond this is taken off before the conversion to float32, uV
_OFFSET_UV = 1000.0
# what readers write where a recording has a seam
_SEAM = re.compile(r"edge boundary|edge$|bad_acq_skip|boundary$", re.IGNORECASE)
_EDF_LIKE = {".edf", ".bdf", ".rec"}
# files that belong to a recording but are not the one to open
_COMPANIONS = {".fdt", ".vmrk", ".eeg.json", ".json", ".tsv", ".event", ".txt", ".md", ".xml"}


@dataclass(frozen=True)
class Task:
    """One subject of one source: what one worker does in one go, and what is committed or not as a whole.

    files: what the recordings are made of, names relative to `root`.
    """

    source: Source
    subject: str
    files: tuple[SourceFile, ...]
    root: str
    person: str = ""
    offline: bool = True
    keep_private: bool = False
    problem: ToolkitError | None = None  # why its files could not be had

    @property
    def name(self) -> str:
        """`dataset/subject`."""
        return f"{self.source.dataset}/{self.subject}"


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


def natural_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts "2" before "10"."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"\d+|\D+", text))


def list_tasks(
    sources: Sequence[Source],
    data_dir: Path,
    *,
    offline: bool = False,
    accept: Sequence[str] = (),
    keep_private: bool = False,
    download: bool = True,
    progress: ProgressCallback | None = None,
) -> list[Task]:
    """Every subject of every source, with the files it is made of; what MOABB sets lack is downloaded unless offline.

    Args:
        download: False only lists: MOABB subjects then come without files.

    Raises:
        SourceError: a source holds no recordings, or a wanted subject is not there.
        FetchError, LicenceError: nothing at all could be had, see `fetch.ensure`.
    """
    tasks: list[Task] = []
    for source in sources:
        root, found, failed = _find(source, Path(data_dir), offline, accept, download, progress)
        for subject in sorted({*found, *failed}, key=natural_key):
            files, problem = tuple(found.get(subject, ())), failed.get(subject)
            person = manifests.person(source, subject)
            tasks.append(Task(source, subject, files, str(root), person, offline, keep_private, problem))
    counted = Counter(task.name for task in tasks)
    twice = [name for name, count in counted.items() if count > 1]
    if twice:
        raise SourceError(
            f"{twice[0]}: {counted[twice[0]]} sources give this subject (limit 1)",
            "give each source its own `dataset` name in a manifest",
        )
    if tasks and all(task.problem is not None for task in tasks):
        assert tasks[0].problem is not None
        raise tasks[0].problem
    return tasks


def _find(
    source: Source,
    data_dir: Path,
    offline: bool,
    accept: Sequence[str],
    download: bool,
    progress: ProgressCallback | None,
) -> tuple[Path, Mapping[str, Sequence[SourceFile]], Mapping[str, ToolkitError]]:
    """(folder that names start from, files of each subject, subjects whose files could not be had)."""
    failed: dict[str, ToolkitError] = {}
    if source.kind == "moabb":
        wanted = [str(subject) for subject in source.subjects or catalogue.entry(source.target).subjects]
        if not download:
            return data_dir, dict.fromkeys(wanted, ()), failed
        found = fetch.ensure(
            source,
            data_dir,
            subjects=wanted,
            offline=offline,
            accept=accept,
            progress=progress,
            failed=failed,  # type: ignore[arg-type]
        )
        return data_dir, found, failed
    root, groups = (_group_files if source.kind == "files" else _group_bids)(source, source.subjects)
    hashed: dict[str, Sequence[SourceFile]] = {}
    everything = fetch.hash_files([path for paths in groups.values() for path in paths], root)
    by_name = {file.name: file for file in everything}
    for subject, paths in groups.items():
        hashed[subject] = [by_name[path.resolve().relative_to(root.resolve()).as_posix()] for path in paths]
        for file in hashed[subject]:
            pinned = source.sha256.get(file.name)
            if pinned is not None and pinned != file.sha256:
                failed[subject] = SourceError(
                    f"{file.name}: SHA-256 {file.sha256[:16]}..., the manifest has {pinned[:16]}...",
                    "get the version that was used, or take the hash out of the manifest",
                )
    return root, hashed, failed


def read_task(task: Task) -> Iterator[Recording | Unreadable]:
    """The recordings of one subject, one in memory at a time where the loader allows, in natural order of session and run."""
    if task.problem is not None:
        yield _unreadable(_origin(task, "0", "0", task.files), task.problem)
        return
    if task.source.kind != "files":
        try:
            fetch.check(task.files, Path(task.root))
        except ToolkitError as error:
            yield _unreadable(_origin(task, "0", "0", task.files), error)
            return
    reader = {"moabb": _read_moabb, "files": _read_files, "bids": _read_bids}[task.source.kind]
    yield from reader(task)


def read_source(
    source: str | Source, data_dir: Path | None = None, *, subjects: Sequence[str] | None = None, offline: bool = False
) -> Iterator[Recording]:
    """Recordings of a SOURCE or manifest, one at a time; the first that cannot be read raises its error."""
    sources = (source,) if isinstance(source, Source) else manifests.load([source]).sources
    if subjects is not None:
        sources = tuple(item.model_copy(update={"subjects": tuple(subjects)}) for item in sources)
    for task in list_tasks(sources, data_dir or default_data_dir(), offline=offline):
        for item in read_task(task):
            if isinstance(item, Unreadable):
                raise item.error
            yield item


def default_data_dir() -> Path:
    """Where MNE and MOABB keep data sets: `MNE_DATA`, then MNE's own configuration, then ~/mne_data."""
    if "MNE_DATA" in os.environ:
        return Path(os.environ["MNE_DATA"]).expanduser()
    config = Path(os.environ.get("_MNE_FAKE_HOME_DIR", Path.home())) / ".mne" / "mne-python.json"
    if config.is_file():
        import json

        try:
            stored = json.loads(config.read_text()).get("MNE_DATA")
        except (ValueError, OSError):
            stored = None
        if stored:
            return Path(stored)
    return Path.home() / "mne_data"


# ---------------------------------------------------------------------------------------------------- raw -> recording


def from_raw(
    raw: BaseRaw,
    origin: Origin | None = None,
    *,
    dataset: str = "raw",
    subject: str = "0",
    session: str = "0",
    run: str = "0",
    events: Sequence[Event] | None = None,
    keep_private: bool = False,
) -> Recording:
    """A `Recording` from an `mne.io.Raw`: EEG channels, uV, float32; read in pieces, so that a Raw need not be in memory.

    Args:
        raw: any Raw; it is not changed.
        origin: where it comes from; or give its names.
        dataset, subject, session, run: its names.
        events: trials; the annotations when left out.
        keep_private: also keep the measurement date and what the header says about the person.

    Raises:
        SourceError: no EEG channel, or no sample.
    """
    origin = origin or Origin(dataset, subject, session, run)
    name = f"{origin.dataset}/{origin.subject}/{origin.session}.{origin.run}"
    types = raw.get_channel_types()
    picks = [index for index, kind in enumerate(types) if kind == "eeg"]
    if not picks:
        raise SourceError(
            f"{name}: 0 of {len(types)} channels are EEG (least 1; types found: {', '.join(sorted(set(types))) or 'none'})",
            "leave the recording out, or set the channel types in the file",
        )
    if raw.n_times == 0:
        raise SourceError(f"{name}: 0 samples (least 1)", "leave the recording out")
    sfreq = float(raw.info["sfreq"])
    channels = tuple(raw.ch_names[pick] for pick in picks)
    low, high = float(raw.info["highpass"] or 0.0), float(raw.info["lowpass"] or sfreq / 2)
    signal_CT, offsets_C = _read_signal(raw, picks, name)
    return Recording(
        signal_CT=signal_CT,
        sfreq=sfreq,
        channels=channels,
        dataset=origin.dataset,
        subject=origin.subject,
        session=origin.session,
        run=origin.run,
        positions_C3=_positions(raw, picks, channels),
        original_sfreq=sfreq,
        events=tuple((_annotation_events(raw) or _stim_events(raw)) if events is None else events),
        segments=_segments(raw),
        sources=origin.sources,
        licence=origin.licence,
        doi=origin.doi,
        reference=origin.reference,
        line_freq=origin.line_freq if raw.info["line_freq"] is None else float(raw.info["line_freq"]),
        band=(low, high),
        person=origin.person or f"{origin.dataset}/{origin.subject}",
        findings=_raw_findings(raw, name),
        software=_software(),
        offsets=tuple(offsets_C.tolist()) if offsets_C.any() else (),
        header=_header(raw) if keep_private else {},
    )


def _header(raw: BaseRaw) -> dict[str, Any]:
    """What the header says of the person and the date; only on request."""
    person = {key: str(value) for key, value in (raw.info["subject_info"] or {}).items()}
    date = raw.info["meas_date"]
    return {"meas_date": None if date is None else date.isoformat(), "subject_info": person}


def _read_signal(raw: BaseRaw, picks: list[int], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(C, T) float32 uV, converted in pieces that are small against the whole, and what was taken off each channel, uV.

    Amplifiers coupled for direct current record EEG on top of tens of millivolts, where float32 has steps of several nanovolts:
    such an offset is taken off first, in float64.
    """
    signal_CT = np.empty((len(picks), raw.n_times), np.float32)
    step = max(1, _CHUNK_VALUES // max(len(raw.ch_names), 1))
    first_C = raw[picks, 0:1][0][:, 0] * UV_PER_VOLT
    offsets_C = np.where(np.abs(np.nan_to_num(first_C)) > _OFFSET_UV, np.rint(np.nan_to_num(first_C)), 0.0)
    volts_C1 = offsets_C[:, None] / UV_PER_VOLT
    for start in range(0, raw.n_times, step):
        stop = min(start + step, raw.n_times)
        piece = raw[picks, start:stop][0]
        if piece.shape[1] != stop - start:
            raise SourceError(
                f"{name}: the file ends at sample {start + piece.shape[1]:,} of {raw.n_times:,}", "fetch the file again"
            )
        if offsets_C.any():
            piece = piece - volts_C1
        np.multiply(piece, UV_PER_VOLT, out=signal_CT[:, start:stop], casting="unsafe")
    return signal_CT, offsets_C


def _positions(raw: BaseRaw, picks: list[int], channels: tuple[str, ...]) -> np.ndarray:
    """(C, 3) m in head coordinates: what the file says, else the standard place of that name, else NaN."""
    located = np.array([raw.info["chs"][pick]["loc"][:3] for pick in picks], float).reshape(len(picks), 3)
    unknown = ~np.isfinite(located).all(axis=1) | (located == 0).all(axis=1)
    if unknown.any():
        located[unknown] = standard_positions([name for name, lost in zip(channels, unknown, strict=True) if lost])
    return located


def _annotation_events(raw: BaseRaw) -> list[Event]:
    """Annotations as events, the one at sample 0 included; onsets in s from the first sample."""
    notes = raw.annotations
    return [
        Event(round(float(onset - raw.first_time), 9), float(duration), str(label))
        for onset, duration, label in zip(notes.onset, notes.duration, notes.description, strict=True)
        if not _SEAM.match(str(label))
    ]


def _segments(raw: BaseRaw) -> tuple[tuple[int, int], ...]:
    """Sample ranges between the seams that annotations name."""
    notes = raw.annotations
    seams = [
        Event(float(onset - raw.first_time), float(duration), str(label))
        for onset, duration, label in zip(notes.onset, notes.duration, notes.description, strict=True)
        if _SEAM.match(str(label))
    ]
    return _between_seams(seams, float(raw.info["sfreq"]), raw.n_times)


def _between_seams(seams: Sequence[Event], sfreq: float, n_samples: int) -> tuple[tuple[int, int], ...]:
    cuts: list[tuple[int, int]] = []
    for seam in seams:
        first = min(max(round(seam.onset * sfreq), 0), n_samples)
        lost = seam.duration if seam.label.lower().startswith("bad_acq_skip") else 0.0
        cuts.append((first, min(first + round(lost * sfreq), n_samples)))
    segments, start = [], 0
    for first, last in sorted(cuts):
        if first > start:
            segments.append((start, first))
        start = max(start, last)
    if start < n_samples:
        segments.append((start, n_samples))
    return tuple(segments)


def _raw_findings(raw: BaseRaw, name: str) -> tuple[Finding, ...]:
    """Channels that the file itself marks as bad: kept, and said."""
    return tuple(Finding("marked_bad", name, bad, None, None, "noted", "marked as bad in the source") for bad in raw.info["bads"])


@cache
def _version(package: str) -> str:
    return metadata.version(package)


def _software(*more: str) -> dict[str, str]:
    return {package: _version(package) for package in ("mne", *more)}


# ------------------------------------------------------------------------------------------------------------- files


def _group_files(source: Source, wanted: Sequence[str] | None) -> tuple[Path, dict[str, list[Path]]]:
    """Folder that names are relative to, and the files of each subject."""
    paths = [Path(path) for path in glob.glob(source.target, recursive=True)]  # noqa: PTH207  (absolute patterns)
    paths = sorted(path for path in paths if path.is_file() or path.suffix in (".ds", ".mff"))
    if len(paths) > 1:
        paths = [path for path in paths if path.suffix.lower() not in _COMPANIONS]
    if not paths:
        raise SourceError(f"files:{source.target}: no file matches", "check the path; quote patterns with * in the shell")
    root = _fixed_part(source.target)
    groups: dict[str, list[Path]] = {}
    for path in paths:
        subject = file_names(path.relative_to(root), source.pattern)[0]
        if wanted is None or subject in wanted:
            groups.setdefault(subject, []).append(path)
    _require_subjects(source, wanted, groups)
    return root, groups


def _fixed_part(pattern: str) -> Path:
    """The folders of a glob before its first wildcard."""
    path = Path(pattern)
    parts = []
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts) if parts else Path()


def file_names(path: Path, pattern: str = "") -> tuple[str, str, str]:
    """(subject, session, run) of a file, from a pattern with named groups, usual names, or the folders it lies in."""
    stem = path.name.split(".")[0] if path.name.lower().endswith((".fif.gz",)) else path.stem
    found = re.search(pattern, path.name) if pattern else None
    if found is None:
        found = re.fullmatch(r"(?P<subject>S\d+)R(?P<run>\d+)", stem)  # BCI2000, and with it PhysioNet's eegmmidb
    if found is None:
        found = re.search(r"sub-(?P<subject>[A-Za-z0-9]+)(?:_ses-(?P<session>[A-Za-z0-9]+))?(?P<run>_.*)?$", stem)
    if found is not None:
        names = found.groupdict()
        return names.get("subject") or "0", names.get("session") or "0", _clean(names.get("run") or "0").strip("_-") or "0"
    folders = [_clean(part) for part in path.parts[:-1]]
    if folders:
        return "-".join(folders), "0", _clean(stem)
    return _clean(stem), "0", "0"


def _clean(text: str) -> str:
    """`text` as part of a zarr path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "0"


def _require_subjects(source: Source, wanted: Sequence[str] | None, groups: Mapping[str, Any]) -> None:
    missing = [subject for subject in wanted or () if subject not in groups]
    if missing:
        raise SourceError(
            f"{source.spec}: subject {missing[0]!r} is not there ({len(groups)} of {len(wanted or ())} wanted were found)",
            "choose --subjects from those that the source holds",
        )


def _read_files(task: Task) -> Iterator[Recording | Unreadable]:
    items = []
    for file in task.files:
        _, session, run = file_names(Path(file.name), task.source.pattern)
        items.append((natural_key(session), natural_key(run), session, run, file))
    for _, _, session, run, file in sorted(items, key=lambda item: item[:2]):
        origin = _origin(task, session, run, (file,))
        try:
            fetch.check([file], Path(task.root))
            recording = read_file(Path(task.root) / file.name, origin, keep_private=task.keep_private)
        except Exception as error:
            yield _unreadable(origin, error)
        else:
            yield recording


def read_file(path: Path, origin: Origin | None = None, *, keep_private: bool = False) -> Recording:
    """One file of any format that MNE reads.

    Raises:
        SourceError: it is missing, truncated, not an EEG file, or holds no EEG channel.
    """
    origin = origin or Origin("files", *file_names(Path(path.name)))
    if not path.exists():
        raise SourceError(f"{path.name}: no such file", "check the path")
    if path.suffix.lower() in _EDF_LIKE and not keep_private:
        content = edf.read(path, _OFFSET_UV)
        if content is not None:
            return _from_edf(content, origin)
    with quiet_mne():
        return from_raw(open_raw(path), origin, keep_private=keep_private)


def _from_edf(content: edf.Content, origin: Origin) -> Recording:
    """The same `Recording` as through MNE-Python."""
    notes = [Event(round(onset, 9), duration, label) for onset, duration, label in content.annotations]
    n_samples = content.signal_CT.shape[1]
    seconds = n_samples / content.sfreq
    return Recording(
        signal_CT=content.signal_CT,
        sfreq=content.sfreq,
        channels=content.channels,
        dataset=origin.dataset,
        subject=origin.subject,
        session=origin.session,
        run=origin.run,
        positions_C3=standard_positions(content.channels),
        original_sfreq=content.sfreq,
        events=tuple(note for note in notes if not _SEAM.match(note.label) and note.onset < seconds),
        segments=_between_seams([note for note in notes if _SEAM.match(note.label)], content.sfreq, n_samples),
        sources=origin.sources,
        licence=origin.licence,
        doi=origin.doi,
        reference=origin.reference,
        line_freq=origin.line_freq,
        band=(content.highpass, content.lowpass),
        person=origin.person or f"{origin.dataset}/{origin.subject}",
        software=_software(),
        offsets=tuple(content.offsets_C.tolist()) if content.offsets_C.any() else (),
    )


def open_raw(path: Path) -> BaseRaw:
    """Open a file without reading its samples, after checking that it is whole where the header tells."""
    import mne

    if not path.exists():
        raise SourceError(f"{path.name}: no such file", "check the path")
    options: dict[str, Any] = {}
    if path.suffix.lower() in _EDF_LIKE:
        edf.read_header(path)
        options = {"infer_types": True}
    try:
        return mne.io.read_raw(path, preload=False, verbose="error", **options)
    except ToolkitError:
        raise
    except Exception as error:  # readers raise anything, from ValueError to struct.error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceError(
            f"{path.name}: not a file that MNE-Python can read ({reason})", "give an EEG file, or leave it out"
        ) from error


def _origin(task: Task, session: str, run: str, files: tuple[SourceFile, ...]) -> Origin:
    source = task.source
    return Origin(source.dataset, task.subject, session, run, task.person, source.licence or "unknown", source.doi, sources=files)


def _unreadable(origin: Origin, error: BaseException) -> Unreadable:
    name = f"{origin.dataset}/{origin.subject}/{origin.session}.{origin.run}"
    if isinstance(error, MemoryError):
        error = SourceError(f"{name}: not enough memory to read it", "use fewer --workers or raise --max-memory")
    if not isinstance(error, ToolkitError):
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        error = SourceError(f"{name}: cannot be read ({reason})", "leave the recording out, or mend its file")
    return Unreadable(name, error, origin.sources)


@contextmanager
def quiet_mne() -> Iterator[None]:
    """Readers' warnings about header details are noise here; what matters becomes a finding."""
    import mne

    with warnings.catch_warnings(), mne.utils.use_log_level("ERROR"):
        warnings.simplefilter("ignore")
        yield


# -------------------------------------------------------------------------------------------------------------- BIDS


def _group_bids(source: Source, wanted: Sequence[str] | None) -> tuple[Path, dict[str, list[Path]]]:
    root = Path(source.target)
    if not (root / "dataset_description.json").is_file():
        raise SourceError(f"bids:{root}: no dataset_description.json, so not a BIDS folder", "give the root of a BIDS data set")
    groups: dict[str, list[Path]] = {}
    for folder in sorted(root.glob("sub-*")):
        subject = folder.name.removeprefix("sub-")
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name == "eeg")
        if files and (wanted is None or subject in wanted):
            groups[subject] = files
    if not groups and not wanted:
        raise SourceError(f"bids:{root}: 0 subjects with an eeg folder (least 1)", "give the root of a BIDS data set with EEG")
    _require_subjects(source, wanted, groups)
    return root, groups


def _read_bids(task: Task) -> Iterator[Recording | Unreadable]:
    import mne_bids

    root = Path(task.root)
    paths = mne_bids.find_matching_paths(root, subjects=task.subject, datatypes="eeg", suffixes="eeg", ignore_json=True)
    paths = [path for path in paths if path.extension not in (".json", ".tsv", ".fdt", ".vmrk", ".eeg")]
    items = []
    for path in paths:
        run = "-".join(part for part in (path.task, path.acquisition, path.run) if part) or "0"
        items.append((natural_key(path.session or "0"), natural_key(run), path.session or "0", run, path))
    for _, _, session, run, path in sorted(items, key=lambda item: item[:2]):
        stem = str(path.fpath.relative_to(root)).rpartition("_eeg")[0]
        origin = _origin(task, session, _clean(run), tuple(file for file in task.files if file.name.startswith(stem)))
        try:
            if path.extension in _EDF_LIKE:
                edf.read_header(path.fpath)
            with quiet_mne():
                raw = mne_bids.read_raw_bids(path, verbose="error")
                recording = from_raw(raw, origin, keep_private=task.keep_private)
        except Exception as error:
            yield _unreadable(origin, error)
        else:
            yield recording


# ------------------------------------------------------------------------------------------------------------- MOABB


@contextmanager
def moabb_environment(data_dir: Path, offline: bool) -> Iterator[network.NetworkGuard | None]:
    """MOABB reads what lies in `data_dir`, in the upstream layout, and leaves the user's MNE configuration alone."""
    values = moabb_files.environment(data_dir)
    moabb_files.state_folder(data_dir).joinpath("home").mkdir(parents=True, exist_ok=True)
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        if offline:
            with network.no_network() as guard:
                yield guard
        else:
            yield None
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@dataclass(frozen=True)
class _Part:
    """What a MOABB class loads at once: a subject, or less where the class allows. rename: its run names as the whole has them."""

    dataset: Any
    rename: str | None = None


def _read_moabb(task: Task) -> Iterator[Recording | Unreadable]:
    entry = catalogue.entry(task.source.target)
    origin = Origin(
        task.source.dataset,
        task.subject,
        person=task.person,
        licence=task.source.licence or entry.licence,
        doi=task.source.doi or entry.doi,
        reference=entry.reference,
        line_freq=entry.line_freq,
        sources=task.files,
    )
    seen = 0
    expected = entry.sessions
    sessions: set[str] = set()
    for part in _moabb_parts(task):
        with _LoaderLog() as said, quiet_mne():
            loaded = _load_part(part, task, origin)
            if isinstance(loaded, Unreadable):
                yield loaded
                continue
            data, opened = loaded
            names = [(session, run) for session in data for run in data[session]]
            for session, run in sorted(names, key=lambda name: (natural_key(name[0]), natural_key(name[1]))):
                run_name = run if part.rename is None else part.rename
                own = replace(origin, session=_clean(session), run=_clean(run_name), sources=opened)
                sessions.add(session)
                seen += 1
                try:
                    raw = data[session].pop(run)  # popped, so that each run is freed before the next is converted
                    recording = _from_moabb(raw, own, part.dataset, entry.joined_epochs, task.keep_private)
                    del raw
                except Exception as error:
                    yield _unreadable(own, error)
                else:
                    yield recording
                    del recording
        if said.failures:
            lost = replace(origin, session=sorted(sessions)[-1] if sessions else "0", run="lost")
            yield _unreadable(lost, SourceError(f"{task.name}: the loader left out files: {said.failures[0]}", _LOST_FIX))
    if len(sessions) < expected and (entry.may_hide_errors or not seen):
        problem = f"{task.name}: the loader gave {len(sessions)} sessions with {seen} runs, declared are {expected} sessions"
        yield _unreadable(replace(origin, session="missing", run="sessions"), SourceError(problem, _LOST_FIX))


_LOST_FIX = "fetch the subject again; if that does not help, the data set itself lacks them"


def _load_part(part: _Part, task: Task, origin: Origin) -> tuple[dict[str, dict[str, Any]], tuple[SourceFile, ...]] | Unreadable:
    """Sessions and runs of one part, and the files that it opened. First without the network: what is needed was fetched."""
    from moabb.datasets.preprocessing import FixedPipeline

    data_dir = Path(task.root)
    subject = next((known for known in part.dataset.subject_list if str(known) == task.subject), None)
    if subject is None:
        return _unreadable(
            origin, SourceError(f"{task.name}: MOABB knows no such subject", "choose one that `eegprep datasets` lists")
        )
    for offline in (True, False):
        with moabb_environment(data_dir, offline) as guard, network.files_opened(data_dir) as opened:
            try:
                # the pipeline without steps leaves the loader's own annotations; the default one drops an event at sample 0
                data = part.dataset.get_data([subject], process_pipeline=FixedPipeline([]))[subject]
            except Exception as error:
                if task.offline or guard is None or not guard.refused:
                    return _unreadable(replace(origin, run=part.rename or "0"), error)
                continue
        names = {path.relative_to(data_dir.resolve()).as_posix() for path in opened}
        files = tuple(file for file in task.files if file.name in names)
        return data, files or task.files
    raise AssertionError("the second round returns")


def _moabb_parts(task: Task) -> Iterator[_Part]:
    """The smallest pieces that the class can load by itself, so that no more than that is in memory."""
    from moabb.datasets.utils import dataset_dict

    make, name = dataset_dict[task.source.target], task.source.target
    options = dict(task.source.options)
    dataset = make(**options)
    if name == "PhysionetMI":
        hands, feet = list(dataset.hand_runs), list(dataset.feet_runs)
        for index, run in enumerate(hands + feet):
            part = make(**options)
            part.hand_runs, part.feet_runs = ([run], []) if index < len(hands) else ([], [run])
            yield _Part(part, str(index))
    elif (name == "Stieger2021" or name.startswith("Lee2019")) and "sessions" not in options:
        for session in range(1, dataset.n_sessions + 1):
            yield _Part(make(**options, sessions=[session]))
    else:
        yield _Part(dataset)


def _from_moabb(raw: BaseRaw, origin: Origin, dataset: Any, joined: bool, keep_private: bool) -> Recording:
    event_id, interval = dict(dataset.event_id), tuple(dataset.interval or (0.0, 0.0))
    events = moabb_events(raw, event_id, interval)
    recording = replace(from_raw(raw, origin, events=events, keep_private=keep_private), software=_software("moabb"))
    if joined:
        cues = [round((event.onset - interval[0]) * recording.sfreq) for event in events if event.label in event_id]
        pieces = joined_segments(recording.signal_CT, sorted(set(cues)), round(float(interval[1]) * recording.sfreq))
        recording = replace(recording, segments=pieces)
    return recording


def joined_segments(signal_CT: np.ndarray, cues: Sequence[int], after: int) -> tuple[tuple[int, int], ...]:
    """Stretches of a recording that was put together from trials: the (first, last + 1) samples of what was recorded in one go.

    Samples at which every channel is exactly 0 are the filling between trials. Inside the stretches between them, cues that
    are equally far apart give the length of a trial, if that divides the stretch. Where they do not, only what follows each cue
    for `after` samples is sure to lie within a trial.

    Args:
        signal_CT: uV.
        cues: samples of the cues, sorted.
        after: samples of a trial after its cue, as declared.
    """
    filled_T = (signal_CT == 0).all(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], filled_T, [True]]).astype(np.int8)))
    pieces: list[tuple[int, int]] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        inside = [cue for cue in cues if first <= cue < last]
        spacing = {later - earlier for earlier, later in pairwise(inside)}
        if len(inside) <= 1:
            pieces.append((first, last))
        elif len(spacing) == 1 and (last - first) % (length := spacing.pop()) == 0 and inside[0] - first < length:
            pieces += [(start, start + length) for start in range(first, last, length)]
        else:
            pieces += [(cue, min(cue + after, later)) for cue, later in pairwise([*inside, last])]
    return tuple(pieces)


class _LoaderLog(logging.Handler):
    """Collects what MOABB's loaders only log when a file cannot be read, and keeps it off the screen."""

    _FAILURE = re.compile(r"fail|could not|cannot|can't|error|corrupt|unreadable|not found|missing|skipp", re.IGNORECASE)

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.failures: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message that sounds like a lost file."""
        message = " ".join(record.getMessage().split())
        if self._FAILURE.search(message):
            self.failures.append(message[:200])

    def __enter__(self) -> _LoaderLog:
        self._logger = logging.getLogger("moabb")
        self._before = self._logger.propagate
        self._logger.addHandler(self)
        self._logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._before


def _stim_events(raw: BaseRaw) -> list[Event]:
    """New values of stimulus channels, for recordings without annotations; the label is the value."""
    sfreq, events = float(raw.info["sfreq"]), []
    for pick, kind in enumerate(raw.get_channel_types()):
        if kind == "stim":
            values_T = np.rint(raw[pick][0][0]).astype(np.int64)
            events += [Event(round(sample / sfreq, 9), 0.0, str(values_T[sample])) for sample in _onsets(values_T).tolist()]
    return events


def moabb_events(raw: BaseRaw, event_id: Mapping[str, Any], interval: tuple[float, float]) -> list[Event]:
    """Trials of a MOABB recording: from `interval[0]` to `interval[1]` s around each cue, the cue at sample 0 included."""
    codes: dict[int, str] = {}
    for label, values in event_id.items():
        for value in values if isinstance(values, list | tuple) else [values]:
            codes[int(value)] = str(label)
    sfreq, length = float(raw.info["sfreq"]), float(interval[1] - interval[0])
    events = []
    for pick, kind in enumerate(raw.get_channel_types()):
        if kind == "stim":
            values_T = np.rint(raw[pick][0][0]).astype(np.int64)
            events += [
                Event(round(sample / sfreq + interval[0], 9), length, codes[int(values_T[sample])])
                for sample in _onsets(values_T)
                if int(values_T[sample]) in codes
            ]
    if not events:
        events = [
            replace(event, onset=round(event.onset + interval[0], 9), duration=length)
            for event in _annotation_events(raw)
            if event.label in event_id
        ]
    events += [event for event in _annotation_events(raw) if event.label.upper().startswith("BAD")]
    return sorted(events, key=lambda event: (event.onset, event.label))


def _onsets(values_T: np.ndarray) -> np.ndarray:
    """Samples where a stimulus channel takes a new value other than 0; the first sample counts."""
    before = np.concatenate([[0], values_T[:-1]])
    return np.flatnonzero((values_T != before) & (values_T != 0))
