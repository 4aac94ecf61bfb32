"""A light decoder: what a linear map makes of time courses and band power. What it finds, a network finds too.

Shapes: N trials, C channels, T samples, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dreamdiff.arrays import Array, Ints
from dreamdiff.estimators.steps import centred
from dreamdiff.linear import RidgeDecoder
from dreamdiff.spectra import CLASSICAL_BANDS, log_power, resolved
from dreamdiff.whitening import whiten_each

MOST_TRIALS = 1000  # ours: training trials of one decoder; the cost of ridge regression grows with their third power

BIN = 1 / 32  # s, ours: evoked responses hold little above 16 Hz


def time_course(eeg_NCT: Array, bins: int = 64) -> Array:
    """(N, C * bins): mean of each channel in equal stretches of time, uV."""
    n, c, t = eeg_NCT.shape
    bins = min(bins, t)
    edges = np.linspace(0, t, bins + 1).astype(int)
    return np.asarray(np.add.reduceat(eeg_NCT, edges[:-1], axis=2) / np.diff(edges)).reshape(n, c * bins)


def band_power(eeg_NCT: Array, sfreq: float) -> Array:
    """(N, C * bands): log power of each channel in the classical bands; bands that a window cannot resolve are left out."""
    bands = resolved(CLASSICAL_BANDS, eeg_NCT.shape[2], sfreq)
    flat = torch.from_numpy(eeg_NCT - eeg_NCT.mean(2, keepdims=True))  # the window would spread an offset into delta
    power_NCF = log_power(flat, sfreq, bands, floor=1e-6).numpy()
    return power_NCF.transpose(0, 2, 1).reshape(len(eeg_NCT), -1)


def decode(
    sets: Sequence[Array], label_N: Ints, person_N: Array, train: Array, test: Array, most: int | None = None, seed: int = 0
) -> Ints:
    """Labels of the test trials by ridge regression, per person where the person has training trials, else over all people.

    Args:
        sets: kinds of features, (N, D) each; every decoder takes the one that predicts left-out training trials best.
        most: training trials of a decoder; the first of a seeded order. All when None.
    """
    out = np.full(len(test), -1, np.asarray(label_N).dtype)
    shared: tuple[int, RidgeDecoder] | None = None
    for person in np.unique(person_N[test]):
        mine, here = train[person_N[train] == person], person_N[test] == person
        own = len(mine) >= 2 * len(np.unique(label_N[train]))
        if not own and shared is None:
            shared = _best(sets, label_N, _some(train, most, seed))
        number, decoder = _best(sets, label_N, _some(mine, most, seed)) if own or shared is None else shared
        out[here] = decoder.predict(sets[number][test[here]])
    return out


def _best(sets: Sequence[Array], label_N: Ints, train: Array) -> tuple[int, RidgeDecoder]:
    fitted = [RidgeDecoder().fit(values_ND[train], label_N[train]) for values_ND in sets]
    number = int(np.argmin([decoder.fitted.left_over for decoder in fitted]))
    return number, fitted[number]


def _some(rows: Array, most: int | None, seed: int) -> Array:
    return rows if most is None or len(rows) <= most else np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def light_decoder(x_NCT: Array, label_N: Ints, person_N: Array, train: Array, test: Array, sfreq: float) -> Ints:
    """Labels of the test trials from time courses or band power, whichever serves better in training.

    People are whitened by their own windows and centred without labels, test people too.
    """
    white_NCT = whiten_each(x_NCT - x_NCT.mean(2, keepdims=True), person_N, "euclidean")
    courses_ND = time_course(white_NCT, max(2, round(x_NCT.shape[2] / sfreq / BIN)))
    sets = [courses_ND, centred(band_power(white_NCT, sfreq), person_N)]
    return decode(sets, label_N, person_N, train, test, MOST_TRIALS)
