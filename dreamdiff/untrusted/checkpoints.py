"""PyTorch `.pth`, `.ckpt` and `.pt` files of unknown origin, read without executing anything in them.

A pickle is a program. Here its structure is worked out by `child.py` in a process of its own, under limits on memory and
time, by an unpickler that knows about forty harmless names; the numbers are then taken from the file by position, as bytes.
Configuration classes of the authors (module `config`) become plain namespaces.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eegprep.errors import CheckpointError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a `.safetensors` file, or of a pickled checkpoint read without executing it."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: not a readable safetensors file ({error})", "copy or download it again, and check its SHA-256"
            ) from None
    from dreamdiff.untrusted.checkpoints import load as load_pickle

    content = load_pickle(path)
    for key in ("state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds no state_dict", "give a Stable Diffusion checkpoint")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


AUTHORS_CLASSES = ("config",)  # every class of the authors' config.py: Config_MBM_EEG, Config_Generative_Model, ...

TORCH_DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}


def load(
    file: str | Path,
    *,
    classes: Sequence[str] = AUTHORS_CLASSES,
    memory_bytes: int = 4 << 30,
    seconds: int = 300,
) -> Any:
    """Read a PyTorch file (zip, the older format without zip, or the oldest, tar) as plain values.

    Args:
        file: what torch.save wrote.
        classes: modules, or single `module.Class` names, whose objects may become namespaces. Nothing of them is ever called.
        memory_bytes, seconds: limits of the reading process. Tensor data does not count: it stays in the file until it is used.

    Returns:
        dict, list, tuple, set, str, numbers, bytes, numpy arrays, `SimpleNamespace` for objects, and CPU tensors that share the
        file's pages copy-on-write: gigabytes take no memory until they are touched.

    Raises:
        CheckpointError: missing, damaged, or it asks for a name that is not allowed.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise CheckpointError(f"{file}: there is no such file", "check the path of the checkpoint")
    answer = _ask_child(path, tuple(classes), memory_bytes, seconds)
    if "refused" in answer:
        raise CheckpointError(
            f"{file}: refused: {answer['refused']}",
            "only load checkpoints whose contents you know; nothing of this one was executed",
        )
    if "damaged" in answer:
        raise CheckpointError(f"{file}: not a readable PyTorch file ({answer['damaged']})", "download or copy it again")
    return _Rebuild(path, answer).value(answer["content"])


def _ask_child(path: Path, classes: tuple[str, ...], memory_bytes: int, seconds: int) -> dict[str, Any]:
    request = {"path": str(path), "classes": classes, "memory_bytes": memory_bytes, "seconds": seconds}
    child = Path(__file__).with_name("child.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(child)],
            input=json.dumps(request) + "\n",
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckpointError(
            f"{path.name}: reading its structure took more than {seconds} s", "do not trust this file"
        ) from None
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise CheckpointError(
            f"{path.name}: the process reading it ended with code {done.returncode} ({last}) under limits of "
            f"{memory_bytes >> 20} MiB and {seconds} s",
            "do not trust this file",
        ) from None


class _Rebuild:
    """The child's answer with the file's numbers filled in."""

    def __init__(self, path: Path, answer: dict[str, Any]) -> None:
        self.path, self.answer = path, answer
        self.pages = np.memmap(path, dtype=np.uint8, mode="c")
        self.storages: dict[tuple[str, str], Tensor] = {}
        self.members = _stored_members(path) if answer["format"] == "zip" else {}

    def value(self, node: Any) -> Any:
        """One node of the tree."""
        if not isinstance(node, list):
            return node
        kind, *rest = node
        if kind == "T":
            return self._tensor(rest[:3], *rest[3:])
        if kind == "d":
            return {self.value(key): self.value(item) for key, item in rest}
        if kind == "n":
            return SimpleNamespace(**{str(self.value(key)): self.value(item) for key, item in rest[1:]})
        if kind == "b":
            return base64.b64decode(rest[0])
        if kind == "a":
            return self._array(*rest)
        items = [self.value(item) for item in rest]
        return {"l": list, "t": tuple, "s": set}[kind](items)

    def _array(self, dtype: str, shape: list[int], fortran: bool, content: str) -> Any:
        if np.dtype(dtype).hasobject:
            raise CheckpointError(f"{self.path.name}: refused: it holds a numpy array of objects", "do not trust this file")
        array = np.frombuffer(base64.b64decode(content), dtype=dtype).reshape(shape, order="F" if fortran else "C").copy()
        return array if shape else array.item()

    def _tensor(self, place: list[str], offset: int, size: list[int], stride: list[int]) -> Tensor:
        storage = self._storage(*place)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else offset - 1
        if offset < 0 or min([*stride, 0]) < 0 or min([*size, 0]) < 0 or last >= storage.numel():
            raise CheckpointError(
                f"{self.path.name}: a tensor reaches to element {last} of a storage of {storage.numel()}",
                "download or copy it again",
            )
        return torch.as_strided(storage, size, stride, offset)

    def _storage(self, key: str, stored: str, dtype: str) -> Tensor:
        if (key, dtype) not in self.storages:
            torch_dtype = TORCH_DTYPES[dtype]
            content = self._bytes(key, TORCH_DTYPES[stored].itemsize)
            if not content.flags.aligned or content.ctypes.data % torch_dtype.itemsize:
                content = content.copy()
            whole = len(content) // torch_dtype.itemsize * torch_dtype.itemsize
            flat = torch.from_numpy(content[:whole]) if whole else torch.empty(0, dtype=torch.uint8)
            self.storages[key, dtype] = flat.view(torch_dtype)
        return self.storages[key, dtype]

    def _bytes(self, key: str, item_bytes: int) -> np.ndarray:
        if self.answer["format"] == "zip":
            name = f"{self.answer['root']}data/{key}"
            if name not in self.members:
                raise CheckpointError(f"{self.path.name}: the numbers of {name} are missing", "download or copy it again")
            start, length = self.members[name]
        else:
            start, numel = self.answer["places"].get(key, (0, 0))
            length = numel * item_bytes
        if start < 0 or length < 0 or start + length > len(self.pages):
            raise CheckpointError(
                f"{self.path.name}: cut short: {start + length} bytes are announced, {len(self.pages)} are there",
                "download or copy it again",
            )
        return np.asarray(self.pages[start : start + length])


def _stored_members(path: Path) -> dict[str, tuple[int, int]]:
    """Where the uncompressed members of a zip lie in the file: name -> (first byte, bytes)."""
    places = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(
                    f"{path.name}: refused: {info.filename} in it is compressed", "torch never writes such files"
                )
            file.seek(info.header_offset + 26)  # local header: lengths of name and extra field
            name_bytes, extra_bytes = int.from_bytes(file.read(2), "little"), int.from_bytes(file.read(2), "little")
            places[info.filename] = (info.header_offset + 30 + name_bytes + extra_bytes, info.file_size)
    return places
