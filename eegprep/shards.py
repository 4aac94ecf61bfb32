"""Windows out of zarr shards: the index of a shard parsed once, then one positioned read and one zstd decode a window.

`Shards` knows where each window lies; a `Files` brings the bytes, from a folder (here) or an object store (objects.py).

Legend: N windows, C channels, T samples.
"""

from __future__ import annotations

import ctypes
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import numcodecs
import numcodecs.zstd
import numpy as np

from .errors import StoreError
from .store import EMPTY

OPEN_FILES = 256  # kept open at once; the usual limit of a process is 1024
REPAIR = "run `eegprep verify --repair`, then build the subject again"


@dataclass(frozen=True)
class Shard:
    """One shard file, as the commit record of its group describes it."""

    path: str
    windows: int
    capacity: int
    bytes: int
    sha256: str


class Files(Protocol):
    """Where the bytes of a corpus come from.

    survives_fork: whether a forked child of a process that has read from it can read, too.
    """

    survives_fork: bool

    def metadata(self, path: str) -> bytes:
        """A whole small file. Raises StoreError when it is not there."""

    def children(self, path: str) -> list[str]:
        """Names of the folders in a folder, sorted."""

    def tail(self, number: int, shard: Shard, length: int) -> bytes:
        """The last bytes of a shard, after checking its size."""

    def chunks(
        self,
        numbers: Sequence[int],
        shards: Sequence[Shard],
        inner: Sequence[int],
        offsets: Sequence[int],
        lengths: Sequence[int],
    ) -> Iterator[tuple[np.ndarray, int]]:
        """For each (shard, chunk, its offset and length) a buffer that begins with its bytes, and the address of that buffer;
        valid until the next is asked for."""

    def again(self, number: int, shard: Shard, inner: int, offset: int, length: int) -> np.ndarray | None:
        """The same chunk from its origin, because a copy was damaged; None when this is the origin."""


class Shards:
    """All shards of a corpus as one long row of windows. Safe to use from several threads, and after a fork."""

    def __init__(self, shards: Sequence[Shard], files: Files) -> None:
        self.shards, self.files = list(shards), files
        windows = np.array([shard.windows for shard in shards], np.int64)
        self._ends = np.cumsum(windows)
        self._firsts = self._ends - windows
        self._forget()

    def _forget(self) -> None:
        n = int(self._ends[-1]) if len(self._ends) else 0
        self._known = np.zeros(len(self.shards), bool)
        # 13 bytes a window; np.empty does not touch memory before it is written
        self._offsets, self._lengths, self._checked = np.empty(n, np.int64), np.empty(n, np.int32), np.zeros(n, bool)

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "files": self.files, "_ends": self._ends, "_firsts": self._firsts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, index_N: np.ndarray, out_NCT: np.ndarray, rows_N: np.ndarray) -> None:
        """Decode windows `index_N` into rows `rows_N` of `out_NCT`, in the order of the files.

        The crc32c of a window is checked the first time that this process reads it.
        """
        order = np.argsort(index_N)
        index_N, rows_N = index_N[order], rows_N[order]
        number_N = self._locate(index_N)
        inner_N = index_N - self._firsts[number_N]
        numbers, inner = number_N.tolist(), inner_N.tolist()
        offsets, lengths = self._offsets[index_N].tolist(), self._lengths[index_N].tolist()
        checked, shards = self._checked[index_N].tolist(), [self.shards[number] for number in numbers]
        if min(offsets, default=0) < 0:
            at = offsets.index(-1)
            raise StoreError(f"{shards[at].path}: window {inner[at]} of the shard is missing", REPAIR)
        rows, decode, base, step = rows_N.tolist(), _decoder(), out_NCT.ctypes.data, out_NCT[:1].nbytes
        chunks = self.files.chunks(numbers, shards, inner, offsets, lengths)
        for k, (buffer, address) in enumerate(chunks):
            length, source = lengths[k], address
            if not checked[k] and not crc_fits(buffer[:length]):
                source = self._fetch_again(numbers[k], inner[k], offsets[k], length)
            got = decode(source, length - 4, base + rows[k] * step, step)
            if got != step:
                raise StoreError(
                    f"{shards[k].path}: window {inner[k]} of the shard is damaged ({got} of {step} bytes decoded)", REPAIR
                )
        self._checked[index_N] = True

    def _fetch_again(self, number: int, inner: int, offset: int, length: int) -> int:
        """The address of a fresh copy of a chunk, which this thread keeps until the next one."""
        shard = self.shards[number]
        encoded = self.files.again(number, shard, inner, offset, length)
        if encoded is None or not crc_fits(encoded):
            raise StoreError(f"{shard.path}: window {inner} of the shard is damaged (its crc32c does not fit)", REPAIR)
        _THREAD.fetched = encoded
        return int(encoded.ctypes.data)

    def _locate(self, index_N: np.ndarray) -> np.ndarray:
        """The shard of each window, after reading the indices of shards that are new."""
        number_N = np.searchsorted(self._ends, index_N, side="right")
        for number in np.unique(number_N[~self._known[number_N]]).tolist():
            self._learn(number)
        return number_N

    def _learn(self, number: int) -> None:
        shard = self.shards[number]
        length = 16 * shard.capacity + 4
        offsets, lengths = parse_index(self.files.tail(number, shard, length), shard.capacity, shard.bytes - length, shard.path)
        first = int(self._firsts[number])
        self._offsets[first : first + shard.windows] = offsets[: shard.windows]
        self._lengths[first : first + shard.windows] = lengths[: shard.windows]
        self._known[number] = True


