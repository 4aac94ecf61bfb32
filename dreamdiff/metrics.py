"""Numbers that can be believed: arrays in, `Measurement` out, with protocol, n, seed, interval and the floor of a guesser.

Every measurement is a mean over all samples of a trial, never the best of them. Intervals are percentile bootstraps over
trials (whole groups of trials where several show the same image). The floor is what somebody reaches who knows how often
each class is shown and nothing of the EEG; a number at its floor is no evidence of decoding, whatever the nominal chance.

Legend: N trials, S samples per trial, K classes of a classifier, G gallery images, D features, H W image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import hypergeom
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from eegprep.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Array = NDArray[Any]
LEVEL = 0.95  # of every interval
RESAMPLES = 2000
ROUNDING_ERROR = 1 / 12  # mean squared error of rounding to whole grey levels


@dataclass(frozen=True)
class Measurement:
    """One number with everything needed to read it.

    value, low, high: point estimate and 95 % interval, in `unit`.
    floor: what a guesser reaches who knows the class frequencies only; None where the metric has none.
    values_N: the value of every trial, for differences and for the report; empty for distances between sets.
    """

    name: str
    protocol: str
    value: float
    low: float
    high: float
    n: int
    seed: int
    floor: float | None
    better: Literal["higher", "lower"] = "higher"
    unit: str = "share"
    note: str = ""
    values_N: Floats = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)

    @property
    def above_floor(self) -> bool | None:
        """Whether the whole interval lies on the good side of the floor; None without a floor."""
        if self.floor is None:
            return None
        return self.low > self.floor if self.better == "higher" else self.high < self.floor

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without the values of single trials."""
        plain = {k: v for k, v in vars(self).items() if k != "values_N"}
        return {**plain, "above_floor": self.above_floor}


