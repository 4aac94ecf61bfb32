"""The embedded model's U-Net: velocity prediction on latents of drawings, given CLIP's text states.

Shapes: B batch, L text tokens (77), D text width; latents (B, 4, 16, 16).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamdiff.embedded import captions, categories, load_images
from eegprep.atomic import write_json
from tools.embedded_model.clip import text_states
from tools.embedded_model.folders import forget_origin
from tools.embedded_model.pictures import jitter, to_signed
from tools.embedded_model.stages import Plan, Stage

LATENT = 16

UNET_CONFIG: dict[str, Any] = {
    "sample_size": LATENT, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 16,
    "block_out_channels": (48, 96, 160), "cross_attention_dim": 96, "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip

SCHEDULER_CONFIG: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    "timestep_spacing": "leading",
}  # fmt: skip


def alphas_cumprod() -> Tensor:
    """Cumulative signal share of the noise schedule: square roots of beta rise linearly (Stable Diffusion)."""
    steps = int(SCHEDULER_CONFIG["num_train_timesteps"])
    betas = torch.linspace(SCHEDULER_CONFIG["beta_start"] ** 0.5, SCHEDULER_CONFIG["beta_end"] ** 0.5, steps) ** 2
    return torch.cumprod(1 - betas, 0)


def mix(clean_BCHW: Tensor, noise_BCHW: Tensor, share_B: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latents and the velocity to predict (Salimans and Ho 2022, appendix D), for a signal share per row."""
    signal, sigma = share_B.sqrt().view(-1, 1, 1, 1), (1 - share_B).sqrt().view(-1, 1, 1, 1)
    return signal * clean_BCHW + sigma * noise_BCHW, signal * noise_BCHW - sigma * clean_BCHW


def train_unet(work: Path, seed: int, plan: Plan, vae: Any, clip: Any, views: int = 24) -> Any:
    """Velocity prediction on precomputed latents of moved drawings; one caption in ten is empty (classifier-free guidance)."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed + 2)
    drawings = load_images("train")
    kept = [i for i, record in enumerate(drawings.records) if record["role"] == "generator"]
    images, labels = to_signed(drawings.images_NHWC[kept]), torch.from_numpy(drawings.labels_N[kept])
    generator = torch.Generator().manual_seed(seed + 2)
    with torch.no_grad():
        moved = [jitter(images, generator, shift=0.05, scale=(0.9, 1.0)) for _ in range(views)]
        latents = torch.cat([vae.encode(x).latent_dist.mean * vae.config.scaling_factor for x in moved])
    labels = labels.repeat(views)
    texts = [text_states(clip, captions(name)) for name in categories()]
    contexts, empty = torch.stack(texts), text_states(clip, [""])
    share = alphas_cumprod()
    fresh: Any = UNet2DConditionModel(**UNET_CONFIG)
    unet = fresh.to(memory_format=torch.channels_last)

    def loss_of(model: Any, generator: torch.Generator, batch: int) -> Tensor:
        picked = torch.randint(len(latents), (batch,), generator=generator)
        clean = latents[picked]
        noise = torch.randn(clean.shape, generator=generator)
        # one time in each of `batch` equal slices: less noise in the gradient
        time_B = ((torch.arange(batch) + torch.rand(batch, generator=generator)) * len(share) / batch).long()
        context = contexts[labels[picked], torch.randint(contexts.shape[1], (batch,), generator=generator)]
        dropped = torch.rand(batch, 1, 1, generator=generator) < 0.1
        context = torch.where(dropped, empty, context)
        noisy, velocity = mix(clean, noise, share[time_B])
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return F.mse_loss(model(noisy, time_B, context).sample, velocity)

    return Stage("unet", unet, plan, work, seed + 2).run(loss_of)


def export_unet(unet: Any, sd: Path) -> None:
    """U-Net, scheduler and index of the diffusers folder, float16."""
    from diffusers import DDIMScheduler

    copy.deepcopy(unet).to(memory_format=torch.contiguous_format).half().save_pretrained(sd / "unet")
    forget_origin(sd / "unet")
    scheduler: Any = DDIMScheduler(**SCHEDULER_CONFIG)
    scheduler.save_pretrained(sd / "scheduler")
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    empty = {name: [None, None] for name in ("text_encoder", "tokenizer", "safety_checker", "feature_extractor")}
    write_json(
        sd / "model_index.json", {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **parts, **empty}
    )
