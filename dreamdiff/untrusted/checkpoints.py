"""Reads PyTorch `.pth`, `.ckpt`, `.pt` and `.bin` files of unknown origin without executing anything in them.

`load` gives the structure as plain values: `machine` follows the pickle's instructions and calls nothing, tensors are views of the
mapped file. Objects of foreign classes (callbacks, configurations) become inert `Foreign` records. The checksums that the zip
format carries are compared, so a damaged file is an error.

`torch.load(weights_only=True, mmap=True)` was tried in its place (torch 2.14): it reads pickle protocol 2 only, cannot hold a foreign
class that is a dictionary (Lightning's `AttributeDict`, `Counter`), needs every class registered as a callable, has no limit on work
or memory, follows nothing of numpy's object arrays, and does not compare the zip's checksums.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamdiff.untrusted.kinds import check_weights_file
from dreamdiff.untrusted.machine import Machine, Name, Refused
from dreamdiff.untrusted.values import DAMAGE, PLAIN_CALLS, Finish, mapped
from eegprep.errors import CheckpointError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch's format before 1.6
MAX_STRUCTURE = 256 << 20  # bytes of data.pkl; Stable Diffusion's has 0.5 MB, 12,000 trials of EEG 3 MB
SPARE = 64 << 20  # bytes by which tensors may exceed the file: views that repeat a little
DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "Untyped": "uint8", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}  # fmt: skip


def load(file: str | Path) -> Any:
    """Read a PyTorch file (zip, or the format of torch 0.1.10 to 1.5) as plain values.

    Returns:
        dict, list, tuple, set, str, numbers, bytes, numpy arrays, `Foreign` and `Name` for objects and classes of others, and CPU
        tensors that share the file's pages copy-on-write: gigabytes take no memory until they are touched.

    Raises:
        CheckpointError: missing, damaged, not a checkpoint, or it asks for something that no checkpoint needs.
    """
    path = Path(file)
    head = check_weights_file(path)
    try:
        content = mapped(path)  # stays mapped as long as an array lies over it
        reader = _Zip(path, content) if head.startswith(b"PK\x03\x04") else _Legacy(path, content)
        structure = reader.structure()
        tensors = _Tensors(path, reader)
        return Finish(content, {TensorAt: tensors, StorageAt: lambda storage: tensors(storage.whole())})(structure)
    except Refused as error:
        raise CheckpointError(
            f"{file}: refused: {error}", "only load checkpoints whose contents you know; nothing of this one was executed"
        ) from None
    except (*DAMAGE, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{file}: damaged, or not a PyTorch file ({reason[0][:200] if reason else type(error).__name__})",
            "download or copy it again",
        ) from None


@dataclass(frozen=True, eq=False)
class StorageAt:
    """Where numbers lie: `key` names a member of the zip or an entry of the storage list."""

    dtype: str
    key: str
    numel: int
    offset: int = 0

    def whole(self) -> TensorAt:
        return TensorAt(self, 0, (self.numel,), (1,))


@dataclass(frozen=True, eq=False)
class TensorAt:
    """A tensor as a view of a storage; offset, size and stride count elements."""

    storage: StorageAt
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str | None = None

    def set_state(self, state: Any) -> None:
        """Python attributes of a tensor are of no use here."""


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorAt:
    if not isinstance(storage, StorageAt):
        raise Refused("a tensor without a storage")
    dtype = rest[2].name if len(rest) > 2 and isinstance(rest[2], Name) else None  # version 3: requires_grad, hooks, dtype
    return TensorAt(storage, int(offset) + storage.offset, tuple(int(n) for n in size), tuple(int(n) for n in stride), dtype)


def _typed(kind: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2(function, type, arguments, state)`: a subclass, here its tensor."""
    make = CALLS.get(kind.text) if isinstance(kind, Name) else None
    if make is None:
        raise Refused("a tensor of a class that is not read here")
    return make(*arguments)


