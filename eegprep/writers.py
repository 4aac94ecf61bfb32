"""Which process writes: a name that no other process has, and whether the process behind such a name still runs."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from functools import cache
from pathlib import Path


def writer_token() -> str:
    """`MACHINE-PID-START-RANDOM`: a name that only this call has, from which `state` can tell whether the process is still there."""
    return f"{machine()}-{os.getpid():x}-{_start_of(os.getpid()):x}-{secrets.token_hex(3)}"


def state(token: str) -> str:
    """Of the process that made a token: "own", "alive", "dead", or "elsewhere" when it ran on another machine or in another container."""
    try:
        place, pid, start, _ = token.split("-")
        number, began = int(pid, 16), int(start, 16)
    except ValueError:
        return "dead"
    if place != machine():
        return "elsewhere"
    if number == os.getpid():
        return "own" if began == _start_of(number) else "dead"
    return "alive" if _runs(number, began) else "dead"


@cache
def machine() -> str:
    """Eight hexadecimal digits for this machine since it was started, and for the space in which process numbers are counted."""
    parts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):  # noqa: PTH115
        try:
            parts.append(read())
        except OSError:  # not Linux
            continue
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _runs(pid: int, start: int) -> bool:
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z" and int(fields[19]) == start


def _start_of(pid: int) -> int:
    """Clock ticks between the start of the machine and that of the process; 0 where the system does not say."""
    fields = _stat(pid)
    return 0 if fields is None else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: the state is field 0, the start is field 19."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
