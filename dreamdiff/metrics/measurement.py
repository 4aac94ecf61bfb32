"""A measured value with its interval, and the bootstrap behind it.

An accuracy varies with the trials, with the pictures that were shown, with the categories that they were drawn from, and with the people.
Where a measurement knows these (`units`), whole categories and whole people are drawn again, not single trials: ten trials of one category are
not ten independent answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from dreamdiff.arrays import Array, Floats, Ints
from eegprep.errors import DataError

LEVEL = 0.95  # of every interval

RESAMPLES = 2000

FEWEST_FOR_INTERVAL = 2  # independent trials: one number has no spread

FEWEST_FOR_VERDICT = 5  # below, the bootstrap draws the same few values again and calls chance a result

FEWEST_CATEGORIES = 5  # fewer are the design itself (faces or houses), not a sample of what could have been shown

UNIT_NAMES = ("categories", "people", "pictures")


@dataclass(frozen=True)
class Measurement:
    """One number with everything needed to read it.

    value, low, high: point estimate and 95 % interval, in `unit`; low and high are NaN where there are too few trials for one.
    independent: trials, or groups of trials of one image, that the interval rests on; None where that is not what is counted.
    floor: what a guesser reaches who knows the class frequencies only; None where the metric has none.
    resampled: what the interval draws again, as in "40 categories and 10 people"; empty where it draws single trials.
    values_N: the value of every trial, for differences and for the report; empty for distances between sets. groups_N: trials with
    equal numbers were resampled together, or the factors of `units`; None where each trial was drawn by itself.
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
    independent: int | None = None
    groups_N: Ints | None = field(default=None, repr=False, compare=False)
    resampled: str = ""

    @property
    def above_floor(self) -> bool | None:
        """Whether the whole interval lies on the good side of the floor; None without a floor, an interval, or trials enough for either."""
        few = self.independent is not None and self.independent < FEWEST_FOR_VERDICT
        if self.floor is None or few or not np.isfinite([self.low, self.high]).all():
            return None
        return self.low > self.floor if self.better == "higher" else self.high < self.floor

    def to_json(self) -> dict[str, object]:
        """Plain JSON values, without the values of single trials."""
        plain = {k: v for k, v in vars(self).items() if k not in ("values_N", "groups_N", "independent")}
        ends = {k: plain[k] if np.isfinite(plain[k]) else None for k in ("low", "high")}
        return {**plain, **ends, "above_floor": self.above_floor}

    def between(self, form: str = ".4g") -> str:
        """The interval as a cell of a table, `0.102 to 0.35`; empty where there are too few trials for one."""
        return f"{self.low:{form}} to {self.high:{form}}" if np.isfinite([self.low, self.high]).all() else ""

    def interval(self, form: str = ".1%") -> str:
        """The interval as text, `[10.2%, 35.0%]`, or why there is none."""
        if not np.isfinite([self.low, self.high]).all():
            return f"(n = {self.n}: no interval)"
        return f"[{self.low:{form}}, {self.high:{form}}]"


_DRAWN_AT_ONCE = 2**20  # numbers; 8 MB


