"""Reading cannot deadlock: fork, spawn, forkserver and threads, opened before or after, and killed a hundred times."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import eegprep
from dreamdiff.pretraining.stream import WindowStream
from dreamdiff.programs import doctor
from eegprep.inspection import loader_check

PATIENCE = 120.0  # s; only a hang takes as long


@pytest.fixture(scope="module")
def folder():
    with loader_check.small_corpus(240) as path:
        yield path


def run_forked(work, *arguments) -> int:
    """Run `work` in a forked child; its exit code, or a failure when it hangs."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        pytest.fail("the child hung")
    return int(process.exitcode)


def expect(condition: bool) -> None:
    os._exit(0 if condition else 1)


@pytest.mark.slow
def test_every_kind_of_process_reads_the_same(folder):
    """What `doctor` runs: threads, fork, spawn and forkserver, opened before and after."""
    checks = loader_check.check_reader(PATIENCE)

    assert {check.name for check in checks} == {
        "threads",
        *(f"{method}, {how}" for method in ("fork", "spawn", "forkserver") for how in ("opened in the child", "opened before")),
        "fork while threads read",
    }
    assert [check for check in checks if not check.ok] == []


@pytest.mark.slow
def test_workers_of_every_kind_give_the_same_batches():
    """spawn and forkserver send the stream as a pickle, fork as it stands."""
    checks = doctor.check_stream(PATIENCE)

    assert len(checks) == 4 and [check for check in checks if not check.ok] == []


def test_a_process_that_hangs_is_reported(monkeypatch):
    """A self-test that waits for ever is no help; nor is one that cannot fail."""
    monkeypatch.setattr(loader_check, "_child", lambda given, wanted: time.sleep(600))

    assert loader_check._from_process("fork", "", "", 0.2) == "hung: no answer in 0 s"


def test_a_process_that_reads_something_else_is_reported(folder):
    """The check compares content, not only whether the child came back."""
    assert loader_check._from_process("fork", str(folder), "another digest", PATIENCE) == "ended with exit code 1"


def test_an_exception_is_reported(monkeypatch):
    """Whatever happens in a self-test is a finding and not a traceback."""

    def fail():
        raise OSError("no room")

    assert loader_check._attempt("x", fail) == loader_check.Check("x", False, "OSError: no room")


def test_a_fork_in_the_middle_of_an_epoch_goes_on(folder):
    """The child has no reading threads: it starts its own and yields what the parent would have."""
    stream = WindowStream(folder, 16)
    whole = [batch["index"].tolist() for batch in stream]
    stream.set_epoch(0)
    iterator = iter(stream)
    head = [next(iterator)["index"].tolist() for _ in range(4)]

    assert run_forked(lambda: expect(head + [batch["index"].tolist() for batch in iterator] == whole)) == 0
    assert head + [batch["index"].tolist() for batch in iterator] == whole


def test_a_fork_at_the_end_of_an_epoch_goes_on(folder):
    """With every batch already asked for, the child asks again."""
    stream = WindowStream(folder, 16, prefetch=50)
    iterator = iter(stream)
    first = next(iterator)["index"].tolist()

    def rest() -> None:
        result = [i for batch in iterator for i in batch["index"].tolist()]
        expect(sorted(first + result) == list(range(240)))

    assert run_forked(rest) == 0


def test_children_forked_while_threads_hold_the_locks_do_not_wait_for_them(folder):
    """The lock of the table of open files is copied in the state it has at that moment."""
    corpus = eegprep.Corpus.open(folder)
    plain = corpus.read(np.arange(240))
    files, stream = corpus._files, WindowStream(corpus, 16)
    list(stream)
    files._lock.acquire()
    stream._buffers._lock.acquire()
    try:
        assert run_forked(lambda: expect(np.array_equal(corpus.read(np.arange(240), threads=2), plain))) == 0
        assert run_forked(lambda: expect(sum(len(batch["index"]) for batch in stream) == 240)) == 0
    finally:
        files._lock.release()
        stream._buffers._lock.release()


def test_many_threads_iterate_streams_of_one_corpus(folder):
    """Training and validation at the same time."""
    corpus = eegprep.Corpus.open(folder)
    result: list[int] = []

    def work() -> None:
        result.append(len({i for batch in WindowStream(corpus, 8) for i in batch["index"].tolist()}))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert result == [240] * 6


def _whole_lines(log: str) -> bytes:
    content = Path(log).read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _train(folder: Path, log: str, seed: int) -> None:
    """Consume windows and note each batch with the state after it in one write, as a training step with its checkpoint."""
    rng = np.random.default_rng(seed)
    stream = WindowStream(folder, int(rng.integers(3, 40)), prefetch=int(rng.integers(0, 5)), threads=int(rng.integers(1, 4)))
    handle = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    kept = _whole_lines(log)
    os.ftruncate(handle, len(kept))  # a kill may tear a write between two pages: that step was never finished
    if kept:
        stream.load_state_dict(json.loads(kept.splitlines()[-1])["state"])
    while True:
        for batch in stream:
            os.write(handle, json.dumps({"index": batch["index"].tolist(), "state": stream.state_dict()}).encode() + b"\n")
            time.sleep(0.001)


@pytest.mark.slow
def test_killed_a_hundred_times_no_window_is_lost_and_none_repeated(folder, tmp_path):
    """SIGKILL at random moments, continued with other batch sizes and threads: the epochs come out complete."""
    log, rng = str(tmp_path / "log"), np.random.default_rng(0)
    context = multiprocessing.get_context("fork")
    kills = 0
    while kills < 100:
        before = Path(log).stat().st_size if Path(log).exists() else 0
        process = context.Process(target=_train, args=(folder, log, kills))
        process.start()
        while not Path(log).exists() or Path(log).stat().st_size <= before:
            assert process.is_alive(), "the trainer failed"
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.02)))
        process.kill()
        process.join()
        kills += 1

    seen = [i for line in _whole_lines(log).splitlines() for i in json.loads(line)["index"]]
    epochs, rest = divmod(len(seen), 240)
    for epoch in range(epochs):
        assert sorted(seen[epoch * 240 : (epoch + 1) * 240]) == list(range(240))
    assert len(set(seen[epochs * 240 :])) == rest
    assert epochs >= 3


_RANK = """
import sys, torch
from dreamdiff.pretraining.stream import WindowStream
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=int(sys.argv[3]), world_size=2)
stream = WindowStream(sys.argv[1], 9)
found = torch.cat([batch["index"] for batch in stream])
sizes = [None, None]
torch.distributed.all_gather_object(sizes, found.tolist())
assert sorted(sizes[0] + sizes[1]) == list(range(240)), "shares overlap"
assert len(sizes[0]) == len(sizes[1]) == 120
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_of_a_process_group_share_an_epoch(folder, tmp_path):
    """Nothing has to be passed: the stream asks torch.distributed, as under accelerate and torchrun."""
    import subprocess

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen([sys.executable, "-c", _RANK, str(folder), str(tmp_path / "meet"), str(rank)], env=environment)
        for rank in range(2)
    ]

    assert [process.wait(PATIENCE) for process in processes] == [0, 0]


def test_a_stream_survives_a_pickle(folder):
    """Spawned workers and remote schedulers receive it so; buffers and files stay behind."""
    import pickle

    stream = WindowStream(folder, 16, seed=2)
    next(iter(stream))
    again = pickle.loads(pickle.dumps(stream))

    assert again.state_dict() == stream.state_dict()
    assert torch.cat([b["index"] for b in again]).equal(torch.cat([b["index"] for b in stream]))
