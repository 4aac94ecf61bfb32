"""Reads the files of a store on a local disk, with a limit on open files."""

from __future__ import annotations

import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from eegprep.errors import StoreError
from eegprep.store.commit import StoredFile
from eegprep.store.names import folders, open_inside, read_inside

OPEN_FILES = 256  # kept open at once; the usual limit of a process is 1024

REPAIR = "run `eegprep verify --repair`, or the command that made the store once more"


@dataclass(frozen=True)
class Checksums:
    """Where the checksums of a group's windows are, and which of them belong to a shard. record: of the file at `path`."""

    path: str
    record: StoredFile
    windows: int  # of the group
    first: int  # window of the group that the shard begins with


@dataclass(frozen=True)
class Shard:
    """One shard file, as the commit record of its group describes it. checksums: None in version 1."""

    path: str
    windows: int
    capacity: int
    bytes: int
    sha256: str
    checksums: Checksums | None = None


class Files(Protocol):
    """Where the bytes of a corpus come from.

    survives_fork: whether a forked child of a process that has read from it can read, too.
    """

    survives_fork: bool

    def metadata(self, path: str) -> bytes:
        """A whole small file. Raises StoreError when it is not there."""

    def recorded(self, path: str, record: StoredFile) -> bytes:
        """A whole small file that a commit record names. Raises StoreError when it is not there, or altered."""

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


def unaltered(content: bytes, record: StoredFile, where: str) -> bytes:
    """`content` as it is, if it is what the record says."""
    problem = record.problem(content)
    if problem is not None:
        raise StoreError(f"{where}: is damaged ({problem})", REPAIR)
    return content


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
        # whether the last reads came from the disk; then the next ones are announced to the kernel
        self._cold = False

    def __getstate__(self) -> dict[str, object]:
        return {"root": self.root}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.root = state["root"]
        self._start()

    def metadata(self, path: str) -> bytes:
        try:
            return read_inside(self.root, path)
        except FileNotFoundError:
            raise StoreError(f"{self.root / path}: not there", "check the path of the store, or build it again") from None

    def recorded(self, path: str, record: StoredFile) -> bytes:
        return unaltered(self.metadata(path), record, str(self.root / path))

    def children(self, path: str) -> list[str]:
        return [folder.name for folder in folders(self.root / path)]

    def tail(self, number: int, shard: Shard, length: int) -> bytes:
        # positioned reads throughout: threads share a file without sharing a place in it
        return os.pread(self._file(number, shard).fd, length, max(0, shard.bytes - length))

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
            file = self._open.get(number)
            if file is not None:
                self._open.move_to_end(number)
                return file
        file = _File(self.root, shard.path, shard.bytes)
        with self._lock:
            file = self._open.setdefault(number, file)
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)  # closed when the last thread that reads from it lets go
        return file


class _File:
    """An open file of a known size; closed when nobody refers to it any more."""

    def __init__(self, root: Path, relative: str, size: int) -> None:
        self.path, self.fd = root / relative, -1
        try:
            self.fd = open_inside(root, relative)
        except FileNotFoundError:
            raise StoreError(f"{self.path}: this shard is missing", REPAIR) from None
        present = os.fstat(self.fd).st_size
        if present != size:
            raise StoreError(f"{self.path}: has {present} bytes, the commit record says {size}", REPAIR)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


THREAD = threading.local()


def _blocks_read() -> int:
    """Blocks that this thread has had to fetch from a disk so far; 0 where the system does not count them."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock if hasattr(resource, "RUSAGE_THREAD") else 0


def _scratch(length: int) -> np.ndarray:
    """A buffer of this thread for encoded bytes."""
    buffer: np.ndarray | None = getattr(THREAD, "buffer", None)
    if buffer is None or len(buffer) < length:
        buffer = THREAD.buffer = np.empty(max(length, 1 << 19), np.uint8)
    return buffer
