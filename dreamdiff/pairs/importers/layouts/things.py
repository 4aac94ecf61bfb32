"""THINGS-EEG2 (Gifford et al. 2022), preprocessed. Shapes: N trials, R repetitions, C channels, T samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dreamdiff.pairs.importers.epochs import electrodes_of, rows_of, without_baseline
from dreamdiff.pairs.importers.importer import BATCH, CHANNELS, SAMPLES, Batch, ImportConfig, Reader, chosen, hashed
from dreamdiff.pairs.splits import PARTS
from dreamdiff.untrusted import arrays as npy_dict
from eegprep.errors import DataError
from eegprep.signals.windows import pad_channels, stretch


class ThingsEEG2(Reader):
    """Preprocessed THINGS-EEG2: `sub-01/preprocessed_eeg_training.npy` and `..._test.npy`, images by concept.

    The split is the data set's: 200 concepts for test that training never shows; validation holds 5 % of the training concepts
    out (740 of 16,540 images in the full set, as NICE does).
    """

    licence = "EEG: THINGS-EEG2 (osf.io/3jk45, see there); images: THINGS, for research"
    _FILES = (("training", "training_images"), ("test", "test_images"))

    def __init__(self, source: Path, config: ImportConfig) -> None:
        self.config = config
        folders = {path.name.removeprefix("sub-"): path for path in sorted(source.glob("sub-*")) if path.is_dir()}
        if not folders and (source / "preprocessed_eeg_training.npy").is_file():
            folders = {source.name.removeprefix("sub-"): source}
        if not folders:
            raise DataError(f"{source}: holds no folder sub-*", "give the folder that holds sub-01, sub-02, ...")
        self.subjects = chosen(list(folders), config.subjects, source)
        self.folders = folders
        self.image_folder = image_set(source, config.images)
        self._list_images(source)
        files = [self._file(name, part) for name in self.subjects for part, _ in self._FILES]
        for file in files:
            if not file.is_file():
                raise DataError(f"{source}: {file.parent.name}/{file.name} is missing", "fetch it, or leave the subject out")
        self.sources = hashed(*files)
        for entry, file in zip(self.sources, files, strict=True):  # files of all subjects have the same names
            entry[0] = f"{file.parent.name}/{file.name}"
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    def _file(self, subject: str, part: str) -> Path:
        return self.folders[subject] / f"preprocessed_eeg_{part}.npy"

    def _list_images(self, source: Path) -> None:
        names = images_by_part(self.image_folder, source)
        self.image_names, labels, self.first = [], [], {}
        concepts: dict[str, int] = {}
        for part, folder in self._FILES:
            self.first[part] = (len(self.image_names), len(names[part]))
            for name in names[part]:
                labels.append(concepts.setdefault(concept_of(name), len(concepts)))
                self.image_names.append(f"{folder}/{name}")
        self.image_label = np.array(labels)
        self.classes = list(concepts)

    def _load(self, subject: str, part: str) -> tuple[np.ndarray, list[str], np.ndarray]:
        """(N, R, C, T), channel names, times s."""
        file = self._file(subject, part)
        content = npy_dict.load(file)
        try:
            data, names, times = (
                content["preprocessed_eeg_data"],
                content["ch_names"],
                np.asarray(content["times"], dtype=np.float64),
            )
        except (KeyError, TypeError, IndexError):
            raise DataError(f"{file.name}: is not a dictionary of preprocessed EEG", "give the files of THINGS-EEG2") from None
        if data.ndim == 4 and len(times) > data.shape[3]:
            # files of 250 Hz hold the times of the uncut epoch: the last T belong to the data (NICE's preprocessing)
            times = times[-data.shape[3] :]
        expected = (self.first[part][1], len(names), len(times))
        if data.ndim != 4 or (data.shape[0], *data.shape[2:]) != expected or len(times) < 2:
            raise DataError(
                f"sub-{subject}/{file.name}: EEG of shape {data.shape} does not fit {expected[0]} images, {expected[1]} channels and "
                f"{expected[2]} times",
                "give the image set that belongs to it with --images",
            )
        return data, [str(name) for name in names], times

    def total(self, subject: str) -> int:
        return sum(self._trials(subject, part) for part, _ in self._FILES)

    def _trials(self, subject: str, part: str) -> int:
        if subject not in self._shapes:
            self._shapes[subject] = {name: self._load(subject, name)[0].shape for name, _ in self._FILES}
        conditions, repetitions = self._shapes[subject][part][:2]
        return conditions * (repetitions if self.config.repetitions == "keep" else 1)

    def batches(self, subject: str) -> Iterator[Batch]:
        counted = 0
        for part, _ in self._FILES:
            data_NRCT, names, times = self._load(subject, part)
            rows, span = self._kept(subject, names, times)
            if not 1 <= len(names) <= CHANNELS:
                raise DataError(f"sub-{subject}: {len(names)} channels do not fit {CHANNELS}", "give the preprocessed files")
            each = data_NRCT.shape[1] if self.config.repetitions == "keep" else 1
            # a batch holds whole conditions, whatever the number of repetitions
            step = max(1, BATCH // each)
            for start in range(0, len(data_NRCT), step):
                piece_NRCT = np.asarray(data_NRCT[start : start + step], dtype=np.float32)
                if self.config.repetitions == "average":
                    piece_NRCT = piece_NRCT.mean(axis=1, keepdims=True)
                condition = self.first[part][0] + start + np.repeat(np.arange(len(piece_NRCT)), each)
                flat_NCT = piece_NRCT.reshape(-1, *piece_NRCT.shape[2:])
                if self.config.recipe == "image":
                    sfreq = (len(times) - 1) / float(times[-1] - times[0])
                    cut_NCT = without_baseline(flat_NCT[:, list(rows)], sfreq, float(times[0]), self.config.baseline_ms)
                    eeg_NCT = np.ascontiguousarray(cut_NCT[:, :, span])
                else:
                    eeg_NCT = pad_channels(np.stack([stretch(x_CT, SAMPLES) for x_CT in flat_NCT]), CHANNELS)
                trial = counted + np.arange(len(eeg_NCT))
                counted += len(eeg_NCT)
                yield Batch(eeg_NCT, {"image": condition, "label": self.image_label[condition], "trial": trial})

    def _kept(self, subject: str, names: list[str], times: np.ndarray) -> tuple[tuple[int, ...], slice]:
        """image recipe: which channels are kept, in the order of the first person's, and the stretch of the window."""
        if self.config.recipe == "paper":
            return tuple(range(len(names))), slice(None)
        return rows_of(names, self.electrodes, f"sub-{subject}"), window_of(times, self.config.window_ms)

    @cached_property
    def electrodes(self) -> tuple[str, ...]:
        """image recipe: what the store keeps."""
        return electrodes_of(self._load(self.subjects[0], "training")[1], self.config.electrodes, f"sub-{self.subjects[0]}")

    def shape(self) -> tuple[int, int]:
        """(128, 512), or the electrodes and samples of the image recipe."""
        if self.config.recipe == "paper":
            return CHANNELS, SAMPLES
        times = self._load(self.subjects[0], "training")[2]
        return len(self.electrodes), len(times[window_of(times, self.config.window_ms)])

    def attributes(self, subject: str) -> Mapping[str, Any]:
        _, names, times = self._load(subject, "training")
        shared = {
            "unit": "as in the file", "blocks": "unknown", "repetitions": self.config.repetitions,
            "sources": [row for row in self.sources if row[0].startswith(f"{self.folders[subject].name}/")],
            "design": [
                "THINGS-EEG2 shows images in random order (Gifford et al. 2022); the preprocessed files merge the sessions, so that "
                "block, session and time of a trial are not known"
            ],
        }  # fmt: skip
        sfreq = (len(times) - 1) / float(times[-1] - times[0])
        if self.config.recipe == "image":
            kept = times[window_of(times, self.config.window_ms)]
            count = len(self.electrodes)
            return {
                **shared, "sfreq": sfreq, "original_sfreq": sfreq, "t0": float(kept[0]), "channels": list(self.electrodes), "n_channels": count,
                "pad_map": list(range(count)),
            }  # fmt: skip
        return {
            **shared, "sfreq": (SAMPLES - 1) / float(times[-1] - times[0]), "original_sfreq": sfreq, "t0": float(times[0]), "channels": names,
            "n_channels": len(names), "pad_map": (np.arange(CHANNELS) % len(names)).tolist(),
        }  # fmt: skip

    def splits(self) -> dict[str, np.ndarray]:
        concepts = np.unique(self.image_label[: self.first["training"][1]])
        rng = np.random.default_rng(self.config.seed)
        held = held_out(rng, concepts)
        lists: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
        offset = 0
        for subject in self.subjects:
            for part, _ in self._FILES:
                n = self._trials(subject, part)
                each = n // self.first[part][1]
                label = np.repeat(self.image_label[self.first[part][0] : sum(self.first[part])], each)
                numbers = offset + np.arange(n)
                if part == "test":
                    lists["test"].append(numbers)
                else:
                    in_validation = np.isin(label, held)
                    lists["val"].append(numbers[in_validation])
                    lists["train"].append(numbers[~in_validation])
                offset += n
        return {part: np.concatenate(arrays) for part, arrays in lists.items()}


