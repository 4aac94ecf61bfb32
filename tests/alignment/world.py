"""A small world in which it is known what can be decoded: people with sources that answer to the vector of the picture.

Ten categories, four training and two test pictures of each (coloured patches), vectors of 12 numbers. A picture drives six sources by a linear map; the
sources answer in two waves, reach 16 electrodes by a map that people nearly share, and lie under a background that is strong
in few directions, other ones in each person. Latencies may jitter. 64 Hz, 0 to 0.625 s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dreamdiff.pairs.writer import PairsWriter

CATEGORIES, CHANNELS, SAMPLES, RATE, WIDTH, SOURCES = 10, 16, 40, 64.0, 12, 6
TRAINING_PICTURES, TEST_PICTURES = 4, 2


def make_world(
    folder: Path, *, people: int = 2, trials: int = 12, test_trials: int = 6, noise: float = 1.0, jitter: float = 0.0, seed: int = 0,
    first_person: int = 0, shuffled: bool = False,
) -> tuple[Path, str]:  # fmt: skip
    """Pairs and the name of their target.

    Args:
        trials, test_trials: of each category and person. noise: size of the background. jitter: standard deviation of the latency, s.
        first_person: number of the first person; the pictures and what they do are the same for all numbers. shuffled: training
            labels and pictures are permuted among training trials.
    """
    rng = np.random.default_rng([seed, 1])
    label_M = np.repeat(np.arange(CATEGORIES), TRAINING_PICTURES + TEST_PICTURES)
    vectors_MD = rng.normal(size=(CATEGORIES, WIDTH))[label_M] + 0.5 * rng.normal(size=(len(label_M), WIDTH))
    drive = rng.normal(size=(SOURCES, 2, WIDTH)) / WIDTH**0.5
    heads = rng.normal(size=(CHANNELS, SOURCES))
    test_M = np.arange(len(label_M)) % (TRAINING_PICTURES + TEST_PICTURES) >= TRAINING_PICTURES
    painter = np.random.default_rng([seed, 2])
    colours = painter.integers(30, 225, (CATEGORIES, 4, 4, 3))[label_M].repeat(4, axis=1).repeat(4, axis=2)
    pictures = np.clip(colours + painter.normal(0, 10, (len(label_M), 16, 16, 3)), 0, 255).astype(np.uint8)
    path = folder / "pairs.zarr"
    recipe = {
        "people": people, "trials": trials, "test": test_trials, "noise": noise, "jitter": jitter, "seed": seed, "first": first_person,
        "shuffled": shuffled,
    }  # fmt: skip
    writer = PairsWriter(
        path, recipe=recipe, classes=[f"category {k}" for k in range(CATEGORIES)], provenance="simulated", licence="CC0-1.0",
        channels=CHANNELS, samples=SAMPLES,
    )  # fmt: skip
    writer.set_images(pictures, [f"picture {number}" for number in range(len(label_M))])
    parts: list[np.ndarray] = []
    for person in range(first_person, first_person + people):
        draw = np.random.default_rng([seed, 3, person])
        image, part = _schedule(draw, label_M, test_M, trials, test_trials)
        eeg = _responses(draw, vectors_MD[image], drive, heads + 0.3 * draw.normal(size=heads.shape), noise, jitter)
        label = label_M[image]
        if shuffled:
            own = np.flatnonzero(part == 0)
            image[own] = image[own][draw.permutation(len(own))]
            label = label_M[image]
        with writer.subject(f"p{person}", "key", {"sfreq": RATE, "t0": 0.0, "unit": "uV", "channels": _names()}) as target:
            target.add(eeg, image=image, label=label, onset=2.0 * np.arange(len(image)), session=np.zeros(len(image), int))
        parts.append(part)
    where = np.concatenate(parts)
    writer.finish({name: np.flatnonzero(where == number) for number, name in enumerate(("train", "val", "test"))})
    digests = dict(zip(range(len(label_M)), _digests(path), strict=True))
    np.savez(
        folder / "vectors.npz",
        sha256=np.array([digests[m] for m in range(len(label_M))]),
        vectors=vectors_MD.astype(np.float32) + 3,
    )
    return path, f"vectors:{folder / 'vectors.npz'}"


def _names() -> list[str]:
    return [f"E{c}" for c in range(CHANNELS)]


def _digests(path: Path) -> list[str]:
    from dreamdiff.pairs.reader import Pairs

    return Pairs.open(path).image_sha256


def _schedule(
    rng: np.random.Generator, label_M: np.ndarray, test_M: np.ndarray, trials: int, test_trials: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of the trials in random order, and their part: 0 train, 2 test; there is no validation."""
    image, part = [], []
    for category in range(CATEGORIES):
        for test, count in ((False, trials), (True, test_trials)):
            pool = np.flatnonzero((label_M == category) & (test_M == test))
            image += [pool[number % len(pool)] for number in range(count)]
            part += [2 * test] * count
    order = rng.permutation(len(image))
    return np.array(image)[order], np.array(part)[order]


def _responses(
    rng: np.random.Generator, vectors_ND: np.ndarray, drive: np.ndarray, heads: np.ndarray, noise: float, jitter: float
) -> np.ndarray:
    """(N, C, T) float32, uV."""
    time = np.arange(SAMPLES) / RATE
    late = jitter * rng.normal(size=len(vectors_ND))
    waves = [
        np.exp(-0.5 * ((time[None] - centre - late[:, None]) / 0.05) ** 2)
        * np.cos(2 * np.pi * 7 * (time[None] - centre - late[:, None]))
        for centre in (0.15, 0.32)
    ]
    source = sum(
        np.einsum("sd,nd->ns", drive[:, number], vectors_ND)[:, :, None] * wave[:, None] for number, wave in enumerate(waves)
    )
    mixing = rng.normal(size=(CHANNELS, 4)) * np.array([12, 8, 4, 2])
    slow = rng.normal(size=(len(vectors_ND), 4, SAMPLES + 8))
    slow = sum(slow[:, :, shift : shift + SAMPLES] for shift in range(8)) / 8**0.5
    background = mixing @ slow + 1.5 * rng.normal(size=(len(vectors_ND), CHANNELS, SAMPLES))
    return (4 * heads @ source + noise * background).astype(np.float32)
