"""Finds where the integers of a recording lie in its file, so that a stretch of it can be read without the rest.

The map from integers to uV is taken from the recording as it was read, with all that manifests, sidecars and gates did to it, and
compared sample by sample. A recording that is not a multiple of the integers of an EDF or BDF file has no such map.
Shapes: C channels, T samples, R data records.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np

from eegprep.errors import SourceError
from eegprep.readers import edf
from eegprep.recording import Recording

# factors from the unit of a file to uV: the step of the header is exact, one that is fitted to float32 values is not
_FACTORS = (1.0, 1e3, 1e6, 1e-3)


AGAIN = "put the file back as it was, or index the recordings again"


@dataclass(frozen=True, kw_only=True)
class InPlace:
    """Where the channels of a recording lie: here in EDF and BDF files, in `frames` in BrainVision's, in `ranges` in zarr copies.

    path: the file. places: of each channel in it. steps: uV of one step of each channel.
    """

    path: str
    places: tuple[int, ...]
    steps: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(**{**content, "places": tuple(content["places"]), "steps": tuple(content["steps"])})

    def take(self, channels: Sequence[int]) -> Self:
        """Some of the channels."""
        return replace(self, places=tuple(self.places[i] for i in channels), steps=tuple(self.steps[i] for i in channels))

    @cached_property
    def _steps_C1(self) -> np.ndarray:
        return np.array(self.steps, np.float32)[:, None]

    def _fill(self, values_CT: np.ndarray, out_CT: np.ndarray) -> None:
        """Stored numbers, less the first of each channel, in uV."""
        # float32 holds every integer of 24 bits, so that nothing is rounded before the step; the filter stops the level
        np.subtract(values_CT, values_CT[:, :1], out=out_CT, dtype=np.float32, casting="unsafe")
        out_CT *= self._steps_C1

    def _require(self, part: str, number: int, checksum: int, indexed_R: np.ndarray) -> None:
        """Raises SourceError when a part of the file is not what was indexed."""
        if checksum != int(indexed_R[number]):
            raise SourceError(f"{self.path}: {part} {number} is not what was indexed (its crc32c differs)", AGAIN)


@dataclass(frozen=True, kw_only=True)
class Integers(InPlace):
    """Where a recording lies in an EDF or BDF file.

    size: bytes of the file. header_bytes, record_bytes, records: its layout. width: bytes of an integer.
    each: samples of a channel in a record. places: first byte of each channel in a record.
    """

    size: int
    header_bytes: int
    record_bytes: int
    records: int
    width: int
    each: int

    @cached_property
    def side_by_side(self) -> bool:
        """Whether the channels follow each other in a record without a gap."""
        return list(self.places) == [self.places[0] + i * self.each * self.width for i in range(len(self.places))]

    def read(self, first: int, last: int, checksums_R: np.ndarray, out_CT: np.ndarray) -> None:
        """Samples `first` to `last - 1` of every channel, less the first of them, uV.

        Args:
            checksums_R: crc32c of each data record of the file.
            out_CT: (C, last - first) float32, to fill.

        Raises:
            SourceError: the file is not there, has another size, or a record that is read was altered.
        """
        start, stop = first // self.each, -(-last // self.each)
        first_byte, end = (self.header_bytes + number * self.record_bytes for number in (start, stop))
        if min(self.header_bytes, self.record_bytes) < 0:
            raise SourceError(f"{self.path}: a layout of {self.header_bytes} and {self.record_bytes} bytes cannot be read", AGAIN)
        content = read_stretch(self.path, self.size, first_byte, end)
        for number in range(start, stop):
            at = (number - start) * self.record_bytes
            self._require("data record", number, google_crc32c.value(content[at : at + self.record_bytes]), checksums_R)
        records_RB = np.frombuffer(content, np.uint8).reshape(stop - start, self.record_bytes)
        self._fill(self._values(records_RB)[:, first - start * self.each : last - start * self.each], out_CT)

    def _values(self, records_RB: np.ndarray) -> np.ndarray:
        """(C, T) integers of whole records."""
        span, count = self.each * self.width, len(self.places)
        if self.side_by_side:
            block_RB = records_RB[:, self.places[0] : self.places[0] + count * span]
            return edf.digital(block_RB, self.width).reshape(-1, count, self.each).swapaxes(0, 1).reshape(count, -1)
        rows = [edf.digital(records_RB[:, place : place + span], self.width).reshape(-1) for place in self.places]
        return np.stack(rows)


def read_stretch(path: str, size: int, first: int, last: int) -> bytes:
    """Bytes `first` to `last - 1` of a file that has `size` bytes.

    Raises:
        SourceError: the file is not there, has another size, or holds no such bytes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would be waited for
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error})", AGAIN) from None
    try:
        status = os.fstat(handle)
        if status.st_size != size or not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{path}: has {status.st_size:,} bytes, when it was indexed it had {size:,}", AGAIN)
        if not 0 <= first <= last <= size:
            raise SourceError(f"{path}: bytes {first:,} to {last:,} are to be read of {size:,}", AGAIN)
        return os.pread(handle, last - first, first)
    finally:
        os.close(handle)


