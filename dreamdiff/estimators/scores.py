"""Balanced accuracy with its interval, and what permuted labels give.

Shapes: N trials or windows.
"""

from __future__ import annotations

import numpy as np

RESAMPLES = 500

INTERVAL = (2.5, 97.5)  # percent: 95 % intervals throughout


def balanced_accuracy(label_N: np.ndarray, guess_N: np.ndarray) -> float:
    """Mean over labels of the share of its windows that were recognised."""
    return float(np.mean([np.mean(guess_N[label_N == label] == label) for label in np.unique(label_N)]))


def judge(
    label_N: np.ndarray, guess_N: np.ndarray, group_N: np.ndarray, over: str, rng: np.random.Generator,
    within_N: np.ndarray | None = None,
) -> tuple[float, float, float, float, float]:  # fmt: skip
    """Balanced accuracy, its 95 % bootstrap interval, and where 95 % of scores lie when labels are shuffled.

    Args:
        over: what is drawn with replacement for the interval: "groups" of `group_N`, or "windows".
        within_N: labels are shuffled within these; within the groups when left out.
    """
    names, code_N = np.unique(label_N, return_inverse=True)
    said_N = np.where(np.isin(guess_N, names), np.searchsorted(names, guess_N).clip(0, len(names) - 1), -1)
    unit_N = np.unique(group_N, return_inverse=True)[1].reshape(-1) if over == "groups" else np.arange(len(label_N))
    count = int(unit_N.max()) + 1
    total_UK, hit_UK = np.zeros((count, len(names))), np.zeros((count, len(names)))
    np.add.at(total_UK, (unit_N, code_N), 1.0)
    np.add.at(hit_UK, (unit_N, code_N), (said_N == code_N).astype(float))
    often_RU = np.stack([np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(RESAMPLES)])
    with np.errstate(invalid="ignore"):  # a draw without a label has no accuracy for it
        resampled_R = np.nanmean((often_RU @ hit_UK) / (often_RU @ total_UK), axis=1)
    strata = group_N if within_N is None else within_N
    members = [np.flatnonzero(strata == name) for name in np.unique(strata)]
    permuted_N, shuffled = code_N.copy(), []
    for _ in range(RESAMPLES):
        for rows in members:
            permuted_N[rows] = rng.permutation(code_N[rows])
        right_K = np.bincount(permuted_N, weights=permuted_N == said_N, minlength=len(names))
        shuffled.append(float((right_K / total_UK.sum(0)).mean()))
    low, high = np.percentile(resampled_R, INTERVAL)
    chance_low, chance_high = np.percentile(shuffled, INTERVAL)
    value = float((hit_UK.sum(0) / total_UK.sum(0)).mean())
    return value, float(low), float(high), float(chance_low), float(chance_high)
