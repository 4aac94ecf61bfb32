"""Follows the instructions of a pickle with a machine that calls nothing, imports nothing and sets no attribute.

A pickle is a program for a small stack machine. This one builds dictionaries, lists, tuples, sets, text and numbers itself. What
would be a class or function in the original stays a `Name`; what would be a call of it becomes an inert `Foreign` record, or, for
names in the table of a caller (tensors, numpy arrays), what that table makes of the arguments. So a checkpoint that carries
callbacks or configuration objects beside its weights is read, and nothing of theirs runs.

Work and memory are bounded: instructions, bytes of text, length of numbers and depth of keys have limits, and nothing is copied
that the file refers to twice. Byte strings of 64 KiB or more are not read but located (`Place`), so that arrays of gigabytes take no memory.

Source of the instruction set: Python's `pickletools`.
"""

from __future__ import annotations

import mmap
import struct
import sys
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_INSTRUCTIONS = 5_000_000
MAX_TEXT = 256 << 20  # bytes of text and small byte strings
MAX_NUMBER = 1024  # bytes of one integer: Python needs quadratic time to print longer ones
LOCATED = 1 << 16  # bytes from which a byte string is located instead of read

# modules of the standard library whose objects are data; all others of the standard library can do something
_HARMLESS = {
    "__future__", "abc", "argparse", "array", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions", "logging",
    "numbers", "pathlib", "random", "string", "time", "typing", "uuid", "zoneinfo",
}  # fmt: skip
_HARMLESS_NAMES = {
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in (
        "set", "frozenset", "range", "xrange", "slice", "complex", "list", "dict", "tuple", "int", "float", "str", "unicode", "bytes",
        "bytearray", "bool", "object", "type", "NoneType", "Ellipsis", "NotImplemented")),
    "types.SimpleNamespace", "types.MappingProxyType", "functools.partial", "_codecs.encode",
    "copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__",
}  # fmt: skip
# libraries with functions that read files or run programs; their classes are inert here, their functions are refused
_POWERFUL = {"torch", "numpy", "pip", "setuptools", "pkg_resources", "IPython", "cffi", "pandas", "scipy", "sympy", "joblib", "dill", "cloudpickle"}  # fmt: skip


class Refused(Exception):
    """The file asks for something that is not plain data, or for more than the limits allow."""


@dataclass(frozen=True)
class Place:
    """Bytes that were left in the file: first byte and length."""

    offset: int
    length: int


