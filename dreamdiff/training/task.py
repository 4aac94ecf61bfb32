"""Defines what the training loop needs of a task, and the random draws that depend on step and sample alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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

    The same sample gets the same numbers in any batch, on any process and device, before and after a restart. Number k of a row is
    SplitMix64 (Steele et al. 2014) of the row's key and k, computed where the batch is: nothing is copied, and no device waits. Bits,
    uniform numbers and integers are equal on all devices, normal ones but for the rounding of logarithm and cosine.

    Args:
        index_B: numbers of the samples. device: where the numbers are needed; a copy of `index_B` that is there already is best.
    """

    def __init__(self, seed: int, epoch: int, index_B: Tensor | Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seed, self.epoch = seed, epoch
        self.index_B = index_B.to(device, torch.int64) if isinstance(index_B, Tensor) else _numbers(index_B, torch.device(device))

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """(B, *shape) in [0, 1), multiples of 2^-24."""
        return self._shaped((self._words(purpose, shape) >> 8).float() * 2.0**-24, shape)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """(B, *shape), mean 0 and variance 1 (Box and Muller 1958)."""
        first, second = self._words(purpose, shape).chunk(2, dim=1)
        radius = ((first.float() + 1) * 2.0**-32).log().mul(-2).sqrt()
        angle = (second >> 8).float() * (2.0**-24 * 2 * math.pi)
        return self._shaped(torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1), shape)

    def integers(self, purpose: str, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64 in [0, high), high below 2^31."""
        return self._shaped((self._words(purpose, shape) * high) >> 32, shape)

    def _words(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """(B, 2 m) int64 in [0, 2^32), at least as many as `shape` has numbers."""
        many = -(-math.prod(shape) // 2)
        key_B = _scrambled(self.index_B * _GOLDEN + mix(self.seed, self.epoch, purpose))
        count_M = torch.arange(1, many + 1, device=self.index_B.device)
        bits_BM = _scrambled(key_B[:, None] + count_M * _GOLDEN)
        return torch.cat([(bits_BM >> 32) & _LOW, bits_BM & _LOW], dim=1)

    def _shaped(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        return values[:, : math.prod(shape)].reshape(len(values), *shape)


def _numbers(values: Sequence[int], device: torch.device) -> Tensor:
    if device.type == "cpu" or not len(values):
        return torch.tensor(values, dtype=torch.int64, device=device)
    # as arguments of kernels: a tensor that is made on the host halts the device for its copy
    return torch.stack([torch.full((), int(value), dtype=torch.int64, device=device) for value in values])


_LOW = (1 << 32) - 1
# SplitMix64's constants as signed numbers
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


def _scrambled(z: Tensor) -> Tensor:
    """SplitMix64's finalizer, int64 to int64; shifts are those of unsigned numbers."""
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _FIRST
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _SECOND
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def mix(*parts: int | str) -> int:
    """A seed below 2^63 that depends on all parts."""
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    # 63 bits, which every library takes as a seed
    return int.from_bytes(digest, "little") >> 1


ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Task(Generic[ModuleT]):
    """What a stage hands to the loop. Override `step`, `stream`, `identity`, `export`; the rest has a default."""

    name: str = "run"
    """For the tracker."""

    module: ModuleT
    """One root module. Parameters with requires_grad are trained and saved (with persistent buffers); frozen ones are neither."""

    steps_done: int = 0
    """Steps before the current validation; set by the loop."""

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

    def host(self, batch: Batch) -> Batch:
        """What is added to a batch on the host, before it goes to the device; `index` is still there to look things up with."""
        return batch

    def step(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Losses of one batch, whose tensors are already on the device. `loss` is minimised, all are logged.

        Anything random comes from `draw`. Runs under the mixed precision of the loop.
        """
        raise NotImplementedError

    def parameter_groups(self, weight_decay: float) -> list[ParameterGroup]:
        """Groups for AdamW; a group may carry `lr_scale`."""
        return parameter_groups(self.module, weight_decay)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Numbers on held-out data: on the first process, in eval mode, without gradients, with the averaged weights if any, in the
        precision of training."""
        return {}

    def describe(self, folder: Path) -> None:
        """Files that belong beside the weights in a checkpoint, such as config.json."""

    def continued(self, folder: Path) -> None:
        """Check what a checkpoint holds beside the trained weights, after they were put back."""

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
