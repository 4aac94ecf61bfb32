"""What of `dreamdiff` is attacked: its commands, its stores, weights and images, and files of strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import targets_models
import targets_programs
import targets_training
from campaign import Command, Hostile, Stored

from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter


def write_pairs(out: Path) -> None:
    """A pairs store of two people and four pictures, with a split; the same bytes every time."""
    draw = np.random.default_rng(0)
    writer = PairsWriter(
        out, recipe={"kind": "attack"}, classes=["a", "b"], provenance="simulated", licence="CC0-1.0", channels=4, samples=64
    )
    if writer.complete:
        return
    writer.set_images(draw.integers(0, 255, (4, 8, 8, 3), dtype=np.uint8), [f"p{number}" for number in range(4)])
    for person in ("1", "2"):
        eeg_NCT = draw.standard_normal((8, 4, 64)).astype(np.float32)
        if writer.done(person, "key"):
            continue
        with writer.subject(person, "key", {"sfreq": 128.0}) as trials:
            number = np.arange(8)
            trials.add(eeg_NCT, image=number % 4, label=number % 2, block=number // 4, session=number * 0, onset=number * 2.0)
    writer.finish({"train": np.arange(12), "test": np.arange(12, 16)})


def _pairs(folder: Path) -> Path:
    write_pairs(folder / "p.zarr")
    return folder / "p.zarr"


def read_pairs(path: Path) -> Any:
    """Everything that a reader sees."""
    pairs = Pairs.open(path)
    columns = [getattr(pairs, name).tobytes() for name in ("person", "image", "labels", "block", "session", "trial", "onset")]
    splits = sorted((name, numbers.tolist()) for name, numbers in pairs.splits.items())
    pictures = pairs.load_images(np.arange(len(pairs.image_names))).tobytes()
    return columns, splits, pairs.classes, pairs.image_names, pairs.image_sha256, pictures, pairs.eeg().tobytes()


COMMANDS: list[Command] = [
    Command("pairs", lambda inputs: None, lambda inputs, out: write_pairs(out)),
    *targets_training.COMMANDS,
    *targets_programs.COMMANDS,
]
STORES: list[Stored] = [Stored("pairs", _pairs, read_pairs), *targets_models.STORES, *targets_training.STORES]
HOSTILE: list[Hostile] = [*targets_models.HOSTILE, *targets_training.HOSTILE]
