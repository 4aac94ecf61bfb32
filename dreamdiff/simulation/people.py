"""Simulates people: sources in a spherical head that respond to images, and the EEG their scalp shows."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from dreamdiff.simulation.backgrounds import SAMPLES, SFREQ, Background
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.images import ImageSet
from eegprep.errors import DataError
from eegprep.signals.head import HEAD_RADIUS, lead_field, standard_electrodes

T0 = -0.2  # s, first sample of a window, from image onset

EVOKED_WINDOW = (0.0, 0.5)  # s, where the signal-to-noise ratio is defined

GAP = (1.0, 1.2)  # s from onset to onset: windows of neighbouring trials never overlap

REST = 10.0  # s between blocks, as in ImageNet-EEG

AMPLIFIER_NOISE = 1.0  # uV rms, white: what a good amplifier adds at this bandwidth

SPECIFIC = 1.5  # size of the image-specific part of a source amplitude, against its common part of about 1

COMPONENTS = 48  # principal components of the CLIP vectors that reach the brain

BLOCK = 40  # trials in a block of the randomised design


# Talairach-like places, mm (x right, y front, z up from the centre of the head), with the delay of the first wave there, s:
# early visual, ventral and lateral occipital, fusiform and posterior temporal cortex; the other hemisphere mirrors them
_AREAS = (
    ("V1", (9.0, -72.0, 4.0), 0.000),
    ("V2", (17.0, -70.0, 14.0), 0.006),
    ("V3", (27.0, -66.0, 20.0), 0.012),
    ("V4", (30.0, -62.0, -14.0), 0.022),
    ("LO1", (42.0, -58.0, 4.0), 0.028),
    ("LO2", (48.0, -50.0, -4.0), 0.034),
    ("FG", (38.0, -48.0, -24.0), 0.044),
    ("pIT", (54.0, -38.0, -16.0), 0.056),
)

# waves: centre s, width s (standard deviation of the envelope), carrier Hz; most of their power lies inside 5-95 Hz
_WAVES = ((0.110, 0.028, 11.0), (0.170, 0.036, 10.0), (0.260, 0.055, 8.0))

_KEEP_BYTES = 500_000_000  # background kept in memory between measuring its power and writing; the rest is made twice

_DIPOLE_NAM = 20.0  # nAm, a plausible cortical source; only the ratios matter, g scales all of them


# ------------------------------------------------------------------------------------------------- the evoked response


class Brain:
    """What all simulated people have in common: where sources are, and how images drive them."""

    def __init__(self, images: ImageSet, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self.components_NK = principal_components(images.features_ND, COMPONENTS)
        shape = (2 * len(_AREAS), len(_WAVES))
        self.base_SL = rng.choice([-1.0, 1.0], size=shape[1]) * rng.lognormal(0.0, 0.3, size=shape)
        k = self.components_NK.shape[1]
        self.map_SLK = rng.standard_normal((*shape, k)) / np.sqrt(max(k, 1))


def principal_components(features_ND: np.ndarray, limit: int) -> np.ndarray:
    """(N, K) scores on the first principal components, a linear map of the features.

    Scores are divided by the fourth root of their variance (half-way to whitening), so that fine differences between images
    are not drowned by the few directions in which all CLIP vectors differ most; then scaled to a mean square of 1.
    """
    centred = features_ND.astype(np.float64) - features_ND.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    # directions without variance would be rounding, scaled up
    k = int(min(limit, (singular > 1e-6 * max(singular[0], 1e-12)).sum()))
    if k == 0:
        raise DataError("all images have the same feature vector", "give features that tell images apart")
    signs = np.sign(right[np.arange(k), np.abs(right[:k]).argmax(axis=1)])  # svd leaves signs open
    scores = left[:, :k] * np.sqrt(singular[:k]) * signs
    return scores / np.sqrt((scores**2).mean())


def waves(time_T: np.ndarray, delay: np.ndarray) -> np.ndarray:
    """Waves of the sources at some times after image onset, 0 before it.

    Args:
        time_T: s after image onset.
        delay: any shape, s, added to the centre of each wave.

    Returns:
        (*delay.shape, L, T), peak near 1.
    """
    centre, width, carrier = (np.array(column)[:, None] for column in zip(*_WAVES, strict=True))
    since = time_T - centre - np.asarray(delay)[..., None, None]
    # the second factor: exactly 0 before the onset, and smooth there
    envelope = np.exp(-0.5 * (since / width) ** 2) * (1 - np.exp(-((np.maximum(time_T, 0) / 0.03) ** 2)))
    return envelope * np.cos(2 * np.pi * carrier * since)


class Person:
    """One simulated person: anatomy, schedule of trials, evoked responses and background."""

    def __init__(self, number: int, config: SimulateConfig, images: ImageSet, brain: Brain, background: Background) -> None:
        self.number, self.config, self.images, self.background = number, config, images, background
        self.sfreq, self.samples, self.t0 = self.timing(config)
        rng = np.random.default_rng([config.seed, 2, number])
        places_S3, moments_S3, delay_S = _sources(rng, config.anatomy)
        self.lead_CS = lead_field(places_S3, moments_S3)
        self.delay_S = delay_S + rng.normal(0, 0.008)
        # the answer of this person's sources: mostly what all share
        self.base_SL = brain.base_SL * rng.lognormal(0, 0.2, brain.base_SL.shape)
        self.map_SLK = brain.map_SLK + 0.3 * rng.standard_normal(brain.map_SLK.shape) / np.sqrt(brain.map_SLK.shape[2])
        self.components_NK = brain.components_NK
        # streams of their own for anatomy, schedule and background: turning one dial leaves the others as they were
        self._schedule(np.random.default_rng([config.seed, 3, number]))
        n = len(self.image_N)
        self.shift_N = rng.normal(0, config.jitter / 1000, n)  # s, latency jitter
        self.gain_N = rng.lognormal(0, 0.2, n)  # amplitude jitter
        self._noise: dict[int, np.ndarray] = {}  # blocks kept between measuring and writing
        self.drift_BC = drift_signal(rng, self.n_blocks, config.drift)

    @staticmethod
    def timing(config: SimulateConfig) -> tuple[float, int, float]:
        """Rate, samples of a window, and time of its first sample, s from the onset of the picture."""
        return SFREQ, SAMPLES, T0

    def evoked(self, trials: np.ndarray) -> np.ndarray:
        """(n, C, T) float32 uV, the response in trials of this person without background."""
        time_T = T0 + np.arange(SAMPLES) / SFREQ
        alive = (time_T > 0) & (time_T < 0.65)  # outside, all waves are below 1e-4 of their peak
        source_NST = self.source_activity(trials, time_T[alive]).astype(np.float32)
        out_NCT = np.zeros((len(trials), len(self.lead_CS), SAMPLES), dtype=np.float32)
        np.matmul(
            (self.scale * self.lead_CS).astype(np.float32), source_NST, out=out_NCT[:, :, alive.argmax() :][:, :, : alive.sum()]
        )
        return out_NCT

    def noise(self, block: int) -> np.ndarray:
        """(n, C, T) float32 uV, background of the trials of a block, with drift and amplifier noise."""
        if block in self._noise:
            # read once to measure and once to write; popped, so that memory shrinks while writing
            return self._noise.pop(block)
        rng = np.random.default_rng([self.config.seed, 4, self.number, block])
        onsets = self.onset_N[self.block_N == block]
        windows_NCT = self.background.windows(onsets - onsets[0], rng, self.number)
        if self.config.drift:
            # the state of the block moves on to that of the next one
            progress_N = np.linspace(0, 1, len(onsets), endpoint=False)[:, None]
            log_gain_NC = self.drift_BC[block] * (1 - progress_N) + self.drift_BC[block + 1] * progress_N
            windows_NCT *= np.exp(log_gain_NC)[:, :, None]
        windows_NCT += AMPLIFIER_NOISE * rng.standard_normal(windows_NCT.shape, dtype=np.float32)
        windows_NCT -= windows_NCT.mean(axis=1, keepdims=True)
        return windows_NCT

    def eeg(self, block: int) -> np.ndarray:
        """(n, C, T) float32 uV, what the amplifier shows in the trials of a block."""
        return self.noise(block) + self.evoked(np.flatnonzero(self.block_N == block))

    def describe(self) -> dict[str, object]:
        """Attributes of the subject's group."""
        electrodes = standard_electrodes()
        return {
            "sfreq": self.sfreq, "t0": self.t0, "channels": list(electrodes.names), "n_channels": len(electrodes),
            "pad_map": list(range(len(electrodes))), "positions": np.round(electrodes.positions_C3, 6).tolist(),
            "band": list(self.background.band), "unit": "uV", "reference": "average", "blocks": "recorded",
            "sources": list(self.background.names), "snr_db": self.config.snr, "dipole_nAm": round(_DIPOLE_NAM * self.scale, 3),
        }  # fmt: skip

    def source_activity(self, trials: np.ndarray, time_T: np.ndarray) -> np.ndarray:
        """(n, S, T) nAm before scaling by `scale`, at times in s after image onset."""
        z_NK = self.components_NK[self.image_N[trials]]
        amplitude_NSL = self.base_SL + SPECIFIC * np.einsum("slk,nk->nsl", self.map_SLK, z_NK)
        amplitude_NSL *= _DIPOLE_NAM * self.gain_N[trials][:, None, None]
        delay_NS = self.delay_S + self.shift_N[trials][:, None]
        return np.einsum("nsl,nslt->nst", amplitude_NSL, waves(time_T, delay_NS))

    @cached_property
    def scale(self) -> float:
        """g: what brings the mean evoked power to the requested ratio of the mean background power."""
        time_T = T0 + np.arange(SAMPLES) / SFREQ
        inside = (time_T >= EVOKED_WINDOW[0]) & (time_T < EVOKED_WINDOW[1])
        coarse_T = time_T[inside][::2]  # 256 Hz are enough for the power of waves below 40 Hz
        gram_SS = self.lead_CS.T @ self.lead_CS / len(self.lead_CS)
        evoked = background = 0.0
        room = _KEEP_BYTES
        for block in range(self.n_blocks):
            source_NST = self.source_activity(np.flatnonzero(self.block_N == block), coarse_T)
            evoked += float(np.einsum("nst,nst->", source_NST, gram_SS @ source_NST)) / len(coarse_T)
            noise_NCT = self.noise(block)
            background += float(np.square(noise_NCT[:, :, inside], dtype=np.float64).mean(axis=(1, 2)).sum())
            room -= noise_NCT.nbytes
            if room > 0:
                self._noise[block] = noise_NCT
        return float(np.sqrt(10 ** (self.config.snr / 10) * background / evoked))

    def _schedule(self, rng: np.random.Generator) -> None:
        """Which image is shown when, and which part of the default split it belongs to."""
        if self.images.part_N is not None:  # concepts: each drawing as often as its part is shown
            times = np.where(self.images.part_N == 2, self.config.test_repetitions, self.config.repetitions)
            image_N = np.repeat(np.arange(len(self.images.part_N)), times)
            shown, part_N = [], self.images.part_N[image_N]
        else:
            shown = [
                images_of(self.images, label, self.config.trials, rng, self.config.test_share)
                for label in range(len(self.images.classes))
            ]
            image_N = np.concatenate([images for images, _ in shown])
            part_N = np.concatenate([parts for _, parts in shown])
        if self.config.block_order == "class" and shown:
            order = np.concatenate([
                label * self.config.trials + rng.permutation(self.config.trials) for label in rng.permutation(len(shown))
            ])  # fmt: skip
            size = self.config.trials
        else:
            order, size = rng.permutation(len(image_N)), BLOCK
        self.image_N, self.part_N = image_N[order], part_N[order]
        self.label_N = self.images.labels_N[self.image_N]
        block_N = np.arange(len(order)) // size
        self.n_blocks = int(block_N[-1]) + 1
        half = (self.n_blocks + 1) // 2  # two sessions
        self.session_N = (block_N >= half).astype(np.int64)
        self.block_N = block_N
        gaps = rng.uniform(*GAP, size=len(order))
        # the pause before the first trial of a block
        gaps[np.flatnonzero(np.diff(block_N, prepend=0))] += REST
        onset_N = np.cumsum(gaps)
        second = self.session_N == 1
        if second.any():
            onset_N[second] -= onset_N[second][0] - GAP[1]
        # on a sample, so that the response needs no fraction of one
        self.onset_N = np.round(onset_N * self.sfreq) / self.sfreq


