"""Lets one process at a time write a store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eegprep.errors import StoreError


@contextmanager
def store_lock(root: Path) -> Iterator[None]:
    """Hold the store `root` for this process: a lock on the folder itself, so that nothing is left beside or in it.

    The system lets go of the lock when the process dies, however it dies.

    Raises:
        StoreError: another process holds it.
    """
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root}: is a file, not a folder", "choose another output")
    root.mkdir(parents=True, exist_ok=True)
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"{root}: another process is writing into this store", "wait until it is done, or choose another output"
            ) from None
        except OSError:  # a network file system without locks: one writer is then the person's own care
            pass
        yield
    finally:
        os.close(handle)