def held_out(rng: np.random.Generator, concepts: np.ndarray) -> np.ndarray:
    """Training concepts of the validation part: 4.5 %, which are NICE's 740 of 16,540 images, as whole concepts."""
    return rng.permutation(concepts)[: max(1, round(0.0447 * len(concepts)))] if len(concepts) > 1 else concepts[:0]


def window_of(times: np.ndarray, window_ms: tuple[float, float] | None) -> slice:
    """The samples of a window of an epoched file; all of them where none is asked for.

    Raises:
        DataError: the file does not hold it.
    """
    if window_ms is None:
        return slice(0, len(times))
    step = float(times[1] - times[0])
    first, last = (round((edge / 1000 - float(times[0])) / step) for edge in window_ms)
    if first < 0 or last > len(times):
        raise DataError(
            f"the file holds {1000 * times[0]:.0f} to {1000 * (times[-1] + step):.0f} ms, not {window_ms[0]:g}:{window_ms[1]:g}",
            "choose a --window-ms inside of it",
        )
    return slice(first, last)


def image_set(source: Path, images: str | None) -> Path:
    places = [Path(images)] if images else [source / "Image_set", source / "image_set", source, source.parent / "Image_set"]
    for place in places:
        if (place / "training_images").is_dir() and (place / "test_images").is_dir():
            return place
    raise DataError(
        f"{places[0]}: holds no training_images and test_images", "name the folder of the THINGS images with --images"
    )


