"""EEG-image pairs: the zarr store, its writer and its reader.

Layout (zarr format 3, readable with plain `zarr.open_group`):

    /                 attributes: format "dreamdiff-pairs", version, complete, classes, splits, licence, provenance ("recorded" or
                      "simulated"), subjects (the order in which trials are numbered), trials, recipe, fingerprint, software
    /images           uint8 (m, h, w, 3), or a group of references: attributes kind, folder, names, sha256 (one per image)
    /<subject>/eeg    float32 (n, 128, 512), uV unless attribute `unit` says otherwise, one window per inner chunk, checksummed
    /<subject>/image, label, block, session, trial    int32 (n,), -1 where unknown
    /<subject>/onset  float64 (n,), s from the start of the session, NaN where unknown
                      attributes: sfreq Hz, t0 s (first sample, after image onset), channels, n_channels, pad_map, band Hz,
                      unit, blocks ("recorded", "documented", "unknown"), sources, key

`splits` maps a name to a list of trial numbers; trials are counted through the subjects in order. "train", "val" and "test" are
the default split, "NAME/train" and so on another one.

A store is prepared as `.NAME.partial` beside its final name. Finished subjects in it are kept when the same command runs again;
the root attributes are written last, then the folder gets its name. An image that is missing or altered is an error.
Shapes: N trials, C channels, T samples, H W pixels.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import zarr
from PIL import Image, UnidentifiedImageError
from zarr.codecs import ZstdCodec

from eegprep.atomic import partial_path, publish_folder
from eegprep.errors import DataError, StoreError, UsageError
from eegprep.settings import fingerprint, suggest
from eegprep.splits import FACTORS, PARTS, Audit, Trials, audit, split

FORMAT, VERSION = "dreamdiff-pairs", 1
COLUMNS = ("image", "label", "block", "session", "trial")
_SHARD = 256  # windows per file: 67 MB of float32 before compression
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Provenance = Literal["recorded", "simulated"]


# -------------------------------------------------------------------------------------------------------- writing


class PairsWriter:
    """Write a pairs store; use as a context manager and end with `finish`.

    Args:
        path: final name of the store.
        recipe: plain JSON values that say what is written; a store of the same recipe is taken up again, another is an error.
        classes: names of the labels 0, 1, ...
        provenance: "recorded", or "simulated" for pairs with a known answer.
        licence: of the EEG and the images, as text.
        class_ids: other names of the classes, for instance WordNet synsets.

    `complete` is True when the store is already there, finished, from the same recipe: nothing needs to be done.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        recipe: Mapping[str, Any],
        classes: Sequence[str],
        provenance: Provenance,
        licence: str,
        class_ids: Sequence[str] | None = None,
        channels: int = 128,
        samples: int = 512,
    ) -> None:
        self.path = Path(path)
        self.partial = partial_path(self.path)
        self.channels, self.samples = channels, samples
        self._root: dict[str, Any] = {
            "classes": list(classes), "class_ids": None if class_ids is None else list(class_ids), "licence": licence,
            "provenance": provenance, "recipe": dict(recipe), "fingerprint": fingerprint(recipe),
        }  # fmt: skip
        self._subjects: dict[str, int] = {}
        self._n_images = -1
        self.complete = self._already_there()
        if not self.complete:
            self._begin()

    def __enter__(self) -> PairsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave what is finished for the next run; nothing to close."""

    def set_images(self, images_NHWC: np.ndarray, names: Sequence[str]) -> None:
        """Store the pixels of all images: (m, h, w, 3) uint8, with a name each."""
        if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[3] != 3:
            raise DataError(
                f"images of shape {images_NHWC.shape} and type {images_NHWC.dtype} do not fit (n, h, w, 3) uint8",
                "convert them to 8-bit RGB of one size, or store references to files",
            )
        self._check_names(names, len(images_NHWC))
        group = self._fresh("images")
        array = group.create_array(
            "images", shape=images_NHWC.shape, dtype="uint8", chunks=(1, *images_NHWC.shape[1:]),
            shards=(_whole(len(images_NHWC)), *images_NHWC.shape[1:]), compressors=ZstdCodec(level=3, checksum=True),
            dimension_names=("image", "y", "x", "colour"),
            attributes={"kind": "pixels", "names": list(names), "sha256": [_pixels_sha256(image) for image in images_NHWC]},
        )  # fmt: skip
        array[:] = images_NHWC
        self._publish("images")
        self._n_images = len(images_NHWC)

    def set_image_files(self, folder: str | os.PathLike[str], names: Sequence[str]) -> None:
        """Store references: file names below `folder`, each with its size and SHA-256. Every file is read once, here.

        The folder is kept relative to the store, so that both can be moved together.

        Raises:
            DataError: a file is missing or is not an image.
        """
        self._check_names(names, len(names))
        digests, sizes = [], []
        for name in names:
            content = _read_image_file(Path(folder), name)
            _decode(content, name)
            digests.append(hashlib.sha256(content).hexdigest())
            sizes.append(len(content))
        relative = os.path.relpath(Path(folder).resolve(), self.path.resolve().parent)
        group = self._fresh("images")
        group.create_group("images", attributes={
            "kind": "files", "folder": Path(relative).as_posix(), "names": list(names), "bytes": sizes, "sha256": digests,
        })  # fmt: skip
        self._publish("images")
        self._n_images = len(names)

    def done(self, subject: str, key: str) -> bool:
        """Whether an earlier run of this command finished this subject from the same sources (then it is kept)."""
        attributes = _attributes(self.partial / subject)
        if attributes.get("key") != key:
            return False
        self._subjects[subject] = int(attributes["n"])
        return True

    @contextmanager
    def subject(self, subject: str, key: str, attributes: Mapping[str, Any]) -> Iterator[SubjectPairs]:
        """Write one subject; it counts only when the block ends without an error.

        Args:
            subject: name of the group.
            key: fingerprint of what it is made from; `done(subject, key)` is then True in the next run.
            attributes: sfreq, t0, channels, pad_map, band, blocks, sources, ... (see the layout); may be filled inside the block.
        """
        if not _SUBJECT.fullmatch(subject) or subject == "images" or subject in self._subjects:
            raise DataError(
                f"subject {subject!r} cannot be a group of this store", "use a new name of letters, digits, '.', '_' and '-'"
            )
        if self._n_images < 0:
            raise StoreError(f"{self.path}: the images have to be written before subject {subject!r}", "call set_images first")
        parent = self._fresh(subject)
        target = SubjectPairs(
            parent.create_group(subject), self.channels, self.samples, self._n_images, len(self._root["classes"])
        )
        yield target
        target.close({"blocks": "unknown", "unit": "uV", **attributes, "key": key})
        self._publish(subject)
        self._subjects[subject] = target.n

    def finish(self, splits: Mapping[str, Sequence[int] | np.ndarray]) -> None:
        """Write the root attributes and give the store its name.

        Raises:
            DataError: no trial, or a split names a trial that is not there, or twice.
        """
        total = sum(self._subjects.values())
        if total == 0:
            raise DataError(f"{self.path}: no trial was written", "check the input: every trial was left out")
        lists = {name: _split_list(name, indices, total) for name, indices in splits.items()}
        for leftover in self.partial.iterdir():  # subjects of an earlier, wider run
            if leftover.is_dir() and leftover.name not in {*self._subjects, "images"}:
                shutil.rmtree(leftover)
        root = zarr.open_group(self.partial, mode="r+")
        root.attrs.put({
            "format": FORMAT, "version": VERSION, "complete": True, **self._root, "splits": lists,
            "subjects": list(self._subjects), "trials": total,
            "software": {name: metadata.version(name) for name in ("eeg-dreamdiff", "zarr", "numpy")},
        })  # fmt: skip
        publish_folder(self.partial, self.path)
        self.complete = True

    def _already_there(self) -> bool:
        if not self.path.exists():
            return False
        attributes = _attributes(self.path)
        if attributes.get("format") != FORMAT:
            raise StoreError(f"{self.path}: exists and is not a pairs store", "choose another name for --out, or remove it")
        if attributes.get("fingerprint") != self._root["fingerprint"]:
            raise StoreError(
                f"{self.path}: holds pairs of another recipe (fingerprint {str(attributes.get('fingerprint'))[:12]}, "
                f"wanted {self._root['fingerprint'][:12]})",
                "choose another name for --out, or remove the store",
            )
        return bool(attributes.get("complete"))

    def _begin(self) -> None:
        """Take up the folder of an interrupted run of the same recipe, or start a new one."""
        if _attributes(self.partial).get("fingerprint") != self._root["fingerprint"]:
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.parent.mkdir(parents=True, exist_ok=True)
            root = zarr.open_group(self.partial, mode="w", zarr_format=3)
            root.attrs.put({"format": FORMAT, "complete": False, "fingerprint": self._root["fingerprint"]})

    def _fresh(self, name: str) -> zarr.Group:
        """An empty folder beside the group `name`, in which it is prepared."""
        hidden = self.partial / f".{name}.partial"
        shutil.rmtree(hidden, ignore_errors=True)
        return zarr.open_group(hidden, mode="w", zarr_format=3)

    def _publish(self, name: str) -> None:
        hidden = self.partial / f".{name}.partial"
        publish_folder(hidden / name, self.partial / name)
        shutil.rmtree(hidden)

    def _check_names(self, names: Sequence[str], count: int) -> None:
        if len(names) != count or len(set(names)) != len(names):
            raise DataError(
                f"{count} images have {len(names)} names, {len(set(names))} of them distinct",
                "give every image a name of its own",
            )


class SubjectPairs:
    """The trials of one subject, added in batches of any size; whole shards are written as they fill."""

    def __init__(self, group: zarr.Group, channels: int, samples: int, n_images: int, n_classes: int) -> None:
        self.n = 0
        self._group, self._shape = group, (channels, samples)
        self._limits = {"image": n_images, "label": n_classes}
        self._eeg = group.create_array(
            "eeg", shape=(0, channels, samples), dtype="float32", chunks=(1, channels, samples),
            shards=(_SHARD, channels, samples), compressors=ZstdCodec(level=-1, checksum=True), fill_value=float("nan"),
            dimension_names=("trial", "channel", "time"),
        )  # fmt: skip
        self._buffer = np.empty((_SHARD, channels, samples), dtype=np.float32)
        self._filled = 0
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in (*COLUMNS, "onset")}

    def add(
        self,
        eeg_NCT: np.ndarray,
        *,
        image: np.ndarray,
        label: np.ndarray,
        block: np.ndarray | None = None,
        session: np.ndarray | None = None,
        trial: np.ndarray | None = None,
        onset: np.ndarray | None = None,
    ) -> None:
        """Append trials; what is None is unknown, but for `trial`, which then counts on.

        Raises:
            DataError: shapes that do not fit, values that are not finite, images or labels that are not there.
        """
        n = len(eeg_NCT)
        if eeg_NCT.shape[1:] != self._shape:
            raise DataError(
                f"trials of shape {eeg_NCT.shape[1:]} do not fit a store of {self._shape} (channels, samples)",
                "crop and pad them with eegprep first",
            )
        if not np.isfinite(eeg_NCT).all():
            bad = int(np.flatnonzero(~np.isfinite(eeg_NCT).all(axis=(1, 2)))[0])
            raise DataError(f"trial {self.n + bad} holds values that are not finite", "leave it out or mend it")
        counted = np.arange(self.n, self.n + n) if trial is None else trial
        columns = {"image": image, "label": label, "block": block, "session": session, "trial": counted}
        for name, values in columns.items():
            array = np.full(n, -1, dtype=np.int32) if values is None else np.asarray(values, dtype=np.int32)
            self._check(name, array, n)
            self._columns[name].append(array)
        times = np.full(n, np.nan) if onset is None else np.asarray(onset, dtype=np.float64)
        self._check("onset", times, n)
        self._columns["onset"].append(times)
        self._append(eeg_NCT)

    def close(self, attributes: Mapping[str, Any]) -> None:
        """Write what is still in memory, the columns, and the attributes last."""
        self._flush()
        for name, parts in self._columns.items():
            dtype = "float64" if name == "onset" else "int32"
            values = np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
            array = self._group.create_array(
                name, shape=values.shape, dtype=dtype, chunks=(max(len(values), 1),), dimension_names=("trial",),
                fill_value=float("nan") if name == "onset" else -1,
            )  # fmt: skip
            array[:] = values
        self._group.attrs.put({**attributes, "n": self.n})

    def _check(self, name: str, values: np.ndarray, n: int) -> None:
        if values.shape != (n,):
            raise DataError(f"column {name!r} has shape {values.shape} for {n} trials", "give one value per trial")
        limit = self._limits.get(name)
        if limit is not None and n and (values.min() < 0 or values.max() >= limit):
            worst = int(values.min() if values.min() < 0 else values.max())
            raise DataError(
                f"{name} {worst} is outside 0..{limit - 1}", f"every trial needs one of the {limit} {name}s of the store"
            )

    def _append(self, eeg_NCT: np.ndarray) -> None:
        taken = 0
        while taken < len(eeg_NCT):
            step = min(_SHARD - self._filled, len(eeg_NCT) - taken)
            self._buffer[self._filled : self._filled + step] = eeg_NCT[taken : taken + step]
            self._filled += step
            taken += step
            self.n += step
            if self._filled == _SHARD:
                self._flush()

    def _flush(self) -> None:
        if self._filled:
            start = self.n - self._filled
            self._eeg.resize((self.n, *self._shape))
            self._eeg[start : self.n] = self._buffer[: self._filled]
            self._filled = 0


def _whole(n: int) -> int:
    return max(1, min(n, _SHARD))


def _split_list(name: str, indices: Sequence[int] | np.ndarray, total: int) -> list[int]:
    numbers = [int(index) for index in indices]
    if len(set(numbers)) != len(numbers) or (numbers and (min(numbers) < 0 or max(numbers) >= total)):
        raise DataError(
            f"split {name!r} names trials {min(numbers)}..{max(numbers)} ({len(numbers) - len(set(numbers))} twice), "
            f"the store has 0..{total - 1}",
            "make the split for the trials of this store",
        )
    return sorted(numbers)


def _attributes(folder: Path) -> dict[str, Any]:
    """Attributes of a zarr group on disk, empty if there is none."""
    try:
        return dict(zarr.open_group(folder, mode="r").attrs)
    except (FileNotFoundError, ValueError, KeyError, NotADirectoryError):
        return {}


# -------------------------------------------------------------------------------------------------------- reading


class Pairs:
    """EEG-image pairs of a store, or some of them (`select`). Trials are numbered through the subjects in order.

    `class_ids`: other names of the classes (synsets), or None.
    Per trial, as numpy arrays: `person` (index into `subjects`), `image`, `labels`, `block`, `session`, `trial`, `onset`.
    """

    def __init__(
        self, path: Path, root: zarr.Group, images: _Images, columns: Mapping[str, np.ndarray], indices: np.ndarray
    ) -> None:
        self.path, self.indices = path, indices
        self._root, self._images, self._all = root, images, columns
        attributes = _plain(root)
        self.classes: list[str] = list(attributes["classes"])
        self.class_ids: list[str] | None = attributes.get("class_ids")
        self.subjects: list[str] = list(attributes["subjects"])
        self.provenance: Provenance = attributes["provenance"]
        self.licence: str = attributes["licence"]
        self.recipe: dict[str, Any] = dict(attributes["recipe"])
        self.fingerprint: str = attributes["fingerprint"]
        self.attributes: dict[str, dict[str, Any]] = {name: _plain(root[name]) for name in self.subjects}
        self._stored_splits: dict[str, np.ndarray] = {
            name: np.asarray(numbers, dtype=np.int64) for name, numbers in attributes["splits"].items()
        }

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None) -> Pairs:
        """Open a finished store.

        Args:
            path: the store.
            images: folder with the image files, if they are not where they were when the store was made.

        Raises:
            StoreError: missing, unfinished, or not a pairs store of a version that can be read.
        """
        path = Path(path)
        attributes = _attributes(path)
        if not attributes:
            unfinished = partial_path(path).exists()
            raise StoreError(
                f"{path}: {'the store was not finished' if unfinished else 'there is no zarr store'}",
                "run the command that makes it again" if unfinished else "check the path; `dreamdiff pairs simulate` makes one",
            )
        if attributes.get("format") != FORMAT or not attributes.get("complete"):
            raise StoreError(
                f"{path}: not a pairs store (format {attributes.get('format')!r}, wanted {FORMAT!r})",
                "give a store made by `dreamdiff pairs import` or `dreamdiff pairs simulate`",
            )
        if attributes["version"] > VERSION:
            raise StoreError(
                f"{path}: has version {attributes['version']}, this release reads up to {VERSION}",
                "install a newer eeg-dreamdiff",
            )
        root = zarr.open_group(path, mode="r")
        columns = _read_columns(path, root, attributes)
        return cls(path, root, _Images(path, root, images), columns, np.arange(attributes["trials"]))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def person(self) -> np.ndarray:
        """(n,) index into `subjects`."""
        return self._all["person"][self.indices]

    @property
    def image(self) -> np.ndarray:
        """(n,) index of the image of each trial, for `load_images` and `image_names`."""
        return self._all["image"][self.indices]

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
        """What `eegprep.splits` needs to know."""
        return Trials(self.person, self.session, self.block, self.image, self.labels, self.onset)

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
        shape = self._array(self.subjects[0]).shape
        return int(shape[1]), int(shape[2])

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

    def audit(self, name: str = "default", *, seed: int = 0) -> Audit:
        """What a split leaks; see `eegprep.splits.audit`.

        Args:
            name: as in `split`, or one stored list, which is then compared with "train".
            seed: of a split that is made now, and of the permutations.

        Sentences about the design of the experiment that a store carries are added to the notes.
        """
        stored = self.splits
        if name in stored and "/" not in name and name != "train" and "train" in stored:
            train, test = stored["train"], stored[name]
        else:
            parts = self.split(name, seed=seed)
            train, test = parts["train"], parts["test"]
        result = audit(self.trials, train, test, split=name, seed=seed)
        notes = [text for subject in self.subjects for text in self.attributes[subject].get("design", ())]
        return replace(result, notes=(*result.notes, *dict.fromkeys(notes)))

    def select(
        self,
        *,
        split: str | None = None,
        subjects: Sequence[str] | None = None,
        labels: Sequence[int] | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Pairs:
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
            wanted = self._positions(indices)
            positions = wanted[keep[wanted]]
        return Pairs(self.path, self._root, self._images, self._all, self.indices[positions])

    def eeg(self, indices: Sequence[int] | np.ndarray | int | None = None) -> np.ndarray:
        """(n, C, T) float32 of the trials at these positions, in this order; all when None.

        Raises:
            StoreError: a trial is missing from the store or damaged.
        """
        numbers = self.indices[self._positions(indices)]
        out = np.empty((len(numbers), *self.eeg_shape), dtype=np.float32)
        person, row = self._all["person"][numbers], self._all["row"][numbers]
        for rank in np.lexsort((row, person)):
            name, where = self.subjects[person[rank]], int(row[rank])
            try:
                out[rank] = self._array(name)[where]
            except (RuntimeError, ValueError, OSError) as error:
                raise StoreError(
                    f"{self.path}: trial {where} of subject {name!r} is damaged ({error})", "make the store again"
                ) from error
            if np.isnan(out[rank, 0, 0]):
                raise StoreError(f"{self.path}: trial {where} of subject {name!r} is missing", "make the store again")
        return out

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
        wanted = np.asarray(images, dtype=np.int64).reshape(-1)
        distinct, back = np.unique(wanted, return_inverse=True)
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

    @property
    def image_paths(self) -> list[Path] | None:
        """File of every image, by image number; None when the store holds the pixels."""
        return self._images.paths

    def _array(self, subject: str) -> zarr.Array[Any]:
        return self._root[f"{subject}/eeg"]  # type: ignore[return-value]

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


def _read_columns(path: Path, root: zarr.Group, attributes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*COLUMNS, "onset", "person", "row")}
    for person, name in enumerate(attributes["subjects"]):
        if name not in root:
            raise StoreError(f"{path}: subject {name!r} is missing", "make the store again")
        n = int(_plain(root[name])["n"])
        for column in (*COLUMNS, "onset"):
            parts[column].append(np.asarray(root[f"{name}/{column}"][:]))  # type: ignore[index]
        parts["person"].append(np.full(n, person, dtype=np.int64))
        parts["row"].append(np.arange(n))
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if set(lengths.values()) != {attributes["trials"]}:
        raise StoreError(f"{path}: {attributes['trials']} trials are announced, columns hold {lengths}", "make the store again")
    for name, limit in (("label", len(attributes["classes"])), ("image", _image_count(root))):
        if (columns[name] < 0).any() or (columns[name] >= limit).any():
            raise StoreError(f"{path}: column {name!r} names something outside 0..{limit - 1}", "make the store again")
    return columns


def _plain(node: zarr.Group | zarr.Array[Any]) -> dict[str, Any]:
    """Attributes as plain values."""
    return dict(cast("Mapping[str, Any]", node.attrs.asdict()))


def _image_count(root: zarr.Group) -> int:
    return len(_plain(root["images"])["names"])


class _Images:
    """The images of a store, checked against their SHA-256 when they are read."""

    def __init__(self, path: Path, root: zarr.Group, folder: str | os.PathLike[str] | None) -> None:
        node = root["images"]
        self.path = path
        self.names: list[str] = _plain(node)["names"]
        self.sha256: list[str] = _plain(node)["sha256"]
        self._array = node if isinstance(node, zarr.Array) else None
        self._folder: Path | None = None
        if self._array is None:
            self._folder = Path(folder) if folder else path.resolve().parent / str(_plain(node)["folder"])

    @property
    def paths(self) -> list[Path] | None:
        return None if self._folder is None else [self._folder / name for name in self.names]

    def read(self, number: int, size: int | None) -> np.ndarray:
        if not 0 <= number < len(self.names):
            raise DataError(f"{self.path}: image {number} is outside 0..{len(self.names) - 1}", "ask for an image that is there")
        name = self.names[number]
        if self._array is not None:
            try:
                pixels = np.asarray(self._array[number])
            except (RuntimeError, ValueError, OSError) as error:
                raise DataError(f"{self.path}: image {name!r} is damaged ({error})", "make the store again") from error
            self._compare(name, _pixels_sha256(pixels), self.sha256[number])
        else:
            assert self._folder is not None
            content = _read_image_file(self._folder, name)
            self._compare(name, hashlib.sha256(content).hexdigest(), self.sha256[number])
            pixels = _decode(content, name)
        if size is None or pixels.shape[:2] == (size, size):
            return pixels
        return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))

    def _compare(self, name: str, found: str, wanted: str) -> None:
        if found != wanted:
            raise DataError(
                f"image {name!r} is not the one the store was made with (SHA-256 {found[:12]}, wanted {wanted[:12]})",
                "restore the original image, or make the store again",
            )


def _read_image_file(folder: Path, name: str) -> bytes:
    file = folder / name
    if not file.is_file():
        raise DataError(f"image {name!r} is missing from {folder}", "put it there, or name the folder that holds the images")
    return file.read_bytes()


def _decode(content: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"image {name!r} cannot be read ({error})", "replace the file by the original image") from None


def _pixels_sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
