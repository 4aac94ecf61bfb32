"""A measured value with its interval, and the bootstrap behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dreamdiff.arrays import Array, Floats, Ints
from eegprep.errors import DataError

LEVEL = 0.95  # of every interval

RESAMPLES = 2000

FEWEST_FOR_INTERVAL = 2  # independent trials: one number has no spread

FEWEST_FOR_VERDICT = 5  # below, the bootstrap draws the same few values again and calls chance a result


@dataclass(frozen=True)
class Measurement:
    """One number with everything needed to read it.

    value, low, high: point estimate and 95 % interval, in `unit`; low and high are NaN where there are too few trials for one.
    independent: trials, or groups of trials of one image, that the interval rests on; None where that is not what is counted.
    floor: what a guesser reaches who knows the class frequencies only; None where the metric has none.
    values_N: the value of every trial, for differences and for the report; empty for distances between sets. groups_N: trials with
    equal numbers were resampled together; None where each trial was drawn by itself.
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
    independent = len(values_N) if groups_N is None else len(np.unique(groups_N))
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
        groups_N=None if groups_N is None else np.unique(np.asarray(groups_N), return_inverse=True)[1].astype(np.int64),
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
