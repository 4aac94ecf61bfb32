"""Linear maps fitted in closed form: ridge regression whose penalty the data choose, and whitening over channels.

Everything is float64 numpy, and is solved in the dual, so that the cost is that of an (N, N) matrix however many features there are.
Legend: N trials, D features, E targets, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dreamdiff.arrays import Array, Floats, Ints
from eegprep.errors import DataError

PENALTIES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Relative to the mean eigenvalue of the kernel: for features in one unit, which keep their relative size."""
STANDARD_PENALTIES = tuple(10.0**power for power in range(-2, 7))
"""For standardised features, whose kernel is divided by their number."""


@dataclass(frozen=True)
class Ridge:
    """targets = features @ weights_DE + offset_E.

    penalty: the one that was chosen. left_over: mean squared error of trials predicted from others, as a share of the targets' variance.
    """

    weights_DE: Floats
    offset_E: Floats
    penalty: float
    left_over: float

    def predict(self, features_ND: ArrayLike) -> Floats:
        """(N, E)."""
        return np.asarray(np.asarray(features_ND, float) @ self.weights_DE + self.offset_E)


def ridge(features_ND: ArrayLike, targets_NE: ArrayLike, *, penalties: Sequence[float] = STANDARD_PENALTIES) -> Ridge:
    """Ridge regression on standardised features; the penalty is the one with the smallest leave-one-out error.

    A feature that does not vary has weight 0.
    """
    x_ND, y_NE = np.asarray(features_ND, float), np.asarray(targets_NE, float)
    mean_D, spread_D = x_ND.mean(0), x_ND.std(0)
    # what only varies by rounding would be blown up to variance 1
    varies_D = spread_D > 1e-9 * max(float(spread_D.max()), 1e-300)
    scale_D = np.where(varies_D, 1 / np.maximum(spread_D, 1e-300), 0.0)
    x_ND = (x_ND - mean_D) * scale_D
    offset_E = y_NE.mean(0)
    # the kernel by the number of features, so that one list of penalties fits few and many
    count = max(x_ND.shape[1], 1)
    dual = Dual(x_ND @ x_ND.T / count, y_NE - offset_E)
    errors = [dual.left_out_error(penalty) for penalty in penalties]
    best = int(np.argmin(errors))
    weights_DE = scale_D[:, None] * (x_ND.T @ dual.solve(penalties[best]) / count)
    variance = float(((y_NE - offset_E) ** 2).mean())
    return Ridge(weights_DE, offset_E - mean_D @ weights_DE, penalties[best], errors[best] / max(variance, 1e-300))


class RidgeDecoder:
    """`ridge` on one-hot labels."""

    def fit(self, features_ND: Array, labels_N: Array) -> RidgeDecoder:
        """Fit to training trials; labels are any integers."""
        if len(features_ND) < 2:
            raise DataError(
                f"a decoder cannot be fitted to {len(features_ND)} training trials (at least 2)", "choose another split"
            )
        self.classes, codes = np.unique(np.asarray(labels_N), return_inverse=True)
        self.fitted = ridge(features_ND, np.eye(len(self.classes))[codes])
        return self

    def scores(self, features_ND: Array) -> Floats:
        """(N, C): one column per class of `classes`."""
        return self.fitted.predict(features_ND)

    def predict(self, features_ND: Array) -> Ints:
        """(N,): the most likely label."""
        return np.asarray(self.classes[self.scores(features_ND).argmax(1)])


def grouped_ridge(
    features_ND: ArrayLike, targets_NE: ArrayLike, groups_N: ArrayLike, *, folds: int = 3, penalties: Sequence[float] = PENALTIES
) -> Ridge:
    """Ridge regression on centred features; the penalty is chosen by predicting whole groups from other groups.

    Args:
        groups_N: trials of one group (of one image, say) are predicted from other groups only: repeats of an image would otherwise
            ask for too small a penalty.
    """
    x_ND, y_NE = np.asarray(features_ND, float), np.asarray(targets_NE, float)
    mean_D, offset_E = x_ND.mean(0), y_NE.mean(0)
    x_ND, y_NE = x_ND - mean_D, y_NE - offset_E
    kernel_NN, total = x_ND @ x_ND.T, max(float((y_NE**2).sum()), 1e-300)
    # whole groups, dealt out in turn
    fold_N = np.unique(np.asarray(groups_N), return_inverse=True)[1] % folds
    left_over = np.zeros(len(penalties))
    for fold in range(folds):
        out, rest = np.flatnonzero(fold_N == fold), np.flatnonzero(fold_N != fold)
        if len(out) and len(rest):
            dual = Dual(kernel_NN[np.ix_(rest, rest)], y_NE[rest])
            predicted = (kernel_NN[np.ix_(out, rest)] @ dual.solve(a * dual.mean) for a in penalties)
            left_over += np.array([float(((y_NE[out] - guess) ** 2).sum()) for guess in predicted]) / total
    best = int(left_over.argmin())
    # once more on all trials, with the penalty that the folds chose
    dual = Dual(kernel_NN, y_NE)
    weights_DE = x_ND.T @ dual.solve(penalties[best] * dual.mean)
    return Ridge(weights_DE, offset_E - mean_D @ weights_DE, penalties[best], float(left_over[best]))


class Dual:
    """(K + a I)^-1 Y for any a, from one eigen-decomposition of the kernel."""

    def __init__(self, kernel_NN: Floats, targets_NE: Floats) -> None:
        values_N, self.vectors_NN = np.linalg.eigh(kernel_NN)
        # a kernel has no negative eigenvalues but by rounding
        self.values_N = np.maximum(values_N, 0.0)
        self.mean = float(self.values_N.mean())
        self.turned_NE = self.vectors_NN.T @ targets_NE

    def solve(self, penalty: float) -> Floats:
        """(N, E) dual weights."""
        return np.asarray(self.vectors_NN @ (self.turned_NE / (self.values_N + penalty)[:, None]))

    def left_out_error(self, penalty: float) -> float:
        """Mean squared error of every trial predicted from all others (closed form; Hastie et al. 2009, section 7.10).

        y - f = a (K + a I)^-1 y, and leaving a trial out divides its residual by 1 - H_ii.
        """
        shrink_N = penalty / (self.values_N + penalty)
        residual_NE = self.vectors_NN @ (shrink_N[:, None] * self.turned_NE)
        leverage_N = (self.vectors_NN**2) @ shrink_N
        return float(((residual_NE / np.maximum(leverage_N, 1e-12)[:, None]) ** 2).mean())


def whitener(eeg_NCT: ArrayLike, floor: float) -> Floats:
    """(C, C) symmetric inverse square root of the covariance over channels, of trials that are centred already.

    Args:
        floor: directions with less than this share of the largest variance are raised no further. With replicated channels the
            covariance does not have full rank.
    """
    eeg = np.asarray(eeg_NCT)
    covariance_CC = np.einsum("nct,ndt->cd", eeg, eeg, optimize=True) / (eeg.shape[0] * eeg.shape[2])
    values_C, vectors_CC = np.linalg.eigh(covariance_CC.astype(float))
    values_C = np.maximum(values_C, floor * max(float(values_C.max()), 1e-30))
    return np.asarray((vectors_CC / np.sqrt(values_C)) @ vectors_CC.T)
