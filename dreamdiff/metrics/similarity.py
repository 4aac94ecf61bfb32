"""Numbers that can be believed: arrays in, `Measurement` out, with protocol, n, seed, interval and the floor of a guesser.

Every measurement is a mean over all samples of a trial, never the best of them. Intervals are percentile bootstraps over
trials (whole groups of trials where several show the same image). The floor is what somebody reaches who knows how often
each class is shown and nothing of the EEG; a number at its floor is no evidence of decoding, whatever the nominal chance.

Legend: N trials, S samples per trial, K classes of a classifier, G gallery images, D features, H W image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import hypergeom
from torchmetrics.functional.image import structural_similarity_index_measure

from dreamdiff.arrays import Array, Floats, Ints
from dreamdiff.metrics.measurement import Measurement, mean_measurement
from eegprep.errors import DataError
from eegprep.words import count

ROUNDING_ERROR = 1 / 12  # mean squared error of rounding to whole grey levels


# picture against picture


def psnr(images_NSHWC: Array, truth_NHWC: Array, *, seed: int = 0, groups_N: Array | None = None) -> Measurement:
    """Peak signal-to-noise ratio of 8-bit images, dB. Identical images count as 58.9 dB, the error of rounding."""
    return _image_metric("psnr", "PSNR, 8-bit RGB", _psnr, images_NSHWC, truth_NHWC, seed=seed, groups_N=groups_N, unit="dB")


def ssim(images_NSHWC: Array, truth_NHWC: Array, *, seed: int = 0, groups_N: Array | None = None) -> Measurement:
    """Structural similarity, RGB: Gaussian window, sigma 1.5, 11 x 11 (Wang et al. 2004, through torchmetrics)."""
    protocol = "SSIM, 8-bit RGB, Gaussian window sigma 1.5 (Wang et al. 2004)"
    return _image_metric("ssim", protocol, ssim_pairs, images_NSHWC, truth_NHWC, seed=seed, groups_N=groups_N, unit="index")


def lpips(
    images_NSHWC: Array, truth_NHWC: Array, network: Callable[[Array, Array], Floats], *,
    backbone: str = "alex", seed: int = 0, groups_N: Array | None = None,
) -> Measurement:  # fmt: skip
    """Learned perceptual distance (Zhang et al. 2018); `network` comes from `classifiers.load_lpips`."""
    protocol = f"LPIPS-{backbone}, images in [-1, 1]"
    return _image_metric(
        "lpips", protocol, network, images_NSHWC, truth_NHWC, seed=seed, groups_N=groups_N, better="lower", unit="distance"
    )


def _psnr(a_MHWC: Array, b_MHWC: Array) -> Floats:
    error_M = ((a_MHWC.astype(float) - b_MHWC.astype(float)) ** 2).reshape(len(a_MHWC), -1).mean(1)
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(error_M, ROUNDING_ERROR)))


def ssim_pairs(a_MHWC: Array, b_MHWC: Array) -> Floats:
    """(M,): SSIM of each pair of 8-bit RGB images, over positions where the whole window lies inside.

    torchmetrics averages over mirrored borders too; Wang et al. and scikit-image do not. In float32, which is forty times as fast
    as float64 here and within 1e-6 of it.
    """
    a, b = (torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).float() for x in (a_MHWC, b_MHWC))
    _, map_MCHW = structural_similarity_index_measure(
        a, b, sigma=1.5, kernel_size=11, data_range=255.0, reduction="none", return_full_image=True
    )
    # half the window of 11: there it reaches over the border
    return np.asarray(map_MCHW[..., 5:-5, 5:-5].double().mean(dim=(1, 2, 3)), float)  # type: ignore[call-overload]


def _image_metric(
    name: str, protocol: str, compare: Callable[[Array, Array], Floats], images_NSHWC: Array, truth_NHWC: Array, *,
    seed: int, groups_N: Array | None, unit: str, better: Literal["higher", "lower"] = "higher",
) -> Measurement:  # fmt: skip
    images, truth = check_images(images_NSHWC, truth_NHWC)
    values_NS = np.stack([compare(images[:, s], truth) for s in range(images.shape[1])], axis=1)
    # the guesser shows another trial's image: a rotation of a random order leaves no trial with its own
    order = np.random.default_rng(seed).permutation(len(truth))
    turns = range(1, min(len(truth), 9))
    floor = float(np.mean([compare(truth[order], truth[np.roll(order, turn)]).mean() for turn in turns])) if turns else None
    return mean_measurement(
        name, f"{protocol}, mean over {count(images.shape[1], 'sample')}", values_NS, seed=seed, floor=floor, groups_N=groups_N,
        better=better, unit=unit, note="floor: another trial's shown image in place of each generated one",
    )  # fmt: skip


def check_images(images_NSHWC: Array, truth_NHWC: Array) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Generated and shown images of equal size, 8-bit; anything else would be compared in the wrong unit."""
    images, truth = np.asarray(images_NSHWC), np.asarray(truth_NHWC)
    if images.ndim != 5 or truth.ndim != 4 or images.shape[0] != truth.shape[0] or images.shape[2:] != truth.shape[1:]:
        raise DataError(
            f"generated images have shape {images.shape} and shown ones {truth.shape} (needed: N, S, H, W, 3 and N, H, W, 3)",
            "bring both to one size, one row per trial",
        )
    if images.dtype != np.uint8 or truth.dtype != np.uint8:
        raise DataError(
            f"generated images are {images.dtype} and shown ones {truth.dtype} (limit: uint8, 0 to 255)",
            "round to 8-bit images before measuring",
        )
    return images, truth


