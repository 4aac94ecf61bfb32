"""Children under limits, injected errors, flipped bits, and digests of folders: what every part of the campaign uses.

A child is a forked process: it inherits what is imported, so that hundreds of them cost seconds. Works on Linux.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import importlib
import io
import mmap
import os
import pickle
import resource
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE)


@dataclass(frozen=True)
class Ended:
    """How a child ended: value, refused (an error of the project's own), crashed (any other error), killed or hung."""

    kind: str
    value: Any = None
    text: str = ""
    peak: int = 0  # bytes that were resident at most

    @property
    def fine(self) -> bool:
        return self.kind in ("value", "refused")


def run(work: Callable[[], Any], *, seconds: float = 60.0, memory: int | None = None) -> Ended:
    """Do `work()` in a child. memory: bytes of address space beyond what this process has now."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(work, write, memory)
    os.close(write)
    os.set_blocking(read, False)
    content, deadline, hung = b"", time.monotonic() + seconds, False
    while True:
        try:
            piece = os.read(read, 1 << 20)
        except BlockingIOError:
            if time.monotonic() > deadline:
                hung = True
                os.killpg(pid, signal.SIGKILL)
                break
            time.sleep(0.003)
            continue
        if not piece:
            break
        content += piece
    os.close(read)
    _, status, usage = os.wait4(pid, 0)
    peak = usage.ru_maxrss * 1024
    if hung:
        return Ended("hung", text=f"no end after {seconds:g} s", peak=peak)
    if not content:
        return Ended("killed", text=f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no answer", peak=peak)
    kind, value, text = pickle.loads(content)
    return Ended(kind, value, text, peak)


def start(work: Callable[[], Any]) -> int:
    """Begin `work()` in a child with a process group of its own; returns its number."""
    pid = os.fork()
    if pid == 0:
        _child(work, None, None)
    return pid


def _child(work: Callable[[], Any], write: int | None, memory: int | None) -> None:
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        if memory:
            limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            answer: tuple[str, Any, str] = ("value", work(), "")
        except BaseException as error:
            own = any(cls.__name__ == "ToolkitError" for cls in type(error).__mro__)
            answer = ("refused" if own else "crashed", None, f"{type(error).__name__}: {error}")
        if write is not None:
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(answer, pipe)
    finally:
        os._exit(0)


def loaded(_: Any) -> list[str]:
    """Names of the modules that are loaded once that is done."""
    return sorted(sys.modules)


def load(names: list[str]) -> None:
    """Import these modules here, so that children have them already: the commands import most of theirs when they run."""
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with suppress(Exception):
                importlib.import_module(name)


def tree(path: Path) -> dict[str, str]:
    """Every file at or below `path` with its SHA-256; hidden ones count."""
    if path.is_file():
        return {"": hashlib.sha256(path.read_bytes()).hexdigest()}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def empty(path: Path) -> Path:
    """Remove what is at `path`, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


@contextmanager
def flipped(path: Path, position: int, bit: int) -> Iterator[None]:
    """One bit of a file is the other way round inside the block."""

    def turn() -> None:
        with path.open("r+b") as file:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 1 << bit]))

    turn()
    try:
        yield
    finally:
        turn()


class Faults:
    """Let the `nth` call below `root` that changes a file fail with `number`; with `lasting`, every later one as well.

    Counted over this process and its forked children: opening for writing, write, fsync, rename, link and mkdir.
    """

    def __init__(self, root: Path, nth: int, number: int, *, lasting: bool = False) -> None:
        self.root, self.nth, self.number, self.lasting = str(root), nth, number, lasting
        self._shared = mmap.mmap(-1, 16)

    @property
    def calls(self) -> int:
        return int(struct.unpack("<QQ", self._shared[:])[0])

    @property
    def hits(self) -> int:
        return int(struct.unpack("<QQ", self._shared[:])[1])

    def count(self, path: Any) -> None:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str | os.PathLike) or not os.path.abspath(path).startswith(self.root):  # noqa: PTH100
            return
        calls, hits = self.calls + 1, self.hits
        failing = calls == self.nth or (self.lasting and calls > self.nth)
        self._shared[:] = struct.pack("<QQ", calls, hits + failing)
        if failing:
            raise OSError(self.number, os.strerror(self.number), str(path))

    def install(self) -> None:
        """From here on, in this process; there is no way back."""
        faults, plain_open = self, io.open

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                faults.count(self.name)
                return super().write(data)  # type: ignore[return-value]

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
            ours = isinstance(file, str | os.PathLike) and os.path.abspath(file).startswith(faults.root)  # noqa: PTH100
            if not ours or not set(mode) & set("wax+"):
                return plain_open(file, mode, buffering, *rest, **more)
            faults.count(file)
            raw = Raw(os.fspath(file), mode.replace("b", "").replace("t", ""))
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *(rest[:1] or (more.get("encoding"),)))

        def watched(name: str, which: int) -> Callable[..., Any]:
            real = getattr(os, name)

            def call(*args: Any, **more: Any) -> Any:
                faults.count(args[min(which, len(args) - 1)])
                return real(*args, **more)

            return call

        def fsync(handle: Any) -> None:
            faults.count(os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}"))  # noqa: PTH115
            real_fsync(handle)

        real_fsync = os.fsync
        io.open = builtins.open = opened  # type: ignore[assignment]
        os.fsync = fsync  # type: ignore[assignment]
        for name, which in (("rename", 1), ("replace", 1), ("link", 1), ("mkdir", 0)):
            setattr(os, name, watched(name, which))
