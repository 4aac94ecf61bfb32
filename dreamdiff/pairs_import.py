"""Other people's EEG-image pairs, and one's own, into a pairs store.

- `imagenet-eeg`: `eeg_5_95_std.pth` and its kin (Spampinato et al. 2017; the reference code's data), with its split files and an
  ImageNet folder. As in the reference code, samples 20 to 460 are stretched to 512 and trials of 450 to 600 samples are kept.
- `things-eeg2`: the preprocessed dictionaries of Gifford et al. 2022 (conditions, repetitions, channels, times).
- `table`: a CSV or Parquet table of recording, onset, image, label; any recording that `eegprep` reads, 8 to 256 channels, through
  the same gates, filters and padding as a corpus.

Pickles are read by machines that execute nothing (`safe_pickle`, `npy_dict`). A missing image is an error. What a data set does not
say (blocks, sessions, times) is stored as unknown. Shapes: N trials, R repetitions, C channels, T samples.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from eegprep.errors import DataError, UsageError
from eegprep.fetch import hash_files
from eegprep.process import process
from eegprep.quality import quarantined
from eegprep.recipe import Recipe
from eegprep.recording import ProgressCallback, Recording
from eegprep.settings import Settings, fingerprint
from eegprep.sources import Origin, read_file
from eegprep.splits import PARTS, Trials, split
from eegprep.windows import Cut, make_windows, pad_channels, plan_channels, stretch

from . import embedded, npy_dict, safe_pickle
from .pairs import Pairs, PairsWriter

CHANNELS, SAMPLES = 128, 512
KINDS = ("imagenet-eeg", "things-eeg2", "table")
_BATCH = 64  # trials converted at once: 17 MB


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


def import_pairs(
    source: str | os.PathLike[str], out: str | os.PathLike[str], config: ImportConfig, *, progress: ProgressCallback | None = None
) -> Pairs:
    """Import pairs. Run again to finish what was interrupted; a finished store of the same sources is left alone.

    Args:
        source: the data file or its folder; the table.
        out: the store.
        config: the kind and its settings.

    Raises:
        DataError: parts that do not fit together, or a missing image.
        CheckpointError: a pickle that is damaged, or asks for more than plain data.
    """
    reader = {"imagenet-eeg": _ImageNetEEG, "things-eeg2": _ThingsEEG2, "table": _Table}[config.kind](Path(source), config)
    recipe = {"kind": config.kind, "settings": _relevant(config), "sources": reader.sources}
    with PairsWriter(
        out, recipe=recipe, classes=reader.classes, class_ids=reader.class_ids, provenance="recorded", licence=reader.licence
    ) as writer:
        if not writer.complete:
            writer.set_image_files(reader.image_folder, reader.image_names)
            key = fingerprint(recipe)
            for number, subject in enumerate(reader.subjects):
                if not writer.done(subject, key):
                    _write_subject(writer, reader, subject, key, (number, len(reader.subjects)), progress)
            writer.finish(reader.splits())
    return Pairs.open(out, images=reader.image_folder)


def parse_window(text: str) -> tuple[int, int]:
    """`20:460` -> (20, 460)."""
    first, _, last = text.partition(":")
    if not (first.strip().isdigit() and last.strip().isdigit()):
        raise UsageError(f"--window {text!r} is not START:STOP in samples", "give for instance --window 20:460")
    return int(first), int(last)


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

    def attributes(self, subject: str) -> dict[str, Any]:
        """Of the subject's group; asked for after its last batch."""
        raise NotImplementedError

    def total(self, subject: str) -> int:
        """Trials of a subject."""
        raise NotImplementedError

    def splits(self) -> dict[str, np.ndarray]:
        raise NotImplementedError