# features: similarity, identification, retrieval


def feature_similarity(
    features_NSD: Array, truth_ND: Array, *, space: str, seed: int = 0, groups_N: Array | None = None
) -> Measurement:
    """Mean cosine between the features of generated and shown image (CLIP similarity, for a CLIP tower)."""
    similarity_NSN = _cosine(features_NSD, truth_ND)
    n = len(truth_ND)
    own_NS = similarity_NSN[np.arange(n), :, np.arange(n)]
    between = _cosine(np.asarray(truth_ND)[:, None], truth_ND)[:, 0]
    floor = float((between.sum() - np.trace(between)) / (n * (n - 1))) if n > 1 else None
    return mean_measurement(
        f"{space}-similarity", f"cosine of {space} image features, mean over {count(own_NS.shape[1], 'sample')}", own_NS, seed=seed,
        floor=floor, groups_N=groups_N, unit="cosine", note="floor: another trial's shown image in place of each generated one",
    )  # fmt: skip


def pairwise_identification(
    similarity_NSN: Array, *, space: str, seed: int = 0, image_N: Array | None = None, groups_N: Array | None = None
) -> Measurement:
    """Share of the other shown images that are less similar to the generated one than its own (2-way identification).

    Args:
        similarity_NSN: similarity of sample s of trial n to the shown image of every trial; larger is nearer.
        image_N: which image each trial showed; trials of the same image are no wrong answers and are left out.
        groups_N: what the interval draws again; the images when not given.

    Source: the authors' pair-wise score. A tie counts half (theirs: a miss), so that noise comes out at one half.
    """
    similarity = np.asarray(similarity_NSN, float)
    n, s, _ = similarity.shape
    image = np.arange(n) if image_N is None else np.asarray(image_N)
    own_NS1 = similarity[np.arange(n), :, np.arange(n)][:, :, None]
    wrong_N1N = (image[:, None] != image[None, :])[:, None, :]
    if not wrong_N1N.any(axis=(1, 2)).all():
        raise DataError("every trial showed 1 image (identification needs at least 2)", "choose a split with more images")
    # a constant image would else lose, or win, every comparison
    wins = (similarity < own_NS1) + 0.5 * (similarity == own_NS1)
    values_NS = (wins * wrong_N1N).sum(2) / wrong_N1N.sum(2)
    return mean_measurement(
        f"pair-wise-{space}", f"pair-wise identification among shown images by {space}, mean over {count(s, 'sample')}", values_NS,
        seed=seed, floor=0.5, groups_N=image_N if groups_N is None else groups_N,
    )  # fmt: skip


