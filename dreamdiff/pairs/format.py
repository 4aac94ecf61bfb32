"""The on-disk format of a pairs store: names, columns, attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import zarr

FORMAT, VERSION = "dreamdiff-pairs", 2

COLUMNS = ("image", "label", "block", "session", "trial")

# of a view: what stands in place of `eeg`, see `pairs.view`
REFERENCES = {"window": "<i8", "offset": "<i4", "second": "<i8", "resume": "<i4"}

SHARD = 256  # windows per file: 67 MB of float32 before compression

_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Provenance = Literal["recorded", "simulated"]


def group_attributes(folder: Path) -> Mapping[str, Any]:
    """Attributes of a zarr group on disk, empty if there is none."""
    try:
        return dict(zarr.open_group(folder, mode="r").attrs)
    except (FileNotFoundError, ValueError, KeyError, NotADirectoryError):
        return {}


def plain_attributes(node: zarr.Group | zarr.Array[Any]) -> Mapping[str, Any]:
    """Attributes as plain values."""
    return dict(cast("Mapping[str, Any]", node.attrs.asdict()))


def is_pairs(store: str | Path) -> bool:
    """Whether this is a local store of EEG-image pairs rather than a corpus."""
    return (Path(store) / "images").is_dir() and (Path(store) / "zarr.json").is_file()
