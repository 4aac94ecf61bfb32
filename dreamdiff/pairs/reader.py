"""EEG-image pairs: the zarr store, its writer and its reader.

Layout (zarr format 3, readable with plain `zarr.open_group`):

    /                 attributes: format "dreamdiff-pairs", version, complete, classes, splits, licence, provenance ("recorded" or
                      "simulated"), subjects (the order in which trials are numbered), trials, recipe, fingerprint, software
    /images           uint8 (m, h, w, 3), or a group of references: attributes kind, folder, names, sha256 (one per image)
    /<subject>/eeg    float32 (n, 128, 512), uV unless attribute `unit` says otherwise, one window per inner chunk with a crc32c, as in a corpus
    /<subject>/image, label, block, session, trial    int32 (n,), -1 where unknown
    /<subject>/onset  float64 (n,), s from the start of the session, NaN where unknown
    /<subject>/crc32c uint32 (n,), the checksum at the end of each trial's chunk of `eeg`
                      attributes: sfreq Hz, t0 s (first sample, after image onset), channels, n_channels, pad_map, band Hz,
                      unit, blocks ("recorded", "documented", "unknown"), sources, key

A view of a corpus has references in place of `eeg` and `crc32c`, see `view`.

`splits` maps a name to a list of trial numbers; trials are counted through the subjects in order. "train", "val" and "test" are
the default split, "NAME/train" and so on another one. `commit` names every file with its SHA-256, see `checks`.

A store is prepared as `.NAME.partial` beside its final name. Finished subjects in it are kept when the same command runs again;
the root attributes are written last, then the folder gets its name. An image that is missing or altered is an error.
Shapes: N trials, C channels, T samples, H W pixels.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from dreamdiff.eeg_input import SignalConfig
from dreamdiff.pairs.audit import Audit, audit
from dreamdiff.pairs.checks import check_image_names, checked_root, read_column, trial_contents
from dreamdiff.pairs.eeg import ResampledEEG, StoredEEG, TrialEEG, as_stored, with_rate
from dreamdiff.pairs.format import COLUMNS, Provenance, plain_attributes
from dreamdiff.pairs.images import StoredImages, image_count
from dreamdiff.pairs.splits import FACTORS, PARTS, Trials, split
from dreamdiff.pairs.view import CorpusEEG
from dreamdiff.rates import plan_rate
from dreamdiff.sameness.copies import copy_notes
from dreamdiff.sameness.same_signal import people_twice
from dreamdiff.untrusted.hub import pairs_folder
from eegprep.corpus.rates import count_rates
from eegprep.download.hub import dataset_name
from eegprep.errors import DataError, ModelError, StoreError, UsageError
from eegprep.provenance import sha256_array, sha256_json
from eegprep.settings import suggest
from eegprep.store.commit import Commit


class Pairs:
    """EEG-image pairs of a store, or some of them (`select`). Trials are numbered through the subjects in order.

    `class_ids`: other names of the classes (synsets), or None.
    Per trial, as numpy arrays: `person` (index into `subjects`), `image`, `labels`, `block`, `session`, `trial`, `onset`.

    Example:
        >>> import dreamdiff
        >>> pairs = dreamdiff.Pairs.open("pairs.zarr")
        >>> test = pairs.select(split="test")
        >>> test.eeg([0, 1]).shape
        (2, 128, 512)
    """

    def __init__(
        self, path: Path, root: zarr.Group, images: StoredImages,
        eeg: TrialEEG, columns: Mapping[str, np.ndarray], indices: np.ndarray,
    ) -> None:  # fmt: skip
        """Use `Pairs.open`."""
        self.path, self.indices = path, indices
        self._root, self._images, self._eeg, self._all = root, images, eeg, columns
        self.looked_up: dict[str, np.ndarray | None] = {}  # shared by the views of a store
        attributes = plain_attributes(root)
        self.classes: list[str] = list(attributes["classes"])
        self.class_ids: list[str] | None = attributes.get("class_ids")
        self.subjects: list[str] = list(attributes["subjects"])
        self.provenance: Provenance = attributes["provenance"]
        self.licence: str = attributes["licence"]
        self.recipe: Mapping[str, Any] = dict(attributes["recipe"])
        self.fingerprint: str = attributes["fingerprint"]
        self.attributes: dict[str, Mapping[str, Any]] = {name: plain_attributes(root[name]) for name in self.subjects}
        self._stored_splits: dict[str, np.ndarray] = {
            name: np.asarray(numbers, dtype=np.int64) for name, numbers in attributes["splits"].items()
        }

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None) -> Pairs:
        """Open a finished store.

        Args:
            path: the store; or hf://datasets/OWNER/NAME[@REVISION], which is downloaded once.
            images: folder with the image files, if they are not where they were when the store was made.

        Raises:
            StoreError: missing, unfinished, or not a pairs store of a version that can be read.
        """
        path = pairs_folder(os.fspath(path)) if dataset_name(os.fspath(path)) else Path(path)
        attributes, commit = checked_root(path)
        try:
            root = zarr.open_group(path, mode="r")
            columns = _read_columns(path, root, attributes, commit)
            check_image_names(path, plain_attributes(root["images"]))
            eeg: TrialEEG = (
                CorpusEEG.open(path, root, attributes, commit)
                if "corpus" in attributes
                else StoredEEG(path, root, attributes["subjects"], commit)
            )
            return cls(path, root, StoredImages(path, root, images), eeg, columns, np.arange(attributes["trials"]))
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            OSError,
            RuntimeError,
        ) as error:  # what zarr says of damaged metadata
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise StoreError(f"{path}: is damaged ({reason})", "make the store again") from None

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def content_sha256(self) -> str:
        """Digest of what the store holds: every column, the EEG and what it is in, images, classes and splits; its path and recipe do not count.

        Results are keyed by it, so that a store that was made again with other content is not taken for the old one.
        """
        eeg = self._eeg.digest()
        columns = {name: sha256_array(values) for name, values in self._all.items()}
        splits = {name: sha256_array(numbers) for name, numbers in sorted(self._stored_splits.items())}
        images = {"names": self.image_names, "sha256": self.image_sha256}
        meaning = {
            name: {key: facts.get(key) for key in ("sfreq", "t0", "unit", "channels", "n_channels", "pad_map")}
            for name, facts in ((name, as_stored(facts)) for name, facts in self.attributes.items())
        }
        return sha256_json({
            "eeg": eeg, "meaning": meaning, "columns": columns, "splits": splits, "images": images, "classes": self.classes,
        })  # fmt: skip

    @property
    def person(self) -> np.ndarray:
        """(n,) index into `subjects`."""
        return self._all["person"][self.indices]

    @property
    def image(self) -> np.ndarray:
        """(n,) index of the image of each trial, for `load_images` and `image_names`."""
        return self._all["image"][self.indices]

    @property
    def stimulus(self) -> np.ndarray:
        """(n,) number of the first image that shows the same picture: the same as `image` but for copies under other names."""
        return self._images.stimulus[self.image]

    @property
    def labels(self) -> np.ndarray:
        """(n,) index into `classes`."""
        return self._all["label"][self.indices]

    @property
    def block(self) -> np.ndarray:
        """(n,) block within person and session, -1 unknown."""
        return self._all["block"][self.indices]

    @property
    def session(self) -> np.ndarray:
        """(n,) session within person, -1 unknown."""
        return self._all["session"][self.indices]

    @property
    def trial(self) -> np.ndarray:
        """(n,) number of the trial in its source."""
        return self._all["trial"][self.indices]

    @property
    def onset(self) -> np.ndarray:
        """(n,) s from the start of the session, NaN unknown."""
        return self._all["onset"][self.indices]

    @property
    def trials(self) -> Trials:
        """What `pairs.splits` needs to know; images that are copies of each other count as one stimulus."""
        return Trials(self.person, self.session, self.block, self.stimulus, self.labels, self.onset, trial_contents(self))

    @property
    def table(self) -> pd.DataFrame:
        """One row per trial."""
        named = {
            "subject": np.asarray(self.subjects)[self.person],
            "image": np.asarray(self.image_names)[self.image],
            "label": np.asarray(self.classes)[self.labels],
        }
        counted = {"session": self.session, "block": self.block, "trial": self.trial, "onset": self.onset}
        return pd.DataFrame({**named, **counted})

    @property
    def eeg_shape(self) -> tuple[int, int]:
        """(channels, samples) of one trial."""
        return self._eeg.shape

    @property
    def held(self) -> bool:
        """Whether EEG that fits into memory may be kept there; a view streams from its corpus."""
        return self._eeg.held

    def at_model_rate(
        self, signal: SignalConfig, window: int | None = None, *, strict: bool = False, trainable: bool = False
    ) -> tuple[Pairs, tuple[str, ...]]:
        """These trials as a model reads them (`dreamdiff.rates`), and a sentence for each rate that is not the model's.

        Args:
            signal: of the model; one without a rate takes the rate that most of these trials have.
            window: samples that the model reads. strict, trainable: see `rates.plan_rate`.

        Raises:
            ModelError: a rate that the model does not read, with both numbers.
        """
        rates = [self.attributes[name].get("sfreq") for name in self.subjects]
        if signal.sfreq is None:
            windows = np.bincount(self.person, minlength=len(rates))
            common = list(count_rates((float(rate), int(n)) for rate, n in zip(rates, windows, strict=True) if rate))
            signal = signal.model_copy(update={"sfreq": common[0]}) if len(common) > 1 else signal
        samples = self._eeg.shape[1] if window is None else window
        one_rate = len(set(rates)) == 1
        description = [str(self.path) if one_rate else f"{self.path}, subject {name}" for name in self.subjects]
        changes = {
            number: plan_rate(description[number], rate, self._eeg.shape[1], signal, samples, strict=strict, trainable=trainable)
            for number, rate in enumerate(rates)
        }
        notes = tuple(dict.fromkeys(change.note for change in changes.values() if change.note))
        if all(change.to is None for change in changes.values()):
            return self, notes
        for number, change in changes.items():
            if change.samples != samples:
                raise ModelError(
                    f"{description[number]}: windows of {change.samples} samples, the model reads {samples}",
                    "give all people windows of one length and rate",
                )
        other = copy.copy(self)
        other._eeg = ResampledEEG(self._eeg, changes, self._all["person"], samples)
        other.attributes = {name: with_rate(self.attributes[name], changes[n]) for n, name in enumerate(self.subjects)}
        other.__dict__.pop("content_sha256", None)
        return other, notes

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """Named lists of positions in this object; of a selection, what is left of them."""
        if len(self.indices) == len(self._all["person"]) and np.array_equal(self.indices, np.arange(len(self.indices))):
            return dict(self._stored_splits)
        place = {int(index): position for position, index in enumerate(self.indices)}
        return {
            name: np.array([place[int(number)] for number in numbers if int(number) in place], dtype=np.int64)
            for name, numbers in self._stored_splits.items()
        }

    def split(self, name: str = "default", *, seed: int = 0) -> dict[str, np.ndarray]:
        """train, val and test positions of the stored split `name`, or of one made now by "person", "stimulus", ...

        Raises:
            UsageError: neither stored nor something to split by.
        """
        stored = self.splits
        prefix = "" if name == "default" else f"{name}/"
        if all(f"{prefix}{part}" in stored for part in PARTS):
            return {part: stored[f"{prefix}{part}"] for part in PARTS}
        if all(factor in FACTORS for factor in name.split("+")):
            return split(self.trials, name, seed=seed)
        known = [*FACTORS, *sorted({"default" if "/" not in key else key.rpartition("/")[0] for key in stored})]
        raise UsageError(f"{self.path}: there is no split {name!r}{suggest(name, known)}", f"use one of: {', '.join(known)}")

    def parts(self, name: str = "default", *, judged_by: str | None = None) -> dict[str, np.ndarray]:
        """train, val and test positions for training on split `name`; test is returned so that it can be kept out.

        Args:
            judged_by: what weights are selected by on the validation trials, which are then needed; None for no selection.

        Raises:
            DataError: an empty part, or parts that share a trial.
        """
        parts = self.split(name)  # the same trials under this name for generate and evaluate, whatever the training seed
        if len(parts["train"]) == 0:
            raise DataError(f"{self.path}: split {name!r} has no training trials", "choose another --set split=NAME")
        if len(parts["val"]) == 0 and judged_by is not None:
            raise DataError(
                f"{self.path}: split {name!r} has no validation trials, which select = {judged_by!r} judges by",
                "choose a split with a val part, or --set select=last",
            )
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            both = np.intersect1d(parts[first], parts[second])
            if len(both):
                raise DataError(f"{self.path}: {first} and {second} share {len(both)} trials", "correct the split")
        return parts

    def audit(self, name: str = "default", *, seed: int = 0, parts: tuple[np.ndarray, np.ndarray] | None = None) -> Audit:
        """What a split leaks; see `eegprep.splits.audit`.

        Args:
            name: as in `split`, or one stored list, which is then compared with "train".
            seed: of a split that is made now, and of the permutations.
            parts: training and test positions, where they are not the whole of that split.

        Copies of a picture count as one stimulus, people are compared by their signals too (`sameness`); notes of the store are added.
        """
        stored = self.splits
        if parts is not None:
            train, test = parts
        elif name in stored and "/" not in name and name != "train" and "train" in stored:
            train, test = stored["train"], stored[name]
        else:
            made = self.split(name, seed=seed)
            train, test = made["train"], made["test"]
        result = audit(self.trials, train, test, split=name, seed=seed)
        notes = [text for subject in self.subjects for text in self.attributes[subject].get("design", ())]
        notes += copy_notes(
            self._images.copies, self.image_names, self.image[train], self.image[test], compared=self._images.compared
        )  # fmt: skip
        leaks = (*result.leaks, *people_twice(self, train, test))
        return replace(result, leaks=leaks, notes=(*result.notes, *dict.fromkeys(notes)))

    def select(
        self, *, split: str | None = None, subjects: Sequence[str] | None = None, labels: Sequence[int] | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Pairs:  # fmt: skip
        """A view of some trials: those of a named split list, of some subjects, of some labels, or at some positions.

        Raises:
            UsageError: an unknown split or subject.
        """
        keep = np.ones(len(self), dtype=bool)
        if split is not None:
            keep &= self._member(split)
        if subjects is not None:
            for name in subjects:
                if name not in self.subjects:
                    raise UsageError(
                        f"{self.path}: there is no subject {name!r}{suggest(name, self.subjects)}",
                        f"use one of: {', '.join(self.subjects)}",
                    )
            keep &= np.isin(self.person, [self.subjects.index(name) for name in subjects])
        if labels is not None:
            keep &= np.isin(self.labels, labels)
        positions = np.flatnonzero(keep)
        if indices is not None:
            expected = self._positions(indices)
            positions = expected[keep[expected]]
        other = copy.copy(self)
        other.indices = self.indices[positions]
        return other

    def eeg(self, indices: Sequence[int] | np.ndarray | int | None = None) -> np.ndarray:
        """(n, C, T) float32 of the trials at these positions, in this order; all when None.

        Raises:
            StoreError: a trial is missing from the store or damaged.
        """
        return self._eeg.read(self.indices[self._positions(indices)])

    def images(self, indices: Sequence[int] | np.ndarray | int | None = None, *, size: int | None = None) -> np.ndarray:
        """(n, h, w, 3) uint8 images of the trials at these positions.

        Args:
            indices: positions; all when None.
            size: height and width, pixels; resized without keeping the aspect, as the reference code does. None keeps the size.
        """
        return self.load_images(self.image[self._positions(indices)], size=size)

    def load_images(self, images: Sequence[int] | np.ndarray, *, size: int | None = None) -> np.ndarray:
        """(n, h, w, 3) uint8 by image number instead of trial; each distinct image is read once.

        Raises:
            DataError: an image is missing or altered, or sizes differ and `size` is None.
        """
        expected = np.asarray(images, dtype=np.int64).reshape(-1)
        distinct, back = np.unique(expected, return_inverse=True)
        loaded = [self._images.read(int(number), size) for number in distinct]
        shapes = {image.shape for image in loaded}
        if len(shapes) > 1:
            raise DataError(f"{self.path}: images have {len(shapes)} different sizes", "give size=, for instance size=512")
        return np.stack(loaded)[back.reshape(-1)] if loaded else np.zeros((0, size or 0, size or 0, 3), dtype=np.uint8)

    @property
    def image_names(self) -> list[str]:
        """Name of every image of the store, by image number."""
        return self._images.names

    @property
    def image_sha256(self) -> list[str]:
        """SHA-256 of every image, by image number: of the file for references, of shape and pixels else. A key for caches."""
        return self._images.sha256

    def _member(self, name: str) -> np.ndarray:
        stored = self.splits
        if name in stored:
            positions = stored[name]
        else:
            set_name, _, part = name.rpartition("/")
            if part not in PARTS or not set_name:
                raise UsageError(
                    f"{self.path}: there is no split list {name!r}{suggest(name, stored)}",
                    f"use one of: {', '.join(sorted(stored))}, or FACTOR/train, FACTOR/val, FACTOR/test",
                )
            positions = self.split(set_name)[part]
        member = np.zeros(len(self), dtype=bool)
        member[positions] = True
        return member

    def _positions(self, indices: Sequence[int] | np.ndarray | int | None) -> np.ndarray:
        if indices is None:
            return np.arange(len(self))
        array = np.atleast_1d(np.asarray(indices))
        if array.dtype == bool:
            return np.flatnonzero(array)
        array = array.astype(np.int64)
        if len(array) and (array.min() < -len(self) or array.max() >= len(self)):
            worst = int(array.max() if array.max() >= len(self) else array.min())
            raise UsageError(f"{self.path}: trial {worst} is outside 0..{len(self) - 1}", "ask for trials that are there")
        return np.where(array < 0, array + len(self), array)


def _read_columns(path: Path, root: zarr.Group, attributes: Mapping[str, Any], commit: Commit | None) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*COLUMNS, "onset", "person", "row")}
    for person, name in enumerate(attributes["subjects"]):
        if name not in root:
            raise StoreError(f"{path}: subject {name!r} is missing", "make the store again")
        n = int(plain_attributes(root[name])["n"])
        for column in (*COLUMNS, "onset"):
            parts[column].append(read_column(path, root, commit, f"{name}/{column}", n))
        parts["person"].append(np.full(n, person, dtype=np.int64))
        parts["row"].append(np.arange(n))
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if set(lengths.values()) != {attributes["trials"]}:
        raise StoreError(f"{path}: {attributes['trials']} trials are announced, columns hold {lengths}", "make the store again")
    for name, limit in (("label", len(attributes["classes"])), ("image", image_count(root))):
        if (columns[name] < 0).any() or (columns[name] >= limit).any():
            raise StoreError(f"{path}: column {name!r} names something outside 0..{limit - 1}", "make the store again")
    return columns
