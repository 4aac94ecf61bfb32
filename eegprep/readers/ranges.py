"""Stretches of a recording in a zarr copy, without the rest: the chunks that a window lies in, from the disk or from the archive.

The counterpart of `integers` for copies. Shapes: C channels, T samples, R chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from eegprep.errors import SourceError
from eegprep.readers import serving_copy
from eegprep.readers.integers import AGAIN, InPlace, find_rows
from eegprep.recording import Recording


@dataclass(frozen=True, kw_only=True)
class Ranges(InPlace):
    """Where a recording lies in a copy.

    group: in the copy. samples: of the recording. chunk: samples of a chunk, which holds all channels. places: row of each channel.
    """

    group: str
    samples: int
    chunk: int

    @property
    def records(self) -> int:
        """How many chunks there are."""
        return -(-self.samples // self.chunk)

    @cached_property
    def _signal(self) -> serving_copy.Signal:
        return _signal(Path(self.path), self.group)

    def read(self, first: int, last: int, checksums_R: np.ndarray, out_CT: np.ndarray) -> None:
        """Samples `first` to `last - 1` of every channel, less the first of them, uV.

        Args:
            checksums_R: crc32c of each chunk, see `checksums`.
            out_CT: (C, last - first) float32, to fill.

        Raises:
            SourceError: the copy is not there, cannot be reached, or a chunk that is read was altered.
        """
        start, stop = first // self.chunk, -(-last // self.chunk)
        at = start * self.chunk
        stored_CT = self._signal.piece(at, min(stop * self.chunk, self.samples))
        for number, value in enumerate(checksums(stored_CT, self.chunk), start):
            self._require("chunk", number, value, checksums_R)
        self._fill(stored_CT[list(self.places), first - at : last - at], out_CT)


def checksums(stored_CT: np.ndarray, chunk: int) -> np.ndarray:
    """crc32c of each chunk of a stretch that begins with one: (R,) uint32, of the numbers that it holds and not of its compressed bytes."""
    parts = (stored_CT[:, first : first + chunk] for first in range(0, stored_CT.shape[1], chunk))
    return np.array([google_crc32c.value(np.ascontiguousarray(part_CT).tobytes()) for part_CT in parts], "<u4")


def find_ranges(recording: Recording, path: Path) -> tuple[Ranges, np.ndarray] | None:
    """Where the signal of a recording that was just read lies in the copy at `path`, and the crc32c of each chunk.

    Args:
        recording: before any filter; its channels in the order of the copy.

    Returns:
        None when it is no copy, or a channel is not a multiple of what is stored.
    """
    if path.suffix.lower() not in serving_copy.SUFFIXES:
        return None
    group = serving_copy.eeg_group(path)
    signal = _signal(path, group)
    samples, chunk = int(signal.array.shape[1]), int(signal.array.chunks[1])
    if samples != recording.signal_CT.shape[1] or int(signal.array.chunks[0]) < int(signal.array.shape[0]):
        return None
    stored_CT = signal.read(0, samples)
    scales = [float(value) for value in signal.array.attrs.get("scale", ())] or [1.0] * len(stored_CT)
    found = find_rows(recording, range(len(stored_CT)), stored_CT.__getitem__, scales.__getitem__)
    if found is None:
        return None
    result = Ranges(
        path=str(path.absolute()), group=group, samples=samples, chunk=chunk, places=found[0], steps=found[1]
    )  # fmt: skip
    return result, checksums(stored_CT, chunk)


def _signal(path: Path, group: str) -> serving_copy.Signal:
    import zarr

    try:
        array: Any = zarr.open_group(path, mode="r")[f"{group}/0"]
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"{path}: cannot be read ({type(error).__name__}: {error})"[:200], AGAIN) from None
    return serving_copy.signal_of(path, group, array)