class LocalFiles:
    """A folder: files kept open, positioned reads into a buffer of the thread."""

    survives_fork = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _File] = OrderedDict()
        self._cold = False

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.root = state["root"]
        self._start()

    def metadata(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"{self.root / path}: not there", "check the path of the store, or build it again") from None

    def children(self, path: str) -> list[str]:
        with os.scandir(self.root / path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    def tail(self, number: int, shard: Shard, length: int) -> bytes:
        return os.pread(self._file(number, shard).fd, length, shard.bytes - length)

    def again(self, number: int, shard: Shard, inner: int, offset: int, length: int) -> np.ndarray | None:
        return None

    def chunks(
        self,
        numbers: Sequence[int],
        shards: Sequence[Shard],
        inner: Sequence[int],
        offsets: Sequence[int],
        lengths: Sequence[int],
    ) -> Iterator[tuple[np.ndarray, int]]:
        opened = {number: self._file(number, shard) for number, shard in dict(zip(numbers, shards, strict=True)).items()}
        files = [opened[number] for number in numbers]
        if self._cold and len(files) > 1:  # the disk works on all of them while the first are decoded
            for file, offset, length in zip(files, offsets, lengths, strict=True):
                os.posix_fadvise(file.fd, offset, length, os.POSIX_FADV_WILLNEED)
        scratch = _scratch(max(lengths, default=0))
        view, address, before = scratch.data, scratch.ctypes.data, _blocks_read()
        for file, offset, length in zip(files, offsets, lengths, strict=True):
            try:
                got = os.preadv(file.fd, [view[:length]], offset)
            except OSError as error:
                raise StoreError(f"{file.path}: cannot be read ({error.strerror})", REPAIR) from None
            if got != length:
                raise StoreError(f"{file.path}: ends after {offset + got} bytes, a window reaches to {offset + length}", REPAIR)
            yield scratch, address
        self._cold = _blocks_read() > before

    def _file(self, number: int, shard: Shard) -> _File:
        if self._pid != os.getpid():  # after a fork a lock of the parent may be held for ever; the files are opened anew
            self._start()
        with self._lock:
            found = self._open.get(number)
            if found is not None:
                self._open.move_to_end(number)
                return found
        found = _File(self.root / shard.path, shard.bytes)
        with self._lock:
            found = self._open.setdefault(number, found)
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)  # closed when the last thread that reads from it lets go
        return found


