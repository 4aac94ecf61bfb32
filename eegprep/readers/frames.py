"""Finds where the samples of a BrainVision recording lie in its data file, so that a stretch of it can be read without the rest.

The values of all channels at one time follow each other (a frame), as 16-bit integers or float32. As with EDF (`integers`), the map to uV
is taken from the recording as it was read, and compared sample by sample.
Shapes: C channels, T samples, F channels in the file, B blocks of frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import google_crc32c
import numpy as np

from eegprep.readers.integers import InPlace, find_rows, read_stretch
from eegprep.recording import Recording

BLOCK_BYTES = 32_768  # about as many have one checksum: a window of 64 channels takes four of them, with the filter's margin


@dataclass(frozen=True, kw_only=True)
class Frames(InPlace):
    """Where a recording lies in a BrainVision data file.

    size: bytes of the file. type: of a value, as numpy writes it. width: channels in the file. each: frames in a block.
    places: column of each channel.
    """

    size: int
    type: str
    width: int
    each: int

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
            self._require("block", number, google_crc32c.value(block), checksums_B)
        frames_TF = np.frombuffer(content, self.type).reshape(-1, self.width)
        self._fill(frames_TF[first - start * self.each : last - start * self.each, self._columns].T, out_CT)


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
    found = find_rows(recording, range(width), lambda column: np.asarray(frames_TF[:, column]), lambda column: 1.0)
    if found is None:
        return None
    result = Frames(
        path=str(data.absolute()), size=size, type=value_type, width=width, each=max(1, BLOCK_BYTES // frame), places=found[0],
        steps=found[1],
    )  # fmt: skip
    length = result.each * frame
    with data.open("rb") as file:
        return result, np.array([google_crc32c.value(file.read(length)) for _ in range(result.records)], "<u4")
