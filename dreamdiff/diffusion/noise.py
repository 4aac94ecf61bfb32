"""The noise schedule that a model is trained with, and the diffusion loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eegprep.errors import ModelError


@dataclass(frozen=True)
class NoiseSchedule:
    """alpha_bar_t of the forward process q(z_t | z_0) = N(sqrt(alpha_bar_t) z_0, (1 - alpha_bar_t) I)  (DDPM, equation 4)."""

    alpha_bar_S: Tensor
    prediction: str

    @classmethod
    def of(cls, scheduler: Any) -> NoiseSchedule:
        """The schedule of any diffusers scheduler."""
        return cls(scheduler.alphas_cumprod.detach().clone().float(), str(scheduler.config.get("prediction_type", "epsilon")))

    def __len__(self) -> int:
        return len(self.alpha_bar_S)

    def to(self, device: torch.device) -> NoiseSchedule:
        """The same, on another device."""
        return NoiseSchedule(self.alpha_bar_S.to(device), self.prediction)

    def noisy(self, clean_BCHW: Tensor, noise_BCHW: Tensor, step_B: Tensor) -> Tensor:
        """z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps."""
        alpha = self.alpha_bar_S[step_B].view(-1, 1, 1, 1)
        return alpha.sqrt() * clean_BCHW + (1 - alpha).sqrt() * noise_BCHW

    def target(self, clean_BCHW: Tensor, noise_BCHW: Tensor, step_B: Tensor) -> Tensor:
        """What the U-Net is asked for: eps, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z_0 (Salimans and Ho 2022)."""
        if self.prediction == "epsilon":
            return noise_BCHW
        if self.prediction == "v_prediction":
            alpha = self.alpha_bar_S[step_B].view(-1, 1, 1, 1)
            return alpha.sqrt() * noise_BCHW - (1 - alpha).sqrt() * clean_BCHW
        raise ModelError(
            f"prediction_type {self.prediction!r} is not one that trains here", "use a model with 'epsilon' or 'v_prediction'"
        )

    def weight(self, step_B: Tensor, min_snr_gamma: float | None) -> Tensor:
        """Min-SNR weights: min(SNR, gamma) / SNR for eps, / (SNR + 1) for v (Hang et al. 2023); ones without gamma."""
        if min_snr_gamma is None:
            return torch.ones_like(step_B, dtype=torch.float32)
        alpha = self.alpha_bar_S[step_B]
        snr = alpha / (1 - alpha)
        if self.prediction == "epsilon":
            return (min_snr_gamma / snr).clamp(max=1)  # not min(SNR, gamma) / SNR: at zero terminal SNR that is 0 / 0
        return snr.clamp(max=min_snr_gamma) / (snr + 1)


def diffusion_loss(
    unet: Any, schedule: NoiseSchedule, clean_BCHW: Tensor, context_BLD: Tensor, noise_BCHW: Tensor, step_B: Tensor,
    *, time_BD: Tensor | None = None, min_snr_gamma: float | None = None,
) -> Tensor:  # fmt: skip
    """L_SD = E || eps - eps_theta(z_t, t, tau(y)) ||^2  (paper, section 3.2), a scalar.

    Args:
        clean_BCHW: scaled latents z_0; noise_BCHW: eps; step_B: t; context_BLD: tau(y).
        time_BD: added to the time embedding (the released model's second way in), or None.
        min_snr_gamma: weight of each step; None for the paper's plain mean.
    """
    predicted = unet(
        schedule.noisy(clean_BCHW, noise_BCHW, step_B), step_B, encoder_hidden_states=context_BLD, class_labels=time_BD
    ).sample
    error_B = (predicted.float() - schedule.target(clean_BCHW, noise_BCHW, step_B).float()).square().mean(dim=(1, 2, 3))
    return (schedule.weight(step_B, min_snr_gamma) * error_B).mean()
