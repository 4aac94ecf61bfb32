"""Distances between sets of images: Fréchet and kernel distance, inception score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from dreamdiff.arrays import Array, Floats, Ints
from dreamdiff.metrics.measurement import LEVEL, Measurement
from eegprep.errors import DataError

FEWEST_IMAGES = 20  # on either side: the kernel distance of two images was -1.27 [-14.0, -0.53], "better than real images"

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
    minimum: int = FEWEST_IMAGES, seed: int = 0, resamples: int = 200,
) -> Measurement:  # fmt: skip
    """Squared maximum mean discrepancy with the cubic kernel (KID, for the Inception features): unbiased at any n.

    Source: Binkowski et al. 2018. All images at once; no random subsets, so there is no second source of noise.
    """
    fake, real = _two_sets(features_NSD, truth_ND)
    if min(len(fake), len(real)) < minimum:
        raise DataError(
            f"{name}: {len(real)} shown and {len(fake)} generated images are too few for a distance between sets (at least {minimum} each)",
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
        # log(0) times 0 would be NaN
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
    resampled = np.empty(resamples)
    for r in range(resamples):
        trials = rng.integers(n, size=n)
        resampled[r] = draw(trials, (trials[:, None] * s + np.arange(s)).reshape(-1))
    low, high = np.quantile(resampled - np.median(resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + point
    return Measurement(name, protocol, point, float(low), float(high), n, seed, floor, better, unit, note, independent=n)


def _two_sets(features_NSD: Array, truth_ND: Array) -> tuple[Floats, Floats]:
    fake, real = np.asarray(features_NSD, float), np.asarray(truth_ND, float)
    if fake.ndim != 3 or real.ndim != 2 or fake.shape[0] != real.shape[0] or fake.shape[2] != real.shape[1]:
        raise DataError(
            f"features of generated images have shape {fake.shape} and of shown ones {real.shape} (needed: N, S, D and N, D)",
            "take both from one network, one row per trial",
        )
    return fake.reshape(-1, fake.shape[2]), real
