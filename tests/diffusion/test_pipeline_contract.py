"""What a user of diffusers does with any pipeline, and what must never become a picture."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_pipeline import copy, dice, eeg, latents, make_pipeline, pipe, saved, sd  # noqa: F401

from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from eegprep.errors import CheckpointError, DataError, ModelError, UsageError


def pixels(pipeline, x, **more):
    return np.asarray(pipeline(x, num_inference_steps=2, output_type="np", generator=dice(*range(len(x))), **more).images)


def test_device_and_dtype_are_those_of_diffusers(saved):  # noqa: F811
    """`.to` gives the pipeline back, and `.dtype` says what it is."""
    pipeline = DreamDiffusionPipeline.from_pretrained(saved, torch_dtype=torch.bfloat16)
    assert pipeline.dtype == torch.bfloat16 and pipeline.device == torch.device("cpu")

    assert pipeline.to(torch.float64) is pipeline

    assert pipeline.dtype == torch.float64 == pipeline.encoder.dtype == pipeline.conditioner.dtype
    assert np.isfinite(pixels(pipeline, eeg(1))).all()


def test_options_of_diffusers_are_understood_or_refused(saved):  # noqa: F811
    """And parts can be given."""
    first = DreamDiffusionPipeline.from_pretrained(saved, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=True)
    assert DreamDiffusionPipeline.from_pretrained(saved, unet=first.unet).unet is first.unet
    for options, message in (({"device_map": "auto"}, "device_map"), ({"localfiles": 1}, "no option 'localfiles'")):
        with pytest.raises(UsageError, match=message):
            DreamDiffusionPipeline.from_pretrained(saved, **options)
    with pytest.raises(UsageError, match="safe_serialization=False"):
        first.save_pretrained(saved.parent / "x", safe_serialization=False)


def test_diffusers_itself_reads_the_folder(saved):  # noqa: F811
    """With guidance and image size, which are ours."""
    result = diffusers.DiffusionPipeline.from_pretrained(saved)

    assert type(result) is DreamDiffusionPipeline and result.details.guidance == 2.0 and result.details.signal.sfreq == 250.0
    ours = DreamDiffusionPipeline.from_pretrained(saved)
    torch.testing.assert_close(latents(result, eeg(1), dice(0)), latents(ours, eeg(1), dice(0)), atol=0, rtol=0)


@pytest.mark.parametrize("form", [list, np.asarray, lambda x: np.asarray(x, ">f4"), lambda x: x.bfloat16(), lambda x: x.tolist()])
def test_eeg_comes_in_any_form(pipe, form):  # noqa: F811
    """Lists of tensors, arrays of either byte order, bfloat16, nested lists."""
    x = eeg(2).round()

    torch.testing.assert_close(latents(pipe, form(x), dice(0, 1)), latents(pipe, x, dice(0, 1)), atol=0.3, rtol=0)


def test_return_dict_false_gives_a_tuple(pipe):  # noqa: F811
    """As every pipeline of diffusers does."""
    images, vectors = pipe(eeg(1), num_inference_steps=2, generator=dice(0), output_type="np", return_dict=False)

    assert images.shape == (1, 32, 32, 3) and vectors.shape == (1, 5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_eeg_that_is_not_finite_names_its_trial(pipe, value):  # noqa: F811
    """And never gives a black picture."""
    x = eeg(3)
    x[1, 0, 5] = value

    with pytest.raises(DataError, match="the EEG of trial 1 holds values that are not finite"):
        pipe(x, num_inference_steps=2)


def test_start_noise_and_weights_that_are_not_finite_are_errors(sd):  # noqa: F811
    """Before a PNG or sidecar exists."""
    broken = make_pipeline(sd)
    noise = torch.randn(1, 4, 8, 8)
    noise[0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="the latents given"):
        broken(eeg(1), num_inference_steps=2, latents=noise)
    with torch.no_grad():
        broken.unet.conv_out.bias[0] = float("nan")
    with pytest.raises(ModelError, match="the latents of image 0"):
        broken(eeg(1), num_inference_steps=2)


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "encoder/model.safetensors", "scheduler/scheduler_config.json"]
)
def test_one_flipped_bit_anywhere_in_the_folder_is_found_when_it_is_loaded(copy, name):  # noqa: F811
    """Weights and settings carry digests, compared on every load."""
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)

    with pytest.raises(CheckpointError, match=name.rpartition("/")[2]):
        DreamDiffusionPipeline.from_pretrained(copy)


def test_a_missing_tensor_is_named(copy):  # noqa: F811
    """It would stay on the meta device and end the run much later."""
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file, metadata={"format": "pt"})

    with pytest.raises(CheckpointError, match=r"1 tensors are missing, the first is conv_in\.weight"):
        DreamDiffusionPipeline.from_pretrained(copy, verify=False)
