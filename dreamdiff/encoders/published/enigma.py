"""ENIGMA (arXiv 2602.10361): one small model for everybody, a linear map per person in front, 184 numbers behind.

    linear map over time -> temporal convolution -> spatial convolution over all channels -> batch norm -> ELU -> mean over stretches -> 184

The paper gives every person a linear map over time; here everybody shares that map, and each person has a map of channels in front of the encoder
(`--people per-person`), so that somebody new can be read at all: in the published code an unknown person is an error. The paper's MLP to the image
vector is the head of every aligned encoder here, its error on vectors that are not normalised is the `error` term of the loss, and 2.4 million parameters for
ten people are its count. Kernels are ours where the paper names none.
Shapes: B batch, C channels, T samples, L tokens, D filters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dreamdiff.encoders.published.nice import check_shape
from dreamdiff.encoders.weights import Placed, save_folder
from eegprep.settings import Settings


class EnigmaConfig(Settings):
    """Shape of the encoder: `filters` x `stretches` numbers come out, 46 x 4 = 184."""

    kind: Literal["enigma"] = "enigma"
    channels: int = Field(default=63, ge=1)
    window: int = Field(default=250, ge=1)
    filters: int = Field(default=46, ge=1)
    kernel: int = Field(default=25, ge=1)
    stretches: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> EnigmaConfig:
        if self.window - self.kernel + 1 < self.stretches:
            raise ValueError(
                f"a window of {self.window} samples is too short for a kernel of {self.kernel} and {self.stretches} stretches"
            )
        return self

    @property
    def tokens(self) -> int:
        """L, tokens per window."""
        return self.stretches


class EnigmaEncoder(Placed):
    """(B, C, T) -> (B, L, D)."""

    Config = EnigmaConfig
    gradient_checkpointing = False
    rate = 250.0  # Hz, of THINGS-EEG2 as it is used

    def __init__(self, config: EnigmaConfig) -> None:
        super().__init__()
        self.config = config
        self.over_time = nn.Linear(config.window, config.window)
        with torch.no_grad():  # starts as no map at all
            self.over_time.weight.copy_(torch.eye(config.window))
            self.over_time.bias.zero_()
        self.temporal = nn.Conv2d(1, config.filters, (1, config.kernel))
        self.spatial = nn.Conv2d(config.filters, config.filters, (config.channels, 1))
        self.norm = nn.BatchNorm2d(config.filters)
        self.rest = nn.Sequential(nn.ELU(), nn.AdaptiveAvgPool2d((1, config.stretches)), nn.Dropout(config.dropout))

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
        check_shape(eeg_BCT, self.config.channels, self.config.window)
        mapped_B1CT = self.over_time(eeg_BCT)[:, None]
        return self.rest(self.norm(self.spatial(self.temporal(mapped_B1CT))))[:, :, 0].transpose(1, 2)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        content = {"architecture": "EnigmaEncoder", "version": 1, "encoder": self.config.model_dump()}
        save_folder(Path(folder), content, self.state_dict())
