"""No socket at all: a guard that Python's own audit events enforce, whatever library tries.

The guard is a property of a thread (or, in a process that MOABB has to itself, of the process). Sockets between processes on this
machine (AF_UNIX) stay possible, and so does the traffic of other threads, for instance of a Dask worker.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eegprep.errors import FetchError


class NetworkGuard:
    """Counts what was refused."""

    def __init__(self) -> None:
        self.refused: list[str] = []


_local = threading.local()

_everywhere: list[NetworkGuard] = []

_installed = threading.Lock()

_hooked: list[bool] = []

_RESOLVE = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")


@contextmanager
def no_network(*, everywhere: bool = False) -> Iterator[NetworkGuard]:
    """While inside, opening an internet socket or resolving a name raises FetchError.

    Args:
        everywhere: in all threads, not only in this one.
    """
    _install()
    guard = NetworkGuard()
    stack = _everywhere if everywhere else _stack()
    stack.append(guard)
    try:
        yield guard
    finally:
        stack.remove(guard)


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


def _stack() -> list[NetworkGuard]:
    if not hasattr(_local, "guards"):
        _local.guards = []
    guards: list[NetworkGuard] = _local.guards
    return guards


def _install() -> None:
    """Audit hooks cannot be removed: one for the life of the process, asleep while no guard is up."""
    with _installed:
        if not _hooked:
            sys.addaudithook(_watch)
            _hooked.append(True)


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        _note_opened(args)
    if not event.startswith("socket."):
        return
    guards = [*_everywhere, *getattr(_local, "guards", [])]
    if not guards:
        return
    if event == "socket.__new__" and args[1] not in (socket.AF_INET, socket.AF_INET6):
        return
    if event == "socket.__new__" or event in _RESOLVE:
        what = f"{event.removeprefix('socket.')} {args[0] if event in _RESOLVE else ''}".strip()
        for guard in guards:
            guard.refused.append(what)
        raise FetchError(
            f"offline: something asked for the network ({what})", "leave out --offline, or put the files into the data folder"
        )
