"""A small store of EEG-image pairs in which the EEG holds the class plainly."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dreamdiff.pairs.writer import PairsWriter

CLASSES, CHANNELS, SAMPLES, SIZE = 4, 6, 64, 32


def tiny_pairs(
    path: Path,
    *,
    per_class: int = 16,
    noise: float = 1.0,
    seed: int = 0,
    splits: dict | None = None,
    unit: str = "uV",
    recipe: dict | None = None,
) -> Path:
    """Two images per class and two people; a quarter of the trials each for val and test. Amplitudes of about 10 uV.

    recipe: that the store says of itself.
    """
    rng = np.random.default_rng(seed)
    images = np.zeros((2 * CLASSES, SIZE, SIZE, 3), np.uint8)
    for number in range(0, len(images), 2):
        images[number] = rng.integers(0, 240, 3)
        images[number, 8:24, 8:24] = rng.integers(0, 240, 3)
        images[number + 1] = images[number] + 8  # images of a class are alike
    pattern = rng.normal(size=(CLASSES, CHANNELS, 1)) * np.sin(np.linspace(0, 12, SAMPLES))
    recipe = recipe or {"per_class": per_class, "noise": noise, "seed": seed, "unit": unit, "splits": str(splits)}
    writer = PairsWriter(
        path, recipe=recipe, classes=[f"class {k}" for k in range(CLASSES)], provenance="simulated", licence="CC0-1.0",
        channels=CHANNELS, samples=SAMPLES,
    )  # fmt: skip
    if writer.complete:
        return path
    writer.set_images(images, [f"image {number}" for number in range(len(images))])
    attributes = {"sfreq": 128.0, "t0": 0.0, "band": [5.0, 40.0], "channels": [f"E{c}" for c in range(CHANNELS)], "unit": unit}
    for subject in ("a", "b"):
        with writer.subject(subject, "key", attributes) as target:
            label = rng.permutation(np.repeat(np.arange(CLASSES), per_class // 2))
            eeg = 10 * (pattern[label] + noise * rng.normal(size=(len(label), CHANNELS, SAMPLES)))
            target.add(eeg.astype(np.float32), image=2 * label + rng.integers(0, 2, len(label)), label=label)
    number = np.random.default_rng(1).permutation(CLASSES * per_class)
    quarter = len(number) // 4
    writer.finish(splits or {"train": number[2 * quarter :], "val": number[:quarter], "test": number[quarter : 2 * quarter]})
    return path
