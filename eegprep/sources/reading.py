"""Read recordings, one at a time: MOABB classes, BIDS folders, any file MNE reads, and `mne.io.Raw` objects.

Everything that comes out is float32 in uV with EEG channels only, events in s from the first sample, and no names, birthdays or
dates. A recording that cannot be read comes out as an `Unreadable`, so that it never takes the others with it.
Shapes: C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from eegprep.catalogue import manifests
from eegprep.catalogue.manifests import Source
from eegprep.download import fetch
from eegprep.errors import ToolkitError
from eegprep.folders import default_data_dir
from eegprep.recording import Recording, Unreadable, natural_key, path_part
from eegprep.sources import edf
from eegprep.sources.listing import Task, file_names, list_tasks
from eegprep.sources.moabb import read_moabb
from eegprep.sources.raws import EDF_LIKE, from_raw, quiet_mne, read_file


def read_task(task: Task) -> Iterator[Recording | Unreadable]:
    """The recordings of one subject, one in memory at a time where the loader allows, in natural order of session and run."""
    if task.problem is not None:
        yield Unreadable.because(task.origin("0", "0", task.files), task.problem)
        return
    if task.source.kind != "files":
        try:
            fetch.check(task.files, Path(task.root))
        except ToolkitError as error:
            yield Unreadable.because(task.origin("0", "0", task.files), error)
            return
    reader = {"moabb": read_moabb, "files": _read_files, "bids": _read_bids}[task.source.kind]
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


def _read_files(task: Task) -> Iterator[Recording | Unreadable]:
    items = []
    for file in task.files:
        _, session, run = file_names(Path(file.name), task.source.pattern)
        items.append((natural_key(session), natural_key(run), session, run, file))
    for _, _, session, run, file in sorted(items, key=lambda item: item[:2]):
        origin = task.origin(session, run, (file,))
        try:
            fetch.check([file], Path(task.root))
            recording = read_file(Path(task.root) / file.name, origin, keep_private=task.keep_private)
        except Exception as error:
            yield Unreadable.because(origin, error)
        else:
            yield recording


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
        origin = task.origin(session, path_part(run), tuple(file for file in task.files if file.name.startswith(stem)))
        try:
            if path.extension in EDF_LIKE:
                edf.read_header(path.fpath)
            with quiet_mne():
                raw = mne_bids.read_raw_bids(path, verbose="error")
                recording = from_raw(raw, origin, keep_private=task.keep_private)
        except Exception as error:
            yield Unreadable.because(origin, error)
        else:
            yield recording
