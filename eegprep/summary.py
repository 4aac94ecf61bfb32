"""A few numbers of each recording that let a report draw spectra and amplitudes without the recordings.

C channels, T samples. Spectra are medians over channels, so that one broken channel does not colour the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import fft

# Hz; log-spaced so that 5 Hz and 95 Hz are seen equally well; values above a recording's Nyquist frequency are None
SUMMARY_FREQS: tuple[float, ...] = tuple(float(f"{f:.4g}") for f in np.geomspace(1.0, 500.0, 64))
SEGMENT_S = 2.0  # 0.5 Hz resolution
MAX_SEGMENTS = 32  # a minute of signal, spread over the recording, is enough for a picture and costs far less than the filter


def summarise(before_CT: np.ndarray, sfreq_before: float, after_CT: np.ndarray, sfreq_after: float) -> dict[str, Any]:
    """What `build` stores with a recording under `summary`.

    Args:
        before_CT, after_CT: uV, before and after filtering (and resampling).
        sfreq_before, sfreq_after: Hz.

    Returns:
        psd_before, psd_after: uV^2/Hz at `SUMMARY_FREQS`, median over channels, None above half the rate;
        std: uV, one per channel, after filtering. Four digits, so that equal recordings give equal bytes.
    """
    return {
        "psd_before": spectrum(before_CT, sfreq_before),
        "psd_after": spectrum(after_CT, sfreq_after),
        "std": [_short(float(np.std(channel_T, dtype=np.float64))) for channel_T in after_CT],
    }


def spectrum(signal_CT: np.ndarray, sfreq: float) -> list[float | None]:
    """Power spectral density at `SUMMARY_FREQS`, uV^2/Hz, median over channels (Welch: Hann windows of 2 s, mean removed).

    Recordings longer than 32 segments are sampled evenly; shorter than one segment, the whole is one segment.
    """
    n_samples = signal_CT.shape[1]
    length = min(n_samples, max(8, round(SEGMENT_S * sfreq)))
    if length < 8:
        return [None] * len(SUMMARY_FREQS)
    count = min(MAX_SEGMENTS, max(1, n_samples // length))
    starts = np.linspace(0, n_samples - length, count).astype(int)
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    power_CF = np.zeros((signal_CT.shape[0], length // 2 + 1))
    for start in starts:
        piece_CT = signal_CT[:, start : start + length].astype(np.float32)
        piece_CT -= piece_CT.mean(axis=1, keepdims=True)
        power_CF += np.abs(fft.rfft(piece_CT * window, axis=1)) ** 2
    power_CF *= 2.0 / (sfreq * np.sum(window**2) * count)
    median_F = np.median(power_CF, axis=0)
    freqs = fft.rfftfreq(length, 1.0 / sfreq)
    values = np.interp(SUMMARY_FREQS, freqs, median_F)
    # the last bin below half the rate bounds what can be said
    return [_short(v) if f <= sfreq / 2 else None for f, v in zip(SUMMARY_FREQS, values, strict=True)]


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
