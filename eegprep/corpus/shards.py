"""Windows out of zarr shards: the index of a shard parsed once, then one positioned read and one zstd decode a window.

`Shards` knows where each window lies; a `Files` brings the bytes, from a folder (here) or an object store (objects.py).

Legend: N windows, C channels, T samples.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

import numcodecs
import numcodecs.zstd
import numpy as np

from eegprep.corpus.files import REPAIR, THREAD, Files, Shard
from eegprep.errors import StoreError
from eegprep.store.format import EMPTY, crc_fits, crc_of


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
        # 21 bytes a window; np.empty does not touch memory before it is written
        self._offsets, self._lengths, self._checked = np.empty(n, np.int64), np.empty(n, np.int32), np.zeros(n, bool)
        self._checksums = np.empty(n, np.int64)  # what each window's chunk ends with; -1 where no record says (version 1)
        self._column: tuple[str, np.ndarray] = ("", np.empty(0, np.uint32))  # the one that was read last

    def __getstate__(self) -> dict[str, object]:
        return {"shards": self.shards, "files": self.files, "_ends": self._ends, "_firsts": self._firsts}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, index_N: np.ndarray, out_NCT: np.ndarray, rows_N: np.ndarray) -> None:
        """Decode windows `index_N` into rows `rows_N` of `out_NCT`, in the order of the files.

        The crc32c of a window is checked the first time that this process reads it, and compared with what was stored for that
        window, so that a chunk or a shard in another's place is noticed.
        """
        # in the order of the files, so that a disk reads forwards and a shard is asked once
        order = np.argsort(index_N)
        index_N, rows_N = index_N[order], rows_N[order]
        number_N = self._locate(index_N)
        inner_N = index_N - self._firsts[number_N]
        numbers, inner = number_N.tolist(), inner_N.tolist()
        offsets, lengths = self._offsets[index_N].tolist(), self._lengths[index_N].tolist()
        checked, shards = self._checked[index_N].tolist(), [self.shards[number] for number in numbers]
        checksums = self._checksums[index_N].tolist()
        if min(offsets, default=0) < 0:
            at = offsets.index(-1)
            raise StoreError(f"{shards[at].path}: window {inner[at]} of the shard is missing", REPAIR)
        rows, decode, base, step = rows_N.tolist(), _decoder(), out_NCT.ctypes.data, out_NCT[:1].nbytes
        chunks = self.files.chunks(numbers, shards, inner, offsets, lengths)
        for k, (buffer, address) in enumerate(chunks):
            length, source = lengths[k], address
            if not checked[k] and not _is_whole(buffer[:length], checksums[k]):
                source = self._fetch_again(numbers[k], inner[k], offsets[k], length, checksums[k])
            # without the crc32c at the end, straight into the row of the result
            got = decode(source, length - 4, base + rows[k] * step, step)
            if got != step:
                raise StoreError(
                    f"{shards[k].path}: window {inner[k]} of the shard is damaged ({got} of {step} bytes decoded)", REPAIR
                )
        # checked once a process: afterwards, the page cache is as good as memory
        self._checked[index_N] = True

    def _fetch_again(self, number: int, inner: int, offset: int, length: int, checksum: int) -> int:
        """The address of a fresh copy of a chunk, which this thread keeps until the next one."""
        shard = self.shards[number]
        encoded = self.files.again(number, shard, inner, offset, length)
        if encoded is None or not _is_whole(encoded, checksum):
            raise StoreError(
                f"{shard.path}: window {inner} of the shard is damaged, or is another's (its crc32c does not fit)", REPAIR
            )
        # an address alone would not keep the bytes alive
        THREAD.fetched = encoded
        return int(encoded.ctypes.data)

    def _locate(self, index_N: np.ndarray) -> np.ndarray:
        """The shard of each window, after reading the indices of shards that are new."""
        number_N = np.searchsorted(self._ends, index_N, side="right")
        for number in np.unique(number_N[~self._known[number_N]]).tolist():
            self._learn(number)
        return number_N

    def _learn(self, number: int) -> None:
        shard = self.shards[number]
        # an offset and a length of 8 bytes for each inner chunk, then a crc32c
        length = 16 * shard.capacity + 4
        if shard.bytes < length:
            raise StoreError(f"{shard.path}: {shard.bytes} bytes are too few for an index of {length}", REPAIR)
        offsets, lengths = parse_index(self.files.tail(number, shard, length), shard.capacity, shard.bytes - length, shard.path)
        first = int(self._firsts[number])
        self._offsets[first : first + shard.windows] = offsets[: shard.windows]
        self._lengths[first : first + shard.windows] = lengths[: shard.windows]
        self._checksums[first : first + shard.windows] = self._recorded(shard)
        self._known[number] = True

    def _recorded(self, shard: Shard) -> np.ndarray | int:
        """What the chunks of a shard end with, as the group's commit record knows it."""
        where = shard.checksums
        if where is None:
            return -1
        path, values_N = self._column
        if path != where.path:
            content = self.files.recorded(where.path, where.record)
            if len(content) != 4 * where.windows + 4:
                raise StoreError(f"{where.path}: {len(content)} bytes are not the checksums of {where.windows} windows", REPAIR)
            values_N = np.frombuffer(content[:-4], "<u4")
            self._column = (where.path, values_N)
        return values_N[where.first : where.first + shard.windows]


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


def stored_checksums(path: Path, capacity: int) -> np.ndarray:
    """What the chunks of a shard that was just written end with: uint32, in their order.

    Args:
        capacity: inner chunks a shard.
    """
    size, length = path.stat().st_size, 16 * capacity + 4
    with path.open("rb") as file:
        file.seek(size - length)
        offsets, lengths = parse_index(file.read(length), capacity, size - length, str(path))
        checksums = []
        for offset, count in zip(offsets.tolist(), lengths.tolist(), strict=True):
            if offset >= 0:
                file.seek(offset + count - 4)
                checksums.append(crc_of(file.read(4)))
    return np.array(checksums, "<u4")


def _is_whole(content: np.ndarray, checksum: int) -> bool:
    """Whether a chunk ends with the crc32c of its bytes, and this is the one that was stored for its place."""
    return crc_fits(content) and (checksum < 0 or crc_of(content) == checksum)


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
    decoder: _FastDecoder | _PlainDecoder | None = getattr(THREAD, "decoder", None)
    if decoder is None:
        decoder = THREAD.decoder = _FastDecoder(_LIBRARY) if _LIBRARY is not None else _PlainDecoder()
    return decoder
