"""What `benchmarks/gpu.py` measures, with random weights: networks, batches and losses of every stage, full size or small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dreamdiff.alignment.config import AlignConfig
from dreamdiff.alignment.model import AlignedConfig, AlignedEncoder
from dreamdiff.alignment.task import AlignTask
from dreamdiff.diffusion.conditioner import Conditioner
from dreamdiff.diffusion.noise import NoiseSchedule, make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.frontend import FrontEndConfig
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.step import Shapes, blank_batch, blank_parts, conditioner_config, losses_of
from dreamdiff.generation.sizes import sd15
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.training.task import Draw
from eegprep.corpus.export import from_arrays
from eegprep.settings import resolve
from gpu_bench.bench import Bench

SMALL_UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
}

SMALL_VAE = {
    "block_out_channels": (8, 8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
}


def msm_config(bench: Bench, *more: str) -> PretrainConfig:
    preset = "tiny" if bench.tiny else "paper"
    always = [
        "loop.tracker=none",
        f"loop.device={bench.device}",
        f"data.batch_size={8 if bench.tiny else 128}",
        "data.validation=none",
    ]
    return resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset=preset, assignments=[*always, *more])


def corpus(bench: Bench) -> Path:
    path = bench.work / "corpus.zarr"
    if not path.exists():
        windows = np.random.default_rng(0).normal(0, 10, (96 if bench.tiny else 6000, 128, 512)).astype(np.float32)
        from_arrays(path, windows, sfreq=512.0, licence="CC0-1.0")
    return path


def msm_parts(bench: Bench) -> tuple[MaskedSignalModel, Tensor, Tensor]:
    config = msm_config(bench)
    with bench.device:
        model = MaskedSignalModel(config.model).train()
        eeg = torch.randn(config.data.batch_size, 128, 512)
    noise = Draw(0, 0, torch.arange(len(eeg)), bench.device).uniform("mask", model.config.encoder.tokens)
    return model, eeg, noise


def finetune_config(bench: Bench, *more: str) -> FinetuneConfig:
    size = 4 if bench.tiny else 8
    return resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset="paper", assignments=[f"data.batch_size={size}", *more])


def unet_of(config: dict[str, Any]) -> Callable[[], nn.Module]:
    from diffusers import UNet2DConditionModel

    return lambda: UNet2DConditionModel.from_config(config)


def sd_config(bench: Bench, part: str) -> dict[str, Any]:
    small = SMALL_UNET if part == "unet" else SMALL_VAE
    return small if bench.tiny else sd15(part)


def shapes(bench: Bench) -> Shapes:
    config = sd_config(bench, "unet")
    return Shapes(
        lambda: EEGEncoder.from_preset("tiny" if bench.tiny else "paper"),
        unet_of(config),
        (128, 512),
        int(config["sample_size"]),
        20 if bench.tiny else 768,
    )


def finetune_loss(bench: Bench, precision: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    config = finetune_config(bench, "losses.guidance_dropout=0.1")
    with bench.device:
        trained = blank_parts(config, shapes(bench), precision)
        batch, random = blank_batch(config, shapes(bench), config.data.batch_size)
        schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 1000), "epsilon")
    return trained, lambda: losses_of(trained, config, schedule, 0.18215, batch, random)["loss"]


def align_loss(bench: Bench) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Shapes of THINGS-EEG2: 63 channels, one second at 250 Hz, batches of 1,024, vectors of ViT-H/14."""
    channels, batch, width = (8, 16, 32) if bench.tiny else (63, 1024, 1024)
    front = FrontEndConfig(channels=channels, samples=250, sfreq=250.0, rate=250.0, window=250)
    shape = {
        "front": front.model_dump(),
        "encoder": {"kind": "conv", "channels": channels, "window": 250},
        "people": tuple("abcdefghij"),
    }
    target = {"name": "t", "fingerprint": "f", "width": width}
    with bench.device:
        model = AlignedEncoder(AlignedConfig.model_validate({**shape, "targets": [target]})).train()
        given = {
            "eeg": torch.randn(batch, channels, 250),
            "person": torch.arange(batch) % 10,
            "image": torch.arange(batch),
            "index": torch.arange(batch),
            "target0": torch.randn(batch, width),
        }
    task = AlignTask.__new__(AlignTask)
    task.config, task.model = AlignConfig(shift=4), model
    return model, lambda: task.step(given, Draw(0, 0, given["index"], bench.device))["loss"]


def pipeline(bench: Bench, device: torch.device, dtype: torch.dtype) -> DreamDiffusionPipeline:
    from diffusers import AutoencoderKL

    base = {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
    }
    torch.manual_seed(0)
    with bench.device:
        unet, brain = shapes(bench).unet(), EEGEncoder.from_preset("tiny")
        vae = AutoencoderKL.from_config(sd_config(bench, "vae"))
        conditioner = Conditioner(conditioner_config(finetune_config(bench), brain, unet, clip_width=8))
    parts = [part.to(device).eval().requires_grad_(False) for part in (unet, vae, brain, conditioner)]
    for part in parts[:2]:
        part.to(dtype)
    pipe = DreamDiffusionPipeline(parts[0], parts[1], make_scheduler("dpm-solver++", base), parts[2], parts[3], PipelineConfig())
    pipe.set_progress_bar_config(disable=True)
    return pipe
