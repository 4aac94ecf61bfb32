"""Settings and presets of masked signal modelling."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dreamdiff.encoders.config import PRESETS as MODEL_PRESETS
from dreamdiff.encoders.config import MaskedSignalConfig, masked_signal_preset
from dreamdiff.training.config import LoopConfig, OptimConfig
from eegprep.settings import Settings


class PretrainData(Settings):
    """What pre-training reads from a corpus.

    batch_size: windows a process and step (the authors: 100).
    validation: what is held out: whole people, or whole recordings, or nothing; `auto` takes people when there are several.
    validation_share: of people or recordings; at least one.
    validation_windows: at most so many held-out windows are used, evenly spread.
    weights: of data sets or `dataset/subject`: how often their windows come in an epoch.
    """

    batch_size: int = Field(default=100, ge=1)
    validation: Literal["auto", "person", "recording", "none"] = "auto"
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    validation_windows: int = Field(default=512, ge=1)
    split_seed: int = 0
    weights: dict[str, float] = Field(default_factory=dict)
    prefetch: int = Field(default=4, ge=0)


class Augmentation(Settings):
    """Changes to training windows, all off by default.

    shift: largest circular shift in time, samples. reverse: share of windows played backwards.
    gain: standard deviation of the logarithm of a random amplitude factor.
    """

    shift: int = Field(default=0, ge=0)
    reverse: float = Field(default=0.0, ge=0, le=1)
    gain: float = Field(default=0.0, ge=0)


class PretrainConfig(Settings):
    """Masked signal modelling."""

    model: MaskedSignalConfig = MaskedSignalConfig()
    data: PretrainData = PretrainData()
    augment: Augmentation = Augmentation()
    gradient_checkpointing: bool = False
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()


def _pretrain_presets() -> dict[str, dict[str, Any]]:
    presets: dict[str, dict[str, Any]] = {name: {"model": masked_signal_preset(name).model_dump()} for name in MODEL_PRESETS}
    # ours, for a minute or two on two cores: a small model needs a high rate to find the neighbours of a hidden token in that time
    presets["tiny"] |= {
        "data": {"batch_size": 16},
        "augment": {"shift": 256},  # a hundred windows are few: held-out loss 0.98 instead of 1.07 on the sample recordings
        "optim": {"lr": 5e-3, "warmup_epochs": 2},
        "loop": {"epochs": 1000, "max_steps": 2000},
    }
    presets["small"] |= {"data": {"batch_size": 64}, "optim": {"lr": 5e-4, "warmup_epochs": 10}, "loop": {"epochs": 200}}
    return presets


PRETRAIN_PRESETS = _pretrain_presets()

"""`paper`: 302.84 M, 75 % masked. `released`: the authors' published code, 151.77 M, 10 % masked, input divided by 10.
`w256` ... `w1280`, `shallow2`: the sizes of Table 2. All with the authors' 500 epochs at batch 100; `small`, `tiny`: one machine."""
