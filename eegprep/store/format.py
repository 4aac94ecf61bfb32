"""The corpus on disk: one zarr group per subject, written by one worker, complete only when its commit record says so.

Everything is plain zarr format 3. The files are written here rather than by zarr-python, because only then each byte is
written once, hashed on the way, and the same on every machine: no times, process numbers or host names.

Legend: N windows, C channels, T samples.

Layout of a subject's group (`/<dataset>/<subject>`):

    zarr.json            attributes: dataset, subject, person, recordings, labels, and `commit`, the commit record
    windows/             float32 (N, C, T), uV; shards of 256 windows; inner chunk of one window: zstd (level -1, or see `frames`), crc32c
    recording/ start/ label/     one uncompressed chunk each, with crc32c
    crc32c/              the checksum at the end of each window's chunk, so that a window in another's place is noticed

A group is prepared in a hidden folder beside its final place, brought to the disk, and renamed: it is there, whole, or
it is not there. The commit record holds the size and SHA-256 of every file of the group (see `commit`).
Version 1 had no `crc32c`, and no digest of the root.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import google_crc32c
import numpy as np

from eegprep.errors import StoreError

FORMAT = "eegprep-corpus"

# the same without the arrays of windows: they are made from the recordings when they are read
VIEW_FORMAT = "eegprep-view"

ZSTD_LEVEL = -1  # padding costs almost no space and decodes at memory speed; see docs/design-storage.md

SHARD = 256  # windows: 17-67 MB a file

EMPTY = np.uint64(2**64 - 1)  # offset and length of an inner chunk that is not there (zarr 3, sharding codec)

COLUMNS = {"recording": "<i4", "start": "<i8", "label": "<i4"}

CHECKSUMS = "crc32c"  # the array of the windows' checksums

RECORDS = "record_crc32c"  # of a view: the array of the data records' checksums

_DATA_TYPES = {"<i2": "int16", "<i4": "int32", "<i8": "int64", "<u4": "uint32", "<f4": "float32", "<f8": "float64"}

# what plain zarr shows for a missing chunk: no recording, start or label is -1
_FILL = {"<i4": -1, "<i8": -1, "<u4": 0, "<f8": "NaN"}

LARGEST = 1 << 26  # values of a window: 256 MB


def check_corpus_attributes(attributes: Mapping[str, Any], where: str, *, views: bool = False) -> Mapping[str, Any]:
    """Return `attributes` if they are those of a corpus with windows of a possible shape.

    Args:
        views: a view of recordings will do as well.
    """
    if attributes.get("format") == VIEW_FORMAT and not views:
        raise StoreError(
            f"{where}: a view of recordings, which holds no windows of its own (attribute `format` is {VIEW_FORMAT!r})",
            "make a corpus of the same recordings with `eegprep build`",
        )
    if attributes.get("format") not in (FORMAT, VIEW_FORMAT):
        raise StoreError(
            f"{where}: not a corpus (attribute `format` is {attributes.get('format')!r}, expected {FORMAT!r})",
            "give a store that `eegprep pad` or `eegprep build` made",
        )
    channels: Any = attributes.get("channels")
    samples: Any = attributes.get("samples")
    for name, value in (("channels", channels), ("samples", samples)):
        if type(value) is not int or value < 1:
            raise StoreError(f"{where}: attribute `{name}` is {value!r} (a whole number, least 1)", "build the corpus again")
    if channels * samples > LARGEST:
        raise StoreError(f"{where}: windows of {channels} x {samples} values (limit {LARGEST:,})", "build the corpus again")
    return attributes


def check_windows_node(node: Mapping[str, Any], n: int, channels: int, samples: int, where: str) -> int:
    """Windows a shard, after comparing an array's metadata with what the root and the commit record say of it."""
    try:
        shard = node["chunk_grid"]["configuration"]["chunk_shape"][0]
        value = (node["shape"], node["data_type"], node["chunk_grid"], [codec["name"] for codec in node["codecs"]])
        inner = node["codecs"][0]["configuration"]
        endian = inner["codecs"][0]["configuration"]["endian"]
        stored = (inner["chunk_shape"], [codec["name"] for codec in inner["codecs"]], endian, inner["index_location"])
    except (KeyError, IndexError, TypeError):
        raise StoreError(f"{where}: its metadata is not that of an array of windows", "build the subject again") from None
    # metadata is data: a huge number here would make a reader reserve memory for an index of it
    if type(shard) is not int or not 0 < shard <= 1 << 20:
        raise StoreError(f"{where}: {shard!r} windows a shard (1 to {1 << 20:,})", "build the subject again")
    expected = windows_node(n, channels, samples, shard)
    layout = expected["codecs"][0]["configuration"]
    if value != ([n, channels, samples], "float32", expected["chunk_grid"], ["sharding_indexed"]) or stored != (
        layout["chunk_shape"],
        [codec["name"] for codec in layout["codecs"]],
        "little",
        "end",
    ):
        raise StoreError(
            f"{where}: holds {value[1]} of shape {value[0]} in shards of {shard}, the store says float32 of [{n}, {channels}, {samples}]",
            "build the subject again",
        )
    return shard


def with_crc32c(content: bytes) -> bytes:
    """Bytes with their crc32c behind them (zarr 3, crc32c codec)."""
    return content + struct.pack("<I", google_crc32c.value(content))


def crc_fits(content: np.ndarray) -> bool:
    """Whether the last four bytes are the crc32c of the rest (zarr 3, crc32c codec)."""
    return len(content) >= 4 and google_crc32c.value(content[:-4]) == crc_of(content)


def crc_of(content: np.ndarray | bytes) -> int:
    """The checksum that stands in the last four bytes."""
    return int.from_bytes(bytes(content[-4:]), "little")


_BYTES: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}

# zstd's own checksum is off: the crc32c behind the chunk covers the compressed bytes, and is checked before unpacking
_ZSTD: dict[str, Any] = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}

_CRC32C: dict[str, Any] = {"name": "crc32c"}


def array_node(
    shape: Iterable[int], chunk: Iterable[int], *, data_type: str, fill: Any, codecs: list[dict[str, Any]], names: list[str]
) -> dict[str, object]:
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


def windows_node(n: int, channels: int, samples: int, shard: int, dimension: str = "window") -> Mapping[str, Any]:
    """Metadata of the array of windows: sharded, an inner chunk a window."""
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
    node = array_node(
        (n, channels, samples),
        (shard, channels, samples),
        data_type="<f4",
        fill="NaN",
        codecs=[sharding],
        names=[dimension, "channel", "time"],
    )
    return {**node, "attributes": {"unit": "uV"}}


def column_node(n: int, data_type: str, dimension: str = "window") -> dict[str, object]:
    """Metadata of a column: one value a window or trial, in one chunk."""
    fill = _FILL[data_type]
    return array_node((n,), (max(n, 1),), data_type=data_type, fill=fill, codecs=[_BYTES, _CRC32C], names=[dimension])
