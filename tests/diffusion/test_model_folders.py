"""Base models as people download them: read, or named for what they are."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny_models import tiny_stable_diffusion

from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from eegprep.errors import CheckpointError, ModelError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def sd(tmp_path):
    return tiny_stable_diffusion(tmp_path / "sd")


def index(folder, **more):
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("StableDiffusionXLPipeline", "an SDXL model"), ("StableDiffusionInpaintPipeline", "an inpainting model"),
        ("StableDiffusionInstructPix2PixPipeline", "InstructPix2Pix"), ("FluxPipeline", "a Flux model"),
    ],
)  # fmt: skip
def test_other_models_are_refused_by_name(sd, name, message):
    """Not by a count of channels, after minutes."""
    index(sd, _class_name=name)

    with pytest.raises(ModelError, match=message):
        load_stable_diffusion(sd)


def test_an_sdxl_unet_is_known_by_its_configuration(sd):
    """Where model_index.json says nothing."""
    file = sd / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "addition_embed_type": "text_time"}))

    with pytest.raises(ModelError, match="an SDXL model"):
        load_stable_diffusion(sd)


def test_half_precision_and_pickled_weights_are_read_and_said(sd):
    """What some repositories hold alone."""
    for part, ending in (("unet", "fp16.safetensors"), ("vae", "bin")):
        tensors = {n: t.half() for n, t in load_file(sd / part / WEIGHTS).items()}
        (sd / part / WEIGHTS).unlink()
        target = sd / part / f"diffusion_pytorch_model.{ending}"
        save_file(tensors, target, metadata={"format": "pt"}) if part == "unet" else torch.save(tensors, target)

    model = load_stable_diffusion(sd)

    assert model.unet.dtype == model.vae.dtype == torch.float32
    text = "\n".join(model.remarks)
    assert "only the fp16 variant" in text and "pickled weights" in text


def test_sharded_weights_are_read_and_what_macos_leaves_is_passed_over(sd, tmp_path):
    """`._name` files would change the fingerprint, so that a copied run could not go on."""
    before = load_stable_diffusion(sd).fingerprint
    (sd / "unet" / f"._{WEIGHTS}").write_bytes(b"\0\5\x16\7 resource fork")
    assert load_stable_diffusion(sd).fingerprint == before
    UNet2DConditionModel.from_pretrained(sd / "unet").save_pretrained(tmp_path / "s", max_shard_size="60KB")
    (sd / "unet" / WEIGHTS).unlink()
    for file in (tmp_path / "s").iterdir():
        file.rename(sd / "unet" / file.name)

    assert load_stable_diffusion(sd).unet.config.in_channels == 4


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_missing_and_not_finite_tensors_are_named(sd, part):
    """Before anything is cached."""
    file = sd / part / WEIGHTS
    tensors = load_file(file)
    name = sorted(n for n in tensors if n.endswith("weight"))[3]
    save_file({n: t for n, t in tensors.items() if n != name}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"1 tensors are missing, the first is {name}"):
        load_stable_diffusion(sd)
    tensors[name][0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{name} holds values that are not finite"):
        load_stable_diffusion(sd)


def test_an_lfs_pointer_in_the_folder_is_called_that(sd):
    """Instead of "header too large"."""
    (sd / "unet" / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438167534\n")

    with pytest.raises(CheckpointError, match=r"a Git LFS pointer of a file of 3\.4 GB"):
        load_stable_diffusion(sd)
