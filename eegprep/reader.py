"""A corpus to read from: tables of what is in it, and windows in any order at the speed of memory.

zarr-python decodes a sharded array through its whole machinery for each window. Here the index of a shard is parsed
once, and each window is one positioned read and one zstd decode into the caller's array. The files are plain zarr.

Legend: N windows, C channels, T samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import numcodecs
import numpy as np
import pandas as pd

from .errors import StoreError, UsageError
from .settings import suggest
from .store import COLUMNS, EMPTY, check_corpus_attributes, parse_node

OPEN_SHARDS = 256  # files kept open at once; below the usual limit of 1024 a process
SMALL_READ = 16  # windows; below this a second thread costs more than it brings


@dataclass(frozen=True)
class Group:
    """One subject's group, as far as reading its windows needs it."""

    key: str
    windows: int
    shard: int
    shard_bytes: tuple[int, ...]
    shard_sha256: tuple[str, ...]


class Shards(Protocol):
    """Where the bytes of a corpus come from: a folder, or an object store."""

    def metadata(self, path: str) -> bytes: ...

    def children(self, path: str) -> list[str]: ...

    def read(self, group: Group, shard: int, inner_N: np.ndarray, out_NCT: np.ndarray, rows_N: np.ndarray) -> None: ...


class Corpus:
    """Windows of many subjects as one long array, with tables of subjects and recordings.

    Safe to use from several threads, and in processes that were forked or spawned after it was opened.
    Indices count windows over all groups in the order of their names; a selection counts its own windows from 0.
    """

    def __init__(self, url: str, root: dict[str, Any], groups: Sequence[Group], shards: Shards) -> None:
        """Use `Corpus.open`."""
        self.url, self.attributes = url, root
        self.channels, self.samples = int(root["channels"]), int(root["samples"])
        self._groups, self._shards = tuple(groups), shards
        self._ends = np.cumsum([group.windows for group in groups], dtype=np.int64)
        self._rows: np.ndarray | None = None  # of a selection: sorted indices into the whole corpus
        self._tables: dict[str, pd.DataFrame] = {}
        self._nodes: dict[str, dict[str, Any]] = {}
        self._threads = _Threads()

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> Corpus:
        """Open a corpus.

        Args:
            url: a folder.

        Raises:
            StoreError: there is no corpus, or a subject in it is not whole.
        """
        shards = LocalShards(Path(url))
        node = parse_node(shards.metadata("zarr.json"), f"{url}/zarr.json")
        root = check_corpus_attributes(node.get("attributes", {}), str(url))
        nodes = (node.get("consolidated_metadata") or {}).get("metadata") or _walk(shards)
        groups = [_group(key, nodes) for key in sorted(nodes) if key.count("/") == 1 and nodes[key].get("node_type") == "group"]
        corpus = cls(str(url), root, groups, shards)
        corpus._nodes = {group.key: nodes[group.key]["attributes"] for group in groups}
        return corpus

    def __len__(self) -> int:
        return self._total if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.read([index])[0]

    def __repr__(self) -> str:
        return f"Corpus({self.url!r}: {len(self)} windows of ({self.channels}, {self.samples}), {len(self._groups)} subjects)"

    @property
    def _total(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def subjects(self) -> pd.DataFrame:
        """One row a subject: dataset, subject, person, recordings, windows; of a selection, what is left of them."""
        if "subjects" not in self._tables:
            table = self._recordings_of_all()
            counted = self._counted(table)
            rows = [
                {
                    "dataset": attributes["dataset"],
                    "subject": attributes["subject"],
                    "person": attributes["person"],
                    "recordings": int((counted["group"] == i).sum()),
                    "windows": int(counted.loc[counted["group"] == i, "windows"].sum()),
                }
                for i, attributes in enumerate(self._nodes[group.key] for group in self._groups)
            ]
            frame = pd.DataFrame(rows, columns=["dataset", "subject", "person", "recordings", "windows"])
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
        group_N = np.searchsorted(self._ends, index_N, side="right")
        first = np.concatenate([[0], self._ends[:-1]]) if len(self._ends) else self._ends
        row_N = index_N - first[group_N]
        shard_of = np.array([group.shard for group in self._groups], np.int64)
        shard_N, inner_N = row_N // shard_of[group_N], row_N % shard_of[group_N]
        order_N = np.lexsort((inner_N, shard_N, group_N))
        cuts = np.flatnonzero((np.diff(group_N[order_N]) != 0) | (np.diff(shard_N[order_N]) != 0)) + 1
        parts = [part for part in np.split(order_N, cuts) if len(part)]

        def work(part_N: np.ndarray) -> None:
            group, shard = self._groups[group_N[part_N[0]]], int(shard_N[part_N[0]])
            self._shards.read(group, shard, inner_N[part_N], out_NCT, part_N)

        count = min(4, len(os.sched_getaffinity(0))) if threads is None else threads
        if count <= 1 or len(index_N) < SMALL_READ:
            for part_N in parts:
                work(part_N)
        else:
            list(self._threads.pool(count).map(work, parts))
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
        content = hashlib.sha256(json.dumps([[group.key, group.windows, group.shard_sha256] for group in self._groups]).encode())
        if self._rows is not None:
            content.update(self._rows.tobytes())
        return content.hexdigest()

    def group_of(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Which of `keys` each window belongs to."""
        return np.searchsorted(self._ends, self.absolute(indices), side="right")

    def positions(self, selection: Corpus) -> np.ndarray:
        """Indices in this corpus of the windows of a selection of it."""
        theirs = selection.absolute(np.arange(len(selection)))
        return theirs if self._rows is None else np.searchsorted(self._rows, theirs)

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
        names = [self._nodes[group.key]["labels"] for group in self._groups]
        return np.array([None if code < 0 else names[g][code] for g, code in zip(group_N, codes, strict=True)], object)

    def record(self, index: int) -> dict[str, Any]:
        """What is known of the recording a window came from: session, run, sfreq (Hz), channels, pad_map, band, licence, ..."""
        position = self.absolute([index])
        group = self._groups[int(np.searchsorted(self._ends, position, side="right")[0])]
        first = int(position[0]) - int(self._ends[self._groups.index(group)] - group.windows)
        return dict(self._nodes[group.key]["recordings"][int(self._column(group, "recording")[first])])

    def select(
        self,
        dataset: str | Iterable[str] | None = None,
        subjects: str | Iterable[str] | None = None,
        min_rate: float | None = None,
        licence: str | Iterable[str] | None = None,
        person: str | Iterable[str] | None = None,
    ) -> Corpus:
        """The windows that fit all that is given; nothing is read or copied.

        Args:
            dataset: name, or names.
            subjects: names of subjects, or `dataset/subject`.
            min_rate: lowest sampling rate at which the recording is stored, Hz.
            licence: licence, or licences.
            person: person, or people, across data sets.

        Raises:
            UsageError: a name is not in the corpus.
        """
        table = self._recordings_of_all()
        keep = np.ones(len(table), bool)
        full = table["dataset"] + "/" + table["subject"]
        for what, wanted, columns in (
            ("data set", dataset, [table["dataset"]]),
            ("subject", subjects, [table["subject"], full]),
            ("licence", licence, [table["licence"]]),
            ("person", person, [table["person"]]),
        ):
            if wanted is None:
                continue
            names = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
            known = set().union(*(column.unique() for column in columns))
            for name in names:
                if name not in known:
                    raise UsageError(
                        f"there is no {what} {name!r} in {self.url}{suggest(name, known)}",
                        f"see corpus.{'subjects' if what != 'licence' else 'recordings'}",
                    )
            keep &= np.logical_or.reduce([column.isin(names).to_numpy() for column in columns])
        if min_rate is not None:
            keep &= (table["sfreq"] >= min_rate).to_numpy()
        return self._with_rows(self._rows_of(table, keep))

    def take(self, indices: Sequence[int] | np.ndarray) -> Corpus:
        """A selection of just these windows, in the order of the corpus."""
        return self._with_rows(np.unique(self.absolute(indices)))

    def _with_rows(self, rows: np.ndarray) -> Corpus:
        other = Corpus(self.url, self.attributes, self._groups, self._shards)
        other._nodes = self._nodes
        other._rows = rows if self._rows is None else np.intersect1d(self._rows, rows, assume_unique=True)
        return other

    def _rows_of(self, table: pd.DataFrame, keep: np.ndarray) -> np.ndarray:
        """Windows of the recordings that are kept; only groups of which a part is kept need their column read."""
        rows = []
        groups = table["group"].to_numpy()
        records = table["recording"].to_numpy()
        for i, (group, end) in enumerate(zip(self._groups, self._ends, strict=True)):
            mine = groups == i
            if not keep[mine].any():
                continue
            if keep[mine].all():
                rows.append(np.arange(end - group.windows, end))
            else:
                chosen = np.isin(self._column(group, "recording"), records[mine & keep])
                rows.append(np.flatnonzero(chosen) + end - group.windows)
        return np.concatenate(rows).astype(np.int64) if rows else np.empty(0, np.int64)

    def _recordings_of_all(self) -> pd.DataFrame:
        rows = []
        for i, group in enumerate(self._groups):
            attributes = self._nodes[group.key]
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
                        "n_channels": record.get("n_channels"),
                        "licence": record.get("licence") or "unknown",
                        "windows": int(record["windows"]),
                    }
                )
        names = [
            "group",
            "recording",
            "dataset",
            "subject",
            "person",
            "session",
            "run",
            "sfreq",
            "n_channels",
            "licence",
            "windows",
        ]
        return pd.DataFrame(rows, columns=names)

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

    def _column(self, group: Group, name: str) -> np.ndarray:
        if not group.windows:
            return np.empty(0, COLUMNS[name])
        content = self._shards.metadata(f"{group.key}/{name}/c/0")
        expected = group.windows * np.dtype(COLUMNS[name]).itemsize + 4
        if len(content) != expected or not _crc_fits(np.frombuffer(content, np.uint8)):
            raise StoreError(
                f"{self.url}/{group.key}/{name}: damaged ({len(content)} bytes, expected {expected} with their checksum)", _REPAIR
            )
        return np.frombuffer(content[:-4], COLUMNS[name])


_REPAIR = "run `eegprep verify --repair`, then build the subject again"


class LocalShards:
    """Shards in a folder: files kept open, indices parsed once, positioned reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, int], _Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.root = state["root"]
        self._start()

    def metadata(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"{self.root / path}: not there", "check the path of the store, or build the subject again"
            ) from None

    def children(self, path: str) -> list[str]:
        with os.scandir(self.root / path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    def read(self, group: Group, shard: int, inner_N: np.ndarray, out_NCT: np.ndarray, rows_N: np.ndarray) -> None:
        self._shard(group, shard).read(inner_N, out_NCT, rows_N)

    def _shard(self, group: Group, number: int) -> _Shard:
        if self._pid != os.getpid():  # after a fork a lock of the parent may be held for ever; the files are opened anew
            self._start()
        key = (group.key, number)
        with self._lock:
            found = self._open.get(key)
            if found is not None:
                self._open.move_to_end(key)
                return found
        found = _Shard(self.root / group.key / f"windows/c/{number}/0/0", group, number)
        with self._lock:
            found = self._open.setdefault(key, found)
            while len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)  # closed when the last thread that reads from it lets go
        return found


class _Shard:
    """One open shard file and its index."""

    def __init__(self, path: Path, group: Group, number: int) -> None:
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise StoreError(f"{path}: this shard is missing", _REPAIR) from None
        size, expected = os.fstat(self._fd).st_size, group.shard_bytes[number]
        if size != expected:
            raise StoreError(f"{path}: has {size} bytes, the commit record says {expected}", _REPAIR)
        tail = 16 * group.shard + 4
        self.offsets, self.lengths = parse_index(os.pread(self._fd, tail, size - tail), group.shard, size - tail, str(path))

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read(self, inner_N: np.ndarray, out_NCT: np.ndarray, rows_N: np.ndarray) -> None:
        scratch = _scratch(int(self.lengths[inner_N].max(initial=0)) if (self.offsets[inner_N] >= 0).all() else 0)
        for inner, row in zip(inner_N.tolist(), rows_N.tolist(), strict=True):
            offset, length = int(self.offsets[inner]), int(self.lengths[inner])
            if offset < 0:
                raise StoreError(f"{self.path}: window {inner} of the shard is missing", _REPAIR)
            got = os.preadv(self._fd, [scratch[:length]], offset)
            if got != length:
                raise StoreError(f"{self.path}: window {inner} ends after {got} of {length} bytes", _REPAIR)
            decode(scratch[:length], out_NCT[row], f"{self.path}: window {inner} of the shard")


def parse_index(content: bytes, shard: int, limit: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (-1 where nothing is stored) and lengths of the inner chunks of a shard.

    Args:
        content: the last 16 * shard + 4 bytes of the shard: pairs of uint64, then their crc32c.
        shard: inner chunks a shard.
        limit: bytes before the index.
        where: for the message.
    """
    raw = np.frombuffer(content, np.uint8)
    if len(raw) != 16 * shard + 4 or not _crc_fits(raw):
        raise StoreError(f"{where}: the index of the shard is damaged (its crc32c does not fit)", _REPAIR)
    pairs = raw[:-4].view("<u8").reshape(shard, 2)
    missing = pairs[:, 0] == EMPTY
    offsets, lengths = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    offsets[missing], lengths[missing] = -1, 0
    if (offsets + lengths > limit).any():
        raise StoreError(f"{where}: the index of the shard points beyond its {limit} bytes", _REPAIR)
    return offsets, lengths


def decode(encoded: np.ndarray, out_CT: np.ndarray, where: str) -> None:
    """Check the crc32c of one inner chunk and decode it into `out_CT`."""
    if not _crc_fits(encoded):
        raise StoreError(f"{where} is damaged (its crc32c does not fit)", _REPAIR)
    try:
        _ZSTD.decode(encoded[:-4], out_CT)
    except (RuntimeError, ValueError) as error:
        raise StoreError(f"{where} cannot be decoded ({error})", _REPAIR) from None


_ZSTD = numcodecs.Zstd()
_LOCAL = threading.local()


def _scratch(length: int) -> np.ndarray:
    """A buffer of this thread for encoded bytes."""
    buffer = getattr(_LOCAL, "buffer", None)
    if buffer is None or len(buffer) < length:
        buffer = _LOCAL.buffer = np.empty(max(length, 1 << 19), np.uint8)
    return buffer


def _crc_fits(content: np.ndarray) -> bool:
    return len(content) >= 4 and google_crc32c.value(content[:-4]) == int.from_bytes(content[-4:].tobytes(), "little")


class _Threads:
    """A pool that belongs to one process: a forked child makes its own."""

    def __init__(self) -> None:
        self._pools: dict[tuple[int, int], ThreadPoolExecutor] = {}

    def pool(self, count: int) -> ThreadPoolExecutor:
        key = (os.getpid(), count)
        if key not in self._pools:
            self._pools = {known: pool for known, pool in self._pools.items() if known[0] == key[0]}
            self._pools[key] = ThreadPoolExecutor(count, thread_name_prefix="corpus")
        return self._pools[key]

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._pools = {}


def _walk(shards: Shards) -> dict[str, Any]:
    """Read every group's metadata, where a corpus has no consolidated metadata (yet)."""
    nodes: dict[str, Any] = {}
    for dataset in shards.children(""):
        for subject in shards.children(dataset):
            key = f"{dataset}/{subject}"
            nodes[key] = json.loads(shards.metadata(f"{key}/zarr.json"))
            nodes[f"{key}/windows"] = json.loads(shards.metadata(f"{key}/windows/zarr.json"))
    return nodes


def _group(key: str, nodes: dict[str, Any]) -> Group:
    record = nodes[key]["attributes"].get("commit")
    if not record:
        raise StoreError(f"{key}: has no commit record, so it is not whole", "build the subject again")
    files, shard = record["files"], int(nodes[f"{key}/windows"]["chunk_grid"]["configuration"]["chunk_shape"][0])
    count = -(-int(record["windows"]) // shard)
    shards = [files[f"windows/c/{number}/0/0"] for number in range(count)]
    return Group(key, int(record["windows"]), shard, tuple(int(s["bytes"]) for s in shards), tuple(s["sha256"] for s in shards))
