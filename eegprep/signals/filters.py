"""Zero-phase band-pass, the Nyquist rule, resampling, notch. Shapes: C channels, T samples, K filter taps, S blocks, F bins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
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


@lru_cache(maxsize=64)  # recordings mostly have the same
def design_band_pass(sfreq: float, low: float | None, high: float | None) -> np.ndarray:
    """Taps of the linear-phase FIR that MNE-Python designs by default (`firwin`, Hamming, automatic transitions).

    Transition widths are min(max(edge / 4, 2), room) Hz, the length is 3.3 / narrowest transition in seconds, and each edge
    is a windowed sinc of its own length in the middle of the filter. Source: documentation of `mne.filter.create_filter`.

    Args:
        sfreq: sampling rate, Hz.
        low, high: pass band edges, Hz; None leaves that side open.

    Returns:
        (K,) float64, K odd; not to be written to.
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
    filter_K.flags.writeable = False
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
    reflection. Arithmetic has the precision of the signal, in blocks that stay in cache, less the level of each: float32 agrees
    with float64 within 1e-5 of a channel's deviation, and blocks where it would not are done in float64.

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
    ranges = [(0, signal_CT.shape[1])] if segments is None else segments
    # samples between segments were not recorded: zero, never left as found
    out_CT = (np.empty if list(ranges) == [(0, signal_CT.shape[1])] else np.zeros)(signal_CT.shape, signal_CT.dtype)
    for first, last in ranges:
        _convolve(signal_CT[:, first:last], filter_K, out_CT[:, first:last])
    return out_CT


# overlap-save: FFTs of about 4,096, this many values at a time, stay in a 1 MB cache and were fastest of 1,024 to 8,192
_BLOCK, _VALUES_AT_ONCE = 4096, 32 * 4096

# a transform in float32 is off by up to 4e-7 of the rms of what goes in; a block in which that is large beside the deviation
# of its channel, as under a drift or a jump, is done in float64, so that errors stay below 1e-5 of the deviation
_MOST_FOR_FLOAT32 = 16.0


