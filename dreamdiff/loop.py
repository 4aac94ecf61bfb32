"""THE training loop, shared by both stages: batches in, losses down, checkpoints out. It knows nothing of EEG or images.

A stage subclasses `Task` and hands it to `fit`:

    class Pretraining(Task):
        def __init__(self, model, corpus, config): ...
        module = ...                                   # one root nn.Module; what requires grad is trained
        def identity(self): ...                        # what must not change between a run and its continuation
        def stream(self, rank, world_size): ...        # where batches come from
        def step(self, batch, draw): return {"loss": loss, "mse": ...}

    result = fit(task, config.loop, config.optim, run_dir, progress=progress)

Exact continuation: everything random comes from `Draw`, a function of (seed, epoch, sample index, purpose), and the global generator
is seeded anew at every step, so a killed run that is started again gives the same losses and weights as one that was never killed
(bit for bit on a CPU with the same number of threads). The same property makes results independent of the number of processes and of
gradient accumulation, up to the order of summation.

What a run folder holds: `run.json` (identity), `history.jsonl` (a line per step), `loss.png`, `checkpoints/step-00001000/`
(see `checkpoint.py`), what `Task.export` writes at the end, and `logs/` for the tracker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from eegprep.recording import ProgressCallback

from .config import LoopConfig, OptimConfig

Batch = Mapping[str, Any]


class Stream(Protocol):
    """Batches of one epoch after another.

    `iter(stream)` gives what is left of the current epoch and then ends; the next `iter` starts the next epoch. A batch is a dictionary
    with at least `index`, (B,) integers that name its samples, each at most once per epoch. `state_dict` describes the
    batches that were handed out (not those read ahead), as plain JSON values.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Draw:
    """Random numbers of one batch: a row per sample, from (seed, epoch, sample index, purpose) and nothing else.

    The same sample gets the same numbers in any batch, on any process, before and after a restart.
    """

    def __init__(self, seed: int, epoch: int, index_B: Tensor, device: torch.device | str = "cpu") -> None:
        self.seed, self.epoch, self.device = seed, epoch, device
        self.indices = [int(i) for i in index_B]
        self.generator = torch.Generator()

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """(B, *shape) in [0, 1)."""
        return self._rows(purpose, lambda: torch.rand(shape, generator=self.generator))

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """(B, *shape), mean 0 and variance 1."""
        return self._rows(purpose, lambda: torch.randn(shape, generator=self.generator))

    def integers(self, purpose: str, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64 in [0, high)."""
        return self._rows(purpose, lambda: torch.randint(high, shape, generator=self.generator))

    def _rows(self, purpose: str, make: Any) -> Tensor:
        rows = []
        for index in self.indices:
            self.generator.manual_seed(mix(self.seed, self.epoch, index, purpose))
            rows.append(make())
        return torch.stack(rows).to(self.device)


def mix(*parts: int | str) -> int:
    """A seed below 2^63 that depends on all parts."""
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Task:
    """What a stage hands to the loop. Override `step`, `stream`, `identity`, `export`; the rest has a default."""

    module: nn.Module
    """One root module. Parameters with requires_grad are trained and saved (with persistent buffers); frozen ones are neither."""

    compiled: tuple[nn.Module, ...] = ()
    """Parts that `loop.compile` compiles in place; empty means the root module's own children are left alone."""

    unused_parameters: bool = False
    """True when a step may leave trainable parameters without a gradient (slower with several processes)."""

    def identity(self) -> dict[str, Any]:
        """JSON values that must be equal for a run to be continued: the configuration, the store's fingerprint."""
        raise NotImplementedError

    def stream(self, rank: int, world_size: int) -> Stream:
        """Training batches for this process."""
        raise NotImplementedError

    def step(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Losses of one batch (tensors already on the device). `loss` is minimised, all are logged. Use `draw` for anything random."""
        raise NotImplementedError

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW; a group may carry `lr_scale`."""
        from .optim import parameter_groups

        return parameter_groups(self.module, weight_decay)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Numbers on held-out data; runs on the first process, in eval mode, without gradients, with the averaged weights if any."""
        return {}

    def describe(self, folder: Path) -> None:
        """Files that belong beside the weights in a checkpoint, such as config.json."""

    def export(self, run_dir: Path) -> None:
        """Write the finished model into the run folder."""

    def pictures(self, run_dir: Path, device: torch.device) -> None:
        """Draw what a person wants to look at; called after every validation."""


@dataclass(frozen=True)
class FitResult:
    """How a run ended. finished: False when it was asked to stop early and can be continued."""

    run_dir: Path
    step: int
    total_steps: int
    finished: bool
    loss: float
    validation: dict[str, float]
    resumed_from: int | None


def fit(
    task: Task,
    config: LoopConfig,
    optim: OptimConfig,
    run_dir: Path,
    *,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Train `task` until the configured end, continuing `run_dir` when it holds a run of the same identity.

    Args:
        task: the stage.
        config, optim: how long, how precise, how fast.
        run_dir: created if need be. Only one process group may work in it at a time.
        progress: called with (steps done, steps in all, message).

    Raises:
        CheckpointError: the folder holds a run with another identity (the differences are listed), is in use, or is damaged.
        ModelError: the loss is not a finite number.
    """
    raise NotImplementedError
