"""Defines what the training loop needs of a task, and the random draws that depend on step and sample alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from dreamdiff.training.optim import ParameterGroup, parameter_groups
from eegprep.errors import UsageError

Batch = Mapping[str, Any]


class Stream(Protocol):
    """Batches of one epoch after another.

    `len` is batches per epoch, the same for every epoch. `iter(stream)` gives what is left of the current epoch and then ends; the next `iter` starts the
    next epoch. A batch is a dictionary with at least `index`, (B,) integers that name its samples, each at most once per epoch.
    `state_dict` describes the batches that were handed out (not those read ahead), as plain JSON values.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


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


ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Task(Generic[ModuleT]):
    """What a stage hands to the loop. Override `step`, `stream`, `identity`, `export`; the rest has a default."""

    name: str = "run"
    """For the tracker."""

    module: ModuleT
    """One root module. Parameters with requires_grad are trained and saved (with persistent buffers); frozen ones are neither."""

    unused_parameters: bool = False
    """True when a step may leave trainable parameters without a gradient (slower with several processes)."""

    def identity(self) -> Mapping[str, Any]:
        """JSON values that must be equal for a run to be continued: the configuration, the store's fingerprint."""
        raise NotImplementedError

    def current_identity(self, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        """An identity that an older version wrote, as this one would write it, so that its runs can be continued."""
        return stored

    def stream(self, rank: int, world_size: int) -> Stream:
        """Training batches for this process."""
        raise NotImplementedError

    def compile(self) -> None:
        """Compile what is worth it, in place, before the first step (`loop.compile`)."""
        raise UsageError(f"stage {self.name!r} has nothing to compile", "set loop.compile=false")

    def step(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Losses of one batch, whose tensors are already on the device. `loss` is minimised, all are logged.

        Anything random comes from `draw`. Runs under the mixed precision of the loop.
        """
        raise NotImplementedError

    def parameter_groups(self, weight_decay: float) -> list[ParameterGroup]:
        """Groups for AdamW; a group may carry `lr_scale`."""
        return parameter_groups(self.module, weight_decay)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Numbers on held-out data: on the first process, in eval mode, without gradients, with the averaged weights if any."""
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
