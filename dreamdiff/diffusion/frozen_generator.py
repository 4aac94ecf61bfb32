"""Draws images with a frozen text-to-image model from captions or text states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamdiff.arrays import Array
from dreamdiff.diffusion.clip import ClipTarget
from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.sampling import Condition, decode, guided_sample, start_noise, to_uint8
from dreamdiff.diffusion.stable_diffusion import StableDiffusion
from dreamdiff.embedded import PLAIN_CAPTION, fill_caption
from eegprep.errors import ModelError

GUIDANCE = 3.0  # of the frozen generator; the embedded model's own


# words into the frozen generator


class FrozenGenerator:
    """The generator before any EEG: CLIP's text states in, images out, with classifier-free guidance.

    Text states are what Stable Diffusion's text encoder gives: the last hidden state of every token of CLIP's text tower. For
    Stable Diffusion 1.5 that is CLIP ViT-L/14, for the embedded model the embedded CLIP.
    """

    def __init__(self, sd: StableDiffusion, clip: ClipTarget) -> None:
        self.sd, self.clip = sd, clip
        self.padding: Literal["end", "zero"] = "zero" if sd.source == "embedded" else "end"
        width = self.text_states([""]).shape[2]
        if width != sd.context_width:
            raise ModelError(
                f"the text states of {clip.name} have width {width}, the generator reads {sd.context_width}",
                "give the CLIP whose text tower the generator was trained with",
            )

    def text_states(self, texts: Sequence[str]) -> Tensor:
        """(N, L, D)."""
        return self.clip.text_states(texts, self.padding)

    @torch.no_grad()
    def images(
        self, texts: Sequence[str], seeds: Sequence[int], *, steps: int = 20, guidance: float = GUIDANCE, batch: int = 16
    ) -> Array:
        """(N, H, W, 3) uint8, one image per text; image k depends on its text and its seed alone."""
        # each text once: a few class names for hundreds of pictures
        known = dict(zip(sorted(set(texts)), self.text_states(sorted(set(texts))), strict=True))
        empty = self.text_states([""])
        sampler = make_scheduler("dpm-solver++", self.sd.scheduler.config)
        shape = (int(self.sd.unet.config.in_channels), *2 * [int(self.sd.unet.config.sample_size)])
        parts = []
        for start in range(0, len(texts), batch):
            asked = torch.stack([known[text] for text in texts[start : start + batch]])
            dice = [torch.Generator().manual_seed(int(seed)) for seed in seeds[start : start + batch]]
            latents = guided_sample(
                self.sd.unet, sampler, start_noise(shape, dice, len(asked), self.sd.unet.device), Condition(asked), Condition(empty.expand_as(asked)),
                scale=guidance, steps=steps,
            )  # fmt: skip
            parts.append(to_uint8(decode(self.sd.vae, latents)))
        return np.concatenate(parts)


def caption(name: str) -> str:
    """The text that the frozen generator reads for a class."""
    return fill_caption(PLAIN_CAPTION, name.replace("_", " "))


def resized(images_NHWC: Array, size: int) -> Array:
    """(N, size, size, 3) uint8."""
    if images_NHWC.shape[1:3] == (size, size):
        return images_NHWC
    pixels = torch.from_numpy(np.ascontiguousarray(images_NHWC)).permute(0, 3, 1, 2).float()
    # antialiasing blurs where a picture grows
    small = size < images_NHWC.shape[1]
    scaled = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=small)
    return np.asarray(scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
