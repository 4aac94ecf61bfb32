"""Simulated viewing that is harder than a linear map, and nearer to recorded EEG.

The sources are driven by another network than the one that is decoded, through a fixed non-linear map, and the response is part of the
recording before it is filtered:

    f       features of EfficientNet-Lite0 for the picture, (N, D)
    z       principal components of f; z = c + d, c the mean of the picture's category, d the picture's own part
    h       leaky rectified tanh of R (category c + own d), R a fixed rotation: no linear map from h to f is right
    a_SL    common base_SL + SPECIFIC (B h)_SL, with B of the person
    x_CT    band-pass( background_CT + g G_CS sum_trials a_S w_S(t - onset - lag_S - shift) ), then cut into windows

`category` and `own` set how much of a response belongs to the category and how much to this picture; `common` is what every picture
evokes. The latency `shift` varies from trial to trial with standard deviation `jitter`; places of the sources vary from person to person
by `anatomy`, their directions freely. As the band-pass is linear, g sets the ratio of filtered response and filtered background exactly.

Because the response passes the zero-phase filter, a little of it lies before the onset of the picture, as in recordings.

Shapes: N trials or pictures, C channels, T samples, S sources, L waves, K components.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from dreamdiff.simulation.backgrounds import Background, Stretch
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.images import ImageSet
from dreamdiff.simulation.people import (
    _DIPOLE_NAM,
    _KEEP_BYTES,
    AMPLIFIER_NOISE,
    EVOKED_WINDOW,
    SPECIFIC,
    T0,
    Brain,
    Person,
    waves,
)  # fmt: skip
from eegprep.signals.filters import band_pass

RESPONSE = 0.75  # s after onset; later, all waves are below 1e-4 of their peak
BEND = 2.0  # steepness of the non-linear map; below 0.5 it is nearly a straight line
LEAK = 0.2  # slope of the map for negative input


def bent(z_NK: np.ndarray, seed: int) -> np.ndarray:
    """The fixed non-linear map from components to what drives sources: (N, K), mean 0, mean square 1."""
    k = z_NK.shape[1]
    rotation_KK, _ = np.linalg.qr(np.random.default_rng([seed, 77]).standard_normal((k, k)))
    h_NK = np.tanh(BEND * z_NK @ rotation_KK)
    # tanh alone is odd, and keeps a large linear part
    h_NK = np.where(h_NK > 0, h_NK, LEAK * h_NK)
    h_NK = h_NK - h_NK.mean(axis=0)
    return h_NK / np.sqrt(np.square(h_NK).mean())


def parted(z_NK: np.ndarray, labels_N: np.ndarray, category: float, own: float) -> np.ndarray:
    """`category` times the mean of each picture's category plus `own` times the rest."""
    mean_NK = np.zeros_like(z_NK)
    for label in np.unique(labels_N):
        mean_NK[labels_N == label] = z_NK[labels_N == label].mean(axis=0)
    return category * mean_NK + own * (z_NK - mean_NK)


class DrivenBrain(Brain):
    """What all simulated viewers have in common, with sources driven through `bent`."""

    def __init__(self, images: ImageSet, config: SimulateConfig) -> None:
        super().__init__(images, seed=config.seed)
        z_NK = parted(self.components_NK, images.labels_N, config.category, config.own)
        self.components_NK = bent(z_NK, config.seed)


