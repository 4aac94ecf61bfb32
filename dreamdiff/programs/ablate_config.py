"""Settings and presets of `dreamdiff ablate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from dreamdiff.devices import Device
from dreamdiff.simulation.config import SimulateConfig
from eegprep.settings import Settings


class AblateConfig(Settings):
    """How the rows are run."""

    scale: Literal["small", "paper"] = Field(
        default="small", description="Encoders that fit one machine (`small`), or the sizes of the `paper`"
    )
    pairs: str | None = Field(default=None, description="Pairs store; simulated when not given")
    store: str | None = Field(
        default=None,
        description="Corpus for pre-training; the EEG of the training trials, without labels or images, when not given",
    )
    split: str = Field(default="test", description="Part of a split that is evaluated")
    sd: str = Field(default="embedded", description="Stable Diffusion: embedded, a folder or a file")
    clip: str = Field(default="embedded", description="CLIP: embedded, a folder, or ARCHITECTURE:FILE")
    pretrain_steps: int | None = Field(
        default=1500, ge=1, description="Steps of pre-training; the preset's own length when not set"
    )
    finetune_epochs: float | None = Field(
        default=40, gt=0, description="Epochs of fine-tuning; the preset's own length when not set"
    )
    finetune: tuple[str, ...] = Field(default=(), description="Further settings of fine-tuning, as KEY=VALUE")
    trials: int | None = Field(default=None, ge=2, description="At most so many trials are evaluated")
    samples: int = Field(default=3, ge=1, description="Images per evaluated trial")
    steps: int = Field(default=20, ge=1, description="Sampler steps per image")
    simulate: SimulateConfig = Field(
        default=SimulateConfig(sources="linear"), description="Simulated pairs, where none are given"
    )
    baseline_epochs: int = Field(default=30, ge=1, description="Passes over the training trials for Brain2Image")
    classifier: str = Field(default="efficientnet-lite0", description="Network that judges images")
    inception: str | None = Field(default=None, description="Weight file of the Inception network")
    lpips: str | None = Field(default=None, description="Weight file of torchvision's AlexNet")
    device: Device = Field(default="auto", description="Device of every run; `auto` takes a GPU where there is one")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Precision of training and evaluation; `auto` is fp32 on a CPU, else bf16 where the GPU has it",
    )
    seed: int = Field(default=2022, description="Seed of every run")
    workers: int = Field(default=1, ge=1, description="Rows that run at once")
    scheduler: str | None = Field(default=None, description="Address of a Dask scheduler to use instead of local processes")


ABLATE_PRESETS: dict[str, Mapping[str, Any]] = {
    # one machine over night
    "default": {},
    # ours: two cores, half an hour
    "quick": {
        "pretrain_steps": 800, "finetune_epochs": 7, "trials": 80, "samples": 1, "steps": 10, "baseline_epochs": 8,
        "simulate": {"sources": "linear", "people": 1, "trials": 20, "snr": 0.0}, "workers": 2,
    },
    # the paper's sizes and epochs; for graphics cards, with --store, --sd and --clip
    "paper": {"scale": "paper", "pretrain_steps": None, "finetune_epochs": None, "samples": 5, "steps": 250},
}  # fmt: skip
