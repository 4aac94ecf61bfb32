"""Writes the group of one subject of a view: all that a corpus says of its windows, and where their recordings lie instead of them.

Layout of a subject's group, beside what a corpus has without `windows/` and `crc32c/`:

    zarr.json            attribute `view`: how the subject's recordings are read, and the integers of those that EDF, BDF and BrainVision files or zarr copies hold
    record_crc32c/       crc32c of each data record of these files or chunk of these copies, one recording after the other
    references.json      where plain zarr finds these integers (fsspec's reference file system)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eegprep.readers.frames import Frames
from eegprep.readers.integers import Integers
from eegprep.readers.ranges import Ranges
from eegprep.store.format import RECORDS, array_node
from eegprep.store.group import WindowArray
from eegprep.store.writer import SubjectWriter

REFERENCES = "references.json"


class _Counted:
    """Takes windows and keeps how many."""

    def __init__(self) -> None:
        self.n = 0

    def append(self, window_CT: np.ndarray) -> None:
        self.n += 1

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class ViewWriter(SubjectWriter):
    """A `SubjectWriter` that keeps references.

    Args:
        reading: how the subject's recordings are read, as JSON values.
    """

    def __init__(
        self, root: Path, dataset: str, subject: str, *, channels: int, samples: int, reading: Mapping[str, Any]
    ) -> None:
        super().__init__(root, dataset, subject, channels=channels, samples=samples)
        self._reading = reading
        # by (session, run), of all that were read: names of the channels, where they lie, checksums of the records
        self._known: dict[tuple[str, str], tuple[tuple[str, ...], Integers | Frames | Ranges, np.ndarray]] = {}

    def _window_array(self) -> WindowArray:
        return _Counted()

    def know(
        self, session: str, run: str, channels: tuple[str, ...], integers: Integers | Frames | Ranges, checksums_R: np.ndarray
    ) -> None:
        """Where the integers of a recording lie that may be added later."""
        self._known[session, run] = (channels, integers, checksums_R)

    def commit(self, key: str, attributes: Mapping[str, Any] | None = None) -> None:
        """As for a corpus."""
        placed: list[dict[str, object] | None] = []
        checksums: list[np.ndarray] = []
        references: dict[str, object] = {"zarr.json": json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}})}
        for record in self.recordings:
            known = self._known.get((str(record["session"]), str(record["run"])))
            if known is None:
                placed.append(None)
                continue
            names, integers, checksums_R = known
            channels: Any = record["channels"]
            kept = integers.take([names.index(name) for name in channels])
            placed.append({**kept.to_json(), "first_record": sum(len(part) for part in checksums)})
            checksums.append(checksums_R)
            name = f"{record['session']}.{record['run']}"
            if isinstance(kept, Integers):  # a copy is a zarr array already
                references |= _references(name, kept, channels)
            elif isinstance(kept, Frames):
                references |= _frame_references(name, kept, channels)
        self._files.write_column(RECORDS, np.concatenate([np.empty(0, "<u4"), *checksums]), "<u4", "record")
        content = {"version": 1, "refs": references}
        self._files.write(REFERENCES, json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
        view = {"reading": self._reading, "integers": placed}
        super().commit(key, {**(attributes or {}), "view": view})


def _references(name: str, integers: Integers, channels: list[str]) -> dict[str, object]:
    """The integers of a recording as a zarr array (records, channels, samples), a chunk a data record; 24 bits have no zarr type."""
    if integers.width != 2 or not integers.side_by_side:
        return {}
    shape = (integers.records, len(integers.places), integers.each)
    node: dict[str, Any] = array_node(
        shape,
        (1, *shape[1:]),
        data_type="<i2",
        fill=0,
        codecs=[{"name": "bytes", "configuration": {"endian": "little"}}],
        names=["record", "channel", "time"],
    )
    node["attributes"] = {"channels": list(channels), "uV_per_step": list(integers.steps)}
    length = shape[1] * integers.each * integers.width
    result: dict[str, object] = {f"{name}/zarr.json": json.dumps(node)}
    for record in range(integers.records):
        start = integers.header_bytes + record * integers.record_bytes + integers.places[0]
        result[f"{name}/c/{record}/0/0"] = [integers.path, start, length]
    return result


def _frame_references(name: str, frames: Frames, channels: list[str]) -> dict[str, object]:
    """A BrainVision file as a zarr array (samples, channels) of one chunk: its blocks are no chunks, because the last one is shorter."""
    if len(frames.places) != frames.width:
        return {}
    shape = (frames.size // frames.frame_bytes, frames.width)
    node: dict[str, Any] = array_node(
        shape, shape, data_type=frames.type, fill=0, codecs=[{"name": "bytes", "configuration": {"endian": "little"}}], names=["time", "channel"]
    )  # fmt: skip
    node["attributes"] = {"channels": list(channels), "uV_per_step": list(frames.steps)}
    return {f"{name}/zarr.json": json.dumps(node), f"{name}/c/0/0": [frames.path, 0, frames.size]}
