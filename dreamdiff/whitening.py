"""Whitens a person's EEG by the person's own unlabelled windows, after bringing it to one rate and band.

    x -> resampled, band-passed -> R^(-1/2) x      R: mean covariance of the person's windows

The root is symmetric: rows stay electrodes, and it commutes with exchanging left and right. No label is used, so a new person needs
unlabelled windows only. Sources: He and Wu 2020 (Euclidean alignment); Zanini et al. 2018 (Riemannian recentring); Moakher 2005
(the Riemannian mean). Shapes: N windows, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import Field

from dreamdiff.arrays import Floats
from eegprep.errors import SignalError
from eegprep.settings import Settings

Align = Literal["none", "euclidean", "riemann"]


class WhiteningConfig(Settings):
    """What is done to a person's EEG before the first layer; part of the model, so that weights and input never part."""

    sfreq: float = Field(default=80.0, gt=0, description="Sampling rate that the encoder reads, Hz; other rates are resampled")
    band: tuple[float, float] | None = Field(
        default=(8.0, 32.0), description="Pass band before whitening, Hz; none for data that are filtered already"
    )
    align: Align = Field(
        default="euclidean",
        description="Whiten by a person's mean covariance (euclidean), its Riemannian mean (riemann), or not (none)",
    )
    shrinkage: float = Field(
        default=0.01, ge=0, lt=1, description="Share of the mean variance that is added to the diagonal before the inverse root"
    )


def band_passed(x_NCT: np.ndarray, sfreq: float, low: float, high: float) -> Floats:
    """Windows filtered by a Butterworth of order 4 forwards and backwards; three periods of the lower edge are mirrored at the ends."""
    from scipy.signal import butter, sosfiltfilt  # late: a loader process needs no filters

    # second-order sections: the polynomials of a narrow band lose their digits
    sections = butter(4, (low, high), "bandpass", fs=sfreq, output="sos")
    padding = min(x_NCT.shape[-1] - 1, round(3 * sfreq / low))
    return np.asarray(sosfiltfilt(sections, np.asarray(x_NCT, np.float64), axis=-1, padlen=padding))


def to_rate_and_band(windows_NCT: np.ndarray, sfreq: float, config: WhiteningConfig) -> np.ndarray:
    """Band-passed (Butterworth of order 4, zero phase) and resampled windows: (N, C, T') float32.

    Raises:
        SignalError: the band does not fit the rate.
    """
    from scipy.signal import resample_poly  # late: a loader process needs no filters

    x = np.asarray(windows_NCT, np.float64)
    if config.band is not None:
        low, high = config.band
        if not 0 < low < high < min(sfreq, config.sfreq) / 2:
            raise SignalError(
                f"a band of {low:g} to {high:g} Hz does not fit {sfreq:g} Hz data read at {config.sfreq:g} Hz",
                f"choose a band between 0 and {min(sfreq, config.sfreq) / 2:g} Hz (front_end.band)",
            )
        x = band_passed(x, sfreq, low, high)
    if sfreq != config.sfreq:
        # a rate such as 499.999 Hz would ask for a filter of a million samples
        ratio = Fraction(config.sfreq / sfreq).limit_denominator(1000)
        x = resample_poly(x, ratio.numerator, ratio.denominator, axis=-1)
    return np.asarray(x, np.float32)


def covariances(windows_NCT: np.ndarray) -> Floats:
    """(N, C, C) second moments; band-passed EEG has no mean."""
    x = np.asarray(windows_NCT, np.float64)
    return np.asarray(x @ x.swapaxes(-1, -2) / x.shape[-1])


def inverse_root(covariance_CC: np.ndarray, shrinkage: float = 0.01) -> Floats:
    """Symmetric inverse square root after shrinkage towards the mean variance; an average reference or repeated channels make it singular.

    A covariance of zeros gives the identity: silence stays silence.
    """
    channels = len(covariance_CC)
    mean_variance = float(np.trace(covariance_CC)) / channels
    if mean_variance <= 0:
        return np.eye(channels)
    values, vectors = np.linalg.eigh(covariance_CC + shrinkage * mean_variance * np.eye(channels))
    return np.asarray((vectors / np.sqrt(np.maximum(values, 1e-12 * mean_variance))) @ vectors.T)


def riemannian_mean(covariance_NCC: np.ndarray, tolerance: float = 1e-8, most: int = 50) -> Floats:
    """The mean under the affine-invariant metric, by the fixed-point iteration of the logarithm's average: (C, C)."""
    mean = covariance_NCC.mean(0)
    for _ in range(most):
        values, vectors = np.linalg.eigh(mean)
        # repeated channels make the mean singular, and its root needs an inverse
        values = np.maximum(values, 1e-12 * values.max())
        root, inverse = (vectors * np.sqrt(values)) @ vectors.T, (vectors / np.sqrt(values)) @ vectors.T
        inner, turns = np.linalg.eigh(inverse @ covariance_NCC @ inverse)
        step = np.einsum("nij,nj,nkj->ik", turns, np.log(np.maximum(inner, 1e-12)), turns) / len(covariance_NCC)
        values, vectors = np.linalg.eigh(step)
        mean = root @ (vectors * np.exp(values)) @ vectors.T @ root
        if np.linalg.norm(step) < tolerance * np.sqrt(len(mean)):
            break
    return np.asarray(mean)


def tangent_vectors(covariance_NCC: np.ndarray, root_CC: np.ndarray) -> Floats:
    """(N, C (C + 1) / 2): logarithms of R C R about the identity, upper triangles with the norm of the matrix (Barachant et al. 2012).

    Args:
        root_CC: R, the inverse root of the point where the tangent space touches; the identity for plain logarithms.
    """
    values, vectors = np.linalg.eigh(root_CC @ covariance_NCC @ root_CC)
    logs_NCC = np.einsum("nij,nj,nkj->nik", vectors, np.log(np.maximum(values, 1e-12)), vectors, optimize=True)
    upper = np.triu_indices(logs_NCC.shape[-1])
    return np.asarray(logs_NCC[:, upper[0], upper[1]] * np.where(upper[0] == upper[1], 1.0, np.sqrt(2.0)))


def whitener(windows_NCT: np.ndarray, align: Align, shrinkage: float = 0.01) -> Floats:
    """The matrix (C, C) that whitens a person's windows; for `none` one over the mean standard deviation, times the identity."""
    covariance_NCC = covariances(windows_NCT)
    channels = covariance_NCC.shape[-1]
    if align == "riemann":
        # before the mean: the logarithm of a singular matrix is infinite
        ridge = shrinkage * np.trace(covariance_NCC.mean(0)) / channels * np.eye(channels)
        return inverse_root(riemannian_mean(covariance_NCC + ridge), 0.0)
    mean_CC = covariance_NCC.mean(0)
    if align == "none":
        return np.eye(channels) / np.sqrt(max(float(np.trace(mean_CC)) / channels, 1e-300))
    return inverse_root(mean_CC, shrinkage)


def whiten_each(
    windows_NCT: np.ndarray, person_N: Sequence[object] | np.ndarray, align: Align, shrinkage: float = 0.01
) -> np.ndarray:
    """Every window whitened by the windows of its own person: (N, C, T) float32."""
    x = np.asarray(windows_NCT, np.float32)
    person_N = np.asarray(person_N)
    out = np.empty_like(x)
    for person in np.unique(person_N):
        mine = person_N == person
        out[mine] = whitener(x[mine], align, shrinkage).astype(np.float32) @ x[mine]
    return out