class Viewer(Person):
    """One simulated person whose response is added to a continuous recording, which is then filtered and cut."""

    def __init__(self, number: int, config: SimulateConfig, images: ImageSet, brain: Brain, background: Background) -> None:
        super().__init__(number, config, images, brain, background)
        self._kept: dict[
            int, tuple[np.ndarray, np.ndarray]
        ] = {}  # response and background of blocks between measuring and writing

    @staticmethod
    def timing(config: SimulateConfig) -> tuple[float, int, float]:
        """Rate, samples of a window, and time of its first sample; the picture appears at a sample."""
        return config.sfreq, round(config.length * config.sfreq), -round(-T0 * config.sfreq) / config.sfreq

    def describe(self) -> dict[str, object]:
        """Attributes of the subject's group."""
        band = [round(edge, 3) for edge in self.background.pass_band(self.sfreq)]
        return {**super().describe(), "band": band, "simulation": self.config.recipe()}

    def source_activity(self, trials: np.ndarray, time_T: np.ndarray) -> np.ndarray:
        """(n, S, T) nAm before scaling by `scale`, at times in s after image onset."""
        h_NK = self.components_NK[self.image_N[trials]]
        amplitude_NSL = self.config.common * self.base_SL + SPECIFIC * np.einsum("slk,nk->nsl", self.map_SLK, h_NK)
        amplitude_NSL *= _DIPOLE_NAM * self.gain_N[trials][:, None, None]
        delay_NS = self.delay_S + self.shift_N[trials][:, None]
        return np.einsum("nsl,nslt->nst", amplitude_NSL, waves(time_T, delay_NS))

    def evoked(self, trials: np.ndarray) -> np.ndarray:
        """(n, C, T) float32 uV, the response in some trials, filtered, without background."""
        out = np.zeros((len(trials), len(self.lead_CS), self.samples), np.float32)
        for block in np.unique(self.block_N[trials]):
            rows = np.flatnonzero(self.block_N == block)
            response_NCT, _ = self._parts(int(block))
            here = np.flatnonzero(self.block_N[trials] == block)
            out[here] = response_NCT[np.searchsorted(rows, trials[here])]
        return np.float32(self.scale) * out

    def noise(self, block: int) -> np.ndarray:
        """(n, C, T) float32 uV, filtered background of the trials of a block, with drift and amplifier noise."""
        return self._parts(block)[1]

    def eeg(self, block: int) -> np.ndarray:
        """(n, C, T) float32 uV, what is left of the trials of a block after the filter."""
        response_NCT, noise_NCT = self._kept.pop(block) if block in self._kept else self._parts(block)
        return noise_NCT + np.float32(self.scale) * response_NCT

    @cached_property
    def scale(self) -> float:
        """g: what brings the mean power of the filtered response to the asked ratio of that of the filtered background."""
        time_T = self.t0 + np.arange(self.samples) / self.sfreq
        inside = (time_T >= EVOKED_WINDOW[0]) & (time_T < EVOKED_WINDOW[1])
        powers = np.zeros(2)
        room = _KEEP_BYTES
        for block in range(self.n_blocks):
            parts = self._parts(block)
            powers += [float(np.square(part[:, :, inside], dtype=np.float64).mean(axis=(1, 2)).sum()) for part in parts]
            room -= sum(part.nbytes for part in parts)
            if room > 0:
                self._kept[block] = parts
        return float(np.sqrt(10 ** (self.config.snr / 10) * powers[1] / powers[0]))

    def _parts(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Filtered response (before `scale`) and filtered background of a block, each (n, C, T) and average referenced."""
        if block in self._kept:
            return self._kept[block]
        rng = np.random.default_rng([self.config.seed, 4, self.number, block])
        rows = np.flatnonzero(self.block_N == block)
        onsets_N = self.onset_N[rows] - self.onset_N[rows[0]]
        response = np.empty((len(rows), len(self.lead_CS), self.samples), np.float32)
        noise = np.empty_like(response)
        done = 0
        for stretch in self.background.stretches(onsets_N, rng, self.number, self.sfreq, self.samples / self.sfreq):
            trials = rows[done : done + len(stretch.first_N)]
            signal_CT = self._drifted(stretch, block, onsets_N[done : done + len(trials)] / max(float(onsets_N[-1]), 1e-9))
            signal_CT += AMPLIFIER_NOISE * rng.standard_normal(signal_CT.shape, dtype=np.float32)
            for target, x_CT in ((noise, signal_CT), (response, self._response(trials, stretch))):
                # apart, as the filter is linear: their powers set g, which is known only afterwards
                filtered_CT = band_pass(x_CT, self.sfreq, *self.background.pass_band(self.sfreq))
                filtered_CT -= filtered_CT.mean(axis=0)
                for row, first in enumerate(stretch.first_N):
                    target[done + row] = filtered_CT[:, first : first + self.samples]
            done += len(trials)
        return response, noise

    def _response(self, trials: np.ndarray, stretch: Stretch) -> np.ndarray:
        """(C, T) float32 uV before `scale`: the responses of some trials, each at its own place in the stretch."""
        time_T = np.arange(round(RESPONSE * self.sfreq)) / self.sfreq
        source_ST = np.zeros((self.lead_CS.shape[1], stretch.signal_CT.shape[1]))
        onset = round(-self.t0 * self.sfreq)
        for first, activity_ST in zip(stretch.first_N, self.source_activity(trials, time_T), strict=True):
            here = source_ST[:, first + onset : first + onset + len(time_T)]
            # added: the tail of one response may reach into the next trial
            here += activity_ST[:, : here.shape[1]]
        return (self.lead_CS @ source_ST).astype(np.float32)

    def _drifted(self, stretch: Stretch, block: int, progress_N: np.ndarray) -> np.ndarray:
        """The background with the state of the block moving on to that of the next one."""
        if not self.config.drift:
            return stretch.signal_CT
        at_T = np.interp(np.arange(stretch.signal_CT.shape[1]), stretch.first_N, progress_N)
        gain_CT = self.drift_BC[block][:, None] * (1 - at_T) + self.drift_BC[block + 1][:, None] * at_T
        return stretch.signal_CT * np.exp(gain_CT).astype(np.float32)