def find_integers(recording: Recording, path: Path) -> tuple[Integers, np.ndarray] | None:
    """Where the signal of a recording that was just read lies in `path`, and the crc32c of each data record, (R,) uint32.

    Args:
        recording: before any filter; its channels in the order of the file.

    Returns:
        None when the file is not EDF or BDF, or a channel is not a multiple of its integers.
    """
    if path.suffix.lower() not in edf.SUFFIXES:
        return None
    header = edf.read_header(path)
    starts, samples = edf.signal_starts(header), recording.signal_CT.shape[1]
    each = samples // header.records if header.records else 0
    if not each or each * header.records != samples:
        return None
    records_RB: np.ndarray = np.memmap(path, np.uint8, "r", header.bytes, (header.records, header.record_bytes))
    rows = [row for row, count in enumerate(header.samples) if count == each]

    def stored(row: int) -> np.ndarray:
        return edf.digital(np.asarray(records_RB[:, starts[row] : starts[row + 1]]), header.sample_bytes).reshape(-1)

    found = find_rows(recording, rows, stored, lambda row: float(header.scale_C[row]))
    if found is None:
        return None
    result = Integers(
        path=str(path.absolute()),
        size=path.stat().st_size,
        header_bytes=header.bytes,
        record_bytes=header.record_bytes,
        records=header.records,
        width=header.sample_bytes,
        each=each,
        places=tuple(int(starts[row]) for row in found[0]),
        steps=found[1],
    )
    return result, np.array([google_crc32c.value(record_B.tobytes()) for record_B in records_RB], "<u4")


def find_rows(
    recording: Recording, rows: Iterable[int], stored: Callable[[int], np.ndarray], step: Callable[[int], float]
) -> tuple[tuple[int, ...], tuple[float, ...]] | None:
    """The row of a file that each channel is, and uV of its step; None when a channel is a multiple of none that is left.

    Args:
        recording: its channels in the order of the file. rows: of the file, in order. stored: row -> its numbers, (T,).
        step: row -> uV of its step as the file states it.
    """
    left, found, steps = iter(rows), [], []
    for channel_T in recording.signal_CT:
        for row in left:
            fitted = fitted_step(stored(row), channel_T, step(row))
            if fitted is not None:
                found.append(row)
                steps.append(fitted)
                break
        else:
            return None
    return tuple(found), tuple(steps)


def fitted_step(digital_T: np.ndarray, channel_T: np.ndarray, step: float) -> float | None:
    """uV of one step, when the channel is a multiple of the integers but for a level; float32 rounds what was read."""
    exact_T = channel_T.astype(np.float64)
    moved_T = digital_T.astype(np.float64)
    moved_T -= moved_T.mean()
    spread = float(moved_T @ moved_T)
    if spread == 0:
        return step if np.ptp(exact_T) == 0 else None
    fitted = float(moved_T @ exact_T) / spread
    nearest = next((step * factor for factor in _FACTORS if abs(fitted - step * factor) <= 1e-6 * abs(step * factor)), fitted)
    error = np.abs(exact_T - exact_T.mean() - nearest * moved_T).max()
    allowed = 2e-6 * exact_T.std() + np.spacing(np.float32(np.abs(exact_T).max()))
    return nearest if error <= allowed else None
