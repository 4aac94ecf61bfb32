"""Recordings of MOABB's data set classes: a subject, or less where the class allows, in memory at a time.

What its loaders only log, and the sessions and runs that they leave out, become `Unreadable`s. Shapes: C channels, T samples.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eegprep import folders
from eegprep.catalogue import moabb as catalogue
from eegprep.download import moabb_child as moabb_files
from eegprep.download import network
from eegprep.errors import SourceError
from eegprep.offline import NetworkGuard, no_network
from eegprep.provenance import installed
from eegprep.readers.content import both
from eegprep.readers.raws import annotation_events, from_raw, quiet_mne
from eegprep.readers.triggers import onsets
from eegprep.recording import Event, Origin, Recording, SourceFile, Unreadable, natural_key, path_part

if TYPE_CHECKING:
    from mne.io import BaseRaw

    from eegprep.sources.listing import Task


@contextmanager
def moabb_environment(data_dir: Path, offline: bool) -> Iterator[NetworkGuard | None]:
    """MOABB reads what lies in `data_dir`, in the upstream layout, and leaves the user's MNE configuration alone."""
    values = moabb_files.environment(data_dir)
    folders.state_folder(data_dir).joinpath("home").mkdir(parents=True, exist_ok=True)
    # put back afterwards: the caller's other MOABB code must see its own folders
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        if offline:
            with no_network() as guard:
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


def read_moabb(task: Task) -> Iterator[Recording | Unreadable]:
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
        with _LoaderLog() as log, quiet_mne():
            loaded = _load_part(part, task, origin)
            if isinstance(loaded, Unreadable):
                yield loaded
                continue
            data, opened = loaded
            names = [(session, run) for session in data for run in data[session]]
            for session, run in sorted(names, key=lambda name: (natural_key(name[0]), natural_key(name[1]))):
                run_name = run if part.rename is None else part.rename
                own = replace(origin, session=path_part(session), run=path_part(run_name), sources=opened)
                sessions.add(session)
                seen += 1
                try:
                    raw = data[session].pop(run)  # popped, so that each run is freed before the next is converted
                    recording = _from_moabb(raw, own, part.dataset, entry.joined_epochs, task)
                    del raw
                except Exception as error:
                    yield Unreadable.because(own, error)
                else:
                    yield recording
                    del recording
        if log.failures:
            lost = replace(origin, session=sorted(sessions)[-1] if sessions else "0", run="lost")
            yield Unreadable.because(lost, SourceError(f"{task.name}: the loader left out files: {log.failures[0]}", _LOST_FIX))
    # other loaders raise: there, a missing session is a person who did not come back
    if len(sessions) < expected and (entry.may_hide_errors or not seen):
        problem = f"{task.name}: the loader gave {len(sessions)} sessions with {seen} runs, declared are {expected} sessions"
        yield Unreadable.because(replace(origin, session="missing", run="sessions"), SourceError(problem, _LOST_FIX))


_LOST_FIX = "fetch the subject again; if that does not help, the data set itself lacks them"


def _load_part(
    part: _Part, task: Task, origin: Origin
) -> tuple[dict[str, dict[str, object]], tuple[SourceFile, ...]] | Unreadable:
    """Sessions and runs of one part, and the files that it opened. First without the network: what is needed was fetched."""
    from moabb.datasets.preprocessing import FixedPipeline

    data_dir = Path(task.root)
    subject = next((known for known in part.dataset.subject_list if str(known) == task.subject), None)
    if subject is None:
        return Unreadable.because(
            origin, SourceError(f"{task.name}: MOABB knows no such subject", "choose one that `eegprep datasets` lists")
        )
    # a loader that finds its files asks for no network; only where it did ask, it may
    for offline in (True, False):
        with moabb_environment(data_dir, offline) as guard, network.files_opened(data_dir) as opened:
            try:
                # the pipeline without steps leaves the loader's own annotations; the default one drops an event at sample 0
                data = part.dataset.get_data([subject], process_pipeline=FixedPipeline([]))[subject]
            except Exception as error:
                if task.offline or guard is None or not guard.refused:
                    return Unreadable.because(replace(origin, run=part.rename or "0"), error)
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


def _from_moabb(raw: BaseRaw, origin: Origin, dataset: Any, joined: bool, task: Task) -> Recording:
    event_id, interval = dict(dataset.event_id), tuple(dataset.interval or (0.0, 0.0))
    events = moabb_events(raw, event_id, interval)
    recording = from_raw(raw, origin, events=events, reading=task.reading, keep_private=task.keep_private)
    recording = replace(recording, software=installed("mne", "moabb"))
    if joined:
        cues = [round((event.onset - interval[0]) * recording.sfreq) for event in events if event.label in event_id]
        pieces = joined_segments(recording.signal_CT, sorted(set(cues)), round(float(interval[1]) * recording.sfreq))
        recording = replace(recording, segments=both(pieces, recording.segments))
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
    # a filled sample before and after: every stretch then has two edges
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
                for sample in onsets(values_T)
                if int(values_T[sample]) in codes
            ]
    if not events:
        events = [
            replace(event, onset=round(event.onset + interval[0], 9), duration=length)
            for event in annotation_events(raw)
            if event.label in event_id
        ]
    events += [event for event in annotation_events(raw) if event.is_bad]
    return sorted(events, key=lambda event: (event.onset, event.label))
