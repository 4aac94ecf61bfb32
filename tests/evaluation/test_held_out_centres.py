"""Classes that training never shows have centres all the same, and the protocol says from which pictures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from dreamdiff.evaluation.evaluate import centre_images


def test_held_out_classes_get_their_centre_from_pictures_that_no_judged_trial_showed():
    """Class 2 has another picture (5), class 3 only the one that is judged."""
    store = SimpleNamespace(
        classes=["a", "b", "c", "d"], image=np.array([0, 1, 2, 3, 4, 5, 6, 4]), labels=np.array([0, 0, 1, 1, 2, 2, 3, 2])
    )
    images, labels, remark = centre_images(store, np.arange(4), np.array([4, 6]))
    assert images.tolist() == [0, 1, 2, 3, 5, 6] and labels.tolist() == [0, 0, 1, 1, 2, 3]
    assert "1 from pictures that no judged trial showed, 1 from the shown ones" in remark
    assert centre_images(store, np.array([0, 2, 4, 6]), np.array([5]))[2] == ""
