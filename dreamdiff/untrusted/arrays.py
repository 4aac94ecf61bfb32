"""Dictionaries of arrays saved with `numpy.save` or `pickle.dump`, read without executing anything in them.

THINGS-EEG2 and much other lab data come as `.npy` files that hold one pickled dictionary, which numpy only opens with
`allow_pickle=True`, that is by running whatever the file asks for. Here the pickle's own instructions are followed by a machine
that knows the thirty that build dictionaries, lists, strings, numbers and numpy arrays, and stops at every other. It has no
instruction that calls anything. Large arrays are not read but mapped, so that 8 GB files take no memory until they are used.

Source of the instruction set: Python's `pickletools`; of the two forms arrays take: numpy's `ndarray.__reduce_ex__`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from eegprep.errors import CheckpointError

_MAPPED = 1 << 16  # bytes from which a byte string is mapped instead of read

_MAX_OBJECTS = 5_000_000

_RECONSTRUCT = {f"{module} _reconstruct" for module in ("numpy.core.multiarray", "numpy._core.multiarray")}

_FROMBUFFER = {f"{module} _frombuffer" for module in ("numpy.core.numeric", "numpy._core.numeric")}

_SCALAR = {f"{module} scalar" for module in ("numpy.core.multiarray", "numpy._core.multiarray")}

_KNOWN = {*_RECONSTRUCT, *_FROMBUFFER, *_SCALAR, "numpy ndarray", "numpy dtype"}


def load(file: str | os.PathLike[str]) -> Any:
    """Read such a file.

    Returns:
        The dictionary (or other plain value) with numpy arrays; large ones are read-only views of the file.

    Raises:
        CheckpointError: missing, damaged, or it asks for something that is not plain data.
    """
    path = Path(file)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file", "check the path")
    with path.open("rb") as stream:
        start = stream.read(6)
        stream.seek(0)
        try:
            if start == b"\x93NUMPY":
                array = _plain_array(stream, path)
                if array is not None:
                    return array
            return _Finish(path)(_Machine(stream, path).run())
        except (
            struct.error,
            IndexError,
            EOFError,
            UnicodeDecodeError,
            TypeError,
            ValueError,
            OverflowError,
            KeyError,
            RecursionError,
        ) as error:
            raise CheckpointError(
                f"{path.name}: damaged, or not a pickled dictionary ({error or type(error).__name__})",
                "copy or download it again",
            ) from None


def _plain_array(stream: IO[bytes], path: Path) -> np.ndarray | None:
    """The array of an ordinary .npy file; None, with the stream behind the header, when it holds pickled objects."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read(stream)
    return None if dtype.hasobject else np.load(path, mmap_mode="r", allow_pickle=False)


class _Place:
    """Bytes that were left in the file."""

    def __init__(self, offset: int, length: int) -> None:
        self.offset, self.length = offset, length


class _Name:
    """A module and a name in it, never looked up."""

    def __init__(self, module: str, name: str) -> None:
        self.text = f"{module} {name}"


class _Dtype:
    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def build(self, path: Path) -> np.dtype[Any]:
        dtype = np.dtype(self.code)
        if dtype.hasobject and not self.code.startswith("O"):
            raise CheckpointError(f"{path.name}: refused: an array of type {self.code!r}", "do not trust this file")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class _Array:
    """An array under construction: shape, dtype, order and where its bytes are."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype: _Dtype | None = None
        self.fortran = False
        self.content: Any = b""
        self.scalar = False

    def set_state(self, state: Any) -> None:
        _, shape, self.dtype, fortran, self.content = state
        self.shape, self.fortran = tuple(int(n) for n in shape), bool(fortran)

    def build(self, finish: _Finish) -> Any:
        if not isinstance(self.dtype, _Dtype):
            raise ValueError("an array without a type")
        dtype = self.dtype.build(finish.path)
        order: Literal["F", "C"] = "F" if self.fortran else "C"
        if dtype.hasobject:
            if not isinstance(self.content, list):
                raise ValueError("an array of objects without its list")
            array = np.empty(len(self.content), dtype=object)
            for index, item in enumerate(self.content):
                array[index] = finish(item)
            return array.reshape(self.shape, order=order).tolist()
        if isinstance(self.content, _Place):
            if self.content.length != int(np.prod(self.shape)) * dtype.itemsize:
                raise ValueError(f"{self.content.length} bytes for an array of shape {self.shape}")
            return np.memmap(finish.path, dtype, "r", self.content.offset, self.shape, order)
        values = np.frombuffer(bytes(self.content), dtype=dtype).reshape(self.shape, order=order)
        return values[()] if self.scalar else values


class _Finish:
    """Turns what the machine built into plain values and arrays; counts them, because a short file can stand for many."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0

    def __call__(self, value: Any) -> Any:
        self.count += 1
        if self.count > _MAX_OBJECTS:
            raise CheckpointError(f"{self.path.name}: more than {_MAX_OBJECTS:,} values", "do not trust this file")
        if isinstance(value, _Array):
            return value.build(self)
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self(item) for item in value)
        if isinstance(value, _Place):
            return np.memmap(self.path, np.uint8, "r", value.offset, (value.length,)).tobytes()
        if isinstance(value, _Name | _Dtype):
            raise CheckpointError(f"{self.path.name}: refused: it holds a type instead of data", "do not trust this file")
        return value


