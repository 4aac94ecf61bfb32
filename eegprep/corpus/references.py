"""Windows of a view: cut and filtered from the recordings when they are asked for.

A window of an EDF, BDF or BrainVision file, or of a zarr copy, takes the data records or chunks that it lies in and the margin of the filter. Where that is not enough
(another format, another rate, a notch, a stretch of time that was stretched, an interpolated cap), the recording is read and
filtered whole, as `build` does it, and kept for the windows that follow.

Legend: N windows, C channels, T samples.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from eegprep.corpus.files import REPAIR, Files
from eegprep.corpus.groups import Group, read_attributes, read_column
from eegprep.errors import SourceError, StoreError
from eegprep.readers.frames import Frames
from eegprep.readers.integers import Integers
from eegprep.readers.ranges import Ranges
from eegprep.recording import Recording, Unreadable
from eegprep.signals import gates, windows
from eegprep.signals.filters import PieceFilter
from eegprep.signals.process import process
from eegprep.signals.recipe import Recipe, make_recipe
from eegprep.signals.windows import ChannelPlan, Cut
from eegprep.sources.listing import Task
from eegprep.sources.reading import read_task
from eegprep.store.format import RECORDS

# filtered recordings are kept up to this many bytes in each process; an hour of 64 channels at 250 Hz takes 230 MB
KEPT_BYTES = 1_000_000_000


@dataclass(frozen=True)
class _Piecewise:
    """A recording of which single windows can be had. segments: sample ranges without a seam."""

    integers: Integers | Frames | Ranges
    checksums_R: np.ndarray
    filter: PieceFilter
    rows: ChannelPlan
    segments: tuple[tuple[int, int], ...]

    def fill(self, start: int, out_CT: np.ndarray) -> None:
        """Write the window that begins at sample `start`."""
        segment = next(segment for segment in self.segments if segment[0] <= start < segment[1])
        reach = self.filter.reach(start, segment)

        def fill(piece_CT: np.ndarray) -> None:
            self.integers.read(*reach, self.checksums_R, piece_CT)

        self.rows.fill(self.filter.apply(fill, len(self.integers.places), start, reach), out_CT)


@dataclass(frozen=True)
class _Whole:
    """A recording that was filtered whole."""

    signal_CT: np.ndarray
    rows: ChannelPlan
    lengths: Mapping[int, int]  # samples taken where they are not those of a window, by start

    def fill(self, start: int, out_CT: np.ndarray) -> None:
        samples = out_CT.shape[-1]
        length = self.lengths.get(start, samples)
        cut = Cut(np.array([start]), np.array([length]), (None,))
        out_CT[...] = windows.make_windows(self.signal_CT, cut, self.rows, samples)[0]


class References:
    """All windows of a view, in the place of a corpus's shards. Safe to use from several threads, and after a fork."""

    def __init__(self, url: str, root: Mapping[str, Any], groups: Sequence[Group], files: Files) -> None:
        self._url, self._groups, self._files = url, tuple(groups), files
        self._recipe_json, self._samples = root["recipe"], int(root["samples"])
        self._ends = np.cumsum([group.windows for group in groups], dtype=np.int64)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._subjects: dict[int, _Subject] = {}
        self._piecewise: dict[tuple[int, int], _Piecewise | None] = {}
        self._whole: OrderedDict[tuple[int, int], _Whole] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        own = ("_lock", "_subjects", "_piecewise", "_whole", "_recipe")
        return {key: value for key, value in self.__dict__.items() if key not in own}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @cached_property
    def _recipe(self) -> Recipe:
        return make_recipe(**self._recipe_json)

    def read(self, index_N: np.ndarray, out_NCT: np.ndarray, rows_N: np.ndarray) -> None:
        """Write windows `index_N` into rows `rows_N` of `out_NCT`, recording by recording.

        Raises:
            StoreError: a recording is not there, or not as it was when it was indexed.
        """
        for k in np.argsort(index_N).tolist():
            index = int(index_N[k])
            number = int(np.searchsorted(self._ends, index, side="right"))
            subject = self._subject(number)
            row = index - int(self._ends[number]) + self._groups[number].windows
            recording, start = int(subject.recording_N[row]), int(subject.start_N[row])
            try:
                source = self._source(number, recording)
                source.fill(start, out_NCT[rows_N[k]])
            except SourceError as error:
                raise StoreError(f"{self._url}: window {index} cannot be made: {error.problem}", error.fix) from None
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, StopIteration) as error:
                reason = f"{type(error).__name__}: {error}"[:200]
                raise StoreError(f"{self._url}: what it says of window {index} cannot be followed ({reason})", REPAIR) from None

    def _subject(self, number: int) -> _Subject:
        with self._lock:
            result = self._subjects.get(number)
        if result is None:
            group = self._groups[number]
            attributes = read_attributes(self._files, group, self._url)
            recording_N, start_N, checksums = (
                read_column(self._files, group, name, self._url) for name in ("recording", "start", RECORDS)
            )
            try:
                result = _Subject(recording_N, start_N, checksums, attributes["recordings"], attributes["view"])
            except KeyError as error:
                raise StoreError(f"{self._url}/{group.key}: its attributes lack {error}", REPAIR) from None
            with self._lock:
                self._subjects[number] = result
        return result

    def _source(self, number: int, recording: int) -> _Piecewise | _Whole:
        key = (number, recording)
        with self._lock:
            known = key in self._piecewise
            piecewise, whole = self._piecewise.get(key), self._whole.get(key)
            if whole is not None:
                self._whole.move_to_end(key)
        if not known:
            piecewise = self._subjects[number].piecewise(recording, self._recipe, self._samples)
            with self._lock:
                self._piecewise[key] = piecewise
        if piecewise is not None:
            return piecewise
        if whole is None:
            whole = self._subjects[number].whole(recording, self._recipe)
            with self._lock:
                self._whole[key] = whole
                while len(self._whole) > 1 and sum(kept.signal_CT.nbytes for kept in self._whole.values()) > KEPT_BYTES:
                    self._whole.popitem(last=False)
        return whole


