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


# ------------------------------------------------------------------------ the other naming, written from the CompVis side


def compvis_unet(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    """State of a diffusers U-Net under the names that CompVis' Stable Diffusion code gives its layers."""
    state, layers = unet.state_dict(), int(unet.config.layers_per_block)
    levels = len(unet.config.block_out_channels)
    out: dict[str, torch.Tensor] = {}

    def move(old: str, new: str, inner: dict[str, str] | None = None) -> None:
        for name, value in state.items():
            if name.startswith(f"{old}."):
                rest = name.removeprefix(f"{old}.")
                for a, b in (inner or {}).items():
                    if rest.startswith(f"{a}."):
                        rest = b + rest.removeprefix(a)
                        break
                out[f"model.diffusion_model.{new}.{rest}"] = value

    resnet = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
        "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    }  # fmt: skip
    move("time_embedding.linear_1", "time_embed.0")
    move("time_embedding.linear_2", "time_embed.2")
    move("conv_in", "input_blocks.0.0")
    move("conv_norm_out", "out.0")
    move("conv_out", "out.2")
    for level in range(levels):
        for layer in range(layers):
            number = 1 + level * (layers + 1) + layer
            move(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{number}.0", resnet)
            move(f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{number}.1")
        move(f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{(level + 1) * (layers + 1)}.0.op")
        for layer in range(layers + 1):
            number = level * (layers + 1) + layer
            move(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{number}.0", resnet)
            move(f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{number}.1")
        place = 2 if any(name.startswith(f"up_blocks.{level}.attentions.") for name in state) else 1
        move(f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{level * (layers + 1) + layers}.{place}.conv")
    move("mid_block.resnets.0", "middle_block.0", resnet)
    move("mid_block.attentions.0", "middle_block.1")
    move("mid_block.resnets.1", "middle_block.2", resnet)
    assert len(out) == len(state)
    return out


def compvis_vae(vae: torch.nn.Module) -> dict[str, torch.Tensor]:
    """State of a diffusers AutoencoderKL under CompVis' names; its attention maps are 1 x 1 convolutions there."""
    state, levels, out = vae.state_dict(), len(vae.config.block_out_channels), {}
    pairs = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        pairs |= {
            f"{side}.conv_in": f"{side}.conv_in",
            f"{side}.conv_out": f"{side}.conv_out",
            f"{side}.conv_norm_out": f"{side}.norm_out",
        }
        pairs |= {f"{side}.mid_block.resnets.{k}": f"{side}.mid.block_{k + 1}" for k in (0, 1)}
        for old, new in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            pairs[f"{side}.mid_block.attentions.0.{old}"] = f"{side}.mid.attn_1.{new}"
    for level in range(levels):
        for layer in range(int(vae.config.layers_per_block) + 1):
            pairs[f"encoder.down_blocks.{level}.resnets.{layer}"] = f"encoder.down.{level}.block.{layer}"
            pairs[f"decoder.up_blocks.{level}.resnets.{layer}"] = f"decoder.up.{levels - 1 - level}.block.{layer}"
        pairs[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
        pairs[f"decoder.up_blocks.{level}.upsamplers.0.conv"] = f"decoder.up.{levels - 1 - level}.upsample.conv"
    for name, value in state.items():
        old = next(key for key in pairs if name.startswith(f"{key}."))
        rest = name.removeprefix(old).replace("conv_shortcut", "nin_shortcut")
        is_map = (
            any(part in pairs[old] for part in (".attn_1.q", ".attn_1.k", ".attn_1.v", ".attn_1.proj_out")) and rest == ".weight"
        )
        out[f"first_stage_model.{pairs[old]}{rest}"] = value[:, :, None, None] if is_map else value
    assert len(out) == len(state)
    return out


def tiny_pipeline(folder: Path, **details):
    """A pipeline of EEG of 6 channels and 64 samples around the tiny Stable Diffusion in `folder`."""
    from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
    from dreamdiff.diffusion.noise import make_scheduler
    from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig
    from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
    from dreamdiff.encoders.config import EncoderConfig
    from dreamdiff.encoders.encoder import EEGEncoder

    torch.manual_seed(1)
    model = load_stable_diffusion(folder)
    encoder = EEGEncoder(EncoderConfig(channels=6, window=64, width=16, depth=1, heads=2))
    conditioner = Conditioner(ConditionerConfig(tokens_in=16, width_in=16, context_width=CONTEXT_WIDTH, clip_width=5))
    conditioner.calibrate(torch.randn(8, 16, 16), 0.0, 1.0)
    scheduler = make_scheduler("dpm-solver++", model.scheduler.config)
    pipe = DreamDiffusionPipeline(model.unet, model.vae, scheduler, encoder, conditioner, PipelineConfig(**details))
    pipe.set_progress_bar_config(disable=True)
    return pipe
