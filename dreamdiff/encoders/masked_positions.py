"""Masked pre-training of the encoder that knows its electrodes: hide neighbourhoods, predict something about them.

Shapes: B batch, C channels, T samples, S stretches of time, D width, K target values per token.

Targets: `samples` (the paper's: the signal itself), `log-power` (logarithm of the power in bands), `latent` (what a slow copy of the
encoder says about the whole window; data2vec, Baevski et al. 2022). Neighbourhood masks as in REVE (El Ouahidi et al. 2025).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dreamdiff.encoders.positions import PositionsConfig, PositionsEncoder, Tokens
from dreamdiff.encoders.weights import config_section, load_module, save_folder
from dreamdiff.matmul import Linear
from dreamdiff.run_folder import read_config, weights_folder
from dreamdiff.spectra import log_power
from eegprep import settings

Target = Literal["samples", "log-power", "latent"]
POWER_FLOOR = 1e-3  # ours, in squared standard deviations: silence has a finite logarithm


class MaskConfig(settings.Settings):
    """Which tokens are hidden: neighbourhoods in space and time, until a share of the window is covered."""

    share: float = Field(default=0.5, gt=0, lt=1, description="Share of a window's tokens that is hidden")
    radius_cm: float = Field(
        default=4.5, ge=0, description="Radius of a hidden neighbourhood of electrodes, cm; 0 hides single electrodes"
    )
    span: int = Field(default=1, ge=1, description="Length of a hidden neighbourhood, tokens")


class MaskedPositionsConfig(settings.Settings):
    """Encoder, masks and target."""

    encoder: PositionsConfig = PositionsConfig()
    mask: MaskConfig = MaskConfig()
    target: Target = Field(
        default="log-power", description="What is predicted: samples, log-power, or latent (a slow copy's tokens)"
    )
    bands: tuple[tuple[float, float], ...] = Field(
        default=((8.0, 13.0), (13.0, 20.0), (20.0, 32.0)), description="Bands of the target log-power, Hz"
    )
    visible_weight: float = Field(default=0.5, ge=0, description="Weight of the loss on visible tokens; hidden ones count 1")
    momentum: float = Field(default=0.99, ge=0, lt=1, description="How slowly the copy follows the encoder (target latent)")


@dataclass
class MaskedPositionsOutput:
    """loss: scalar. error_hidden: mean squared error on hidden tokens over the variance of the target. hidden: (B, C, S)."""

    loss: Tensor
    error_hidden: Tensor
    hidden: Tensor


class MaskedPositionsModel(nn.Module):
    """`encoder` is the part that is kept."""

    def __init__(self, config: MaskedPositionsConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PositionsEncoder(config.encoder)
        values = {"samples": config.encoder.token, "log-power": len(config.bands), "latent": config.encoder.width}[config.target]
        self.predict = Linear(config.encoder.width, values)
        self.teacher: PositionsEncoder | None = None
        if config.target == "latent":
            self.teacher = copy.deepcopy(self.encoder).requires_grad_(False)
            _parameters_to_buffers(self.teacher)  # saved with a checkpoint, never trained

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> MaskedPositionsModel:
        """Read a run of `dreamdiff train msm --preset positions`, one of its checkpoints, or what `save_pretrained` wrote."""
        source = weights_folder(Path(folder))
        content = read_config(source)
        config_section(content, "encoder", source)
        sections = {name: content[name] for name in MaskedPositionsConfig.model_fields if name in content}
        config = settings.validated(MaskedPositionsConfig, sections)
        return load_module(lambda: cls(config), source)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        save_folder(Path(folder), self.config_content(), self.state_dict())

    def config_content(self) -> Mapping[str, Any]:
        """What config.json holds."""
        return {"architecture": "MaskedPositionsModel", "version": 1, **self.config.model_dump(mode="json")}

    def targets(self, eeg_BCT: Tensor, positions_BC3: Tensor, channel_mask_BC: Tensor, length_B: Tensor | None) -> Tensor:
        """(B, C, S, K) of what is to be predicted."""
        patches_BCSP = self.encoder.patches(eeg_BCT)
        if self.config.target == "samples":
            return patches_BCSP
        if self.config.target == "log-power":
            return log_power(patches_BCSP, self.config.encoder.front_end.sfreq, self.config.bands, POWER_FLOOR)
        assert self.teacher is not None
        with torch.no_grad():
            values = self.teacher(eeg_BCT, positions_BC3, channel_mask_BC, length_B, check=False).values
        # without it, the copy could make its task easy by shrinking what it says (data2vec normalises targets for this)
        return F.layer_norm(values, values.shape[-1:])

    def forward(
        self, eeg_BCT: Tensor, positions_BC3: Tensor, noise_BCS: Tensor, channel_mask_BC: Tensor | None = None,
        length_B: Tensor | None = None,
    ) -> MaskedPositionsOutput:  # fmt: skip
        """Hide, predict, compare.

        Args:
            eeg_BCT, positions_BC3, channel_mask_BC, length_B: as the encoder takes them; positions are not checked here.
            noise_BCS: in [0, 1); neighbourhoods are hidden in its order.
        """
        if channel_mask_BC is None:
            channel_mask_BC = torch.ones(eeg_BCT.shape[:2], dtype=torch.bool, device=eeg_BCT.device)
        target = self.targets(eeg_BCT, positions_BC3, channel_mask_BC, length_B)
        valid_BCS = channel_mask_BC[:, :, None].expand(noise_BCS.shape)
        if length_B is not None:
            steps = torch.arange(noise_BCS.shape[2], device=eeg_BCT.device)
            valid_BCS = valid_BCS & (steps[None] < (length_B // self.config.encoder.token)[:, None])[:, None]
        hidden_BCS = hide_neighbourhoods(positions_BC3, valid_BCS, noise_BCS, self.config.mask)
        tokens: Tokens = self.encoder(eeg_BCT, positions_BC3, channel_mask_BC, length_B, hidden_BCS, check=False)
        # in units of the target's variance, so that losses of different targets compare: 1 is what a constant reaches
        centre = target[valid_BCS].mean(0)
        variance = (target[valid_BCS] - centre).square().mean().clamp_min(1e-6)
        error_BCS = (self.predict(tokens.values) - target).square().mean(-1) / variance
        error_hidden = _mean_where(error_BCS, hidden_BCS & valid_BCS)
        loss = error_hidden + self.config.visible_weight * _mean_where(error_BCS, ~hidden_BCS & valid_BCS)
        return MaskedPositionsOutput(loss, error_hidden.detach(), hidden_BCS)

    @torch.no_grad()
    def follow(self) -> None:
        """Let the slow copy take a step towards the encoder."""
        if self.teacher is None:
            return
        student = dict(self.encoder.named_parameters())
        for name, value in self.teacher.named_buffers():
            if name in student:
                value.lerp_(student[name].to(value.dtype), 1 - self.config.momentum)


def hide_neighbourhoods(positions_BC3: Tensor, valid_BCS: Tensor, noise_BCS: Tensor, config: MaskConfig) -> Tensor:
    """(B, C, S) bool: neighbourhoods around (electrode, time) in the order of the noise, until `share` of the valid tokens is covered.

    Each window depends on its own noise alone. A neighbourhood may carry the share a little over.
    """
    batch, channels, stretches = noise_BCS.shape
    # 2: behind all noise, which is below 1
    order_BN = noise_BCS.masked_fill(~valid_BCS, 2.0).flatten(1).argsort(dim=1).argsort(dim=1)
    rank_BCS = order_BN.view(batch, channels, stretches).to(torch.float32).masked_fill(~valid_BCS, float("inf"))
    near_BCC = torch.cdist(positions_BC3.nan_to_num(0.0), positions_BC3.nan_to_num(0.0)) * 100 <= max(config.radius_cm, 1e-6)
    near_BCC = near_BCC | torch.eye(channels, dtype=torch.bool, device=near_BCC.device)
    # the first neighbourhood that covers a token: over time by pooling, over electrodes by the nearest ranks
    reach_BCS = -F.max_pool1d(F.pad(-rank_BCS, (config.span - 1, 0), value=-float("inf")), config.span, stride=1)
    first_BCS = torch.stack(
        [torch.where(near_BCC[:, c, :, None], reach_BCS, float("inf")).amin(dim=1) for c in range(channels)], dim=1
    ).masked_fill(~valid_BCS, float("inf"))  # fmt: skip
    count_B = valid_BCS.flatten(1).sum(1)
    n_hidden_B = (count_B * config.share).ceil().long().clamp_min(1)
    threshold_B = first_BCS.flatten(1).sort(dim=1).values.gather(1, (n_hidden_B - 1)[:, None])[:, 0]
    return (first_BCS <= threshold_B[:, None, None]) & valid_BCS


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp_min(1)


def _parameters_to_buffers(module: nn.Module) -> None:
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            # a name can be a parameter or a buffer, not both
            delattr(part, name)
            part.register_buffer(name, value.detach().clone())
