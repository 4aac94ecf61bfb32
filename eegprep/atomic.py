"""The one way anything gets onto disk: temporary name, fsync, rename, fsync of the folder.

A process killed at any moment leaves either the old content, or the new, and at most a `.NAME.partial` beside it,
which the next run of the same command removes. A temporary name belongs to one writer alone, so that two that prepare the
same file never meet; `partial_path`, which every run finds again, is only for what is resumed.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from eegprep import writers

FSYNCS_AT_ONCE = 16

ABANDONED_S = 3600.0  # a partial file of another machine that has not changed for so long has no writer any more


def partial_path(path: Path) -> Path:
    """Where `path` is prepared by whoever resumes it: the same folder, so that the rename stays on one file system."""
    return path.with_name(f".{path.name}.partial")


def private_path(path: Path) -> Path:
    """A hidden name beside `path` that no other writer uses."""
    # a name may have 255 bytes, and the token needs some of them
    name = path.name if len(os.fsencode(path.name)) <= 100 else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    return path.with_name(f".{name}.{writers.writer_token()}.partial")


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in `folder`, or the content of a file, survive a power cut."""
    # a rename is in the folder's own data: without this it may be lost though the file is safe
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; it appears under its name only if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = private_path(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file at once."""
    with open_atomic(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file at once."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON that is the same, byte for byte, for the same content."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def exchange(new: Path, old: Path) -> bool:
    """Let two paths of one file system trade places in one step, so that no moment shows neither; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux; glibc 2.28 or newer
    if rename is None:
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(new), here, os.fsencode(old), swap) == 0)


def publish_folder(partial: Path, final: Path) -> None:
    """Give a finished folder its name: every file and folder in it reaches the disk before the rename.

    An older `final` trades places with the new one and is removed afterwards; where the system cannot do that, it is moved
    aside first. A kill never leaves half of each. A link at `final` is replaced, and what it points to is left alone.
    """
    inside = [Path(folder) / name for folder, _, files in os.walk(partial) for name in ("", *files)]
    # one after the other, each waits for the disk; together they share its queue
    with ThreadPoolExecutor(FSYNCS_AT_ONCE) as pool:
        list(pool.map(fsync_folder, inside))
    final.parent.mkdir(parents=True, exist_ok=True)
    old: Path | None = None
    while True:
        if final.is_symlink() or final.exists():
            old = private_path(final.with_name(f"{final.name}.old"))
            if exchange(partial, final):
                fsync_folder(final.parent)
                partial.rename(old)
                break
            final.rename(old)
        try:
            partial.rename(final)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise  # anything but another writer that gave the name in the meantime
    fsync_folder(final.parent)
    if old is not None:
        remove(old)


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link (and never what it points to); what is gone already is no error."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def remove_whole(folder: Path) -> None:
    """Remove a folder so that a kill in the middle leaves no half of it under its name."""
    aside = private_path(folder)
    # a rename happens whole; removing many files does not
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def clean_partial(folder: Path, name: str = "*") -> None:
    """Remove what killed runs left directly in `folder`; what a process that still runs prepares there stays.

    Args:
        name: only what was to become this file or folder.
    """
    for leftover in folder.glob(f".{name}.partial" if name == "*" else f".{glob.escape(name)}.*.partial"):
        if not _in_use(leftover):
            remove(leftover)


def _in_use(leftover: Path) -> bool:
    token = leftover.name.removesuffix(".partial").rpartition(".")[2]
    if token.count("-") != 3:
        return False  # a name that every run of the command shares: the lock says that nobody else is at it
    state = writers.state(token)
    if state != "elsewhere":
        return state == "alive"
    try:
        return time.time() - leftover.lstat().st_mtime < ABANDONED_S
    except FileNotFoundError:
        return True
