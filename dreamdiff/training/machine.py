"""Fits a run to the machine: precision, accelerator, termination signals, one process per run folder, compiler."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import accelerate
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration

from dreamdiff.devices import choose_device, resolved_precision
from dreamdiff.training.config import LoopConfig
from eegprep.errors import CheckpointError, UsageError
from eegprep.locks import folder_lock


class StopSignal:
    """Turns SIGTERM into a wish that the loop fulfils at the next step; several processes agree on it every tenth step."""

    def __init__(self) -> None:
        self.requested = False
        self._listen = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> StopSignal:
        if self._listen:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listen:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: object) -> None:
        self.requested = True


def precision_for(config: LoopConfig) -> str:
    """accelerate's name for the precision that `config` asks for on this machine."""
    result = resolved_precision(config.precision, choose_device(config.device))
    return {"fp32": "no"}.get(result, result)


def make_accelerator(config: LoopConfig, run_dir: Path, unused: bool) -> accelerate.Accelerator:
    device = choose_device(config.device)  # one that is not there is an error, not a CPU
    precision = precision_for(config)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if config.tracker == "wandb" and importlib.util.find_spec("wandb") is None:
        raise UsageError(
            "loop.tracker = 'wandb', but wandb is not installed", "pip install 'eeg-dreamdiff[wandb]', or use tensorboard"
        )
    # one process may train both stages one after the other, in other precisions and elsewhere; accelerate keeps the first for ever
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return accelerate.Accelerator(
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
        cpu=device.type == "cpu",
        log_with=None if config.tracker == "none" else config.tracker,
        project_config=ProjectConfiguration(project_dir=str(run_dir), logging_dir=str(run_dir / "logs")),
    )


@contextlib.contextmanager
def only_one_process(run_dir: Path, accelerator: accelerate.Accelerator) -> Iterator[None]:
    """Hold the folder's lock in the first process."""
    if not accelerator.is_main_process:
        yield
        return

    def refused(holder: str, fix: str) -> CheckpointError:
        return CheckpointError(f"{run_dir}: another process is training in it ({holder})", f"{fix}, or choose another --out")

    with folder_lock(run_dir, refused=refused):
        yield


def check_compiler(device: torch.device) -> None:
    """Before the first step: what torch.compile would miss at it."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise UsageError(
                "loop.compile needs Triton on a GPU, and it is not installed", "pip install triton, or set loop.compile=false"
            )
        if not any(shutil.which(name) for name in (os.environ.get("CC", "gcc"), "gcc", "clang", "cc")):
            raise UsageError(
                "loop.compile needs a C compiler on a GPU, and there is none", "install gcc, or set loop.compile=false"
            )
    if device.type == "cpu" and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        raise UsageError(
            "loop.compile needs a C++ compiler on a CPU, and there is none", "install g++, or set loop.compile=false"
        )
