"""The corpus on disk: one zarr group per subject, written by one worker, complete only when its commit record says so.

Everything is plain zarr format 3. The files are written here rather than by zarr-python, because only then each byte is
written once, hashed on the way, and the same on every machine: no times, process numbers or host names.

Legend: N windows, C channels, T samples.

Layout of a subject's group (`/<dataset>/<subject>`):

    zarr.json            attributes: dataset, subject, person, recordings, labels, and `commit`, the commit record
    windows/             float32 (N, C, T), uV; shards of 256 windows; inner chunk of one window: zstd level -1, crc32c
    recording/ start/ label/     one uncompressed chunk each, with crc32c

A group is prepared in a hidden folder beside its final place, brought to the disk, and renamed: it is there, whole, or
it is not there. The commit record holds the size and SHA-256 of every file of the group.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from eegprep.atomic import fsync_folder
from eegprep.errors import StoreError
from eegprep.provenance import plain_json

FORMAT = "eegprep-corpus"

VERSION = 1

ZSTD_LEVEL = -1  # padding is stored for nothing and decodes at memory speed; see docs/design-storage.md

SHARD = 256  # windows: 17-67 MB a file

EMPTY = np.uint64(2**64 - 1)  # offset and length of an inner chunk that is not there (zarr 3, sharding codec)

COLUMNS = {"recording": "<i4", "start": "<i8", "label": "<i4"}

_DATA_TYPES = {"<i4": "int32", "<i8": "int64", "<f4": "float32"}


def check_corpus_attributes(attributes: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `attributes` if they are those of a corpus this version can read."""
    if attributes.get("format") != FORMAT:
        raise StoreError(
            f"{where}: not a corpus (attribute `format` is {attributes.get('format')!r}, expected {FORMAT!r})",
            "give a store that `eegprep pad` or `eegprep build` made",
        )
    if attributes.get("version", 0) > VERSION:
        raise StoreError(
            f"{where}: corpus version {attributes['version']}, this software reads up to {VERSION}",
            "install a newer eeg-dreamdiff",
        )
    return attributes


def read_node(path: Path) -> dict[str, Any]:
    """A `zarr.json`, or a StoreError that says what is wrong with it."""
    try:
        return parse_node(path.read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{path.parent}: no zarr group here (no zarr.json)", "check the path of the store") from None


def parse_node(content: bytes, where: str) -> dict[str, Any]:
    """Parse the bytes of a `zarr.json`."""
    try:
        node = json.loads(content)
    except ValueError as error:
        raise StoreError(f"{where}: not JSON ({error})", "restore the file, or build the subject again") from None
    if not isinstance(node, dict) or node.get("zarr_format") != 3:
        raise StoreError(f"{where}: not zarr format 3 metadata", "build the store again with this software")
    return node


def check_name(name: str, what: str) -> str:
    """`name` as it is, if it can be the name of a zarr group and of a folder."""
    if not name or name.startswith((".", "__")) or name == "zarr.json" or any(c in name for c in '/\\:*?"<>|\0\n'):
        raise StoreError(f"{what} {name!r} cannot be the name of a zarr group", "use letters, digits, '-', '_' and '.'")
    return name


def _with_crc32c(content: bytes) -> bytes:
    return content + struct.pack("<I", google_crc32c.value(content))


def _group_node(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": plain_json(attributes)}


_BYTES: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}

_ZSTD: dict[str, Any] = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}

_CRC32C: dict[str, Any] = {"name": "crc32c"}


def _array_node(
    shape: Iterable[int], chunk: Iterable[int], *, data_type: str, fill: Any, codecs: list[dict[str, Any]], names: list[str]
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": _DATA_TYPES[data_type],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
        "dimension_names": names,
        "storage_transformers": [],
    }


def _windows_node(n: int, channels: int, samples: int, shard: int) -> dict[str, Any]:
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, channels, samples],
            "codecs": [_BYTES, _ZSTD, _CRC32C],
            "index_codecs": [_BYTES, _CRC32C],
            "index_location": "end",
        },
    }
    # the fill value is NaN: plain zarr shows a missing chunk as NaN rather than as a believable zero
    node = _array_node(
        (n, channels, samples),
        (shard, channels, samples),
        data_type="<f4",
        fill="NaN",
        codecs=[sharding],
        names=["window", "channel", "time"],
    )
    return {**node, "attributes": {"unit": "uV"}}


def _column_node(n: int, data_type: str) -> dict[str, Any]:
    return _array_node((n,), (max(n, 1),), data_type=data_type, fill=-1, codecs=[_BYTES, _CRC32C], names=["window"])


def _dump(node: Mapping[str, Any]) -> bytes:
    return json.dumps(node, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _write_node(folder: Path, node: Mapping[str, Any]) -> None:
    """Write `folder`/zarr.json through a name of this thread's own: several workers may write the same content."""
    own = folder / f".zarr.json.{os.getpid()}.{threading.get_ident()}.partial"
    try:
        with own.open("wb") as file:
            file.write(_dump(node))
            file.flush()
            os.fsync(file.fileno())
        own.replace(folder / "zarr.json")
    finally:
        own.unlink(missing_ok=True)
    fsync_folder(folder)
