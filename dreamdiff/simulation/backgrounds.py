"""Ongoing EEG for simulated trials: stretches of genuine recordings, or 1/f noise of cortical sources.

Shapes: N trials, C channels, T samples, S sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy.fft import irfft
from scipy.signal import resample_poly

from eegprep.errors import SignalError
from eegprep.recording import Recording
from eegprep.signals.filters import band_pass, effective_band
from eegprep.signals.head import HEAD_RADIUS, known_electrodes, lead_field, standard_electrodes
from eegprep.signals.sphere import spline_weights

SFREQ = 512.0  # Hz: a window of 512 samples is one second

SAMPLES = 512

MARGIN = 1.0  # s around the windows of a stretch

BAND = (5.0, 95.0)  # Hz, the paper's

# recorded electrodes keep their signal; MNE's 1e-5 removes the small-scale activity that makes single trials hard to read
_SMOOTHING = 1e-8


@dataclass(frozen=True)
class Stretch:
    """Continuous background with room for the windows of some trials.

    signal_CT: uV at 128 electrodes, not filtered. first_N: first sample of each window.
    """

    signal_CT: np.ndarray
    first_N: np.ndarray


class Background:
    """Something that gives windows, or continuous stretches, of ongoing EEG at 128 electrodes."""

    names: tuple[str, ...]
    licence: str
    band: tuple[float, float]

    def windows(self, onsets_N: np.ndarray, rng: np.random.Generator, person: int) -> np.ndarray:
        """(N, C, T) uV around trials at these times (s, the first is 0), one stretch of time as far as it reaches."""
        raise NotImplementedError

    def stretches(
        self, onsets_N: np.ndarray, rng: np.random.Generator, person: int, sfreq: float, length: float
    ) -> Iterator[Stretch]:
        """Unfiltered background around windows of `length` s that begin at these times (s, the first is 0), in order.

        Every stretch has `MARGIN` s before its first and after its last window, for the edges of a filter.
        """
        raise NotImplementedError

    def pass_band(self, sfreq: float) -> tuple[float, float]:
        """Hz: the paper's band, as far as this rate and the background's own reach."""
        band = effective_band(sfreq, *BAND)
        assert band is not None  # only the policy "skip" gives None
        return band.low, min(band.upper(sfreq), self.band[1])


class GenuineBackground(Background):
    """Stretches of recordings: filtered, resampled to 512 Hz, taken to 128 electrodes by spherical splines.

    People take turns through the recordings. A block is one stretch from a random start; its polarity, and left and right,
    are swapped at random, which makes four of one. A block longer than a recording goes on in another stretch.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        if not recordings:
            raise SignalError("there is no background recording", "give recordings, or --background pink")
        self.names = tuple(recording.name for recording in recordings)
        self.licence = ", ".join(sorted({recording.licence for recording in recordings}))
        self._recordings = tuple(recordings)
        self._filtered = [_filter(recording) for recording in recordings]
        self.band = (BAND[0], min(high for *_, high in self._filtered))

    def windows(self, onsets_N: np.ndarray, rng: np.random.Generator, person: int) -> np.ndarray:
        out = np.empty((len(onsets_N), len(standard_electrodes()), SAMPLES), dtype=np.float32)
        done = 0
        while done < len(onsets_N):
            signal_CT, sfreq, spline_CC, mirrored_CC, _ = self._filtered[self._choose(rng, person)]
            length = signal_CT.shape[1] / sfreq
            times = onsets_N[done:] - onsets_N[done]
            # room at the end for the margin that resampling takes
            n = int((times + SAMPLES / SFREQ < length - 0.5).sum())
            start = rng.uniform(0, length - 0.5 - times[n - 1] - SAMPLES / SFREQ)
            matrix = (rng.choice([-1.0, 1.0]) * (spline_CC if rng.random() < 0.5 else mirrored_CC)).astype(np.float32)
            stretch_CT = _resampled(signal_CT, sfreq, start, times[n - 1] + SAMPLES / SFREQ)
            for row in range(n):
                first = round(times[row] * SFREQ)
                np.matmul(matrix, stretch_CT[:, first : first + SAMPLES], out=out[done + row])
            done += n
        return out

    def stretches(
        self, onsets_N: np.ndarray, rng: np.random.Generator, person: int, sfreq: float, length: float
    ) -> Iterator[Stretch]:
        done = 0
        while done < len(onsets_N):
            number = self._choose(rng, person)
            _, recorded, spline_CC, mirrored_CC, _ = self._filtered[number]
            raw_CT = self._unfiltered(number)
            available = raw_CT.shape[1] / recorded - 0.5
            times = onsets_N[done:] - onsets_N[done]
            n = max(1, int((times + length + 2 * MARGIN < available).sum()))
            duration = times[n - 1] + length + 2 * MARGIN
            start = rng.uniform(0, max(available - duration, 0))
            matrix = (rng.choice([-1.0, 1.0]) * (spline_CC if rng.random() < 0.5 else mirrored_CC)).astype(np.float32)
            piece_CT = _resampled(raw_CT, recorded, start, duration, sfreq)
            yield Stretch(matrix @ piece_CT, np.round((times[:n] + MARGIN) * sfreq).astype(int))
            done += n

    def _unfiltered(self, number: int) -> np.ndarray:
        """(channels, samples) of the electrodes with a known place, each without its mean."""
        picks, _ = known_electrodes(self._recordings[number].channels)
        signal_CT = self._recordings[number].signal_CT[picks]
        return signal_CT - signal_CT.mean(axis=1, keepdims=True)

    def _choose(self, rng: np.random.Generator, person: int) -> int:
        """A recording; people who can have recordings of their own do."""
        count = len(self._filtered)
        return int(rng.integers(count)) if count < 2 else int((person + 2 * rng.integers((count + 1) // 2)) % count)


def _filter(recording: Recording) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, float]:
    """Filtered signal, rate, spline matrices (straight and mirrored), upper band edge."""
    picks, electrodes = known_electrodes(recording.channels)
    if len(picks) < 16:
        raise SignalError(
            f"{recording.name}: {len(picks)} of {len(recording.channels)} channels have a known place (least 16)",
            "use recordings with 10-05 channel names as background",
        )
    if recording.signal_CT.shape[1] < 5 * recording.sfreq:
        raise SignalError(
            f"{recording.name}: {recording.signal_CT.shape[1] / recording.sfreq:.1f} s are too short for background (least 5 s)",
            "use longer recordings",
        )
    band = effective_band(recording.sfreq, *BAND)
    assert band is not None  # only the policy "skip" gives None
    signal_CT = band_pass(recording.signal_CT[picks], recording.sfreq, band.low, band.high)
    target_C3 = standard_electrodes().positions_C3
    mirror = np.array([-1.0, 1.0, 1.0])
    straight_CC, mirrored_CC = (_spline(electrodes.positions_C3, places_C3) for places_C3 in (target_C3, target_C3 * mirror))
    return signal_CT, recording.sfreq, straight_CC, mirrored_CC, band.upper(recording.sfreq)


def _spline(from_C3: np.ndarray, to_C3: np.ndarray) -> np.ndarray:
    """Weights from some electrodes to others; only their directions from the centre of the head count."""
    origin_C3, target_C3 = (places / np.linalg.norm(places, axis=1, keepdims=True) for places in (from_C3, to_C3))
    # terms and clip of 0.1.0, so that a seed still gives the same bytes
    return spline_weights(origin_C3, target_C3, terms=49, noise=_SMOOTHING, clip=False)


def _resampled(signal_CT: np.ndarray, sfreq: float, start: float, duration: float, to: float = SFREQ) -> np.ndarray:
    """A stretch of a signal at `to` Hz; a little more than `duration` s is cut so that edges stay outside."""
    # s; the resampling filter rings at the ends of what it is given
    margin = 0.25
    first = max(0, round((start - margin) * sfreq))
    last = min(signal_CT.shape[1], round((start + duration + margin) * sfreq) + 1)
    ratio = Fraction(to / sfreq).limit_denominator(1000)
    stretch_CT = resample_poly(signal_CT[:, first:last], ratio.numerator, ratio.denominator, axis=1)
    skip = round((start - first / sfreq) * to)
    return stretch_CT[:, skip : skip + round(duration * to) + 1]


class PinkBackground(Background):
    """1/f noise of 150 dipoles all over the cortex, 10 uV rms at the scalp, between 5 and 95 Hz."""

    names = ("1/f noise",)
    licence = "CC0-1.0"
    band = BAND

    def windows(self, onsets_N: np.ndarray, rng: np.random.Generator, person: int) -> np.ndarray:
        frequency_F = np.fft.rfftfreq(SAMPLES, 1 / SFREQ)
        inside = (frequency_F >= BAND[0]) & (frequency_F <= BAND[1])
        # amplitude 1/sqrt(f) is power 1/f
        amplitude_F = np.where(inside, 1 / np.sqrt(np.maximum(frequency_F, 1e-9)), 0.0)
        amplitude_F *= SAMPLES / np.sqrt(2 * (amplitude_F**2).sum())  # unit variance after irfft
        mix_CS = _noise_field()
        shape = (len(onsets_N), mix_CS.shape[1], len(frequency_F))
        spectrum = rng.standard_normal(shape, dtype=np.float32) + 1j * rng.standard_normal(shape, dtype=np.float32)
        activity_NST = irfft(spectrum * (amplitude_F / np.sqrt(2)).astype(np.float32), SAMPLES, axis=2)
        return np.matmul(mix_CS, activity_NST)

    def stretches(
        self, onsets_N: np.ndarray, rng: np.random.Generator, person: int, sfreq: float, length: float
    ) -> Iterator[Stretch]:
        samples = round((onsets_N[-1] + length + 2 * MARGIN) * sfreq) + 1
        frequency_F = np.fft.rfftfreq(samples, 1 / sfreq)
        amplitude_F = np.where(frequency_F >= 1, 1 / np.sqrt(np.maximum(frequency_F, 1e-9)), 0.0)
        low, high = self.pass_band(sfreq)
        inside = (frequency_F >= low) & (frequency_F <= high)
        amplitude_F *= samples / np.sqrt(2 * (amplitude_F[inside] ** 2).sum())  # unit variance inside the band
        mix_CS = _noise_field()
        shape = (mix_CS.shape[1], len(frequency_F))
        spectrum = rng.standard_normal(shape, dtype=np.float32) + 1j * rng.standard_normal(shape, dtype=np.float32)
        activity_ST = irfft(spectrum * (amplitude_F / np.sqrt(2)).astype(np.float32), samples, axis=1)
        yield Stretch(np.matmul(mix_CS, activity_ST), np.round((onsets_N + MARGIN) * sfreq).astype(int))


@lru_cache
def _noise_field() -> np.ndarray:
    """(C, S) float32: what each noise dipole shows at the scalp; the same cortex for everybody."""
    # a constant of its own, so that the cortex does not change with the seed of the simulation
    rng = np.random.default_rng(20170901)
    directions = rng.standard_normal((150, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[:, 2] = np.abs(directions[:, 2]) - 0.3  # the lower third of a head is not brain
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    field_CS = lead_field(0.8 * HEAD_RADIUS * directions, directions + 0.5 * rng.standard_normal(directions.shape))
    return (10.0 * field_CS / np.sqrt((field_CS**2).sum(axis=1).mean())).astype(np.float32)