def _convolve(signal_CT: np.ndarray, filter_K: np.ndarray, out_CT: np.ndarray) -> None:
    """Convolve every row with a symmetric filter, centred, into `out_CT`; the ends are continued by odd reflection."""
    n_samples, n_taps = signal_CT.shape[1], len(filter_K)
    if n_samples == 0:
        return
    if n_samples <= n_taps // 2 and signal_CT.dtype == np.float32:
        # shorter than the filter reaches: it goes on as zeros, and the step from its level to them is too much for float32
        double_CT = np.empty(signal_CT.shape)
        _convolve(signal_CT.astype(np.float64), filter_K, double_CT)
        out_CT[...] = double_CT
        return
    n_fft, n_blocks = block_length(n_samples, n_taps)
    step, half = n_fft - n_taps + 1, (n_taps - 1) // 2
    exact_F = _response(filter_K, n_fft)
    response_F = exact_F.astype(signal_CT.dtype)
    # where 0 Hz passes, so does the level that is taken off each block
    through = filter_K.sum() if abs(filter_K.sum()) > 1e-9 else 0.0
    blocks_at_once = max(1, min(n_blocks, _VALUES_AT_ONCE // n_fft))
    rows_at_once = max(1, _VALUES_AT_ONCE // (n_fft * blocks_at_once))
    scratch_CSF = np.empty((rows_at_once, blocks_at_once, n_fft), signal_CT.dtype)
    power_CS = np.empty((rows_at_once, n_blocks))
    for first in range(0, len(signal_CT), rows_at_once):
        rows_CT = signal_CT[first : first + rows_at_once]
        for block in range(0, n_blocks, blocks_at_once):
            starts = [number * step for number in range(block, min(n_blocks, block + blocks_at_once))]
            blocks_CSF = scratch_CSF[: len(rows_CT), : len(starts)]
            levels_CS1 = _fill(rows_CT, starts[0] - half, step, half, blocks_CSF)
            filtered_CSF = _apply(blocks_CSF, response_F)
            power_CS[: len(rows_CT), block : block + len(starts)] = _power(blocks_CSF)
            if through:
                filtered_CSF += (through * levels_CS1).astype(signal_CT.dtype)
            for s, start in enumerate(starts):
                target_CT = out_CT[first : first + len(rows_CT), start : start + step]
                target_CT[...] = filtered_CSF[:, s, half : half + target_CT.shape[1]]
        if signal_CT.dtype == np.float64:
            continue
        for row, row_T in enumerate(rows_CT):
            out_T = out_CT[first + row]
            for s in np.flatnonzero(power_CS[row] > _MOST_FOR_FLOAT32**2 * _variance(out_T)).tolist():
                double_11F = np.empty((1, 1, n_fft))
                level_111 = _fill(row_T[None], s * step - half, step, half, double_11F)
                target_T = out_T[s * step : (s + 1) * step]
                target_T[...] = (_apply(double_11F, exact_F) + through * level_111)[0, 0, half : half + len(target_T)]


def block_length(n_samples: int, n_taps: int) -> tuple[int, int]:
    """Samples of a transform, and how many a row takes."""
    # the overlap is at most a quarter of a block; blocks are equal, so that none is mostly padding
    n_blocks = -(-n_samples // (max(_BLOCK, 4 * n_taps) - n_taps + 1))
    n_fft = scipy.fft.next_fast_len(-(-n_samples // n_blocks) + n_taps - 1, real=True)
    return n_fft, -(-n_samples // (n_fft - n_taps + 1))


def _response(filter_K: np.ndarray, n_fft: int) -> np.ndarray:
    """Spectrum of the filter centred on the first sample and wrapped round, so that it is real: (n_fft // 2 + 1,) float64."""
    half = (len(filter_K) - 1) // 2
    return scipy.fft.rfft(np.concatenate([filter_K[half:], np.zeros(n_fft - len(filter_K)), filter_K[:half]])).real


def _apply(blocks: np.ndarray, response_F: np.ndarray) -> np.ndarray:
    """Circular convolution along the last axis, in the precision of the blocks."""
    spectrum = scipy.fft.rfft(blocks, axis=-1)
    spectrum *= response_F
    return scipy.fft.irfft(spectrum, blocks.shape[-1], axis=-1, overwrite_x=True)  # type: ignore[no-any-return]


def _power(blocks_CSF: np.ndarray) -> np.ndarray:
    """(C, S) mean square of blocks, by a fifth of their samples."""
    return np.einsum("cst,cst->cs", blocks_CSF[:, :, ::5], blocks_CSF[:, :, ::5]) / len(range(0, blocks_CSF.shape[2], 5))


def _variance(row_T: np.ndarray) -> float:
    """Variance of a filtered row, by a fifth of its samples."""
    # about the first sample: where 0 Hz passes, squares of a level would leave no digits
    about_T = row_T[::5] - row_T[0]
    return float(np.dot(about_T, about_T) / len(about_T) - np.square(about_T.mean()))


def _fill(rows_CT: np.ndarray, first: int, step: int, half: int, blocks_CSF: np.ndarray) -> np.ndarray:
    """`_fill_block` for blocks `step` apart, of which the first begins at `first`; returns the levels, (C, S, 1)."""
    n_samples, (n_rows, count, n_fft) = rows_CT.shape[1], blocks_CSF.shape
    begins = range(first, first + count * step, step)
    inner = [s for s, begin in enumerate(begins) if begin >= 0 and begin + n_fft <= n_samples]
    levels_CS1 = np.empty((n_rows, count, 1), blocks_CSF.dtype)
    if inner:  # as a view: all of them in one go
        row_bytes, sample_bytes = rows_CT.strides
        view_CSF = np.lib.stride_tricks.as_strided(
            rows_CT[:, begins[inner[0]] :],
            (n_rows, len(inner), n_fft),
            (row_bytes, step * sample_bytes, sample_bytes),
            writeable=False,
        )
        target = slice(inner[0], inner[-1] + 1)
        levels_CS1[:, target] = view_CSF[:, :, n_fft // 2, None]
        np.subtract(view_CSF, levels_CS1[:, target], out=blocks_CSF[:, target])
    for s in set(range(count)).difference(inner):
        levels_CS1[:, s] = _fill_block(rows_CT, begins[s], half, blocks_CSF[:, s])
    return levels_CS1


def _fill_block(rows_CT: np.ndarray, first: int, half: int, block_CF: np.ndarray) -> np.ndarray:
    """Write the samples from `first` on, less a level of each row, which is returned: (C, 1).

    Beyond an end, up to `half` samples are reflected about it; a row shorter than that goes on as zeros.
    """
    n_samples, n_fft = rows_CT.shape[1], block_CF.shape[1]
    start, stop = max(first, 0), min(first + n_fft, n_samples)
    level_C1 = rows_CT[:, (start + stop) // 2, None].astype(block_CF.dtype)
    begin, end = start - first, stop - first
    np.subtract(rows_CT[:, start:stop], level_C1, out=block_CF[:, begin:end])
    reach = min(half, n_samples - 1)
    if begin:
        block_CF[:, : begin - reach] = -level_C1
        block_CF[:, begin - reach : begin] = 2 * block_CF[:, begin, None] - block_CF[:, begin + 1 : begin + 1 + reach][:, ::-1]
    if end < n_fft:
        count = min(reach, n_fft - end)
        block_CF[:, end : end + count] = 2 * block_CF[:, end - 1, None] - block_CF[:, end - 1 - count : end - 1][:, ::-1]
        # further out than the filter reaches, nothing counts: no step there, which would take digits from the rest
        block_CF[:, end + count :] = -level_C1 if reach < half else block_CF[:, end + count - 1, None]
    return level_C1


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
        self._response_F = _response(filter_K, self._n_fft).astype(np.float32)

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
        return _apply(extended_CT, self._response_F)[:, self.margin : self.margin + self.length]


_THREAD = threading.local()


def _scratch(channels: int, samples: int) -> np.ndarray:
    """Memory of this thread: fresh pages for every window would cost more than what is written into them."""
    kept: np.ndarray | None = getattr(_THREAD, "scratch", None)
    if kept is None or kept.shape != (channels, samples):
        kept = _THREAD.scratch = np.empty((channels, samples), np.float32)
    return kept


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
