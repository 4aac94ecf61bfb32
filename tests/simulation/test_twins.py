"""What the simulated twin of a design reached: measured points come back as they are, and nothing is said where nothing was measured."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from tiny_pairs import tiny_pairs

from dreamdiff.pairs.reader import Pairs
from dreamdiff.simulation import twins
from dreamdiff.simulation.twins import ACCURACY, CATEGORIES, REPETITIONS, TRAINING, describe_twin, twin_accuracy


def test_measured_twins_come_back_as_they_are():
    """Interpolation that moved its own points would be another table."""
    for (a, categories), (b, training), (c, repetitions) in product(*map(enumerate, (CATEGORIES, TRAINING, REPETITIONS))):
        assert twin_accuracy(categories, training, repetitions) == pytest.approx(ACCURACY[a][b][c])


def test_between_measured_twins_lies_what_is_between_them():
    """Half way in the logarithm; beyond the largest number of trials nothing is added."""
    middle = twin_accuracy(4, math.sqrt(10 * 20), 1)

    assert middle == pytest.approx((ACCURACY[1][1][0] + ACCURACY[1][2][0]) / 2)
    assert twin_accuracy(4, 4000, 1) == pytest.approx(ACCURACY[1][-1][0])


def test_every_measured_twin_is_above_chance_and_gains_from_training():
    """The table of a decoder that learned nothing would promise nothing."""
    table = np.array(ACCURACY)

    assert (table[..., 0] > 1 / np.array(CATEGORIES)[:, None]).all()
    assert (np.diff(table[:, :, 0], axis=1) > 0).all() and table.shape == (4, 4, 5) and len(twins.SPREAD) == 4


@pytest.mark.parametrize(("categories", "training"), [(1, 20), (41, 20), (10, 4)])
def test_nothing_is_said_where_nothing_was_measured(categories, training):
    assert twin_accuracy(categories, training, 1) is None


def test_an_import_ends_with_what_its_twin_reached(tmp_path):
    """Named as simulated, with chance, for single trials and for averages of the repetitions that the design has."""
    pairs = Pairs.open(tiny_pairs(tmp_path / "p.zarr", per_class=40))

    said = describe_twin(pairs)

    assert said[0].startswith("its simulated twin (") and "of single trials" in said[0] and "chance" in said[0]
    assert "no promise for recorded EEG" in said[0] and "dreamdiff pairs simulate --out twin.zarr" in said[1]
