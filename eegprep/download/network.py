"""Which data files a library opens: noted by an audit hook, whatever way it takes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# by thread: another one may read files of its own meanwhile
_local = threading.local()
_installing = threading.Lock()
_hooked: list[bool] = []


@contextmanager
def files_opened(folder: Path) -> Iterator[list[Path]]:
    """Which data files under `folder` this thread opens for reading while inside, in order, each once."""
    _install()
    opened: list[Path] = []
    _local.opened = (str(folder.resolve()), opened)
    try:
        yield opened
    finally:
        _local.opened = None


def _install() -> None:
    """Audit hooks cannot be removed: one for the life of the process, asleep while nobody asks."""
    with _installing:
        if not _hooked:
            sys.addaudithook(_watch)
            _hooked.append(True)


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        _note_opened(args)


def _note_opened(args: tuple[Any, ...]) -> None:
    """Remember a file that is opened for reading; hidden files and MOABB's own lists are no data."""
    noting = getattr(_local, "opened", None)
    if noting is None or not isinstance(args[0], str | os.PathLike) or set(str(args[1] or "r")) & set("wax+"):
        return
    root, opened = noting
    path = Path(os.path.realpath(args[0]))
    new = str(path).startswith(root + os.sep) and path.is_file() and path not in opened
    if new and not any(part.startswith(".") for part in path.relative_to(root).parts):
        opened.append(path)
