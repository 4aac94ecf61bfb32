"""A small convolution over electrodes and time: what most published EEG-to-image decoders are, in forty lines.

    channels -> `spatial` combinations -> `filters` temporal filters -> batch norm -> ELU -> mean over `pool` samples

Source: the temporal-spatial convolution of Song et al. 2024 (NICE) and Schirrmeister et al. 2017, reduced; sizes are ours.
Shapes: B batch, C channels, T samples, L tokens (T / pool), D filters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from dreamdiff.encoders.weights import Placed, save_folder
from eegprep.errors import ModelError
from eegprep.settings import Settings


class ConvConfig(Settings):
    """Shape of the convolution. `kernel` is samples; at 128 Hz 9 samples are 70 ms and a pool of 4 is 31 ms."""

    kind: Literal["conv"] = "conv"
    channels: int = Field(default=128, ge=1)
    window: int = Field(default=76, ge=1)  # samples
    spatial: int = Field(default=64, ge=1)
    filters: int = Field(default=40, ge=1)
    kernel: int = Field(default=9, ge=1)
    pool: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> ConvConfig:
        if self.kernel % 2 == 0:
            raise ValueError(f"a kernel of {self.kernel} samples has no middle (give an odd number)")
        if self.window < self.pool:
            raise ValueError(f"a window of {self.window} samples is shorter than the pool of {self.pool}")
        return self

    @property
    def tokens(self) -> int:
        """L, tokens per window."""
        return self.window // self.pool


class ConvEncoder(Placed):
    """(B, C, T) -> (B, L, D). Reads whitened EEG; what comes in uV has to pass a front end first."""

    Config = ConvConfig
    gradient_checkpointing = False

    def __init__(self, config: ConvConfig) -> None:
        super().__init__()
        self.config = config
        self.spatial = nn.Linear(config.channels, config.spatial, bias=False)
        # whitened channels have variance 1, and so have their combinations
        nn.init.normal_(self.spatial.weight, std=config.channels**-0.5)
        self.temporal = nn.Conv1d(config.spatial, config.filters, config.kernel, padding=config.kernel // 2)
        self.norm = nn.BatchNorm1d(config.filters)
        self.pool = nn.AvgPool1d(config.pool)

    @property
    def tokens(self) -> int:
        """Tokens that `forward` returns."""
        return self.config.tokens

    @property
    def width(self) -> int:
        """Size of each token."""
        return self.config.filters

    def forward(self, eeg_BCT: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """(B, C, T) -> (B, L, D).

        Raises:
            ModelError: EEG of another shape.
        """
        expected = (self.config.channels, self.config.window)
        if eeg_BCT.ndim != 3 or tuple(eeg_BCT.shape[1:]) != expected:
            raise ModelError(
                f"EEG of shape {tuple(eeg_BCT.shape)} does not fit a convolution for (batch, {expected[0]}, {expected[1]})",
                "give windows of that shape",
            )
        # a matrix product over channels; `nn.Linear` would want them on the last axis, and two copies
        combined_BST = self.spatial.weight @ eeg_BCT
        return self.pool(F.elu(self.norm(self.temporal(combined_BST)))).transpose(1, 2)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        content = {"architecture": "ConvEncoder", "version": 1, "encoder": self.config.model_dump()}
        save_folder(Path(folder), content, self.state_dict())