def _write_subject(
    writer: PairsWriter, reader: Reader, subject: str, key: str, place: tuple[int, int], progress: ProgressCallback | None
) -> None:
    attributes: dict[str, Any] = {}
    with writer.subject(subject, key, attributes) as target:
        for batch in reader.batches(subject):
            target.add(batch.eeg_NCT, **batch.columns)  # type: ignore[arg-type]
            if progress is not None:
                progress(target.n, reader.total(subject), f"subject {subject} ({place[0] + 1} of {place[1]})")
        attributes.update(reader.attributes(subject))


def _relevant(config: ImportConfig) -> dict[str, Any]:
    """The settings that this kind of source looks at; folders do not count."""
    common = {"kind", "subjects", "split_by", "seed"}
    own = {
        "imagenet-eeg": {"window", "min_samples", "max_samples"},
        "things-eeg2": {"repetitions"},
        "table": {"low", "high", "nyquist", "resample", "offset", "licence"},
    }[config.kind]
    return config.model_dump(mode="json", include=common | own)


def _hashed(*paths: Path) -> list[list[Any]]:
    """Name, bytes, SHA-256; the folder of a file does not count."""
    return [[file.name, file.bytes, file.sha256] for path in paths for file in hash_files([path], path.parent)]


def _chosen(found: Sequence[str], wanted: Sequence[str] | None, source: Path) -> list[str]:
    missing = [name for name in wanted or () if name not in found]
    if missing:
        raise UsageError(f"{source}: there is no subject {missing[0]!r}", f"choose from: {', '.join(found)}")
    return list(found if wanted is None else [name for name in found if name in wanted])


# ------------------------------------------------------------------------------------------------------ ImageNet-EEG


class _ImageNetEEG(Reader):
    """The data of Spampinato et al. as perceivelab and the reference code share it.

    One dictionary: `dataset` (list of eeg (128, T) at 1 kHz, image, label, subject), `labels` (40 synsets), `images` (names).
    """

    licence = "EEG: none stated by its authors; images: ImageNet, terms of access"

    def __init__(self, source: Path, config: ImportConfig) -> None:
        self.config = config
        self.file = _data_file(source)
        content = safe_pickle.load(self.file)
        self._check(content)
        self.trials: list[dict[str, Any]] = content["dataset"]
        self.class_ids = [str(name) for name in content["labels"]]
        known = dict(zip(embedded.synsets(), embedded.categories(), strict=True))
        self.classes = [known.get(name, name) for name in self.class_ids]
        numbers = sorted({int(trial["subject"]) for trial in self.trials})
        self.subjects = _chosen([str(number) for number in numbers], config.subjects, self.file)
        self._keep()
        names = [str(name) for name in content["images"]]
        used = sorted({int(self.trials[index]["image"]) for index in self.kept})
        if used and used[-1] >= len(names):
            raise DataError(f"{self.file.name}: image {used[-1]} is named, there are {len(names)}", "use the original file")
        self.image_number = {image: place for place, image in enumerate(used)}
        self.image_folder = Path(config.images) if config.images else self.file.parent
        self.image_names = [_imagenet_file(self.image_folder, names[image]) for image in used]
        self.odd_labels = sum(
            names[int(self.trials[i]["image"])].partition("_")[0] != self.class_ids[int(self.trials[i]["label"])]
            for i in self.kept
        )
        self.split_file = Path(config.splits) if config.splits else self._split_beside()
        self.sources = _hashed(self.file, *([self.split_file] if self.split_file else []))

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
                    f"{self.file.name}: trial {index} has EEG of shape {shape}, wanted ({CHANNELS}, T)", "use the original file"
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
        found = self.file.parent / "block_splits_by_image_all.pth"
        return found if found.is_file() else None

    def total(self, subject: str) -> int:
        return len(self.kept_of[subject])

    def batches(self, subject: str) -> Iterator[Batch]:
        first, last = self.config.window
        kept = self.kept_of[subject]
        for start in range(0, len(kept), _BATCH):
            indices = kept[start : start + _BATCH]
            trials = [self.trials[i] for i in indices]
            eeg_NCT = np.stack([stretch(trial["eeg"].numpy()[:, first:last].astype(np.float32), SAMPLES) for trial in trials])
            label = np.array([int(trial["label"]) for trial in trials])
            image = np.array([self.image_number[int(trial["image"])] for trial in trials])
            # the design is published: each class is one block of 50 images, so that the label numbers the blocks of a person
            yield Batch(eeg_NCT, {"image": image, "label": label, "block": label, "trial": np.array(indices)})

    def attributes(self, subject: str) -> dict[str, Any]:
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
            return _split_by(self.config, concept=concept, stimulus=stimulus, person=self._person())
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
    found = sorted(path for path in source.glob("eeg*.pth"))
    if len(found) != 1:
        raise DataError(
            f"{source}: {len(found)} files named eeg*.pth (wanted 1)", "give the file itself, for instance eeg_5_95_std.pth"
        )
    return found[0]


