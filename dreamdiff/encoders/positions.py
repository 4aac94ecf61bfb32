"""An EEG encoder that knows where its electrodes are: one token per electrode and stretch of time.

Any cap of 1 to 256 electrodes and any length fit one model, and recordings of different caps fit one batch: absent channels and
times are masked, never padded with copies. Shapes: B batch, C channels, T samples, S stretches of time, P samples in a stretch,
D width, N tokens (C x S).

Sources: tokens of one electrode and place embeddings as in LaBraM (Jiang et al. 2024) and REVE (El Ouahidi et al. 2025), Fourier
features of a place as in Tancik et al. 2020. Sizes are ours: small enough to train on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dreamdiff.encoders.kinds import read_encoder
from dreamdiff.encoders.transformer import Block
from dreamdiff.encoders.weights import Placed, save_folder
from dreamdiff.matmul import Linear
from dreamdiff.whitening import WhiteningConfig
from eegprep import settings
from eegprep.errors import ModelError

MOST_CHANNELS = 256
HEAD_RADIUS = 0.09  # m: places are divided by it, so that electrodes lie near the unit sphere
APART = 1e-3  # m: two electrodes nearer than a millimetre are one place given twice
FARTHEST = 0.25  # m from the centre of the head: beyond it the unit is not the metre
LIMIT = 15.0  # ours: whitened samples beyond 15 standard deviations are artefacts and would own the loss


class PositionsConfig(settings.Settings):
    """Shape of the encoder and of its front end."""

    kind: Literal["positions"] = "positions"
    front_end: WhiteningConfig = WhiteningConfig()
    token: int = Field(default=80, ge=2, description="Samples per token (1 s at the default rate)")
    width: int = Field(default=64, ge=8, description="Size of a token")
    depth: int = Field(default=2, ge=1, description="Transformer blocks")
    heads: int = Field(default=4, ge=1, description="Attention heads")
    mlp_ratio: float = Field(default=2.0, gt=0, description="Hidden size of the two-layer networks, in widths")
    frequencies: int = Field(default=16, ge=1, description="Random Fourier frequencies of a place")
    fineness: float = Field(
        default=3.0,
        gt=0,
        description="Standard deviation of those frequencies, radians per head radius; larger tells near electrodes apart",
    )

    @model_validator(mode="after")
    def _fits(self) -> PositionsConfig:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"a width of {self.width} cannot be divided among {self.heads} heads (and must be even)")
        return self


@dataclass
class Tokens:
    """What the encoder gives.

    values: (B, C, S, D). valid: (B, C, S) bool, False where the batch was filled up.
    """

    values: Tensor
    valid: Tensor

    def per_electrode(self) -> Tensor:
        """Mean over time of every electrode: (B, C, D); 0 for absent ones."""
        weight = self.valid[..., None].to(self.values.dtype)
        return (self.values * weight).sum(2) / weight.sum(2).clamp_min(1)

    def mean(self) -> Tensor:
        """Mean over all tokens: (B, D)."""
        weight = self.valid[..., None].to(self.values.dtype)
        return (self.values * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1)


class PositionsEncoder(Placed):
    """Tokens of (electrode, stretch of time) with 3-D places and time as embeddings, then pre-norm transformer blocks.

    `encoder(eeg_BCT, positions_BC3)` takes front-ended EEG (see `dreamdiff.whitening`): whitened, so that a unit is a
    standard deviation of the person.

    Example:
        encoder = PositionsEncoder(PositionsConfig())
        tokens = encoder(torch.randn(2, 21, 240), torch.randn(2, 21, 3) * 0.05)
    """

    Config = PositionsConfig

    def __init__(self, config: PositionsConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.embed = nn.Sequential(Linear(config.token, hidden), nn.GELU(), Linear(hidden, width))
        # drawn apart from all seeds, so that two runs see the same places
        drawn_3F = np.random.RandomState(0).standard_normal((3, config.frequencies)) * config.fineness
        self.frequency_3F: Tensor
        self.register_buffer("frequency_3F", torch.from_numpy(drawn_3F).float())
        self.place = Linear(2 * config.frequencies, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PositionsEncoder:
        """Read the encoder of a folder or of a run of `dreamdiff train msm --preset positions`."""
        encoder = read_encoder(folder)
        if not isinstance(encoder, cls):
            raise ModelError(
                f"{folder}: holds a {type(encoder).__name__}, not a {cls.__name__}", "use EEGEncoder.from_pretrained"
            )
        return encoder

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        content = {"architecture": "PositionsEncoder", "version": 1, "encoder": self.config.model_dump(mode="json")}
        save_folder(Path(folder), content, self.state_dict())

    @property
    def width(self) -> int:
        """Size of each token."""
        return self.config.width

    def patches(self, eeg_BCT: Tensor) -> Tensor:
        """(B, C, T) to (B, C, S, P); what does not fill a token at the end is left out."""
        token = self.config.token
        stretches = eeg_BCT.shape[-1] // token
        if stretches < 1:
            raise ModelError(
                f"windows of {eeg_BCT.shape[-1]} samples are shorter than one token of {token}",
                f"give windows of at least {token / self.config.front_end.sfreq:g} s, or train with a smaller model.encoder.token",
            )
        return eeg_BCT[..., : stretches * token].unflatten(-1, (stretches, token))

    def forward(
        self, eeg_BCT: Tensor, positions_BC3: Tensor, channel_mask_BC: Tensor | None = None, length_B: Tensor | None = None,
        hidden_BCS: Tensor | None = None, check: bool = True,
    ) -> Tokens:  # fmt: skip
        """Encode.

        Args:
            eeg_BCT: whitened EEG at the front end's rate.
            positions_BC3: m, head coordinates.
            channel_mask_BC: True where a channel is real; all when left out.
            length_B: samples that are real in each window; all when left out.
            hidden_BCS: True where a token is replaced by the mask token (its place and time stay known).
            check: look at the positions; a training loop whose data were checked when opened leaves it out (it waits for the device).

        Raises:
            ModelError: positions that are missing, zero or doubled, more than 256 channels, or windows shorter than a token.
        """
        patches_BCSP = self.patches(eeg_BCT)
        batch, channels, stretches, _ = patches_BCSP.shape
        if channel_mask_BC is None:
            channel_mask_BC = torch.ones(batch, channels, dtype=torch.bool, device=eeg_BCT.device)
        if check:
            check_positions(positions_BC3, channel_mask_BC)
        valid_BCS = channel_mask_BC[:, :, None].expand(-1, -1, stretches)
        if length_B is not None:
            inside_BS = torch.arange(stretches, device=eeg_BCT.device)[None] < (length_B // self.config.token)[:, None]
            valid_BCS = valid_BCS & inside_BS[:, None]
        # an absent channel may hold anything: it is masked below, but NaN times zero would still be NaN
        x = self.embed(patches_BCSP.nan_to_num(0.0).clamp(-LIMIT, LIMIT))
        if hidden_BCS is not None:
            x = torch.where(hidden_BCS[..., None], self.mask_token.to(x.dtype), x)
        angle_BCF = positions_BC3.nan_to_num(0.0).to(x.dtype) / HEAD_RADIUS @ self.frequency_3F
        place_BCD = self.place(torch.cat([angle_BCF.sin(), angle_BCF.cos()], dim=-1))
        x_BND = (x + place_BCD[:, :, None] + self._time(stretches, x)).flatten(1, 2)
        valid_BN = valid_BCS.flatten(1)
        # attention without a mask is faster on a CPU; asking whether all is valid would stall a GPU
        everything = valid_BN.device.type == "cpu" and bool(valid_BN.all())
        mask = None if everything else valid_BN[:, None, None, :]
        for block in self.blocks:
            x_BND = block(x_BND, mask=mask)
        return Tokens(self.norm(x_BND).unflatten(1, (channels, stretches)), valid_BCS)

    def _time(self, stretches: int, like: Tensor) -> Tensor:
        """(S, D) sines and cosines, so that a model trained on 3 s reads 30 s."""
        half = self.config.width // 2
        rate = torch.exp(-math.log(100.0) * torch.arange(half, device=like.device, dtype=like.dtype) / half)
        angle = torch.arange(stretches, device=like.device, dtype=like.dtype)[:, None] * rate
        # 0.3: about the size of fresh place and signal embeddings
        return 0.3 * torch.cat([angle.sin(), angle.cos()], dim=-1)


def check_positions(positions_BC3: Tensor, channel_mask_BC: Tensor, names: Sequence[str] | None = None) -> None:
    """Refuse places that no electrode can have: a wrong place is worse than none.

    Raises:
        ModelError: missing, zero, doubled or impossibly far positions, or more channels than the model knows.
    """
    batch, channels = channel_mask_BC.shape
    fix = "give the recording a montage with eegprep (positions in m), or leave those channels out"
    if channels > MOST_CHANNELS:
        raise ModelError(
            f"{channels} channels, the model takes at most {MOST_CHANNELS}", "choose channels with --select-channels"
        )
    if tuple(positions_BC3.shape) != (batch, channels, 3):
        raise ModelError(
            f"positions of shape {tuple(positions_BC3.shape)} do not fit {batch} windows of {channels} channels",
            f"give positions of shape ({batch}, {channels}, 3), in m",
        )
    if not bool(channel_mask_BC.any(dim=1).all()):
        raise ModelError("a window without a single channel", "leave it out")

    def named(row: int, channel: int) -> str:
        return f"channel {names[channel]!r}" if names is not None else f"window {row}, channel {channel}"

    radius_BC = positions_BC3.norm(dim=-1)
    for problem, wrong_BC in (
        ("has no position", ~torch.isfinite(positions_BC3).all(-1)),
        ("has position zero", radius_BC < APART),
        (f"lies more than {FARTHEST} m from the centre of the head", radius_BC > FARTHEST),
    ):
        where = torch.nonzero(wrong_BC & channel_mask_BC)
        if len(where):
            row, channel = (int(i) for i in where[0])
            place = [round(float(v), 4) for v in positions_BC3[row, channel]]
            raise ModelError(f"{named(row, channel)} {problem} ({place}; {len(where)} such channels)", fix)
    seen: dict[bytes, None] = {}
    for row in range(batch):  # equal caps are checked once
        places_C3 = positions_BC3[row][channel_mask_BC[row]].detach().cpu()
        key = places_C3.numpy().tobytes()
        if key in seen:
            continue
        seen[key] = None
        apart = torch.cdist(places_C3.double(), places_C3.double()) + torch.eye(len(places_C3)) * 1.0
        if len(places_C3) > 1 and float(apart.min()) < APART:
            first, second = divmod(int(apart.argmin()), len(places_C3))
            index = torch.nonzero(channel_mask_BC[row])[:, 0]
            raise ModelError(
                f"{named(row, int(index[first]))} and {named(row, int(index[second]))} are {float(apart.min()) * 1000:.2f} mm apart",
                fix,
            )


def positions_preset(name: str) -> Mapping[str, Any]:
    """Named shapes: `positions` (0.08 M parameters) and `positions-large` (4.9 M)."""
    presets: dict[str, Mapping[str, Any]] = {
        "positions": {},
        "positions-large": {"width": 256, "depth": 8, "heads": 8, "frequencies": 32},
    }
    return presets[name]
