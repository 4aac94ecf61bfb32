"""Writes the group of one subject; it is complete once its commit record is written."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numcodecs
import numpy as np

from eegprep.atomic import partial_path
from eegprep.errors import SignalError, StoreError
from eegprep.provenance import attributes_digest, plain_json
from eegprep.store.format import (
    COLUMNS,
    EMPTY,
    SHARD,
    ZSTD_LEVEL,
    _column_node,
    _dump,
    _group_node,
    _windows_node,
    _with_crc32c,
    _write_node,
    check_name,
)
from eegprep.store.root import publish_group


class SubjectWriter:
    """Writes one subject's group; nothing is visible before `commit`, nothing is left after an error.

    Args:
        root: a corpus that `create_corpus` made.
        dataset, subject: the group's name; any text that can be a folder name.
        channels, samples: shape of every window, as in `create_corpus`.
        shard: windows a file.
    """

    def __init__(
        self, root: Path, dataset: str, subject: str, *, channels: int = 128, samples: int = 512, shard: int = SHARD
    ) -> None:
        self.root = Path(root)
        self.dataset, self.subject = check_name(dataset, "data set"), check_name(subject, "subject")
        self.channels, self.samples, self.shard = channels, samples, shard
        self.recordings: list[dict[str, Any]] = []
        self._final = self.root / dataset / subject
        self._partial = partial_path(self._final)
        self._files: dict[str, dict[str, Any]] = {}
        self._labels: dict[str, int] = {}
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
        self._codec = numcodecs.Zstd(level=ZSTD_LEVEL)
        self._open_shard: _ShardFile | None = None
        self._n = 0

    def __enter__(self) -> Self:
        if not (self.root / "zarr.json").is_file():
            raise StoreError(
                f"{self.root}: no corpus here to write {self.dataset}/{self.subject} into", "call create_corpus first"
            )
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._open_shard is not None:
            self._open_shard.abandon()
        shutil.rmtree(self._partial, ignore_errors=True)

    def add_recording(self, record: Mapping[str, Any]) -> int:
        """Note a recording; returns the index to give to `add`."""
        self.recordings.append(dict(record))
        return len(self.recordings) - 1

    def add(
        self,
        windows_NCT: np.ndarray,
        recording: int,
        starts_N: Sequence[int] | np.ndarray,
        labels_N: Sequence[str | None] | np.ndarray | None = None,
    ) -> None:
        """Append windows of one recording.

        Args:
            windows_NCT: (N, channels, samples) float32, uV.
            recording: what `add_recording` returned.
            starts_N: first sample of each window in its recording.
            labels_N: a label each, or None for none.

        Raises:
            SignalError: wrong shape, or a value that is not finite.
            StoreError: unknown recording, or numbers of windows, starts and labels that differ.
        """
        n = len(windows_NCT)
        labels: Sequence[str | None] | np.ndarray = [None] * n if labels_N is None else labels_N
        self._check(windows_NCT, recording, len(starts_N), len(labels))
        for window_CT in np.ascontiguousarray(windows_NCT, dtype="<f4"):
            self._append(window_CT)
        codes = [-1 if label is None else self._labels.setdefault(str(label), len(self._labels)) for label in labels]
        self._columns["recording"].append(np.full(n, recording, "<i4"))
        self._columns["start"].append(np.asarray(starts_N, "<i8"))
        self._columns["label"].append(np.asarray(codes, "<i4"))

    def commit(self, key: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Publish the group. The commit record is the last thing written before the rename.

        Args:
            key: fingerprint of (recipe, sources); a later run that finds the same key has nothing to do.
            attributes: further attributes of the group, as JSON values.
        """
        if self._open_shard is not None:
            self._finish_shard()
        counts = Counter(np.concatenate(self._columns["recording"]).tolist() if self._n else [])
        self._write_array("windows", _windows_node(self._n, self.channels, self.samples, self.shard))
        for name, data_type in COLUMNS.items():
            values = np.concatenate(self._columns[name]) if self._n else np.empty(0, data_type)
            if self._n:
                self._write(f"{name}/c/0", _with_crc32c(values.astype(data_type).tobytes()))
            self._write_array(name, _column_node(self._n, data_type))
        content = {
            **(attributes or {}),
            "dataset": self.dataset,
            "subject": self.subject,
            "recordings": [{**record, "windows": counts.get(i, 0)} for i, record in enumerate(self.recordings)],
            "labels": list(self._labels),
        }
        content.setdefault("person", f"{self.dataset}/{self.subject}")
        content = plain_json(content)
        record = {"key": key, "windows": self._n, "files": self._files, "attributes_sha256": attributes_digest(content)}
        _write_node(self._partial, _group_node({**content, "commit": record}))
        publish_group(self.root, f"{self.dataset}/{self.subject}")

    @property
    def windows(self) -> int:
        """How many windows were added so far."""
        return self._n

    def _check(self, windows_NCT: np.ndarray, recording: int, starts: int, labels: int) -> None:
        name, n = f"{self.dataset}/{self.subject}", len(windows_NCT)
        if windows_NCT.shape[1:] != (self.channels, self.samples):
            raise SignalError(
                f"{name}: windows of shape {windows_NCT.shape[1:]} do not fit a corpus of ({self.channels}, {self.samples})",
                "pad the channels and crop the samples first, or make a corpus of that shape",
            )
        if not 0 <= recording < len(self.recordings):
            raise StoreError(f"{name}: recording {recording} of {len(self.recordings)} is unknown", "call add_recording first")
        if n != starts or n != labels:
            raise StoreError(f"{name}: {n} windows with {starts} starts and {labels} labels", "give one of each for every window")
        if not np.isfinite(windows_NCT).all():
            bad = int(np.flatnonzero(~np.isfinite(windows_NCT).all(axis=(1, 2)))[0])
            raise SignalError(
                f"{name}: window {bad} of {n} holds NaN or infinity", "leave such stretches out, or repair them first"
            )

    def _append(self, window_CT: np.ndarray) -> None:
        if self._open_shard is None:
            relative = f"windows/c/{self._n // self.shard}/0/0"
            self._open_shard = _ShardFile(self._partial / relative, relative, self.shard)
        self._open_shard.append(_with_crc32c(self._codec.encode(window_CT)))
        self._n += 1
        if self._open_shard.full:
            self._finish_shard()

    def _finish_shard(self) -> None:
        assert self._open_shard is not None
        self._files[self._open_shard.relative] = self._open_shard.finish()
        self._open_shard = None

    def _write(self, relative: str, content: bytes) -> None:
        path = self._partial / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._files[relative] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def _write_array(self, name: str, node: dict[str, Any]) -> None:
        self._write(f"{name}/zarr.json", _dump(node))


class _ShardFile:
    """One shard: encoded chunks one after the other, then the index of offsets and lengths with its crc32c."""

    def __init__(self, path: Path, relative: str, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.relative, self._file, self._hash = relative, path.open("wb"), hashlib.sha256()
        self._index = np.full((size, 2), EMPTY, "<u8")
        self._count, self._offset = 0, 0

    @property
    def full(self) -> bool:
        return self._count == len(self._index)

    def append(self, encoded: bytes) -> None:
        self._put(encoded)
        self._index[self._count] = self._offset, len(encoded)
        self._offset += len(encoded)
        self._count += 1

    def finish(self) -> dict[str, Any]:
        index = _with_crc32c(self._index.tobytes())
        self._put(index)
        self._file.close()
        return {"bytes": self._offset + len(index), "sha256": self._hash.hexdigest()}

    def abandon(self) -> None:
        self._file.close()

    def _put(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
