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
from eegprep.catalogue.manifests import ARCHIVES, Source
from eegprep.catalogue.subjects import subject_tokens
from eegprep.download import fetch
from eegprep.errors import ToolkitError
from eegprep.folders import default_data_dir
from eegprep.readers.content import Reading, to_recording
from eegprep.readers.formats import open_content
from eegprep.recording import Finding, Origin, Recording, Unreadable
from eegprep.sources.bids import sidecars_of
from eegprep.sources.companions import openable
from eegprep.sources.listing import Listed, Task, file_names, list_tasks
from eegprep.sources.moabb import read_moabb
from eegprep.sources.sidecars import with_sidecars


def read_task(task: Task) -> Iterator[Recording | Unreadable]:
    """The recordings of one subject, one in memory at a time where the loader allows, in natural order of session and run."""
    if task.problem is not None:
        yield Unreadable.because(task.origin("0", "0", task.files), task.problem)
        return
    for item in _read_moabb(task) if task.source.kind == "moabb" else _read_local(task):
        yield item if isinstance(item, Unreadable) or task.source.scale is None else scaled(item, task.source.scale)


def read_source(
    source: str | Source, data_dir: Path | None = None, *, subjects: Sequence[str] | None = None, offline: bool = False
) -> Iterator[Recording]:
    """Recordings of a SOURCE or manifest, one at a time; the first that cannot be read raises its error."""
    sources = (source,) if isinstance(source, Source) else manifests.load([source]).sources
    if subjects is not None:
        sources = tuple(item.model_copy(update={"subjects": subject_tokens(",".join(subjects))}) for item in sources)
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
    with openable(path) as actual:
        return to_recording(open_content(actual, reading), origin, reading, keep_private=keep_private)


def scaled(recording: Recording, factor: float) -> Recording:
    """Values times `factor`, with a finding that says so: for files whose unit is not what they declare."""
    finding = Finding("scale", recording.name, None, factor, None, "noted", f"all values were multiplied by {factor:g} (--scale)")
    return replace(
        recording,
        signal_CT=recording.signal_CT * recording.signal_CT.dtype.type(factor),
        offsets=tuple(offset * factor for offset in recording.offsets),
        findings=(*recording.findings, finding),
    )


def _read_moabb(task: Task) -> Iterator[Recording | Unreadable]:
    try:
        fetch.check(task.files, Path(task.root))
    except ToolkitError as error:
        yield Unreadable.because(task.origin("0", "0", task.files), error)
        return
    yield from read_moabb(task)


def _read_local(task: Task) -> Iterator[Recording | Unreadable]:
    for listed in task.recordings:
        origin = task.origin(listed.session, listed.run, listed.files)
        try:
            if listed.problem is not None:
                raise listed.problem
            fetch.check(listed.files, Path(task.root))
            recording = (_read_file if task.source.kind == "files" else _read_bids)(task, listed, origin)
        except Exception as error:
            yield Unreadable.because(origin, error)
        else:
            notes = [Finding(code, recording.name, None, None, None, "noted", text) for code, text in listed.oddities]
            yield replace(recording, findings=(*notes, *recording.findings))


def _read_file(task: Task, listed: Listed, origin: Origin) -> Recording:
    return read_file(Path(task.root) / listed.main, origin, reading=task.reading, keep_private=task.keep_private)


def _read_bids(task: Task, listed: Listed, origin: Origin) -> Recording:
    main = Path(task.root) / listed.main
    # a data set of an archive is a BIDS folder in the data folder
    roots = [Path(task.root if source.kind in ARCHIVES else source.target) for source in (task.source, *task.also)]
    root = next(root for root in roots if main.is_relative_to(root))
    with openable(main) as path:
        content, reference = with_sidecars(open_content(path, task.reading), sidecars_of(root, main))
        return to_recording(
            content, replace(origin, reference=reference or origin.reference), task.reading, keep_private=task.keep_private
        )
