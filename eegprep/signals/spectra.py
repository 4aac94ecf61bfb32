"""A few numbers of each recording that let a report draw spectra and amplitudes without the recordings.

C channels, T samples. Spectra are medians over channels, so that one broken channel does not colour the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft

from eegprep.recording import Spectra

# Hz; log-spaced so that 5 Hz and 95 Hz are seen equally well; values above a recording's Nyquist frequency are None
SUMMARY_FREQS: tuple[float, ...] = tuple(float(f"{f:.4g}") for f in np.geomspace(1.0, 500.0, 64))

SEGMENT_S = 2.0  # 0.5 Hz resolution

# a picture needs no more, and so it costs far less than the filter: half a minute of signal spread over the recording, and 16
# electrodes spread over its channels, whose median is that of 64 within a few percent
MAX_SEGMENTS, MAX_CHANNELS = 16, 16

Segments = Sequence[tuple[int, int]]


def summarise(
    before_CT: np.ndarray,
    sfreq_before: float,
    after_CT: np.ndarray,
    sfreq_after: float,
    segments_before: Segments | None = None,
    segments_after: Segments | None = None,
) -> Spectra:
    """What `build` stores with a recording under `summary`.

    Args:
        before_CT, after_CT: uV, before and after filtering (and resampling).
        sfreq_before, sfreq_after: Hz.
        segments_before, segments_after: sample ranges without a seam, the whole signal when left out.

    Returns:
        spectra at `SUMMARY_FREQS` and deviations, with four digits, so that equal recordings give equal bytes.
    """
    return Spectra(
        psd_before=tuple(spectrum(before_CT, sfreq_before, segments_before)),
        psd_after=tuple(spectrum(after_CT, sfreq_after, segments_after)),
        std=tuple(_short(value) for value in deviations(after_CT, segments_after)),
    )


def spectrum(signal_CT: np.ndarray, sfreq: float, segments: Segments | None = None) -> list[float | None]:
    """Power spectral density at `SUMMARY_FREQS`, uV^2/Hz, median over channels (Welch: Hann windows of 2 s, mean removed).

    Windows lie inside `segments`, so that a seam does not look like power. When there are more than 16, as many are chosen,
    evenly, and so are channels; where no segment is as long as 2 s, windows are as long as the longest.
    """
    ranges = [(0, signal_CT.shape[1])] if segments is None else segments
    longest = max((last - first for first, last in ranges), default=0)
    length = min(longest, max(8, round(SEGMENT_S * sfreq)))
    if length < 8:
        return [None] * len(SUMMARY_FREQS)
    starts = [start for first, last in ranges for start in range(first, last - length + 1, length)]
    rows = spread(signal_CT.shape[0], MAX_CHANNELS)
    starts = [starts[index] for index in spread(len(starts), MAX_SEGMENTS)]
    count = len(starts)
    # the periodic form: its transform is zero from the second bin on
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    pieces_CST = np.stack([signal_CT[rows, start : start + length] for start in starts], axis=1).astype(np.float32, copy=False)
    pieces_CST -= pieces_CST.mean(axis=2, keepdims=True)
    pieces_CST *= window
    transformed_CSF = fft.rfft(pieces_CST, axis=2)
    # squares of the real and the imaginary parts, which lie side by side
    parts_CSG = transformed_CSF.view(np.float32)
    squares_CG = np.einsum("csg,csg->cg", parts_CSG, parts_CSG).astype(np.float64)
    power_CF = squares_CG[:, ::2] + squares_CG[:, 1::2]
    # 2: the density is one-sided
    power_CF *= 2.0 / (sfreq * np.sum(window**2) * count)
    median_F = np.median(power_CF, axis=0)
    freqs = fft.rfftfreq(length, 1.0 / sfreq)
    values = np.interp(SUMMARY_FREQS, freqs, median_F)
    # the last bin below half the rate bounds what can be said
    return [_short(v) if f <= sfreq / 2 else None for f, v in zip(SUMMARY_FREQS, values, strict=True)]


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` indices of `count`, evenly spread, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def deviations(signal_CT: np.ndarray, segments: Segments | None = None) -> list[float]:
    """Standard deviation of each channel about the mean of each segment, in float64: what lies between segments is no signal."""
    ranges = [(0, signal_CT.shape[1])] if segments is None else segments
    total = sum(last - first for first, last in ranges)
    if total == 0:
        return [0.0] * len(signal_CT)
    squares_C = sum((last - first) * _variances(signal_CT[:, first:last]) for first, last in ranges if last > first)
    return [float(value) for value in np.sqrt(squares_C / total)]


# sums over so many samples are made in float32 and added up in float64: six digits at the cost of one pass
_PARTIAL = 256


def _variances(signal_CT: np.ndarray) -> np.ndarray:
    """Variance of each row, in float32 as far as that is safe; `numpy.var` takes the mean off a float64 copy, in five times the time."""
    n_samples = signal_CT.shape[1]
    if signal_CT.dtype == np.float32:
        whole = n_samples - n_samples % _PARTIAL
        shape, (row, sample) = (len(signal_CT), whole // _PARTIAL, _PARTIAL), signal_CT.strides
        parts_CPT = np.lib.stride_tricks.as_strided(signal_CT, shape, (row, sample * _PARTIAL, sample), writeable=False)
        rest_CT = signal_CT[:, whole:].astype(np.float64)
        sums_C = np.einsum("cpt->cp", parts_CPT).sum(axis=1, dtype=np.float64) + rest_CT.sum(axis=1)
        squares_C = np.einsum("cpt,cpt->cp", parts_CPT, parts_CPT).sum(axis=1, dtype=np.float64) + (rest_CT**2).sum(axis=1)
        mean_C, square_C = sums_C / n_samples, squares_C / n_samples
        if np.all(mean_C**2 <= 0.01 * square_C):
            return square_C - mean_C**2
    return signal_CT.var(axis=1, dtype=np.float64)


def _short(value: float) -> float | None:
    # four digits: libraries and processors differ in the last ones, and bytes of a store must not
    return float(f"{value:.4g}") if np.isfinite(value) else None
