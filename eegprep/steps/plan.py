"""What a build will read and write, before it does: recordings, windows, bytes, minutes, memory. From headers and declared facts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eegprep.catalogue import moabb as catalogue
from eegprep.catalogue.manifests import Source
from eegprep.download.archives import Expected
from eegprep.download.fetch import PlanRow as DownloadRow
from eegprep.download.moabb_child import COMPANIONS
from eegprep.readers.content import choose
from eegprep.readers.formats import open_content
from eegprep.readers.sizes import held_bytes
from eegprep.signals.filters import fits
from eegprep.signals.recipe import Recipe
from eegprep.sources.companions import openable
from eegprep.sources.listing import Task, who_is_who
from eegprep.store.commit import read_node
from eegprep.words import count

# ours, measured on one core of a shared machine: source samples (float64 bytes) that one worker turns into windows in a second
_BYTES_PER_SECOND = 60e6

# resident size of a worker with its libraries, bytes; MOABB brings scikit-learn, pandas and more
_INTERPRETER = {"files": 250e6, "bids": 300e6, "openneuro": 300e6, "nemar": 300e6, "moabb": 900e6}

# float64 bytes in memory for a byte of a file: 16-bit and 24-bit integers, float32, compressed MATLAB
_GROWTH = {
    ".edf": 4.0,
    ".rec": 4.0,
    ".bdf": 8 / 3,
    ".cnt": 4.0,
    ".gdf": 4.0,
    ".mat": 8.0,
    ".zip": 8.0,
    ".gz": 8.0,
    ".csv": 4.0,
    ".tsv": 4.0,
    ".txt": 4.0,
    ".xdf": 4.0,
}

# formats of MOABB's files whose headers say channels, length and rate
_HEADER_FORMATS = (".edf", ".bdf", ".gdf", ".cnt", ".vhdr", ".set", ".fif")
_COMPANIONS = {suffix for suffixes in COMPANIONS.values() for suffix in suffixes}

# peak memory of a worker for a byte of the largest recording in float64; loaders that return a whole subject need more
_PEAK = {"files": 1.5, "bids": 1.5, "openneuro": 1.5, "nemar": 2.0, "moabb": 3.0}


@dataclass(frozen=True)
class PlanRow:
    """One data set of a plan. windows: at least; bytes_in: of the source files; bytes_out: of the padded float32 windows before compression."""

    dataset: str
    subjects: int
    done: int
    recordings: int
    windows: int
    bytes_in: int
    bytes_out: int
    minutes: float
    memory: int
    licence: str
    note: str = ""
    names: tuple[str, ...] = ()  # see `Summary`
    unknown: int = 0  # subjects whose number of windows nobody declares
    windows_most: int | None = None  # None where those have no limit
    full_band_windows: int = 0  # whose rate carries the whole pass band
    full_band_people: tuple[str, ...] = ()  # whose they are, each once


def task_memory(task: Task) -> int:
    """Bytes that a worker needs at its peak for this subject, estimated from the sizes of its files."""
    sizes = [_in_memory(Path(task.root) / file.name, file.bytes) for file in task.files] or [0.0]
    # loaders of MOABB return a whole subject; everything else is read one recording at a time
    largest = sum(sizes) if task.source.kind == "moabb" else max(sizes)
    if task.source.kind == "nemar":  # a copy of a recording is many files
        held = {file.name: size for file, size in zip(task.files, sizes, strict=False)}
        largest = max([largest, *(3 * sum(held.get(file.name, 0.0) for file in listed.files) for listed in task.recordings)])
    return int(_INTERPRETER[task.source.kind] + _PEAK[task.source.kind] * largest)


def _in_memory(path: Path, size: int) -> float:
    """Float64 bytes of a file's samples: from what it unfolds to, where it is compressed."""
    suffix = path.suffix.lower()
    try:
        held = held_bytes(path)
    except OSError:
        held = size
    if held > size:  # what is unfolded holds samples of at least 16 bits; text takes more room than its numbers
        inner = Path(path.stem).suffix.lower() if suffix == ".gz" else suffix
        return held * {".fif": 4.0, ".set": 2.0, ".mat": 2.0}.get(inner, _GROWTH.get(inner, 2.0))
    return size * _GROWTH.get(suffix, 2.0)


def store_memory(group: Path) -> int:
    """The same for a subject of a recordings store."""
    sizes = [math.prod(read_node(path)["shape"]) * 8.0 for path in group.glob("*/zarr.json")]
    return int(_INTERPRETER["files"] + _PEAK["files"] * max(sizes, default=0.0))


