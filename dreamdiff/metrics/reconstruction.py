"""The reconstruction suite: PixCorr, SSIM, and identification by AlexNet-2, AlexNet-5, Inception, CLIP; distance by SwAV.

Figures under these names cannot be compared from paper to paper unless five choices agree, so each number carries them in its name:

    alexnet-2/share/distractors=1/judge=alexnet-2/people=mean-of-10/samples=mean-of-3

    share or correlation     the share of comparisons that are won, or the correlation of features itself
    distractors              two-way with one other picture at a time (the mean over all of them), or against all of them at once
    judge                    which network, which layer; for CLIP which tower
    people                   one person, or the mean of so many
    samples                  mean of the samples of a trial, or the best of them, which looks at the answer

Shapes: N trials, S samples, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from dreamdiff.arrays import Array, Floats, Ints
from dreamdiff.metrics.layers import Layer
from dreamdiff.metrics.measurement import Measurement, mean_measurement
from dreamdiff.metrics.similarity import cosine_similarity, pixel_similarity, ssim_pairs
from eegprep.errors import DataError

CHOICES = (
    "share of comparisons won, or correlation of features",
    "two-way with one distractor, or against all at once",
    "which network judges, and which CLIP",
    "one person, or the mean of several",
    "mean of a trial's samples, or the best of them",
)
GREY = np.array([0.2125, 0.7154, 0.0721])  # luminance, as scikit-image weighs it


def suite(
    images_NSHWC: Array, truth_NHWC: Array, image_N: Ints, people: int, *, layers: Mapping[str, Layer], clip: Callable[[Array], Floats] | None = None,
    clip_name: str = "", seed: int = 0, groups_N: Array | None = None,
) -> tuple[list[Measurement], dict[str, str]]:  # fmt: skip
    """Every number of the suite that can be computed, and why others cannot.

    Args:
        truth_NHWC: what each trial showed. image_N: which picture that was. people: how many the trials are of.
        clip: (M, H, W, 3) -> (M, D) vectors of a CLIP tower, and its name.
    """
    n, s = images_NSHWC.shape[:2]
    tail = f"people={'1' if people == 1 else f'mean-of-{people}'}/samples"
    value, missing = [], {}

    def add(make: Callable[[], list[Measurement]], name: str) -> None:
        try:
            value.extend(make())
        except DataError as error:
            missing[name] = error.problem

    add(lambda: _pixels(images_NSHWC, truth_NHWC, tail, seed, groups_N), "pixcorr")
    shown, member = np.unique(image_N, return_index=True)[0], np.unique(image_N, return_inverse=True)[1].reshape(-1)
    first = np.array([int(np.flatnonzero(image_N == one)[0]) for one in shown])
    readers: dict[str, Callable[[Array], Floats]] = {name: layer.read for name, layer in layers.items()}
    if clip is not None:
        readers["clip"] = clip
    for name, read in readers.items():
        features_NSD = read(images_NSHWC.reshape(-1, *images_NSHWC.shape[2:])).reshape(n, s, -1)
        shown_ND = read(truth_NHWC[first])[member]
        judge = f"clip:{clip_name}" if name == "clip" else name

        def judged(
            name: str = name, judge: str = judge, made: Floats = features_NSD, truth: Floats = shown_ND
        ) -> list[Measurement]:
            return _by_features(name, judge, made, truth, image_N, tail, seed, groups_N)

        add(judged, name)
    return value, missing


def _pixels(images: Array, truth: Array, tail: str, seed: int, groups_N: Array | None) -> list[Measurement]:
    """PixCorr and SSIM of grey pictures, at the size of the generated ones."""
    n, s = images.shape[:2]
    between_NSN = pixel_similarity(images, truth, "pcc", size=max(images.shape[2:4]))
    own_NS = between_NSN[np.arange(n), :, np.arange(n)]
    grey_truth, grey = _grey(truth), _grey(images.reshape(-1, *images.shape[2:])).reshape(images.shape)
    ssim_NS = np.stack([ssim_pairs(grey[:, k], grey_truth) for k in range(s)], axis=1)
    order = np.roll(np.arange(n), 1)
    floor = float(ssim_pairs(grey_truth[order], grey_truth).mean()) if n > 1 else None
    others = pixel_similarity(truth[order][:, None], truth, "pcc", size=max(images.shape[2:4]))[np.arange(n), 0, np.arange(n)]
    measured = []
    for name, protocol, values_NS, level in (
        ("pixcorr", "correlation of RGB pixels with the shown picture", own_NS, float(others.mean()) if n > 1 else None),
        ("ssim", "SSIM of grey pictures, Gaussian window of sigma 1.5", ssim_NS, floor),
    ):
        size = f"{protocol}, {images.shape[2]} pixels"
        measured += _mean_and_best(
            f"{name}/correlation/{tail}" if name == "pixcorr" else f"{name}/index/{tail}",
            size,
            values_NS,
            values_NS,
            seed,
            level,
            groups_N,
            "index",
        )
    return measured


def _by_features(
    name: str, judge: str, made_NSD: Floats, truth_ND: Floats, image_N: Ints, tail: str, seed: int, groups_N: Array | None
) -> list[Measurement]:
    """Two-way share, share against all at once, and the correlation itself; for SwAV the distance, 1 - correlation, alone."""
    made, truth = (x - x.mean(-1, keepdims=True) for x in (made_NSD, truth_ND))
    similarity_NSN = cosine_similarity(made, truth)
    n = len(truth)
    own_NS = similarity_NSN[np.arange(n), :, np.arange(n)]
    between = cosine_similarity(truth[:, None], truth)[:, 0]
    different = image_N[:, None] != image_N[None]
    level = float(between[different].mean()) if different.any() else None
    if name == "swav":
        far = None if level is None else 1 - level
        return [
            replace(one, better="lower")
            for one in _mean_and_best(
                f"swav/distance/judge={judge}/{tail}", "1 - correlation of SwAV features, lower is better", 1 - own_NS, own_NS, seed, far, groups_N,
                "distance",
            )
        ]  # fmt: skip
    if not different.any(axis=1).all():
        raise DataError("every trial showed 1 image (identification needs at least 2)", "choose a split with more images")
    others = len(np.unique(image_N)) - 1
    wins = (similarity_NSN < own_NS[:, :, None]) + 0.5 * (similarity_NSN == own_NS[:, :, None])
    wrong_N1N = different[:, None, :]
    values_NS = (wins * wrong_N1N).sum(2) / wrong_N1N.sum(2)
    all_NS = np.where(wrong_N1N, wins, 1.0).min(2)
    result = _mean_and_best(
        f"{name}/share/distractors=1/judge={judge}/{tail}", f"two-way identification by correlation of {judge} features, mean over {others} distractors",
        values_NS, own_NS, seed, 0.5, groups_N, "share",
    )  # fmt: skip
    result += _mean_and_best(
        f"{name}/share/distractors=all-{others}/judge={judge}/{tail}", f"nearer to the shown picture than to all {others} others, {judge} features",
        (all_NS == 1.0).astype(float), own_NS, seed, 1 / (others + 1), groups_N, "share",
    )  # fmt: skip
    return result + _mean_and_best(
        f"{name}/correlation/judge={judge}/{tail}", f"correlation of {judge} features with those of the shown picture", own_NS, own_NS, seed, level,
        groups_N, "index",
    )  # fmt: skip


def _mean_and_best(
    name: str,
    protocol: str,
    values_NS: Floats,
    order_NS: Floats,
    seed: int,
    floor: float | None,
    groups_N: Array | None,
    unit: str,
) -> list[Measurement]:
    """The mean of the samples, and where there are several that of the best by similarity to the answer, which says so."""
    s = values_NS.shape[1]
    result = [mean_measurement(f"{name}=mean-of-{s}", protocol, values_NS, seed=seed, floor=floor, groups_N=groups_N, unit=unit)]
    if s > 1:
        best = values_NS[np.arange(len(values_NS)), order_NS.argmax(1)][:, None]
        note = "chosen by looking at the shown picture: no measure of decoding, given because papers report it"
        result.append(
            mean_measurement(
                f"{name}=best-of-{s}", protocol, best, seed=seed, floor=None, groups_N=groups_N, unit=unit, note=note
            )
        )
    return result


def _grey(images_MHWC: Array) -> Array:
    grey = np.rint(images_MHWC.astype(float) @ GREY).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
