"""Looks into packed files without unpacking their samples: how many bytes they hold, and which fields."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 20  # bytes
_COMPRESSED = 15  # type of a compressed element of a MATLAB file, version 5
_STRUCTURE = 2  # class of an array
_BEGIN = 1 << 16  # bytes in which the names of the fields of a structure lie
_NAMES = (".gz", ".set", ".mat")


def held_bytes(path: Path) -> int:
    """Bytes that `path` unfolds to; its size where it is not compressed, or cannot be unfolded.

    Deflate packs at most 1032 to 1, so that counting takes a second for each megabyte of the worst file.
    """
    if not path.name.lower().endswith(_NAMES):
        return path.stat().st_size
    status = path.stat()
    return max(status.st_size, _counted(str(path), status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=4096)
def _counted(path: str, size: int, changed: int) -> int:
    try:
        with Path(path).open("rb") as file:
            head = file.read(128)
            if head[:2] == b"\x1f\x8b":
                file.seek(0)
                return sum(len(piece) for piece in _inflated(file, size, zlib.MAX_WBITS | 16))
            if head[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
                return sum(_elements(file, "<" if head[126:128] == b"IM" else ">"))
            if head.startswith(b"\x89HDF") or head.startswith(b"MATLAB 7.3"):
                return _in_hdf5(path)
    except (OSError, struct.error, ValueError):
        pass  # reading it will tell
    return size


def _inflated(file: BinaryIO, length: int, form: int) -> Iterator[bytes]:
    """The unpacked pieces of the next `length` bytes; several gzip members one after the other."""
    engine, left = zlib.decompressobj(form), length
    while left > 0 and (packed := file.read(min(_PIECE, left))):
        left -= len(packed)
        while packed:
            try:
                # at most a piece at a time: the whole may not fit into memory, which is what this is for
                yield engine.decompress(packed, _PIECE)
            except zlib.error:  # what follows is damaged, or no part of it
                return
            packed = engine.unconsumed_tail
            if engine.eof:
                packed, engine = engine.unused_data, zlib.decompressobj(form)


def _elements(file: BinaryIO, order: str) -> Iterator[int]:
    """Unpacked bytes of every element of a MATLAB file."""
    while len(tag := file.read(8)) == 8:
        kind, length = struct.unpack(f"{order}II", tag)
        start = file.tell()
        yield sum(len(piece) for piece in _inflated(file, length, zlib.MAX_WBITS)) if kind == _COMPRESSED else length
        file.seek(start + length, os.SEEK_SET)


def struct_fields(path: Path, name: str) -> tuple[str, ...]:
    """Names of the fields of the structure `name` of a MATLAB file, version 5, from its first bytes; empty where it has no such structure.

    Samples stay packed: a structure begins with the names of its fields, and its values follow.
    """
    with path.open("rb") as file:
        head = file.read(128)
        if head[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
            return ()
        order = "<" if head[126:128] == b"IM" else ">"
        while len(tag := file.read(8)) == 8:
            kind, length = struct.unpack(f"{order}II", tag)
            start = file.tell()
            if kind == _COMPRESSED:
                begin = next(_inflated(file, min(length, _BEGIN), zlib.MAX_WBITS), b"")[8:]
            else:
                begin = file.read(min(length, _BEGIN))
            try:
                names = _names_of_fields(begin, order, name)
            except (struct.error, IndexError):
                names = ()
            if names:
                return names
            file.seek(start + length, os.SEEK_SET)
    return ()


def _names_of_fields(begin: bytes, order: str, name: str) -> tuple[str, ...]:
    """From the first bytes of an element: flags, size and name of the array, length of a field's name, all names one after the other."""
    parts, place = [], 0
    for _ in range(5):
        kind, length = struct.unpack_from(f"{order}II", begin, place)
        if kind >> 16:  # up to four bytes lie in the tag itself
            length, data, place = kind >> 16, place + 4, place + 8
        else:
            data, place = place + 8, place + 8 + -(-length // 8) * 8
        parts.append(begin[data : data + length])
    flags, _, own_name, width, names = parts
    if struct.unpack(f"{order}I", flags[:4])[0] & 0xFF != _STRUCTURE or own_name.decode("latin-1") != name:
        return ()
    step = struct.unpack(f"{order}I", width)[0]
    return tuple(names[at : at + step].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), max(1, step)))


def _in_hdf5(path: str) -> int:
    import h5py

    total = 0

    def add(name: str, item: object) -> None:
        nonlocal total
        total += item.nbytes if isinstance(item, h5py.Dataset) else 0

    with h5py.File(path) as file:
        file.visititems(add)
    return total
