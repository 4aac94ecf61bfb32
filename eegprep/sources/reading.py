"""Read recordings, one at a time: MOABB classes, BIDS folders, any file MNE reads, and `mne.io.Raw` objects.

Everything that comes out is float32 in uV with EEG channels only, events in s from the first sample, and no names, birthdays or
dates. A recording that cannot be read comes out as an `Unreadable`, so that it never takes the others with it.
Shapes: C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from eegprep.catalogue import manifests
from eegprep.catalogue.manifests import Source
from eegprep.download import fetch
from eegprep.errors import ToolkitError
from eegprep.folders import default_data_dir
from eegprep.readers.content import Content, Reading, is_seam, merge, to_recording
from eegprep.readers.formats import open_content
from eegprep.readers.raws import content_of, quiet_mne
from eegprep.recording import Origin, Recording, Unreadable, natural_key, path_part
from eegprep.sources.listing import Task, file_names, list_tasks
from eegprep.sources.moabb import read_moabb


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


def read_file(
    path: Path, origin: Origin | None = None, *, reading: Reading | None = None, keep_private: bool = False
) -> Recording:
    """One file of any format.

    Raises:
        SourceError: it is missing, damaged, no EEG file, or holds no EEG channel.
    """
    origin = origin or Origin("files", *file_names(Path(path.name)))
    return to_recording(open_content(path, reading), origin, reading, keep_private=keep_private)


def _read_files(task: Task) -> Iterator[Recording | Unreadable]:
    items = []
    for file in task.files:
        _, session, run = file_names(Path(file.name), task.source.pattern)
        items.append((natural_key(session), natural_key(run), session, run, file))
    for _, _, session, run, file in sorted(items, key=lambda item: item[:2]):
        origin = task.origin(session, run, (file,))
        try:
            fetch.check([file], Path(task.root))
            recording = read_file(Path(task.root) / file.name, origin, reading=task.reading, keep_private=task.keep_private)
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
            content = open_content(path.fpath, task.reading)
            with quiet_mne():
                content = _with_sidecars(content, content_of(mne_bids.read_raw_bids(path, verbose="error")))
            recording = to_recording(content, origin, task.reading, keep_private=task.keep_private)
        except Exception as error:
            yield Unreadable.because(origin, error)
        else:
            yield recording


def _with_sidecars(content: Content, told: Content) -> Content:
    """A file with what its BIDS sidecars say: kinds, bad channels, places, events; its seams stay its own."""
    channels = list(content.channels)
    by_name = {channel.name: channel for channel in told.channels}
    for row, channel in enumerate(channels):
        other = told.channels[row] if len(told.channels) == len(channels) else by_name.get(channel.name, channel)
        kind = other.kind if other.kind != "eeg" else channel.kind
        channels[row] = replace(channel, kind=kind, bad=other.bad, place=other.place or channel.place)
    rate = channels[0].rate if channels else 1.0
    seams = tuple(note for note in content.notes if is_seam(note))
    notes = merge([note for note in told.notes if not is_seam(note)], [note for note in content.notes if not is_seam(note)], rate)
    seams += tuple(note for note in told.notes if is_seam(note))
    return replace(content, channels=tuple(channels), notes=(*notes, *seams), line_freq=told.line_freq or content.line_freq)
