"""What every importer of pairs offers, and what they share: settings, checksums, choice of subjects, splits.

Shapes: N trials, R repetitions, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from dreamdiff.pairs.splits import Trials, split
from eegprep.download.data_folder import hash_files
from eegprep.errors import UsageError
from eegprep.sources.file_reading import FileReading

CHANNELS, SAMPLES = 128, 512

BATCH = 64  # trials converted at once: 17 MB


Kind = Literal["imagenet-eeg", "things-eeg2", "things-eeg2-raw", "things-eeg1", "alljoined", "table", "bids", "corpus"]
CONTINUOUS = ("table", "bids", "things-eeg1", "things-eeg2-raw")  # kinds that are cut out of recordings here
OF_PICTURES = ("things-eeg1", "things-eeg2-raw", "alljoined")  # kinds that only the image recipe reads


class ImportConfig(FileReading):
    """How pairs are read."""

    kind: Kind = Field(
        description="What SOURCE is: imagenet-eeg, things-eeg2, things-eeg2-raw, things-eeg1, alljoined, table, bids or corpus"
    )
    trials: str | None = Field(
        default=None,
        description="corpus: table of recording and onset (or window), image, label; EEG is not copied but read from the corpus",
    )
    images: str | None = Field(
        default=None, description="Folder of the images (ImageNet, THINGS, or what the table names) [default: next to the source]"
    )
    splits: str | None = Field(default=None, description="imagenet-eeg: file with the splits, block_splits_by_image_*.pth")
    subjects: tuple[str, ...] | None = Field(default=None, description="Only these subjects, e.g. 4 or 01-03,07 [default: all]")
    split_by: str = Field(
        default="stimulus",
        description="What no two parts share where the source has no split of its own: stimulus, trial, person or concept",
    )
    seed: int = Field(default=0, description="Random seed of the split that is made where the source has none")
    window: tuple[int, int] = Field(default=(20, 460), description="imagenet-eeg: samples START:STOP that are resampled to 512")
    min_samples: int = Field(default=450, description="imagenet-eeg: shorter trials are left out, samples")
    max_samples: int = Field(default=600, description="imagenet-eeg: longer trials are left out, samples")
    repetitions: Literal["keep", "average"] = Field(
        default="keep", description="things-eeg2: repetitions stay separate trials (keep), or are averaged (average)"
    )
    low: float = Field(default=5.0, description="Recordings: lower edge of the pass band, Hz [default: 5; image recipe: 0.5]")
    high: float = Field(default=95.0, description="Recordings: upper edge of the pass band, Hz [default: 95; image recipe: 100]")
    nyquist: Literal["clip", "highpass", "error"] = Field(
        default="clip",
        description="Recordings: what to do where the upper edge does not fit the sampling rate: lower it (clip), drop it (highpass), or stop (error)",
    )
    resample: float | None = Field(
        default=None, description="Recordings: common sampling rate, Hz [default: their own; image recipe: 250]"
    )
    offset: float = Field(
        default=0.0,
        description="table, bids, corpus: start of a window after the onset, s, e.g. -0.2 [default: 0; image recipe: see --window-ms]",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="table, bids: names of the columns for recording, onset, image, label or subject"
    )
    subject_pattern: str = Field(
        default="", description="Regular expression for names of files: its first group, or all that it matches, is the person"
    )
    session_pattern: str = Field(default="", description="The same for the session")
    licence: str = Field(default="unknown", description="table, bids: licence of the data; corpus: of the images")
    recipe: Literal["paper", "image"] = Field(
        default="paper",
        description="`paper`: 5 to 95 Hz, 512 samples, 128 rows; `image`: 0.5 to 100 Hz, 250 Hz, windows in ms, the electrodes as recorded [default: paper; image for things-eeg2-raw, things-eeg1, alljoined]",
    )
    window_ms: tuple[float, float] | None = Field(
        default=None,
        description="image recipe: first and last ms around the onset [default: -200:1000, or all of an epoched file]",
    )
    baseline_ms: tuple[float, float] | None = Field(
        default=None,
        description="image recipe: stretch whose mean is subtracted from each channel, ms, or none [default: -200:0 for recordings, none for epoched files]",
    )
    electrodes: Literal["all", "posterior"] = Field(
        default="all", description="image recipe: all electrodes, or the 17 parietal and occipital ones of UBP and NeuroBridge"
    )
    mvnn: bool = Field(
        default=False,
        description="image recipe: multivariate noise normalisation, fitted on the training trials of a person and session",
    )
    simulated: bool = Field(default=False, description="The EEG is simulated; every picture and page then says so")

    @model_validator(mode="before")
    @classmethod
    def _by_recipe(cls, given: Any) -> Any:
        """Defaults of the image recipe, which the kinds that only it reads have by themselves."""
        if not isinstance(given, dict):
            return given
        kind = given.get("kind")
        recipe = given.get("recipe", "image" if kind in OF_PICTURES else "paper")
        if recipe != "image":
            return given
        values = {"recipe": recipe, "low": 0.5, "high": 100.0}
        if kind in CONTINUOUS:
            first, last = given.get("window_ms") or (-200.0, 1000.0)
            values |= {"resample": 250.0, "window_ms": (first, last), "offset": first / 1000, "baseline_ms": (-200.0, 0.0)}
        return {**values, **given}

    @model_validator(mode="after")
    def _one_recipe(self) -> ImportConfig:
        own = [name for name in ("window_ms", "baseline_ms", "mvnn") if getattr(self, name)]
        own += ["electrodes"] if self.electrodes != "all" else []
        if self.recipe == "paper" and own:
            raise ValueError(f"{own[0]} belongs to the image recipe; set recipe to image")
        if self.recipe == "paper" and self.kind in OF_PICTURES:
            raise ValueError(f"{self.kind} is read with the image recipe only")
        if self.recipe == "image" and self.kind in ("imagenet-eeg", "corpus"):
            raise ValueError(f"{self.kind} is read with the paper recipe only")
        for name in ("window_ms", "baseline_ms"):
            stretch = getattr(self, name)
            if stretch is not None and stretch[0] >= stretch[1]:
                raise ValueError(f"{name} {stretch[0]:g}:{stretch[1]:g} is empty")
        return self

    @property
    def window_samples(self) -> int:
        """Samples of a window of the image recipe, cut out of recordings."""
        first, last = self.window_ms or (-200.0, 1000.0)
        return round((last - first) / 1000 * (self.resample or 250.0))


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

    def shape(self) -> tuple[int, int]:
        """Channels and samples of a trial in the store."""
        return CHANNELS, SAMPLES

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


def chosen(subjects: Sequence[str], requested: Sequence[str] | None, source: Path) -> list[str]:
    missing = [name for name in requested or () if name not in subjects]
    if missing:
        raise UsageError(f"{source}: there is no subject {missing[0]!r}", f"choose from: {', '.join(subjects)}")
    return list(subjects if requested is None else [name for name in subjects if name in requested])


def split_by(config: ImportConfig, *, concept: np.ndarray, stimulus: np.ndarray, person: np.ndarray) -> dict[str, np.ndarray]:
    unknown = np.full(len(concept), -1)
    trials = Trials(person, unknown, unknown, stimulus, concept, np.full(len(concept), np.nan))
    return split(trials, config.split_by, seed=config.seed)
