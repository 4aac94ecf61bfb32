"""Estimates what a pre-training run takes, from its settings alone: parameters, memory, time. Needs no PyTorch.

The count of parameters is exact. Memory and time are estimates to within a factor of two: they tell minutes from weeks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dreamdiff.encoders.config import MaskedSignalConfig
from dreamdiff.pretraining.config import PretrainConfig
from eegprep.pool import free_processors

CPU_FLOPS = 2.5e10  # a second and core, matrix products in float32 with their overhead
GPU_FLOPS = 3e13  # a second, mixed precision with its overhead
BYTES_OF_PARAMETER = 16  # float32: weight, gradient, two moments of AdamW
BYTES_OF_VALUE = {"fp32": 4.0, "mixed": 2.4}  # mixed precision keeps products in 16 bits, norms and the softmax in 32
KEPT = 8  # values per token, block and unit of width that the backward pass needs, beside 2 x the MLP ratio


@dataclass(frozen=True)
class RunSize:
    """parameters: trainable ones. memory: bytes. seconds: for the whole run. device: in words."""

    parameters: int
    memory: float
    seconds: float
    device: str
    steps: int

    def line(self) -> str:
        """One sentence for a person."""
        return (
            f"{_count(self.parameters)} parameters (with the decoder) on {self.device}, about {max(self.memory / 1e9, 0.1):.1f} GB of memory, "
            f"about {duration(self.seconds)} for {self.steps:,} steps"
        )


def has_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether an NVIDIA GPU can be used, as far as can be known without PyTorch."""
    if environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def speed(device: str) -> tuple[float, str]:
    """Operations a second that a network can expect here (`device` is "auto" or "cpu"), and on what, in words."""
    if device != "cpu" and has_gpu():
        return GPU_FLOPS, "a GPU"
    cores = free_processors(256)
    return CPU_FLOPS * cores, f"{cores} CPU core{'s' * (cores != 1)}"


def parameters(config: MaskedSignalConfig) -> int:
    """Trainable parameters of a masked autoencoder; equal to those of the model."""
    encoder, decoder = config.encoder, config.decoder
    values = encoder.channels * encoder.patch
    own = values * encoder.width + encoder.width + encoder.depth * _block(encoder.width, encoder.mlp_ratio) + 3 * encoder.width
    rebuilding = decoder.depth * _block(decoder.width, encoder.mlp_ratio) + 2 * decoder.width
    joints = decoder.width + encoder.width * decoder.width + decoder.width + decoder.width * values + values
    return own + rebuilding + joints


def run_size(config: PretrainConfig, windows: int) -> RunSize:
    """What a run on so many windows takes."""
    model, batch = config.model, config.data.batch_size
    encoder, decoder = model.encoder, model.decoder
    visible, tokens = encoder.tokens * (1 - model.mask_ratio), encoder.tokens
    steps = max(1, round(config.loop.epochs * max(windows, 1) / batch))
    steps = steps if config.loop.max_steps is None else min(steps, config.loop.max_steps)
    # 2 for a multiplication with its addition, three times: forward, and backward for weights and for activations
    flops = 6 * _block(encoder.width, encoder.mlp_ratio) * encoder.depth * visible
    flops += 6 * _block(decoder.width, encoder.mlp_ratio) * decoder.depth * tokens
    # attention: two products of L x L x D, each counted as above
    flops += 12 * (encoder.depth * encoder.width * visible**2 + decoder.depth * decoder.width * tokens**2)
    kept = (KEPT + 2 * encoder.mlp_ratio) * (encoder.depth * encoder.width * visible + decoder.depth * decoder.width * tokens)
    kept += encoder.depth * encoder.heads * visible**2 + decoder.depth * decoder.heads * tokens**2
    per_second, device = speed(config.loop.device)
    auto = "fp32" if per_second != GPU_FLOPS else "mixed"
    width = BYTES_OF_VALUE[auto if config.loop.precision == "auto" else "fp32" if config.loop.precision == "fp32" else "mixed"]
    return RunSize(
        parameters(model),
        BYTES_OF_PARAMETER * parameters(model) + width * batch * kept,
        steps * batch * config.loop.accumulation * flops / per_second,
        device,
        steps,
    )


def duration(seconds: float) -> str:
    """A rough length of time in one unit."""
    for unit, length in (("year", 31_557_600), ("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.0f} {unit}s"
    return "a minute" if seconds > 30 else "half a minute"


def _block(width: int, mlp_ratio: float) -> int:
    """Parameters of one pre-norm transformer block."""
    hidden = int(width * mlp_ratio)
    return 4 * width * width + 4 * width + 2 * width * hidden + hidden + width + 4 * width


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{round(parameters, -3):,}"
