"""Writes a pairs store: subject by subject, to be taken up where it was killed. The layout is described in `pairs`.

Shapes: N trials, C channels, T samples, H W pixels.
"""

from __future__ import annotations

import os
import shutil
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from dreamdiff.pairs.checks import has_all_files, has_lost_its_root
from dreamdiff.pairs.decoding import decode_noted
from dreamdiff.pairs.format import _SUBJECT, FORMAT, SHARD, VERSION, Provenance, group_attributes
from dreamdiff.pairs.images import read_image_file
from dreamdiff.pairs.subject import SubjectPairs, SubjectView
from dreamdiff.sameness.copies import Sketch, find_copies, sketch, stimulus_numbers
from eegprep.atomic import partial_path, publish_folder, remove
from eegprep.errors import DataError, StoreError
from eegprep.locks import OWNER, folder_lock
from eegprep.provenance import fingerprint, installed, plain_json, sha256, sha256_array
from eegprep.settings import differences
from eegprep.store.commit import finish_root, group_node, write_node


class PairsWriter:
    """Write a pairs store; use as a context manager and end with `finish`.

    Args:
        path: final name of the store.
        recipe: plain JSON values that say what is written; a store of the same recipe is taken up again, another is an error,
            unless `rebuild` is given: the store is then made again, and the old one stays until the new one is whole.
        classes: names of the labels 0, 1, ...
        provenance: "recorded", or "simulated" for pairs with a known answer.
        licence: of the EEG and the images, as text.
        class_ids: other names of the classes, for instance WordNet synsets.
        channels, samples: of a trial.
        corpus: of a view, see `pairs.view`; its subjects take references in place of EEG.

    `stimulus`, once images are set: for each image the number of the first one that shows the same picture (`sameness.copies`).
    `complete` is True when the store is already there, finished, from the same recipe: nothing needs to be done.

    Example:
        >>> import dreamdiff, numpy
        >>> rng = numpy.random.default_rng(0)
        >>> with dreamdiff.PairsWriter("mine.zarr", recipe={}, classes=["cat", "dog"], provenance="recorded", licence="CC-BY-4.0") as writer:
        ...     writer.set_images(rng.integers(0, 255, (2, 32, 32, 3), dtype=numpy.uint8), ["cat.png", "dog.png"])
        ...     with writer.subject("anna", "1", {"sfreq": 512.0, "unit": "uV"}) as trials:
        ...         trials.add(rng.normal(0, 10, (4, 128, 512)).astype("float32"), image=numpy.arange(4) % 2, label=numpy.arange(4) % 2)
        ...     writer.finish({"train": [0, 1], "test": [2, 3]})
        >>> len(dreamdiff.Pairs.open("mine.zarr"))
        4
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
        corpus: Mapping[str, Any] | None = None,
        rebuild: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial = partial_path(self.path)
        self.channels, self.samples = channels, samples
        self._root: Mapping[str, Any] = {
            "classes": list(classes), "class_ids": None if class_ids is None else list(class_ids), "licence": licence,
            "provenance": provenance, "recipe": dict(recipe), "fingerprint": fingerprint(recipe),
            **({} if corpus is None else {"corpus": dict(corpus)}),
        }  # fmt: skip
        self._view = corpus is not None
        self._subjects: dict[str, int] = {}
        self._n_images = -1
        self._lock = ExitStack()
        # a writer that is dropped without `finish` must not keep others out
        weakref.finalize(self, self._lock.close)
        self.stimulus = np.zeros(0, np.int64)
        self.complete = self._already_there(rebuild)
        if not self.complete:
            self._lock.enter_context(folder_lock(self.partial, again=True, refused=self._refused))
            self.complete = self._already_there(rebuild)  # by whoever had the lock before
        if self.complete:
            self._lock.close()
            # made for the lock only; not removed where another process still needs it
            with suppress(OSError):
                self.partial.rmdir()
        else:
            self._begin()

    def __enter__(self) -> PairsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave what is finished for the next run."""
        self._lock.close()

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
            # a chunk an image, so that one is read without the others; many in a file, so that a store is not a million files
            shards=(_whole(len(images_NHWC)), *images_NHWC.shape[1:]), compressors=ZstdCodec(level=3, checksum=True),
            dimension_names=("image", "y", "x", "colour"),
            attributes={
                "kind": "pixels", "names": list(names), "sha256": [sha256_array(image) for image in images_NHWC],
                **self._compared([sketch(image) for image in images_NHWC]),
            },
        )  # fmt: skip
        array[:] = images_NHWC
        self._publish("images")
        self._n_images = len(images_NHWC)

    def set_image_files(self, folder: str | os.PathLike[str], names: Sequence[str]) -> None:
        """Store references: file names below `folder`, each with its size and SHA-256. Every file is read once, here.

        The folder is kept relative to the store, so that both can be moved together. What decoding does to pictures that are not plain
        8-bit RGB (`pairs.decoding`) is counted in the attribute `conversions`.

        Raises:
            DataError: a file is missing or is not an image.
        """
        self._check_names(names, len(names))
        missing = [name for name in names if not (Path(folder) / name).is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(names)} images are missing from {folder}, the first is {missing[0]}",
                "put them there, or name the folder that holds the images",
            )
        digests, sizes, conversions, sketches = [], [], Counter[str](), []
        for name in names:
            content = read_image_file(Path(folder), name)
            pixels, notes = decode_noted(content, name)
            conversions.update(notes)
            sketches.append(sketch(pixels))
            digests.append(sha256(content))
            sizes.append(len(content))
        # of the store's folder, not of the working folder: a store is opened from elsewhere
        relative = os.path.relpath(Path(folder).resolve(), self.path.resolve().parent)
        group = self._fresh("images")
        group.create_group("images", attributes={
            "kind": "files", "folder": Path(relative).as_posix(), "names": list(names), "bytes": sizes, "sha256": digests,
            "conversions": dict(sorted(conversions.items())), **self._compared(sketches),
        })  # fmt: skip
        self._publish("images")
        self._n_images = len(names)

    def _compared(self, sketches: Sequence[Sketch]) -> Mapping[str, Any]:
        """Attributes that say which images are copies of each other, and which stimulus each image is."""
        copies = find_copies(sketches)
        self.stimulus = stimulus_numbers(len(sketches), copies)
        rows = [[one.first, one.second, one.how, one.distance] for one in copies]
        return {"copies": rows, "stimulus": self.stimulus.tolist()} if rows else {"copies": rows}

    def done(self, subject: str, key: str) -> bool:
        """Whether an earlier run of this command finished this subject from the same sources (then it is kept)."""
        attributes = group_attributes(self.partial / subject)
        if attributes.get("key") != key:
            return False
        self._subjects[subject] = int(attributes["n"])
        return True

    @contextmanager
    def subject(self, subject: str, key: str, attributes: Mapping[str, Any]) -> Iterator[Any]:
        """Write one subject (`SubjectPairs`, or `SubjectView` of a view); it counts only when the block ends without an error.

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
        folder = self.partial / f".{subject}.partial" / subject
        group, limits = parent.create_group(subject), (self._n_images, len(self._root["classes"]))
        target: SubjectPairs | SubjectView = (
            SubjectView(group, folder, *limits)
            if self._view
            else SubjectPairs(group, folder, self.channels, self.samples, *limits)
        )
        # no try: what an exception interrupts stays under its hidden name, and does not count
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
        root = group_node({
            "format": FORMAT, "version": VERSION, "complete": True, **self._root, "splits": lists,
            "subjects": list(self._subjects), "trials": total,
            "software": installed("eeg-dreamdiff", "zarr", "numpy"),
        })  # fmt: skip
        files = [path.relative_to(self.partial).as_posix() for path in self.partial.rglob("*") if path.is_file()]
        finish_root(self.partial, root, [name for name in files if name != "zarr.json" and not name.startswith(".")])
        # the commit: until here, the store has no name
        publish_folder(self.partial, self.path)
        (self.path / OWNER).unlink(missing_ok=True)
        self._lock.close()
        self.complete = True

    def _already_there(self, rebuild: bool) -> bool:
        if not self.path.exists():
            return False
        attributes = group_attributes(self.path)
        if not attributes and has_lost_its_root(self.path):
            return False  # made again; the folder is replaced when the new one is whole
        if attributes.get("format") != FORMAT:
            raise StoreError(f"{self.path}: exists and is not a pairs store", "choose another name for --out, or remove it")
        if attributes.get("fingerprint") != self._root["fingerprint"]:
            if rebuild:
                return False
            changes = _changes(attributes.get("recipe") or {}, self._root["recipe"])
            more = f" and {len(changes) - 8} more" if len(changes) > 8 else ""
            raise StoreError(
                f"{self.path}: was made with other settings ({'; '.join(changes[:8])}{more})",
                "give the settings it was made with, or another --out, or add --rebuild to make it again (in Python: rebuild=True)",
            )
        if not attributes.get("complete") or not has_all_files(self.path):
            return False
        (self.path / OWNER).unlink(missing_ok=True)  # of a process that was killed after the store had got its name
        return True

    def _refused(self, holder: str, fix: str) -> StoreError:
        return StoreError(f"{self.path}: another process is writing this store ({holder})", f"{fix}, or choose another output")

    def _begin(self) -> None:
        """Take up the folder of an interrupted run of the same recipe, or start a new one."""
        # never mixed: what another recipe left is removed
        begun = group_attributes(self.partial)
        if (begun.get("version"), begun.get("fingerprint")) != (VERSION, self._root["fingerprint"]):
            for leftover in self.partial.iterdir():
                if leftover.name != OWNER:
                    remove(leftover)
            begun = {"format": FORMAT, "version": VERSION, "complete": False, "fingerprint": self._root["fingerprint"]}
            write_node(self.partial, group_node(begun))

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


def _changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """How two recipes differ; of source files, which ones."""
    settings, files = [], []
    for recipe in (there, plain_json(here)):
        rest = {key: value for key, value in recipe.items() if key not in ("settings", "sources")}
        settings.append({**rest, **(recipe.get("settings") or {})})
        files.append({str(entry[0]): entry[1:] for entry in recipe.get("sources") or () if isinstance(entry, list)})
    other = [name for name in sorted({**files[0], **files[1]}) if files[0].get(name) != files[1].get(name)]
    said = [f"{len(other)} source files are not the same, the first is {other[0]}"] if other else []
    return differences(settings[0], settings[1], options=True) + said


def _whole(n: int) -> int:
    return max(1, min(n, SHARD))


def _split_list(name: str, indices: Sequence[int] | np.ndarray, total: int) -> list[int]:
    numbers = [int(index) for index in indices]
    if len(set(numbers)) != len(numbers) or (numbers and (min(numbers) < 0 or max(numbers) >= total)):
        raise DataError(
            f"split {name!r} names trials {min(numbers)}..{max(numbers)} ({len(numbers) - len(set(numbers))} twice), "
            f"the store has 0..{total - 1}",
            "make the split for the trials of this store",
        )
    return sorted(numbers)
