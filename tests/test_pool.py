"""Jobs on a Dask cluster stay within the memory budget, as those in processes do."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from eegprep.errors import UsageError
from eegprep.pool import Budget, run_jobs

RUNNING: list[str] = []
MOST: list[int] = [0]
LOCK = threading.Lock()


@dataclass(frozen=True)
class Job:
    """Says how many run beside it."""

    name: str
    memory: int
    bytes: int = 0

    def run(self) -> str:
        with LOCK:
            RUNNING.append(self.name)
            MOST[0] = max(MOST[0], len(RUNNING))
        time.sleep(0.05)
        with LOCK:
            RUNNING.remove(self.name)
        return self.name


@pytest.fixture(scope="module")
def address():
    """A scheduler with three threads of this process, so that the jobs can be counted here."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "most"), [(None, 3), (10, 1), (25, 2)])
def test_dask_runs_as_many_jobs_as_fit(address, memory, most):
    """Ten bytes each: one fits into ten, two into twenty-five, and all three threads work without a limit."""
    MOST[0] = 0
    jobs = [Job(str(k), 10) for k in range(9)]
    assert run_jobs(jobs, Budget(scheduler=address, memory=memory), None) == [job.name for job in jobs]
    assert MOST[0] == most


@pytest.mark.slow
def test_a_job_that_never_fits_is_refused_before_anything_runs(address):
    """Both numbers, and nothing was started."""
    MOST[0] = 0
    with pytest.raises(UsageError, match="b needs about 3 GB, --max-memory allows 1 GB"):
        run_jobs([Job("a", 10), Job("b", 3_000_000_000)], Budget(scheduler=address, memory=10**9), None)
    assert MOST[0] == 0
