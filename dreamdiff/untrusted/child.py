"""Reads the structure of a PyTorch file in a process of its own: run as a script by `safe_pickle`, never imported.

Only the standard library, so that memory limits can be tight and nothing of ours can be reached from a hostile file. Nothing a
file asks for is executed: every allowed name is replaced by an inert stand-in, every other name ends the process with a message.
Tensor data is not read here; the answer (JSON on stdout) says where in the file each tensor lies.

Answer, one JSON value: a plain value, or a list whose first item names a kind: "l" list, "t" tuple, "s" set, "d" pairs,
"b" base64, "n" class name and pairs, "T" [storage, stored dtype, dtype, offset, size, stride],
"a" [dtype, shape, fortran, base64].
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch's non-zip format

MAX_VALUES = 2_000_000  # a small file can stand for an enormous tree by referring to the same list again and again

MAX_DEPTH = 64


STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}

ITEM_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2}


class Refused(Exception):
    """The file asks for something that is not on the list, or is not what it seems."""


class Inert:
    """An object of a class that is known by name only: holds its attributes and does nothing."""

    qualified = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update({key: value for key, value in part.items() if isinstance(key, str)})


class Storage:
    """Where numbers lie: `key` is a zip member or the position in the storage list."""

    def __init__(self, dtype: str, key: str, numel: int, offset: int = 0) -> None:
        self.dtype, self.key, self.numel, self.offset = dtype, str(key), int(numel), int(offset)


class TensorAt:
    """A tensor as a view of a storage; offset, size and stride count elements."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: str | None = None) -> None:
        if not isinstance(storage, Storage):
            raise Refused("a tensor without a storage")
        self.storage, self.dtype = storage, dtype or storage.dtype
        self.offset = int(offset) + storage.offset
        self.size, self.stride = [int(v) for v in size], [int(v) for v in stride]

    def __setstate__(self, state: Any) -> None:
        pass  # Python attributes of a tensor are of no use here


class Dtype:
    """A torch or numpy dtype by name."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = str(name)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str) and state[1] in "<>=|":
            self.name = state[1] + self.name


class Array:
    """A numpy array or scalar: bytes and their meaning."""

    def __init__(self, *_: Any) -> None:
        self.dtype, self.fortran, self.content = "u1", False, b""
        self.shape: list[int] = []

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.dtype, self.shape, self.fortran = dtype.name, [int(v) for v in shape], bool(fortran)
        self.content = content if isinstance(content, bytes) else str(content).encode("latin1")


def scalar(dtype: Any, content: Any = b"") -> Array:
    array = Array()
    array.__setstate__((1, (), dtype, False, content))
    return array


def tensor_v2(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorAt:
    return TensorAt(storage, offset, size, stride)


def tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorAt:
    return TensorAt(storage, offset, size, stride, rest[2].name.removeprefix("torch."))  # rest: requires_grad, hooks, dtype


def first(value: Any = None, *_: Any) -> Any:
    """What a Parameter is to us: its data."""
    return value


def as_tuple(values: Any = ()) -> tuple[Any, ...]:
    return tuple(values)


def encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding != "latin1":
        raise Refused(f"text in the encoding {encoding!r}")
    return str(text).encode("latin1")


def reconstruct(kind: Any, *_: Any) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, Inert)):
        raise Refused("an object of a class that is not a configuration")
    return kind()


class Base:
    """Stands for `object` in protocol-0 pickles of plain classes."""


ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": tensor_v2,
    "torch._utils._rebuild_tensor_v2": tensor_v2,
    "torch._utils._rebuild_tensor_v3": tensor_v3,
    "torch._utils._rebuild_parameter": first,
    "torch._utils._rebuild_parameter_with_state": first,
    "torch.Size": as_tuple,
    "torch.device": as_tuple,
    "numpy.core.multiarray._reconstruct": Array,
    "numpy._core.multiarray._reconstruct": Array,
    "numpy.core.multiarray.scalar": scalar,
    "numpy._core.multiarray.scalar": scalar,
    "numpy.ndarray": Base,
    "numpy.dtype": Dtype,
    "_codecs.encode": encode,
    "copyreg._reconstructor": reconstruct,
    "copy_reg._reconstructor": reconstruct,
    **{f"{module}.object": Base for module in ("builtins", "__builtin__")},
    **{f"{module}.set": set for module in ("builtins", "__builtin__")},
    **{f"{module}.frozenset": frozenset for module in ("builtins", "__builtin__")},
    "argparse.Namespace": type("Namespace", (Inert,), {"qualified": "argparse.Namespace"}),
}

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")

ALLOWED |= {f"torch.{name}": Dtype(f"torch.{name}") for name in DTYPES}

STORAGE_NAMES = {
    f"{module}.{name}": dtype for module in ("torch", "torch.cuda", "torch.storage") for name, dtype in STORAGES.items()
}


class Reader(pickle.Unpickler):
    """An unpickler that knows only the stand-ins above."""

    def __init__(self, file: IO[bytes], classes: tuple[str, ...], resolve: Callable[[Any], Any]) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self.classes, self.resolve, self.made = classes, resolve, dict[str, type]()

    def find_class(self, module: str, name: str) -> Any:
        qualified = f"{module}.{name}"
        if qualified in ALLOWED:
            return ALLOWED[qualified]
        if qualified in STORAGE_NAMES:
            return Dtype(STORAGE_NAMES[qualified])
        if qualified in self.classes or (module in self.classes and "." not in name):
            return self.made.setdefault(qualified, type(name, (Inert,), {"qualified": qualified}))
        raise Refused(f"it asks for {qualified}, which is not on the list of allowed names")

    def persistent_load(self, pid: Any) -> Any:
        return self.resolve(pid)


def no_storage(pid: Any) -> Any:
    raise Refused("a reference to outside data where none belongs")


def typed_storage(pid: Any) -> Storage:
    """('storage', type, key, location, elements[, view]) as both of torch's newer formats write it."""
    if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage" and isinstance(pid[1], Dtype)):
        raise Refused(f"an unknown kind of reference ({str(pid)[:80]})")
    view = pid[5] if len(pid) == 6 else None
    return Storage(pid[1].name, pid[2], pid[4], int(view[1]) if view else 0)


