"""Extracts the parts of an EEG trial that a decoder may see: spectra, time courses, slow drifts, stretches before the stimulus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dreamdiff.arrays import Array, Ints
from dreamdiff.estimators.light import band_power, time_course
from dreamdiff.linear import whitener
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.splits import Trials
from dreamdiff.spectra import band_pass
from eegprep.signals.spectra import spread


@dataclass(frozen=True)
class Baseline:
    """Images of one baseline, and in words what it knew."""

    name: str
    told: str
    images_NSHWC: Array


@dataclass(frozen=True)
class Problem:
    """Training and test trials of a store, with what baselines need of them.

    size: pixels of the generated images. samples: images per trial. labels and pictures of test trials are for the oracle only.
    """

    store: Pairs
    train: Ints
    test: Ints
    size: int
    samples: int = 1
    seed: int = 0
    steps: int = 20

    @property
    def labels_train(self) -> Ints:
        """(N,)"""
        return np.asarray(self.store.labels[self.train], np.int64)

    @property
    def real_channels(self) -> int:
        """Rows before padding, of the person with the fewest; what follows repeats them."""
        counts = [int(self.store.attributes[name].get("n_channels", self.store.eeg_shape[0])) for name in self.store.subjects]
        return min(*counts, self.store.eeg_shape[0])

    def features(self) -> tuple[Array, Array]:
        """Whitened time courses of training and test trials, the input of all linear baselines."""
        everything = np.concatenate([self.train, self.test])
        attributes = self.store.attributes[self.store.subjects[0]]
        value = extract_features(
            lambda rows: self.store.eeg(everything[rows]), self.store.trials.take(everything), np.arange(len(self.train)),
            sfreq=float(attributes.get("sfreq") or 512.0), t0=float(attributes.get("t0") or 0.0),
            real_channels=self.real_channels,
        ).sets["eeg"]  # fmt: skip
        return value[: len(self.train)], value[len(self.train) :]


def by_person(person_train: Array, person_test: Array) -> list[tuple[Ints, Ints]]:
    """Rows of training and test per person; a person without training trials is read with everybody's."""
    pairs = []
    for person in np.unique(person_test):
        own = np.flatnonzero(person_train == person)
        # a single trial fits no map
        pairs.append((own if len(own) > 1 else np.arange(len(person_train)), np.flatnonzero(person_test == person)))
    return pairs


SLOW_HZ = 5.0  # the paper's lower edge; below is drift

PRESTIMULUS_SAMPLES = 16


# what a decoder may see


@dataclass(frozen=True)
class Features:
    """Feature sets of all trials, (N, D) each, and why others could not be made."""

    sets: Mapping[str, Array]
    left_out: Mapping[str, str]
    window: float  # s, length of a trial


def extract_features(
    read: Callable[[Ints], Array], trials: Trials, train: Array, *, sfreq: float, t0: float, real_channels: int, batch: int = 256
) -> Features:
    """All feature sets in one pass over the EEG.

    Args:
        read: indices -> (n, C, T) float32, uV.
        trials, train: table of all trials, and which of them are training trials.
        sfreq: Hz. t0: time of the first sample after image onset, s; negative when there is EEG before it.
        real_channels: channels before padding; copies of a channel say nothing new.

    The decoder of the result sees channels whitened by the covariance of the person's training trials (multivariate noise
    normalisation, Guggenmos et al. 2018); without it a linear decoder of few trials drowns in background.
    """
    before = int(np.clip(np.floor(-t0 * sfreq + 1e-6), 0, None))
    whitening = _whitening(read, trials.person, np.asarray(train), real_channels)
    parts: dict[str, list[Array]] = {}
    samples = 0
    for start in range(0, len(trials), batch):
        rows = np.arange(start, min(start + batch, len(trials)))
        eeg = np.asarray(read(rows), np.float32)[:, :real_channels]
        samples = eeg.shape[2]
        white = np.stack([whitening[person] @ one for person, one in zip(trials.person[rows], eeg[:, :, before:], strict=True)])
        entries = {
            "eeg": time_course(white),
            "band power": band_power(eeg, sfreq),
            "channel means": channel_means(eeg),
            "below 5 Hz": slow_part(eeg, sfreq),
        }
        if before >= PRESTIMULUS_SAMPLES:
            early = eeg[:, :, :before]
            entries["pre-stimulus"] = np.concatenate([band_power(early, sfreq), time_course(early, bins=8)], axis=1)
        for name, values in entries.items():
            parts.setdefault(name, []).append(values.astype(np.float32))
    left_out = {}
    if before < PRESTIMULUS_SAMPLES:
        left_out["pre-stimulus"] = f"the store holds {before} samples before image onset ({PRESTIMULUS_SAMPLES} are needed)"
    return Features({name: np.concatenate(values) for name, values in parts.items()}, left_out, samples / sfreq)


def _whitening(read: Callable[[Ints], Array], person_N: Array, train: Array, channels: int, most: int = 200) -> dict[int, Array]:
    """Person -> (C, C) inverse square root of the channel covariance, from up to `most` training trials of the person.

    A person without training trials gets that of all training trials; weak directions are held at a thousandth of the strongest.
    """
    roots = {}
    for person in np.unique(person_N):
        mine = train[person_N[train] == person]
        mine = train if len(mine) < 2 else mine
        chosen = mine[spread(len(mine), most)]
        eeg = np.asarray(read(chosen), np.float32)[:, :channels]
        roots[int(person)] = whitener(eeg, floor=1e-3).astype(np.float32)
    return roots


def channel_means(eeg_NCT: Array) -> Array:
    """(N, C): mean of each channel over the window, uV: electrode offset and nothing else."""
    return np.asarray(eeg_NCT.mean(2))


def slow_part(eeg_NCT: Array, sfreq: float, below_hz: float = SLOW_HZ) -> Array:
    """(N, C * 16): each channel without anything at or above `below_hz`, in 16 stretches."""
    return time_course(band_pass(eeg_NCT, sfreq, 0.0, below_hz), bins=16)


def neighbours(trials: Trials, window: float) -> Ints | None:
    """(N, 2): the nearest earlier and later trial of the same recording that does not overlap this one; -1 for none.

    What drifts is the same in neighbours, and the response to this trial's image is not in them: the features of neighbours
    name the class only where class and time go together. None when times are not recorded.
    """
    if np.isnan(trials.time).any():
        return None
    recording = trials.person.astype(np.int64) * 100_000 + trials.session
    out = np.full((len(trials), 2), -1, np.int64)
    for name in np.unique(recording):
        here = np.flatnonzero(recording == name)
        here = here[np.argsort(trials.time[here], kind="stable")]
        times = trials.time[here]
        earlier = np.searchsorted(times, times - window + 1e-9, side="right") - 1
        later = np.searchsorted(times, times + window - 1e-9, side="left")
        out[here, 0] = np.where(earlier >= 0, here[np.maximum(earlier, 0)], -1)
        out[here, 1] = np.where(later < len(here), here[np.minimum(later, len(here) - 1)], -1)
    return out


def mean_of(values_ND: Array, rows_N2: Ints) -> Array:
    """Mean of the rows that are there; the overall mean where there is none."""
    known = (rows_N2 >= 0)[:, :, None]
    total = np.where(known, values_ND[rows_N2], 0).sum(1)
    count = known.sum(1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), values_ND.mean(0)), np.float32)
