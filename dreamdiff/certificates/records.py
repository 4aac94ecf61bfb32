"""A certificate says what each part of a system is worth: rows measured on the same trials, stored trial by trial.

No report holds an accuracy without one. Its rows (`REQUIRED`, and one for each path from EEG to vector) are the system as it is,
its encoder silenced, given other trials, and replaced by an untrained one; closed-form decoders; and the two ends of the scale,
the true vector of the picture (the oracle) and the vector of some other picture.

`predictions.npz` beside the report holds, for every row and measure, what was predicted of each trial, and the truth; from it every
accuracy can be computed again (`certificates.check`).
Shapes: N trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from dreamdiff.arrays import Ints
from dreamdiff.metrics.measurement import Measurement, crossed_means, mean_measurement
from dreamdiff.untrusted.arrays import load_npz
from eegprep import atomic
from eegprep.provenance import sha256_file

PREDICTIONS_FILE = "predictions.npz"
WHOLE, ZEROED, OTHERS, RANDOM = "as it is", "encoder zeroed", "encoder of other trials", "random encoder"
RIDGE, WHITENED, ORACLE, GUESS = "ridge", "ridge, whitened", "oracle", "random vector"
REQUIRED = (WHOLE, ZEROED, OTHERS, RANDOM, RIDGE, WHITENED, ORACLE, GUESS)
Part = Literal["system", "control", "path", "closed form", "limit"]


def path_row(path: str) -> str:
    """Name of the row in which only this path from EEG to vector works."""
    return f"{path} alone"


@dataclass(frozen=True)
class Row:
    """One way to come by the vectors or pictures of the trials.

    predicted: measure -> (N,) what was predicted of each trial, -1 where nothing was. missing: why the row could not be measured.
    """

    name: str
    part: Part
    description: str
    predicted: Mapping[str, Ints]
    missing: str = ""


@dataclass(frozen=True)
class Certificate:
    """Rows of one system on one set of trials.

    truth: measure -> (N,) what is right, -1 for trials that a measure leaves out. floors: measure -> share of a guesser.
    groups: measure -> (3, N) from `metrics.measurement.units`: categories and people are resampled as wholes; or (N,) pictures. A measure may have its own trials. paths: ways from EEG to vector.
    """

    rows: tuple[Row, ...]
    truth: Mapping[str, Ints]
    floors: Mapping[str, float]
    protocols: Mapping[str, str]
    groups: Mapping[str, Ints]
    paths: tuple[str, ...] = ("encoder",)
    seed: int = 0

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def accuracy(self, row: str, measure: str | None = None) -> Measurement | None:
        """Share of trials of a row that are right, or None where the row was not measured."""
        measure = measure or self.main_measure
        predicted = next((result.predicted.get(measure) for result in self.rows if result.name == row), None)
        if predicted is None:
            return None
        return accuracy_of(
            f"{row}: {measure}", self.protocols[measure], predicted, self.truth[measure], self.groups[measure], self.floors[measure],
            self.seed,
        )  # fmt: skip

    @property
    def main_measure(self) -> str:
        """What the first sentence speaks of."""
        return next(iter(self.truth))

    @property
    def sentence(self) -> str:
        """Which part earns the accuracy, in one line."""
        whole, silent, oracle = (self.accuracy(name) for name in (WHOLE, ZEROED, ORACLE))
        if whole is None:
            return "no part was measured"
        beside = ", ".join(
            f"{name} {result.value:.1%}"
            for name in (RIDGE, WHITENED, ORACLE, GUESS)
            if (result := self.accuracy(name)) is not None
        )
        share = f", {whole.value / oracle.value:.0%} of the oracle" if oracle is not None and oracle.value > 0 else ""
        figure = f"{whole.value:.1%} {whole.interval()} of {whole.n} trials{share} (chance {whole.floor:.1%})"
        if not whole.above_floor:
            return f"NOTHING IS DECODED: {self.main_measure} {figure}; beside it: {beside}"
        if silent is None:
            return f"{self.main_measure} {figure}; the part of the encoder could not be measured: {self[ZEROED].missing}"
        low, high = self.difference(WHOLE, ZEROED)
        drop = f"{silent.value:.1%} with the encoder silenced (difference {low:+.1%} to {high:+.1%})"
        if low > 0:
            earns = (
                "The learned encoder earns it"
                if self.paths == ("encoder",) or silent.above_floor is False
                else "The learned encoder adds to it"
            )
            return f"{earns}: {self.main_measure} {figure}; {drop}; beside it: {beside}"
        others = [path for path in self.paths if path != "encoder"]
        earner = f"the {others[0]} earns it" if others else "something other than the encoder earns it"
        return f"THE LEARNED ENCODER CONTRIBUTES NOTHING, {earner}: {self.main_measure} {figure}; {drop}; beside it: {beside}"

    def difference(self, first: str, second: str, measure: str | None = None) -> tuple[float, float]:
        """95 % interval of the paired difference in accuracy between two rows, resampled by picture."""
        measure = measure or self.main_measure
        keep = self.truth[measure] >= 0
        hits = [(self[name].predicted[measure] == self.truth[measure])[keep].astype(float) for name in (first, second)]
        return paired_interval(hits[0] - hits[1], self.groups[measure][..., keep], self.seed)

    def to_json(self) -> dict[str, Any]:
        """The section `certificate` of a report."""
        return {
            "sentence": self.sentence,
            "paths": list(self.paths),
            "measures": {
                name: {"floor": self.floors[name], "protocol": self.protocols[name], "n": int((truth >= 0).sum())}
                for name, truth in self.truth.items()
            },
            "rows": [self._row_json(row) for row in self.rows],
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        content: dict[str, Any] = {"name": row.name, "part": row.part, "description": row.description, "accuracy": {}}
        if row.missing:
            content["missing"] = row.missing
        for measure in row.predicted:
            value, oracle = self.accuracy(row.name, measure), self._oracle(measure)
            assert value is not None
            content["accuracy"][measure] = {
                "value": value.value, "low": value.to_json()["low"], "high": value.to_json()["high"], "n": value.n, "floor": value.floor, "seed": value.seed,
                "share_of_oracle": value.value / oracle if oracle else None,
            }  # fmt: skip
        return content

    def _oracle(self, measure: str) -> float | None:
        if ORACLE not in [row.name for row in self.rows]:
            return None
        result = self.accuracy(ORACLE, measure)
        return None if result is None else result.value

    def arrays(self) -> dict[str, np.ndarray]:
        """What `predictions.npz` holds of it."""
        out = {f"groups/{measure}": np.asarray(self.groups[measure], np.int64) for measure in self.truth}
        out |= {f"truth/{measure}": np.asarray(values, np.int64) for measure, values in self.truth.items()}
        for row in self.rows:
            out |= {f"row/{row.name}/{measure}": np.asarray(values, np.int64) for measure, values in row.predicted.items()}
        return out


def accuracy_of(
    name: str, protocol: str, predicted_N: Ints, truth_N: Ints, groups_N: Ints, floor: float, seed: int
) -> Measurement:
    """Share of the trials that a measure counts (truth >= 0) whose prediction is right, resampled by picture."""
    keep = np.asarray(truth_N) >= 0
    hits = (np.asarray(predicted_N) == np.asarray(truth_N))[keep]
    return mean_measurement(
        name, protocol, hits.astype(float)[:, None], seed=seed, floor=floor, groups_N=np.asarray(groups_N)[..., keep]
    )


def paired_interval(difference_N: np.ndarray, groups_N: Ints, seed: int, resamples: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of a mean of paired differences, whole groups resampled."""
    if np.ndim(groups_N) == 2:
        low, high = np.quantile(crossed_means(difference_N, groups_N, seed, resamples), [0.025, 0.975])
        return float(low), float(high)
    _, member = np.unique(groups_N, return_inverse=True)
    sums, counts = np.bincount(member, difference_N), np.bincount(member).astype(float)
    # paired: both rows lose the same pictures in a resample, so that what is hard for both does not widen the interval
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def write_predictions(
    folder: Path, trials: Ints, certificate: Certificate, measurements: Mapping[str, Measurement] | Sequence[Measurement] = ()
) -> dict[str, str]:
    """Write `predictions.npz` and return what the report says about it.

    Args:
        trials: numbers of the trials in their store. measurements: further accuracies of the report; their values of single trials
            are stored under `values/NAME`, and which of them were resampled together under `value-groups/NAME`.
    """
    named = measurements if isinstance(measurements, Mapping) else {m.name: m for m in measurements}
    arrays = {"trials": np.asarray(trials, np.int64), **certificate.arrays()}
    for name, m in named.items():
        if len(m.values_N):
            arrays[f"values/{name}"] = np.asarray(m.values_N, float)
            if m.groups_N is not None:
                arrays[f"value-groups/{name}"] = m.groups_N
    with atomic.open_atomic(folder / PREDICTIONS_FILE) as file:
        np.savez_compressed(file, **cast(Any, arrays))
    return {"file": PREDICTIONS_FILE, "sha256": sha256_file(folder / PREDICTIONS_FILE)}


def read_predictions(file: Path) -> dict[str, np.ndarray]:
    """Arrays of `predictions.npz` by name."""
    return load_npz(file)
