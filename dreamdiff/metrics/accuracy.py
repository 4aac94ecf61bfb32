"""n-way accuracy, its expectation and floor, and confusion matrices."""

from __future__ import annotations

import numpy as np
from scipy.stats import hypergeom

from dreamdiff.arrays import Array, Floats, Ints
from dreamdiff.metrics.measurement import Measurement, mean_measurement
from eegprep.errors import DataError
from eegprep.words import count

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
                # numbers 0..k-2 onto all classes but the true one
                others = others + (others >= true)
                hits_NS[item, sample] += _hit(scores_K[true], scores_K[others], top_k)
    floor = float(expected_n_way(truth_NK, classes_N, n_way=n_way, top_k=top_k).mean())
    return mean_measurement(
        f"{n_way}-way-top-{top_k}",
        f"{n_way}-way top-{top_k}: true class = {classifier or 'classifier'} on the shown image, {n_way - 1} others drawn from "
        f"{k - 1} classes, {draws} draws, mean over {count(s, 'sample')} (DreamDiffusion)",
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
    of_class_MN = scores[:, np.asarray(classes_N)]
    # ties count for the image: with probabilities of a network they rarely occur
    higher_MN = np.stack([k - np.searchsorted(row, values, side="right") for row, values in zip(order, of_class_MN, strict=True)])
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
    # the true class must not rank above itself
    np.put_along_axis(others, np.broadcast_to(labels[:, None, None], (n, s, 1)), -np.inf, axis=2)
    hits_NS = _rank_hit((others > own_NS1).sum(2), (others == own_NS1).sum(2), top_k)
    return mean_measurement(
        f"{c}-way-shown-top-{top_k}",
        f"{c}-way top-{top_k} within the shown categories: truth = label in the data set, judge = {judge or 'classifier'}, "
        f"mean over {count(s, 'sample')}",
        hits_NS, seed=seed, floor=prior_floor(labels, c, top_k), groups_N=groups_N,
        note="floor: classes drawn by their frequency among these trials",
    )  # fmt: skip


def prior_floor(labels_N: Array, classes: int, top_k: int = 1) -> float:
    """Top-k accuracy of a guesser who draws k different classes by their frequency, one after another."""
    shares = np.bincount(np.asarray(labels_N), minlength=classes) / len(labels_N)
    if top_k == 1:
        return float((shares**2).sum())
    # by symmetry; else the chance of being drawn second depends on what was drawn first, and is counted
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
