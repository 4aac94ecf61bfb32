"""The pipeline on disk, its images, and parts that do not belong together."""

from __future__ import annotations

import json
import shutil
import socket

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONTEXT_WIDTH, tiny_stable_diffusion
from tiny_models import tiny_pipeline as make_pipeline

from dreamdiff.diffusion import noise as ld_noise
from dreamdiff.diffusion import stable_diffusion as ld
from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, SignalConfig
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from eegprep.errors import CheckpointError, ModelError, UsageError

SHAPE = (6, 64)  # channels, samples


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def pipe(sd):
    return make_pipeline(sd)


@pytest.fixture(scope="module")
def saved(sd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    make_pipeline(sd, guidance=2.0, guidance_trained=True, signal=SignalConfig(sfreq=250.0)).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def eeg(n, seed=0):
    return 10 * torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def dice(*seeds):
    return [torch.Generator().manual_seed(s) for s in seeds]


def latents(pipe, x, generators, **options):
    return pipe(x, num_inference_steps=4, generator=generators, output_type="latent", **options).images


# --- on disk


def test_saved_and_loaded_pipelines_make_the_same_image(saved, sd, monkeypatch):
    """The folder holds everything: weights, sampler, guidance, signal; loading it opens no socket."""

    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    loaded = DreamDiffusionPipeline.from_pretrained(saved, verify=True)

    first = make_pipeline(sd, guidance=2.0, guidance_trained=True)
    assert torch.equal(latents(loaded, eeg(2), dice(3, 4)), latents(first, eeg(2), dice(3, 4)))
    assert loaded.details.signal.sfreq == 250
    assert not any(p.requires_grad for p in loaded.unet.parameters())


def test_the_folder_is_laid_out_as_diffusers_does(saved):
    """U-Net and VAE of it can be opened with plain diffusers, and nothing in it is a pickle."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    index = json.loads((saved / "model_index.json").read_text())

    assert index["_class_name"] == "DreamDiffusionPipeline"
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert UNet2DConditionModel.from_pretrained(saved / "unet").config.cross_attention_dim == CONTEXT_WIDTH
    assert AutoencoderKL.from_pretrained(saved / "vae").config.latent_channels == 4
    assert {file.suffix for file in saved.rglob("*") if file.is_file()} == {".json", ".safetensors"}


def test_a_run_folder_stands_for_its_pipeline(saved, tmp_path):
    """`from_pretrained("RUN")` is what the contract promises."""
    shutil.copytree(saved, tmp_path / "run" / "pipeline")

    assert DreamDiffusionPipeline.from_pretrained(tmp_path / "run").fingerprint


def test_an_unfinished_run_says_so(tmp_path):
    """The cure is to run again, not to look for another folder."""
    (tmp_path / "run.json").write_text("{}")

    with pytest.raises(ModelError, match="has not finished"):
        DreamDiffusionPipeline.from_pretrained(tmp_path)


def test_a_plain_stable_diffusion_folder_is_not_a_pipeline_of_ours(sd):
    """It lacks encoder and conditioner; the message names them."""
    with pytest.raises(ModelError, match="it lacks encoder, conditioner"):
        DreamDiffusionPipeline.from_pretrained(sd)


def test_an_empty_folder_is_not_a_pipeline(tmp_path):
    """Nothing in it at all."""
    with pytest.raises(ModelError, match=r"no model_index.json"):
        DreamDiffusionPipeline.from_pretrained(tmp_path)


def test_saving_over_something_else_is_refused(pipe, tmp_path):
    """A slip of --out must not remove a folder of data."""
    (tmp_path / "data.edf").write_text("precious")

    with pytest.raises(CheckpointError, match="is not a pipeline folder"):
        pipe.save_pretrained(tmp_path)
    assert (tmp_path / "data.edf").exists()


def test_a_corrupt_weight_file_is_named(copy):
    """One line, with the folder."""
    (copy / "conditioner" / "model.safetensors").write_bytes(b"x" * 100)

    with pytest.raises(CheckpointError, match=r"conditioner.model.safetensors: SHA-256 is"):
        DreamDiffusionPipeline.from_pretrained(copy)


def test_a_changed_weight_file_is_found_by_verify(copy):
    """A readable file with other numbers in it: only the SHA-256 shows it."""
    file = copy / "encoder" / "model.safetensors"
    tensors = load_file(file)
    save_file({name: value + 1 if name == "cls_token" else value for name, value in tensors.items()}, file)

    with pytest.raises(CheckpointError, match=r"model.safetensors: SHA-256 is .* it was"):
        DreamDiffusionPipeline.from_pretrained(copy, verify=True)


def test_damaged_json_is_named(copy):
    """Cut off by a full disk."""
    (copy / "dreamdiff.json").write_text('{"pipeline"')

    with pytest.raises(CheckpointError, match=r"dreamdiff.json: missing or not JSON"):
        DreamDiffusionPipeline.from_pretrained(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens_in": 15}, "tokens of the EEG encoder and of the conditioner differ: 16 and 15"),
        ({"width_in": 12}, "width of the EEG encoder and of the conditioner differ: 16 and 12"),
        ({"context_width": 32}, "context width of the conditioner and of the U-Net differ: 32 and 24"),
        ({"time_width": 60}, "time width of the conditioner and of the U-Net differ: 60 and 64"),
        ({"time_width": 64}, "time branch of width 64, but class_embed_type None in the U-Net"),
    ],
)
def test_parts_of_two_runs_are_refused(sd, changes, message):
    """Both numbers, before any time is spent."""
    model = ld.load_stable_diffusion(sd)
    encoder = EEGEncoder(EncoderConfig(channels=6, window=64, width=16, depth=1, heads=2))
    expected = {"tokens_in": 16, "width_in": 16, "context_width": CONTEXT_WIDTH, "clip_width": 5, **changes}

    with pytest.raises(ModelError, match=message):
        DreamDiffusionPipeline(model.unet, model.vae, model.scheduler, encoder, Conditioner(ConditionerConfig(**expected)))


# --- images


def test_an_image_does_not_depend_on_its_neighbours_or_its_place(pipe):
    """One generator per image: the same trial and seed give the same latents alone, in a batch, and in another order."""
    x = eeg(4)
    together = latents(pipe, x, dice(0, 1, 2, 3))
    turned = latents(pipe, x.flip(0), dice(3, 2, 1, 0)).flip(0)
    alone = torch.cat([latents(pipe, x[k : k + 1], dice(k)) for k in range(4)])

    torch.testing.assert_close(turned, together, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


def test_a_random_sampler_draws_per_image_too(sd):
    """Ancestral samplers draw noise at every step; it must come from the image's own generator."""
    pipe = make_pipeline(sd)
    pipe.scheduler = ld_noise.make_scheduler("euler-a", pipe.scheduler.config)
    x = eeg(3)

    together = latents(pipe, x, dice(0, 1, 2))

    torch.testing.assert_close(latents(pipe, x[2:], dice(2)), together[2:], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(latents(pipe, x[2:], dice(9)), together[2:], atol=1e-2)


def test_another_eeg_gives_another_image_from_the_same_noise(pipe):
    """Otherwise the conditioning would not reach the U-Net."""
    x = eeg(2)

    made = latents(pipe, x, dice(5, 5))

    assert (made[0] - made[1]).abs().max() > 1e-3


def test_several_images_per_trial_keep_their_order(pipe):
    """Image k belongs to trial k // n."""
    x = eeg(2)

    made = latents(pipe, x, dice(0, 1, 2, 3), num_images_per_trial=2)

    torch.testing.assert_close(made[2:3], latents(pipe, x[1:], dice(2)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(ld_noise.SCHEDULERS))
def test_every_named_sampler_runs(sd, name):
    """Images of finite values with whatever scheduler a person likes."""
    pipe = make_pipeline(sd)
    pipe.scheduler = ld_noise.make_scheduler(name, pipe.scheduler.config)

    assert torch.isfinite(latents(pipe, eeg(1), dice(0))).all()


def test_guidance_follows_its_formula(sd):
    """eps = eps(no EEG) + s (eps(EEG) - eps(no EEG)): with one Euler step the latents are linear in s."""
    pipe = make_pipeline(sd, guidance_trained=True)
    pipe.scheduler = ld_noise.make_scheduler("euler", pipe.scheduler.config)

    def at(scale):
        return pipe(eeg(1), num_inference_steps=1, guidance_scale=scale, generator=dice(0), output_type="latent").images

    torch.testing.assert_close(at(3.0), at(0.0) + 3 * (at(1.0) - at(0.0)), atol=1e-3, rtol=1e-3)
    assert (at(1.0) - at(0.0)).abs().max() > 1e-3


def test_guidance_that_was_not_trained_is_refused(pipe):
    """A scale needs a model that knows what no EEG means."""
    with pytest.raises(UsageError, match="guidance 3 needs a model that was trained without EEG"):
        pipe(eeg(1), guidance_scale=3.0)


def test_the_number_of_generators_must_fit(pipe):
    """Too few would reuse noise silently."""
    with pytest.raises(UsageError, match="1 generators for 2 images"):
        pipe(eeg(2), generator=dice(0))


def test_eeg_of_another_shape_is_refused(pipe):
    """The wrong channel count for a checkpoint, with both numbers."""
    with pytest.raises(ModelError, match=r"\(1, 5, 64\) does not fit a model for \(batch, 6, 64\)"):
        pipe(torch.randn(1, 5, 64))


def test_a_callback_sees_and_may_change_every_step(pipe):
    """As in other diffusers pipelines: previews, early stopping, guidance of one's own."""
    seen = []

    def watch(pipeline, number, step, values):
        seen.append(number)
        return {"latents": torch.zeros_like(values["latents"])}

    made = pipe(eeg(1), num_inference_steps=3, generator=dice(0), output_type="latent", callback_on_step_end=watch).images

    assert seen == [0, 1, 2]
    assert not made.any()


def test_images_come_as_asked_for(pipe):
    """PIL by default; arrays in 0..1."""
    assert pipe(eeg(1), num_inference_steps=1, generator=dice(0)).images[0].size == (32, 32)
    array = pipe(eeg(1), num_inference_steps=1, generator=dice(0), output_type="np").images
    assert array.shape == (1, 32, 32, 3)
    assert 0 <= np.min(array) <= np.max(array) <= 1
