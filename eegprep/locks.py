"""One writer per folder, on every file system: a lock of the system where there is one, and a file that names the writer.

The lock is `flock` on the folder itself: the system lets go of it when the process dies, however it dies. Some network file systems
have no such locks (ENOLCK), and some grant them on each machine separately (Lustre, GPFS). So the writer also leaves
its name in the folder, in a file that only one process can make; it is removed at the end, and a name whose process is gone is taken over.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from eegprep import writers
from eegprep.atomic import clean_partial
from eegprep.errors import StoreError, ToolkitError

OWNER = ".writer.json"
_PAUSE_S = 0.1
_HALF_WRITTEN_S = 10.0  # a name that is still empty after this belongs to a process that died while writing it
# file systems that may grant a lock on one machine without asking the others
_LOCAL_LOCKS = ("lustre", "gpfs", "beegfs", "fuse", "9p", "afs", "panfs", "wekafs", "orangefs", "pvfs2")


@dataclass
class _Held:
    handle: int
    token: str
    count: int = 1


_held: dict[tuple[int, str], _Held] = {}


@contextmanager
def folder_lock(
    folder: Path,
    *,
    wait: float = 0.0,
    again: bool = False,
    waiting: Callable[[str], None] | None = None,
    refused: Callable[[str, str], ToolkitError],
) -> Iterator[None]:
    """Hold `folder` for this process.

    Args:
        folder: made when it is not there; what killed runs left directly in it is removed.
        wait: s to wait for another process; below 0 for ever.
        again: the same process may take the lock again while it holds it.
        waiting: called once, with who holds it, before the wait.
        refused: makes the error from who holds it and what to do about it.

    Raises:
        ToolkitError: another process holds it, or may hold it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # with the process: a forked child inherits this table, but not the right to write
    key = (os.getpid(), str(folder.resolve()))
    held = _held.get(key)
    if held is not None and again:
        held.count += 1
    else:
        held = _held[key] = _take(folder, wait, waiting, refused)
    try:
        yield
    finally:
        held.count -= 1
        if not held.count:
            _held.pop(key, None)
            _forget(folder, held.token)
            with suppress(OSError):
                fcntl.flock(held.handle, fcntl.LOCK_UN)  # a forked child may still have the handle
            os.close(held.handle)


def _take(folder: Path, wait: float, waiting: Callable[[str], None] | None, refused: Callable[[str, str], ToolkitError]) -> _Held:
    deadline, announced = time.monotonic() + wait, False
    while True:
        handle, token = os.open(folder, os.O_RDONLY | os.O_CLOEXEC), writers.writer_token()
        try:
            holder = _try(folder, handle, token)
        except BaseException:
            os.close(handle)
            raise
        if holder is None:
            clean_partial(folder)
            return _Held(handle, token)
        os.close(handle)
        if wait >= 0 and time.monotonic() >= deadline:
            gone = f"; if that process is gone, delete {folder / OWNER}" if "another machine" in holder else ""
            raise refused(holder + (f", waited {wait:g} s" if wait > 0 else ""), f"wait until it is done{gone}")
        if waiting is not None and not announced:
            waiting(holder)
            announced = True
        time.sleep(_PAUSE_S)


def _try(folder: Path, handle: int, token: str) -> str | None:
    """Take the lock, or say who has it."""
    locked = True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _describe(folder)
    except OSError:  # ENOLCK, ENOTSUP, EINVAL, ...: there are no locks here, the name has to do
        locked = False
    # each round somebody else took over or let go; a hundred such rounds mean that others are busy here
    for _ in range(100):
        try:
            if _sign(folder, token):
                return None
        except OSError:
            return None if locked else _describe(folder)  # a folder that cannot be written: nothing will be written into it
        content = _read(folder)
        if content is None:
            continue  # gone in the meantime
        if not _abandoned(folder, content, locked):
            return _describe(folder)
        _take_over(folder, content)
    return _describe(folder)


def _sign(folder: Path, token: str) -> bool:
    """Leave the name of this process in the folder; False when there is one already. The file is never seen half written."""
    content = json.dumps({"writer": token, "pid": os.getpid(), "host": socket.gethostname()}).encode()
    own, owner = folder / f".writer.{token}.partial", folder / OWNER
    try:
        _write_new(own, content)
        try:
            os.link(own, owner)
        except FileExistsError:
            return False
        except OSError:  # no hard links here
            try:
                _write_new(owner, content)
            except FileExistsError:
                return False
        return True
    finally:
        with suppress(OSError):
            own.unlink(missing_ok=True)


def _write_new(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)


def _read(folder: Path) -> bytes | None:
    try:
        return (folder / OWNER).read_bytes()
    except FileNotFoundError:
        return None


def _token(content: bytes) -> str:
    with suppress(ValueError, AttributeError):
        return str(json.loads(content).get("writer", ""))
    return ""


def _abandoned(folder: Path, content: bytes, locked: bool) -> bool:
    """Whether the process that left this name is gone."""
    token = _token(content)
    if not token:
        with suppress(OSError):
            return time.time() - (folder / OWNER).lstat().st_mtime > _HALF_WRITTEN_S
        return False
    state = writers.state(token)
    if state == "own":
        return token not in {held.token for held in _held.values()}  # left by a release that was interrupted
    if state == "elsewhere":
        return locked and not _file_system(folder).startswith(
            _LOCAL_LOCKS
        )  # a lock that all machines see was granted: it is gone
    return state == "dead"


def _take_over(folder: Path, content: bytes) -> None:
    """Remove a name whose process is gone, and never one that another process has put there in the meantime."""
    aside = folder / f".writer.{writers.writer_token()}.partial"
    with suppress(FileNotFoundError):
        (folder / OWNER).rename(aside)
        # between reading and renaming another process may have signed: give it back its name
        if aside.read_bytes() != content:
            with suppress(OSError):
                os.link(aside, folder / OWNER)
        aside.unlink(missing_ok=True)


def _forget(folder: Path, token: str) -> None:
    with suppress(OSError):
        if _token((folder / OWNER).read_bytes()) == token:
            (folder / OWNER).unlink(missing_ok=True)


def _describe(folder: Path) -> str:
    """Who holds the folder, as far as is known."""
    try:
        content = json.loads((folder / OWNER).read_bytes())
        where = "" if writers.state(content["writer"]) != "elsewhere" else ", another machine or container"
        return f"process {content['pid']} on {content['host']}{where}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "unknown"


def _file_system(folder: Path) -> str:
    """Type of the file system that a folder is on, as Linux calls it; "" where it cannot be found out."""
    place, best, kind = str(folder.resolve()), "", ""
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            # blanks in names are written as \040
            point = before.split()[4].encode().decode("unicode_escape")
            if (place == point or place.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
                best, kind = point, after.split()[0]
    return kind


@contextmanager
def store_lock(root: Path) -> Iterator[None]:
    """Hold the store `root` for this process; nothing of the lock is left when it ends.

    Raises:
        StoreError: another process holds it, or `root` is a file.
    """
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root}: is a file, not a folder", "choose another output")

    def refused(holder: str, fix: str) -> StoreError:
        return StoreError(f"{root}: another process is writing into this store ({holder})", f"{fix}, or choose another output")

    with folder_lock(root, refused=refused):
        yield