class _Machine:
    """Follows the instructions of a pickle that holds plain data."""

    _MARK = object()

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream, self.path = stream, path
        self.size = path.stat().st_size
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle ends with."""
        count = 0
        while True:
            code = self._read(1)
            if code == b".":
                return self.stack.pop()
            action = _ACTIONS.get(code)
            if action is None:
                raise CheckpointError(
                    f"{self.path.name}: refused: pickle instruction {code!r} builds more than plain data",
                    "do not trust this file",
                )
            action(self)
            count += 1
            if count > _MAX_OBJECTS:
                raise CheckpointError(f"{self.path.name}: more than {_MAX_OBJECTS:,} instructions", "do not trust this file")

    def _read(self, n: int) -> bytes:
        content = self.stream.read(n) if 0 <= n <= self.size else b""
        if len(content) != n:
            raise EOFError("it ends too early")
        return content

    def number(self, form: str) -> Any:
        return struct.unpack(form, self._read(struct.calcsize(form)))[0]

    def line(self) -> str:
        text = self.stream.readline(1000)
        if not text.endswith(b"\n"):
            raise EOFError("it ends too early")
        return text[:-1].decode()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def text(self, length: int) -> None:
        self.push(self._read(length).decode())

    def content(self, length: int) -> None:
        if length < _MAPPED:
            self.push(self._read(length))
            return
        place = _Place(self.stream.tell(), length)
        if place.offset + length > self.size:
            raise EOFError("it ends too early")
        self.stream.seek(length, os.SEEK_CUR)
        self.push(place)

    def marked(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is self._MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise IndexError("no mark")

    def mark(self) -> None:
        self.push(self._MARK)

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def tuple_of(self, n: int) -> None:
        items = tuple(self.stack[len(self.stack) - n :])
        del self.stack[len(self.stack) - n :]
        self.push(items)

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError("items for something that is no list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise TypeError("items for something that is no dictionary")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def name(self, module: Any, name: Any) -> None:
        found = _Name(str(module), str(name))
        if found.text not in _KNOWN:
            raise CheckpointError(
                f"{self.path.name}: refused: it asks for {module}.{name}", "only plain arrays are read; do not trust this file"
            )
        self.push(found)

    def reduce(self) -> None:
        """What would be a call: here one of five ways to describe an array."""
        arguments = self.stack.pop()
        called = self.stack.pop()
        text = called.text if isinstance(called, _Name) else ""
        if text in _RECONSTRUCT:
            self.push(_Array())
        elif text == "numpy dtype":
            self.push(_Dtype(str(arguments[0])))
        elif text in _FROMBUFFER:
            array = _Array()
            array.content, array.dtype, shape, order = arguments
            array.shape, array.fortran = tuple(int(n) for n in shape), order == "F"
            self.push(array)
        elif text in _SCALAR:
            array = _Array()
            (array.dtype, array.content), array.shape, array.scalar = arguments, (), True
            self.push(array)
        else:
            raise CheckpointError(f"{self.path.name}: refused: it calls something", "do not trust this file")

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Array):
            target.set_state(state)
        elif isinstance(target, _Dtype):
            target.order = str(state[1])
        else:
            raise CheckpointError(f"{self.path.name}: refused: it sets the state of an object", "do not trust this file")


def _long(machine: _Machine) -> None:
    machine.push(int.from_bytes(machine._read(machine.number("<B")), "little", signed=True))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.name(module, name)


_ACTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.number("<B"),  # protocol
    b"\x95": lambda m: m.number("<Q"),  # frame: its length is of no use here
    b"(": lambda m: m.mark(),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": _long,
    b"G": lambda m: m.push(m.number(">d")),
    b"X": lambda m: m.text(m.number("<I")),
    b"\x8c": lambda m: m.text(m.number("<B")),
    b"\x8d": lambda m: m.text(m.number("<Q")),
    b"B": lambda m: m.content(m.number("<I")),
    b"C": lambda m: m.content(m.number("<B")),
    b"\x8e": lambda m: m.content(m.number("<Q")),
    b"\x96": lambda m: m.content(m.number("<Q")),
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.marked())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"l": lambda m: m.push(m.marked()),
    b"d": lambda m: m.push(dict(zip((items := m.marked())[::2], items[1::2], strict=True))),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.marked()),
    b"s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m.set_items(m.marked()),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": _stack_global,
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
}