def bootstrap_interval(
    values_N: Floats, seed: int, *, groups_N: Array | None = None, level: float = LEVEL, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the mean; whole groups are drawn where `groups_N` says which trials belong together.

    Source: Efron 1979 (percentile bootstrap); Davison and Hinkley 1997, section 3.8 (clusters).
    """
    values = np.asarray(values_N, float)
    if len(values) == 0:
        raise DataError("a mean of 0 trials has no interval (at least 1 is needed)", "choose a split that holds trials")
    sums, counts = values, np.ones_like(values)
    if groups_N is not None:
        _, member = np.unique(np.asarray(groups_N), return_inverse=True)
        sums, counts = np.bincount(member, values), np.bincount(member).astype(float)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for r in range(resamples):
        drawn = rng.integers(len(sums), size=len(sums))
        means[r] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_measurement(
    name: str, protocol: str, values_NS: Array, *, seed: int, floor: float | None, groups_N: Array | None = None,
    better: Literal["higher", "lower"] = "higher", unit: str = "share", note: str = "",
) -> Measurement:  # fmt: skip
    """The mean over samples, then over trials, with its interval."""
    values_N = np.asarray(values_NS, float).reshape(len(values_NS), -1).mean(axis=1)
    low, high = bootstrap_interval(values_N, seed, groups_N=groups_N)
    if unit == "share":
        low, high = _no_narrower_than_wilson(values_N, low, high, groups_N)
    return Measurement(
        name, protocol, float(values_N.mean()), low, high, len(values_N), seed, floor, better, unit, note, values_N=values_N
    )


def _no_narrower_than_wilson(values_N: Floats, low: float, high: float, groups_N: Array | None) -> tuple[float, float]:
    """Fewer than ten hits (or misses) cannot be resampled into an honest interval: none in 50 would give [0, 0].

    Source: Wilson 1927; the limit of ten is the usual rule for the normal approximation.
    """
    n = len(values_N) if groups_N is None else len(np.unique(groups_N))
    p = float(values_N.mean())
    if min(p, 1 - p) * n >= 10:
        return low, high
    z2 = 1.96**2
    centre, half = (p + z2 / (2 * n)) / (1 + z2 / n), 1.96 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return min(low, max(0.0, float(centre - half))), max(high, min(1.0, float(centre + half)))


# n-way top-k accuracy


def n_way_accuracy(
    probabilities_NSK: Array, truth_NK: Array, *, n_way: int = 50, top_k: int = 1, draws: int = 50, seed: int = 0,
    classifier: str = "", groups_N: Array | None = None,
) -> Measurement:  # fmt: skip
    """The paper's accuracy: is the true class among the first k of itself and `n_way - 1` classes drawn at random?

    Args:
        probabilities_NSK: classifier's class scores of the generated images.
        truth_NK: the same of the images that were shown; their largest entry names the true class.
        seed: of numpy's legacy generator. The draws are those of the published evaluation after `numpy.random.seed(seed)`.

    Source: DreamDiffusion, section 4.3, and its public evaluation code: the true class is the classifier's opinion of the
    shown image, the 49 others come from all other ImageNet classes and are drawn anew 50 times for every image, samples
    outermost. The mean over samples is ours as it is theirs; their second figure, the best sample column, is not reported.
    """
    scores_NSK, classes_N = _check_scores(probabilities_NSK, truth_NK)
    n, s, k = scores_NSK.shape
    _check_ways(n_way, top_k, k)
    # numpy's legacy generator on purpose: choice without replacement is the head of a permutation there, which is what the
    # published numbers were drawn with
    rng = np.random.RandomState(seed)
    hits_NS = np.zeros((n, s))
    for sample in range(s):
        for item in range(n):
            scores_K, true = scores_NSK[item, sample], classes_N[item]
            for _ in range(draws):
                others = rng.permutation(k - 1)[: n_way - 1]
                others = others + (others >= true)
                hits_NS[item, sample] += _hit(scores_K[true], scores_K[others], top_k)
    floor = float(expected_n_way(truth_NK, classes_N, n_way=n_way, top_k=top_k).mean())
    return mean_measurement(
        f"{n_way}-way-top-{top_k}",
        f"{n_way}-way top-{top_k}: true class = {classifier or 'classifier'} on the shown image, {n_way - 1} others drawn from "
        f"{k - 1} classes, {draws} draws, mean over {s} samples (DreamDiffusion)",
        hits_NS / draws, seed=seed, floor=floor, groups_N=groups_N,
        note="floor: another shown image, drawn at random, in place of each generated one",
    )  # fmt: skip


def expected_n_way(scores_MK: Array, classes_N: Array, *, n_way: int, top_k: int) -> Floats:
    """(M, N): chance that image m passes as class n, over all possible draws of the other classes (closed form).

    r of the K - 1 other classes score higher; n_way - 1 of them are drawn, fewer than k of which may be among the r:
    a hypergeometric distribution. What `n_way_accuracy` estimates by drawing.
    """
    scores = np.asarray(scores_MK, float)
    k = scores.shape[1]
    _check_ways(n_way, top_k, k)
    passes_r = hypergeom(k - 1, np.arange(k), n_way - 1).cdf(top_k - 1)
    order = np.sort(scores, axis=1)
    wanted_MN = scores[:, np.asarray(classes_N)]
    higher_MN = np.stack([k - np.searchsorted(row, want, side="right") for row, want in zip(order, wanted_MN, strict=True)])
    return np.asarray(passes_r[higher_MN], float)


def shown_classes_accuracy(
    scores_NSC: Array, labels_N: Array, *, top_k: int = 1, seed: int = 0, judge: str = "",
    groups_N: Array | None = None,
) -> Measurement:  # fmt: skip
    """The stricter form: among the C categories that were shown, and against the label in the data set.

    No draws, and no classifier decides what the truth is. Its floor is the share that a guesser reaches who draws from
    the class frequencies of these trials: the sum of squared shares (top-1).
    """
    scores = np.asarray(scores_NSC, float)
    labels = np.asarray(labels_N)
    n, s, c = scores.shape
    _check_ways(c, top_k, c)
    own_NS1 = np.take_along_axis(scores, np.broadcast_to(labels[:, None, None], (n, s, 1)), axis=2)
    others = scores.copy()
    np.put_along_axis(others, np.broadcast_to(labels[:, None, None], (n, s, 1)), -np.inf, axis=2)
    hits_NS = _rank_hit((others > own_NS1).sum(2), (others == own_NS1).sum(2), top_k)
    return mean_measurement(
        f"{c}-way-shown-top-{top_k}",
        f"{c}-way top-{top_k} within the shown categories: truth = label in the data set, judge = {judge or 'classifier'}, "
        f"mean over {s} samples",
        hits_NS, seed=seed, floor=prior_floor(labels, c, top_k), groups_N=groups_N,
        note="floor: classes drawn by their frequency among these trials",
    )  # fmt: skip


def prior_floor(labels_N: Array, classes: int, top_k: int = 1) -> float:
    """Top-k accuracy of a guesser who draws k different classes by their frequency, one after another."""
    shares = np.bincount(np.asarray(labels_N), minlength=classes) / len(labels_N)
    if top_k == 1:
        return float((shares**2).sum())
    if np.allclose(shares, 1 / classes):
        return top_k / classes
    rng = np.random.default_rng(0)  # Gumbel top-k is drawing without replacement by weight
    with np.errstate(divide="ignore"):
        keys = np.log(shares) + rng.gumbel(size=(20_000, classes))
    ahead = np.argsort(-keys, axis=1)[:, :top_k]
    inside = np.zeros((len(keys), classes))
    np.put_along_axis(inside, ahead, 1.0, axis=1)
    return float((inside.mean(0) * shares).sum())


def confusion(scores_NSC: Array, labels_N: Array) -> Floats:
    """(C, C): share of samples of true class (row) that the judge calls each class (column); empty rows stay zero."""
    scores = np.asarray(scores_NSC)
    c = scores.shape[2]
    matrix = np.zeros((c, c))
    called_NS = scores.argmax(axis=2)
    np.add.at(matrix, (np.repeat(labels_N, scores.shape[1]), called_NS.reshape(-1)), 1.0)
    return np.asarray(matrix / np.maximum(matrix.sum(1, keepdims=True), 1.0))


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
        name, f"{protocol}, mean over {images.shape[1]} samples", values_NS, seed=seed, floor=floor, groups_N=groups_N,
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
        f"{space}-similarity", f"cosine of {space} image features, mean over {own_NS.shape[1]} samples", own_NS, seed=seed,
        floor=floor, groups_N=groups_N, unit="cosine", note="floor: another trial's shown image in place of each generated one",
    )  # fmt: skip


def pairwise_identification(similarity_NSN: Array, *, space: str, seed: int = 0, image_N: Array | None = None) -> Measurement:
    """Share of the other shown images that are less similar to the generated one than its own (2-way identification).

    Args:
        similarity_NSN: similarity of sample s of trial n to the shown image of every trial; larger is nearer.
        image_N: which image each trial showed; trials of the same image are no wrong answers and are left out.

    Source: the authors' pair-wise score. A tie counts half (theirs: a miss), so that noise comes out at one half.
    """
    similarity = np.asarray(similarity_NSN, float)
    n, s, _ = similarity.shape
    image = np.arange(n) if image_N is None else np.asarray(image_N)
    own_NS1 = similarity[np.arange(n), :, np.arange(n)][:, :, None]
    wrong_N1N = (image[:, None] != image[None, :])[:, None, :]
    if not wrong_N1N.any(axis=(1, 2)).all():
        raise DataError("every trial showed 1 image (identification needs at least 2)", "choose a split with more images")
    wins = (similarity < own_NS1) + 0.5 * (similarity == own_NS1)
    values_NS = (wins * wrong_N1N).sum(2) / wrong_N1N.sum(2)
    return mean_measurement(
        f"pair-wise-{space}", f"pair-wise identification among shown images by {space}, mean over {s} samples", values_NS,
        seed=seed, floor=0.5, groups_N=image_N,
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


# distances between sets of images


def frechet_distance(
    features_NSD: Array, truth_ND: Array, *, name: str = "fid", space: str = "Inception-v3, 2,048 features",
    minimum: int | None = None, seed: int = 0, resamples: int = 200,
) -> Measurement:  # fmt: skip
    """Frechet distance of two Gaussians fitted to image features (FID, for the Inception features), through torchmetrics.

    Args:
        minimum: fewest images on either side; default: as many as there are features plus one, below which a covariance
            has no full rank and the distance mostly measures how few images there are.

    Raises:
        DataError: too few images; `kernel_distance` has no such bias.

    Source: Heusel et al. 2017. Resampling repeats images, which raises the distance, so the interval is the spread of the
    bootstrap around the point estimate.
    """
    fake, real = _two_sets(features_NSD, truth_ND)
    limit = real.shape[1] + 1 if minimum is None else minimum
    if min(len(fake), len(real)) < limit:
        raise DataError(
            f"{name}: {len(real)} shown and {len(fake)} generated images are too few for {real.shape[1]} features "
            f"(at least {limit})",
            "use the kernel distance (KID), or generate for more trials",
        )
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]))
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(fake), real=False)
    metric.set_dtype(torch.float64)
    point = float(metric.compute())
    draw = _frechet_of_rows(fake, real)
    resamples = min(resamples, 20) if len(real) > 1000 else resamples  # each costs seconds there
    return _set_measurement(
        name, f"Frechet distance, {space}, {len(real)} shown and {len(fake)} generated images", point, draw,
        shape=np.asarray(features_NSD).shape, seed=seed, resamples=resamples, floor=0.0,
    )  # fmt: skip


def kernel_distance(
    features_NSD: Array, truth_ND: Array, *, name: str = "kid", space: str = "Inception-v3, 2,048 features",
    seed: int = 0, resamples: int = 200,
) -> Measurement:  # fmt: skip
    """Squared maximum mean discrepancy with the cubic kernel (KID, for the Inception features): unbiased at any n.

    Source: Binkowski et al. 2018. All images at once; no random subsets, so there is no second source of noise.
    """
    fake, real = _two_sets(features_NSD, truth_ND)
    if min(len(fake), len(real)) < 2:
        raise DataError(
            f"{name}: {len(real)} shown and {len(fake)} generated images (at least 2 each are needed)",
            "generate for more trials",
        )
    dims = real.shape[1]
    k_rr, k_rf, k_ff = ((a @ b.T / dims + 1) ** 3 for a, b in ((real, real), (real, fake), (fake, fake)))

    def draw(rows_r: Ints, rows_f: Ints) -> float:
        return _mmd(k_rr[np.ix_(rows_r, rows_r)], k_rf[np.ix_(rows_r, rows_f)], k_ff[np.ix_(rows_f, rows_f)])

    point = _mmd(k_rr, k_rf, k_ff)
    return _set_measurement(
        name, f"kernel distance (cubic, unbiased), {space}, {len(real)} shown and {len(fake)} generated images", point, draw,
        shape=np.asarray(features_NSD).shape, seed=seed, resamples=resamples, floor=0.0,
    )  # fmt: skip


def inception_score(
    probabilities_NSK: Array, truth_NK: Array | None = None, *, splits: int = 10, seed: int = 0,
    name: str = "inception-score", classifier: str = "Inception-v3", resamples: int = 200,
) -> Measurement:  # fmt: skip
    """exp of the mean divergence between the classes of one image and of all (Salimans et al. 2016), mean over `splits` parts.

    The score knows nothing of the shown images; its floor is the score of the shown images themselves.
    """
    probabilities = np.asarray(probabilities_NSK, float)
    n, s, k = probabilities.shape
    flat = probabilities.reshape(n * s, k)
    if len(flat) < 2 * splits:
        raise DataError(
            f"{name}: {len(flat)} generated images in {splits} parts (at least {2 * splits} are needed)",
            "generate for more trials, or ask for fewer parts",
        )
    order = np.random.default_rng(seed).permutation(len(flat))

    def draw(_: Ints, rows_f: Ints) -> float:
        return inception_of(flat[rows_f], splits)

    floor = None
    if truth_NK is not None and len(truth_NK) >= 2 * splits:
        floor = inception_of(np.asarray(truth_NK, float)[np.random.default_rng(seed).permutation(len(truth_NK))], splits)
    return _set_measurement(
        name, f"inception score, {classifier}, {splits} parts, {len(flat)} generated images",
        inception_of(flat[order], splits), draw, shape=(n, s, k), seed=seed, resamples=resamples, floor=floor,
        better="higher", unit="score",
        note="the floor needs no EEG: it is the score of the shown images themselves",
    )  # fmt: skip


def inception_of(probabilities_MK: Array, splits: int) -> float:
    """The inception score of images in this order, cut into parts as `torch.chunk` cuts."""
    size = -(-len(probabilities_MK) // splits)
    scores = []
    for part in (probabilities_MK[i : i + size] for i in range(0, len(probabilities_MK), size)):
        p = np.maximum(part, 1e-300)
        scores.append(np.exp((p * (np.log(p) - np.log(p.mean(0, keepdims=True)))).sum(1).mean()))
    return float(np.mean(scores))


class _Given(torch.nn.Module):
    """Stands in for a feature network where the features are at hand."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features_MD: torch.Tensor) -> torch.Tensor:
        return features_MD


def _frechet_of_rows(fake_MD: Floats, real_ND: Floats) -> Callable[[Ints, Ints], float]:
    """Frechet distance of resampled rows, without a square root of a matrix.

    Tr (S1 S2)^(1/2) is the sum of singular values of A B^T for centred data with S1 = A^T A and S2 = B^T B. With more images
    than features, the triangular factors of A and B do in their place.
    """

    def draw(rows_r: Ints, rows_f: Ints) -> float:
        (mean_r, a), (mean_f, b) = _centred(real_ND[rows_r]), _centred(fake_MD[rows_f])
        means = ((mean_r - mean_f) ** 2).sum()
        traces = (a**2).sum() + (b**2).sum()
        return float(means + traces - 2 * np.linalg.svd(_short(a) @ _short(b).T, compute_uv=False).sum())

    return draw


def _centred(rows_ND: Floats) -> tuple[Floats, Floats]:
    """Mean, and A with A^T A = covariance."""
    mean_D = rows_ND.mean(0)
    return mean_D, (rows_ND - mean_D) / np.sqrt(max(len(rows_ND) - 1, 1))


def _short(a_ND: Floats) -> Floats:
    return np.asarray(np.linalg.qr(a_ND, mode="r")) if a_ND.shape[0] > a_ND.shape[1] else a_ND


def _mmd(k_rr: Floats, k_rf: Floats, k_ff: Floats) -> float:
    n, m = k_rf.shape
    within = (k_rr.sum() - np.trace(k_rr)) / (n * (n - 1)) + (k_ff.sum() - np.trace(k_ff)) / (m * (m - 1))
    return float(within - 2 * k_rf.mean())


def _set_measurement(
    name: str, protocol: str, point: float, draw: Callable[[Ints, Ints], float], *, shape: tuple[int, ...], seed: int,
    resamples: int, floor: float | None, better: Literal["higher", "lower"] = "lower", unit: str = "distance",
    note: str = "floor: a guesser who shows real images of the right mix reaches it with no EEG; this is image quality",
) -> Measurement:  # fmt: skip
    """Bootstrap over trials, a trial's samples together; re-centred, because repeated images shift a set distance."""
    n, s = shape[:2]
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for r in range(resamples):
        trials = rng.integers(n, size=n)
        found[r] = draw(trials, (trials[:, None] * s + np.arange(s)).reshape(-1))
    low, high = np.quantile(found - np.median(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + point
    return Measurement(name, protocol, point, float(low), float(high), n, seed, floor, better, unit, note)


def _two_sets(features_NSD: Array, truth_ND: Array) -> tuple[Floats, Floats]:
    fake, real = np.asarray(features_NSD, float), np.asarray(truth_ND, float)
    if fake.ndim != 3 or real.ndim != 2 or fake.shape[0] != real.shape[0] or fake.shape[2] != real.shape[1]:
        raise DataError(
            f"features of generated images have shape {fake.shape} and of shown ones {real.shape} (needed: N, S, D and N, D)",
            "take both from one network, one row per trial",
        )
    return fake.reshape(-1, fake.shape[2]), real


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


def _hit(own: float, others: Array, top_k: int) -> float:
    return float(_rank_hit(np.asarray((others > own).sum()), np.asarray((others == own).sum()), top_k))


def _rank_hit(higher: Array, ties: Array, top_k: int) -> Floats:
    """Chance to be among the first k when ties are broken at random."""
    return np.asarray(np.clip((top_k - higher) / (ties + 1), 0.0, 1.0))


def _check_scores(probabilities_NSK: Array, truth_NK: Array) -> tuple[Array, Ints]:
    scores, truth = np.asarray(probabilities_NSK), np.asarray(truth_NK)
    if scores.ndim != 3 or truth.ndim != 2 or scores.shape[0] != truth.shape[0] or scores.shape[2] != truth.shape[1]:
        raise DataError(
            f"scores of generated images have shape {scores.shape} and of shown ones {truth.shape} (needed: N, S, K and N, K)",
            "use one classifier for both, one row per trial",
        )
    return scores, truth.argmax(axis=1).astype(np.int64)


def _check_ways(n_way: int, top_k: int, classes: int) -> None:
    if not 1 <= top_k < n_way <= classes:
        raise DataError(
            f"{n_way}-way top-{top_k} does not fit a classifier of {classes} classes (1 <= k < n <= {classes})",
            "lower n_way or top_k",
        )
