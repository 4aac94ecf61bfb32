"""Runs a function in several processes that form a group over gloo, as `accelerate launch` and `torchrun` start a command.

The processes are forked from a server that has imported PyTorch and the package once, so that a group starts in a second; they meet in
a file, so that groups of tests that run at the same time cannot take each other's port.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PATIENCE = 600  # seconds; a machine that does other things as well
PRELOADED = ["accelerate", "dreamdiff.alignment.prepare", "dreamdiff.finetuning.prepare", "dreamdiff.pretraining.pretrain"]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)


def in_processes(count: int, folder: Path, job: Callable[..., None], **arguments: Any) -> None:
    """Call `job(**arguments)` in `count` processes of a group, and wait for all of them.

    Args:
        folder: where they meet; new files are made in it.
        job: a function of a module of the tests.

    Raises:
        AssertionError: a process failed, or did not end; with its traceback.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = sum(1 for _ in folder.glob("meet-*"))
    meet = folder / f"meet-{number}"
    meet.touch()  # gloo takes a file that is there and empty, and removes it at the end
    errors = CONTEXT.SimpleQueue()
    processes = [
        CONTEXT.Process(target=_member, args=(rank, count, str(meet), job, arguments, errors), daemon=True)
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(PATIENCE)
        codes = [process.exitcode for process in processes]
        reason = "no process said why" if errors.empty() else errors.get()
        assert codes == [0] * count, f"exit codes {codes}: {reason}"
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()


def exit_code(job: Callable[..., None], **arguments: Any) -> int | None:
    """Call `job(**arguments)` in a process of its own, and how that ended: 0, or less the number of the signal that killed it."""
    process = CONTEXT.Process(target=job, kwargs=arguments, daemon=True)
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"did not end within {PATIENCE} s")
    return process.exitcode


def _member(rank: int, count: int, meet: str, job: Callable[..., None], arguments: Mapping[str, Any], errors: Any) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=count)
    try:
        job(**arguments)
    except BaseException:
        errors.put(f"process {rank}: {traceback.format_exc()}")
        raise
    if torch.distributed.is_initialized():  # a training ends its group itself
        torch.distributed.destroy_process_group()
