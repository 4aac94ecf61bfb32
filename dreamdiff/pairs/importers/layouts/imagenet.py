"""ImageNet-EEG (Spampinato et al. 2017) as perceivelab and the reference code share it. Shapes: N trials, R repetitions, C channels, T samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamdiff import embedded
from dreamdiff.pairs.importers.importer import BATCH, CHANNELS, SAMPLES, Batch, ImportConfig, Reader, chosen, hashed, split_by
from dreamdiff.pairs.splits import PARTS
from dreamdiff.untrusted import checkpoints as safe_pickle
from eegprep.errors import DataError, UsageError
from eegprep.signals.windows import stretch


class ImageNetEEG(Reader):
    """The data of Spampinato et al. as perceivelab and the reference code share it.

    One dictionary: `dataset` (list of eeg (128, T) at 1 kHz, image, label, subject), `labels` (40 synsets), `images` (names).
    """

    licence = "EEG: none stated by its authors; images: ImageNet, terms of access"

    def __init__(self, source: Path, config: ImportConfig) -> None:
        self.config = config
        self.file = _data_file(source)
        content = safe_pickle.load(self.file)
        self._check(content)
        self.trials: list[Mapping[str, Any]] = content["dataset"]
        self.class_ids = [str(name) for name in content["labels"]]
        # names for synsets, where the demo's categories have them
        known = dict(zip(embedded.synsets(), embedded.categories(), strict=True))
        self.classes = [known.get(name, name) for name in self.class_ids]
        numbers = sorted({int(trial["subject"]) for trial in self.trials})
        self.subjects = chosen([str(number) for number in numbers], config.subjects, self.file)
        self._keep()
        names = [str(name) for name in content["images"]]
        used = sorted({int(self.trials[index]["image"]) for index in self.kept})
        if used and used[-1] >= len(names):
            raise DataError(f"{self.file.name}: image {used[-1]} is named, there are {len(names)}", "use the original file")
        self.image_number = {image: place for place, image in enumerate(used)}
        self.image_folder = Path(config.images) if config.images else self.file.parent
        self.image_names = [_imagenet_file(self.image_folder, names[image]) for image in used]
        self.odd_labels = sum(
            # names of ImageNet begin with the synset: a label can be checked against them
            names[int(self.trials[i]["image"])].partition("_")[0] != self.class_ids[int(self.trials[i]["label"])]
            for i in self.kept
        )
        self.split_file = Path(config.splits) if config.splits else self._split_beside()
        self.sources = hashed(self.file, *([self.split_file] if self.split_file else []))

    def _check(self, content: Any) -> None:
        if not isinstance(content, dict) or not {"dataset", "labels", "images"} <= set(content) or not content["dataset"]:
            raise DataError(f"{self.file.name}: holds no ImageNet-EEG trials", "give eeg_5_95_std.pth or one of its kin")
        for index, trial in enumerate(content["dataset"]):
            shape = (
                tuple(trial["eeg"].shape)
                if isinstance(trial, dict) and {"eeg", "image", "label", "subject"} <= set(trial)
                else ()
            )
            if len(shape) != 2 or shape[0] != CHANNELS:
                raise DataError(
                    f"{self.file.name}: trial {index} has EEG of shape {shape}, expected ({CHANNELS}, T)", "use the original file"
                )
            if not 0 <= int(trial["label"]) < len(content["labels"]):
                raise DataError(
                    f"{self.file.name}: trial {index} has label {int(trial['label'])}, there are {len(content['labels'])}",
                    "use the original file",
                )

    def _keep(self) -> None:
        """Indices (into the file) of the trials that are imported, by subject; 450 to 600 samples as in the reference code."""
        first, last = self.config.window
        if not 0 <= first < last or last - first < 2:
            raise UsageError(f"window {first}:{last} is empty", "give --window START:STOP in samples, for instance 20:460")
        lengths = [trial["eeg"].shape[1] for trial in self.trials]
        low, high = self.config.min_samples, self.config.max_samples
        self.of_subject = {
            name: [i for i, trial in enumerate(self.trials) if str(int(trial["subject"])) == name] for name in self.subjects
        }
        self.kept_of = {
            name: [i for i in indices if low <= lengths[i] <= high and lengths[i] >= first + 2]
            for name, indices in self.of_subject.items()
        }
        self.kept = [i for name in self.subjects for i in self.kept_of[name]]
        if not self.kept:
            raise DataError(
                f"{self.file.name}: 0 of {sum(map(len, self.of_subject.values()))} trials have {low} to {high} samples",
                "use the original file",
            )

    def _split_beside(self) -> Path | None:
        value = self.file.parent / "block_splits_by_image_all.pth"
        return value if value.is_file() else None

    def total(self, subject: str) -> int:
        return len(self.kept_of[subject])

    def batches(self, subject: str) -> Iterator[Batch]:
        first, last = self.config.window
        kept = self.kept_of[subject]
        for start in range(0, len(kept), BATCH):
            indices = kept[start : start + BATCH]
            trials = [self.trials[i] for i in indices]
            eeg_NCT = np.stack([stretch(trial["eeg"].numpy()[:, first:last].astype(np.float32), SAMPLES) for trial in trials])
            label = np.array([int(trial["label"]) for trial in trials])
            image = np.array([self.image_number[int(trial["image"])] for trial in trials])
            # the design is published: each class is one block of 50 images, so that the label numbers the blocks of a person
            yield Batch(eeg_NCT, {"image": image, "label": label, "block": label, "trial": np.array(indices)})

    def attributes(self, subject: str) -> Mapping[str, Any]:
        first, last = self.config.window
        left_out = len(self.of_subject[subject]) - len(self.kept_of[subject])
        design = [
            "ImageNet-EEG shows each class in one block of 50 images, in 4 sessions of 10 classes (Li et al., TPAMI 43(1), 2021); "
            "which class was in which session, and when, is not in the file",
        ]
        if self.odd_labels:
            design.append(f"{self.odd_labels} trials show an image whose name belongs to another class than their label")
        return {
            "sfreq": 1000.0 * (SAMPLES - 1) / (last - first - 1), "original_sfreq": 1000.0, "t0": first / 1000.0,
            "n_channels": CHANNELS, "pad_map": list(range(CHANNELS)), "channels": [f"E{k + 1}" for k in range(CHANNELS)],
            "unit": "as in the file", "blocks": "documented", "design": design, "left_out": left_out,
            "stretched": [first, last], "sources": self.sources,
        }  # fmt: skip

    def splits(self) -> dict[str, np.ndarray]:
        """The authors' lists, in numbers of the store; without a file, a split by image."""
        if self.split_file is None:
            concept = np.array([int(self.trials[i]["label"]) for i in self.kept])
            stimulus = np.array([self.image_number[int(self.trials[i]["image"])] for i in self.kept])
            return split_by(self.config, concept=concept, stimulus=self.same_picture(stimulus), person=self._person())
        content = safe_pickle.load(self.split_file)
        try:
            lists = [{part: [int(i) for i in entry[part]] for part in PARTS} for entry in content["splits"]]
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"{self.split_file.name}: holds no splits", "give block_splits_by_image_all.pth or ..._single.pth"
            ) from None
        return {
            (part if number == 0 else f"split{number}/{part}"): self._numbers(entry[part])
            for number, entry in enumerate(lists)
            for part in PARTS
        }

    def _person(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.subjects)), [len(self.kept_of[name]) for name in self.subjects])

    def _numbers(self, listed: list[int]) -> np.ndarray:
        """Numbers in the store of trials listed by their place in the file, or, in a "single" file, among their subject's trials."""
        assert self.split_file is not None
        pool = list(range(len(self.trials)))
        # nothing in the file says which of the two numberings it has; its authors' names do
        if "single" in self.split_file.name:
            if len(self.subjects) != 1:
                raise UsageError(
                    f"{self.split_file.name}: numbers trials within one subject, {len(self.subjects)} are imported",
                    "name one with --subjects, or give block_splits_by_image_all.pth",
                )
            pool = self.of_subject[self.subjects[0]]
        if listed and (max(listed) >= len(pool) or min(listed) < 0):
            raise DataError(
                f"{self.split_file.name}: lists trial {max(listed)}, there are {len(pool)} (0..{len(pool) - 1})",
                "give the split file that belongs to this data file",
            )
        place = {index: number for number, index in enumerate(self.kept)}
        return np.array(sorted(place[pool[i]] for i in listed if pool[i] in place), dtype=np.int64)


def _data_file(source: Path) -> Path:
    if source.is_file():
        return source
    matches = sorted(path for path in source.glob("eeg*.pth"))
    if len(matches) != 1:
        raise DataError(
            f"{source}: {len(matches)} files named eeg*.pth (expected 1)", "give the file itself, for instance eeg_5_95_std.pth"
        )
    return matches[0]


def _imagenet_file(folder: Path, name: str) -> str:
    """`<synset>/<name>.JPEG`, or the form that is there; the first when none is, so that the error names it."""
    synset = name.partition("_")[0]
    forms = [f"{where}{name}{ending}" for where in (f"{synset}/", "") for ending in (".JPEG", ".jpeg", ".jpg", ".png")]
    return next((form for form in forms if (folder / form).is_file()), forms[0])
