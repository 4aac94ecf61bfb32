"""Reads dictionaries of arrays saved with `numpy.save`, `numpy.savez` or `pickle.dump`, without executing anything in them.

THINGS-EEG2 and much other lab data come as `.npy` files that hold one pickled dictionary, which numpy only opens with
`allow_pickle=True`, that is by running whatever the file asks for. Large arrays are not read but mapped, so that files of 8 GB take
no memory until they are used.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from dreamdiff.untrusted.kinds import check_weights_file
from dreamdiff.untrusted.machine import Machine, Refused
from dreamdiff.untrusted.values import DAMAGE, PLAIN_CALLS, Finish, mapped
from eegprep.errors import CheckpointError

NPZ_BYTES = 8 << 30  # unpacked; vectors of a million pictures are 4 GB


def load_npz(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` file by name.

    Raises:
        CheckpointError: missing, damaged, too large unpacked, or it holds something else than plain arrays.
    """
    path = Path(file)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > NPZ_BYTES:
                raise CheckpointError(
                    f"{path.name}: {size:,} bytes unpacked, at most {NPZ_BYTES:,} are read", "write fewer arrays into it"
                )
            for member in archive.infolist():
                with archive.open(member) as stream:
                    _check_promise(stream, member.file_size)
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (*DAMAGE, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, SyntaxError, MemoryError) as error:
        raise CheckpointError(
            f"{path.name}: not an npz file of plain arrays ({str(error)[:200] or type(error).__name__})", "copy or write it again"
        ) from None


def _check_promise(stream: IO[bytes], size: int) -> None:
    """An array takes the memory that its header promises before a number is read."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    promised = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or promised > size:
        raise ValueError("it holds Python objects" if dtype.hasobject else f"{promised:,} bytes are promised, {size:,} are there")


def load(file: str | os.PathLike[str]) -> Any:
    """Read such a file, or an ordinary `.npy` file.

    Returns:
        The dictionary (or other plain value) with numpy arrays; large ones are read-only views of the file.

    Raises:
        CheckpointError: missing, damaged, or it asks for something that is not plain data.
    """
    path = Path(file)
    head = check_weights_file(path)
    try:
        start = 0
        if head.startswith(b"\x93NUMPY"):
            with path.open("rb") as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                _, _, dtype = read(stream)
                # plain numbers: numpy maps them without any pickle
                if not dtype.hasobject:
                    return np.load(path, mmap_mode="r", allow_pickle=False)
                start = stream.tell()
        content = mapped(path)
        return Finish(content)(Machine(content, start, len(content), PLAIN_CALLS).run())
    except Refused as error:
        raise CheckpointError(
            f"{path.name}: refused: {error}", "only plain arrays are read, and nothing of this file was executed; do not trust it"
        ) from None
    except DAMAGE as error:
        raise CheckpointError(
            f"{path.name}: damaged, or not a pickled dictionary ({str(error)[:200] or type(error).__name__})",
            "copy or download it again",
        ) from None
