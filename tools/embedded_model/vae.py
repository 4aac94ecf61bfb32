"""The embedded model's autoencoder: trained, then its decoder again with the encoder fixed.

Shapes: B batch, H W pixels; pictures are (B, 3, 64, 64) in [-1, 1], latents (B, 4, 16, 16).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamdiff.embedded import load_images
from tools.embedded_model.folders import forget_origin
from tools.embedded_model.pictures import jitter, recolour, to_signed
from tools.embedded_model.stages import Plan, Stage

SIZE = 64

VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "sample_size": SIZE, "norm_num_groups": 8,
    "block_out_channels": (16, 32, 64), "layers_per_block": 1, "mid_block_add_attention": False,
    "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
}  # fmt: skip


def train_vae(work: Path, seed: int, plan: Plan) -> Any:
    """A Kullback-Leibler autoencoder that shrinks pictures four times along each side."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    images = to_signed(load_images("train").images_NHWC)
    fresh: Any = AutoencoderKL(**VAE_CONFIG)
    vae = fresh.to(memory_format=torch.channels_last)

    def loss_of(model: Any, generator: torch.Generator, batch: int) -> Tensor:
        picked = images[torch.randint(len(images), (batch,), generator=generator)]
        x = jitter(picked, generator, shift=0.12, scale=(0.8, 1.08), turn=8, flip=0.3)
        kept = batch - batch // 4
        x = torch.cat([x[:kept], recolour(x[kept:], generator, 1.0)]).contiguous(memory_format=torch.channels_last)
        posterior = model.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        rebuilt = model.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return F.mse_loss(rebuilt, x) + 0.1 * F.l1_loss(rebuilt, x) + 3e-4 * kl

    vae = Stage("vae", vae, plan, work, seed).run(loss_of)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        many = torch.cat([jitter(images, generator, shift=0.06, scale=(0.88, 1.0)) for _ in range(4)])
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in many.split(64)])
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    return vae


def train_decoder(work: Path, seed: int, plan: Plan, vae: Any) -> Any:
    """Sharpen the decoder while the encoder, and so the latents that the U-Net learns, stays as it is."""
    torch.manual_seed(seed + 3)
    images = to_signed(load_images("train").images_NHWC)
    vae = vae.to(memory_format=torch.channels_last).requires_grad_(False)
    parts = nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder}).requires_grad_(True)

    def loss_of(model: Any, generator: torch.Generator, batch: int) -> Tensor:
        picked = images[torch.randint(len(images), (batch,), generator=generator)]
        x = jitter(picked, generator, shift=0.12, scale=(0.85, 1.05), flip=0.1)
        kept = batch - batch // 8
        x = torch.cat([x[:kept], recolour(x[kept:], generator, 1.0)]).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mean
            z = z + 0.03 / vae.config.scaling_factor * torch.randn(z.shape, generator=generator)
        rebuilt = model["decoder"](model["post_quant_conv"](z))
        return F.mse_loss(rebuilt, x) + 0.1 * F.l1_loss(rebuilt, x) + 0.1 * (_edges(rebuilt) - _edges(x)).abs().mean()

    parts = Stage("decoder", parts, plan, work, seed + 3).run(loss_of)
    vae.post_quant_conv, vae.decoder = parts["post_quant_conv"], parts["decoder"]
    return vae.eval()


def _edges(x_BCHW: Tensor) -> Tensor:
    """Differences between horizontal and between vertical neighbours, flat."""
    return torch.cat([x_BCHW.diff(dim=2).flatten(1), x_BCHW.diff(dim=3).flatten(1)], 1)


def export_vae(vae: Any, sd: Path) -> None:
    """VAE of the diffusers folder, float16."""
    copy.deepcopy(vae).half().save_pretrained(sd / "vae")
    forget_origin(sd / "vae")


def load_vae(sd: Path) -> Any:
    """The written VAE in float32: the U-Net trains against what ships."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(sd / "vae", torch_dtype=torch.float32, local_files_only=True).eval()
