"""What the simulated twin of a design reached: a table of twins that were measured, and what lies between them.

The twin of a design is `pairs simulate` with as many categories, trials and repetitions (response at -16 dB in a single trial). In each
person, channels are whitened and a ridge regression on time courses names the category of drawings that training never showed. The
table is written by `benchmarks/twins.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dreamdiff.pairs.reader import Pairs

CATEGORIES = (2, 4, 10, 40)
TRAINING = (5, 10, 20, 40)  # training trials a category and person
REPETITIONS = (1, 2, 4, 8, 16)  # of a picture in one person, averaged
SFREQ = 128.0  # Hz, of the simulated windows

# categories x training trials x repetitions
ACCURACY = (
    ((0.576, 0.609, 0.629, 0.648, 0.641), (0.608, 0.639, 0.680, 0.703, 0.719), (0.662, 0.723, 0.742, 0.758, 0.812), (0.730, 0.771, 0.820, 0.859, 0.906)),
    ((0.358, 0.388, 0.428, 0.496, 0.539), (0.410, 0.462, 0.545, 0.578, 0.602), (0.455, 0.535, 0.635, 0.707, 0.789), (0.523, 0.613, 0.697, 0.750, 0.812)),
    ((0.177, 0.207, 0.253, 0.305, 0.353), (0.215, 0.256, 0.332, 0.433, 0.516), (0.265, 0.346, 0.420, 0.569, 0.666), (0.339, 0.445, 0.575, 0.714, 0.803)),
    ((0.056, 0.070, 0.114, 0.159, 0.231), (0.079, 0.109, 0.152, 0.241, 0.397), (0.123, 0.177, 0.246, 0.395, 0.522), (0.181, 0.260, 0.370, 0.514, 0.634)),
)  # fmt: skip
SPREAD = (0.08, 0.07, 0.05, 0.04)  # standard deviation over simulated people, by categories


def twin_accuracy(categories: float, training: float, repetitions: float) -> float | None:
    """Accuracy of the twin, interpolated between the logarithms of what was measured; more trials than the largest count as it.

    None where the table says nothing: fewer than 2 or more than 40 categories, fewer than 5 training trials a category.
    """
    if not CATEGORIES[0] <= categories <= CATEGORIES[-1] or training < TRAINING[0] or repetitions < 1:
        return None
    table = np.array(ACCURACY)
    for axis, value in ((CATEGORIES, categories), (TRAINING, training), (REPETITIONS, repetitions)):
        table = _between(table, axis, value)
    return float(table)


def describe_twin(pairs: Pairs) -> list[str]:
    """Sentences: what the twin of this design reached on single trials and on averages, and how to make it."""
    parts = pairs.splits
    train, test = (parts.get(name) for name in ("train", "test"))
    categories, people = len(np.unique(pairs.labels)), len(pairs.subjects)
    trials = max(3, math.ceil(len(pairs) / people / categories))
    command = f"dreamdiff pairs simulate --out twin.zarr --people {people} --trials {trials}"
    if train is None or test is None or not len(train) or not len(test):
        return [f"what such a design could show: simulate its twin ({command})"]
    training = len(train) / people / categories
    shown = np.unique(np.stack([pairs.person[test], pairs.image[test]]), axis=1, return_counts=True)[1]
    repetitions = float(np.median(shown))
    single = twin_accuracy(categories, training, 1)
    if single is None:
        why = (
            f"{categories} categories (2 to {CATEGORIES[-1]})"
            if not CATEGORIES[0] <= categories <= CATEGORIES[-1]
            else f"{training:.1f} training trials a category and person (at least {TRAINING[0]})"
        )
        return [f"what its simulated twin reaches was not measured for {why}: {command}"]
    spread = _between(np.array(SPREAD), CATEGORIES, categories)
    averaged = twin_accuracy(categories, training, repetitions)
    mean = f" and {averaged:.0%} of averages of {repetitions:g} repetitions" if averaged is not None and repetitions > 1 else ""
    return [
        f"its simulated twin ({categories} categories, {training:.0f} training trials a category and person, new pictures, each person by themselves) names the category "
        f"of {single:.0%} of single trials{mean}, chance {1 / categories:.1%}; simulated people differ by {spread:.0%} (standard deviation); "
        "whitened ridge regression, interpolated between measured twins, and no promise for recorded EEG",
        f"to make that twin and treat it the same: {command}",
    ]


def _between(table: np.ndarray, axis: Sequence[float], value: float) -> np.ndarray:
    """Linear in the logarithm along the first axis; at its ends beyond it."""
    places = np.log(np.array(axis, float))
    at = float(np.clip(math.log(value), places[0], places[-1]))
    above = min(max(int(np.searchsorted(places, at)), 1), len(places) - 1)
    share = (at - places[above - 1]) / (places[above] - places[above - 1])
    return np.asarray((1 - share) * table[above - 1] + share * table[above])
