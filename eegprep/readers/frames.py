"""Finds where the samples of a BrainVision recording lie in its data file, so that a stretch of it can be read without the rest.

The values of all channels at one time follow each other (a frame), as 16-bit integers or float32. As with EDF (`integers`), the map to uV
is taken from the recording as it was read, and compared sample by sample.
Shapes: C channels, T samples, F channels in the file, B blocks of frames.
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
from eegprep.readers.integers import AGAIN, fitted_step, read_stretch
from eegprep.recording import Recording

BLOCK_BYTES = 32_768  # about as many have one checksum: a window of 64 channels takes four of them, with the filter's margin


@dataclass(frozen=True)
class Frames:
    """Where a recording lies in a BrainVision data file.

    path, size: the file and its bytes. type: of a value, as numpy writes it. width: channels in the file. each: frames in a block.
    places: column of each channel. steps: uV of one step of each channel.
    """

    path: str
    size: int
    type: str
    width: int
    each: int
    places: tuple[int, ...]
    steps: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(**{**content, "places": tuple(content["places"]), "steps": tuple(content["steps"])})

    def take(self, channels: Sequence[int]) -> Frames:
        """Some of the channels."""
        return replace(self, places=tuple(self.places[i] for i in channels), steps=tuple(self.steps[i] for i in channels))

    @property
    def frame_bytes(self) -> int:
        return self.width * np.dtype(self.type).itemsize

    @property
    def records(self) -> int:
        """Blocks with a checksum each; the last may be shorter."""
        return -(-self.size // (self.each * self.frame_bytes))

    @cached_property
    def _columns(self) -> slice | list[int]:
        first = self.places[0]
        neighbours = self.places == tuple(range(first, first + len(self.places)))
        return slice(first, first + len(self.places)) if neighbours else list(self.places)

    @cached_property
    def _steps_C1(self) -> np.ndarray:
        return np.array(self.steps, np.float32)[:, None]

    def read(self, first: int, last: int, checksums_B: np.ndarray, out_CT: np.ndarray) -> None:
        """Samples `first` to `last - 1` of every channel, less the first of them, uV.

        Args:
            checksums_B: crc32c of each block of the file.
            out_CT: (C, last - first) float32, to fill.

        Raises:
            SourceError: the file is not there, has another size, or a block that is read was altered.
        """
        start, stop, length = first // self.each, -(-last // self.each), self.each * self.frame_bytes
        content = read_stretch(self.path, self.size, start * length, min(stop * length, self.size))
        for number in range(start, stop):
            block = content[(number - start) * length : (number - start + 1) * length]
            if google_crc32c.value(block) != int(checksums_B[number]):
                raise SourceError(f"{self.path}: block {number} is not what was indexed (its crc32c differs)", AGAIN)
        frames_TF = np.frombuffer(content, self.type).reshape(-1, self.width)
        values_CT = frames_TF[first - start * self.each : last - start * self.each, self._columns].T
        np.subtract(values_CT, values_CT[:, :1], out=out_CT, dtype=np.float32, casting="unsafe")
        out_CT *= self._steps_C1


def find_frames(recording: Recording, data: Path, value_type: str, width: int) -> tuple[Frames, np.ndarray] | None:
    """Where the signal of a recording that was just read lies in `data`, and the crc32c of each block, (B,) uint32.

    Args:
        recording: before any filter; its channels in the order of the file.
        data: file of frames. value_type: of a value, as numpy writes it. width: channels in the file.

    Returns:
        None when a channel is not a multiple of what the file holds, or the file holds more or less than the recording.
    """
    size, samples = data.stat().st_size, recording.signal_CT.shape[1]
    frame = width * np.dtype(value_type).itemsize
    if not samples or size != samples * frame:
        return None
    frames_TF: np.ndarray = np.memmap(data, value_type, "r", shape=(samples, width))
    columns = iter(range(width))
    places, steps = [], []
    for channel_T in recording.signal_CT:
        for column in columns:
            step = fitted_step(np.asarray(frames_TF[:, column]), channel_T, 1.0)
            if step is not None:
                places.append(column)
                steps.append(step)
                break
        else:
            return None
    result = Frames(str(data.absolute()), size, value_type, width, max(1, BLOCK_BYTES // frame), tuple(places), tuple(steps))
    length = result.each * frame
    with data.open("rb") as file:
        return result, np.array([google_crc32c.value(file.read(length)) for _ in range(result.records)], "<u4")
