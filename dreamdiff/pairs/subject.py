"""Writes one subject of a pairs store: columns, and either EEG or references into a corpus.

Shapes: N trials, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from dreamdiff.pairs.format import COLUMNS, REFERENCES, SHARD
from eegprep.corpus.shards import stored_checksums
from eegprep.errors import DataError
from eegprep.store.format import CHECKSUMS
from eegprep.store.group import GroupFiles


class SubjectColumns:
    """The columns of the trials of one subject, added in batches of any size. n: trials so far."""

    def __init__(self, group: zarr.Group, folder: Path, n_images: int, n_classes: int) -> None:
        self.n = 0
        self._group, self._files = group, GroupFiles(folder)
        self._limits = {"image": n_images, "label": n_classes}
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in (*COLUMNS, "onset")}

    def close(self, attributes: Mapping[str, Any]) -> None:
        """Write the columns, and the attributes last."""
        for name, parts in self._columns.items():
            dtype = "float64" if name == "onset" else "int32"
            values = np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
            self._files.write_column(name, values, "<f8" if name == "onset" else "<i4", "trial")
        self._group.attrs.put({**attributes, "n": self.n})

    def _add_columns(self, n: int, given: Mapping[str, np.ndarray | None]) -> None:
        """Append n trials; what is None is unknown, but for `trial`, which then counts on."""
        for name in COLUMNS:
            values = given.get(name)
            if values is None and name == "trial":
                values = np.arange(self.n, self.n + n)
            array = np.full(n, -1, dtype=np.int32) if values is None else np.asarray(values, dtype=np.int32)
            self._check(name, array, n)
            self._columns[name].append(array)
        onset = given.get("onset")
        times = np.full(n, np.nan) if onset is None else np.asarray(onset, dtype=np.float64)
        self._check("onset", times, n)
        self._columns["onset"].append(times)

    def _check(self, name: str, values: np.ndarray, n: int) -> None:
        if values.shape != (n,):
            raise DataError(f"column {name!r} has shape {values.shape} for {n} trials", "give one value per trial")
        limit = self._limits.get(name)
        if limit is not None and n and (values.min() < 0 or values.max() >= limit):
            worst = int(values.min() if values.min() < 0 else values.max())
            raise DataError(
                f"{name} {worst} is outside 0..{limit - 1}", f"every trial needs one of the {limit} {name}s of the store"
            )


class SubjectView(SubjectColumns):
    """Trials that are windows of a corpus: see `view`."""

    def __init__(self, group: zarr.Group, folder: Path, n_images: int, n_classes: int) -> None:
        super().__init__(group, folder, n_images, n_classes)
        self._references: dict[str, list[np.ndarray]] = {name: [] for name in REFERENCES}

    def add(self, references: Mapping[str, np.ndarray], **columns: np.ndarray | None) -> None:
        """Append trials.

        Args:
            references: a value a trial for each of `format.REFERENCES`. columns: as those of `SubjectPairs.add`.
        """
        n = len(references["window"])
        self._add_columns(n, columns)
        for name in REFERENCES:
            self._check(name, np.asarray(references[name]), n)
            self._references[name].append(np.asarray(references[name]))
        self.n += n

    def close(self, attributes: Mapping[str, Any]) -> None:
        """Write references and columns, and the attributes last."""
        for name, data_type in REFERENCES.items():
            self._files.write_column(name, np.concatenate([np.empty(0, data_type), *self._references[name]]), data_type, "trial")
        super().close(attributes)


class SubjectPairs(SubjectColumns):
    """Trials with their EEG; whole shards are written as they fill."""

    def __init__(self, group: zarr.Group, folder: Path, channels: int, samples: int, n_images: int, n_classes: int) -> None:
        super().__init__(group, folder, n_images, n_classes)
        self._shape = (channels, samples)
        self._eeg = group.create_array(
            "eeg", shape=(0, channels, samples), dtype="float32", chunks=(1, channels, samples),
            shards=(SHARD, channels, samples), compressors=[ZstdCodec(level=-1), Crc32cCodec()], fill_value=float("nan"),
            dimension_names=("trial", "channel", "time"),
        )  # fmt: skip
        self._buffer = np.empty((SHARD, channels, samples), dtype=np.float32)
        self._filled = 0

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
            raise DataError(f"trial {self.n + bad} holds values that are not finite", "leave it out or repair it")
        self._add_columns(n, {"image": image, "label": label, "block": block, "session": session, "trial": trial, "onset": onset})
        self._append(eeg_NCT)

    def close(self, attributes: Mapping[str, Any]) -> None:
        """Write what is still in memory, the columns, and the attributes last."""
        self._flush()
        checksums = [stored_checksums(self._files.folder / "eeg/c" / str(k) / "0/0", SHARD) for k in range(-(-self.n // SHARD))]
        self._files.write_column(CHECKSUMS, np.concatenate([np.empty(0, "<u4"), *checksums]), "<u4", "trial")
        super().close(attributes)

    def _append(self, eeg_NCT: np.ndarray) -> None:
        taken = 0
        while taken < len(eeg_NCT):
            step = min(SHARD - self._filled, len(eeg_NCT) - taken)
            self._buffer[self._filled : self._filled + step] = eeg_NCT[taken : taken + step]
            self._filled += step
            taken += step
            self.n += step
            if self._filled == SHARD:
                self._flush()

    def _flush(self) -> None:
        if self._filled:
            start = self.n - self._filled
            self._eeg.resize((self.n, *self._shape))
            self._eeg[start : self.n] = self._buffer[: self._filled]
            self._filled = 0
