"""Genuine diffusers and open_clip models of tiny size, written to disk in the layouts that the real ones have."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

LATENT_SIZE = 8  # latent pixels; the image is 4 times as large
CONTEXT_WIDTH = 24
CLIP_WIDTH = 20


def tiny_unet_config(context_width: int = CONTEXT_WIDTH) -> dict:
    """Two levels of Stable Diffusion's U-Net: cross-attention above, none below, heads counted as in SD 1.x."""
    return {
        "sample_size": LATENT_SIZE,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": context_width,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def tiny_vae_config() -> dict:
    """Three levels: an image of 32 pixels becomes a latent of 8."""
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "sample_size": 4 * LATENT_SIZE,
        "layers_per_block": 1,
        "block_out_channels": [8, 8, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "norm_num_groups": 4,
        "scaling_factor": 0.18215,
    }


def tiny_stable_diffusion(folder: Path, seed: int = 0, context_width: int = CONTEXT_WIDTH) -> Path:
    """Write a diffusers folder (model_index.json, unet, vae, scheduler) with random weights; return it."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        UNet2DConditionModel(**tiny_unet_config(context_width)).save_pretrained(folder / "unet")
        AutoencoderKL(**tiny_vae_config()).save_pretrained(folder / "vae")
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def tiny_clip_config() -> dict:
    """An open_clip configuration with a vision transformer of two layers at 32 pixels."""
    return {
        "embed_dim": CLIP_WIDTH,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }


def tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write open_clip_config.json and open_clip_model.safetensors with random weights; return the folder."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_clip_config()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.48, 0.45, 0.40], "std": [0.26, 0.26, 0.27], "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return folder
