"""Ranks, group sizes, and what is known of a person."""

from __future__ import annotations

import numpy as np
import pytest

from dreamdiff.protocols.epochs import BEST_TEST, LAST, VALIDATION, _compared
from dreamdiff.protocols.ranking import chance_of_reciprocal_rank, group_sizes, hits_at, person_states, reciprocal_ranks
from eegprep.errors import UsageError


def test_ties_are_broken_at_random_and_averaged_over():
    """A constant score is a guesser: top-k has k / G, mAP the mean of 1 / rank."""
    scores, truth = np.zeros((3, 8)), np.array([0, 3, 7])
    np.testing.assert_allclose(hits_at(scores, truth, 2), 2 / 8)
    np.testing.assert_allclose(reciprocal_ranks(scores, truth), chance_of_reciprocal_rank(8))


def test_reciprocal_rank_is_that_of_sorting():
    """Against another way to find the rank."""
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=(50, 30)), rng.integers(0, 30, 50)
    order = np.argsort(-scores, axis=1)
    ranks = (order == truth[:, None]).argmax(1) + 1
    np.testing.assert_allclose(reciprocal_ranks(scores, truth), 1 / ranks)
    np.testing.assert_allclose(hits_at(scores, truth, 5), ranks <= 5)


def test_sizes_double_up_to_what_there_is():
    """The curve 1, 2, 4, ... all of the field."""
    assert group_sizes(("1", "2", "4", "...", "all"), 80) == ["1", "2", "4", "8", "16", "32", "64", "all"]
    assert group_sizes(("1", "...", "all"), 2) == ["1", "all"]
    for wrong in (("...",), ("0",), ("all", "..."), ("x",)):
        with pytest.raises(UsageError):
            group_sizes(wrong, 8)


def test_person_is_named_by_what_was_seen_of_them():
    """Nothing, whitening from unlabelled trials, and minutes of labels are three different tasks."""
    steps = [
        {"people": ["b"], "labelled": False, "trials": 40, "minutes": 1.0},
        {"people": ["c"], "labelled": True, "minutes": 12.5, "trials": 9},
    ]
    found = person_states({"adapted": steps}, ["a", "b", "c"], ["a", "b", "c", "d"])
    assert found == ["seen", "unlabelled-40", "minutes-12.5", "new"]


def test_optimism_is_the_best_test_epoch_minus_the_honest_one():
    """Chosen by validation where there is any, else the last epoch."""
    values = [np.r_[np.ones(k), np.zeros(10 - k)] for k in (3, 6, 5)]
    scored = _compared([(10, -0.2, values[0]), (20, -0.5, values[1]), (30, -0.9, values[2])], np.arange(10), 0)
    assert [(one.how, one.step) for one in scored.choices] == [(LAST, 30), (VALIDATION, 30), (BEST_TEST, 20)]
    assert scored.points == pytest.approx(0.1) and scored.against == VALIDATION and "+10.0 points" in scored.sentence
    without = _compared([(10, np.nan, values[1]), (20, np.nan, values[0])], np.arange(10), 0)
    assert without.against == LAST and without.points == pytest.approx(0.3)
