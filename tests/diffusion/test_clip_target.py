"""The frozen image tower: offline, and never with the wrong preprocessing or activation."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import CLIP_WIDTH, tiny_clip, tiny_clip_config

from dreamdiff.diffusion.clip import load_clip
from eegprep.errors import CheckpointError, ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 48, 40, 3), dtype=np.uint8)


@pytest.fixture
def architecture(monkeypatch):
    """The tiny configuration under two names that open_clip knows."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", tiny_clip_config())
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-quickgelu", {**tiny_clip_config(), "quick_gelu": True})


def edit(folder, target, **changes):
    """A copy of the folder with another model_cfg."""
    shutil.copytree(folder, target)
    content = json.loads((target / "open_clip_config.json").read_text())
    content["model_cfg"] = {**content["model_cfg"], **changes}
    (target / "open_clip_config.json").write_text(json.dumps(content))
    return target


def test_vectors_are_open_clips_own(folder, images):
    """A second path through the same library: create_model_and_transforms on the folder, one image at a time."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.no_grad():
        expected = torch.cat([model.eval().encode_image(preprocess(Image.fromarray(image))[None]) for image in images])

    result = load_clip(str(folder)).encode_images(images, batch=2)

    torch.testing.assert_close(result, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5, rtol=1e-5)
    assert result.shape == (5, CLIP_WIDTH)


def test_a_local_model_loads_without_opening_a_socket(folder, monkeypatch):
    """A laboratory machine without network."""

    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert load_clip(str(folder)).width == CLIP_WIDTH


def test_the_tower_is_frozen_in_full(folder):
    """The authors' substring match trains 24 LayerNorms of CLIP; the target must not move towards the EEG."""
    target = load_clip(str(folder))

    assert not any(p.requires_grad for p in target.model.parameters())
    assert not target.model.training


def test_a_file_beside_its_configuration_takes_its_preprocessing(folder, architecture, images):
    """open_clip falls back to default means for a bare file; the folder states others, and vectors would differ silently."""
    by_folder = load_clip(str(folder))
    by_name = load_clip(f"Tiny:{folder / 'open_clip_model.safetensors'}")

    assert by_name.checked
    assert by_name.preprocess == by_folder.preprocess
    assert torch.equal(by_name.encode_images(images), by_folder.encode_images(images))
    assert by_name.fingerprint == by_folder.fingerprint


def test_a_bare_file_says_that_its_preprocessing_is_assumed(folder, architecture, tmp_path):
    """Nothing states it, so the person is told what was taken."""
    bare = tmp_path / "weights.safetensors"
    shutil.copy(folder / "open_clip_model.safetensors", bare)

    target = load_clip(f"Tiny:{bare}")

    assert not target.checked
    assert any("assumed, nothing states it" in line and "mean" in line for line in target.remarks)
    assert target.fingerprint != load_clip(str(folder)).fingerprint  # other means, other vectors, other cache


def test_quick_gelu_that_does_not_belong_is_refused(folder, architecture, tmp_path):
    """OpenAI's weights were trained with another GELU; the wrong one shifts every vector and raises no error in open_clip."""
    quick = edit(folder, tmp_path / "quick", quick_gelu=True)

    with pytest.raises(ModelError, match=r"trained with quick_gelu = True.*Tiny has False"):
        load_clip(f"Tiny:{quick / 'open_clip_model.safetensors'}")
    assert load_clip(f"Tiny-quickgelu:{quick / 'open_clip_model.safetensors'}").checked


def test_one_file_under_two_names_is_two_models(folder, architecture, tmp_path):
    """The same tensors fit both activations: the vectors are kept apart, and each name says what it took for granted."""
    bare = tmp_path / "weights.safetensors"
    shutil.copy(folder / "open_clip_model.safetensors", bare)
    plain, quick = (load_clip(f"{name}:{bare}") for name in ("Tiny", "Tiny-quickgelu"))

    assert plain.fingerprint != quick.fingerprint
    assert any("activation (GELU) is assumed from the name Tiny;" in line for line in plain.remarks)
    assert any("activation (QuickGELU) is assumed from the name Tiny-quickgelu" in line for line in quick.remarks)


