"""The authors' fine-tuned checkpoint, made here at tiny size in their layout and their names, becomes a pipeline."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from tiny_models import CONTEXT_WIDTH, compvis_unet, compvis_vae, tiny_stable_diffusion
from torch import nn

from dreamdiff.diffusion import noise as ld_noise
from dreamdiff.diffusion import stable_diffusion as ld
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.programs.convert_finetuned import convert_finetuned
from eegprep.errors import CheckpointError, ModelError

TOKENS, WIDTH, CHANNELS, PATCH, HEADS, DEPTH = 16, 32, 6, 4, 2, 3


class AuthorsEncoder(nn.Module):
    """timm blocks around a Conv1d patch embedding, as `eeg_encoder` is built; no CLS token in its forward pass."""

    def __init__(self):
        super().__init__()
        from timm.models.vision_transformer import Block

        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, TOKENS + 1, WIDTH))  # random: it is trained in their second stage
        self.mask_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv1d(CHANNELS, WIDTH, PATCH, PATCH)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS, 1.0, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x):
        x = self.patch_embed.proj(x).transpose(1, 2) + self.pos_embed[:, 1:]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class AuthorsStage(nn.Module):
    """`cond_stage_model`: encoder, tau, CLIP head; names as in their state."""

    def __init__(self):
        super().__init__()
        self.mae = AuthorsEncoder()
        self.channel_mapper = nn.Sequential(nn.Conv1d(TOKENS, TOKENS // 2, 1), nn.Conv1d(TOKENS // 2, 77, 1))
        self.dim_mapper = nn.Linear(WIDTH, CONTEXT_WIDTH)
        self.mapping = nn.Module()
        self.mapping.maxpool = nn.Conv1d(TOKENS, 1, 1)
        self.mapping.fc = nn.Linear(WIDTH, 12)


@pytest.fixture(scope="module")
def authors(tmp_path_factory):
    """(checkpoint file, configuration folder, modules) with a pickled configuration object of a module that is then gone."""
    folder = tmp_path_factory.mktemp("authors")
    sd = tiny_stable_diffusion(folder / "sd")
    model = ld.load_stable_diffusion(sd)
    torch.manual_seed(5)
    stage = AuthorsStage()
    time = nn.Sequential(nn.Conv1d(77, 38, 1), nn.Conv1d(38, 1, 1), nn.Linear(CONTEXT_WIDTH, 64))
    state = compvis_unet(model.unet) | compvis_vae(model.vae)
    state |= {f"model.diffusion_model.time_embed_condtion.{name}": value for name, value in time.state_dict().items()}
    state |= {f"cond_stage_model.{name}": value for name, value in stage.state_dict().items()}
    state |= {"image_embedder.transformer.visual_projection.weight": torch.zeros(3, 3)}
    state |= {"alphas_cumprod": model.scheduler.alphas_cumprod, "betas": model.scheduler.betas, "logvar": torch.zeros(1000)}
    module = types.ModuleType("config")
    module.Config_Generative_Model = type("Config_Generative_Model", (), {"__module__": "config"})
    settings = module.Config_Generative_Model()
    settings.num_heads, settings.seed = HEADS, 2022
    sys.modules["config"] = module
    try:
        torch.save(
            {"model_state_dict": state, "config": settings, "state": torch.zeros(16, dtype=torch.uint8)},
            folder / "checkpoint.pth",
        )
    finally:
        del sys.modules["config"]
    return folder / "checkpoint.pth", sd, (model, stage.eval(), time)


@pytest.fixture(scope="module")
def converted(authors, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "pipeline"
    report = convert_finetuned(authors[0], out, config=authors[1])
    return report, DreamDiffusionPipeline.from_pretrained(out)


def test_every_step_of_the_conditioning_is_theirs(authors, converted):
    """Encoder (with the position table as trained), tau, h and time branch, against their own modules."""
    _, (_, stage, time) = authors[0], authors[2]
    eeg = torch.randn(2, CHANNELS, TOKENS * PATCH)

    context = converted[1].encode(eeg)

    with torch.no_grad():
        latent = stage.mae(eeg)
        tokens = stage.dim_mapper(stage.channel_mapper(latent))
        torch.testing.assert_close(context.tokens_BLD, tokens, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(context.clip_BD, stage.mapping.fc(stage.mapping.maxpool(latent)[:, 0]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(context.time_BD, time(tokens)[:, 0], atol=1e-5, rtol=1e-5)


def test_unet_and_vae_answer_as_before(authors, converted):
    """The time vector is added to the time embedding, where their U-Net adds it; a zero vector gives the plain U-Net."""
    model, pipe = authors[2][0], converted[1]
    x, context = torch.randn(1, 4, 8, 8), torch.randn(1, 77, CONTEXT_WIDTH)

    with torch.no_grad():
        result = pipe.unet(x, 7, context, class_labels=torch.zeros(1, 64)).sample
        torch.testing.assert_close(result, model.unet(x, 7, context).sample)
        torch.testing.assert_close(pipe.vae.decode(x).sample, model.vae.decode(x).sample)


def test_the_converted_pipeline_makes_images(converted):
    """The whole way, without guidance, as the authors sample."""
    pipe = converted[1]
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = ld_noise.make_scheduler("pndm", pipe.scheduler.config)

    image = pipe(
        torch.randn(1, CHANNELS, TOKENS * PATCH), num_inference_steps=4, generator=torch.Generator().manual_seed(0)
    ).images[0]

    assert image.size == (32, 32)


def test_the_report_says_what_was_left_out_and_what_had_moved(converted):
    """A position table that is no longer a sine table is a known side effect of their optimiser."""
    report = converted[0]

    assert report.left_out == 2  # the image tower, the mask token
    assert any("position table kept as stored" in line for line in report.remarks)
    assert converted[1].encoder.config.scaling == "none"


def test_a_pretraining_checkpoint_is_refused(authors, tmp_path):
    """Their first stage has no cond_stage_model."""
    file = tmp_path / "checkpoint.pth"
    torch.save({"model": {"blocks.0.norm1.weight": torch.zeros(2)}}, file)

    with pytest.raises(CheckpointError, match="not the authors' fine-tuned checkpoint"):
        convert_finetuned(file, tmp_path / "out")


def altered(authors, tmp_path, change):
    from dreamdiff.untrusted import checkpoints as safe_pickle

    state = dict(safe_pickle.load(authors[0])["model_state_dict"])
    change(state)
    torch.save({"model_state_dict": state}, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


def test_a_missing_part_of_tau_is_named(authors, tmp_path):
    """Nothing may stay at random values."""
    file = altered(authors, tmp_path, lambda s: s.pop("cond_stage_model.dim_mapper.weight"))

    with pytest.raises(CheckpointError, match=r"cond_stage_model.dim_mapper.weight is missing"):
        convert_finetuned(file, tmp_path / "out", config=authors[1])


def test_a_missing_encoder_block_is_named(authors, tmp_path):
    """One LayerNorm lost, as with their `global_pool` loading."""
    file = altered(authors, tmp_path, lambda s: s.pop("cond_stage_model.mae.blocks.1.norm1.weight"))

    with pytest.raises(CheckpointError, match=r"EEG encoder: 1 missing: blocks.1.norm1.weight"):
        convert_finetuned(file, tmp_path / "out", config=authors[1])


def test_an_encoder_without_a_position_table_is_named(authors, tmp_path):
    """The shape is read off it."""
    file = altered(authors, tmp_path, lambda s: s.pop("cond_stage_model.mae.pos_embed"))

    with pytest.raises(CheckpointError, match="its EEG encoder is incomplete"):
        convert_finetuned(file, tmp_path / "out", config=authors[1])


def test_another_noise_schedule_is_refused(authors, tmp_path):
    """Sampling over other betas than were trained gives grey images and no error."""
    file = altered(authors, tmp_path, lambda s: s.update(alphas_cumprod=torch.linspace(1, 0.1, 1000)))

    with pytest.raises(ModelError, match=r"its noise schedule ends at 0\.1"):
        convert_finetuned(file, tmp_path / "out", config=authors[1])