def _sources(rng: np.random.Generator, anatomy: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (m), moments and delays (s) of the dipoles of one person, both hemispheres; places vary by `anatomy` mm."""
    places, moments, delays = [], [], []
    for side in (-1.0, 1.0):
        for _, (x, y, z), delay in _AREAS:
            place = np.array([side * x, y, z]) / 1000 + rng.normal(0, anatomy / 1000, 3)
            place *= min(1.0, 0.86 * HEAD_RADIUS / float(np.linalg.norm(place)))  # stay in the brain
            outward = place / np.linalg.norm(place)
            places.append(place)
            moments.append(outward + 0.5 * rng.standard_normal(3))  # gyri mostly, and some of the walls of sulci
            delays.append(delay)
    return np.array(places), np.array(moments), np.array(delays)


def images_of(
    images: ImageSet, label: int, trials: int, rng: np.random.Generator, test: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Images and parts (0 train, 1 val, 2 test) of the trials of a category: 10 % and a share for the test, the rest for training."""
    own = np.flatnonzero(images.labels_N == label)
    training, held_out = own[~images.held_out_N[own]], own[images.held_out_N[own]]
    n_test, n_val = max(1, round(test * trials)), max(1, round(0.1 * trials))
    n_train = trials - n_test - n_val
    # drawings are parted the same way for all people; with a single held-out drawing, validation shows training drawings
    n_held_val = len(held_out) // 2 if len(held_out) > 2 else len(held_out) - 1
    for_val = held_out[:n_held_val] if n_held_val else training
    for_test = held_out[n_held_val:]
    chosen = [repeat_in_order(pool, n, rng) for pool, n in ((training, n_train), (for_val, n_val), (for_test, n_test))]
    return np.concatenate(chosen), np.repeat([0, 1, 2], [n_train, n_val, n_test])


def repeat_in_order(pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n members of a pool, each about equally often."""
    rounds = -(-n // len(pool))
    return np.concatenate([rng.permutation(pool) for _ in range(rounds)])[:n]


def drift_signal(rng: np.random.Generator, n_blocks: int, size: float) -> np.ndarray:
    """(n_blocks + 1, C) log gain where blocks begin and the last one ends: smooth over the head, new each time."""
    positions_C3 = standard_electrodes().positions_C3
    distance_CC = np.linalg.norm(positions_C3[:, None] - positions_C3[None], axis=2)
    # neighbours within 6 cm drift together; the small diagonal keeps the Cholesky factor real
    covariance_CC = np.exp(-0.5 * (distance_CC / 0.06) ** 2) + 1e-6 * np.eye(len(positions_C3))
    state_BC = rng.standard_normal((n_blocks + 1, len(positions_C3))) @ np.linalg.cholesky(covariance_CC).T
    return size * state_BC
