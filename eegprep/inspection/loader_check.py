"""Does reading work in every kind of process on this machine? Used by `doctor`; nothing here can wait for ever."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eegprep.corpus.export import from_arrays
from eegprep.corpus.reader import Corpus
from eegprep.provenance import sha256

START_METHODS = ("fork", "spawn", "forkserver")


@dataclass(frozen=True)
class Check:
    """One thing that was tried: whether it worked, and what was seen."""

    name: str
    ok: bool
    detail: str


def check_reader(timeout: float = 60.0) -> list[Check]:
    """Read a small corpus from threads, and from processes of every kind that open it themselves or are given it open.

    Args:
        timeout: s that each of them may take; one that takes longer is ended, and reported.
    """
    with small_corpus() as path:
        corpus = Corpus.open(path)
        expected = digest(corpus)
        checks = [_attempt("threads", lambda: _from_threads(corpus, expected, timeout))]
        for method in START_METHODS:
            if method not in multiprocessing.get_all_start_methods():
                continue
            for name, given in (("opened in the child", str(path)), ("opened before", corpus)):
                checks.append(_attempt(f"{method}, {name}", lambda m=method, g=given: _from_process(m, g, expected, timeout)))  # type: ignore[misc]
        if "fork" in multiprocessing.get_all_start_methods():
            checks.append(_attempt("fork while threads read", lambda: _fork_while_reading(corpus, expected, timeout)))
    return checks


@contextmanager
def small_corpus(windows: int = 96) -> Iterator[Path]:
    """A corpus of three subjects in a temporary folder."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="eegprep-check-") as folder:
        path = Path(folder) / "corpus.zarr"
        people = [{"windows": rng.standard_normal((windows // 3, 6, 64), np.float32), "subject": name} for name in "abc"]
        from_arrays(path, people, sfreq=128.0, pad_to=8, shard=16)
        yield path


def digest(corpus: Corpus, threads: int = 2) -> str:
    """SHA-256 of all windows, read in a scattered order."""
    order = np.random.default_rng(1).permutation(len(corpus))
    windows = np.empty((len(corpus), corpus.channels, corpus.samples), np.float32)
    windows[order] = corpus.read(order, threads=threads)
    return sha256(windows.tobytes())


def _attempt(name: str, action: Callable[[], str]) -> Check:
    start = time.monotonic()
    try:
        problem = action()
    except Exception as error:  # whatever happens is a finding
        problem = f"{type(error).__name__}: {error}"
    return Check(name, not problem, problem or f"{time.monotonic() - start:.1f} s")


def _from_threads(corpus: Corpus, expected: str, timeout: float) -> str:
    pool = ThreadPoolExecutor(4)
    try:
        digests = [future.result(timeout) for future in [pool.submit(digest, corpus) for _ in range(8)]]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return "" if set(digests) == {expected} else "threads read different windows"


def _from_process(method: str, given: str | Corpus, expected: str, timeout: float) -> str:
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=_child, args=(given, expected), daemon=True)
    process.start()
    return _ended(process, timeout)


def _fork_while_reading(corpus: Corpus, expected: str, timeout: float) -> str:
    """Fork at moments when other threads hold the locks of the reader: the child must not wait for them."""
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            corpus.read(np.arange(len(corpus)), threads=1)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            problem = _from_process("fork", corpus, expected, timeout)
            if problem:
                return problem
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return ""


def _ended(process: Any, timeout: float) -> str:
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return f"hung: no answer in {timeout:.0f} s"
    return "" if process.exitcode == 0 else f"ended with exit code {process.exitcode}"


def _child(given: str | Corpus, expected: str) -> None:
    corpus = given if isinstance(given, Corpus) else Corpus.open(given)
    ok = digest(corpus) == expected
    sys.stdout.flush()
    os._exit(0 if ok else 1)
