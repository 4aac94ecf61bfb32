"""Zero-phase band-pass, the Nyquist rule, resampling, notch. Shapes: C channels, T samples, K filter taps, S blocks, F bins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft

from eegprep.errors import SignalError

NyquistPolicy = Literal["clip", "highpass", "skip", "error"]


# ours: the fraction of the sampling rate that `clip` puts the upper edge at (72 Hz at 160 Hz, 57.6 at 128, 45 at 100)
CLIP_FRACTION = 0.45

# ours: a transition narrower than this needs a filter longer than 13 s, and most recordings are not much longer
NARROWEST_TRANSITION_HZ = 0.25

# Hamming window: transition width times filter length, in samples per cycle (MNE-Python uses the same figure)
HAMMING_LENGTH_FACTOR = 3.3


@dataclass(frozen=True)
class Band:
    """A pass band, Hz; `high` is None for a high-pass. `changed` says that the wish did not fit the rate."""

    low: float
    high: float | None
    changed: bool = False

    def upper(self, sfreq: float) -> float:
        """The highest frequency that passes, Hz."""
        return sfreq / 2 if self.high is None else self.high


def fits(sfreq: float, high: float) -> bool:
    """Whether an upper edge of `high` Hz leaves room for its transition below the Nyquist frequency."""
    return sfreq / 2 - high >= NARROWEST_TRANSITION_HZ


def effective_band(sfreq: float, low: float = 5.0, high: float = 95.0, policy: NyquistPolicy = "clip") -> Band | None:
    """The band that a recording at `sfreq` Hz can have when `low` to `high` Hz is requested.

    Args:
        sfreq: sampling rate, Hz.
        low, high: requested pass band, Hz.
        policy: what to do when `high` does not fit below the Nyquist frequency: put the edge at 0.45 x rate, filter
            with a high-pass only, leave the recording out (None is returned), or stop.

    Raises:
        SignalError: `high` does not fit and the policy is `error`, or not even `low` fits.

    Example:
        >>> import eegprep
        >>> band = eegprep.effective_band(160.0)
        >>> band.low, band.high
        (5.0, 72.0)
    """
    if not 0 < low < high:
        raise SignalError(
            f"a band from {low:g} to {high:g} Hz is empty (low must lie between 0 and high)",
            "set --low and --high, e.g. 5 and 95",
        )
    if fits(sfreq, high):
        return Band(low, high)
    if policy == "skip":
        return None
    if policy == "error":
        raise SignalError(
            f"a {low:g}-{high:g} Hz band does not fit {sfreq:g} Hz sampling (Nyquist frequency {sfreq / 2:g} Hz)",
            f"set --high to at most {CLIP_FRACTION * sfreq:g}, or --nyquist clip, highpass or skip",
        )
    clipped = CLIP_FRACTION * sfreq
    if clipped <= low:
        raise SignalError(
            f"no part of a {low:g}-{high:g} Hz band fits {sfreq:g} Hz sampling (limit {clipped:g} Hz)",
            f"set --low below {clipped:g}, or --nyquist skip to leave such recordings out",
        )
    return Band(low, None if policy == "highpass" else clipped, changed=True)


def design_band_pass(sfreq: float, low: float | None, high: float | None) -> np.ndarray:
    """Taps of the linear-phase FIR that MNE-Python designs by default (`firwin`, Hamming, automatic transitions).

    Transition widths are min(max(edge / 4, 2), room) Hz, the length is 3.3 / narrowest transition in seconds, and each edge
    is a windowed sinc of its own length in the middle of the filter. Source: documentation of `mne.filter.create_filter`.

    Args:
        sfreq: sampling rate, Hz.
        low, high: pass band edges, Hz; None leaves that side open.

    Returns:
        (K,) float64, K odd.
    """
    nyquist = sfreq / 2
    # a transition ends at 0 Hz and at the Nyquist frequency
    low_width = None if low is None else min(max(0.25 * low, 2.0), low)
    high_width = None if high is None else min(max(0.25 * high, 2.0), nyquist - high)
    widths = [width for width in (low_width, high_width) if width is not None]
    if not widths:
        return np.ones(1)
    taps = max(int(np.ceil(HAMMING_LENGTH_FACTOR / min(widths) * sfreq)), 1)
    # odd, so that the delay is a whole number of samples and can be taken back
    taps += (taps - 1) % 2
    filter_K = np.zeros(taps)
    if high is None:
        # everything passes, and the low-pass below is taken from it
        filter_K[taps // 2] = 1.0
    for edge, width, sign in ((high, high_width, 1.0), (low, low_width, -1.0)):
        if edge is None or width is None:
            continue
        length = round(HAMMING_LENGTH_FACTOR / (width / nyquist / 2))
        length += 1 - length % 2
        offset = (taps - length) // 2
        # the amplitude is a half in the middle of the transition, which lies outside the pass band
        cutoff = (edge + sign * width / 2) / nyquist
        filter_K[offset : taps - offset] += sign * _low_pass(length, cutoff)
    return filter_K


def _low_pass(length: int, cutoff: float) -> np.ndarray:
    """Hamming-windowed sinc with unit gain at 0 Hz; `cutoff` as a fraction of the Nyquist frequency."""
    n = np.arange(length) - (length - 1) / 2
    taps = cutoff * np.sinc(cutoff * n) * np.hamming(length)
    return taps / taps.sum()


def band_pass(
    signal_CT: np.ndarray,
    sfreq: float,
    low: float | None = 5.0,
    high: float | None = 95.0,
    *,
    segments: Sequence[tuple[int, int]] | None = None,
) -> np.ndarray:
    """Band-pass each channel without moving it in time.

    Equal to `mne.filter.filter_data` with its defaults, edges included: the signal is continued at both ends by odd
    reflection. Arithmetic is float64 in blocks that stay in cache, so float32 goes in and out at float32 precision.

    Args:
        signal_CT: (channels, samples), any unit.
        sfreq: sampling rate, Hz.
        low, high: pass band, Hz; None leaves that side open.
        segments: (first, last + 1) sample ranges to filter each on its own, because the recording has seams between them; the
            whole signal when left out.

    Returns:
        (channels, samples) in the unit of `signal_CT`; float64 stays float64, everything else becomes float32.

    Raises:
        SignalError: `high` is at or above the Nyquist frequency, or a value is not finite.

    Example:
        >>> import eegprep, numpy
        >>> signal = numpy.random.default_rng(0).normal(0, 10, (3, 5000))
        >>> eegprep.band_pass(signal, 250.0, 5.0, 95.0).shape
        (3, 5000)
    """
    if high is not None and high >= sfreq / 2:
        raise SignalError(
            f"an upper edge of {high:g} Hz does not fit {sfreq:g} Hz sampling (Nyquist frequency {sfreq / 2:g} Hz)",
            f"choose an upper edge below {sfreq / 2:g} Hz; effective_band() proposes one",
        )
    signal_CT = np.asarray(signal_CT)
    if signal_CT.ndim != 2:
        raise SignalError(f"a signal of {signal_CT.ndim} dimensions cannot be filtered (needs 2)", "pass (channels, samples)")
    if signal_CT.dtype not in (np.float32, np.float64):
        signal_CT = signal_CT.astype(np.float32)
    filter_K = design_band_pass(sfreq, low, high)
    out_CT = np.zeros(signal_CT.shape, signal_CT.dtype)  # samples between segments were not recorded: zero, never left as found
    for first, last in [(0, signal_CT.shape[1])] if segments is None else segments:
        _convolve(signal_CT[:, first:last], filter_K, out_CT[:, first:last])
    return out_CT


# overlap-save: FFTs of about 8,192 float64, 16 at a time, stay in a 2 MB cache and were fastest of 4,096 to 32,768
_BLOCK, _BLOCKS_AT_ONCE = 8192, 16


def _convolve(signal_CT: np.ndarray, filter_K: np.ndarray, out_CT: np.ndarray) -> None:
    """Convolve every row with a symmetric filter, centred, into `out_CT`; the ends are continued by odd reflection."""
    n_samples, n_taps = signal_CT.shape[1], len(filter_K)
    if n_samples == 0:
        return
    half = (n_taps - 1) // 2
    # the overlap is at most a quarter of a block; blocks are equal, so that none is mostly padding
    n_blocks = -(-n_samples // (max(_BLOCK, 4 * n_taps) - n_taps + 1))
    n_fft = scipy.fft.next_fast_len(-(-n_samples // n_blocks) + n_taps - 1, real=True)
    step = n_fft - n_taps + 1
    # the centred filter, wrapped round so that its spectrum is real
    response_F = scipy.fft.rfft(np.concatenate([filter_K[half:], np.zeros(n_fft - n_taps), filter_K[:half]])).real
    rows_at_once = max(1, _BLOCKS_AT_ONCE // n_blocks)
    extended_CT = np.zeros((rows_at_once, half + n_blocks * step + half))
    row_bytes, sample_bytes = extended_CT.strides
    # overlapping blocks as a view: no sample is copied for the overlap
    blocks_CSF = np.lib.stride_tricks.as_strided(
        extended_CT, (rows_at_once, n_blocks, n_fft), (row_bytes, sample_bytes * step, sample_bytes), writeable=False
    )
    for first in range(0, len(signal_CT), rows_at_once):
        rows_CT = signal_CT[first : first + rows_at_once]
        _extend_by_reflection(rows_CT, half, extended_CT[: len(rows_CT)])
        for block in range(0, n_blocks, _BLOCKS_AT_ONCE):
            spectrum = scipy.fft.rfft(blocks_CSF[: len(rows_CT), block : block + _BLOCKS_AT_ONCE], axis=2)
            spectrum *= response_F
            filtered = scipy.fft.irfft(spectrum, n_fft, axis=2, overwrite_x=True)[:, :, half : half + step]
            start = block * step
            expected = min(n_samples - start, filtered.shape[1] * step)
            whole = expected // step
            target_CT = out_CT[first : first + len(rows_CT), start : start + expected]
            for number in range(whole):
                target_CT[:, number * step : (number + 1) * step] = filtered[:, number]
            if expected > whole * step:
                target_CT[:, whole * step :] = filtered[:, whole, : expected - whole * step]


class PieceFilter:
    """`band_pass` for single stretches of a recording: each is filtered with the margin that its filter needs, and no more.

    Args:
        sfreq, low, high: as in `band_pass`. length: samples that come out.

    Attributes:
        margin: samples on each side that decide about those that come out.
    """

    def __init__(self, sfreq: float, low: float | None, high: float | None, length: int) -> None:
        filter_K = design_band_pass(sfreq, low, high)
        self.length, self.margin = length, (len(filter_K) - 1) // 2
        self._n_fft = scipy.fft.next_fast_len(length + len(filter_K) - 1, real=True)
        wrapped = np.concatenate([filter_K[self.margin :], np.zeros(self._n_fft - len(filter_K)), filter_K[: self.margin]])
        self._response_F = scipy.fft.rfft(wrapped).real.astype(np.float32)

    def reach(self, start: int, segment: tuple[int, int]) -> tuple[int, int]:
        """(first, last + 1) of the samples to give to `apply` for the piece that begins at `start`, inside its segment."""
        return max(segment[0], start - self.margin), min(segment[1], start + self.length + self.margin)

    def apply(self, fill: Callable[[np.ndarray], None], channels: int, start: int, reach: tuple[int, int]) -> np.ndarray:
        """The filtered piece: (C, length) float32. Ends of a segment are continued by odd reflection, as in `band_pass`.

        Args:
            fill: writes the samples of `reach` into a (C, samples) float32 array; a level may be off them when the filter stops levels.
            channels: C.
        """
        before, samples = self.margin - (start - reach[0]), reach[1] - reach[0]
        stop = before + samples
        after = self.length + 2 * self.margin - stop
        extended_CT = _scratch(channels, self._n_fft)
        extended_CT[:, stop + after :] = 0.0  # what was filtered before must not decide about a digit
        body_CT = extended_CT[:, before:stop]
        fill(body_CT)
        if before:
            extended_CT[:, :before] = 2 * body_CT[:, :1] - body_CT[:, before:0:-1]
        if after:
            extended_CT[:, stop : stop + after] = 2 * body_CT[:, -1:] - body_CT[:, -2 : -after - 2 : -1]
        spectrum = scipy.fft.rfft(extended_CT, axis=1)
        spectrum *= self._response_F
        filtered_CT = scipy.fft.irfft(spectrum, self._n_fft, axis=1, overwrite_x=True)
        return filtered_CT[:, self.margin : self.margin + self.length]  # type: ignore[no-any-return]


_THREAD = threading.local()


def _scratch(channels: int, samples: int) -> np.ndarray:
    """Memory of this thread: fresh pages for every window would cost more than what is written into them."""
    kept: np.ndarray | None = getattr(_THREAD, "scratch", None)
    if kept is None or kept.shape != (channels, samples):
        kept = _THREAD.scratch = np.empty((channels, samples), np.float32)
    return kept


def _extend_by_reflection(rows_CT: np.ndarray, half: int, extended_CT: np.ndarray) -> None:
    """Write the rows after `half` reflected samples, and `half` behind them; rows shorter than that go on as zeros."""
    n_samples = rows_CT.shape[1]
    reach = min(half, n_samples - 1)
    extended_CT[:, : half - reach] = 0.0
    extended_CT[:, half + n_samples + reach :] = 0.0
    body_CT = extended_CT[:, half : half + n_samples]
    body_CT[...] = rows_CT
    extended_CT[:, half - reach : half] = 2 * body_CT[:, :1] - body_CT[:, reach:0:-1]
    extended_CT[:, half + n_samples : half + n_samples + reach] = 2 * body_CT[:, -1:] - body_CT[:, -2 : -reach - 2 : -1]


def resample(signal_CT: np.ndarray, sfreq: float, to: float, *, segments: Sequence[tuple[int, int]] | None = None) -> np.ndarray:
    """Another sampling rate, by Fourier interpolation as in MNE-Python, each segment on its own.

    Args:
        signal_CT: (channels, samples), any unit, band-limited below half of both rates.
        sfreq, to: Hz. Rates that differ by less than a ten-thousandth are the same: amplifiers report 256.00013 Hz.

    Returns:
        (channels, round(samples x to / sfreq)); samples between segments are 0.
    """
    if same_rate(sfreq, to):
        return signal_CT
    from mne.filter import resample as resample_row

    ratio = to / sfreq
    out_CT = np.zeros((signal_CT.shape[0], round(signal_CT.shape[1] * ratio)), signal_CT.dtype)
    for first, last in [(0, signal_CT.shape[1])] if segments is None else segments:
        start, stop = scaled((first, last), ratio)
        # a single sample has no course that could be interpolated
        if stop - start < 1 or last - first < 2:
            continue
        for row, out_T in zip(signal_CT, out_CT, strict=True):
            piece = row[first:last].astype(np.float64)
            # up and down are chosen so that the length is exactly that of the scaled segment
            changed = resample_row(piece, up=stop - start, down=last - first, npad="auto", pad="reflect_limited", verbose="error")
            out_T[start:stop] = changed[: stop - start]
    return out_CT


def same_rate(sfreq: float, other: float) -> bool:
    """Whether two rates, Hz, are the same for all purposes here."""
    return abs(sfreq - other) <= 1e-4 * other


def scaled(segment: tuple[int, int], ratio: float) -> tuple[int, int]:
    """A sample range at another rate."""
    return round(segment[0] * ratio), round(segment[1] * ratio)


def notch(
    signal_CT: np.ndarray, sfreq: float, line_hz: float, high: float, *, segments: Sequence[tuple[int, int]] | None = None
) -> np.ndarray:
    """Remove the line frequency and its harmonics up to `high` Hz with MNE-Python's zero-phase FIR notch, row by row."""
    from mne.filter import notch_filter

    # 2 Hz: MNE-Python's transition of 1 Hz and the width of the notch have to fit below the Nyquist frequency
    frequencies = np.arange(line_hz, min(high, sfreq / 2 - 2.0) + 1e-9, line_hz)
    if not len(frequencies):
        return signal_CT
    out_CT = signal_CT.copy()
    for first, last in [(0, signal_CT.shape[1])] if segments is None else segments:
        for row, out_T in zip(signal_CT, out_CT, strict=True):
            piece = row[first:last].astype(np.float64)
            out_T[first:last] = notch_filter(piece, sfreq, frequencies, verbose="error")
    return out_CT
