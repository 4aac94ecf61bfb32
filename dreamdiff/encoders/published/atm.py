"""ATM-S (Li et al., "Visual decoding and reconstruction via EEG embeddings with guided diffusion", NeurIPS 2024): attention over channels first.

    each channel's whole time course is a token -> linear -> one layer of self-attention over channels (with its feed-forward layer)
    -> NICE's temporal-spatial convolution

The paper adds a token or a layer per person; here the map of channels per person (`--people per-person`) stands for it. Sizes: width 250 = T,
feed-forward 256, 4 heads, dropout 0.25. T has to be divisible by the heads, or fewer heads are used.
Shapes: B batch, C channels, T samples, L tokens, D filters.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from dreamdiff.encoders.published.nice import NiceConfig, TemporalSpatial, check_shape
from dreamdiff.encoders.weights import Placed, save_folder


class AtmConfig(NiceConfig):
    """Shape of ATM-S; `feedforward`, `heads` and `attention_dropout` of the layer over channels."""

    kind: Literal["atm-s"] = "atm-s"  # type: ignore[assignment]
    feedforward: int = Field(default=256, ge=1)
    heads: int = Field(default=4, ge=1)
    attention_dropout: float = Field(default=0.25, ge=0, lt=1)


class AtmEncoder(Placed):
    """(B, C, T) -> (B, L, D)."""

    Config = AtmConfig
    gradient_checkpointing = False
    rate = 250.0  # Hz, of the paper

    def __init__(self, config: AtmConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.window, config.window)
        self.attention = nn.TransformerEncoderLayer(
            config.window,
            math.gcd(config.heads, config.window),
            config.feedforward,
            config.attention_dropout,
            activation="gelu",
            batch_first=True,
        )
        self.norm = nn.LayerNorm(config.window)
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
        return self.convolution(self.norm(self.attention(self.embed(eeg_BCT))))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        content = {"architecture": "AtmEncoder", "version": 1, "encoder": self.config.model_dump()}
        save_folder(Path(folder), content, self.state_dict())
