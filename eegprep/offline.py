"""No socket at all while offline: internet sockets and look-ups of names are refused before the system is asked for them.

The guard is a property of a thread, or of the process. Sockets between processes on this machine (AF_UNIX) stay possible, and so
does the traffic of other threads, for instance of a Dask worker. `EEGPREP_OFFLINE=1` in the environment puts it up for a whole process
before anything else is imported: libraries open sockets when they are imported, to find out whether the machine has IPv6.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

VARIABLE = "EEGPREP_OFFLINE"
_RESOLVE = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo")
_INTERNET = (-1, socket.AF_INET, socket.AF_INET6)  # -1: what `socket.socket()` takes for AF_INET


class NetworkGuard:
    """Counts what was refused."""

    def __init__(self) -> None:
        self.refused: list[str] = []


_local = threading.local()
_everywhere: list[NetworkGuard] = []
_installing = threading.Lock()
_plain: dict[str, Any] = {}


@contextmanager
def no_network(*, everywhere: bool = False) -> Iterator[NetworkGuard]:
    """While inside, opening an internet socket or resolving a name raises FetchError.

    Args:
        everywhere: in all threads, not only in this one; processes that are started inside are offline as well.
    """
    _install()
    guard, before = NetworkGuard(), os.environ.get(VARIABLE)
    stack = _everywhere if everywhere else _stack()
    stack.append(guard)
    if everywhere:
        os.environ[VARIABLE] = "1"
    try:
        yield guard
    finally:
        stack.remove(guard)
        if everywhere and before is None:
            os.environ.pop(VARIABLE, None)


def is_offline() -> bool:
    """Whether this thread may open no socket."""
    return bool(_everywhere or getattr(_local, "guards", []))


def _stack() -> list[NetworkGuard]:
    if not hasattr(_local, "guards"):
        _local.guards = []
    guards: list[NetworkGuard] = _local.guards
    return guards


def _refuse(what: str) -> None:
    guards = [*_everywhere, *getattr(_local, "guards", [])]
    if not guards:
        return
    for guard in guards:
        guard.refused.append(what)
    from eegprep.errors import FetchError  # late: this module comes before all others

    raise FetchError(
        f"offline: something asked for the network ({what})", "leave out --offline, or put the files into the data folder"
    )


def _install() -> None:
    """Stand in for what opens sockets and looks names up; asleep while no guard is up.

    An audit hook, which cannot be removed, catches what goes around these (`_socket`, or a name that was imported before).
    """
    with _installing:
        if _plain:
            return
        plain_socket = _plain["socket"] = socket.socket

        class Socket(plain_socket):  # type: ignore[misc, valid-type]
            """`socket.socket` that asks the guard first."""

            def __new__(cls, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> Any:  # noqa: A002
                if fileno is None and family in _INTERNET:
                    _refuse("__new__")
                return super().__new__(cls, family, type, proto, fileno)

        Socket.__name__ = Socket.__qualname__ = "socket"
        Socket.__module__ = "socket"
        socket.socket = Socket  # type: ignore[misc]
        for name in _RESOLVE:
            _plain[name] = getattr(socket, name)
            setattr(socket, name, _asking_first(name))
        sys.addaudithook(_watch)


def _asking_first(name: str) -> Any:
    plain = _plain[name]

    def ask(*args: Any, **more: Any) -> Any:
        _refuse(f"{name} {args[0] if args else ''}".strip())
        return plain(*args, **more)

    ask.__name__ = name
    ask.__doc__ = plain.__doc__
    return ask


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if not event.startswith("socket.") or not is_offline():
        return
    name = event.removeprefix("socket.")
    if (name == "__new__" and args[1] in _INTERNET) or name in _RESOLVE:
        _refuse(f"{name} {args[0] if name in _RESOLVE else ''}".strip())


if os.environ.get(VARIABLE) == "1":
    _install()
    _everywhere.append(NetworkGuard())
