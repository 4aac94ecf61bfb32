"""What has to be beaten: ridge regression from EEG to vectors, one map for each person, plain and whitened.

Whitening is fitted without labels on the person's training trials, the penalty chosen by cross-validation among training pictures.
Shapes: N trials, C channels, W samples, F features, D width.
"""

from __future__ import annotations

import numpy as np
import torch

from dreamdiff.alignment.data import pieces
from dreamdiff.arrays import Array, Ints
from dreamdiff.encoders.frontend import FrontEnd, FrontEndConfig, trial_covariance
from dreamdiff.linear import Ridge, grouped_ridge
from dreamdiff.pairs.reader import Pairs

MOST = 4000  # training trials of a map: its cost grows with their cube
BIN = 2  # samples averaged into one feature


def ridge_vectors(pairs: Pairs, front: FrontEndConfig, train: Ints, test: Ints, target_ND: Array, *, whiten: bool) -> Array:
    """(N_test, D) of the test trials.

    Args:
        front: the stretch of time that is read. train, test: positions. target_ND: vectors of the training trials' pictures.
            whiten: by the person's own training trials; somebody without any gets the map of all people.
    """
    out = np.zeros((len(test), np.shape(target_ND)[1]))
    everybody = None
    cutter = FrontEnd(front.model_copy(update={"align": "person" if whiten else "none"}))
    for person in np.unique(pairs.person[test]):
        rows, own = np.flatnonzero(pairs.person[test] == person), np.flatnonzero(pairs.person[train] == person)
        # a penalty chosen by cross-validation needs three trials at least
        if len(own) < 3:
            if everybody is None:
                everybody = _fit(pairs, cutter, train, target_ND, np.arange(len(train)))
            model = everybody
        else:
            model = _fit(pairs, cutter, train, target_ND, own)
        fitted, whitener = model
        out[rows] = fitted.predict(_features(pairs, cutter, test[rows], whitener).numpy())
    return out


def _fit(pairs: Pairs, cutter: FrontEnd, train: Ints, target_ND: Array, chosen: Ints) -> tuple[Ridge, torch.Tensor]:
    chosen = chosen if len(chosen) <= MOST else np.sort(np.random.default_rng(0).choice(chosen, MOST, replace=False))
    cut_NCW = torch.cat([cutter.cut(torch.from_numpy(pairs.eeg(part))) for part in pieces(train[chosen])])
    whitener = cutter.whitener_of(trial_covariance(cut_NCW)).float()
    return grouped_ridge(_binned(whitener @ cut_NCW).numpy(), target_ND[chosen], pairs.image[train[chosen]]), whitener


def _features(pairs: Pairs, cutter: FrontEnd, positions: Ints, whitener_CC: torch.Tensor) -> torch.Tensor:
    parts = [whitener_CC @ cutter.cut(torch.from_numpy(pairs.eeg(part))) for part in pieces(positions)]
    return _binned(torch.cat(parts))


def _binned(x_NCW: torch.Tensor) -> torch.Tensor:
    whole = x_NCW.shape[2] // BIN * BIN
    return x_NCW[:, :, :whole].unflatten(2, (-1, BIN)).mean(3).flatten(1)
