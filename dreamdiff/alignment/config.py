"""Configuration of `dreamdiff train align`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from dreamdiff.encoders.config import Align
from dreamdiff.training.config import LoopConfig, OptimConfig
from eegprep.settings import Settings

People = Literal["shared", "per-person"]


class FrontChoice(Settings):
    """The part of a trial that is read, and how; see `encoders.frontend`."""

    start: float = Field(default=0.0, description="Start of the part that is read, s after image onset")
    seconds: float = Field(default=0.6, gt=0, description="Length of the part that is read, s")
    rate: float | None = Field(
        default=None, gt=0, description="Sampling rate, Hz [default: the encoder's own, 128 where it names none]"
    )
    align: Align = Field(
        default="person", description="person: whiten by each person's own trials; none: divide by one standard deviation for all"
    )
    shrink: float = Field(
        default=1e-3, ge=0, description="Share of the mean variance that is added to every eigenvalue before whitening"
    )


class LossConfig(Settings):
    """Weights of the losses of `alignment.losses`; the mean over targets is taken."""

    error: float = Field(default=1.0, ge=0, description="Weight of the mean squared error")
    contrastive: float = Field(default=1.0, ge=0, description="Weight of the contrastive loss over the images of a batch")
    cosine: float = Field(default=0.0, ge=0, description="Weight of one minus the cosine")
    clip: float = Field(default=0.0, ge=0, description="Weight of the paper's L_clip")
    scale: float = Field(default=10.0, gt=0, description="Initial value of one over the temperature")
    learn_scale: bool = Field(default=True, description="Train the temperature")


class AlignOptim(OptimConfig):
    """AdamW in one cycle; 3e-3 was best for the convolution and for the paper's tokens alike."""

    lr: float = Field(default=3e-3, gt=0)
    # PyTorch's default; 0.95 is the authors' for their 500 epochs of pre-training
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: float = Field(default=2.0, ge=0)
    clip: float = Field(default=1.0, ge=0)


class AlignLoop(LoopConfig):
    """Twelve epochs: seconds for a thousand trials."""

    epochs: float = Field(default=12, gt=0)
    tracker: Literal["tensorboard", "wandb", "none"] = "none"


class AlignConfig(Settings):
    """How EEG is aligned to image vectors."""

    front: FrontChoice = Field(default=FrontChoice(), description="Part of a trial that is read, and how")
    batch_size: int = Field(default=64, ge=2, description="Trials per step")
    labels: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of training trials of each category and person that keep their labels; whitening still reads all trials [default: all]",
    )
    labels_seed: int = Field(default=0, description="Seed of which trials keep their labels under `labels`")
    permute_pictures: bool = Field(
        default=False,
        description="Control: the pictures of training trials are permuted within each person; what is retrieved afterwards must be at chance",
    )
    split: str = Field(default="default", description="Split of the pairs; its test part is never read in training")
    tune: Literal["whole", "frozen", "lora"] = Field(
        default="whole",
        description="What of a pre-trained encoder trains: whole, frozen (heads only), or lora (adapters of `lora_rank`)",
    )
    lora_rank: int = Field(default=8, ge=1, description="Rank of the adapters under `tune=lora`")
    maps: People = Field(default="per-person", description="per-person: a linear map of channels for each person; shared: none")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="Share of the encoder's output that is dropped in training")
    lr_encoder: float = Field(default=1.0, gt=0, description="Learning rate of the encoder relative to `optim.lr`")
    shift: int = Field(default=0, ge=0, description="Largest random shift in time of training trials, samples")
    loss: LossConfig = Field(default=LossConfig(), description="Weights of the losses")
    select: Literal["last", "validation"] = Field(
        default="last",
        description="last: train a fixed number of epochs; validation: keep the weights that did best on the validation trials",
    )
    validate_trials: int = Field(default=1024, ge=1, description="Most validation trials that are used")
    keep_epochs_mb: float = Field(
        default=32.0,
        ge=0,
        description="Trained weights of every validation are kept in RUN/epochs when they are not larger; 0 for none",
    )
    cache: str | None = Field(default=None, description="Folder for image vectors [default: next to the pairs]")
    loop: AlignLoop = Field(default=AlignLoop(), description="Length, precision, checkpoints")
    optim: AlignOptim = Field(default=AlignOptim(), description="Optimiser and learning rate")


LOSSES: dict[str, dict[str, float]] = {
    "default": {},
    # directions only
    "cosine": {"error": 0.0, "contrastive": 1.0, "cosine": 1.0},
    # L_clip of DreamDiffusion and nothing else
    "paper-loss": {"error": 0.0, "contrastive": 0.0, "clip": 1.0},
    # what ridge regression minimises
    "regression": {"contrastive": 0.0},
}
"""Mixtures of losses by name, for `--loss`."""

ALIGN_PRESETS: dict[str, Mapping[str, Any]] = {
    "default": {},
    # responses that come earlier or later from trial to trial: shifts of up to 31 ms
    "jitter": {"shift": 4, "loop": {"epochs": 16}},
    # a few trials of each picture or category
    "few-labels": {"batch_size": 32, "loop": {"epochs": 20}},
    # a new person on top of others (`dreamdiff adapt`)
    "adapt": {"batch_size": 40, "optim": {"lr": 5e-4, "warmup_epochs": 1.0}},
    # seconds, for tests
    "tiny": {"batch_size": 16, "loop": {"epochs": 6}, "optim": {"warmup_epochs": 1.0}},
}