def bootstrap_interval(
    values_N: Floats, seed: int, *, groups_N: Array | None = None, level: float = LEVEL, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the mean; whole groups are drawn where `groups_N` says which trials belong together.

    Args:
        groups_N: (N,) one number a trial, or (F, N) from `units`: every factor is drawn again, and a trial counts as often as its levels do
            together.

    Source: Efron 1979 (percentile bootstrap); Davison and Hinkley 1997, section 3.8 (clusters); Owen 2007 (crossed factors: the
    "pigeonhole" bootstrap, which errs on the wide side).
    """
    values = np.asarray(values_N, float)
    if len(values) == 0:
        raise DataError("a mean of 0 trials has no interval (at least 1 is needed)", "choose a split that holds trials")
    sums, counts = values, np.ones_like(values)
    if groups_N is not None and np.ndim(groups_N) == 2:
        means = crossed_means(values, np.asarray(groups_N), seed, resamples)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
    if groups_N is not None:
        _, member = np.unique(np.asarray(groups_N), return_inverse=True)
        sums, counts = np.bincount(member, values), np.bincount(member).astype(float)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, _DRAWN_AT_ONCE // len(sums))
    for first in range(0, resamples, at_once):
        # groups, not trials: trials of one picture are not independent
        drawn = rng.integers(len(sums), size=(min(at_once, resamples - first), len(sums)))
        means[first : first + at_once] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def units(category_N: Array, person_N: Array, picture_N: Array) -> Ints:
    """(3, N): category, person and picture of each trial, for `groups_N`. A handful of categories is left out: they are not a sample."""
    rows = [np.unique(np.asarray(row), return_inverse=True)[1].reshape(-1) for row in (category_N, person_N, picture_N)]
    if len(np.unique(rows[0])) < FEWEST_CATEGORIES:
        rows[0] = np.zeros_like(rows[0])
    return np.stack(rows).astype(np.int64)


def drawn_rows(groups_FN: Array) -> list[int]:
    """Factors that are drawn again: those with two levels or more that do not lie within another one (pictures follow their category)."""
    levels = [len(np.unique(row)) for row in groups_FN]
    kept = [f for f, count in enumerate(levels) if count > 1]

    def within(inner: int, outer: int) -> bool:
        both = len(np.unique(np.stack([groups_FN[inner], groups_FN[outer]]), axis=1).T)
        return both == levels[inner] and (levels[inner] > levels[outer] or outer < inner)

    return [f for f in kept if not any(g != f and within(f, g) for g in kept)]


def crossed_means(values_N: Array, groups_FN: Array, seed: int, resamples: int = RESAMPLES) -> Floats:
    """(resamples,) means of resampled trials: levels of each drawn factor with replacement, weights multiplied."""
    rows = drawn_rows(groups_FN) or [int(np.argmax([len(np.unique(row)) for row in groups_FN]))]
    codes, member = np.unique(np.asarray(groups_FN)[rows], axis=1, return_inverse=True)
    member = member.reshape(-1)
    sums, counts = np.bincount(member, np.asarray(values_N, float)), np.bincount(member).astype(float)
    codes = np.stack([np.unique(row, return_inverse=True)[1].reshape(-1) for row in codes]).astype(np.int64)
    means = np.empty(resamples)
    at_once = max(1, _DRAWN_AT_ONCE // len(sums))
    # a report draws the same trials again for each of its figures: weights depend on who was shown what, not on the values
    weights = _kept_weights if resamples <= at_once else _weights
    for first, weight_RM in weights(codes.tobytes(), len(codes), counts.tobytes(), seed, resamples, at_once):
        means[first : first + len(weight_RM)] = (weight_RM * sums).sum(axis=1) / (weight_RM * counts).sum(axis=1)
    return means


def _weights(codes: bytes, factors: int, counts: bytes, seed: int, resamples: int, at_once: int) -> Iterator[tuple[int, Floats]]:
    """(number of the first, how often each cell of the drawn factors counts (resamples, cells)), `at_once` resamples at a time."""
    codes_FM, counts_M = np.frombuffer(codes, np.int64).reshape(factors, -1), np.frombuffer(counts)
    rng, levels = np.random.default_rng(seed), [int(row.max()) + 1 for row in codes_FM]
    for first in range(0, resamples, at_once):
        weight_RM = np.empty((min(at_once, resamples - first), len(counts_M)))
        for weight_M in weight_RM:
            weight_M[:] = 0.0
            while not (weight_M * counts_M).sum():  # people and categories that were drawn may not have met
                weight_M[:] = 1.0
                for row, n in zip(codes_FM, levels, strict=True):
                    weight_M[:] = weight_M * np.bincount(rng.integers(n, size=n), minlength=n)[row]
        yield first, weight_RM


@lru_cache(maxsize=8)
def _kept_weights(*arguments: Any) -> tuple[tuple[int, Floats], ...]:
    """The same as a whole, kept for the figures that follow."""
    return tuple(_weights(*arguments))


def resampled_text(groups_N: Array | None) -> str:
    """What an interval draws again, in words; only `units` knows names."""
    if groups_N is None or np.ndim(groups_N) != 2 or len(groups_N) != len(UNIT_NAMES):
        return ""
    parts = [f"{len(np.unique(groups_N[f]))} {UNIT_NAMES[f]}" for f in drawn_rows(np.asarray(groups_N))]
    return " and ".join(parts)


def _numbered(groups_N: Array) -> Ints:
    """Groups, or each factor of them, numbered from 0."""
    groups = np.asarray(groups_N)
    rows = [np.unique(row, return_inverse=True)[1].reshape(-1).astype(np.int64) for row in np.atleast_2d(groups)]
    return np.stack(rows) if groups.ndim == 2 else rows[0]


def independent_units(groups_N: Array) -> int:
    """Groups, or levels of the finest factor."""
    groups = np.atleast_2d(np.asarray(groups_N))
    return max(len(np.unique(row)) for row in groups)


def mean_measurement(
    name: str, protocol: str, values_NS: Array, *, seed: int, floor: float | None, groups_N: Array | None = None,
    better: Literal["higher", "lower"] = "higher", unit: str = "share", note: str = "",
) -> Measurement:  # fmt: skip
    """The mean over samples, then over trials, with its interval."""
    values_N = np.asarray(values_NS, float).reshape(len(values_NS), -1).mean(axis=1)
    independent = len(values_N) if groups_N is None else independent_units(groups_N)
    low, high = (
        bootstrap_interval(values_N, seed, groups_N=groups_N) if independent != 1 else (float("nan"), float("nan"))
    )  # of no trial at all, that is the error
    if unit == "share" and independent >= FEWEST_FOR_INTERVAL:
        low, high = _no_narrower_than_wilson(values_N, low, high, groups_N)
    return Measurement(
        name,
        protocol,
        float(values_N.mean()),
        low,
        high,
        len(values_N),
        seed,
        floor,
        better,
        unit,
        note,
        values_N=values_N,
        independent=independent,
        groups_N=None if groups_N is None else _numbered(groups_N),
        resampled=resampled_text(groups_N),
    )


def _no_narrower_than_wilson(values_N: Floats, low: float, high: float, groups_N: Array | None) -> tuple[float, float]:
    """Fewer than ten hits (or misses) cannot be resampled into an honest interval: none in 50 would give [0, 0].

    Source: Wilson 1927; the limit of ten is the usual rule for the normal approximation.
    """
    n = len(values_N) if groups_N is None else independent_units(groups_N)
    p = float(values_N.mean())
    if min(p, 1 - p) * n >= 10:
        return low, high
    z2 = 1.96**2
    centre, half = (p + z2 / (2 * n)) / (1 + z2 / n), 1.96 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return min(low, max(0.0, float(centre - half))), max(high, min(1.0, float(centre + half)))
