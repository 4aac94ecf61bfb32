"""Settings and presets of masked signal modelling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from dreamdiff.encoders.config import PRESETS as MODEL_PRESETS
from dreamdiff.encoders.config import MaskedSignalConfig, masked_signal_preset
from dreamdiff.training.config import LoopConfig, OptimConfig
from eegprep.settings import Settings


class PretrainData(Settings):
    """What pre-training reads from a corpus."""

    batch_size: int = Field(default=100, ge=1, description="Windows per process and step (the authors: 100)")
    validation: Literal["auto", "person", "recording", "none"] = Field(
        default="auto",
        description="What is held out: whole people, whole recordings, or nothing; `auto` takes people when there are several",
    )
    validation_share: float = Field(default=0.1, gt=0, lt=1, description="Share of people or recordings held out; at least one")
    validation_windows: int = Field(default=512, ge=1, description="Held-out windows used at most, evenly spread")
    split_seed: int = Field(default=0, description="Seed of the choice of what is held out")
    weights: dict[str, float] = Field(
        default_factory=dict,
        description="How often windows of a data set, or of `dataset/subject`, come in an epoch; 1 where not named",
    )
    prefetch: int = Field(default=4, ge=0, description="Batches read ahead")


class Augmentation(Settings):
    """Changes to training windows, all off by default."""

    shift: int = Field(default=0, ge=0, description="Largest circular shift in time, samples")
    reverse: float = Field(default=0.0, ge=0, le=1, description="Share of windows played backwards")
    gain: float = Field(default=0.0, ge=0, description="Standard deviation of the logarithm of a random amplitude factor")


class PretrainConfig(Settings):
    """Masked signal modelling."""

    model: MaskedSignalConfig = Field(default=MaskedSignalConfig(), description="Encoder, decoder and masking")
    data: PretrainData = Field(default=PretrainData(), description="What is read from the corpus")
    augment: Augmentation = Field(default=Augmentation(), description="Random changes to training windows")
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass to save memory"
    )
    optim: OptimConfig = Field(default=OptimConfig(), description="Optimiser and schedule")
    loop: LoopConfig = Field(default=LoopConfig(), description="Length, precision, checkpoints")


def _pretrain_presets() -> Mapping[str, Mapping[str, Any]]:
    presets: dict[str, dict[str, Any]] = {name: {"model": masked_signal_preset(name).model_dump()} for name in MODEL_PRESETS}
    # ours, for a minute or two on two cores: a small model needs a high rate to find the neighbours of a hidden token in that time
    presets["tiny"] |= {
        "data": {"batch_size": 16},
        "augment": {"shift": 256},  # a hundred windows are few: held-out loss 0.98 instead of 1.07 on the sample recordings
        "optim": {"lr": 5e-3, "warmup_epochs": 2},
        "loop": {"epochs": 1000, "max_steps": 2000},
    }
    presets["small"] |= {"data": {"batch_size": 64}, "optim": {"lr": 5e-4, "warmup_epochs": 10}, "loop": {"epochs": 200}}
    # whitened stretches of trials (`train msm --store PAIRS`): half a minute for a thousand trials; the people of a store are few
    presets["trials"] = presets["tiny"] | {
        "data": {"batch_size": 32, "validation": "none"},
        "augment": {"shift": 38},
        "optim": {"lr": 2e-3, "warmup_epochs": 4},
        "loop": {"epochs": 1000, "max_steps": 1500, "tracker": "none"},
    }
    return presets


PRETRAIN_PRESETS = _pretrain_presets()
POSITIONS_NAMES = ("positions", "positions-large")  # presets of `positions_task`, for the encoder that knows its electrodes

"""`paper`: 302.84 M, 75 % masked. `released`: the authors' published code, 151.77 M, 10 % masked, input divided by 10.
`w256` ... `w1280`, `shallow2`: the sizes of Table 2. All with the authors' 500 epochs at batch 100; `small`, `tiny`: one machine."""