class _File:
    """An open file of a known size; closed when nobody refers to it any more."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.fd = path, -1
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise StoreError(f"{path}: this shard is missing", REPAIR) from None
        found = os.fstat(self.fd).st_size
        if found != size:
            raise StoreError(f"{path}: has {found} bytes, the commit record says {size}", REPAIR)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def parse_index(content: bytes, capacity: int, limit: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (-1 where nothing is stored) and lengths of the inner chunks of a shard.

    Args:
        content: the last 16 * capacity + 4 bytes of the shard: pairs of uint64, then their crc32c (zarr 3, sharding codec).
        capacity: inner chunks a shard.
        limit: bytes before the index.
        where: for the message.

    Raises:
        StoreError: the checksum does not fit, or a chunk lies beyond `limit`.
    """
    raw = np.frombuffer(content, np.uint8)
    if len(raw) != 16 * capacity + 4 or not crc_fits(raw):
        raise StoreError(f"{where}: the index of the shard is damaged (its crc32c does not fit)", REPAIR)
    pairs = raw[:-4].view("<u8").reshape(capacity, 2)
    missing = pairs[:, 0] == EMPTY
    offsets, lengths = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    offsets[missing], lengths[missing] = -1, 0
    beyond = (offsets + lengths > limit) | (lengths < 0) | (offsets < -1)
    if beyond.any():
        raise StoreError(f"{where}: the index of the shard points beyond its {limit} bytes", REPAIR)
    return offsets, lengths


def crc_fits(content: np.ndarray) -> bool:
    """Whether the last four bytes are the crc32c of the rest (zarr 3, crc32c codec)."""
    return len(content) >= 4 and google_crc32c.value(content[:-4]) == int.from_bytes(content[-4:].tobytes(), "little")


class _FastDecoder:
    """zstd into a given address, with one context a thread.

    This is the zstd library that numcodecs brings, called without numcodecs' checks of its arguments, which cost as much
    as decoding. The library checks the capacity, and the caller the number of bytes.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        library.ZSTD_createDCtx.restype = ctypes.c_void_p
        library.ZSTD_freeDCtx.argtypes = [ctypes.c_void_p]
        self._decode = library.ZSTD_decompressDCtx
        self._decode.restype = ctypes.c_size_t
        self._decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
        self._free = library.ZSTD_freeDCtx
        self._context = library.ZSTD_createDCtx()

    def __call__(self, source: int, length: int, target: int, capacity: int) -> int:
        return self._decode(self._context, target, capacity, source, length)  # type: ignore[no-any-return]

    def __del__(self) -> None:
        self._free(self._context)


class _PlainDecoder:
    """The same through the public function of numcodecs, where its library does not show its symbols."""

    def __call__(self, source: int, length: int, target: int, capacity: int) -> int:
        encoded = (ctypes.c_char * length).from_address(source)
        try:
            content = _ZSTD.decode(encoded)
        except (RuntimeError, ValueError):
            return 0
        if len(content) <= capacity:
            ctypes.memmove(target, content, len(content))
        return len(content)


_ZSTD = numcodecs.Zstd()
_THREAD = threading.local()


def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(numcodecs.zstd.__file__)
        for name in ("ZSTD_createDCtx", "ZSTD_freeDCtx", "ZSTD_decompressDCtx"):
            getattr(library, name)
    except (OSError, AttributeError):
        return None
    return library


_LIBRARY = _library()


def _decoder() -> _FastDecoder | _PlainDecoder:
    """The decoder of this thread."""
    found: _FastDecoder | _PlainDecoder | None = getattr(_THREAD, "decoder", None)
    if found is None:
        found = _THREAD.decoder = _FastDecoder(_LIBRARY) if _LIBRARY is not None else _PlainDecoder()
    return found


def _blocks_read() -> int:
    """Blocks that this thread has had to fetch from a disk so far; 0 where the system does not count them."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock if hasattr(resource, "RUSAGE_THREAD") else 0


def _scratch(length: int) -> np.ndarray:
    """A buffer of this thread for encoded bytes."""
    buffer: np.ndarray | None = getattr(_THREAD, "buffer", None)
    if buffer is None or len(buffer) < length:
        buffer = _THREAD.buffer = np.empty(max(length, 1 << 19), np.uint8)
    return buffer
