"""Takes windows apart by frequency: the part between two frequencies, and the logarithm of the power in bands.

These judge and train models. The filter that makes a corpus is `eegprep.signals.filters`: it has no ringing at the edges of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dreamdiff.arrays import Array
from eegprep.errors import UsageError

# Hz, delta to gamma as the paper names them
CLASSICAL_BANDS = ((1.0, 4.0), (4.0, 8.0), (8.0, 13.0), (13.0, 31.0), (31.0, 70.0), (70.0, 120.0))

# Hz; a corpus starts at 5 Hz, so there is no delta; 72 Hz is what a recording at 160 Hz can hold
CORPUS_BANDS = {"theta": (5.0, 8.0), "alpha": (8.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 72.0)}


def band_pass(signal_NCT: Array, sfreq: float | Array, low: float, high: float) -> Array:
    """The part of each window from `low` up to, not including, `high` Hz, by its discrete Fourier transform.

    Args:
        signal_NCT: (N, C, T). sfreq: Hz, of all windows or one for each, (N,).
    """
    samples = signal_NCT.shape[-1]
    frequency_NK = np.fft.rfftfreq(samples)[None, :] * np.broadcast_to(sfreq, len(signal_NCT))[:, None]
    keep_NK = (frequency_NK >= low) & (frequency_NK < high)
    return np.fft.irfft(np.fft.rfft(signal_NCT, axis=-1) * keep_NK[:, None, :], n=samples, axis=-1)


def log_power(signal: Tensor, sfreq: float, bands: Sequence[tuple[float, float]], floor: float) -> Tensor:
    """Logarithm of the mean power in each band under a Hann window: (..., T) -> (..., bands).

    Args:
        signal: any leading axes; bands that begin near 0 Hz want it without its mean. sfreq: Hz.
        bands: Hz, the upper edge is not in. floor: added to the power, so that silence has a finite logarithm.

    Raises:
        UsageError: the signal is too short to resolve a band.
    """
    samples = signal.shape[-1]
    # without a window, slow waves of large power leak into the fast bands
    window = torch.hann_window(samples, device=signal.device, dtype=signal.dtype)
    power = torch.fft.rfft(signal * window, dim=-1).abs().square()
    frequency = torch.fft.rfftfreq(samples, 1 / sfreq, device=signal.device)
    rows = []
    for low, high in bands:
        inside = (frequency >= low) & (frequency < high)
        if not bool(inside.any()):
            raise UsageError(
                f"{samples} samples at {sfreq:g} Hz have no frequency between {low:g} and {high:g} Hz",
                "set a longer model.encoder.token, or other model.bands",
            )
        rows.append(power[..., inside].mean(-1))
    return torch.log(torch.stack(rows, -1) + floor)


def resolved(bands: Sequence[tuple[float, float]], samples: int, sfreq: float) -> list[tuple[float, float]]:
    """The bands in which a window of so many samples has a frequency."""
    frequency = np.fft.rfftfreq(samples, 1 / sfreq)
    return [(low, high) for low, high in bands if ((frequency >= low) & (frequency < high)).any()]
