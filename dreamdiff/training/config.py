"""One frozen configuration per stage; `eegprep.settings.resolve` merges presets, TOML files and `--set section.key=value`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from eegprep.settings import Settings


class OptimConfig(Settings):
    """AdamW and its schedule; the defaults are the authors' for pre-training.

    schedule: `half-cosine` rises linearly over `warmup_epochs`, then falls to `min_lr` at the end, set anew at every step;
        `constant` only has the rise.
    clip: largest gradient norm; 0 turns clipping off.
    """

    lr: float = Field(default=2.5e-4, gt=0)
    min_lr: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.05, ge=0)
    schedule: Literal["half-cosine", "constant"] = "half-cosine"
    warmup_epochs: float = Field(default=40.0, ge=0)
    clip: float = Field(default=0.8, ge=0)
    fused: bool = True


class LoopConfig(Settings):
    """How long to train, in what precision, and when to write.

    max_steps: stop after so many optimiser steps even if `epochs` asks for more; the schedule then ends there too.
    precision: `auto` is fp32 on a CPU, bf16 on a GPU that has it, else fp16. On a CPU with bf16 products (see `dreamdiff doctor`)
        bf16 takes four tenths of the time off at `released` size, and adds a third at `tiny`.
    device: `auto` is a GPU where there is one; `cuda` demands one.
    ema: decay of the moving average of weights that is validated and exported; 0 turns it off.
    checkpoint_minutes, checkpoint_steps: whichever comes first; neither changes what is learned.
    validate_steps: 0 validates once per epoch (and always at the end).
    tracker: where losses also go; `wandb` needs the extra of that name.
    """

    seed: int = 2022
    epochs: float = Field(default=500, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    accumulation: int = Field(default=1, ge=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    ema: float = Field(default=0.0, ge=0, lt=1)
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    checkpoint_steps: int | None = Field(default=None, ge=1)
    keep_checkpoints: int = Field(default=3, ge=1)
    validate_steps: int = Field(default=0, ge=0)
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
