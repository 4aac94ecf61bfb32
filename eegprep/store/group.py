"""Writes the files of one group, each hashed on the way: arrays of windows in shards, and columns.

Legend: N windows, C channels, T samples.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol

import numcodecs
import numpy as np

from eegprep.store.commit import StoredFile, dump
from eegprep.store.format import CHECKSUMS, EMPTY, SHARD, ZSTD_LEVEL, column_node, crc_of, windows_node, with_crc32c
from eegprep.store.frames import LARGEST as LARGEST_FRAME
from eegprep.store.frames import repeated_frame

# so much is written before the disk is asked to take it
_SYNC_BYTES = 8_000_000


class GroupFiles:
    """The files of a group that is being written, and their record for the commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record: dict[str, StoredFile] = {}
        self._disk: ThreadPoolExecutor | None = None
        self._begun: list[Future[None]] = []

    def begin_sync(self, file: IO[bytes]) -> None:
        """Let the disk take what was written so far while the next windows are made; `close` hears of its errors."""
        if self._begun and not self._begun[-1].done():
            return  # the disk is behind: the sync before the commit has the rest
        if self._disk is None:
            self._disk = ThreadPoolExecutor(1)
        file.flush()
        self._begun.append(self._disk.submit(_sync, os.dup(file.fileno())))

    def close(self) -> None:
        """Wait for what `begin_sync` began.

        Raises:
            OSError: the disk did not take it.
        """
        if self._disk is not None:
            self._disk.shutdown()
            self._disk = None
        begun, self._begun = self._begun, []
        for future in begun:
            future.result()

    def write(self, relative: str, content: bytes) -> None:
        """A whole file."""
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.record[relative] = StoredFile.of(content)

    def commit(self, node: Mapping[str, Any]) -> None:
        """The group's own metadata with the record of all other files: the last that is written."""
        self.close()
        (self.folder / "zarr.json").write_bytes(dump(node))

    def write_node(self, name: str, node: Mapping[str, Any]) -> None:
        """The metadata of an array."""
        self.write(f"{name}/zarr.json", dump(node))

    def write_column(self, name: str, values_N: np.ndarray, data_type: str, dimension: str = "window") -> None:
        """One value a window or trial: one uncompressed chunk with its crc32c."""
        # no values, no chunk: readers take the fill value
        if len(values_N):
            self.write(f"{name}/c/0", with_crc32c(np.ascontiguousarray(values_N, data_type).tobytes()))
        self.write_node(name, column_node(len(values_N), data_type, dimension))


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class WindowArray(Protocol):
    """What a subject's windows go into. n: how many there are so far."""

    n: int

    def append(self, window_CT: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def abandon(self) -> None: ...


class WindowsWriter:
    """An array (N, C, T) of float32 in shards, and `crc32c`, the checksum of every window's chunk.

    Args:
        files: where it goes.
        name: of the array.
        channels, samples: shape of a window.
        shard: windows a file.
        dimension: name of the first axis.
    """

    def __init__(
        self, files: GroupFiles, name: str, channels: int, samples: int, *, shard: int = SHARD, dimension: str = "window"
    ) -> None:
        self.n = 0
        self._files, self._name, self._shape, self._shard, self._dimension = files, name, (channels, samples), shard, dimension
        self._codec = numcodecs.Zstd(level=ZSTD_LEVEL)
        self._open: _ShardFile | None = None
        self._checksums: list[int] = []

    def append(self, window_CT: np.ndarray) -> None:
        """One window, (C, T) float32, C-contiguous; of fewer rows, which stand for all, see `frames`."""
        if self._open is None:
            relative = f"{self._name}/c/{self.n // self._shard}/0/0"
            self._open = _ShardFile(self._files, relative, self._shard)
        channels = self._shape[0]
        repeats = len(window_CT) < channels and channels * self._shape[1] * 4 <= LARGEST_FRAME
        if not repeats and len(window_CT) < channels:
            window_CT = np.take(window_CT, np.arange(channels) % len(window_CT), axis=0)
        encoded = with_crc32c(repeated_frame(window_CT, channels) if repeats else self._codec.encode(window_CT))
        self._open.append(encoded)
        self._checksums.append(crc_of(encoded))
        self.n += 1
        if self._open.full:
            self._finish_shard()

    def finish(self) -> None:
        """Write what is still open, the checksums and the metadata."""
        if self._open is not None:
            self._finish_shard()
        self._files.write_node(self._name, windows_node(self.n, *self._shape, self._shard, self._dimension))
        self._files.write_column(CHECKSUMS, np.array(self._checksums, "<u4"), "<u4", self._dimension)

    def abandon(self) -> None:
        """Close the file that is open; nothing is kept."""
        if self._open is not None:
            self._open.close()

    def _finish_shard(self) -> None:
        assert self._open is not None
        self._files.record[self._open.relative] = self._open.finish()
        self._open = None


class _ShardFile:
    """One shard: encoded chunks one after the other, then the index of offsets and lengths with its crc32c."""

    def __init__(self, files: GroupFiles, relative: str, size: int) -> None:
        path = files.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        self.relative, self._files, self._file, self._hash = relative, files, path.open("wb"), hashlib.sha256()
        self._begun = 0
        # a shard that is not full keeps the marks of chunks that are not there, as the format asks for
        self._index = np.full((size, 2), EMPTY, "<u8")
        self._count, self._offset = 0, 0

    @property
    def full(self) -> bool:
        return self._count == len(self._index)

    def append(self, encoded: bytes) -> None:
        self._put(encoded)
        self._index[self._count] = self._offset, len(encoded)
        self._offset += len(encoded)
        self._count += 1
        if self._offset - self._begun >= _SYNC_BYTES:
            self._begun = self._offset
            self._files.begin_sync(self._file)

    def finish(self) -> StoredFile:
        index = with_crc32c(self._index.tobytes())
        self._put(index)
        if self._begun:
            self._files.begin_sync(self._file)
        self._file.close()
        return StoredFile(self._offset + len(index), self._hash.hexdigest())

    def close(self) -> None:
        self._file.close()

    def _put(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
