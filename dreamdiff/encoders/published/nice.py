"""NICE's temporal-spatial convolution (Song et al., "Decoding natural images from EEG for object recognition", ICLR 2024, table 6).

    (1, C, T) -> conv 1 x 25, 40 filters -> mean over 51 samples, every 5 -> batch norm -> ELU
              -> conv C x 1, 40 filters -> batch norm -> ELU -> dropout 0.5 -> conv 1 x 1

At 63 channels and 250 samples that is 36 x 40 = 1,440 numbers, as in the paper. The projector of the paper (linear, residual layer, norm) is the
head of every aligned encoder here; the paper's contrastive loss alone is `--loss cosine` without its cosine term.
Shapes: B batch, C channels, T samples, L tokens, D filters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from dreamdiff.encoders.weights import Placed, save_folder
from eegprep.errors import ModelError
from eegprep.settings import Settings


class NiceConfig(Settings):
    """Shape of the convolution; kernels and pools are samples at 250 Hz."""

    kind: Literal["nice"] = "nice"
    channels: int = Field(default=63, ge=1)
    window: int = Field(default=250, ge=1)
    filters: int = Field(default=40, ge=1)
    kernel: int = Field(default=25, ge=1)
    pool: int = Field(default=51, ge=1)
    stride: int = Field(default=5, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> NiceConfig:
        if self.window < self.kernel + self.pool - 1:
            raise ValueError(
                f"a window of {self.window} samples is shorter than kernel and pool together ({self.kernel + self.pool - 1})"
            )
        return self

    @property
    def tokens(self) -> int:
        """L, tokens per window."""
        return (self.window - self.kernel + 1 - self.pool) // self.stride + 1


class TemporalSpatial(nn.Module):
    """(B, C, T) -> (B, L, D); NICE, ATM-S and ENIGMA share it. features: D, the number of filters where it is None."""

    def __init__(
        self, channels: int, filters: int, kernel: int, pool: int, stride: int, dropout: float, features: int | None = None
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, filters, (1, kernel)), nn.AvgPool2d((1, pool), (1, stride)), nn.BatchNorm2d(filters), nn.ELU(),
            nn.Conv2d(filters, filters, (channels, 1)), nn.BatchNorm2d(filters), nn.ELU(), nn.Dropout(dropout),
            nn.Conv2d(filters, features or filters, (1, 1)),
        )  # fmt: skip

    def forward(self, eeg_BCT: Tensor) -> Tensor:
        """(B, L, D)."""
        convolution, pool = cast(nn.Conv2d, self.layers[0]), cast(nn.AvgPool2d, self.layers[1])
        width, stride = cast("tuple[int, int]", pool.kernel_size)[1], cast("tuple[int, int]", pool.stride)
        # a convolution and the mean that follows are one convolution with a longer kernel: the same numbers without all that lies between the strides
        weight_F1K = convolution.weight[:, 0]
        box = weight_F1K.new_full((1, 1, width), 1 / width)
        kernel_F11K = F.conv1d(weight_F1K, box, padding=width - 1)[:, :, None]
        pooled_BFCL = F.conv2d(eeg_BCT[:, None], kernel_F11K, convolution.bias, stride)
        return self.layers[2:](pooled_BFCL)[:, :, 0].transpose(1, 2)


class NiceEncoder(Placed):
    """(B, C, T) -> (B, L, D). Reads whitened EEG (the paper whitens by multivariate noise normalisation too)."""

    Config = NiceConfig
    gradient_checkpointing = False
    rate = 250.0  # Hz, of the paper

    def __init__(self, config: NiceConfig) -> None:
        super().__init__()
        self.config = config
        self.convolution = TemporalSpatial(
            config.channels, config.filters, config.kernel, config.pool, config.stride, config.dropout
        )

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
        return self.convolution(eeg_BCT)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        content = {"architecture": "NiceEncoder", "version": 1, "encoder": self.config.model_dump()}
        save_folder(Path(folder), content, self.state_dict())


def check_shape(eeg_BCT: Tensor, channels: int, window: int) -> None:
    """Raise ModelError unless EEG is (batch, channels, window)."""
    if eeg_BCT.ndim != 3 or tuple(eeg_BCT.shape[1:]) != (channels, window):
        raise ModelError(
            f"EEG of shape {tuple(eeg_BCT.shape)} does not fit an encoder for (batch, {channels}, {window})",
            "give windows of that shape",
        )
