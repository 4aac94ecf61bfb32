"""Closed-form linear models: ridge regression and spatial whitening."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dreamdiff.arrays import Array, Floats, Ints
from eegprep.errors import DataError

# linear maps


class RidgeMap:
    """Ridge regression from features to vectors, the strength chosen by leave-one-out error (as in `RidgeDecoder`)."""

    def fit(self, features_ND: Array, targets_NE: Array) -> RidgeMap:
        """Fit to training trials."""
        x = np.asarray(features_ND, float)
        self.mean_D, spread = x.mean(0), x.std(0)
        self.scale_D = np.where(spread > 1e-9 * max(float(spread.max()), 1e-300), 1 / np.maximum(spread, 1e-300), 0.0)
        x = (x - self.mean_D) * self.scale_D
        self.bias_E = np.asarray(targets_NE, float).mean(0)
        values, vectors = np.linalg.eigh(x @ x.T / x.shape[1])
        values = np.maximum(values, 0)
        projected = vectors.T @ (targets_NE - self.bias_E)
        errors = [left_out_error(values, vectors, projected, ridge) for ridge in RIDGES]
        self.ridge = RIDGES[int(np.argmin(errors))]
        self.weights_DE = x.T @ (vectors @ (projected / (values + self.ridge)[:, None])) / x.shape[1]
        return self

    def predict(self, features_ND: Array) -> Array:
        """(N, E)."""
        return np.asarray((np.asarray(features_ND, float) - self.mean_D) * self.scale_D @ self.weights_DE + self.bias_E)


@torch.no_grad()
def ridge(features_NF: Tensor, targets_ND: Tensor, group_N: Tensor, folds: int = 3) -> tuple[Tensor, Tensor, float]:
    """Linear map (F, D) and offset (D) by ridge regression in the dual: weights X^T (X X^T + a I)^-1 Y of centred rows.

    Args:
        group_N: rows of one group (trials of one image) are predicted from other groups only when the penalty a is chosen;
            otherwise repeats of an image would ask for too small a penalty.

    Returns:
        map, offset, and the share of the targets' variance that is left over in that cross-validation.
    """
    x, y = features_NF - features_NF.mean(0), targets_ND - targets_ND.mean(0)
    kernel_NN, fold_N = x @ x.T, torch.unique(group_N, return_inverse=True)[1] % folds
    left = torch.zeros(len(PENALTIES))
    for fold in range(folds):
        out, rest = torch.nonzero(fold_N == fold)[:, 0], torch.nonzero(fold_N != fold)[:, 0]
        if len(out) and len(rest):
            duals = _dual(kernel_NN[rest][:, rest], y[rest])
            left += torch.stack([(y[out] - kernel_NN[out][:, rest] @ dual).square().sum() for dual in duals]) / y.square().sum()
    best = int(left.argmin())
    weights = x.T @ _dual(kernel_NN, y)[best]
    return weights, targets_ND.mean(0) - features_NF.mean(0) @ weights, float(left[best])


PENALTIES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # relative to the mean eigenvalue of the kernel


def _dual(kernel_NN: Tensor, y_ND: Tensor) -> list[Tensor]:
    """(K + a I)^-1 Y for every penalty."""
    values, vectors = torch.linalg.eigh(kernel_NN)
    turned = vectors.T @ y_ND
    return [vectors @ (turned / (values.clamp_min(0) + a * values.mean())[:, None]) for a in PENALTIES]


def spatial_whitener(features_NCW: Tensor, floor: float = 1e-4) -> Tensor:
    """Symmetric inverse square root of the covariance over channels; directions below `floor` of the largest variance are not raised.

    With replicated channels the covariance has no full rank.
    """
    x_CN = (features_NCW - features_NCW.mean(0)).transpose(0, 1).flatten(1).double()
    values, vectors = torch.linalg.eigh(x_CN @ x_CN.T / x_CN.shape[1])
    return ((vectors / values.clamp_min(floor * float(values.max())).sqrt()) @ vectors.T).float()


RIDGES = tuple(10.0**power for power in range(-2, 7))


# the light decoder


class RidgeDecoder:
    """Ridge regression on one-hot labels, the strength chosen by leave-one-out error on the training trials.

    Features are standardised with the training trials' mean and spread. Solved in the dual, so that the cost is that of an
    (n, n) matrix however many features there are.
    """

    def fit(self, features_ND: Array, labels_N: Array) -> RidgeDecoder:
        """Fit to training trials; labels are any integers."""
        x = np.asarray(features_ND, float)
        if len(x) < 2:
            raise DataError(f"a decoder cannot be fitted to {len(x)} training trials (at least 2)", "choose another split")
        self.mean_D = x.mean(0)
        spread = x.std(0)
        self.scale_D = np.where(spread > 1e-9 * max(float(spread.max()), 1e-300), 1 / np.maximum(spread, 1e-300), 0.0)
        x = (x - self.mean_D) * self.scale_D
        self.classes, codes = np.unique(np.asarray(labels_N), return_inverse=True)
        y = np.eye(len(self.classes))[codes]
        self.bias_C = y.mean(0)
        values, vectors = np.linalg.eigh(x @ x.T / max(x.shape[1], 1))
        values = np.maximum(values, 0)
        projected = vectors.T @ (y - self.bias_C)
        errors = [left_out_error(values, vectors, projected, ridge) for ridge in RIDGES]
        self.ridge = RIDGES[int(np.argmin(errors))]
        dual_NC = vectors @ (projected / (values + self.ridge)[:, None])
        self.weights_DC = x.T @ dual_NC / max(x.shape[1], 1)
        return self

    def scores(self, features_ND: Array) -> Floats:
        """(N, C): one column per class of `classes`."""
        x = (np.asarray(features_ND, float) - self.mean_D) * self.scale_D
        return np.asarray(x @ self.weights_DC + self.bias_C)

    def predict(self, features_ND: Array) -> Ints:
        """(N,): the likeliest label."""
        return np.asarray(self.classes[self.scores(features_ND).argmax(1)])


def left_out_error(values: Floats, vectors: Floats, projected: Floats, ridge: float) -> float:
    """Mean squared error of every trial predicted by all others (closed form; Hastie et al. 2009, section 7.10).

    Args:
        values, vectors: eigen-decomposition of the (n, n) kernel. projected: vectors.T @ targets.

    y - f = ridge (K + ridge)^-1 y, and leaving a trial out divides its residual by 1 - H_ii.
    """
    shrink = ridge / (values + ridge)
    residual = vectors @ (shrink[:, None] * projected)
    leverage = (vectors**2) @ shrink
    return float(((residual / np.maximum(leverage, 1e-12)[:, None]) ** 2).mean())
