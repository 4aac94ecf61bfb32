"""The recipe of image tasks: windows in milliseconds around the picture at one rate, a baseline, noise normalisation, posterior electrodes.

The paper's recipe (5 to 95 Hz, 512 samples, rows filled up to 128) is for its encoder. Studies of pictures keep the electrodes that were recorded,
subtract the mean before the picture, and divide by the noise: multivariate noise normalisation (Guggenmos et al. 2018), x -> R^(-1/2) x, with
R the mean over trials of the covariance of electrodes over time. R is fitted to training trials alone, of one person and session.
Shapes: N trials, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from dreamdiff.arrays import Array, Floats
from dreamdiff.pairs.importers.importer import Batch
from dreamdiff.whitening import inverse_root
from eegprep.errors import DataError
from eegprep.signals.channels import canonical_name

POSTERIOR = (
    "P7", "P5", "P3", "P1", "Pz", "P2", "P4", "P6", "P8", "PO7", "PO3", "POz", "PO4", "PO8", "O1", "Oz", "O2",
)  # fmt: skip
"""The 17 parietal and occipital electrodes of UBP and NeuroBridge."""

SHRINKAGE = 0.01  # ours: an average reference leaves a covariance without full rank

Electrodes = Literal["all", "posterior"]


def electrodes_of(names: Sequence[str], chosen: Electrodes, source: str) -> tuple[str, ...]:
    """Names of the electrodes that a store keeps, as the recording spells them.

    Raises:
        DataError: a posterior electrode is not there; all that are missing are named.
    """
    if chosen == "all":
        return tuple(names)
    spelt = {canonical_name(name): name for name in names}
    missing = [name for name in POSTERIOR if canonical_name(name) not in spelt]
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of the 17 posterior electrodes are not there ({', '.join(missing)})",
            "use --electrodes all",
        )
    return tuple(spelt[canonical_name(name)] for name in POSTERIOR)


def rows_of(names: Sequence[str], kept: Sequence[str], source: str) -> tuple[int, ...]:
    """Which channel of a recording each row of the store is; electrodes go by name.

    Raises:
        DataError: an electrode of the first recording is not in this one.
    """
    place = {canonical_name(name): number for number, name in enumerate(names)}
    missing = [name for name in kept if canonical_name(name) not in place]
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(kept)} electrodes of the first recording are not there ({', '.join(missing[:5])})",
            "import this person apart, or keep what all have with --channel-names",
        )
    return tuple(place[canonical_name(name)] for name in kept)


def without_baseline(eeg_NCT: Array, sfreq: float, t0: float, baseline_ms: tuple[float, float] | None) -> Array:
    """(N, C, T) float32 less the mean of each channel over `baseline_ms`.

    Raises:
        DataError: the window holds no sample of it.
    """
    if baseline_ms is None:
        return np.asarray(eeg_NCT, np.float32)
    time_ms = 1000 * (t0 + np.arange(eeg_NCT.shape[2]) / sfreq)
    # half a sample of slack: the end of a baseline at 0 ms must not depend on rounding
    inside = (time_ms >= baseline_ms[0] - 500 / sfreq) & (time_ms < baseline_ms[1])
    if not inside.any():
        raise DataError(
            f"the window from {time_ms[0]:.0f} to {time_ms[-1]:.0f} ms holds no sample of the baseline {baseline_ms[0]:g}:{baseline_ms[1]:g} ms",
            "begin the window before the picture (--window-ms), or use --baseline-ms none",
        )
    return np.asarray(eeg_NCT - eeg_NCT[:, :, inside].mean(2, keepdims=True), np.float32)


class NoiseNormaliser:
    """R^(-1/2) of one person's sessions, from training trials alone."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._sums: dict[int, Floats] = {}
        self._counts: dict[int, int] = {}
        self._matrices: dict[int, Floats] = {}

    def fit(self, batches: Iterable[Batch], training_N: Array) -> NoiseNormaliser:
        """Read all trials once and use those of `training_N` ((N,) bool, in the order of the store).

        Raises:
            DataError: the person has no training trial.
        """
        start = 0
        for batch in batches:
            eeg_NCT, session_N = _arrays(batch)
            training = np.asarray(training_N[start : start + len(eeg_NCT)], bool)
            start += len(eeg_NCT)
            for session in np.unique(session_N[training]):
                x_NCT = eeg_NCT[training & (session_N == session)].astype(np.float64)
                x_NCT -= x_NCT.mean(2, keepdims=True)
                total_CC = np.einsum("nct,ndt->cd", x_NCT, x_NCT, optimize=True) / x_NCT.shape[2]
                self._sums[int(session)] = self._sums.get(int(session), np.zeros_like(total_CC)) + total_CC
                self._counts[int(session)] = self._counts.get(int(session), 0) + len(x_NCT)
        if not self._counts:
            raise DataError(
                f"subject {self.subject}: no training trial, and noise is normalised by training trials alone",
                "leave --mvnn out: `dreamdiff train align` whitens everybody by trials without labels; or choose another split",
            )
        whole_CC = np.sum(list(self._sums.values()), axis=0) / sum(self._counts.values())
        # a session that holds no training trial gets what the person's others have
        self._matrices = {session: inverse_root(self._sums[session] / self._counts[session], SHRINKAGE) for session in self._sums}
        self._default = inverse_root(whole_CC, SHRINKAGE)
        return self

    def apply(self, batch: Batch) -> Batch:
        """The same trials in units of the noise."""
        eeg_NCT, session_N = _arrays(batch)
        out_NCT = np.empty_like(eeg_NCT, dtype=np.float32)
        for session in np.unique(session_N):
            rows = session_N == session
            out_NCT[rows] = self._matrices.get(int(session), self._default) @ eeg_NCT[rows]
        return Batch(out_NCT, batch.columns)

    @property
    def record(self) -> Mapping[str, object]:
        """What the store says of it."""
        return {
            "noise_normalisation": {
                "fitted_on": "training trials",
                "trials": sum(self._counts.values()),
                "sessions": len(self._counts),
            },
            "unit": "standard deviations of the noise",
        }


def _arrays(batch: Batch) -> tuple[Array, Array]:
    eeg_NCT = np.asarray(batch.eeg_NCT)
    return eeg_NCT, np.asarray(batch.columns.get("session", np.zeros(len(eeg_NCT), np.int64)))
