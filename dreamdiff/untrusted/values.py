"""Turns what the machine built into plain values: numpy arrays over the file, dictionaries, lists; counted, and each object once."""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dreamdiff.untrusted.machine import Foreign, Name, Place, Refused

MAX_VALUES = 5_000_000  # values of the tree if everything in it were written out
MAX_DEPTH = 64
DAMAGE = (
    struct.error, IndexError, EOFError, UnicodeError, TypeError, ValueError, OverflowError, KeyError, AttributeError, RecursionError,
    RuntimeError, NotImplementedError, MemoryError,
)  # fmt: skip
"""What reading a damaged file provokes; each is the file's fault."""


def mapped(path: Path) -> mmap.mmap:
    """A file as bytes that are read when they are looked at."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass
class DtypeAt:
    """A numpy dtype by its code."""

    code: str
    order: str = "="

    def set_state(self, state: Any) -> None:
        if len(state) > 1 and isinstance(state[1], str):
            self.order = state[1]

    def build(self) -> np.dtype[Any]:
        # codes of plain types are short; longer ones describe records
        if len(self.code) > 16:
            raise Refused(f"an array of type {self.code[:40]!r}")
        dtype = np.dtype(self.code)
        if dtype.hasobject and not self.code.startswith("O"):
            raise Refused(f"an array of type {self.code!r}")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


@dataclass(eq=False)
class ArrayAt:
    """A numpy array under construction: shape, type, order, and its bytes or where they are."""

    content: Any = b""
    dtype: Any = None
    shape: tuple[int, ...] = (0,)
    fortran: bool = False
    scalar: bool = False

    def set_state(self, state: Any) -> None:
        _, shape, self.dtype, fortran, self.content = state
        self.shape, self.fortran = tuple(int(n) for n in shape), bool(fortran)


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> ArrayAt:
    return ArrayAt(content, dtype, tuple(int(n) for n in shape), order == "F")


def _scalar(dtype: Any, content: Any = b"") -> ArrayAt:
    return ArrayAt(content, dtype, (), scalar=True)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise Refused(f"a text in the encoding {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _collection(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    def make(items: Any = (), *_: Any) -> Any:
        if not isinstance(items, list | tuple | set | frozenset):
            raise TypeError("a collection of something that is no list")
        if kind in (set, frozenset) and any(isinstance(item, tuple | int) for item in items):
            return list(items)  # hashing chosen numbers can take for ever
        return kind(items)

    return make


def _dictionary(items: Any = (), *_: Any) -> dict[Any, Any]:
    """What collections.OrderedDict and its kin are here; Python 2 gave the items to the constructor, as lists of two."""
    if isinstance(items, dict):
        return dict(items)
    if isinstance(items, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in items):
        return {key: value for key, value in items if isinstance(key, str)}
    return {}


_BUILTINS = ("builtins", "__builtin__")
_NUMPY = ("numpy.core", "numpy._core")
PLAIN_CALLS: dict[str, Callable[..., Any]] = {
    **{f"collections.{name}": _dictionary for name in ("OrderedDict", "defaultdict", "Counter")},
    **{f"{module}.multiarray._reconstruct": lambda *_: ArrayAt() for module in _NUMPY},
    **{f"{module}.multiarray.scalar": _scalar for module in _NUMPY},
    **{f"{module}.numeric._frombuffer": _frombuffer for module in _NUMPY},
    "numpy.dtype": lambda code, *_: DtypeAt(code.text.rpartition(".")[2] if isinstance(code, Name) else str(code)),
    "_codecs.encode": _encode,
    **{f"{module}.set": _collection(set) for module in _BUILTINS},
    **{f"{module}.frozenset": _collection(frozenset) for module in _BUILTINS},
    **{f"{module}.list": _collection(list) for module in _BUILTINS},
    **{f"{module}.{name}": lambda content=b"", *_: content for module in _BUILTINS for name in ("bytes", "bytearray")},
    **{f"{module}._reconstructor": lambda kind, *_: Foreign(kind.text) for module in ("copyreg", "copy_reg")},
    **{f"copyreg.{name}": lambda kind, *_: Foreign(kind.text) for name in ("__newobj__", "__newobj_ex__")},
}  # fmt: skip


class Finish:
    """Turns what the machine built into plain values, each object once, so that what a file refers to twice is shared, not copied.

    Args:
        content: the mapped file, over which large arrays are laid.
        others: type -> what becomes of it, for what only one format has (tensors).
    """

    def __init__(self, content: mmap.mmap, others: Mapping[type, Callable[[Any], Any]] | None = None) -> None:
        self.content, self.others = content, others or {}
        self._open: set[int] = set()
        self._made: dict[int, tuple[Any, Any, int]] = {}  # id -> (kept alive, plain value, values in it)

    def __call__(self, value: Any, depth: int = 0) -> Any:
        """The plain value.

        Raises:
            Refused: nested too deep, or more values than `MAX_VALUES` if every reference were written out.
        """
        return self._visit(value, depth)[0]

    def _visit(self, value: Any, depth: int) -> tuple[Any, int]:
        if value is None or isinstance(value, bool | int | float | str | bytes | Name):
            return value, 1
        known = self._made.get(id(value))
        if known is not None:
            return known[1], known[2]
        if id(value) in self._open:
            raise Refused("it has a list that holds itself")
        if depth > MAX_DEPTH:
            raise Refused(f"its values are nested more than {MAX_DEPTH} deep")
        made, count = self._make(value, depth + 1)
        if count > MAX_VALUES:
            raise Refused(f"it stands for more than {MAX_VALUES:,} values")
        # the original is kept as well: its id must not go to another object
        self._made[id(value)] = (value, made, count)
        return made, count

    def _make(self, value: Any, depth: int) -> tuple[Any, int]:
        other = self.others.get(type(value))
        if other is not None:
            return other(value), 1
        if isinstance(value, ArrayAt):
            return self._array(value, depth)
        if isinstance(value, dict):
            return self._dict(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            self._open.add(id(value))
            pairs = [self._visit(item, depth) for item in value]
            self._open.discard(id(value))
            kind = list if isinstance(value, list) else tuple if isinstance(value, tuple) else type(value)
            return kind(item for item, _ in pairs), 1 + sum(count for _, count in pairs)
        if isinstance(value, Place):
            return self.content[value.offset : value.offset + value.length], 1
        if isinstance(value, Foreign):
            return self._foreign(value, depth)
        if isinstance(value, DtypeAt):
            return value.code, 1
        raise Refused(f"it holds a {type(value).__name__}, which has no plain form")

    def _dict(self, value: dict[Any, Any], depth: int) -> tuple[dict[Any, Any], int]:
        made: dict[Any, Any] = {}
        self._made[id(value)] = (value, made, 1)
        total = 1
        for key, item in value.items():
            plain = self._visit(key, depth)[0] if isinstance(key, ArrayAt) and key.scalar else key
            made[plain], count = self._visit(item, depth)
            total += 1 + count
        return made, total

    def _foreign(self, value: Foreign, depth: int) -> tuple[Foreign, int]:
        made = Foreign(value.type_name)
        self._made[id(value)] = (value, made, 1)
        attributes, first = self._dict(value.attributes, depth)
        arguments, second = self._visit(value.arguments, depth)
        items, third = self._visit(value.items, depth)
        made.attributes, made.arguments, made.items = attributes, arguments, items
        return made, 1 + first + second + third

    def _array(self, value: ArrayAt, depth: int) -> tuple[Any, int]:
        if not isinstance(value.dtype, DtypeAt):
            raise ValueError("an array without a type")
        dtype = value.dtype.build()
        order: Literal["F", "C"] = "F" if value.fortran else "C"
        if dtype.hasobject:
            if not isinstance(value.content, list) or math.prod(value.shape) != len(value.content):
                raise ValueError("an array of objects without its list")
            items, count = self._visit(value.content, depth)
            array = np.empty(len(items), dtype=object)
            array[:] = items if not any(isinstance(item, list | tuple | np.ndarray) for item in items) else [None] * len(items)
            for index, item in enumerate(items):
                array[index] = item
            return array.reshape(value.shape, order=order).tolist(), count
        content = value.content.encode("latin1") if isinstance(value.content, str) else value.content
        length = content.length if isinstance(content, Place) else len(content)
        if min((*value.shape, 0)) < 0 or length != math.prod(value.shape) * dtype.itemsize:
            raise ValueError(f"{length} bytes for an array of shape {value.shape} and type {dtype}")
        if isinstance(content, Place):
            flat = np.frombuffer(self.content, np.uint8, length, content.offset)
            return flat.view(dtype).reshape(value.shape, order=order), 1
        if dtype.itemsize == 0:  # empty texts
            return "" if value.scalar else [""] * min(math.prod(value.shape), MAX_VALUES), 1
        array = np.frombuffer(content, dtype=dtype).reshape(value.shape, order=order)
        return (array[()] if value.scalar else array), 1