def pixel_similarity(images_NSHWC: Array, truth_NHWC: Array, kind: Literal["mse", "pcc"], size: int = 64) -> Floats:
    """(N, S, N): negative mean squared error, or correlation of pixels, of every generated with every shown image.

    Images are brought to `size` x `size` by area averages first (ours; the authors compare full pictures one by one).
    """
    images, truth = check_images(images_NSHWC, truth_NHWC)
    n, s = images.shape[:2]
    a = _small(images.reshape(n * s, *images.shape[2:]), size)
    b = _small(truth, size)
    if kind == "mse":
        squared = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)[None]
        return np.asarray(-squared / a.shape[1]).reshape(n, s, n)
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return _cosine(a[:, None], b).reshape(n, s, n)


def retrieval(
    embeddings_ND: Array, gallery_GD: Array, truth_N: Array, *, ways: int | None = None, top_k: int = 1,
    seed: int = 0, groups_N: Array | None = None, space: str = "CLIP",
) -> Measurement:  # fmt: skip
    """EEG -> image: is the shown image among the k nearest of the gallery, by cosine?

    Args:
        embeddings_ND: one per trial, or per image after averaging repetitions (`average_repetitions`).
        gallery_GD: features of different images.
        truth_N: which of the gallery each trial showed.
        ways: size of the gallery, the shown image and `ways - 1` others: the mean over all such galleries in closed form.
            None: all of it. 200 is the THINGS-EEG2 protocol (Gifford et al. 2022).
    """
    similarity_NG = _cosine(np.asarray(embeddings_ND)[:, None], gallery_GD)[:, 0]
    n, g = similarity_NG.shape
    ways = g if ways is None else ways
    if not 2 <= ways <= g:
        raise DataError(
            f"{ways}-way retrieval does not fit a gallery of {g} images (limits 2 and {g})",
            "add images to the gallery, or ask for fewer ways",
        )
    truth = np.asarray(truth_N)
    own_N1 = similarity_NG[np.arange(n), truth][:, None]
    higher_N = (similarity_NG > own_N1).sum(1)
    ties_N = (similarity_NG == own_N1).sum(1) - 1
    # ties are broken at random: average over the ranks they may take
    passes_r = hypergeom(g - 1, np.arange(g), ways - 1).cdf(top_k - 1)
    values_N = np.array([passes_r[h : h + t + 1].mean() for h, t in zip(higher_N, ties_N, strict=True)])
    return mean_measurement(
        f"retrieval-{ways}-way-top-{top_k}",
        f"{ways}-way retrieval top-{top_k}: EEG to shown image by cosine in {space} space, gallery of {g} images",
        values_N, seed=seed, floor=min(1.0, top_k / ways), groups_N=groups_N,
    )  # fmt: skip


def average_repetitions(embeddings_ND: Array, image_N: Array) -> tuple[Floats, Ints]:
    """Mean embedding of all trials of an image, and which image it is (the 80-repetition mean of THINGS-EEG2)."""
    images, member = np.unique(np.asarray(image_N), return_inverse=True)
    total = np.zeros((len(images), np.asarray(embeddings_ND).shape[1]))
    np.add.at(total, member, np.asarray(embeddings_ND, float))
    return total / np.bincount(member)[:, None], images.astype(np.int64)


def _cosine(a_NSD: Array, b_MD: Array) -> Floats:
    a, b = np.asarray(a_NSD, float), np.asarray(b_MD, float)
    a = a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-12)
    b = b / np.maximum(np.linalg.norm(b, axis=-1, keepdims=True), 1e-12)
    return np.asarray(a @ b.T)


def cosine_similarity(features_NSD: Array, truth_MD: Array) -> Floats:
    """(N, S, M): cosine of every generated with every shown image's features, for `pairwise_identification`."""
    return _cosine(features_NSD, truth_MD)


def _small(images_MHWC: Array, size: int) -> Floats:
    pixels = torch.from_numpy(np.ascontiguousarray(images_MHWC)).permute(0, 3, 1, 2).float()
    if min(pixels.shape[-2:]) > size:
        pixels = torch.nn.functional.adaptive_avg_pool2d(pixels, size)
    return np.asarray(pixels.reshape(len(pixels), -1).double())
