"""AdamW with the authors' groups, the learning-rate schedule, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Required, TypedDict

import torch
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from dreamdiff.training.config import OptimConfig
from eegprep.errors import UsageError


class ParameterGroup(TypedDict, total=False):
    """Parameters that share a learning rate, `lr_scale` times that of the optimiser, and a weight decay."""

    params: Required[list[nn.Parameter]]
    weight_decay: float
    lr_scale: float
    name: str


def parameter_groups(module: nn.Module, weight_decay: float) -> list[ParameterGroup]:
    """Trainable parameters in two groups: biases and one-dimensional ones (norms) are not decayed.

    CLS and mask tokens are three-dimensional and are decayed, as in the authors' code.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def adamw(groups: Sequence[ParameterGroup], config: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over `groups`; fused (one pass over memory per parameter) on devices that have it."""
    if config.eight_bit:
        return _eight_bit(groups, config, device)
    fused = config.fused and device.type in {"cpu", "cuda", "xpu", "mps"}
    used: list[Any] = [{"lr_scale": 1.0, **group} for group in groups if group["params"]]
    return torch.optim.AdamW(used, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused)


def _eight_bit(groups: Sequence[ParameterGroup], config: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW of bitsandbytes (Dettmers et al. 2022), whose moments are quantised block by block."""
    if device.type != "cuda":
        raise UsageError("optim.eight_bit needs a GPU, and the networks train on the CPU", "set optim.eight_bit=false")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UsageError(
            "optim.eight_bit needs bitsandbytes, which is not installed", "pip install 'eeg-dreamdiff[8bit]', or set it to false"
        ) from None
    used = [{"lr_scale": 1.0, **group} for group in groups if group["params"]]
    return AdamW8bit(used, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


def sharded_adamw(groups: Sequence[ParameterGroup], config: OptimConfig) -> ZeroRedundancyOptimizer:
    """AdamW whose moments are spread over the processes (Rajbhandari et al. 2020, stage 1): each updates its share and sends it round."""
    used = [{"lr_scale": 1.0, **group} for group in groups if group["params"]]
    return ZeroRedundancyOptimizer(
        used, optimizer_class=torch.optim.AdamW, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    )


def own_part(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser that holds moments in this process."""
    return optimizer.optim if isinstance(optimizer, ZeroRedundancyOptimizer) else optimizer


def learning_rate(epoch: float, epochs: float, config: OptimConfig) -> float:
    """The learning rate at a fractional epoch of `epochs`.

    Linear from 0 over the warm-up, then min_lr + (lr - min_lr) x (1 + cos(pi x share of the rest that is done)) / 2.
    Source: the authors' trainer (set at every step), as in He et al. 2021, "Masked autoencoders are scalable vision learners".
    """
    if epoch < config.warmup_epochs:
        return config.lr * epoch / config.warmup_epochs
    if config.schedule == "constant":
        return config.lr
    done = (epoch - config.warmup_epochs) / max(epochs - config.warmup_epochs, 1e-12)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the rate, times its own `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


class MovingAverage:
    """Exponential moving average of trainable parameters, in float32: average = decay x average + (1 - decay) x weight."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {n: p.detach().float().clone() for n, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the module's present weights in."""
        weights = dict(module.named_parameters())
        averages = list(self.average.values())
        # one call for all tensors: a loop over thousands of small ones would cost more than the step of a small model
        torch._foreach_lerp_(averages, [weights[name].detach().float() for name in self.average], 1.0 - self.decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the averages; a second call restores both."""
        weights = dict(module.named_parameters())
        for name, average in self.average.items():
            kept = weights[name].detach().clone()
            weights[name].copy_(average)
            self.average[name] = kept.float()

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, average in self.average.items():
            average.copy_(state[name])
