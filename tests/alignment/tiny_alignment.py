"""A small alignment: pairs whose EEG holds the picture plainly, and vectors of the pictures in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tiny_pairs import tiny_pairs

from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
from dreamdiff.pairs.reader import Pairs
from eegprep.settings import resolve

WIDTH = 12


def vectors_file(pairs: Path, file: Path, width: int = WIDTH, seed: int = 0) -> str:
    """`vectors:FILE` with a vector for each picture; pictures of a class are alike, far from the origin."""
    store = Pairs.open(pairs)
    rng = np.random.default_rng(seed)
    of_class = rng.normal(size=(len(store.classes), width))
    label_of = dict(zip(store.image.tolist(), store.labels.tolist(), strict=True))
    label = np.array([label_of.get(number, 0) for number in range(len(store.image_sha256))])
    vectors = 5 + of_class[label] + 0.3 * rng.normal(size=(len(label), width))
    np.savez(file, sha256=np.array(store.image_sha256), vectors=vectors.astype(np.float32))
    return f"vectors:{file}"


def make_pairs(folder: Path, **changes: Any) -> tuple[Path, str]:
    """Pairs and the name of their target."""
    path = tiny_pairs(folder / "pairs.zarr", **{"per_class": 32, "noise": 0.7, **changes})
    return path, vectors_file(path, folder / "vectors.npz")


def small_config(*assignments: str, preset: str = "tiny") -> AlignConfig:
    """Windows of 0.4 s, a small convolution's worth of steps, on the CPU."""
    return resolve(
        AlignConfig, presets=ALIGN_PRESETS, preset=preset, assignments=["front.seconds=0.4", "loop.device=cpu", *assignments]
    )