CALLS: dict[str, Callable[..., Any]] = {
    **PLAIN_CALLS,
    **{f"torch._utils._rebuild_tensor{version}": _tensor for version in ("", "_v2", "_v3")},
    **{f"torch._utils._rebuild_parameter{kind}": lambda data=None, *_: data for kind in ("", "_with_state")},
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": lambda sizes=(), *_: tuple(sizes),
    "torch.device": lambda *parts: ":".join(str(part) for part in parts),
    **{f"torch.serialization._get_{what}": lambda name=None, *_: name for what in ("layout", "dtype")},
}


def _storage(reference: Any) -> StorageAt:
    """('storage', type, key, location, elements[, view]) as both formats write it."""
    if not (
        isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage" and isinstance(reference[1], Name)
    ):
        raise Refused(f"an unknown kind of reference ({str(reference)[:80]})")
    kind = reference[1].name.removesuffix("Storage")
    if kind not in DTYPES:
        raise Refused(f"numbers of the unknown type {reference[1].text}")
    view = reference[5] if len(reference) == 6 else None
    return StorageAt(DTYPES[kind], str(reference[2]), int(reference[4]), int(view[1]) if view else 0)


class _Zip:
    """torch >= 1.6: a zip with NAME/data.pkl and uncompressed NAME/data/KEY."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content = path, content
        with zipfile.ZipFile(path) as archive:
            self.members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in self.members if name == "data.pkl" or name.endswith("/data.pkl")]
        if any(name.endswith("constants.pkl") for name in self.members):
            raise Refused(
                "it is a TorchScript archive (a program with its weights), not a state_dict; save model.state_dict() with torch.save"
            )
        if len(pickles) != 1:
            raise Refused("it is a zip file, but not one of torch (no data.pkl)")
        self.root = pickles[0].removesuffix("data.pkl")

    def structure(self) -> Any:
        order = self.root + "byteorder"
        if order in self.members and self._bytes(order).strip() != b"little":
            raise Refused("its numbers are big-endian")
        start, length = self._place(self.root + "data.pkl")
        if length > MAX_STRUCTURE:
            raise Refused(f"its structure alone takes {length:,} bytes (limit {MAX_STRUCTURE:,})")
        self._check(self.root + "data.pkl", start, length)
        return Machine(self.content, start, start + length, CALLS, _storage).run()

    def place(self, storage: StorageAt) -> tuple[int, int]:
        """First byte and length of a storage, after comparing its checksum."""
        name = f"{self.root}data/{storage.key}"
        start, length = self._place(name)
        self._check(name, start, length)
        return start, length

    def _place(self, name: str) -> tuple[int, int]:
        info = self.members.get(name)
        if info is None:
            raise ValueError(f"{name} is missing in it")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Refused(f"{name} in it is compressed or encrypted, which torch never does")
        at = info.header_offset
        if self.content[at : at + 4] != b"PK\x03\x04":
            raise ValueError(f"{name}: its header is damaged")
        # the local header's own lengths: they differ from those in the table of contents, as torch pads members to 64 bytes
        start = at + 30 + sum(struct.unpack("<HH", self.content[at + 26 : at + 30]))  # name and extra field
        if start + info.file_size > len(self.content) or info.compress_size != info.file_size:
            raise ValueError(f"{name} is cut short")
        return start, info.file_size

    def _bytes(self, name: str) -> bytes:
        start, length = self._place(name)
        return self.content[start : start + min(length, 100)]

    def _check(self, name: str, start: int, length: int) -> None:
        checksum = 0
        # in pieces: a slice of a mapping is a copy
        for at in range(start, start + length, 1 << 24):
            checksum = zlib.crc32(self.content[at : min(at + (1 << 24), start + length)], checksum)
        if checksum != self.members[name].CRC and self.members[name].CRC != 0:  # writers that know no checksum leave 0
            raise ValueError(f"{name}: its checksum is {checksum:08x}, it was {self.members[name].CRC:08x} when it was written")


class _Legacy:
    """torch 0.1.10 to 1.5: magic, version, system, object, keys, then for each key a count and raw numbers. It has no checksums."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content = path, content
        self.used: dict[str, str] = {}
        self.places: dict[str, tuple[int, int]] = {}
        self.position = 0

    def structure(self) -> Any:
        if self.content[257:262] == b"ustar":
            raise Refused("it is a tar file; torch has not written its own since 0.1.10")
        if self._pickle(plain=True) != LEGACY_MAGIC:
            raise Refused("it is a pickle, but not one of torch")
        self._pickle(plain=True)
        system = self._pickle(plain=True)
        if isinstance(system, dict) and not system.get("little_endian", True):
            raise Refused("its numbers are big-endian")
        content = self._pickle(plain=False)
        for key in self._pickle(plain=True):
            (numel,) = struct.unpack("<q", self.content[self.position : self.position + 8])
            length = numel * getattr(torch, self.used.get(str(key), "float32")).itemsize
            start = self.position + 8
            if numel < 0 or start + length > len(self.content):
                raise ValueError(f"it is cut short: {start + length} bytes are announced, {len(self.content)} are there")
            self.places[str(key)] = (start, length)
            self.position = start + length
        return content

    def place(self, storage: StorageAt) -> tuple[int, int]:
        """First byte and length of a storage."""
        if storage.key not in self.places:
            raise ValueError(f"the numbers of storage {storage.key} are missing")
        return self.places[storage.key]

    def _pickle(self, *, plain: bool) -> Any:
        machine = Machine(
            self.content, self.position, len(self.content), PLAIN_CALLS if plain else CALLS, None if plain else self._resolve
        )
        result = machine.run()
        self.position = machine.position
        return result

    def _resolve(self, reference: Any) -> StorageAt:
        storage = _storage(reference)
        self.used[storage.key] = storage.dtype
        return storage


