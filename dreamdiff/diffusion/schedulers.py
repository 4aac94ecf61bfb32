"""Samplers of diffusers over the noise schedule that a model was trained with; the facts of that schedule survive any choice of sampler."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegprep.errors import CheckpointError, UsageError
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
    try:
        content = json.loads((folder / "scheduler_config.json").read_text())
        name = str(content.get("_class_name", "PNDMScheduler"))
    except (OSError, ValueError, AttributeError, RecursionError):
        raise CheckpointError(f"{folder}: no readable scheduler_config.json", "copy or download that folder again") from None
    return make_scheduler(name, content)


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
    found = None if kind is None else inspect.signature(kind.__init__).parameters.get("timestep_spacing")
    return None if found is None else found.default


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
    return float(scheduler.timesteps.max()) <= int(scheduler.config.num_train_timesteps) - 1
