"""Whole blocks held out, with drift that says nothing of the class: such an experiment must not be accused."""

from __future__ import annotations

import numpy as np
import pytest

from dreamdiff.baselines.features import Features
from dreamdiff.evaluation import decoding_controls as k
from dreamdiff.pairs.audit import audit
from dreamdiff.pairs.splits import Exchange, Trials, exchange_units

CLASSES, BLOCKS, SIZE = 5, 4, 8


def experiment(seed: int) -> tuple[Trials, np.ndarray, np.ndarray]:
    """Two people, four blocks of each class in random order; one block of each class is held out."""
    rng = np.random.default_rng(seed)
    label = np.concatenate([rng.permutation(np.repeat(np.arange(CLASSES), BLOCKS)) for _ in range(2)])
    person, block = np.divmod(np.arange(2 * CLASSES * BLOCKS), CLASSES * BLOCKS)
    trials = Trials(*(np.repeat(column, SIZE) for column in (person, 0 * person, block)), np.arange(len(label) * SIZE),
                    np.repeat(label, SIZE), np.tile(np.arange(CLASSES * BLOCKS * SIZE, dtype=float), 2))  # fmt: skip
    out = [rng.choice(np.flatnonzero((person == p) & (label == c))) for p in (0, 1) for c in range(CLASSES)]
    return trials, *(np.flatnonzero(np.isin(np.repeat(np.arange(len(label)), SIZE), out) == held) for held in (False, True))


def drifting(trials: Trials, seed: int) -> Features:
    """Features that wander from block to block and know nothing of the class."""
    rng = np.random.default_rng([seed, 1])
    state = np.cumsum(rng.normal(size=(2 * CLASSES * BLOCKS, 12)), axis=0)[trials.person * CLASSES * BLOCKS + trials.block]
    sets = {
        name: (state + 0.5 * rng.normal(size=state.shape)).astype(np.float32)
        for name in ("eeg", "band power", "channel means", "below 5 Hz")
    }
    return Features(sets, {}, 0.5)


def test_clean_block_held_out_experiments_are_not_accused(monkeypatch):
    """Permuting single trials called a third of them leaks: eight trials of one drifting block get one answer, not eight."""
    monkeypatch.setattr(k, "PERMUTATIONS", 200)
    accused = []
    for seed in range(10):
        trials, train, test = experiment(seed)
        report = audit(trials, train, test, split="block", seed=seed)
        found = k.decoding_controls(drifting(trials, seed), trials, train, test, classes=CLASSES, audit=report, seed=seed)
        accused += [found.sentence] if found.verdict == "leaks" else []
    assert not accused


def test_blocks_of_one_class_are_exchanged_as_wholes_and_mixed_ones_trial_by_trial():
    """What was decided by itself when the experiment was made is what may be exchanged."""
    trials, _, _ = experiment(0)
    unit = exchange_units(trials)
    assert len(np.unique(unit)) == 2 * CLASSES * BLOCKS
    dealt = Exchange(unit, trials.person)(trials.concept, np.random.default_rng(0))
    assert all(len(np.unique(dealt[unit == one])) == 1 for one in np.unique(unit)) and (dealt != trials.concept).any()
    assert np.array_equal(np.bincount(dealt), np.bincount(trials.concept))
    mixed = Trials(*(np.zeros(40, int),) * 3, np.arange(40), np.arange(40) % 4, np.arange(40.0))
    assert len(np.unique(exchange_units(mixed))) == 40


@pytest.mark.parametrize("known", [True, False])
def test_without_block_numbers_stretches_of_one_class_are_the_blocks(known):
    """Random order stays random order, and class blocks are found by their times."""
    trials, _, _ = experiment(1)
    hidden = Trials(
        trials.person,
        trials.session,
        np.full(len(trials), -1),
        trials.stimulus,
        trials.concept,
        trials.time if known else trials.time * np.nan,
    )
    count = len(np.unique(exchange_units(hidden)))
    assert count <= 2 * CLASSES * BLOCKS if known else count == len(trials)