def test_a_file_that_open_clip_knows_is_refused_under_the_wrong_name(folder, architecture, tmp_path, monkeypatch):
    """OpenAI publishes its weights under their SHA-256."""
    bare = tmp_path / "weights.safetensors"
    shutil.copy(folder / "open_clip_model.safetensors", bare)
    url = f"https://example.org/{hashlib.sha256(bare.read_bytes()).hexdigest()}/Tiny.pt"
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny", {"openai": {"url": url, "quick_gelu": True}})

    with pytest.raises(ModelError, match=r"open_clip's 'openai' of Tiny, trained with quick_gelu = True"):
        load_clip(f"Tiny:{bare}")
    assert load_clip(f"Tiny-quickgelu:{bare}").fingerprint


def test_the_activation_is_part_of_the_fingerprint(folder, tmp_path):
    """Cached vectors of one must not be served for the other."""
    quick = edit(folder, tmp_path / "quick", quick_gelu=True)

    assert load_clip(str(quick)).fingerprint != load_clip(str(folder)).fingerprint


def test_an_image_size_that_the_weights_were_not_trained_at_is_refused(folder, tmp_path):
    """open_clip stretches the position table without a word."""
    larger = edit(folder, tmp_path / "larger", vision_cfg={**tiny_clip_config()["vision_cfg"], "image_size": 64})

    with pytest.raises(ModelError, match="trained on images of 32 pixels, the configuration says 64"):
        load_clip(str(larger))


def test_unknown_architecture_gets_a_suggestion():
    """ViT-L14 is what everybody types."""
    with pytest.raises(ModelError, match="no architecture 'ViT-L14'; did you mean 'ViT-L-14'"):
        load_clip("ViT-L14:laion2b")


def test_unknown_tag_lists_what_there_is():
    """Before anything is downloaded."""
    with pytest.raises(ModelError, match=r"no weights 'openay' for ViT-L-14; did you mean 'openai'"):
        load_clip("ViT-L-14:openay")


def test_a_tag_offline_is_refused():
    """`--offline` must not try."""
    with pytest.raises(ModelError, match="names weights on the network, and this run is offline"):
        load_clip("ViT-L-14", offline=True)


def test_a_missing_file_is_named():
    """A path is never taken for a tag."""
    with pytest.raises(ModelError, match=r"there is no file /nowhere/clip.safetensors"):
        load_clip("ViT-L-14:/nowhere/clip.safetensors")


def test_a_folder_without_configuration_is_named(tmp_path):
    """For instance a diffusers folder given as --clip."""
    with pytest.raises(ModelError, match=r"no open_clip_config.json in it"):
        load_clip(str(tmp_path))


def test_a_folder_without_weights_is_named(folder, tmp_path):
    """Half a download."""
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    with pytest.raises(ModelError, match=r"no open_clip_model.safetensors in it"):
        load_clip(str(tmp_path))


def test_a_configuration_that_is_not_one_is_named(folder, tmp_path):
    """Cut-off JSON, or JSON of something else."""
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelError, match="not an open_clip configuration"):
        load_clip(str(tmp_path))


def test_weights_of_another_architecture_are_refused(folder, tmp_path):
    """Strictly: a missing tensor would otherwise stay random."""
    other = edit(folder, tmp_path / "other")
    tensors = load_file(other / "open_clip_model.safetensors")
    tensors.pop("visual.ln_post.weight")
    save_file(tensors, other / "open_clip_model.safetensors")

    with pytest.raises(CheckpointError, match="do not fit this architecture"):
        load_clip(str(other))


def test_text_and_image_vectors_share_a_space(folder):
    """Both towers give unit vectors of one width."""
    vectors = load_clip(str(folder)).encode_text(["a panda", "a phone"])

    assert vectors.shape == (2, CLIP_WIDTH)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))
