"""What every importer of pairs offers, and what they share: settings, checksums, choice of subjects, splits.

Shapes: N trials, R repetitions, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from dreamdiff.pairs.splits import Trials, split
from eegprep.download.data_folder import hash_files
from eegprep.errors import UsageError
from eegprep.settings import Settings

CHANNELS, SAMPLES = 128, 512

BATCH = 64  # trials converted at once: 17 MB


class ImportConfig(Settings):
    """How pairs are read."""

    kind: Literal["imagenet-eeg", "things-eeg2", "table", "bids", "corpus"] = Field(description="What the source is")
    trials: str | None = Field(default=None, description="corpus: table of window (or recording, onset), image, label")
    images: str | None = Field(default=None, description="Folder with the images; beside the source when not given")
    splits: str | None = Field(default=None, description="imagenet-eeg: split file (block_splits_by_image_*.pth)")
    subjects: tuple[str, ...] | None = Field(default=None, description="Only these subjects")
    split_by: str = Field(
        default="stimulus", description="How trials are parted where the source has no split: stimulus, trial, person or concept"
    )
    seed: int = Field(default=0, description="Seed of that split")
    window: tuple[int, int] = Field(
        default=(20, 460), description="imagenet-eeg: first sample and end of the stretch that is resampled to 512 samples"
    )
    min_samples: int = Field(default=450, description="imagenet-eeg: shorter trials are left out, samples")
    max_samples: int = Field(default=600, description="imagenet-eeg: longer trials are left out, samples")
    repetitions: Literal["keep", "average"] = Field(
        default="keep", description="things-eeg2: repetitions are trials of their own (`keep`), or averaged"
    )
    low: float = Field(default=5.0, description="table, bids: lower edge of the pass band, Hz")
    high: float = Field(default=95.0, description="table, bids: upper edge of the pass band, Hz")
    nyquist: Literal["clip", "highpass", "error"] = Field(
        default="clip", description="table, bids: what to do when the upper edge does not fit the rate"
    )
    resample: float | None = Field(default=None, description="table, bids: common sampling rate, Hz")
    offset: float = Field(default=0.0, description="table, bids, corpus: start of a window after the onset, s")
    columns: dict[str, str] = Field(
        default_factory=dict, description="table, bids: what it calls recording, onset, image, label, subject"
    )
    subject_pattern: str = Field(default="", description="table without a column of people: see `eegprep build`")
    session_pattern: str = Field(default="", description="The same for sessions")
    sfreq: float | None = Field(default=None, gt=0, description="table, bids: rate of files that do not say it, Hz")
    unit: str = Field(default="", description="table, bids: unit of channels whose file does not say it")
    channel_names: tuple[str, ...] = Field(default=(), description="table, bids: names of channels, or which are EEG")
    scale: float | None = Field(default=None, gt=0, description="table, bids: factor for all values")
    licence: str = Field(default="unknown", description="table, bids: licence of the data; corpus: of the images")
    simulated: bool = Field(default=False, description="The EEG is simulated; every picture and page then says so")


@dataclass(frozen=True)
class Batch:
    """Some trials: (N, C, T) float32, or the references of a view by name, and the columns of the store."""

    eeg_NCT: np.ndarray | Mapping[str, np.ndarray]
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
    said: tuple[str, ...] = ()  # what the person should know of how the source was read
    stimulus: np.ndarray | None = (
        None  # image number -> number of the first image that shows the same picture, once they were compared
    )

    def same_picture(self, image_N: np.ndarray) -> np.ndarray:
        """Image numbers with copies of a picture brought to one number."""
        return image_N if self.stimulus is None else self.stimulus[image_N]

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
