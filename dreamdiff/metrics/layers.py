"""Frozen layers of known networks as judges of reconstructions, from a folder of weight files.

The networks of the suite that the field reports since MindEye (Scotti et al. 2023): AlexNet after its second and fifth convolution, Inception-v3's
pooled features, and a ResNet-50 trained by SwAV (Caron et al. 2020). Files have the names under which they are published; nothing is downloaded, and
no network stands in for another. Shapes: M images, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms import functional as tv

from dreamdiff.arrays import Array, Floats
from dreamdiff.devices import fitting_batch, place_of, send
from dreamdiff.metrics.judges import BYTES_OF_IMAGE, eight_bit, other_weights, read_weights
from eegprep.errors import ModelError
from eegprep.provenance import sha256_file

SWAV_FILE = "swav_800ep_pretrain.pth.tar"
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as all three were trained


@dataclass(frozen=True)
class Layer:
    """Features of one layer of a frozen network. size: pixels that images are brought to first."""

    name: str
    network: nn.Module
    size: int
    files: Mapping[str, str]

    def to(self, device: torch.device) -> Layer:
        """The same on a device."""
        return replace(self, network=self.network.to(device))

    @torch.no_grad()
    def read(self, images_MHWC: Array) -> Floats:
        """(M, D) features of uint8 RGB images."""
        images = torch.from_numpy(np.ascontiguousarray(eight_bit(images_MHWC))).permute(0, 3, 1, 2)
        device = place_of(self.network)[0]
        parts = []
        for some in images.split(fitting_batch(device, BYTES_OF_IMAGE, least=16, most=256)):
            pixels = tv.resize(some.float() / 255, [self.size, self.size], tv.InterpolationMode.BILINEAR, antialias=True)
            parts.append(self.network(send(tv.normalize(pixels, list(MEAN), list(SPREAD)), device)).flatten(1).float().cpu())
        return torch.cat(parts).numpy().astype(float)


def load_layers(folder: Path | None) -> tuple[dict[str, Layer], dict[str, str]]:
    """Layers by name, and why others are not there.

    Raises:
        ModelError: a file that is there holds other weights.
    """
    layers: dict[str, Layer] = {}
    missing: dict[str, str] = {}
    for names, file, load in (
        (("alexnet-2", "alexnet-5"), _published("alexnet"), _alexnet),
        (("inception",), _published("inception_v3"), _inception),
        (("swav",), SWAV_FILE, _swav),
    ):
        path = None if folder is None else _there(folder, file)
        if path is None:
            place = file if folder is None else folder / file
            missing |= dict.fromkeys(names, f"not computed: no weights at {place}; nothing stands in for them (--suite FOLDER)")
            continue
        layers |= dict(zip(names, load(path), strict=True))
    return layers, missing


def _published(name: str) -> str:
    return Path(torchvision.models.get_model_weights(name).DEFAULT.url).name  # type: ignore[attr-defined]


def _there(folder: Path, file: str) -> Path | None:
    """The file under its published name, or as safetensors."""
    stem = file.split(".", maxsplit=1)[0]
    return next((folder / name for name in (file, f"{stem}.safetensors", f"{stem}.pth") if (folder / name).is_file()), None)


def _layer(name: str, network: nn.Module, size: int, file: Path) -> Layer:
    return Layer(name, network.eval().requires_grad_(False), size, {file.name: sha256_file(file)})


def _loaded(model: nn.Module, tensors: Mapping[str, Tensor], file: Path, what: str) -> nn.Module:
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise other_weights(file, what, error) from None
    return model


def _alexnet(file: Path) -> list[Layer]:
    """After the second and the fifth convolution and their ReLU: `features.4` and `features.11`."""
    convolutions = torchvision.models.alexnet(weights=None).features
    tensors = {key.removeprefix("features."): value for key, value in read_weights(file).items() if key.startswith("features.")}
    _loaded(convolutions, tensors, file, "torchvision's AlexNet")
    return [_layer("alexnet-2", convolutions[:5], 256, file), _layer("alexnet-5", convolutions[:12], 256, file)]


def _inception(file: Path) -> list[Layer]:
    model = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=True)
    _loaded(model, read_weights(file), file, "torchvision's Inception-v3")
    model.fc = nn.Identity()  # type: ignore[assignment]
    return [_layer("inception", model, 342, file)]


def _swav(file: Path) -> list[Layer]:
    model = torchvision.models.resnet50(weights=None)
    model.fc = nn.Identity()  # type: ignore[assignment]
    _loaded(model, swav_tensors(read_weights(file), file), file, "SwAV's ResNet-50")
    return [_layer("swav", model, 224, file)]


def swav_tensors(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The backbone's tensors under torchvision's names; projection head and prototypes are for its training.

    Raises:
        ModelError: a ResNet-50 that was trained to classify, which has the same backbone, or no ResNet-50.
    """
    plain = {key.removeprefix("module."): value for key, value in tensors.items()}
    kept = {key: value for key, value in plain.items() if not key.startswith(("projection_head", "prototypes"))}
    reason = "no tensor of a ResNet-50" if "conv1.weight" not in kept else "a classifier (fc)" if "fc.weight" in kept else ""
    if reason:
        raise ModelError(f"{file}: not the weights of SwAV's ResNet-50: {reason}", "give the file that SwAV's authors publish")
    return kept
