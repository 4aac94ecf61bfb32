"""THINGS-EEG2 as it was recorded (Gifford et al. 2022): `sub-01/ses-01/raw_eeg_training.npy` and `raw_eeg_test.npy`.

Each file is a dictionary of `raw_eeg_data` (channels, samples) in V at 1 kHz, `ch_names`, `ch_types` and `sfreq`; the channel of type `stim` holds the
number of the image, from 1, at its onset, and 99999 for targets, which are left out. Sessions and onsets are known here, unlike in the preprocessed
files, so that the audit can say more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dreamdiff.pairs.importers.importer import ImportConfig, chosen, hashed
from dreamdiff.pairs.importers.layouts.things import concept_of, held_out, image_set, images_by_part
from dreamdiff.pairs.importers.table import OwnTable
from dreamdiff.untrusted import arrays as npy_dict
from eegprep.errors import DataError
from eegprep.recording import Recording

TARGET = 99999
FOLDERS = {"training": "training_images", "test": "test_images"}


class ThingsEEG2Raw(OwnTable):
    """Rows of onset and image from the stimulus channel of every session."""

    def __init__(self, source: Path, config: ImportConfig) -> None:
        people = {path.name.removeprefix("sub-"): path for path in sorted(source.glob("sub-*")) if path.is_dir()}
        if not people:
            raise DataError(f"{source}: holds no folder sub-*", "give the folder that holds sub-01, sub-02, ...")
        self.root = source
        images = image_set(source, config.images)
        names = images_by_part(images, source)
        concepts = np.unique([concept_of(name) for name in names["training"]])
        held = set(held_out(np.random.default_rng(config.seed), concepts).tolist())
        rows: list[dict[str, Any]] = []
        files: list[Path] = []
        targets = 0
        for subject in chosen(list(people), config.subjects, source):
            own = sorted(people[subject].glob("ses-*/raw_eeg_*.npy"))
            if not own:
                raise DataError(f"{source}: sub-{subject} holds no ses-*/raw_eeg_*.npy", "fetch it, or leave the subject out")
            for file in own:
                part = file.stem.removeprefix("raw_eeg_")
                if part not in FOLDERS:
                    continue
                onsets, codes = _events(file, config)
                targets += int((codes == TARGET).sum())
                files.append(file)
                for onset, code in zip(onsets[codes != TARGET], codes[codes != TARGET], strict=True):
                    if not 1 <= code <= len(names[part]):
                        raise DataError(
                            f"sub-{subject}/{file.parent.name}/{file.name}: image {code} at {onset:g} s, there are {len(names[part])}",
                            "give the image set that belongs to it with --images",
                        )
                    name = names[part][code - 1]
                    concept = concept_of(name)
                    rows.append(
                        {
                            "recording": file.relative_to(source).as_posix(), "onset": f"{onset:.6f}", "image": f"{FOLDERS[part]}/{name}", "label": concept,
                            "subject": subject, "session": file.parent.name.removeprefix("ses-"),
                            "split": "test" if part == "test" else "val" if concept in held else "train",
                        }
                    )  # fmt: skip
        self.said = (f"{len(rows)} images in {len(files)} recordings; {targets} targets were left out",)
        self._take(pd.DataFrame(rows, dtype=object), source, config, images)
        self.image_folder = images
        self.licence = "EEG: THINGS-EEG2, CC-BY-4.0; images: THINGS, for research"
        self.sources = hashed(*files)
        for entry, file in zip(self.sources, files, strict=True):
            entry[0] = file.relative_to(source).as_posix()

    def _read(self, name: str, subject: str) -> Recording:
        content, _ = _open(self.root / name)
        eeg = [k for k, kind in enumerate(content["ch_types"]) if str(kind) == "eeg"]
        signal_CT = np.asarray(content["raw_eeg_data"][eeg], np.float64) * 1e6
        channels = tuple(str(content["ch_names"][k]) for k in eeg)
        session, run = Path(name).parent.name, Path(name).stem
        return Recording(
            signal_CT.astype(np.float32), float(content["sfreq"]), channels, "THINGS-EEG2", subject, session, run,
            np.full((len(channels), 3), np.nan), float(content["sfreq"]), licence=self.licence,
        )  # fmt: skip


def _open(file: Path) -> tuple[Mapping[str, Any], int]:
    """The dictionary and the place of its stimulus channel."""
    content = npy_dict.load(file)
    try:
        kinds = [str(kind) for kind in content["ch_types"]]
        shape = content["raw_eeg_data"].shape
        fits = len(shape) == 2 and shape[0] == len(kinds) == len(content["ch_names"]) and float(content["sfreq"]) > 0
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):
        fits, kinds = False, []
    if not fits or kinds.count("stim") != 1 or "eeg" not in kinds:
        raise DataError(
            f"{file.parent.name}/{file.name}: is not a dictionary of raw EEG with one stimulus channel",
            "give the files of THINGS-EEG2's raw data",
        )
    return content, kinds.index("stim")


def _events(file: Path, config: ImportConfig) -> tuple[np.ndarray, np.ndarray]:
    """Onsets (s) and codes of the images whose whole window lies in the recording."""
    content, stim = _open(file)
    line_T = np.asarray(content["raw_eeg_data"][stim])
    sfreq = float(content["sfreq"])
    # a code holds for some samples: it begins where the line changes to something else than 0
    starts = np.flatnonzero((line_T != np.concatenate([[0], line_T[:-1]])) & (line_T != 0))
    first_ms, last_ms = config.window_ms or (-200.0, 1000.0)
    whole = (starts + first_ms / 1000 * sfreq >= 0) & (starts + last_ms / 1000 * sfreq + 1 <= len(line_T))
    starts = starts[whole]
    return starts / sfreq, line_T[starts].astype(np.int64)
