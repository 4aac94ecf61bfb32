"""The preset of MinD-Vis: both ways into the U-Net are there, both train, and nothing reads CLIP."""

from __future__ import annotations

import torch
from tiny_models import tiny_stable_diffusion
from tiny_pairs import CHANNELS, SAMPLES, tiny_pairs

from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.finetuning import prepare as ft_prepare
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.training.task import Draw
from eegprep.settings import resolve


def test_mind_vis_conditions_cross_attention_and_time_and_both_learn(tmp_path):
    """Double conditioning: after one step the gradients of the encoder, tau, the time branch and cross-attention are there, without a CLIP."""
    tiny_stable_diffusion(tmp_path / "sd")
    tiny_pairs(tmp_path / "pairs.zarr")
    torch.manual_seed(0)
    EEGEncoder(EncoderConfig(channels=CHANNELS, window=SAMPLES, width=16, depth=1, heads=2)).save_pretrained(tmp_path / "encoder")
    config = resolve(
        FinetuneConfig, presets=FINETUNE_PRESETS, preset="mind-vis", assignments=["loop.device=cpu", "preview_trials=0"]
    )
    task = ft_prepare.prepare(
        tmp_path / "pairs.zarr", str(tmp_path / "encoder"), str(tmp_path / "sd"), None, out=tmp_path / "run", config=config
    )

    batch = task.data.batch(task.data.parts["train"][:5])
    losses = task.step(batch, Draw(0, 0, batch["index"]))
    losses["loss"].backward()

    assert set(losses) == {"loss", "sd"}
    conditioner = task.module.conditioner
    assert conditioner.time_branch is not None
    for part in (conditioner.time_branch, conditioner.channel_mapper, task.module.encoder.blocks):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters() if p.requires_grad)
    attended = [p for name, p in task.module.unet.named_parameters() if ".attn2." in name]
    assert attended and all(p.grad is not None for p in attended)
