"""`--offline` makes no internet socket at all, not even the one by which a library finds out whether there is IPv6."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eeg_files import write_people

from eegprep.errors import FetchError
from eegprep.offline import is_offline, no_network

# counts what the system is asked for, in this process and in those that it starts
COUNTING = """
import os, sys
def watch(event, args):
    internet = event == "socket.__new__" and int(args[1]) in (2, 10)
    if internet or event in ("socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["COUNTED"], "a") as file:
            file.write(f"{event} {args[1:]}\\n")
sys.addaudithook(watch)
"""


def eegprep(folder: Path, *words: str) -> tuple[int, str]:
    """(exit code, what asked for the network)."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site/sitecustomize.py").write_text(COUNTING)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), root]), "COUNTED": str(folder / "counted")}
    code = "from cli.main import eegprep; eegprep()"
    done = subprocess.run([sys.executable, "-c", code, *words], env=environment, cwd=folder, capture_output=True, check=False)
    counted = folder / "counted"
    return done.returncode, counted.read_text() if counted.exists() else ""


def test_a_build_of_files_makes_no_socket(tmp_path):
    """With worker processes."""
    source = write_people(tmp_path / "people", 2)

    assert eegprep(tmp_path, "build", source, "--out", "c.zarr", "--offline", "--workers", "2") == (0, "")


@pytest.mark.slow
def test_a_data_set_that_is_not_here_makes_no_socket(tmp_path):
    """Neither here nor in the process that MOABB has to itself."""
    (tmp_path / "empty").mkdir()
    words = (
        "build",
        "moabb:PhysionetMI",
        "--subjects",
        "1",
        "--data-dir",
        "empty",
        "--out",
        "c.zarr",
        "--offline",
        "--accept",
        "all",
    )

    assert eegprep(tmp_path, *words) == (1, "")


def test_the_guard_asks_nobody_and_lets_go():
    """The stand-in refuses before the system is asked; sockets between processes stay possible."""
    with no_network() as guard:
        for attempt in (socket.socket, lambda: socket.socket(socket.AF_INET6), lambda: socket.getaddrinfo("localhost", 80)):
            with pytest.raises(FetchError, match="offline"):
                attempt()
        socket.socket(socket.AF_UNIX).close()
        assert is_offline() and len(guard.refused) == 3
    socket.socket().close()
    assert not is_offline()


def test_ctrl_c_says_how_to_go_on(tmp_path):
    """Whatever the command line library makes of it."""
    source = write_people(tmp_path / "people", 6, seconds=60)
    code = "from cli.main import eegprep; eegprep()"
    words = [sys.executable, "-c", code, "build", source, "--out", str(tmp_path / "c.zarr")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not any(tmp_path.glob("c.zarr/*/.*.partial")):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[1]

    assert process.returncode in (0, 130)
    assert process.returncode == 0 or "run the same command again to resume" in output