def images_by_part(folder: Path, source: Path) -> dict[str, list[str]]:
    """Images in the order of the conditions: of image_metadata.npy, else sorted by concept folder and name, as documented."""
    metadata = next((p for p in (folder / "image_metadata.npy", source / "image_metadata.npy") if p.is_file()), None)
    content = npy_dict.load(metadata) if metadata else None
    return {
        part: _from_metadata(content, part) if content is not None else listed_images(folder / place)
        for part, place in (("training", "training_images"), ("test", "test_images"))
    }


def listed_images(folder: Path) -> list[str]:
    endings = {".jpg", ".jpeg", ".png"}
    return [
        f"{concept.name}/{file.name}"
        for concept in sorted(folder.iterdir())
        if concept.is_dir()
        for file in sorted(concept.iterdir())
        if file.suffix.lower() in endings and not file.name.startswith(".")  # macOS leaves `._name` beside each
    ]


def _from_metadata(content: Mapping[str, Any], part: str) -> list[str]:
    kind = {"training": "train", "test": "test"}[part]
    try:
        concepts, files = content[f"{kind}_img_concepts"], content[f"{kind}_img_files"]
    except (KeyError, TypeError):
        raise DataError(
            f"image_metadata.npy: holds no {kind}_img_concepts and {kind}_img_files", "use the file of the THINGS-EEG2 image set"
        ) from None
    return [f"{concept}/{file}" for concept, file in zip(concepts, files, strict=True)]


def concept_of(name: str) -> str:
    """`00001_aardvark/aardvark_01b.jpg` -> `aardvark`."""
    folder = name.partition("/")[0]
    number, _, rest = folder.partition("_")
    return rest if number.isdigit() and rest else folder