def _imagenet_file(folder: Path, name: str) -> str:
    """`<synset>/<name>.JPEG`, or the form that is there; the first when none is, so that the error names it."""
    synset = name.partition("_")[0]
    forms = [f"{where}{name}{ending}" for where in (f"{synset}/", "") for ending in (".JPEG", ".jpeg", ".jpg", ".png")]
    return next((form for form in forms if (folder / form).is_file()), forms[0])


def _split_by(config: ImportConfig, *, concept: np.ndarray, stimulus: np.ndarray, person: np.ndarray) -> dict[str, np.ndarray]:
    unknown = np.full(len(concept), -1)
    trials = Trials(person, unknown, unknown, stimulus, concept, np.full(len(concept), np.nan))
    return split(trials, config.split_by, seed=config.seed)


# ------------------------------------------------------------------------------------------------------ THINGS-EEG2


class _ThingsEEG2(Reader):
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
        self.subjects = _chosen(list(folders), config.subjects, source)
        self.folders = folders
        self.image_folder = _image_set(source, config.images)
        self._list_images(source)
        files = [self._file(name, part) for name in self.subjects for part, _ in self._FILES]
        for file in files:
            if not file.is_file():
                raise DataError(f"{source}: {file.parent.name}/{file.name} is missing", "fetch it, or leave the subject out")
        self.sources = _hashed(*files)
        for entry, file in zip(self.sources, files, strict=True):  # files of all subjects have the same names
            entry[0] = f"{file.parent.name}/{file.name}"
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    def _file(self, subject: str, part: str) -> Path:
        return self.folders[subject] / f"preprocessed_eeg_{part}.npy"

    def _list_images(self, source: Path) -> None:
        """Images in the order of the conditions: of image_metadata.npy, else sorted by concept folder and name, as documented."""
        metadata = next(
            (p for p in (self.image_folder / "image_metadata.npy", source / "image_metadata.npy") if p.is_file()), None
        )
        content = npy_dict.load(metadata) if metadata else None
        self.image_names, labels, self.first = [], [], {}
        concepts: dict[str, int] = {}
        for part, folder in self._FILES:
            names = _from_metadata(content, part) if content is not None else _listed(self.image_folder / folder)
            self.first[part] = (len(self.image_names), len(names))
            for name in names:
                labels.append(concepts.setdefault(_concept(name), len(concepts)))
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
        wanted = (self.first[part][1], len(names), len(times))
        if data.ndim != 4 or (data.shape[0], *data.shape[2:]) != wanted or len(times) < 2:
            raise DataError(
                f"sub-{subject}/{file.name}: EEG of shape {data.shape} does not fit {wanted[0]} images, {wanted[1]} channels and "
                f"{wanted[2]} times",
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
            data_NRCT, names, _ = self._load(subject, part)
            if not 1 <= len(names) <= CHANNELS:
                raise DataError(f"sub-{subject}: {len(names)} channels do not fit {CHANNELS}", "give the preprocessed files")
            each = data_NRCT.shape[1] if self.config.repetitions == "keep" else 1
            step = max(1, _BATCH // each)
            for start in range(0, len(data_NRCT), step):
                piece_NRCT = np.asarray(data_NRCT[start : start + step], dtype=np.float32)
                if self.config.repetitions == "average":
                    piece_NRCT = piece_NRCT.mean(axis=1, keepdims=True)
                condition = self.first[part][0] + start + np.repeat(np.arange(len(piece_NRCT)), each)
                eeg_NCT = np.stack([stretch(x_CT, SAMPLES) for x_CT in piece_NRCT.reshape(-1, *piece_NRCT.shape[2:])])
                trial = counted + np.arange(len(eeg_NCT))
                counted += len(eeg_NCT)
                yield Batch(
                    pad_channels(eeg_NCT, CHANNELS), {"image": condition, "label": self.image_label[condition], "trial": trial}
                )

    def attributes(self, subject: str) -> dict[str, Any]:
        _, names, times = self._load(subject, "training")
        return {
            "sfreq": (SAMPLES - 1) / float(times[-1] - times[0]), "original_sfreq": (len(times) - 1) / float(times[-1] - times[0]),
            "t0": float(times[0]), "channels": names, "n_channels": len(names),
            "pad_map": (np.arange(CHANNELS) % len(names)).tolist(), "unit": "as in the file", "blocks": "unknown",
            "repetitions": self.config.repetitions, "sources": [row for row in self.sources if row[0].startswith(f"{self.folders[subject].name}/")],
            "design": [
                "THINGS-EEG2 shows images in random order (Gifford et al. 2022); the preprocessed files merge the sessions, so that "
                "block, session and time of a trial are not known"
            ],
        }  # fmt: skip

    def splits(self) -> dict[str, np.ndarray]:
        concepts = np.unique(self.image_label[: self.first["training"][1]])
        rng = np.random.default_rng(self.config.seed)
        held = rng.permutation(concepts)[: max(1, round(0.0447 * len(concepts)))] if len(concepts) > 1 else concepts[:0]
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


def _image_set(source: Path, images: str | None) -> Path:
    places = [Path(images)] if images else [source / "Image_set", source / "image_set", source, source.parent / "Image_set"]
    for place in places:
        if (place / "training_images").is_dir() and (place / "test_images").is_dir():
            return place
    raise DataError(
        f"{places[0]}: holds no training_images and test_images", "name the folder of the THINGS images with --images"
    )


def _listed(folder: Path) -> list[str]:
    endings = {".jpg", ".jpeg", ".png"}
    return [
        f"{concept.name}/{file.name}"
        for concept in sorted(folder.iterdir())
        if concept.is_dir()
        for file in sorted(concept.iterdir())
        if file.suffix.lower() in endings
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


def _concept(name: str) -> str:
    """`00001_aardvark/aardvark_01b.jpg` -> `aardvark`."""
    folder = name.partition("/")[0]
    number, _, rest = folder.partition("_")
    return rest if number.isdigit() and rest else folder


# -------------------------------------------------------------------------------------------------- a table of one's own


class _Table(Reader):
    """Rows of recording, onset (s from the first sample), image, label; optional subject, session, block, trial, split."""

    _NEEDED = ("recording", "onset", "image", "label")

    def __init__(self, source: Path, config: ImportConfig) -> None:
        self.config, self.source = config, source
        self.recipe = Recipe(low=config.low, high=config.high, nyquist=config.nyquist, resample=config.resample, min_channels=8)
        table = _read_table(source)
        self._check(table)
        if "subject" not in table:
            table["subject"] = "1"
        table["subject"] = table["subject"].astype(str)
        found = sorted(table["subject"].unique())
        self.subjects = _chosen(found, config.subjects, source)
        table = table[table["subject"].isin(self.subjects)]
        # rows in the order in which they are stored: by subject, recording, onset
        self.table = table.sort_values(["subject", "recording", "onset"], kind="stable").reset_index(drop=True)
        self.classes = sorted(self.table["label"].astype(str).unique())
        self.image_names = sorted(self.table["image"].astype(str).unique())
        self.image_folder = Path(config.images) if config.images else source.parent
        self.licence = config.licence
        recordings = [source.parent / name for name in sorted(self.table["recording"].unique())]
        missing = [path for path in recordings if not path.exists()]
        if missing:
            raise DataError(
                f"{source.name}: {len(missing)} of {len(recordings)} recordings are missing, the first is {missing[0].name}",
                "write paths relative to the table",
            )
        self.sources = _hashed(source, *(path for path in recordings if path.is_file()))
        self._facts: dict[str, list[dict[str, Any]]] = {}

    def _check(self, table: pd.DataFrame) -> None:
        missing = [name for name in self._NEEDED if name not in table]
        if missing:
            raise DataError(
                f"{self.source.name}: there is no column {missing[0]!r} (found: {', '.join(map(str, table.columns)) or 'none'})",
                f"give the columns {', '.join(self._NEEDED)}",
            )
        if len(table) == 0:
            raise DataError(f"{self.source.name}: 0 rows (least 1)", "give one row per trial")
        empty = table[list(self._NEEDED)].isna().any(axis=1)
        if empty.any():
            raise DataError(f"{self.source.name}: row {int(empty.idxmax()) + 1} has an empty cell", "fill it, or remove the row")
        onset = pd.to_numeric(table["onset"], errors="coerce")
        if onset.isna().any() or (onset < 0).any():
            row = int((onset.isna() | (onset < 0)).idxmax())
            raise DataError(
                f"{self.source.name}: row {row + 1} has the onset {str(table['onset'].iloc[row])!r}",
                "give seconds from the first sample",
            )
        table["onset"] = onset.astype(float)
        table["recording"] = table["recording"].astype(str)

    def total(self, subject: str) -> int:
        return int((self.table["subject"] == subject).sum())

    def batches(self, subject: str) -> Iterator[Batch]:
        mine = self.table[self.table["subject"] == subject]
        self._facts[subject] = []
        for session, (name, rows) in enumerate(mine.groupby("recording", sort=True)):
            recording = self._recording(str(name), subject)
            plan = plan_channels(recording, self.recipe)
            starts_N = self._starts(recording, rows)
            self._facts[subject].append({**_brief(recording), "pad_map": list(plan.pad_map)})
            for first in range(0, len(rows), _BATCH):
                part = rows.iloc[first : first + _BATCH]
                starts = starts_N[first : first + _BATCH]
                cut = Cut(starts, np.full(len(starts), SAMPLES), (None,) * len(starts))
                yield Batch(make_windows(recording.signal_CT, cut, plan, SAMPLES), self._columns(part, session))

    def _columns(self, rows: pd.DataFrame, session: int) -> dict[str, np.ndarray]:
        columns = {
            "image": np.array([self.image_names.index(str(name)) for name in rows["image"]]),
            "label": np.array([self.classes.index(str(name)) for name in rows["label"]]),
            "onset": rows["onset"].to_numpy(),
            "session": np.full(len(rows), session),
            "trial": rows.index.to_numpy(),
        }
        for name in ("session", "block", "trial"):
            if name in rows:
                columns[name] = self._numbered(name, rows)
        return columns

    def _numbered(self, name: str, rows: pd.DataFrame) -> np.ndarray:
        """Numbers of a column of any type, in sorted order over the whole table; -1 for empty cells."""
        known = sorted(self.table[name].dropna().unique().tolist(), key=lambda value: (str(type(value)), value))
        return np.array([-1 if pd.isna(value) else known.index(value) for value in rows[name]], dtype=np.int64)

    def _recording(self, name: str, subject: str) -> Recording:
        origin = Origin("table", subject, "0", Path(name).stem)
        processed = process(read_file(self.source.parent / name, origin), self.recipe)
        recording = processed.recording
        if quarantined(recording):
            reasons = [finding.message or finding.code for finding in recording.findings if finding.action == "quarantined"]
            raise DataError(f"{name}: cannot be used ({'; '.join(reasons)})", "mend the recording, or remove its rows")
        if not 8 <= len(recording.channels) <= 256:
            raise DataError(
                f"{name}: {len(recording.channels)} EEG channels are outside 8..256", "remove the rows of this recording"
            )
        rates = {fact["sfreq"] for fact in self._facts[subject]} | {recording.sfreq}
        if len(rates) > 1:
            raise DataError(
                f"subject {subject}: recordings at {' and '.join(f'{rate:g}' for rate in sorted(rates))} Hz",
                "bring them to one rate with --resample",
            )
        return recording

    def _starts(self, recording: Recording, rows: pd.DataFrame) -> np.ndarray:
        """First samples of the windows; all of a window has to lie inside the recording and between its seams."""
        starts_N = np.round((rows["onset"].to_numpy() + self.config.offset) * recording.sfreq).astype(np.int64)
        segments = recording.segments or ((0, recording.signal_CT.shape[1]),)
        inside = np.zeros(len(starts_N), dtype=bool)
        for first, last in segments:
            inside |= (starts_N >= first) & (starts_N + SAMPLES <= last)
        if not inside.all():
            row = int(np.flatnonzero(~inside)[0])
            start = starts_N[row] / recording.sfreq
            raise DataError(
                f"{recording.name}: the trial at {rows['onset'].iloc[row]:g} s needs {start:.3f} to "
                f"{start + SAMPLES / recording.sfreq:.3f} s, the recording has {recording.signal_CT.shape[1] / recording.sfreq:.3f} s"
                f"{' and seams' if len(segments) > 1 else ''}",
                "remove the row, or change --offset",
            )
        return starts_N

    def attributes(self, subject: str) -> dict[str, Any]:
        facts = self._facts[subject]
        same = all(fact["pad_map"] == facts[0]["pad_map"] and fact["channels"] == facts[0]["channels"] for fact in facts)
        return {
            "sfreq": facts[0]["sfreq"], "t0": self.config.offset, "unit": "uV", "recordings": facts,
            "band": [max(f["band"][0] for f in facts), min(f["band"][1] for f in facts)],
            "channels": facts[0]["channels"] if same else None, "n_channels": max(len(f["channels"]) for f in facts),
            "pad_map": facts[0]["pad_map"] if same else None,
            "blocks": "recorded" if "block" in self.table else "unknown", "sources": self.sources,
        }  # fmt: skip

    def splits(self) -> dict[str, np.ndarray]:
        if "split" in self.table:
            named = self.table["split"].astype(str)
            wrong = sorted(set(named) - set(PARTS))
            if wrong:
                raise DataError(f"{self.source.name}: {wrong[0]!r} in the column 'split'", f"use {', '.join(PARTS)}")
            return {part: np.flatnonzero((named == part).to_numpy()) for part in PARTS}
        label = np.array([self.classes.index(str(name)) for name in self.table["label"]])
        image = np.array([self.image_names.index(str(name)) for name in self.table["image"]])
        person = np.array([self.subjects.index(name) for name in self.table["subject"]])
        return _split_by(self.config, concept=label, stimulus=image, person=person)


def _read_table(source: Path) -> pd.DataFrame:
    if not source.is_file():
        raise DataError(f"{source}: there is no such table", "give a CSV or Parquet file")
    try:
        if source.suffix.lower() in {".parquet", ".pq"}:
            return pd.read_parquet(source)
        return pd.read_csv(source, sep="\t" if source.suffix.lower() == ".tsv" else ",")
    except (ValueError, OSError) as error:
        raise DataError(f"{source.name}: cannot be read as a table ({error})", "give a CSV or Parquet file") from None


def _brief(recording: Recording) -> dict[str, Any]:
    return {
        "name": recording.name, "sfreq": recording.sfreq, "original_sfreq": recording.original_sfreq,
        "channels": list(recording.channels), "band": [b if math.isfinite(b) else None for b in recording.band],
        "findings": [vars(finding) for finding in recording.findings],
    }  # fmt: skip
