"""A corpus to read from: tables of what is in it, and windows in any order at the speed of memory.

Legend: N windows, C channels, T samples.
"""

from __future__ import annotations

import copy
import hashlib
import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from eegprep.corpus import views
from eegprep.corpus.files import Files
from eegprep.corpus.groups import Group, read_attributes, read_column, read_groups
from eegprep.corpus.opening import open_files
from eegprep.corpus.shards import Shards
from eegprep.errors import UsageError
from eegprep.pool import _Threads, free_processors
from eegprep.settings import suggest
from eegprep.store.format import COLUMNS, VIEW_FORMAT
from eegprep.store.names import check_relative

_RECORDING_COLUMNS = [
    *("group", "recording", "dataset", "subject", "person", "session", "run"),
    *("sfreq", "original_sfreq", "n_channels", "licence", "windows"),
]

SMALL_READ = 16  # windows; below this a second thread costs more than it brings


class Windows(Protocol):
    """What a corpus reads its windows from."""

    def read(self, index_N: np.ndarray, out_NCT: np.ndarray, rows_N: np.ndarray) -> None:
        """Write windows `index_N` into rows `rows_N` of `out_NCT`."""


class Corpus:
    """Windows of many subjects as one long array, with tables of subjects and recordings.

    `len(corpus)` windows of `corpus.channels` rows and `corpus.samples` samples, float32 in uV. `corpus[3]`, `corpus[0:4]` and
    `corpus[[3, 17]]` read windows; `corpus.select(...)` and `corpus.take(...)` give a smaller corpus without reading.
    Safe to use from several threads, and in processes that were forked or spawned after it was opened.
    Indices count windows over all groups in the order of their names; a selection counts its own windows from 0.
    """

    def __init__(self, url: str, root: Mapping[str, Any], groups: Sequence[Group], files: Files) -> None:
        """Use `Corpus.open`."""
        self.url, self.attributes = url, root
        self.channels, self.samples = root["channels"], root["samples"]
        self._groups, self._files = tuple(groups), files
        self._shards: Windows = Shards([shard for group in groups for shard in group.shards], files)
        if root["format"] == VIEW_FORMAT:
            from eegprep.corpus.references import References  # not at the top: it brings the readers and the filter

            self._shards = References(url, root, groups, files)
        self._ends = np.cumsum([group.windows for group in groups], dtype=np.int64)
        self._rows: np.ndarray | None = None  # of a selection: sorted indices into the whole corpus
        self._nodes: dict[str, dict[str, object]] = {}  # attributes of groups, read when asked for
        self._tables: dict[str, pd.DataFrame] = {}
        self._threads = _Threads()

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        *,
        options: Mapping[str, Any] | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_limit: int = 20_000_000_000,
    ) -> Corpus:
        """Open a corpus.

        Example:
            >>> import eegprep
            >>> corpus = eegprep.Corpus.open("corpus.zarr")
            >>> corpus
            Corpus('corpus.zarr': 148 windows of (128, 512), 2 subjects, 4 recordings, PhysionetMI, 128 and 160 Hz)
            >>> corpus[0:4].shape
            (4, 128, 512)

        Args:
            url: a folder, or s3://, gs://, az://, https://, hf://datasets/OWNER/NAME[@REVISION], memory:// and what else fsspec knows.
            options: for an object store, for instance {"endpoint": "http://localhost:5000", "skip_signature": True};
                credentials otherwise come from the usual environment variables.
            cache: folder in which to keep what was fetched from an object store.
            cache_limit: bytes that the cache may take.

        Raises:
            StoreError: there is no corpus, it is damaged, or a subject in it is not whole or is another than it was finished with.
        """
        files = open_files(os.fspath(url), options=options, cache=cache, cache_limit=cache_limit)
        url = getattr(getattr(files, "origin", files), "url", url)  # on the Hub: with the commit that is read
        root, groups, attributes = read_groups(files, str(url))
        corpus = cls(str(url), root, groups, files)
        corpus._nodes = attributes
        return corpus

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_nodes": {}, "_tables": {}}  # small, for worker processes

    def __len__(self) -> int:
        return self._total if self._rows is None else len(self._rows)

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """One window (channels, samples), or several (N, channels, samples): a number, a slice, a list, or a mask of booleans."""
        if isinstance(index, slice):
            return self.read(np.arange(len(self))[index])
        chosen = np.asarray(index)
        if chosen.ndim == 0:
            return self.read([operator.index(index)])[0]  # type: ignore[arg-type]
        if chosen.dtype != bool:
            return self.read(chosen)
        if len(chosen) != len(self):
            raise UsageError(f"{self.url}: a mask of {len(chosen)} for {len(self)} windows", "give one value per window")
        return self.read(np.flatnonzero(chosen))

    def __repr__(self) -> str:
        return f"Corpus({self.url!r}: {views.contents(self.shape, self.subjects, self.recordings)})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, channels, samples), as of an array."""
        return len(self), self.channels, self.samples

    @property
    def channel_names(self) -> list[str]:
        """The source channels of the recordings, in the order of the first; `channels` is the number of rows of a window.

        Raises:
            UsageError: the recordings have different channels.
        """
        present = self._counted(self._recordings_of_all())
        records = [
            self._attributes(self._groups[g])["recordings"][r]
            for g, r in zip(present["group"], present["recording"], strict=True)
        ]
        lists = {tuple(record["channels"]) for record in records}
        if len(lists) != 1:
            raise UsageError(
                f"{self.url}: the recordings have {len(lists)} lists of channels", "select one data set or subject first"
            )
        return list(lists.pop())

    @property
    def survives_fork(self) -> bool:
        """Whether worker processes may be forked: not for object stores, whose client has threads of its own."""
        return self._files.survives_fork

    @property
    def _total(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def subjects(self) -> pd.DataFrame:
        """One row a subject: dataset, subject, person, recordings, windows; of a selection, what is left of them."""
        if "subjects" not in self._tables:
            counted = self._counted(self._recordings_of_all())
            group = counted["group"].to_numpy(np.int64)
            frame = pd.DataFrame(
                [[a["dataset"], a["subject"], a["person"]] for a in map(self._attributes, self._groups)],
                columns=["dataset", "subject", "person"],
            )
            frame["recordings"] = np.bincount(group, minlength=len(frame))
            frame["windows"] = np.bincount(group, counted["windows"], minlength=len(frame)).astype(np.int64)
            self._tables["subjects"] = frame if self._rows is None else frame[frame["windows"] > 0].reset_index(drop=True)
        return self._tables["subjects"]

    @property
    def recordings(self) -> pd.DataFrame:
        """One row a recording that has windows: dataset, subject, session, run, sfreq (Hz), channels, licence, windows."""
        if "recordings" not in self._tables:
            self._tables["recordings"] = self._counted(self._recordings_of_all()).drop(columns="group").reset_index(drop=True)
        return self._tables["recordings"]

    def read(
        self, indices: Sequence[int] | np.ndarray, *, out: np.ndarray | None = None, threads: int | None = None
    ) -> np.ndarray:
        """Windows in the order asked for.

        Args:
            indices: any order, repeats allowed, negative ones count from the end.
            out: (N, channels, samples) float32, C-contiguous, to fill; made when not given.
            threads: how many read at once; default as many as processors are free, up to 4.

        Returns:
            (N, channels, samples) float32, uV.

        Raises:
            StoreError: a window is missing or damaged.
        """
        index_N = self.absolute(indices)
        out_NCT = np.empty((len(index_N), self.channels, self.samples), "<f4") if out is None else out
        shape = (len(index_N), self.channels, self.samples)
        if out_NCT.shape != shape or out_NCT.dtype != np.float32 or not out_NCT.flags.c_contiguous:
            raise UsageError(
                f"out is {out_NCT.dtype} {out_NCT.shape}, expected contiguous float32 {shape}",
                "give a fresh array of that shape, or none",
            )
        count = free_processors(4) if threads is None else threads
        if count <= 1 or len(index_N) < SMALL_READ:
            self._shards.read(index_N, out_NCT, np.arange(len(index_N)))
            return out_NCT
        # sorted first: each thread then works on shards of its own
        parts = np.array_split(np.argsort(index_N), count)
        work = self._threads.pool(count).map(lambda rows_N: self._shards.read(index_N[rows_N], out_NCT, rows_N), parts)
        for _ in work:
            pass
        return out_NCT

    def absolute(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Indices of this selection as indices into the whole corpus."""
        index_N = np.asarray(indices, np.int64).reshape(-1)
        n = len(self)
        bad_N = (index_N < -n) | (index_N >= n)
        if bad_N.any():
            raise UsageError(f"{self.url}: window {int(index_N[bad_N][0])} does not exist (it has {n})", f"use 0 to {n - 1}")
        index_N = np.where(index_N < 0, index_N + n, index_N)
        return index_N if self._rows is None else self._rows[index_N]

    @property
    def keys(self) -> list[str]:
        """`dataset/subject` of every group, in the order of the windows."""
        return [group.key for group in self._groups]

    @property
    def identity(self) -> str:
        """Digest of which windows these are, and of their bytes as the commit records name them."""
        content = hashlib.sha256(json.dumps([[group.key, group.windows, _content_of(group)] for group in self._groups]).encode())
        if self._rows is not None:
            content.update(self._rows.tobytes())
        return content.hexdigest()

    def group_of(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Which of `keys` each window belongs to."""
        return np.searchsorted(self._ends, self.absolute(indices), side="right")

    def positions(self, selection: Corpus) -> np.ndarray:
        """Indices in this corpus of the windows of a selection of it."""
        rows = selection.absolute(np.arange(len(selection)))
        return rows if self._rows is None else np.searchsorted(self._rows, rows)

    def column(self, name: str) -> np.ndarray:
        """`recording`, `start` or `label` of every window of this selection."""
        if name not in COLUMNS:
            raise UsageError(f"there is no column {name!r}{suggest(name, COLUMNS)}", f"use one of: {', '.join(COLUMNS)}")
        values = [self._column(group, name) for group in self._groups]
        whole = np.concatenate(values) if values else np.empty(0, COLUMNS[name])
        return whole if self._rows is None else whole[self._rows]

    @property
    def labels(self) -> np.ndarray:
        """The label of every window as text, None for none."""
        codes = self.column("label")
        group_N = self.group_of(np.arange(len(self)))
        names = [self._attributes(group)["labels"] for group in self._groups]
        return np.array([None if code < 0 else names[g][code] for g, code in zip(group_N, codes, strict=True)], object)

    def record(self, index: int) -> Mapping[str, Any]:
        """What is known of the recording a window came from: session, run, sfreq (Hz), channels, pad_map, band, licence, ..."""
        position = self.absolute([index])
        number = int(np.searchsorted(self._ends, position, side="right")[0])
        group = self._groups[number]
        row = int(position[0] - self._ends[number]) + group.windows
        return dict(self._attributes(group)["recordings"][int(self._column(group, "recording")[row])])

    def select(
        self,
        dataset: str | Iterable[str] | None = None,
        subjects: str | Iterable[str] | None = None,
        min_rate: float | None = None,
        licence: str | Iterable[str] | None = None,
        person: str | Iterable[str] | None = None,
        rate: float | None = None,
        max_rate: float | None = None,
    ) -> Corpus:
        """The windows that fit all that is given; nothing is read or copied.

        Args:
            dataset: name, or names.
            subjects: names of subjects, or `dataset/subject`.
            rate, min_rate, max_rate: sampling rate at which the recording is stored, its lowest and its highest value, Hz.
            licence: licence, or licences.
            person: person, or people, across data sets.

        Raises:
            UsageError: a name is not in the corpus, or no recording has that rate.

        Example:
            >>> import eegprep
            >>> corpus = eegprep.Corpus.open("corpus.zarr")
            >>> corpus.select(subjects="1").shape
            (117, 128, 512)
        """
        table = self._recordings_of_all()
        keep = np.ones(len(table), bool)
        full = table["dataset"] + "/" + table["subject"]
        for what, expected, columns in (
            ("data set", dataset, [table["dataset"]]),
            ("subject", subjects, [table["subject"], full]),
            ("licence", licence, [table["licence"]]),
            ("person", person, [table["person"]]),
        ):
            if expected is None:
                continue
            names = [expected] if isinstance(expected, str) else [str(name) for name in expected]
            known = set().union(*(column.unique() for column in columns))
            for name in names:
                if name not in known:
                    raise UsageError(
                        f"there is no {what} {name!r} in {self.url}{suggest(name, known)}",
                        f"see corpus.{'subjects' if what != 'licence' else 'recordings'}",
                    )
            keep &= np.logical_or.reduce([column.isin(names).to_numpy() for column in columns])
        # close, not equal: files store rates such as 499.999
        if rate is not None and not np.isclose(table["sfreq"], rate).any():
            known_rates = ", ".join(f"{one:g}" for one in sorted(set(table["sfreq"])))
            raise UsageError(f"no recording of {self.url} has {rate:g} Hz", f"use one of: {known_rates}")
        if rate is not None:
            keep &= np.isclose(table["sfreq"], rate)
        if min_rate is not None:
            keep &= (table["sfreq"] >= min_rate).to_numpy()
        if max_rate is not None:
            keep &= (table["sfreq"] <= max_rate).to_numpy()
        return self._with_rows(self._rows_of(table, keep))

    def take(self, indices: Sequence[int] | np.ndarray) -> Corpus:
        """A selection of just these windows, in the order of the corpus."""
        return self._with_rows(np.unique(self.absolute(indices)))

    def attributes_of(self, key: str) -> Mapping[str, Any]:
        """All attributes of the group `dataset/subject`."""
        if key not in self.keys:
            raise UsageError(f"there is no group {key!r} in {self.url}{suggest(key, self.keys)}", "see corpus.keys")
        return self._attributes(self._groups[self.keys.index(key)])

    def file(self, path: str) -> bytes:
        """The bytes of a file of the corpus; nothing outside of it is read."""
        return self._files.metadata(check_relative(path, self.url))

    def to_mne(self, index: int) -> Any:
        """One window as `mne.io.RawArray`: the recording's own channels, in V."""
        return views.to_mne(self, index)

    def to_epochs(self, rate: float | None = None) -> Any:
        """All windows as `mne.EpochsArray`, in V; for a selection of one rate and one channel list.

        Args:
            rate: only recordings that are stored at this rate, Hz.

        Raises:
            SignalError: the recordings differ in rate or channels, which epochs cannot.
        """
        return views.to_epochs(self if rate is None else self.select(rate=rate))

    def to_dask(self, chunk: int = 256) -> Any:
        """A Dask array (N, channels, samples) that reads `chunk` windows at a time."""
        return views.to_dask(self, chunk)

    def to_xarray(self, chunk: int = 256) -> Any:
        """An xarray data set with lazy `windows` (window, channel, time) and where each window comes from."""
        return views.to_xarray(self, chunk)

    def _with_rows(self, rows: np.ndarray) -> Corpus:
        other = copy.copy(self)  # shares open files and what is known of the shards
        other._tables = {}
        # sorted: shards are read in their order, whatever the order of selection
        other._rows = rows if self._rows is None else np.intersect1d(self._rows, rows, assume_unique=True)
        return other

    def _rows_of(self, table: pd.DataFrame, keep: np.ndarray) -> np.ndarray:
        """Windows of the recordings that are kept; only groups of which a part is kept need their column read."""
        rows = []
        groups = table["group"].to_numpy()
        records = table["recording"].to_numpy()
        for i, (group, end) in enumerate(zip(self._groups, self._ends, strict=True)):
            in_group = groups == i
            if not keep[in_group].any():
                continue
            if keep[in_group].all():
                rows.append(np.arange(end - group.windows, end))
            else:
                chosen = np.isin(self._column(group, "recording"), records[in_group & keep])
                rows.append(np.flatnonzero(chosen) + end - group.windows)
        return np.concatenate(rows).astype(np.int64) if rows else np.empty(0, np.int64)

    def _recordings_of_all(self) -> pd.DataFrame:
        rows = []
        for i, group in enumerate(self._groups):
            attributes = self._attributes(group)
            for j, record in enumerate(attributes["recordings"]):
                rows.append(
                    {
                        "group": i,
                        "recording": j,
                        "dataset": attributes["dataset"],
                        "subject": attributes["subject"],
                        "person": attributes["person"],
                        "session": record.get("session"),
                        "run": record.get("run"),
                        "sfreq": float(record.get("sfreq") or "nan"),
                        "original_sfreq": float(record.get("original_sfreq") or "nan"),
                        "n_channels": record.get("n_channels"),
                        "licence": record.get("licence") or "unknown",
                        "windows": int(record["windows"]),
                    }
                )
        return pd.DataFrame(rows, columns=_RECORDING_COLUMNS)

    def _counted(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table with the windows that this selection has, without recordings that have none left."""
        if self._rows is None:
            return table
        table = table.copy()
        group_N = np.searchsorted(self._ends, self._rows, side="right")
        counts: dict[tuple[int, int], int] = {}
        for i in np.unique(group_N):
            group, first = self._groups[i], self._ends[i] - self._groups[i].windows
            records, numbers = np.unique(self._column(group, "recording")[self._rows[group_N == i] - first], return_counts=True)
            counts |= {(int(i), int(r)): int(n) for r, n in zip(records, numbers, strict=True)}
        table["windows"] = [counts.get((g, r), 0) for g, r in zip(table["group"], table["recording"], strict=True)]
        return table[table["windows"] > 0]

    def _attributes(self, group: Group) -> Mapping[str, Any]:
        if group.key not in self._nodes:
            self._nodes[group.key] = dict(read_attributes(self._files, group, self.url))
        return self._nodes[group.key]

    def _column(self, group: Group, name: str) -> np.ndarray:
        return read_column(self._files, group, name, self.url)


def _content_of(group: Group) -> list[str]:
    """Digests of what the windows are read from; of a view, which names its recordings in its attributes, of these."""
    return [shard.sha256 for shard in group.shards] or [group.attributes_sha256]
