"""Writes the group of one subject; it is complete once its commit record is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from eegprep.atomic import remove
from eegprep.errors import SignalError, StoreError
from eegprep.store.commit import committed_node, publish_group, start_group
from eegprep.store.format import COLUMNS, SHARD
from eegprep.store.group import GroupFiles, WindowArray, WindowsWriter
from eegprep.store.names import check_name


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
        self.recordings: list[dict[str, object]] = []
        self._labels: dict[str, int] = {}
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
        self._partial: Path | None = None

    def __enter__(self) -> Self:
        if not (self.root / "zarr.json").is_file():
            raise StoreError(
                f"{self.root}: no corpus here to write {self.dataset}/{self.subject} into", "call create_corpus first"
            )
        self._partial = start_group(self.root, f"{self.dataset}/{self.subject}")
        self._files = GroupFiles(self._partial)
        self._windows = self._window_array()
        return self

    def _window_array(self) -> WindowArray:
        """What takes the windows."""
        return WindowsWriter(self._files, "windows", self.channels, self.samples, shard=self.shard)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._windows.abandon()
        if self._partial is not None:
            with suppress(OSError):  # what is removed need not reach the disk
                self._files.close()
            remove(self._partial)

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
        *,
        repeat: bool = False,
    ) -> None:
        """Append windows of one recording.

        Args:
            windows_NCT: (N, channels, samples) float32, uV.
            recording: what `add_recording` returned.
            starts_N: first sample of each window in its recording.
            labels_N: a label each, or None for none.
            repeat: windows may have fewer rows, which are repeated in order; this costs no more than storing them once.

        Raises:
            SignalError: wrong shape, or a value that is not finite.
            StoreError: unknown recording, or numbers of windows, starts and labels that differ.
        """
        n = len(windows_NCT)
        labels: Sequence[str | None] | np.ndarray = [None] * n if labels_N is None else labels_N
        self._check(windows_NCT, recording, len(starts_N), len(labels), repeat)
        for window_CT in np.ascontiguousarray(windows_NCT, dtype="<f4"):
            self._windows.append(window_CT)
        # a code by first appearance: labels are stored once, a window holds four bytes
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
        assert self._partial is not None
        self._windows.finish()
        for name, data_type in COLUMNS.items():
            self._files.write_column(name, np.concatenate([np.empty(0, data_type), *self._columns[name]]), data_type)
        counts = Counter(np.concatenate([np.empty(0, "<i4"), *self._columns["recording"]]).tolist())
        content = {
            **(attributes or {}),
            "dataset": self.dataset,
            "subject": self.subject,
            "recordings": [{**record, "windows": counts.get(i, 0)} for i, record in enumerate(self.recordings)],
            "labels": list(self._labels),
        }
        content.setdefault("person", f"{self.dataset}/{self.subject}")
        self._files.commit(committed_node(key, self._files.record, content, windows=self._windows.n))
        publish_group(self.root, f"{self.dataset}/{self.subject}", self._partial)
        self._partial = None

    @property
    def windows(self) -> int:
        """How many windows were added so far."""
        return self._windows.n

    def _check(self, windows_NCT: np.ndarray, recording: int, starts: int, labels: int, repeat: bool) -> None:
        name, n = f"{self.dataset}/{self.subject}", len(windows_NCT)
        rows = min(windows_NCT.shape[1], self.channels) if repeat and windows_NCT.ndim == 3 else self.channels
        if windows_NCT.shape[1:] != (rows, self.samples) or not rows:
            raise SignalError(
                f"{name}: windows of shape {windows_NCT.shape[1:]} do not fit a corpus of ({self.channels}, {self.samples})",
                "pad the channels and crop the samples first, or make a corpus of that shape",
            )
        if not 0 <= recording < len(self.recordings):
            raise StoreError(f"{name}: recording {recording} of {len(self.recordings)} is unknown", "call add_recording first")
        if n != starts or n != labels:
            raise StoreError(f"{name}: {n} windows with {starts} starts and {labels} labels", "give one of each for every window")
        # one NaN would turn every weight of a training into NaN; the sum of squares is finite where all values are, and looked at first
        squares_N = np.einsum("nct,nct->n", windows_NCT, windows_NCT)
        if not np.isfinite(squares_N).all() and not np.isfinite(windows_NCT).all():
            bad = int(np.flatnonzero(~np.isfinite(windows_NCT).all(axis=(1, 2)))[0])
            raise SignalError(
                f"{name}: window {bad} of {n} holds NaN or infinity", "leave such stretches out, or repair them first"
            )
