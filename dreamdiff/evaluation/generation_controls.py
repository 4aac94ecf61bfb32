"""Controls that change the EEG and generate again: shuffled trials, other categories, noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dreamdiff.arrays import Array, Ints
from dreamdiff.metrics.measurement import Measurement
from eegprep.errors import DataError
from eegprep.recording import ProgressCallback


def swap_within_classes(labels_N: Array, rng: np.random.Generator) -> Ints:
    """For each trial another trial of the same class (itself where there is none)."""
    labels = np.asarray(labels_N)
    out = np.arange(len(labels))
    for label in np.unique(labels):
        here = rng.permutation(np.flatnonzero(labels == label))
        out[here] = np.roll(here, 1)
    return out


def swap_across_classes(labels_N: Array, rng: np.random.Generator) -> Ints:
    """For each trial a trial of another class."""
    labels = np.asarray(labels_N)
    if len(np.unique(labels)) < 2:
        raise DataError(
            "all trials are of 1 class (swapping across classes needs at least 2)", "choose a split with more classes"
        )
    return np.array([rng.choice(np.flatnonzero(labels != label)) for label in labels])


def noise_like(eeg_NCT: Array, rng: np.random.Generator) -> Array:
    """Gaussian noise with the mean and spread of each channel over all trials, and no trial's content."""
    eeg = np.asarray(eeg_NCT)
    mean, spread = eeg.mean((0, 2), keepdims=True), eeg.std((0, 2), keepdims=True)
    return np.asarray(mean + spread * rng.standard_normal(eeg.shape), np.float32)


# generation controls


@dataclass(frozen=True)
class GenerationControl:
    """Scores of images made from altered EEG, beside those of the EEG as it is."""

    name: str
    told: str
    expected: str
    measurements: tuple[Measurement, ...]

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "told": self.told,
            "expected": self.expected,
            "measurements": [m.to_json() for m in self.measurements],
        }


def generation_controls(
    generate: Callable[[Array], Array], score: Callable[[Array], Sequence[Measurement]], eeg_NCT: Array, labels_N: Array, *,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> list[GenerationControl]:  # fmt: skip
    """Images from EEG that was replaced, swapped or averaged, scored against what the trial showed.

    Args:
        generate: (N, C, T) uV -> (N, S, H, W, 3) uint8.
        score: those images -> measurements against the shown images of the same trials.
        eeg_NCT, labels_N: test trials.
    """
    eeg, labels = np.asarray(eeg_NCT), np.asarray(labels_N)
    rng = np.random.default_rng(seed)
    class_mean = np.stack([eeg[labels == label].mean(0) for label in labels]).astype(np.float32)
    altered: list[tuple[str, str, str, Array]] = [
        ("noise", "noise with each channel's mean and spread", "the floor", noise_like(eeg, rng)),
        ("across classes", "the EEG of a trial of another class", "the floor or less", eeg[swap_across_classes(labels, rng)]),
        (
            "within classes", "the EEG of another trial of the same class",
            "less than the EEG itself for image metrics; the same if only the category is used",
            eeg[swap_within_classes(labels, rng)],
        ),
        ("class mean", "the mean EEG of the test trials of the class", "category without image", class_mean),
    ]  # fmt: skip
    controls = []
    for number, (name, description, expected, signal) in enumerate(altered):
        if progress is not None:
            progress(number, len(altered), f"generating from {name}")
        controls.append(GenerationControl(name, description, expected, tuple(score(generate(signal)))))
    if progress is not None:
        progress(len(altered), len(altered), "generation controls done")
    return controls
