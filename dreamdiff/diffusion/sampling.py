"""The one guided sampling loop: noise to latents under any diffusers U-Net and scheduler.

The EEG pipeline, the frozen generator of the baselines, the image adapters and the tools that measure the embedded model all
call it, so a fault in guidance or in the order of rows can only be in one place.

Rows never mix: row b of every tensor of a `Condition` belongs to image b alone. This is why image vectors are passed to the U-Net
here, as (B, 1, D), and not through a diffusers pipeline, whose IP-Adapter lets every image attend to the vectors of the whole batch
(huggingface/diffusers issue 9813).

Shapes: B images, C latent channels, H W latent pixels, L context tokens, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from dreamdiff.diffusion.noise import set_steps
from eegprep.errors import ModelError, ToolkitError, UsageError

OnStep = Callable[[int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Condition:
    """What a U-Net reads besides noisy latents and the time; every tensor has one row per image.

    states_BLD: keys and values of cross-attention. class_BD: added to the time embedding (`class_labels` of diffusers).
    image_BD: image vector, for an IP-Adapter or a decoder of image vectors. text_BD, size_B6: pooled text and sizes of SDXL.
    """

    states_BLD: Tensor | None = None
    class_BD: Tensor | None = None
    image_BD: Tensor | None = None
    text_BD: Tensor | None = None
    size_B6: Tensor | None = None

    def __len__(self) -> int:
        return len(next(value for value in self._values().values()))

    def _values(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def to(self, device: Any, dtype: torch.dtype) -> Condition:
        """The same on a device, in the precision of the U-Net."""
        return Condition(**{name: value.to(device, dtype) for name, value in self._values().items()})

    def repeat(self, times: int) -> Condition:
        """Every row `times` times, in order."""
        return Condition(**{name: value.repeat_interleave(times, dim=0) for name, value in self._values().items()})

    def after(self, first: Condition) -> Condition:
        """The rows of `first`, then these."""
        own, others = self._values(), first._values()
        if own.keys() != others.keys():
            raise ModelError(
                f"a condition of {', '.join(own)} cannot be guided by one of {', '.join(others)}",
                "give both conditions the same parts",
            )
        return Condition(**{name: torch.cat([others[name], value]) for name, value in own.items()})

    def arguments(self, unet: Any) -> dict[str, object]:
        """Keyword arguments of a diffusers `UNet2DConditionModel`."""
        added: dict[str, object] = {}
        if self.image_BD is not None:
            per_adapter = getattr(unet.config, "encoder_hid_dim_type", None) == "ip_image_proj"
            added["image_embeds"] = [self.image_BD[:, None]] if per_adapter else self.image_BD
        if self.text_BD is not None:
            added |= {"text_embeds": self.text_BD, "time_ids": self.size_B6}
        return {
            "encoder_hidden_states": self.states_BLD,
            "class_labels": self.class_BD,
            "added_cond_kwargs": added or None,
        }


def start_noise(
    shape_CHW: tuple[int, ...], generators: Sequence[torch.Generator] | torch.Generator | None, batch: int, device: Any = "cpu"
) -> Tensor:
    """(B, C, H, W) float32 noise with unit variance; with one generator per image, an image depends on its own alone.

    Raises:
        UsageError: another number of generators than images.
    """
    from diffusers.utils.torch_utils import randn_tensor

    given = list(generators) if isinstance(generators, Sequence) else generators
    if isinstance(given, list) and len(given) != batch:
        raise UsageError(f"{len(given)} generators for {batch} images", "give one generator per image")
    return randn_tensor((batch, *shape_CHW), generator=given, device=torch.device(device), dtype=torch.float32)


@torch.no_grad()
def guided_sample(
    unet: Any,
    scheduler: Any,
    noise_BCHW: Tensor,
    condition: Condition,
    null: Condition | None = None,
    *,
    scale: float = 1.0,
    steps: int = 20,
    eta: float = 0.0,
    generator: Any = None,
    on_step: OnStep | None = None,
    clean_BCHW: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Latents (B, C, H, W) from noise with unit variance, or, image to image, from `clean_BCHW` with part of that noise.

    Args:
        unet, scheduler: of diffusers; the scheduler's timesteps are set here.
        condition, null: what is asked for, and "nothing" for classifier-free guidance (Ho and Salimans 2021, equation 6).
        scale: guidance, null + scale (condition - null); 1 does without `null` and costs one pass instead of two.
        eta, generator: for schedulers that have them (DDIM, ancestral samplers).
        on_step: number of the step, its time and the latents after it; returns the latents to continue with.
        clean_BCHW, strength: latents to begin with, and the share of the steps that they are noised and sampled for (SDEdit, Meng et al. 2022).

    Raises:
        UsageError: guidance without `null`, or more steps than the schedule allows.
        ModelError: conditions of another number of rows than the noise, or latents that are not finite.
    """
    if scale != 1 and null is None:
        raise UsageError(f"guidance {scale:g} needs a condition of nothing, and there is none", "use guidance 1")
    for name, part in (("the condition", condition), ("the condition of nothing", null if scale != 1 else None)):
        if part is not None and len(part) != len(noise_BCHW):
            raise ModelError(f"{name} has {len(part)} rows, the noise {len(noise_BCHW)}", "give one row per image")
    dtype, device = unet.dtype, noise_BCHW.device
    asked = condition if scale == 1 or null is None else condition.after(null)
    arguments = asked.to(device, dtype).arguments(unet)
    set_steps(scheduler, steps, device)
    known = inspect.signature(scheduler.step).parameters
    options = {name: value for name, value in (("eta", eta), ("generator", generator)) if name in known}
    # samplers of the Euler family begin with larger noise than 1
    state_BCHW = noise_BCHW.to(dtype) * scheduler.init_noise_sigma
    times = scheduler.timesteps
    if clean_BCHW is not None:
        times = times[len(times) - max(1, int(len(times) * strength)) :]
        state_BCHW = scheduler.add_noise(clean_BCHW.to(dtype), noise_BCHW.to(dtype), times[:1].repeat(len(clean_BCHW)))
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(len(scheduler.timesteps) - len(times))
    for number, time in enumerate(times):
        # one pass over both conditions: the U-Net's weights are read once
        both = torch.cat([state_BCHW, state_BCHW]) if scale != 1 else state_BCHW
        predicted = unet(scheduler.scale_model_input(both, time), time, **arguments).sample.to(
            device
        )  # under offload from elsewhere
        predicted = _guided(predicted, state_BCHW.shape[1], scale, scheduler)
        state_BCHW = scheduler.step(predicted, time, state_BCHW, **options).prev_sample
        if on_step is not None:
            state_BCHW = on_step(number, time, state_BCHW)
    require_finite(state_BCHW, "the latents of image", ModelError, NOT_FINITE)
    return state_BCHW