def make_plan(
    tasks: Sequence[Task], recipe: Recipe, done: Iterable[str] = (), workers: int = 1, caps: Mapping[str, int] | None = None
) -> list[PlanRow]:
    """A row for each data set.

    Args:
        done: names of subjects that are there already.
        workers: processes.
        caps: most windows of each subject by name, where a manifest wants a balanced draw.
    """
    finished, caps = set(done), caps or {}
    rows = []
    for dataset in dict.fromkeys(task.source.dataset for task in tasks):
        own = [task for task in tasks if task.source.dataset == dataset]
        todo = [task for task in own if task.name not in finished]
        # once: a plan of ten thousand files is mostly reading their headers
        read = [(task, read_headers(task)) for task in todo]
        counted = [count_windows(task, recipe, headers) for task, headers in read]
        unknown = [task for task, headers in read if not _length_known(task, headers)]
        short = sum(
            1 for task, (value, windows, _) in zip(todo, counted, strict=True) if value and not windows and task not in unknown
        )
        # the worst moment: the largest subjects at once
        memory = sorted((task_memory(task) for task in todo), reverse=True)[:workers]
        each = [min(windows, caps.get(task.name, windows)) for task, (_, windows, _) in zip(todo, counted, strict=True)]
        windows, most = sum(each), [_most(task, recipe) for task in unknown]
        whole = [(task, number) for (task, headers), number in zip(read, each, strict=True) if _whole_band(task, recipe, headers)]
        declared = sum(_declared_only(task, headers) for task, headers in read)
        rows.append(
            PlanRow(
                dataset=dataset,
                subjects=len(own),
                done=len(own) - len(todo),
                recordings=sum(recordings for recordings, _, _ in counted),
                windows=windows,
                bytes_in=sum(_source_bytes(task) for task in todo),
                bytes_out=windows * recipe.channels * recipe.window * 4,
                minutes=round(sum(size for _, _, size in counted) / _BYTES_PER_SECOND / 60 / max(1, min(workers, len(todo))), 2),
                memory=sum(memory),
                licence=own[0].source.licence or "unknown",
                note=_note(declared - len(unknown), len(unknown), short, recipe),
                names=who_is_who(own),
                unknown=len(unknown),
                windows_most=None if None in most else windows + sum(number or 0 for number in most),
                full_band_windows=sum(number for _, number in whole),
                full_band_people=tuple(sorted({task.person or task.name for task, _ in whole})),
            )
        )
    return rows


def archive_row(source: Source, people: Sequence[Expected], recipe: Recipe, workers: int = 1) -> PlanRow:
    """A data set of an archive that is not here, from its listing: windows only of recordings whose length is listed."""
    each = [count_headers(person.headers, recipe) for person in people]
    caps = [cap for cap in (recipe.max_per_subject, source.max_per_subject) if cap is not None]
    windows = [min([number, *caps]) for number, _ in each]
    unknown = [person for person in people if len(person.headers) < person.recordings]
    # originals in 16 or 24 bits, of which a listing tells no more than the bytes
    sizes = [max(size, float(person.bytes) * 2.0) for person, (_, size) in zip(people, each, strict=True)]
    largest = sorted((size / max(1, person.recordings) for person, size in zip(people, sizes, strict=True)), reverse=True)[
        :workers
    ]
    whole = [
        (person, number)
        for person, number in zip(people, windows, strict=True)
        if person.headers and all(fits(rate, recipe.high) for _, _, rate in person.headers)
    ]
    return PlanRow(
        dataset=source.dataset,
        subjects=len(people),
        done=0,
        recordings=sum(person.recordings for person in people),
        windows=sum(windows),
        bytes_in=sum(person.bytes for person in people),
        bytes_out=sum(windows) * recipe.channels * recipe.window * 4,
        minutes=round(sum(sizes) / _BYTES_PER_SECOND / 60 / max(1, min(workers, len(people))), 2),
        memory=int(sum(_INTERPRETER[source.kind] + _PEAK[source.kind] * size for size in largest)),
        licence=source.licence or "unknown",
        note=f"not here yet: from the listing of {source.spec}",
        unknown=len(unknown),
        windows_most=sum(windows) + len(unknown) * min(caps) if caps else None if unknown else sum(windows),
        full_band_windows=sum(number for _, number in whole),
        full_band_people=tuple(f"{source.dataset}/{person.subject}" for person, _ in whole),
    )


# what `read_headers` gives for a subject
_Headers = Sequence[tuple[int, int, float]]


def _length_known(task: Task, headers: _Headers) -> bool:
    """Whether files or a catalogue say how long the recordings of a subject are."""
    return not _declared_only(task, headers) or bool(catalogue.entry(task.source.target).hours)


def _declared_only(task: Task, headers: _Headers) -> bool:
    """Whether nothing but a catalogue says how long the recordings of a subject are."""
    return task.source.kind == "moabb" and not headers


def _most(task: Task, recipe: Recipe) -> int | None:
    """Windows that a subject of unknown length can have at most; None where nothing limits them."""
    caps = [cap for cap in (recipe.max_per_subject, task.source.max_per_subject) if cap is not None]
    return min(caps) if caps else None


def _whole_band(task: Task, recipe: Recipe, headers: _Headers) -> bool:
    """Whether the rate of a subject's recordings carries the whole pass band."""
    if _declared_only(task, headers):
        rates = [catalogue.entry(task.source.target).sfreq or 0.0]
    else:
        rates = [rate for _, _, rate in headers]
    return bool(rates) and all(fits(rate, recipe.high) for rate in rates)