class _Tensors:
    """Lays tensors over a private mapping of the file."""

    def __init__(self, path: Path, reader: _Zip | _Legacy) -> None:
        self.reader = reader
        # "c": pages are copied when written to, never back into the file
        self.pages = np.memmap(path, dtype=np.uint8, mode="c")
        self.storages: dict[tuple[str, str], Tensor] = {}
        self.places: dict[str, tuple[int, int]] = {}
        self.total = 0

    def __call__(self, tensor: TensorAt) -> Tensor:
        dtype = getattr(torch, tensor.dtype or tensor.storage.dtype)
        storage = self._storage(tensor.storage, dtype)
        size, stride = tensor.size, tensor.stride
        if len(size) != len(stride) or tensor.offset < 0 or min((*stride, 0)) < 0 or min((*size, 0)) < 0:
            raise ValueError("a tensor with a negative size, stride or offset")
        last = (
            tensor.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else tensor.offset - 1
        )
        if last >= storage.numel():
            raise ValueError(f"a tensor reaches to element {last} of a storage of {storage.numel()}")
        # a view can repeat its numbers without end: a few bytes would become terabytes when they are copied
        self.total += math.prod(size) * dtype.itemsize
        if self.total > 4 * len(self.pages) + SPARE:
            raise Refused(f"its tensors hold {self.total:,} bytes, the file has {len(self.pages):,}")
        return torch.as_strided(storage, size, stride, tensor.offset)

    def _storage(self, storage: StorageAt, dtype: torch.dtype) -> Tensor:
        key = (storage.key, str(dtype))
        if key not in self.storages:
            if storage.key not in self.places:
                self.places[storage.key] = self.reader.place(storage)
            start, length = self.places[storage.key]
            content = np.asarray(self.pages[start : start + length])
            # old files align nothing, and torch wants whole numbers at whole places
            if content.ctypes.data % dtype.itemsize:
                content = content.copy()
            whole = length // dtype.itemsize * dtype.itemsize
            flat = torch.from_numpy(content[:whole]) if whole else torch.empty(0, dtype=torch.uint8)
            self.storages[key] = flat.view(dtype)
        return self.storages[key]
