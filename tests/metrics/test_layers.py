"""The networks of the reconstruction suite, from full-size files with random weights that are laid out as the published ones are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from dreamdiff.metrics.layers import MEAN, SPREAD, SWAV_FILE, load_layers
from eegprep.errors import CheckpointError, ModelError

ALEXNET, INCEPTION = "alexnet-owt-7be5be79.pth", "inception_v3_google-0cc3c7bd.pth"


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    """torchvision's architectures, drawn at random; batch norms that have seen something, as trained ones have."""
    torch.manual_seed(0)
    models = {
        ALEXNET: torchvision.models.alexnet(weights=None),
        INCEPTION: torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=True),
        SWAV_FILE: torchvision.models.resnet50(weights=None),
    }
    for model in models.values():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.1, 0.1)
                part.running_var.uniform_(0.8, 1.2)
        model.eval()
    return models


@pytest.fixture(scope="module")
def folder(networks, tmp_path_factory) -> Path:
    """AlexNet in PyTorch's zip, Inception with its auxiliary head in the format before 1.6 and without counters of batches, as in 2018; SwAV's
    names under `module.` (it was trained in several processes), with projection head and prototypes."""
    place = tmp_path_factory.mktemp("published")
    torch.save(networks[ALEXNET].state_dict(), place / ALEXNET)
    inception = {key: value for key, value in networks[INCEPTION].state_dict().items() if "num_batches" not in key}
    torch.save(inception, place / INCEPTION, _use_new_zipfile_serialization=False)
    backbone = {key: value for key, value in networks[SWAV_FILE].state_dict().items() if not key.startswith("fc.")}
    head = nn.Sequential(nn.Linear(2048, 2048), nn.BatchNorm1d(2048), nn.ReLU(), nn.Linear(2048, 128))
    further = {f"projection_head.{key}": value for key, value in head.state_dict().items()}
    further["prototypes.weight"] = torch.zeros(3000, 128)
    torch.save({f"module.{key}": value for key, value in (backbone | further).items()}, place / SWAV_FILE)
    return place


def inside(model: nn.Module, name: str, pixels: torch.Tensor) -> np.ndarray:
    """What the layer of that name gives, flattened."""
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _, __, value: kept.append(value.clone()))
    with torch.no_grad():
        model(pixels)
    handle.remove()
    return kept[0].flatten(1).numpy()


def test_every_layer_gives_what_the_published_network_gives_there(networks, folder):
    layers, missing = load_layers(folder)
    assert not missing

    for name, file, part, size in (
        ("alexnet-2", ALEXNET, "features.4", 256), ("alexnet-5", ALEXNET, "features.11", 256),
        ("inception", INCEPTION, "avgpool", 342), ("swav", SWAV_FILE, "avgpool", 224),
    ):  # fmt: skip
        images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SPREAD)[:, None, None]
        expected = inside(networks[file], part, pixels)
        features = layers[name].read(images)
        assert features.shape == expected.shape and expected.std() > 0
        assert np.abs(features - expected).max() < 1e-4 * np.abs(expected).max()
        assert list(layers[name].files) == [file]


@pytest.mark.parametrize(
    ("name", "file", "says"),
    [
        (INCEPTION, ALEXNET, "not the weights of torchvision's Inception-v3"),
        (ALEXNET, SWAV_FILE, "not the weights of torchvision's AlexNet"),
        (SWAV_FILE, ALEXNET, "no tensor of a ResNet-50"),
        (SWAV_FILE, INCEPTION, "no tensor of a ResNet-50"),
    ],
)
def test_the_file_of_another_network_is_refused_by_name(folder, tmp_path, name, file, says):
    (tmp_path / name).symlink_to(folder / file)
    with pytest.raises(ModelError, match=says) as caught:
        load_layers(tmp_path)
    assert name in caught.value.problem and caught.value.fix


def test_a_classifying_resnet_does_not_pass_for_swav_nor_the_network_of_fid_for_inception(networks, tmp_path):
    """Both have tensors of the right names; the second has 1,008 classes and no auxiliary head."""
    torch.save(networks[SWAV_FILE].state_dict(), tmp_path / SWAV_FILE)
    with pytest.raises(ModelError, match=r"a classifier \(fc\)"):
        load_layers(tmp_path)
    (tmp_path / SWAV_FILE).unlink()
    other = {key: value for key, value in networks[INCEPTION].state_dict().items() if not key.startswith("AuxLogits")}
    torch.save(other | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, tmp_path / INCEPTION)
    with pytest.raises(ModelError, match="not the weights of torchvision's Inception-v3"):
        load_layers(tmp_path)
    (tmp_path / INCEPTION).write_bytes((b"PK\x03\x04" + bytes(100)) * 3)
    with pytest.raises(CheckpointError, match="damaged"):
        load_layers(tmp_path)
