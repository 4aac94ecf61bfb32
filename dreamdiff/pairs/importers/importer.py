"""What every importer of pairs offers, and what they share: settings, checksums, choice of subjects, splits.

Shapes: N trials, R repetitions, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dreamdiff.pairs.splits import Trials, split
from eegprep.download.data_folder import hash_files
from eegprep.errors import UsageError
from eegprep.settings import Settings

CHANNELS, SAMPLES = 128, 512

BATCH = 64  # trials converted at once: 17 MB


class ImportConfig(Settings):
    """How pairs are read.

    kind: what the source is. images: folder with the images; default beside the source. splits: split file of ImageNet-EEG.
    subjects: only these. split_by, seed: how trials are parted where the source does not say.
    window: ImageNet-EEG, samples that are stretched to 512. min_samples, max_samples: ImageNet-EEG, trials outside are left out.
    repetitions: THINGS-EEG2, kept as trials of their own or averaged.
    low, high, nyquist, resample: table, filter of the recordings, Hz. offset: table, first sample of a window after the onset, s.
    licence: of a table's data.
    """

    kind: Literal["imagenet-eeg", "things-eeg2", "table"]
    images: str | None = None
    splits: str | None = None
    subjects: tuple[str, ...] | None = None
    split_by: str = "stimulus"
    seed: int = 0
    window: tuple[int, int] = (20, 460)
    min_samples: int = 450
    max_samples: int = 600
    repetitions: Literal["keep", "average"] = "keep"
    low: float = 5.0
    high: float = 95.0
    nyquist: Literal["clip", "highpass", "error"] = "clip"
    resample: float | None = None
    offset: float = 0.0
    licence: str = "unknown"


@dataclass(frozen=True)
class Batch:
    """Some trials: (N, C, T) float32 and the columns of the store."""

    eeg_NCT: np.ndarray
    columns: dict[str, np.ndarray]


class Reader:
    """What an importer offers: names of things, and the trials of a subject in batches."""

    sources: list[list[Any]]  # name, bytes, sha256 of every file that numbers come from
    subjects: list[str]
    classes: list[str]
    class_ids: list[str] | None = None
    image_folder: Path
    image_names: list[str]
    licence: str

    def batches(self, subject: str) -> Iterator[Batch]:
        raise NotImplementedError

    def attributes(self, subject: str) -> Mapping[str, Any]:
        """Of the subject's group; asked for after its last batch."""
        raise NotImplementedError

    def total(self, subject: str) -> int:
        """Trials of a subject."""
        raise NotImplementedError

    def splits(self) -> dict[str, np.ndarray]:
        raise NotImplementedError


def hashed(*paths: Path) -> list[list[Any]]:
    """Name, bytes, SHA-256; the folder of a file does not count."""
    return [[file.name, file.bytes, file.sha256] for path in paths for file in hash_files([path], path.parent)]


def chosen(found: Sequence[str], wanted: Sequence[str] | None, source: Path) -> list[str]:
    missing = [name for name in wanted or () if name not in found]
    if missing:
        raise UsageError(f"{source}: there is no subject {missing[0]!r}", f"choose from: {', '.join(found)}")
    return list(found if wanted is None else [name for name in found if name in wanted])


def split_by(config: ImportConfig, *, concept: np.ndarray, stimulus: np.ndarray, person: np.ndarray) -> dict[str, np.ndarray]:
    unknown = np.full(len(concept), -1)
    trials = Trials(person, unknown, unknown, stimulus, concept, np.full(len(concept), np.nan))
    return split(trials, config.split_by, seed=config.seed)
