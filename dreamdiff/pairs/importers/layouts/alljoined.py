"""Alljoined-1.6M (20 people, 32 electrodes, an amplifier of $2,200): the preprocessed files of its authors.

`sub-01/preprocessed_eeg_training_flat.npy` and `..._test_flat.npy` hold dictionaries of `preprocessed_eeg_data` (trials, channels, times), `ch_names`
and `times`; `experiment_metadata.parquet` names the image of every trial (`image_path`), its `partition`, `session`, and which trials were `dropped`.
Rows that were not dropped are the trials, session by session. The files are whitened by training trials already, unless they say otherwise.
Shapes: N trials, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from dreamdiff.pairs.importers.epochs import electrodes_of, rows_of, without_baseline
from dreamdiff.pairs.importers.importer import BATCH, Batch, ImportConfig, Reader, chosen, hashed
from dreamdiff.pairs.importers.layouts.things import held_out, window_of
from dreamdiff.untrusted import arrays as npy_dict
from eegprep.errors import DataError

PARTS = (("stim_train", "preprocessed_eeg_training_flat.npy"), ("stim_test", "preprocessed_eeg_test_flat.npy"))
METADATA = "experiment_metadata.parquet"
LABELS = ("category", "category_name", "concept", "label")


class Alljoined(Reader):
    """Preprocessed trials of `sub-*`, in the order of the files."""

    licence = "CC-BY-NC-ND-4.0"

    def __init__(self, source: Path, config: ImportConfig) -> None:
        self.config = config
        folders = {path.name.removeprefix("sub-"): path for path in sorted(source.glob("sub-*")) if path.is_dir()}
        if not folders:
            raise DataError(f"{source}: holds no folder sub-*", "give the folder that holds sub-01, sub-02, ...")
        self.folders = folders
        self.subjects = chosen(list(folders), config.subjects, source)
        self.image_folder = Path(config.images) if config.images else source
        files = [folders[name] / file for name in self.subjects for file in (METADATA, *(file for _, file in PARTS))]
        for file in files:
            if not file.is_file():
                raise DataError(f"{source}: {file.parent.name}/{file.name} is missing", "fetch it, or leave the subject out")
        self.sources = hashed(*files)
        for entry, file in zip(self.sources, files, strict=True):
            entry[0] = f"{file.parent.name}/{file.name}"
        self.rows = {name: self._metadata(name) for name in self.subjects}
        every = pd.concat(self.rows.values())
        self.image_names = sorted(every["image"].unique())
        self.classes = sorted(every["label"].unique())

    def _metadata(self, subject: str) -> pd.DataFrame:
        """One row a trial, in the order of the files: image, label, part, session."""
        file = self.folders[subject] / METADATA
        table = pd.read_parquet(file)
        missing = [name for name in ("image_path", "partition", "session", "dropped") if name not in table]
        if missing:
            raise DataError(f"sub-{subject}/{METADATA}: no column {missing[0]!r}", "give the metadata that belongs to the files")
        table = table[~table["dropped"].astype(bool)]
        label = next((name for name in LABELS if name in table), None)
        tables = []
        for partition, data in PARTS:
            # the files hold one session after the other; within a session the order is that of the metadata
            part = table[table["partition"] == partition].sort_values("session", kind="stable")
            held = self._load(subject, data)[0].shape[0]
            if held != len(part):
                raise DataError(
                    f"sub-{subject}: {data} holds {held} trials, {METADATA} lists {len(part)} that were not dropped",
                    "give the metadata that belongs to the files",
                )
            paths = [PurePosixPath(str(path).replace("\\", "/")) for path in part["image_path"]]
            kinds = part[label].astype(str) if label is not None else [path.parent.name for path in paths]
            tables.append(
                pd.DataFrame(
                    {"image": [path.as_posix() for path in paths], "label": list(kinds), "session": part["session"].to_numpy(), "part": partition}
                )
            )  # fmt: skip
        return pd.concat(tables, ignore_index=True)

    def _load(self, subject: str, name: str) -> tuple[np.ndarray, list[str], np.ndarray]:
        """(N, C, T), channel names, times s."""
        content = npy_dict.load(self.folders[subject] / name)
        try:
            data, names = content["preprocessed_eeg_data"], [str(channel) for channel in content["ch_names"]]
            times = np.asarray(content["times"], np.float64)
        except (KeyError, TypeError, IndexError):
            raise DataError(
                f"sub-{subject}/{name}: is not a dictionary of preprocessed EEG", "give the files of Alljoined-1.6M"
            ) from None
        times = times[-data.shape[2] :] if data.ndim == 3 else times
        if data.ndim != 3 or data.shape[1:] != (len(names), len(times)) or len(times) < 2:
            raise DataError(
                f"sub-{subject}/{name}: EEG of shape {data.shape} does not fit {len(names)} channels and {len(times)} times",
                "give the files of Alljoined-1.6M",
            )
        return data, names, times

    def total(self, subject: str) -> int:
        return len(self.rows[subject])

    def shape(self) -> tuple[int, int]:
        """Electrodes and samples."""
        _, names, times = self._load(self.subjects[0], PARTS[0][1])
        kept = electrodes_of(names, self.config.electrodes, f"sub-{self.subjects[0]}")
        return len(kept), len(times[window_of(times, self.config.window_ms)])

    def batches(self, subject: str) -> Iterator[Batch]:
        table, start = self.rows[subject], 0
        image = {name: number for number, name in enumerate(self.image_names)}
        label = {name: number for number, name in enumerate(self.classes)}
        for _, file in PARTS:
            data_NCT, names, times = self._load(subject, file)
            rows = list(rows_of(names, self._electrodes(names), f"sub-{subject}"))
            span, sfreq = window_of(times, self.config.window_ms), (len(times) - 1) / float(times[-1] - times[0])
            for first in range(0, len(data_NCT), BATCH):
                piece_NCT = np.asarray(data_NCT[first : first + BATCH], np.float32)[:, rows]
                part = table.iloc[start : start + len(piece_NCT)]
                eeg_NCT = without_baseline(piece_NCT, sfreq, float(times[0]), self.config.baseline_ms)[:, :, span]
                columns = {
                    "image": np.array([image[name] for name in part["image"]]), "label": np.array([label[name] for name in part["label"]]),
                    "session": part["session"].to_numpy(np.int64), "trial": np.arange(start, start + len(piece_NCT)),
                }  # fmt: skip
                start += len(piece_NCT)
                yield Batch(np.ascontiguousarray(eeg_NCT), columns)

    def _electrodes(self, names: list[str]) -> tuple[str, ...]:
        return electrodes_of(names, self.config.electrodes, "Alljoined-1.6M")

    def attributes(self, subject: str) -> Mapping[str, Any]:
        _, names, times = self._load(subject, PARTS[0][1])
        kept, electrodes = times[window_of(times, self.config.window_ms)], self._electrodes(names)
        sfreq = (len(times) - 1) / float(times[-1] - times[0])
        return {
            "sfreq": sfreq, "original_sfreq": sfreq, "t0": float(kept[0]), "channels": list(electrodes), "n_channels": len(electrodes),
            "pad_map": list(range(len(electrodes))), "unit": "as in the file", "blocks": "unknown",
            "sources": [row for row in self.sources if row[0].startswith(f"{self.folders[subject].name}/")],
            "design": ["Alljoined-1.6M shows images in rapid sequences in random order; time of a trial is not in the preprocessed files"],
        }  # fmt: skip

    def splits(self) -> dict[str, np.ndarray]:
        every = pd.concat(self.rows.values(), ignore_index=True)
        test = (every["part"] == "stim_test").to_numpy()
        concepts = np.unique(every.loc[~test, "label"].astype(str))
        held = every["label"].isin(held_out(np.random.default_rng(self.config.seed), concepts)).to_numpy()
        return {"train": np.flatnonzero(~test & ~held), "val": np.flatnonzero(~test & held), "test": np.flatnonzero(test)}
