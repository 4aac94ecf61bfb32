"""U-Nets by name without weights, and what making pictures with them needs, counted on fake tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dreamdiff.diffusion.stable_diffusion import SD15_CONFIG
from dreamdiff.memory import StepMemory, step_memory

SDXL: dict[str, Any] = {
    "sample_size": 128, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048, "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
"""Podell et al. 2023: 2,567,463,684 parameters; SDXL-Turbo has the same."""


def sd15(part: str) -> dict[str, Any]:
    """Configuration of Stable Diffusion 1.5's `unet` or `vae`."""
    return dict(json.loads((SD15_CONFIG / part / "config.json").read_text(encoding="utf-8")))


def generation_memory(
    unet: Mapping[str, Any], vae: Mapping[str, Any], *, batch: int, guided: bool, dtype: torch.dtype, side: int | None = None,
    device: str = "cuda",
) -> StepMemory:  # fmt: skip
    """One pass of the U-Net with both networks in memory, or the decoder's pass where that takes more.

    Args:
        unet, vae: configurations of diffusers. guided: two rows a picture. side: latent pixels, the U-Net's own by default.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    pixels, rows = side or int(unet["sample_size"]), batch * (2 if guided else 1)

    def build() -> tuple[nn.Module, Callable[[], Tensor]]:
        network = UNet2DConditionModel.from_config(dict(unet))
        decoder = AutoencoderKL.from_config(dict(vae))
        both = nn.ModuleList([network, decoder]).requires_grad_(False)
        for part in both.modules():
            for name, parameter in part.named_parameters(recurse=False):
                setattr(part, name, nn.Parameter(parameter.to(dtype), requires_grad=False))
        added = None
        if unet.get("addition_embed_type") == "text_time":
            width = int(unet["projection_class_embeddings_input_dim"]) - 6 * int(unet["addition_time_embed_dim"])
            added = {"text_embeds": torch.zeros(rows, width, dtype=dtype), "time_ids": torch.zeros(rows, 6, dtype=dtype)}

        def run() -> Tensor:
            state = torch.zeros(rows, int(unet["in_channels"]), pixels, pixels, dtype=dtype)
            text = torch.zeros(rows, 77, int(unet["cross_attention_dim"]), dtype=dtype)
            network(state, torch.zeros(rows, dtype=torch.long), encoder_hidden_states=text, added_cond_kwargs=added)
            return decoder.decode(state[:batch, : int(vae["latent_channels"])]).sample

        return both, run

    return step_memory(build, device=device, training=False)