@dataclass(frozen=True)
class Name:
    """A class or function of the pickle, never looked up."""

    module: str
    name: str

    @property
    def text(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Foreign:
    """An object of a class that is known by name only: its parts as plain values.

    attributes: what would be in its `__dict__`. items: what was put into it as into a list or dictionary.
    """

    type_name: str
    arguments: tuple[Any, ...] = ()
    attributes: dict[str, object] = field(default_factory=dict)
    items: dict[Any, Any] | list[Any] | None = None

    def set_state(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.attributes.update({key: value for key, value in part.items() if isinstance(key, str)})


Calls = Mapping[str, Callable[..., Any]]


def check_name(module: str, name: str, known: Calls) -> None:
    """Stop a name that could do something if it were looked up. It never is; but a file that asks for it is no checkpoint.

    Raises:
        Refused: naming it.
    """
    text = f"{module}.{name}"
    root = IMPORT_MAPPING.get(module, module).partition(".")[0]  # pickles of protocol 2 have the module names of Python 2
    if text in known or text in _HARMLESS_NAMES:
        return
    # by convention classes are capitalised and functions are not
    plain_class = name[:1].isupper() and "." not in name
    if root in sys.stdlib_module_names or root in ("nt", "posix"):
        refused = root not in _HARMLESS or "." in name
    elif root in _POWERFUL:
        refused = not (plain_class or module.startswith(("torch.nn.", "numpy.random.")) or _is_type(module, name))
    else:
        refused = "__" in name
    if refused:
        raise Refused(f"it asks for {text}, which is not on the list of harmless names")


def _is_type(module: str, name: str) -> bool:
    """Number types of torch and numpy (`torch.float16`, `numpy.int64`)."""
    return module in ("torch", "numpy") and name.rstrip("_0123456789") in (
        "float", "bfloat", "half", "double", "int", "uint", "short", "long", "complex", "bool", "str", "bytes", "dtype", "ndarray",
        "strided", "sparse_coo", "contiguous_format", "preserve_format", "channels_last",
    )  # fmt: skip


class Machine:
    """Runs one pickle in `content` from `start` on.

    Args:
        content: the mapped file, so that places are positions in it.
        start, end: where the pickle lies; `position` is behind it after `run`.
        calls: what to make of a call or a state for known names: `calls[name](*arguments)`. An answer may have `set_state`.
        storage: what to make of a persistent reference (torch's storages); None refuses them.
    """

    def __init__(
        self, content: mmap.mmap | bytes, start: int, end: int, calls: Calls, storage: Callable[[Any], Any] | None = None
    ) -> None:
        self.content, self.position, self.end = content, start, end
        self.calls, self.storage = calls, storage
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.text_bytes = self.tuple_keys = 0

    def run(self) -> Any:
        """The value that the pickle ends with.

        Raises:
            Refused: it asks for something, or exceeds a limit. Other errors (IndexError, KeyError, ...): it is damaged.
        """
        content, actions = self.content, _ACTIONS
        for _ in range(MAX_INSTRUCTIONS):
            if self.position >= self.end:
                raise EOFError("it ends too early")
            code = content[self.position]
            self.position += 1
            if code == 46:  # STOP
                return self.stack.pop()
            action = actions.get(code)
            if action is None:
                raise Refused(f"pickle instruction {bytes([code])!r} builds more than plain data")
            action(self)
        raise Refused(f"its structure has more than {MAX_INSTRUCTIONS:,} instructions")

    # --- reading

    def read(self, n: int) -> bytes:
        last = self.position + n
        if n < 0 or last > self.end:
            raise EOFError("it ends too early")
        content = self.content[self.position : last]
        self.position = last
        return content

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def line(self, encoding: str = "utf-8") -> str:
        last = self.content.find(b"\n", self.position, min(self.end, self.position + MAX_TEXT))
        if last < 0:
            raise EOFError("a line without an end")
        text = self.counted(last - self.position)
        self.position = last + 1
        return text.decode(encoding, "replace")

    def counted(self, n: int) -> bytes:
        """Bytes of a text or a small byte string; how many there may be is limited."""
        self.text_bytes += n
        if self.text_bytes > MAX_TEXT:
            raise Refused(f"its texts take more than {MAX_TEXT >> 20} MiB")
        return self.read(n)

    # --- values

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def text(self, length: int) -> None:
        self.push(self.counted(length).decode("utf-8", "surrogatepass"))

    def old_text(self, length: int) -> None:
        """A `str` of Python 2: text if it is ASCII, else bytes."""
        text = self.counted(length)
        self.push(text.decode() if text.isascii() else text)

    def bytes_(self, length: int) -> None:
        if length < LOCATED:
            self.push(self.counted(length))
            return
        place = Place(self.position, length)
        if place.offset + length > self.end:
            raise EOFError("it ends too early")
        self.position += length
        self.push(place)

    def integer(self, length: int) -> None:
        if length > MAX_NUMBER:
            raise Refused(f"it holds an integer of {length:,} bytes (limit {MAX_NUMBER:,})")
        self.push(int.from_bytes(self.counted(length), "little", signed=True))

    def integer_line(self) -> None:
        text = self.line().removesuffix("L")
        if len(text) > MAX_NUMBER:
            raise Refused(f"it holds an integer of {len(text):,} digits (limit {MAX_NUMBER:,})")
        # protocol 0 writes booleans so
        self.push({"00": False, "01": True}.get(text, int(text)))

    def quoted_line(self) -> None:
        text = self.line()
        if len(text) < 2 or text[0] != text[-1] or text[0] not in "\"'" or "\\" in text:
            raise Refused("it holds a text in a notation of Python 2 that is not read here")
        self.push(text[1:-1])

    # --- structure

    def key(self, value: Any) -> Any:
        """A key of a dictionary or member of a set, if hashing it takes no time to speak of.

        Python mixes texts with a secret before hashing, but large integers and nested tuples can be made to collide or to take for ever.
        """
        if isinstance(value, tuple):
            self.tuple_keys += 1
            if self.tuple_keys > 10_000 or not _is_small(value):
                raise Refused("its dictionaries have too many or too large tuples as keys")
        elif isinstance(value, dict | list | set):
            raise TypeError(f"a {type(value).__name__} as a key")
        # integers are hashed modulo 2^61 - 1, so that larger ones can be chosen to collide
        elif isinstance(value, int) and abs(value) >= 1 << 60:
            raise Refused("a dictionary with a key of more than 60 bits")
        return value

    def pairs(self, items: list[Any]) -> dict[Any, Any]:
        return {self.key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}

    def members(self, items: list[Any]) -> list[Any]:
        return [self.key(item) for item in items]

    def marked(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise IndexError("no mark")

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def tuple_of(self, n: int) -> None:
        if len(self.stack) < n:
            raise IndexError("too few values for a tuple")
        items = tuple(self.stack[-n:])
        del self.stack[-n:]
        self.push(items)

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Foreign):
            if not isinstance(target.items, dict | list):
                target.items = []
            target = target.items
        if type(target) is set:
            target.update(self.members(items))
        elif type(target) is list:
            target.extend(items)
        else:
            raise TypeError("items for something that is no list")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Foreign):
            target.items = target.items if isinstance(target.items, dict) else {}
            target = target.items
        if type(target) is not dict:
            raise TypeError("items for something that is no dictionary")
        target.update(self.pairs(items))

    def name(self, module: Any, name: Any) -> None:
        named = Name(str(module), str(name))
        check_name(named.module, named.name, self.calls)
        self.push(named)

    def call(self, named: Any, arguments: Any) -> Any:
        """What takes the place of a call: the answer of the table, or an inert record."""
        if not isinstance(named, Name) or not isinstance(arguments, tuple):
            raise Refused("it calls something that is not a name")
        make = self.calls.get(named.text)
        return Foreign(named.text, arguments) if make is None else make(*arguments)

    def reduce(self) -> None:
        arguments, named = self.stack.pop(), self.stack.pop()
        self.push(self.call(named, arguments))

    def new_object(self, *, keywords: bool = False) -> None:
        extra = self.stack.pop() if keywords else {}
        arguments, named = self.stack.pop(), self.stack.pop()
        made = self.call(named, arguments)
        if isinstance(made, Foreign) and isinstance(extra, dict):
            made.attributes.update({key: value for key, value in extra.items() if isinstance(key, str)})
        self.push(made)

    def instance(self, module: str, name: str) -> None:
        self.name(module, name)
        named = self.stack.pop()
        self.push(self.call(named, tuple(self.marked())))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if hasattr(target, "set_state"):
            target.set_state(state)
        elif not isinstance(target, dict | list | set):  # attributes of an ordered dictionary are of no use here
            raise Refused("it sets the state of something that has none")

    def persistent(self, reference: Any) -> None:
        if self.storage is None:
            raise Refused("a reference to outside data where none belongs")
        self.push(self.storage(reference))


_MARK = object()


def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.name(module, name)


def _is_small(value: tuple[Any, ...], limit: int = 100) -> bool:
    """Whether nested tuples hold few values in all, each counted as often as it is referred to."""
    waiting, seen = [value], 0
    while waiting:
        current = waiting.pop()
        seen += len(current)
        if seen > limit:
            return False
        waiting += [item for item in current if isinstance(item, tuple)]
    return True


_ACTIONS: dict[int, Callable[[Machine], Any]] = {ord(code): action for code, action in {
    b"\x80": lambda m: m.read(1),  # protocol
    b"\x95": lambda m: m.read(8),  # frame: its length is of no use here
    b"(": lambda m: m.push(_MARK),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.marked(),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.integer_line(),
    b"L": lambda m: m.integer_line(),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.integer(m.number("<B")),
    b"\x8b": lambda m: m.integer(m.number("<i")),
    b"F": lambda m: m.push(float(m.line())),
    b"G": lambda m: m.push(m.number(">d")),
    b"S": lambda m: m.quoted_line(),
    b"T": lambda m: m.old_text(m.number("<i")),
    b"U": lambda m: m.old_text(m.number("<B")),
    b"V": lambda m: m.push(m.line("raw-unicode-escape")),
    b"X": lambda m: m.text(m.number("<I")),
    b"\x8c": lambda m: m.text(m.number("<B")),
    b"\x8d": lambda m: m.text(m.number("<Q")),
    b"B": lambda m: m.bytes_(m.number("<I")),
    b"C": lambda m: m.bytes_(m.number("<B")),
    b"\x8e": lambda m: m.bytes_(m.number("<Q")),
    b"\x96": lambda m: m.bytes_(m.number("<Q")),
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"\x8f": lambda m: m.push(set()),
    b"t": lambda m: m.push(tuple(m.marked())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"l": lambda m: m.push(m.marked()),
    b"d": lambda m: m.push(m.pairs(m.marked())),
    b"\x91": lambda m: m.push(frozenset(m.members(m.marked()))),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.marked()),
    b"\x90": lambda m: m.append(m.marked()),
    b"s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m.set_items(m.marked()),
    b"p": lambda m: m.remember(int(m.line())),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"g": lambda m: m.push(m.memo[int(m.line())]),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": _stack_global,
    b"R": lambda m: m.reduce(),
    b"\x81": lambda m: m.new_object(),
    b"\x92": lambda m: m.new_object(keywords=True),
    b"i": lambda m: m.instance(m.line(), m.line()),
    b"b": lambda m: m.build(),
    b"Q": lambda m: m.persistent(m.stack.pop()),
}.items()}  # fmt: skip