NOT_FINITE = "the weights are not finite, or the precision is too small for them: try --precision fp32, or copy the model again"


def require_finite(values: Tensor, what: str, error: type[ToolkitError], fix: str) -> None:
    """Stop before a black picture. `values`: one row per trial or image, counted from 0.

    Raises:
        ToolkitError: of the given kind, naming the first row that is not finite.
    """
    if not values.is_floating_point() or is_fake(values):  # fake tensors, as memory estimates use them, have no values
        return
    # one number to look at; a sum may overflow, so look again
    if bool(values.sum().isfinite()):
        return
    good_N = values.isfinite().flatten(1).all(dim=1)
    if not bool(good_N.all()):
        rows = (~good_N).nonzero().flatten().tolist()
        more = f" (and of {len(rows) - 1} more)" if len(rows) > 1 else ""
        raise error(f"{what} {rows[0]}{more} holds values that are not finite", fix)


def _guided(predicted: Tensor, channels: int, scale: float, scheduler: Any) -> Tensor:
    """Guidance on the prediction alone; a U-Net that also predicts a variance (Kandinsky 2.2) keeps that of the condition."""
    mean, variance = predicted[:, :channels], predicted[:, channels:]
    if scale != 1:
        without, asked = mean.chunk(2)
        mean, variance = without + scale * (asked - without), variance.chunk(2)[-1]
    learned = str(getattr(scheduler.config, "variance_type", "")).startswith("learned")
    return torch.cat([mean, variance], dim=1) if variance.shape[1] and learned else mean


def at_decoder(vae: Any, latents_BCHW: Tensor) -> Tensor:
    """Latents where the VAE decodes them: with it, or, under model offload, where its hook will bring it."""
    hook = getattr(vae, "_hf_hook", None)
    return latents_BCHW.to(getattr(hook, "execution_device", None) or vae.device)


def decode(vae: Any, latents_BCHW: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in 0..1, float32, of latents; a VQ decoder (Kandinsky) reads them unscaled and unquantised."""
    latents_BCHW = at_decoder(vae, latents_BCHW)
    if type(vae).__name__ == "VQModel":
        pixels = vae.decode(latents_BCHW, force_not_quantize=True).sample
    else:
        # SDXL's VAE overflows in half precision, and its configuration says so
        upcast = getattr(vae.config, "force_upcast", False) and vae.dtype == torch.float16
        pixels = (vae.float() if upcast else vae).decode(
            (latents_BCHW.float() if upcast else latents_BCHW) / vae.config.scaling_factor
        ).sample  # fmt: skip
    return (pixels.float() / 2 + 0.5).clamp(0, 1)


def to_uint8(pixels_BCHW: Tensor) -> Any:
    """(B, H, W, 3) uint8 of pixels in 0..1."""
    return (pixels_BCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
