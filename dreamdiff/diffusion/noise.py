"""The noise schedule that a model is trained with, its loss, and the samplers of diffusers over it: the facts of the schedule survive
any choice of sampler."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from eegprep.errors import CheckpointError, ModelError, UsageError
from eegprep.sealed import read_object
from eegprep.settings import suggest

# short name -> diffusers class, and what that sampler needs where the base model does not say
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm-solver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False}),
    "ddim": ("DDIMScheduler", {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
}

# facts of the noise schedule, which are those of training whatever samples afterwards
_SCHEDULE_KEYS = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type", "trained_betas")


def load_scheduler(folder: Path) -> Any:
    """A noise schedule of the class that its configuration names."""
    content = read_object(folder / "scheduler_config.json")
    if content is None:
        raise CheckpointError(f"{folder}: no readable scheduler_config.json", "copy or download that folder again")
    return make_scheduler(str(content.get("_class_name", "PNDMScheduler")), content)


def make_scheduler(name: str, base: Mapping[str, Any]) -> Any:
    """A sampler over the noise schedule of `base`.

    Args:
        name: a short name of `SCHEDULERS`, or any diffusers scheduler class; a class and its short name are the same sampler. "pndm" is
            the paper's PLMS sampler.
        base: configuration of the schedule that the model was trained with. Its betas, prediction type and zero terminal SNR are kept,
            and its spacing of steps where that is not just the default of its class. Of the same class, all of it is kept.

    Raises:
        UsageError: no such sampler, or one that cannot sample this schedule.
    """
    import diffusers

    by_class = {class_name: short for short, (class_name, _) in SCHEDULERS.items()}
    class_name, options = SCHEDULERS.get(by_class.get(name, name.lower()), (name, {}))
    kind = getattr(diffusers, class_name, None)
    if kind is None or not class_name.endswith("Scheduler"):
        raise UsageError(
            f"there is no scheduler {name!r}{suggest(name, SCHEDULERS)}",
            f"use one of {', '.join(SCHEDULERS)}, or a diffusers scheduler class",
        )
    if class_name == base.get("_class_name"):
        return _named(kind.from_config({**options, **base}))
    kept = {key: base[key] for key in _SCHEDULE_KEYS if key in base}
    known = inspect.signature(kind.__init__).parameters
    if base.get("rescale_betas_zero_snr"):
        if "rescale_betas_zero_snr" not in known:
            raise UsageError(
                f"scheduler {name!r} cannot sample a model whose noise schedule ends without signal (rescale_betas_zero_snr)",
                "use ddim, dpm-solver++, euler or ddpm",
            )
        kept["rescale_betas_zero_snr"] = True
    spacing = base.get("timestep_spacing")
    if spacing is not None and spacing != _default_spacing(str(base.get("_class_name", ""))) and "timestep_spacing" in known:
        kept["timestep_spacing"] = spacing
    return _named(kind.from_config({**kept, **options}))


def _named(scheduler: Any) -> Any:
    """Its configuration says which class it is of, as the file will: in memory diffusers leaves that out."""
    scheduler.register_to_config(_class_name=type(scheduler).__name__)
    return scheduler


def _default_spacing(class_name: str) -> Any:
    """What a sampler writes into its configuration when nobody has chosen a spacing."""
    import diffusers

    kind = getattr(diffusers, class_name, None)
    value = None if kind is None else inspect.signature(kind.__init__).parameters.get("timestep_spacing")
    return None if value is None else value.default


def set_steps(scheduler: Any, steps: int, device: Any) -> None:
    """Set the number of sampling steps.

    Raises:
        UsageError: more than the sampler and the model's noise schedule allow, with the largest number that works.
    """
    if _fits(scheduler, steps, device):
        return
    most = next(
        (n for n in range(min(steps - 1, int(scheduler.config.num_train_timesteps)), 0, -1) if _fits(scheduler, n, device)), 0
    )
    raise UsageError(
        f"{steps} steps are more than {type(scheduler).__name__} can make of a noise schedule of "
        f"{scheduler.config.num_train_timesteps} (limit {most})",
        f"use at most {most} steps" if most else "use another --scheduler",
    )


def _fits(scheduler: Any, steps: int, device: Any) -> bool:
    try:
        scheduler.set_timesteps(steps, device=device)
    except (ValueError, IndexError, RuntimeError, ZeroDivisionError):
        return False
    if is_fake(scheduler.timesteps):
        return True
    # some schedulers make times beyond the last one of training, and sample noise from them without a word
    return float(scheduler.timesteps.max()) <= int(scheduler.config.num_train_timesteps) - 1


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
    *, time_BD: Tensor | None = None, image_BD: Tensor | None = None, min_snr_gamma: float | None = None,
) -> Tensor:  # fmt: skip
    """L_SD = E || eps - eps_theta(z_t, t, tau(y)) ||^2  (paper, section 3.2), a scalar.

    Args:
        clean_BCHW: scaled latents z_0; noise_BCHW: eps; step_B: t; context_BLD: tau(y).
        time_BD: added to the time embedding (the released model's second way in), or None. image_BD: for an IP-Adapter in the U-Net.
        min_snr_gamma: weight of each step; None for the paper's plain mean.
    """
    added = {} if image_BD is None else {"added_cond_kwargs": {"image_embeds": [image_BD[:, None]]}}
    predicted = unet(
        schedule.noisy(clean_BCHW, noise_BCHW, step_B), step_B, encoder_hidden_states=context_BLD, class_labels=time_BD, **added
    ).sample
    error_B = (predicted.float() - schedule.target(clean_BCHW, noise_BCHW, step_B).float()).square().mean(dim=(1, 2, 3))
    return (schedule.weight(step_B, min_snr_gamma) * error_B).mean()