def read_zip(path: Path, classes: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """torch >= 1.6: a zip with NAME/data.pkl and uncompressed NAME/data/KEY."""
    with zipfile.ZipFile(path) as archive:
        names = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(names) != 1:
            raise Refused("it is a zip file, but not one of torch (no data.pkl)")
        if names[0].file_size > 1 << 30:
            raise Refused(f"its structure alone takes {names[0].file_size} bytes (limit {1 << 30})")
        root = names[0].filename.removesuffix("data.pkl")
        order = archive.read(root + "byteorder").decode() if root + "byteorder" in archive.namelist() else "little"
        if order.strip() != "little":
            raise Refused("its numbers are big-endian")
        content = Reader(io.BytesIO(archive.read(names[0])), classes, typed_storage).load()
    return content, {"format": "zip", "root": root}


def read_legacy(path: Path, classes: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """torch 0.1.10 to 1.5: magic, version, system, object, keys, then for each key a count and raw numbers."""
    used: dict[str, str] = {}

    def resolve(pid: Any) -> Storage:
        storage = typed_storage(pid)
        used[storage.key] = storage.dtype
        return storage

    with path.open("rb") as file:
        if Reader(file, (), no_storage).load() != LEGACY_MAGIC:
            raise Refused("it is a pickle, but not one of torch")
        Reader(file, (), no_storage).load()
        system = Reader(file, (), no_storage).load()
        if isinstance(system, dict) and not system.get("little_endian", True):
            raise Refused("its numbers are big-endian")
        content = Reader(file, classes, resolve).load()
        keys = [str(key) for key in Reader(file, (), no_storage).load()]
        places = {}
        for key in keys:
            (numel,) = struct.unpack("<q", file.read(8))
            places[key] = [file.tell(), numel]
            file.seek(numel * ITEM_BYTES.get(used.get(key, "float32"), 1), 1)
    return content, {"format": "legacy", "places": places}


def read_tar(path: Path, classes: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """torch before 0.1.10: a tar with storages, tensors and pickle."""
    places: dict[str, list[int]] = {}
    with tarfile.open(path, "r:") as archive:
        members = {member.name: member for member in archive.getmembers() if member.isfile()}
        if not {"storages", "tensors", "pickle"} <= members.keys():
            raise Refused("it is a tar file, but not one of torch")
        start = members["storages"].offset_data
        file = io.BytesIO(_extracted(archive, members["storages"]).read())
        storages = {}
        for _ in range(Reader(file, (), no_storage).load()):
            key, _, kind = Reader(file, (), no_storage).load()
            (numel,) = struct.unpack("<q", file.read(8))
            storages[str(key)] = Storage(kind.name, str(key), numel)
            places[str(key)] = [start + file.tell(), numel]
            file.seek(numel * ITEM_BYTES.get(kind.name, 1), 1)
        views = Reader(file, (), no_storage).load()
        for key, root, offset, numel in views:
            storages[str(key)] = Storage(storages[str(root)].dtype, str(root), numel, offset)
        file = io.BytesIO(_extracted(archive, members["tensors"]).read())
        tensors = {}
        tensor_classes = tuple(f"torch.{name.removesuffix('Storage')}Tensor" for name in STORAGES)
        for _ in range(Reader(file, (), no_storage).load()):
            key, storage, _ = Reader(file, tensor_classes, no_storage).load()
            (dimensions,) = struct.unpack("<i4x", file.read(8))
            numbers = struct.unpack(f"<{2 * dimensions + 1}q", file.read(8 * (2 * dimensions + 1)))
            size, stride = numbers[:dimensions], numbers[dimensions : 2 * dimensions]
            tensors[str(key)] = TensorAt(storages[str(storage)], numbers[-1], size, stride)
        pickled = io.BytesIO(_extracted(archive, members["pickle"]).read())
        content = Reader(pickled, classes, lambda pid: tensors[str(pid)]).load()
    return content, {"format": "legacy", "places": places}


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise Refused(f"{member.name} in it is not a file")
    return file


class Writer:
    """Turns what was read into the JSON answer, counting as it goes."""

    def __init__(self) -> None:
        self.values = 0

    def tree(self, value: Any, depth: int = 0) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise Refused(f"it holds more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise Refused(f"it is nested more than {MAX_DEPTH} deep")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, TensorAt):
            return ["T", value.storage.key, value.storage.dtype, value.dtype, value.offset, value.size, value.stride]
        if isinstance(value, Array):
            return ["a", value.dtype, value.shape, value.fortran, base64.b64encode(value.content).decode()]
        if isinstance(value, bytes | bytearray):
            return ["b", base64.b64encode(value).decode()]
        if isinstance(value, Dtype):
            return value.name
        for kind, letter in ((dict, "d"), (list, "l"), (tuple, "t"), (set, "s"), (frozenset, "s")):
            if isinstance(value, kind):
                items: Any = value.items() if isinstance(value, dict) else value
                return [letter, *(self.item(item, letter, depth) for item in items)]
        if isinstance(value, Inert):
            return ["n", value.qualified, *(self.item(item, "d", depth) for item in vars(value).items())]
        raise Refused(f"it holds a {type(value).__name__}, which has no plain form")

    def item(self, item: Any, letter: str, depth: int) -> Any:
        if letter == "d":
            return [self.tree(item[0], depth + 1), self.tree(item[1], depth + 1)]
        return self.tree(item, depth + 1)


def limit(memory_bytes: int, seconds: int) -> None:
    """Bind this process: memory, processor time, no files written, no children."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock is the only limit
        return
    for name, value in (
        ("RLIMIT_AS", memory_bytes),
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 0),
        ("RLIMIT_NOFILE", 32),
    ):
        if hasattr(resource, name):
            hard = resource.getrlimit(getattr(resource, name))[1]
            bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(getattr(resource, name), (bound, bound))


def main() -> int:
    request = json.loads(sys.stdin.readline())
    limit(request["memory_bytes"], request["seconds"])
    path, classes = Path(request["path"]), tuple(request["classes"])
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if head[:4] == b"PK\x03\x04":
            content, place = read_zip(path, classes)
        elif head[257:262] == b"ustar":
            content, place = read_tar(path, classes)
        else:
            content, place = read_legacy(path, classes)
        answer = {"content": Writer().tree(content), **place}
    except Refused as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {"refused": f"reading its structure needs more than {request['memory_bytes'] >> 20} MiB"}
    except Exception as error:  # whatever a damaged or hostile file provokes is the file's fault
        answer = {"damaged": f"{type(error).__name__}: {error}"[:200]}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
