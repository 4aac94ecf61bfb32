"""One writer at a time, on file systems with locks, without, and with locks that are granted to everybody."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import time

import pytest

from eegprep import locks, writers
from eegprep.atomic import clean_partial, open_atomic, private_path
from eegprep.errors import StoreError
from eegprep.locks import store_lock


def no_locks(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


def granted_to_all(monkeypatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


def usual(monkeypatch) -> None:
    pass


SYSTEMS = pytest.mark.parametrize("system", [usual, no_locks, granted_to_all], ids=lambda system: system.__name__)


def holding(root, ready) -> int:
    """A forked process that holds the lock until it is killed."""
    pid = os.fork()
    if pid == 0:
        with store_lock(root):
            ready.touch()
            signal.pause()
        os._exit(0)
    while not ready.exists():
        time.sleep(0.01)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@SYSTEMS
def test_a_second_process_is_refused_and_a_killed_one_lets_go(tmp_path, monkeypatch, system):
    """Whatever the file system says of its locks."""
    system(monkeypatch)
    pid = holding(tmp_path / "s", tmp_path / "ready")
    try:
        with (
            pytest.raises(StoreError, match=f"another process is writing into this store \\(process {pid} on "),
            store_lock(tmp_path / "s"),
        ):
            pass
    finally:
        end(pid)
    with store_lock(tmp_path / "s"):
        pass
    assert list((tmp_path / "s").iterdir()) == []


@SYSTEMS
def test_the_same_process_may_not_take_it_twice_unless_it_says_so(tmp_path, monkeypatch, system):
    """Two threads would be two writers."""
    system(monkeypatch)
    with store_lock(tmp_path), pytest.raises(StoreError, match="another process"), store_lock(tmp_path):
        pass
    with locks.folder_lock(tmp_path, again=True, refused=StoreError), locks.folder_lock(tmp_path, again=True, refused=StoreError):
        assert (tmp_path / locks.OWNER).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_name_from_another_machine_holds_where_locks_cannot_tell(tmp_path, monkeypatch):
    """There is no way to know whether that process still runs: the message says which file to delete if it does not."""
    owner = tmp_path / locks.OWNER
    owner.write_text(json.dumps({"writer": "00000000-1-1-abc", "pid": 1, "host": "elsewhere"}))
    with store_lock(tmp_path):  # the lock was granted by a file system that asks everybody: the other is gone
        pass
    owner.write_text(json.dumps({"writer": "00000000-1-1-abc", "pid": 1, "host": "elsewhere"}))
    no_locks(monkeypatch)

    with (
        pytest.raises(StoreError, match=r"(?s)process 1 on elsewhere, another machine.*delete .*writer\.json"),
        store_lock(tmp_path),
    ):
        pass


def test_waiting_ends_when_the_other_lets_go(tmp_path):
    """And says once for whom."""
    pid, messages = holding(tmp_path / "s", tmp_path / "ready"), []

    def waiting(holder: str) -> None:
        messages.append(holder)
        end(pid)

    with locks.folder_lock(tmp_path / "s", wait=-1, waiting=waiting, refused=StoreError):
        assert messages == [f"process {pid} on {os.uname().nodename}"]


def test_what_a_living_process_prepares_is_not_cleaned_away(tmp_path):
    """Its name says whose it is; what a killed one left goes."""
    alive, dead = (
        tmp_path / f".a.{writers.machine()}-{os.getppid():x}-{writers._start_of(os.getppid()):x}-0.partial",
        tmp_path / f".b.{writers.machine()}-7ffffff-1-0.partial",
    )
    own, shared = private_path(tmp_path / "c"), tmp_path / ".d.partial"
    for path in (alive, dead, own, shared):
        path.write_text("x")

    clean_partial(tmp_path)

    assert list(tmp_path.iterdir()) == [alive]


def test_two_writers_of_one_file_never_meet(tmp_path):
    """Each prepares it under a name of its own; the last one wins, whole."""
    with open_atomic(tmp_path / "f") as one, open_atomic(tmp_path / "f") as two:
        one.write(b"one")
        two.write(b"two")

    assert (tmp_path / "f").read_bytes() == b"one" and len(list(tmp_path.iterdir())) == 1


def test_a_name_of_250_letters_can_be_written(tmp_path):
    """The hidden name must not be longer than the file system allows."""
    with open_atomic(tmp_path / ("x" * 250)) as file:
        file.write(b"1")

    assert (tmp_path / ("x" * 250)).read_bytes() == b"1"
