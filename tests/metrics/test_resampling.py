"""The bootstrap draws many resamples at once: the same numbers, bit for bit, as one after the other."""

import numpy as np
import pytest

from dreamdiff.metrics import measurement as m


def one_after_the_other(values_N, groups_FN, seed, resamples):
    """The definition: levels of each drawn factor with replacement, weights multiplied."""
    rows = m.drawn_rows(groups_FN) or [0]
    codes, member = np.unique(groups_FN[rows], axis=1, return_inverse=True)
    sums, counts = np.bincount(member.reshape(-1), values_N), np.bincount(member.reshape(-1)).astype(float)
    codes = [np.unique(row, return_inverse=True)[1] for row in codes]
    rng, means = np.random.default_rng(seed), []
    for _ in range(resamples):
        weight = np.zeros(len(sums))
        while not (weight * counts).sum():
            weight = np.ones(len(sums))
            for row in codes:
                n = int(row.max()) + 1
                weight *= np.bincount(rng.integers(n, size=n), minlength=n)[row]
        means.append((weight * sums).sum() / (weight * counts).sum())
    return np.array(means)


@pytest.mark.parametrize("at_once", [m._DRAWN_AT_ONCE, 700])
@pytest.mark.parametrize("n", [1, 17, 300])
def test_crossed_factors_are_drawn_as_one_after_the_other(monkeypatch, n, at_once):
    monkeypatch.setattr(m, "_DRAWN_AT_ONCE", at_once)
    rng = np.random.default_rng(n)
    groups = m.units(rng.integers(0, 8, n), rng.integers(0, 4, n), rng.integers(0, 60, n))
    for values in (rng.normal(size=n), rng.integers(0, 2, n).astype(float)):  # the second finds the weights of the first
        for seed in (0, 3):
            np.testing.assert_array_equal(
                m.crossed_means(values, groups, seed, 150), one_after_the_other(values, groups, seed, 150)
            )


@pytest.mark.parametrize("at_once", [m._DRAWN_AT_ONCE, 700])
def test_single_trials_are_drawn_as_one_after_the_other(monkeypatch, at_once):
    monkeypatch.setattr(m, "_DRAWN_AT_ONCE", at_once)
    values, rng = np.random.default_rng(5).normal(size=230), np.random.default_rng(9)
    means = [values[rng.integers(230, size=230)].sum() / 230 for _ in range(400)]

    assert m.bootstrap_interval(values, 9, resamples=400) == tuple(np.quantile(means, [0.025, 0.975]))
