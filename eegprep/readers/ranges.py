"""Stretches of a recording in a zarr copy, without the rest: the chunks that a window lies in, from the disk or from the archive.

The counterpart of `integers` for copies. Shapes: C channels, T samples, R chunks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np

from eegprep.errors import SourceError
from eegprep.readers import serving_copy
from eegprep.readers.integers import AGAIN, fitted_step
from eegprep.recording import Recording


@dataclass(frozen=True)
class Ranges:
    """Where a recording lies in a copy.

    path: the copy. group: in it. samples: of the recording. chunk: samples of a chunk, which holds all channels.
    places: row of each channel. steps: uV of one step of each channel.
    """

    path: str
    group: str
    samples: int
    chunk: int
    places: tuple[int, ...]
    steps: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(**{**content, "places": tuple(content["places"]), "steps": tuple(content["steps"])})

    def take(self, channels: Sequence[int]) -> Ranges:
        """Some of the channels."""
        return replace(self, places=tuple(self.places[i] for i in channels), steps=tuple(self.steps[i] for i in channels))

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
            if value != int(checksums_R[number]):
                raise SourceError(f"{self.path}: chunk {number} is not what was indexed (its crc32c differs)", AGAIN)
        values_CT = stored_CT[list(self.places), first - at : last - at]
        # float32 holds every difference of two integers of 16 bits; the filter stops the level
        np.subtract(values_CT, values_CT[:, :1], out=out_CT, dtype=np.float32, casting="unsafe")
        out_CT *= np.array(self.steps, np.float32)[:, None]


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
    rows = iter(range(len(stored_CT)))
    places, steps = [], []
    for channel_T in recording.signal_CT:
        for row in rows:
            step = fitted_step(stored_CT[row], channel_T, scales[row])
            if step is not None:
                places.append(row)
                steps.append(step)
                break
        else:
            return None
    return Ranges(str(path.absolute()), group, samples, chunk, tuple(places), tuple(steps)), checksums(stored_CT, chunk)


def _signal(path: Path, group: str) -> serving_copy.Signal:
    import zarr

    try:
        array: Any = zarr.open_group(path, mode="r")[f"{group}/0"]
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"{path}: cannot be read ({type(error).__name__}: {error})"[:200], AGAIN) from None
    return serving_copy.signal_of(path, group, array)
