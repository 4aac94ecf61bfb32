"""Corpora in object stores: byte ranges through obstore, retried, with a local read-through cache of limited size.

A cached shard is a sparse file named by the SHA-256 in the commit record, so a changed corpus never meets an old cache.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import obstore
from obstore.store import from_url

from eegprep.atomic import write_bytes
from eegprep.corpus.files import OPEN_FILES, Files, Shard, unaltered
from eegprep.errors import StoreError, UsageError
from eegprep.store.commit import StoredFile

OBSTORE_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "http", "https")

REQUESTS = 32  # at once; a shuffled batch touches about as many shards as it has windows

COALESCE = 128 * 1024  # bytes; asking for a gap of this size costs less than another request

ATTEMPTS, PAUSE = 4, 0.2  # of a request; s before the second, doubled each time

FINAL = (  # trying again would not help
    obstore.exceptions.NotSupportedError,
    obstore.exceptions.PermissionDeniedError,
    obstore.exceptions.UnauthenticatedError,
    obstore.exceptions.InvalidPathError,
)

_NETWORK = "check the network and the credentials, then run the same command again"


class _RemoteFiles:
    """Asks for many byte ranges at once, and hands them over in order."""

    survives_fork = False

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url, self.options = url.rstrip("/"), dict(options)
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {"url": self.url, "options": self.options}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__init__(state["url"], state["options"])  # type: ignore[misc]

    def _ranges(self, path: str, starts: list[int], lengths: list[int]) -> list[np.ndarray]:
        raise NotImplementedError

    def metadata(self, path: str) -> bytes:
        raise NotImplementedError

    def recorded(self, path: str, record: StoredFile) -> bytes:
        return unaltered(self.metadata(path), record, f"{self.url}/{path}")

    def tail(self, number: int, shard: Shard, length: int) -> bytes:
        return self._checked(shard, [shard.bytes - length], [length])[0].tobytes()

    def again(self, number: int, shard: Shard, inner: int, offset: int, length: int) -> np.ndarray | None:
        return self._checked(shard, [offset], [length])[0]

    def chunks(
        self,
        numbers: Sequence[int],
        shards: Sequence[Shard],
        inner: Sequence[int],
        offsets: Sequence[int],
        lengths: Sequence[int],
    ) -> Iterator[tuple[np.ndarray, int]]:
        # windows come sorted by shard: one task a shard, whose ranges go out together
        runs = [list(run) for _, run in groupby(range(len(numbers)), key=numbers.__getitem__)]
        futures: list[Future[list[np.ndarray]]] = [
            self._executor().submit(self._checked, shards[run[0]], [offsets[k] for k in run], [lengths[k] for k in run])
            for run in runs
        ]
        try:
            for future in futures:
                for content in future.result():
                    yield content, content.ctypes.data
        finally:
            for future in futures:
                future.cancel()

    def _checked(self, shard: Shard, starts: list[int], lengths: list[int]) -> list[np.ndarray]:
        contents = self._ranges(shard.path, starts, lengths)
        for content, start, length in zip(contents, starts, lengths, strict=True):
            if len(content) != length:
                raise StoreError(
                    f"{self.url}/{shard.path}: {len(content)} bytes at {start}, expected {length}", "upload the corpus again"
                )
        return contents

    def _executor(self) -> ThreadPoolExecutor:
        if self._pid != os.getpid():
            self._start()
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="ranges")
            return self._pool


class ObjectFiles(_RemoteFiles):
    """s3://, gs://, az:// and https:// through obstore.

    obstore's threads do not survive a fork and its calls would wait for ever: a forked child gets an error instead.
    """

    _user_pid: int | None = None  # the process whose obstore threads are running

    def metadata(self, path: str) -> bytes:
        return bytes(self._call(path, lambda store: obstore.get(store, path).bytes()))

    def children(self, path: str) -> list[str]:
        listing = self._call(path, lambda store: obstore.list_with_delimiter(store, path or None))
        return sorted(prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in listing["common_prefixes"])

    def _ranges(self, path: str, starts: list[int], lengths: list[int]) -> list[np.ndarray]:
        contents = self._call(
            path, lambda store: obstore.get_ranges(store, path, starts=starts, lengths=lengths, coalesce=COALESCE)
        )
        return [np.frombuffer(content, np.uint8) for content in contents]

    def _call(self, path: str, request: Any) -> Any:
        """One request. obstore itself tries again when a server is busy, but not when an answer breaks off in the middle."""
        attempt = 0
        while True:
            try:
                return request(self._store())
            except FileNotFoundError:
                raise StoreError(f"{self.url}/{path}: not there", "check the address of the store") from None
            except (obstore.exceptions.BaseError, OSError) as error:
                attempt += 1
                if isinstance(error, FINAL) or attempt == ATTEMPTS:
                    raise self._error(path, error) from None
                time.sleep(PAUSE * 2 ** (attempt - 1))

    def _error(self, path: str, error: Exception) -> StoreError:
        fix = _NETWORK
        if isinstance(error, obstore.exceptions.NotSupportedError):
            fix = "use a server that answers range requests and can list folders, or copy the corpus to a disk"
        return StoreError(f"{self.url}/{path}: {' '.join(str(error).split())[:300]}", fix)

    def _store(self) -> Any:
        if ObjectFiles._user_pid not in {None, os.getpid()}:
            raise StoreError(
                f"{self.url}: process {os.getpid()} was forked from one that reads from an object store",
                "start workers with 'spawn' or 'forkserver', for instance stream.loader(context='spawn')",
            )
        ObjectFiles._user_pid = os.getpid()
        with self._lock:
            if not hasattr(self, "_opened"):
                self._opened = self._open()
            return self._opened

    def _open(self) -> Any:
        endpoint = str(self.options.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT", ""))
        # obstore refuses plain HTTP unless it is told; a test server or a local MinIO has nothing else
        plain = self.url.startswith("http://") or endpoint.startswith("http://")
        settings: dict[str, Any] = {
            "client_options": {"timeout": "30s", "connect_timeout": "10s", "allow_http": plain},
            "retry_config": {"max_retries": 5, "retry_timeout": timedelta(seconds=60)},
            **self.options,
        }
        try:
            return from_url(self.url, **settings)
        except (obstore.exceptions.BaseError, TypeError, ValueError) as error:
            raise UsageError(f"{self.url}: {' '.join(str(error).split())[:300]}", "check the address and the options") from None


class FsspecFiles(_RemoteFiles):
    """Everything else that fsspec knows, memory:// above all (which only a fork can hand on to a child)."""

    survives_fork = True

    def metadata(self, path: str) -> bytes:
        return bytes(self._call(path, lambda fs, full: fs.cat_file(full)))

    def children(self, path: str) -> list[str]:
        entries = self._call(path, lambda fs, full: fs.ls(full, detail=True))
        names = [entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory"]
        return sorted(name for name in names if not name.startswith("."))

    def _ranges(self, path: str, starts: list[int], lengths: list[int]) -> list[np.ndarray]:
        def fetch(fs: Any, full: str) -> list[np.ndarray]:
            return [
                np.frombuffer(fs.cat_file(full, start=start, end=start + length), np.uint8)
                for start, length in zip(starts, lengths, strict=True)
            ]

        return list(self._call(path, fetch))

    def _call(self, path: str, request: Any) -> Any:
        try:
            fs, root = fsspec.core.url_to_fs(self.url, **self.options)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{self.url}: {error}", "use a folder, s3://, gs://, az:// or https://") from None
        try:
            return request(fs, f"{root}/{path}" if path else root)
        except FileNotFoundError:
            raise StoreError(f"{self.url}/{path}: not there", "check the address of the store") from None
        except (OSError, RuntimeError) as error:
            raise StoreError(f"{self.url}/{path}: {error}", _NETWORK) from None


class CachedFiles:
    """What was fetched stays on a local disk, up to a limit; whole shards that were not used for longest go first.

    A cached shard is one sparse file: every chunk at its own offset, and behind the shard one byte a chunk that says
    whether it is there (the last is the index). The crc32c of a chunk tells when such a byte speaks too soon.
    """

    def __init__(self, origin: Files, folder: Path, limit: int) -> None:
        self.origin, self.folder, self.limit = origin, folder, limit
        self.survives_fork = origin.survives_fork
        folder.mkdir(parents=True, exist_ok=True)
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _CachedShard] = OrderedDict()
        self._room = self._make_room(0)

    def __getstate__(self) -> dict[str, object]:
        return {"origin": self.origin, "folder": self.folder, "limit": self.limit}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def metadata(self, path: str) -> bytes:
        return self.origin.metadata(path)

    def recorded(self, path: str, record: StoredFile) -> bytes:
        """From the cache, where it is named by its SHA-256; what is damaged there is fetched again."""
        kept = self.folder / f"{record.sha256}.column"
        with suppress(OSError):
            content = kept.read_bytes()
            if record.problem(content) is None:
                return content
        content = self.origin.recorded(path, record)
        blocks = len(content) + 2 * 4096
        with self._lock:
            fits = blocks <= self._room
            self._room -= blocks if fits else 0
        with suppress(OSError):
            if fits:
                write_bytes(kept, content)
        return content

    def children(self, path: str) -> list[str]:
        return self.origin.children(path)

    def tail(self, number: int, shard: Shard, length: int) -> bytes:
        cached = self._shard(number, shard)
        if cached.has(shard.capacity):
            return cached.read(shard.bytes - length, length)
        content = self.origin.tail(number, shard, length)
        self._keep(number, shard, shard.capacity, shard.bytes - length, content)
        return content

    def again(self, number: int, shard: Shard, inner: int, offset: int, length: int) -> np.ndarray | None:
        content = self.origin.again(number, shard, inner, offset, length)
        if content is not None:
            self._keep(number, shard, inner, offset, content)
        return content

    def chunks(
        self,
        numbers: Sequence[int],
        shards: Sequence[Shard],
        inner: Sequence[int],
        offsets: Sequence[int],
        lengths: Sequence[int],
    ) -> Iterator[tuple[np.ndarray, int]]:
        cached = [self._shard(number, shard) for number, shard in zip(numbers, shards, strict=True)]
        missing = [k for k in range(len(numbers)) if not cached[k].has(inner[k])]
        pick = itemgetter(*missing) if len(missing) > 1 else lambda values: tuple(values[k] for k in missing)
        fetched = self.origin.chunks(*map(pick, (numbers, shards, inner, offsets, lengths))) if missing else iter(())
        absent = set(missing)
        for k in range(len(numbers)):
            if k in absent:
                content, address = next(fetched)
                self._keep(numbers[k], shards[k], inner[k], offsets[k], content)
                yield content, address
            else:
                content = np.frombuffer(cached[k].read(offsets[k], lengths[k]), np.uint8)
                yield content, content.ctypes.data

    def _shard(self, number: int, shard: Shard) -> _CachedShard:
        if self._pid != os.getpid():
            self._start()
        with self._lock:
            cached = self._open.get(number)
            if cached is None or cached.removed:
                cached = self._open[number] = _CachedShard(self.folder / f"{shard.sha256}.shard", shard)
            self._open.move_to_end(number)
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
            return cached

    def _keep(self, number: int, shard: Shard, inner: int, offset: int, content: bytes | np.ndarray) -> None:
        """Put a chunk into the cache, if there is room or room can be made; a full disk is no reason to stop reading."""
        blocks = len(content) + 2 * 4096
        with self._lock:
            if blocks > self._room:
                self._room = self._make_room(blocks)
                self._open = OrderedDict((key, kept) for key, kept in self._open.items() if not kept.removed)
            if blocks > self._room:
                return
            self._room -= blocks
        try:
            self._shard(number, shard).keep(inner, offset, content)
        except OSError:
            with self._lock:
                # a full disk: what is free is counted again before the next chunk
                self._room = 0

    def _make_room(self, needed: int) -> int:
        """Remove what was not used for longest until `needed` bytes and a tenth of the limit are free; return what is free."""
        entries = []
        for path in (*self.folder.glob("*.shard"), *self.folder.glob("*.column")):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process made room
            entries.append((status.st_mtime_ns, status.st_blocks * 512, path))
        # blocks, not sizes: the files are sparse
        taken = sum(size for _, size, _ in entries)
        aim = self.limit if taken + needed <= self.limit else min(self.limit * 9 // 10, self.limit - needed)
        for _, size, path in sorted(entries):
            if taken <= aim:
                break
            path.unlink(missing_ok=True)
            taken -= size
        return max(0, self.limit - taken)


class _CachedShard:
    def __init__(self, path: Path, shard: Shard) -> None:
        self._base = shard.bytes
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.utime(self._fd)  # used now
        if os.fstat(self._fd).st_size < shard.bytes + shard.capacity + 1:
            os.ftruncate(self._fd, shard.bytes + shard.capacity + 1)
        self._have = bytearray(os.pread(self._fd, shard.capacity + 1, self._base))

    @property
    def removed(self) -> bool:
        # another process may have made room while this one holds the file open
        return os.fstat(self._fd).st_nlink == 0

    def has(self, inner: int) -> bool:
        return self._have[inner] == 1

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def keep(self, inner: int, offset: int, content: bytes | np.ndarray) -> None:
        os.pwrite(self._fd, np.frombuffer(content, np.uint8).data, offset)
        # after the bytes: a process that is killed in between leaves a chunk that counts as absent
        os.pwrite(self._fd, b"\1", self._base + inner)
        self._have[inner] = 1

    def __del__(self) -> None:
        os.close(self._fd)
