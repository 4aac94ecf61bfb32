"""Which seconds and which electrodes of a store's trials carry the category, by a light decoder on the same trials.

Shapes: N trials, C channels, T samples.
"""

from __future__ import annotations

import numpy as np

from dreamdiff.arrays import Array, Ints
from dreamdiff.estimators.carriers import Carriers, carriers
from dreamdiff.pairs.reader import Pairs
from eegprep.recording import ProgressCallback

RATE = 128.0  # Hz, ours: faster trials are averaged down to this, which is what a light decoder can use
MOST = 3000  # trials in memory
BATCH = 256


def carriers_of(
    store: Pairs, train: Ints, test: Ints, *, seed: int = 0, progress: ProgressCallback | None = None
) -> Carriers | str:  # fmt: skip
    """The category of the test trials from parts of the trial; or why that cannot be asked.

    Intervals are over pictures where several test trials show the same one.
    """
    rng = np.random.default_rng(seed)
    train_labels = np.unique(store.labels[train])
    test = np.asarray(test)[np.isin(store.labels[test], train_labels)]
    seen = np.unique(store.labels[test])
    if len(seen) < 2:
        return f"{len(seen)} category of the test trials was taught (at least 2)"
    train, test = (np.sort(rng.permutation(rows)[: MOST * share // 4]) for rows, share in ((train, 3), (test, 1)))
    attributes = store.attributes[store.subjects[0]]
    real = min(int(store.attributes[name].get("n_channels", store.eeg_shape[0])) for name in store.subjects)
    sfreq, factor = float(attributes.get("sfreq") or 512.0), 1
    while sfreq / (factor + 1) >= RATE:
        factor += 1
    names = [tuple(store.attributes[name].get("channels") or ())[:real] for name in store.subjects]
    channels = list(names[0]) if len(set(names)) == 1 and len(names[0]) == real else None
    rows = np.concatenate([train, test])
    x_NCT = np.concatenate([_slower(store.eeg(rows[n : n + BATCH])[:, :real], factor) for n in range(0, len(rows), BATCH)])
    first = float(attributes.get("t0") or 0.0)
    fold = (np.arange(len(train)), np.arange(len(train), len(rows)))
    return carriers(
        x_NCT, store.labels[rows], store.person[rows], [fold], sfreq=sfreq / factor, first=first, channels=channels,
        unit_N=store.image[rows], seed=seed, progress=progress,
    )  # fmt: skip


def _slower(x_NCT: Array, factor: int) -> Array:
    """Mean of every `factor` samples; what is left at the end is left out."""
    samples = x_NCT.shape[2] // factor
    return np.asarray(x_NCT[:, :, : samples * factor].reshape(*x_NCT.shape[:2], samples, factor).mean(3))
