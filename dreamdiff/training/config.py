"""One frozen configuration per stage; `eegprep.settings.resolve` merges presets, TOML files and `--set section.key=value`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dreamdiff.devices import Device
from eegprep.settings import Settings


class OptimConfig(Settings):
    """AdamW and its schedule; the defaults are the authors' for pre-training."""

    lr: float = Field(default=2.5e-4, gt=0, description="Highest learning rate")
    min_lr: float = Field(default=0.0, ge=0, description="Learning rate at the end of `half-cosine`")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="Decay of the two moments of AdamW")
    weight_decay: float = Field(default=0.05, ge=0, description="Weight decay of matrices; biases and norms have none")
    schedule: Literal["half-cosine", "constant"] = Field(
        default="half-cosine",
        description="`half-cosine` rises linearly over `warmup_epochs`, then falls to `min_lr` at the end, set anew at every step; "
        "`constant` only has the rise",
    )
    warmup_epochs: float = Field(default=40.0, ge=0, description="Length of the rise, epochs")
    clip: float = Field(default=0.8, ge=0, description="Largest gradient norm; 0 turns clipping off")
    eight_bit: bool = Field(
        default=False, description="Keep AdamW's moments in 8 bits (extra `8bit`, GPU only): 6 bytes less for each trained number"
    )
    fused: bool = Field(default=True, description="One kernel for all parameters, where PyTorch has it")


class LoopConfig(Settings):
    """How long to train, in what precision, and when to write."""

    seed: int = Field(default=2022, description="Seed of initial weights, order and noise")
    epochs: float = Field(default=500, gt=0, description="Passes over the training data")
    max_steps: int | None = Field(
        default=None,
        ge=1,
        description="Stop after so many optimiser steps even if `epochs` asks for more; the schedule ends there too",
    )
    accumulation: int = Field(default=1, ge=1, description="Batches whose gradients are added up before a step")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Precision of training: auto, fp32, bf16 or fp16; `auto` is fp32 on a CPU, bf16 on a GPU that has it, else fp16",
    )
    device: Device = Field(
        default="auto",
        description="Device: auto, cpu, cuda, cuda:N or mps; `auto` takes a GPU where there is one, a device that is not there is an error",
    )
    compile: bool = Field(default=False, description="Compile the model with torch.compile before the first step")
    shard_optimizer: bool = Field(
        default=False,
        description="Several processes: each keeps AdamW's moments of its share of the parameters only (ZeRO, stage 1), 8 bytes less per "
        "number and card; it does not change what is learned",
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average of weights that is validated and exported; 0 turns it off",
    )
    checkpoint_minutes: float = Field(
        default=10.0, gt=0, description="Minutes between checkpoints; like `checkpoint_steps`, it does not change what is learned"
    )
    checkpoint_steps: int | None = Field(default=None, ge=1, description="Also a checkpoint after every so many steps")
    keep_checkpoints: int = Field(default=3, ge=1, description="Newest checkpoints that are kept")
    validate_steps: int = Field(
        default=0, ge=0, description="Steps between validations; 0 validates once per epoch (and always at the end)"
    )
    tracker: Literal["tensorboard", "wandb", "none"] = Field(
        default="tensorboard", description="Where losses also go; `wandb` needs the extra of that name"
    )