def _note(declared: int, unknown: int, short: int, recipe: Recipe) -> str:
    parts = [f"{count(declared, 'subject')} from MOABB's catalogue"] * bool(declared)
    parts += [f"{count(unknown, 'subject')} of unknown length"] * bool(unknown)
    parts += [f"{count(short, 'subject')} shorter than a window of {recipe.window} samples (see --short)"] * bool(short)
    return ", ".join(parts)


def local_row(tasks: Sequence[Task]) -> DownloadRow:
    """One local data set in the table of downloads: nothing of it has to be fetched."""
    source, size = tasks[0].source, sum(file.bytes for task in tasks for file in task.files)
    return DownloadRow(source.spec, source.dataset, len(tasks), len(tasks), size, source.licence, False, "local", source.doi)


def count_windows(task: Task, recipe: Recipe, headers: _Headers) -> tuple[int, int, float]:
    """(recordings, windows, float64 bytes) of a subject: from the headers of files, or from what MOABB declares."""
    if _declared_only(task, headers):
        return _declared(task, recipe)
    windows, size = count_headers(headers, recipe)
    return len(headers), _cap(windows, task, recipe), size


def count_headers(headers: _Headers, recipe: Recipe) -> tuple[int, float]:
    """(windows, float64 bytes) of recordings of (channels, samples, Hz)."""
    windows, size = 0, 0.0
    for n_channels, n_samples, sfreq in headers:
        samples = n_samples if recipe.resample is None else round(n_samples * recipe.resample / sfreq)
        fit = max(0, (samples - recipe.window) // recipe.stride + 1) if samples >= recipe.window else 0
        windows, size = windows + fit, size + 8.0 * n_channels * n_samples
    return windows, size


def _cap(windows: int, task: Task, recipe: Recipe) -> int:
    caps = [cap for cap in (recipe.max_per_subject, task.source.max_per_subject) if cap is not None]
    return min([windows, *caps])


def read_headers(task: Task) -> list[tuple[int, int, float]]:
    """(EEG channels, samples, Hz) of each recording of a subject whose file says so.

    Of MOABB's files: empty unless every one of a format with such a header can be read and they are most of the subject's bytes.
    """
    if task.source.kind != "moabb":
        own = [_header(Path(task.root) / listed.main, task) for listed in task.recordings if not listed.problem]
        return [header for header in own if header is not None]
    # a class may name more files than it gives with these options
    given = catalogue.known_files(task.source.target, task.subject, task.source.options)
    files = [file for file in task.files if not given or file.name in given]
    files = [file for file in files if Path(file.name).suffix.lower() not in _COMPANIONS]
    with_header = [file for file in files if Path(file.name).suffix.lower() in _HEADER_FORMATS]
    if 2 * sum(file.bytes for file in with_header) < sum(file.bytes for file in files):
        return []
    headers = [_header(Path(task.root) / file.name, task) for file in with_header]
    return [header for header in headers if header is not None] if all(headers) else []


def _header(path: Path, task: Task) -> tuple[int, int, float] | None:
    """(EEG channels, samples, Hz) of a file, None when it is none that can be read."""
    try:
        with openable(path) as actual:
            content = open_content(actual, task.reading)
        rows, _, _ = choose(content.channels, task.reading, path.name)
    except Exception:  # the build itself will say what is wrong with it
        return None
    rate = content.channels[rows[0]].rate
    return len(rows), round(content.seconds * rate), rate


def _source_bytes(task: Task) -> int:
    """Of the files, or the share of what MOABB's mirror declares when they are not here."""
    if task.files or task.source.kind != "moabb":
        return sum(file.bytes for file in task.files)
    entry = catalogue.entry(task.source.target)
    return round((entry.bytes or 0) / max(1, entry.n_subjects))


def _declared(task: Task, recipe: Recipe) -> tuple[int, int, float]:
    entry = catalogue.entry(task.source.target)
    share = catalogue.share_given(entry.name, task.source.options) / max(1, entry.n_subjects)
    seconds = (entry.hours or 0.0) * 3600 * share
    sfreq = entry.sfreq or 0.0
    samples = seconds * (recipe.resample or sfreq)
    recordings = round((entry.recordings or entry.sessions * entry.n_subjects) * share)
    size = sum(file.bytes * _GROWTH.get(Path(file.name).suffix.lower(), 2.0) for file in task.files)
    size = size or samples * (entry.channels or 0) * 8.0
    return max(1, recordings), _cap(int(samples // recipe.stride), task, recipe), float(size)


def totals(rows: Sequence[PlanRow]) -> dict[str, object]:
    """The sums of a plan."""
    keys = ("subjects", "done", "recordings", "windows", "bytes_in", "bytes_out")
    sums: dict[str, object] = {key: sum(getattr(row, key) for row in rows) for key in keys}
    most = [row.windows_most for row in rows]
    sums["unknown"] = sum(row.unknown for row in rows)
    sums["windows_most"] = None if None in most else sum(number or 0 for number in most)
    sums["full_band_windows"] = sum(row.full_band_windows for row in rows)
    sums["full_band_people"] = len({person for row in rows for person in row.full_band_people})
    return {**sums, "minutes": round(sum(row.minutes for row in rows), 2), "memory": max((row.memory for row in rows), default=0)}
