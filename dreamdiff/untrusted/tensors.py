"""Weights on disk: safetensors files with a digest of their own, written in one way and checked whenever they are read.

A safetensors file is 8 bytes (length of the header), a JSON header (name -> dtype, shape, position; `__metadata__`), and the numbers.
The metadata of ours hold `sha256`: the digest of all the rest, header and numbers. So a folder can be copied, moved or renamed, and
every load finds a flipped bit. Files of others and of release 0.1.0 have no digest and are read as they are.

safetensors' own writer orders its metadata differently in every process; here they are sorted, so that equal weights are equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dreamdiff.untrusted.kinds import check_weights_file
from eegprep.atomic import open_atomic
from eegprep.errors import CheckpointError
from eegprep.provenance import sha256_file

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
MAX_HEADER = 100 << 20  # bytes, the limit of the format's own reader
PIECE = 16 << 20  # bytes hashed or written at once

_VERIFIED: dict[tuple[str, int, int, int], str] = {}
"""Files whose digest this process has compared, by path, inode, size and time of change: each is hashed once."""

_WHOLE: dict[tuple[str, int, int, int], str] = {}
"""The same for digests of whole files."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write a safetensors file, whole or not at all; equal tensors and metadata give equal bytes.

    Returns:
        The digest that the file carries.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header: dict[str, object] = {}
    # widest types first, so that every tensor lies at a multiple of its element size
    order = sorted(held, key=lambda name: (-held[name].element_size(), name))
    end = 0
    for name in order:
        start, end = end, end + held[name].numel() * held[name].element_size()
        header[name] = {"dtype": DTYPES[held[name].dtype], "shape": list(held[name].shape), "data_offsets": [start, end]}
    notes = {"format": "pt", **(metadata or {})}
    digest = hashlib.sha256(_canonical(header, notes))
    for name in order:
        digest.update(_bytes(held[name]))
    notes["sha256"] = digest.hexdigest()
    text = json.dumps({"__metadata__": dict(sorted(notes.items())), **header}, separators=(",", ":")).encode()
    # the numbers begin at a multiple of eight
    text += b" " * (-len(text) % 8)
    with open_atomic(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(_bytes(held[name]))
    return notes["sha256"]


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a safetensors file, after comparing its digest, if it has one.

    Raises:
        CheckpointError: missing, no safetensors file, damaged, or not what was written.
    """
    check_tensors(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None


def check_tensors(path: Path) -> str | None:
    """The digest that a safetensors file carries, after comparing it with the content; None where it has none.

    Size and header are looked at first; the numbers are hashed once per file and time stamp.

    Raises:
        CheckpointError: damaged.
    """
    check_weights_file(path)
    stat = path.stat()
    header, start = _header(path, stat.st_size)
    notes = dict(header.pop("__metadata__", None) or {})
    stated = notes.pop("sha256", None)
    if stated is None:
        return None
    key = (os.path.realpath(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if _VERIFIED.get(key) != stated:
        digest = hashlib.sha256(_canonical(header, notes))
        with path.open("rb") as file:
            file.seek(start)
            while piece := file.read(PIECE):
                digest.update(piece)
        if digest.hexdigest() != stated:
            raise _damaged(path, f"SHA-256 is {digest.hexdigest()[:12]}, it was {str(stated)[:12]} when the weights were written")
        _VERIFIED[key] = stated
    return stated


def sha256_once(path: Path) -> str:
    """SHA-256 of a whole file, computed once per file and time stamp in this process."""
    stat = path.stat()
    key = (os.path.realpath(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _WHOLE:
        _WHOLE[key] = sha256_file(path)
    return _WHOLE[key]


def read_metadata(path: Path) -> dict[str, str]:
    """The text notes of a safetensors file."""
    return dict(_header(path, path.stat().st_size)[0].get("__metadata__") or {})


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape, from the header alone."""
    header = _header(path, path.stat().st_size)[0]
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def _header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        # a file of less than eight bytes counts as one with an impossible header
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > min(size - 8, MAX_HEADER):
            raise _damaged(path, f"its header would take {length:,} bytes, the file has {size:,}")
        try:
            header = json.loads(file.read(length))
            end = max((int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise _damaged(path, f"its header cannot be read: {type(error).__name__}") from None
    if size != 8 + length + end:
        raise _damaged(path, f"{8 + length + end:,} bytes are announced, {size:,} are there")
    return header, 8 + length


def _canonical(header: Mapping[str, Any], notes: Mapping[str, str]) -> bytes:
    return json.dumps([header, notes], sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(cast(Any, tensor.reshape(-1).view(torch.uint8).numpy()))


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: damaged, or not a safetensors file ({reason})", "copy or download it again; of a run, remove that checkpoint"
    )