@dataclass(frozen=True)
class _Subject:
    """What a view says of a subject. records: of its recordings; view: see `store.view`."""

    recording_N: np.ndarray
    start_N: np.ndarray
    checksums: np.ndarray
    records: Sequence[Mapping[str, Any]]
    view: Mapping[str, Any]

    def piecewise(self, number: int, recipe: Recipe, samples: int) -> _Piecewise | None:
        """The recording, if single windows of it can be had."""
        record, placed = self.records[number], self.view["integers"][number]
        own_rate = recipe.resample is None or float(record["sfreq"]) == float(record["original_sfreq"])
        if placed is None or not own_rate or recipe.notch is not None or recipe.mode == "spline" or record.get("stretched"):
            return None
        kind: type[Integers] | type[Frames] | type[Ranges] = (
            Ranges if "group" in placed else Frames if "type" in placed else Integers
        )
        integers = kind.from_json({key: value for key, value in placed.items() if key != "first_record"})
        band = record["filter"]
        piece = PieceFilter(float(record["sfreq"]), band["low"], band["high"], samples)
        segments = tuple((int(first), int(last)) for first, last in record["segments"])
        if any(last - first <= piece.margin for first, last in segments):
            return None  # a reflected end would reach past the other one
        first = int(placed["first_record"])
        rows = ChannelPlan(tuple(record["pad_map"]))
        return _Piecewise(integers, self.checksums[first : first + integers.records], piece, rows, segments)

    def whole(self, number: int, recipe: Recipe) -> _Whole:
        """The recording, read and filtered again."""
        record = self.records[number]
        item = self._read(str(record["session"]), str(record["run"]))
        recording = gates.gate_cut(process(item, recipe).recording, recipe)
        del item
        if list(recording.channels) != list(record["channels"]) or recording.signal_CT.shape[1] != record["n_samples"]:
            raise SourceError(
                f"{recording.name}: gives {len(recording.channels)} channels of {recording.signal_CT.shape[1]:,} samples, when it was "
                f"indexed it gave {record['n_channels']} of {record['n_samples']:,}",
                "index the recordings again",
            )
        lengths = {int(start): int(length) for start, length in record.get("stretched", ())}
        return _Whole(recording.signal_CT, windows.plan_channels(recording, recipe), lengths)

    def _read(self, session: str, run: str) -> Recording:
        task = Task.from_json(self.view["reading"])
        if task.recordings:
            task = replace(task, recordings=tuple(item for item in task.recordings if (item.session, item.run) == (session, run)))
        name = f"{task.name}/{session}.{run}"
        for item in read_task(task):
            if item.name != name:
                continue
            if isinstance(item, Unreadable):
                raise SourceError(item.error.problem, item.error.fix)
            return item
        raise SourceError(f"{name}: is not among the recordings any more", "index the recordings again")
