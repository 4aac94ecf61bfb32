"""ENIGMA (Kneeland et al. 2026, arXiv 2602.10361): one small model for everybody, 184 numbers of a trial.

    linear map over time -> conv 1 x 5, 40 filters -> mean over 17 samples, every 5 -> batch norm -> ELU
                         -> conv C x 1, 40 filters -> batch norm -> ELU -> dropout 0.5 -> conv 1 x 1, 4 filters

At 250 samples that is 46 x 4 = 184 numbers, as in the paper; sizes are those of its published code. The authors give every person a linear map over
time; here everybody shares that map, which starts as none, and each person has a map of channels in front of the encoder (`--people per-person`),
so that somebody new can be read at all: in the published code an unknown person is an error. The paper's MLP to the image vector is the head of
every aligned encoder here, and its error on vectors that are not normalised is the `error` term of the loss.
Shapes: B batch, C channels, T samples, L tokens, F filters of the last convolution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dreamdiff.encoders.published.nice import NiceConfig, TemporalSpatial, check_shape
from dreamdiff.encoders.weights import Placed, save_folder


class EnigmaConfig(NiceConfig):
    """Shape of the convolution: NICE's with shorter kernels, and `features` numbers per stretch of time."""

    kind: Literal["enigma"] = "enigma"  # type: ignore[assignment]
    kernel: int = Field(default=5, ge=1)
    pool: int = Field(default=17, ge=1)
    features: int = Field(default=4, ge=1)


class EnigmaEncoder(Placed):
    """(B, C, T) -> (B, L, F)."""

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
        self.convolution = TemporalSpatial(
            config.channels, config.filters, config.kernel, config.pool, config.stride, config.dropout, config.features
        )

    @property
    def tokens(self) -> int:
        """Tokens that `forward` returns."""
        return self.config.tokens

    @property
    def width(self) -> int:
        """Size of each token."""
        return self.config.features

    def forward(self, eeg_BCT: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """(B, C, T) -> (B, L, F).

        Raises:
            ModelError: EEG of another shape.
        """
        check_shape(eeg_BCT, self.config.channels, self.config.window)
        return self.convolution(self.over_time(eeg_BCT))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        content = {"architecture": "EnigmaEncoder", "version": 1, "encoder": self.config.model_dump()}
        save_folder(Path(folder), content, self.state_dict())
