"""Vectors to predictions: the category whose centre, and the picture of a gallery whose vector, lies in the nearest direction.

Directions are seen from the mean of the training pictures: all pictures share a large part, and a cautious vector differs little
from it.
Shapes: N trials, K classes, G gallery pictures, M training pictures, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dreamdiff.arrays import Array, Ints

CATEGORY, PICTURE = "category", "picture"


@dataclass(frozen=True)
class VectorJudge:
    """Judges vectors of one space.

    mean_D: of the training pictures. centres_KD: unit directions of the classes, zeros for those without a training picture.
    gallery_GD: unit directions of the pictures to choose from.
    """

    mean_D: Array
    centres_KD: Array
    gallery_GD: Array
    space: str = ""

    @classmethod
    def of(cls, taught_MD: Array, label_M: Ints, classes: int, gallery_GD: Array, space: str = "") -> VectorJudge:
        """From the vectors and labels of the training pictures, and those of the gallery."""
        mean_D = np.asarray(taught_MD, float).mean(0)
        direction_MD = unit(np.asarray(taught_MD, float) - mean_D)
        centres = np.zeros((classes, direction_MD.shape[1]))
        for label in np.unique(label_M):
            centres[label] = unit(direction_MD[label_M == label].mean(0))
        return cls(mean_D, centres, unit(np.asarray(gallery_GD, float) - mean_D), space)

    def directions(self, vectors_ND: Array) -> Array:
        """Unit directions from the mean of the training pictures; a vector at the mean itself has none and stays zero."""
        return unit(np.asarray(vectors_ND, float) - self.mean_D)

    def truth(self, label_N: Ints, picture_N: Ints) -> dict[str, Ints]:
        """What is right of each trial, for every measure that has an answer: -1 for trials of a class that was never taught."""
        in_training = np.abs(self.centres_KD).sum(1) > 0
        answers: dict[str, Ints] = {}
        category_N = np.where(in_training[label_N], label_N, -1)
        if (category_N >= 0).any() and in_training.sum() > 1:
            answers[CATEGORY] = category_N
        if len(self.gallery_GD) > 1:
            answers[PICTURE] = np.asarray(picture_N, np.int64)
        return answers

    def predict(self, vectors_ND: Array) -> Mapping[str, Ints]:
        """The nearest category and picture of each vector; -1 for a vector without a direction, which decides nothing."""
        direction_ND = self.directions(vectors_ND)
        says = np.abs(direction_ND).sum(1) > 0
        training_classes = np.flatnonzero(np.abs(self.centres_KD).sum(1) > 0)
        predictions: dict[str, Ints] = {}
        if len(training_classes) > 1:
            predictions[CATEGORY] = np.where(
                says, training_classes[(direction_ND @ self.centres_KD[training_classes].T).argmax(1)], -1
            )
        if len(self.gallery_GD) > 1:
            predictions[PICTURE] = np.where(says, (direction_ND @ self.gallery_GD.T).argmax(1), -1)
        return predictions

    def floors(self, label_N: Ints) -> dict[str, float]:
        """Shares of a guesser who knows how often each class is shown, and nothing of the EEG."""
        shares = np.bincount(label_N, minlength=len(self.centres_KD)) / max(len(label_N), 1)
        # who guesses each class as often as it is shown is right with probability sum of p squared
        return {CATEGORY: float((shares**2).sum()), PICTURE: 1.0 / max(len(self.gallery_GD), 1)}

    def protocols(self) -> dict[str, str]:
        """What each measure is."""
        classes = int((np.abs(self.centres_KD).sum(1) > 0).sum())
        return {
            CATEGORY: f"{classes}-way: nearest mean direction of a class's training pictures in {self.space}",
            PICTURE: f"{len(self.gallery_GD)}-way: nearest picture of the gallery in {self.space}",
        }


def unit(vectors_ND: Array) -> Array:
    """Vectors of length 1; zero stays zero."""
    # dividing by infinity leaves zero at zero
    length = np.linalg.norm(vectors_ND, axis=-1, keepdims=True)
    return np.asarray(vectors_ND / np.where(length > 1e-12, length, np.inf))
