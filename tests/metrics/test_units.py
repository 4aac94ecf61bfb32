"""What an interval draws again: trials, pictures, categories, people."""

from __future__ import annotations

import numpy as np
import pytest

from dreamdiff.metrics.measurement import bootstrap_interval, drawn_rows, mean_measurement, resampled_text, units


def crossed(people: int, categories: int, each: int, spread: tuple[float, float, float], seed: int):
    """Values of every person for `each` pictures of every category: person + category + trial, normal."""
    rng = np.random.default_rng(seed)
    p, c, _ = (axis.reshape(-1) for axis in np.meshgrid(np.arange(people), np.arange(categories), np.arange(each), indexing="ij"))
    values = (
        spread[0] * rng.normal(size=people)[p] + spread[1] * rng.normal(size=categories)[c] + spread[2] * rng.normal(size=len(p))
    )
    return values, units(c, p, c * each + np.tile(np.arange(each), people * categories))


def test_interval_over_people_and_categories_is_as_wide_as_the_theory_of_random_effects():
    """Variance of a mean with crossed random effects is s_p^2 / P + s_c^2 / C + s_e^2 / N (Owen 2007: the bootstrap adds a little)."""
    widths, single = [], []
    for seed in range(12):
        values, groups = crossed(12, 20, 3, (1.0, 1.0, 1.0), seed)
        low, high = bootstrap_interval(values, seed, groups_N=groups, resamples=400)
        widths.append((high - low) / 3.92)
        low, high = bootstrap_interval(values, seed, resamples=400)
        single.append((high - low) / 3.92)
    theory = np.sqrt(1 / 12 + 1 / 20 + 1 / 720)
    assert np.mean(widths) == pytest.approx(theory, rel=0.15)
    assert np.mean(single) < 0.25 * theory  # 720 trials are not 720 independent answers


def test_pictures_follow_their_category_and_two_categories_are_the_design():
    """Faces and houses are not two draws of what could have been shown; forty categories are."""
    person = np.tile(np.arange(3), 20)
    label = np.repeat(np.arange(10), 6)
    picture = np.repeat(np.arange(20), 3)
    assert resampled_text(units(label, person, picture)) == "10 categories and 3 people"
    assert resampled_text(units(label % 2, person, picture)) == "3 people and 20 pictures"
    assert resampled_text(units(picture, person, picture)) == "20 categories and 3 people"
    assert drawn_rows(units(np.zeros(6), np.zeros(6), np.arange(6))) == [2]


def test_one_person_and_one_picture_have_no_interval_whatever_the_trials():
    """Forty trials of one picture say nothing of another."""
    one = np.zeros(40, int)
    found = mean_measurement("a", "p", np.ones((40, 1)), seed=0, floor=0.5, groups_N=units(one, one, one))
    assert np.isnan(found.low) and found.above_floor is None
