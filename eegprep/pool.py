"""Runs jobs in this process, in several, or on a Dask cluster, within a memory budget.

A job has `name` (for messages), `bytes` (of input: the largest begin first), `memory` (bytes at its peak) and `run()`.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from eegprep.errors import StoreError, UsageError
from eegprep.recording import ProgressCallback


@dataclass(frozen=True)
class Budget:
    """How much may run at once. memory: bytes for all workers together, None for no limit."""

    workers: int = 1
    scheduler: str | None = None
    memory: int | None = None

    @classmethod
    def make(cls, workers: int, scheduler: str | None, memory: str | int | None) -> Budget:
        """Check and convert what the command line gives."""
        if workers < 1:
            raise UsageError(f"--workers {workers} (least 1)", "give at least one worker")
        return cls(workers, scheduler, parse_bytes(memory) if memory is not None else None)


def parse_bytes(text: str | int) -> int:
    """`"4GB"`, `"512 MiB"` or a number as bytes."""
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{0,15})?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if not match:
        raise UsageError(f"{text[:40]!r} is not an amount of memory", "write for instance 4GB or 512MB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))


def run_jobs(jobs: Sequence[Any], budget: Budget, progress: ProgressCallback | None) -> list[Any]:
    """Results of `job.run()`, in the order of `jobs`. An error of a job stops the rest; what is finished stays."""
    if not jobs:
        return []
    if budget.scheduler is not None:
        return _run_dask(jobs, budget, progress)
    if budget.workers == 1 or len(jobs) == 1:
        return _run_here(jobs, budget, progress)
    return _run_processes(jobs, budget, progress)


def _run_here(jobs: Sequence[Any], budget: Budget, progress: ProgressCallback | None) -> list[Any]:
    _require_memory(jobs, budget)
    results = []
    for index, job in enumerate(jobs):
        _report_progress(progress, index, len(jobs), job.name)
        results.append(job.run())
    _report_progress(progress, len(jobs), len(jobs), "")
    return results


def _report_progress(progress: ProgressCallback | None, done: int, total: int, message: str) -> None:
    if progress is not None:
        progress(done, total, message)


def run_job(job: Any) -> Any:
    """What a worker process does."""
    return job.run()


def _run_processes(jobs: Sequence[Any], budget: Budget, progress: ProgressCallback | None) -> list[Any]:
    _require_memory(jobs, budget)
    results: list[Any] = [None] * len(jobs)
    context = multiprocessing.get_context(start_method())
    workers = min(budget.workers, len(jobs))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            waiting = sorted(range(len(jobs)), key=lambda index: -jobs[index].bytes)  # the largest first: no long tail
            running: dict[Future[Any], int] = {}
            done = 0
            while waiting or running:
                while (
                    waiting and len(running) < workers and (index := _next(jobs, waiting, running.values(), budget)) is not None
                ):
                    waiting.remove(index)
                    running[pool.submit(run_job, jobs[index])] = index
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    index = running.pop(future)
                    results[index] = future.result()
                    done += 1
                    _report_progress(progress, done, len(jobs), jobs[index].name)
        except BaseException as error:
            _end(pool)
            if isinstance(error, BrokenProcessPool):
                script = (
                    "" if context.get_start_method() == "fork" else "; in a script, call it below `if __name__ == '__main__':`"
                )
                raise StoreError(
                    "a worker process was killed, probably because the machine ran out of memory",
                    "run the same command again with fewer --workers, or with --max-memory where the command has it; "
                    f"finished parts are kept{script}",
                ) from None
            raise
    return results


def _end(pool: ProcessPoolExecutor) -> None:
    """Kill the workers and wait until they are gone, so that nothing writes into the store once its lock is released.

    What they had begun is hidden and not committed: a kill is as good as any other end.
    """
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()


# their threads or locks do not survive a fork
_NOT_FORKABLE = {"torch", "distributed", "tensorflow", "jax"}
_FORK_SAFE = ("zarr_io", "asyncio_")


def start_method() -> str:
    """`fork` where nothing can go wrong with it: on Linux, with this thread alone, or with those of zarr. Otherwise `spawn`.

    A forked worker begins in milliseconds with all libraries loaded; a spawned one imports them again, which takes longer
    than a small build. But a fork beside other threads may copy a lock that nobody will ever release. zarr-python's event loop and
    its helper threads are idle whenever we are here, and it replaces them in a forked child by itself.
    """
    others = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    alone = all(name.startswith(_FORK_SAFE) for name in others) and not _NOT_FORKABLE & set(sys.modules) and not _rust_decodes()
    return "fork" if sys.platform == "linux" and alone else "spawn"


def _rust_decodes() -> bool:
    """Whether zarr-python has been told to use zarrs, whose threads do not live on in a fork; where it is installed, it is always imported."""
    return "zarrs" in sys.modules and str(sys.modules["zarr"].config.get("codec_pipeline.path", "")).startswith("zarrs")


def _require_memory(jobs: Sequence[Any], budget: Budget) -> None:
    """A job that does not fit the budget by itself is an error before anything is done."""
    if budget.memory is None:
        return
    largest = max(jobs, key=lambda job: int(job.memory))
    if largest.memory > budget.memory:
        raise UsageError(
            f"{largest.name} needs about {largest.memory / 1e9:.2g} GB, --max-memory allows {budget.memory / 1e9:.2g} GB",
            f"allow at least {largest.memory / 1e9:.2g} GB, or leave this subject out",
        )


def _next(jobs: Sequence[Any], waiting: Sequence[int], running: Iterable[int], budget: Budget) -> int | None:
    """The first waiting job that fits beside the running ones; None when it has to wait."""
    if budget.memory is None:
        return waiting[0]
    free = budget.memory - sum(jobs[index].memory for index in running)
    return next((index for index in waiting if jobs[index].memory <= free), None)


def _start_worker() -> None:
    """One thread of arithmetic each, and no life after the parent: an orphan would go on writing into the store."""
    from multiprocessing.connection import wait as wait_for

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which ends its workers
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            wait_for([parent.sentinel])
            # not sys.exit: in a thread that would end the thread alone
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _run_dask(jobs: Sequence[Any], budget: Budget, progress: ProgressCallback | None) -> list[Any]:
    try:
        from dask.distributed import Client, as_completed
    except ImportError:
        raise UsageError("--scheduler needs Dask, which is not installed", "pip install 'eeg-dreamdiff[cluster]'") from None

    _require_memory(jobs, budget)
    results: list[Any] = [None] * len(jobs)
    # a caller's own client stays the default
    with Client(budget.scheduler, set_as_default=False) as client:
        waiting = list(range(len(jobs)))
        running: dict[Any, int] = {}
        arriving = as_completed(loop=client.loop)

        def submit() -> None:
            while waiting and (index := _next(jobs, waiting, running.values(), budget)) is not None:
                waiting.remove(index)
                # not pure: of a job of the same content, Dask would give the earlier result; retried, as machines go away
                future = client.submit(run_job, jobs[index], pure=False, retries=2)
                running[future] = index
                arriving.add(future)

        submit()
        for done, future in enumerate(arriving, start=1):
            index = running.pop(future)
            results[index] = future.result()
            submit()
            _report_progress(progress, done, len(jobs), jobs[index].name)
    return results


def free_processors(limit: int) -> int:
    """Processors that this process may use, up to `limit`."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(limit, free))


class _Threads:
    """A pool that belongs to one process: a forked child makes its own."""

    def __init__(self) -> None:
        self._pools: dict[tuple[int, int], ThreadPoolExecutor] = {}

    def pool(self, count: int) -> ThreadPoolExecutor:
        key = (os.getpid(), count)
        if key not in self._pools:
            # pools of the parent: their threads are not here
            self._pools = {known: pool for known, pool in self._pools.items() if known[0] == key[0]}
            self._pools[key] = ThreadPoolExecutor(count, thread_name_prefix="corpus")
        return self._pools[key]

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self._pools = {}
