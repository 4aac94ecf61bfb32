"""kill -9 at any moment, and the same command ends with the same bytes; on one process, on two, and on a Dask cluster."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eeg_files import write_people

import eegprep
from eegprep.steps.build import fetch
from eegprep.store.checks import check_group
from eegprep.store.recordings import subjects

KILLS = 60


def tree(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def in_a_child(work) -> int:
    """Start `work` in a forked process and return its number."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            work()
        finally:
            os._exit(0)
    return child


@pytest.mark.slow
@pytest.mark.parametrize("step", [eegprep.build, fetch], ids=["build", "fetch"])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path, step):
    """Sixty kills. After each, every subject that is visible is whole; at the end the store is that of an undisturbed run."""
    source = write_people(tmp_path / "people", 5)
    started = time.monotonic()
    step(source, tmp_path / "whole.zarr")
    duration = time.monotonic() - started
    rng, killed, root = random.Random(1), 0, tmp_path / "killed.zarr"

    for attempt in range(20 * KILLS):
        child = in_a_child(lambda: step(source, root))
        time.sleep(rng.uniform(0, duration * 0.6))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        for dataset, subject in subjects(root) if root.exists() else []:
            assert check_group(root / dataset / subject, subject).problems == (), f"attempt {attempt}"
        if killed >= KILLS:
            break
        if not os.WIFSIGNALED(status):  # it was done before the signal came: begin anew
            assert tree(root) == tree(tmp_path / "whole.zarr")
            for path in sorted(root.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            root.rmdir()

    step(source, root)
    assert killed >= KILLS and tree(root) == tree(tmp_path / "whole.zarr")


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    """An orphan would write into the store while the next command does the same."""
    source = write_people(tmp_path / "people", 6)
    eegprep.build(source, tmp_path / "whole.zarr")
    root = tmp_path / "c.zarr"
    code = f"import eegprep\nif __name__ == '__main__':\n    eegprep.build({source!r}, {str(root)!r}, workers=2)\n"
    (tmp_path / "script.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    parent = subprocess.Popen([sys.executable, tmp_path / "script.py"], env=environment, start_new_session=True)
    while not (root.exists() and subjects(root)):
        time.sleep(0.05)
        assert parent.poll() is None
    workers = children(parent.pid)
    parent.kill()
    parent.wait()

    deadline = time.monotonic() + 20
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) >= 2 and not any(alive(worker) for worker in workers)
    eegprep.build(source, root)
    assert tree(root) == tree(tmp_path / "whole.zarr")


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`, and theirs."""
    result = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                result += [int(folder.name), *children(int(folder.name))]
    return result


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not collected does not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_in_mid_work_loses_nothing(tmp_path):
    """A real scheduler and two worker processes; one is killed as soon as a subject is there."""
    distributed = pytest.importorskip("distributed")
    source = write_people(tmp_path / "people", 12, seconds=30)
    eegprep.build(source, tmp_path / "whole.zarr")
    root = tmp_path / "c.zarr"
    code = f"import eegprep\nif __name__ == '__main__':\n    eegprep.build({source!r}, {str(root)!r}, scheduler='ADDRESS')\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        (tmp_path / "script.py").write_text(code.replace("ADDRESS", cluster.scheduler_address))
        build = subprocess.Popen([sys.executable, tmp_path / "script.py"], env=environment)
        while not (root.exists() and subjects(root)):
            time.sleep(0.02)
            assert build.poll() is None
        there = len(subjects(root))
        with distributed.Client(cluster) as client:
            victim = next(iter(client.scheduler_info()["workers"].values()))["id"]
            pid = next(worker.pid for name, worker in cluster.workers.items() if str(name) == str(victim))
        os.kill(pid, signal.SIGKILL)
        assert build.wait(timeout=300) == 0

    assert there < 12
    assert tree(root) == tree(tmp_path / "whole.zarr")
