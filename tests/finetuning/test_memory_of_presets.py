"""The memory that `--dry-run` states for the presets of one card, against what a step of a small model of the same layout takes.

Measured: weights, gradients and AdamW's moments by their sizes, everything else as PyTorch's profiler records allocations on the CPU
during the second forward and backward pass.
"""

from __future__ import annotations

import pytest
import torch
from tiny_models import CLIP_WIDTH

from dreamdiff.diffusion.noise import NoiseSchedule
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.step import Shapes, blank_batch, blank_parts, finetune_memory, losses_of
from dreamdiff.generation.sizes import sd15
from dreamdiff.memory import allocated_peak
from eegprep.settings import resolve

TOLERANCE = 0.1


def unet() -> torch.nn.Module:
    """Stable Diffusion 1.5's layout, a tenth as wide, one layer a block."""
    from diffusers import UNet2DConditionModel

    narrow = {
        "block_out_channels": (32, 64, 128, 128),
        "layers_per_block": 1,
        "cross_attention_dim": 64,
        "attention_head_dim": 4,
        "sample_size": 16,
    }
    return UNet2DConditionModel.from_config({**sd15("unet"), **narrow})


def encoder() -> EEGEncoder:
    return EEGEncoder(EncoderConfig(channels=16, window=128, width=64, depth=4, heads=4))


SHAPES = Shapes(encoder, unet, (16, 128), 16, CLIP_WIDTH)


@pytest.mark.parametrize("preset", ["paper", "24gb", "12gb"])
def test_the_estimate_of_a_preset_is_what_its_step_takes(preset) -> None:
    config = resolve(
        FinetuneConfig, presets=FINETUNE_PRESETS, preset=preset, assignments=["data.batch_size=8", "optim.eight_bit=false"]
    )
    estimate = finetune_memory(config, SHAPES, "fp32", device="cpu")
    trained = blank_parts(config, SHAPES, "fp32")
    batch, random = blank_batch(config, SHAPES, 8)
    schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 1000), "epsilon")

    def step() -> None:
        losses_of(trained, config, schedule, 0.18, batch, random)["loss"].backward()

    step()
    weights = sum(p.numel() * p.element_size() for p in trained.parameters())
    moments = sum(p.numel() * 8 for p in trained.parameters() if p.requires_grad)
    # the first pass has made the gradients, which the record of the second does not hold
    gradients = sum(p.numel() * 4 for p in trained.parameters() if p.requires_grad)
    taken = weights + moments + gradients + allocated_peak(step)
    assert (estimate.weights, estimate.trained) == (weights, moments + gradients)
    assert estimate.total == pytest.approx(taken, rel=TOLERANCE)
