"""Reads dictionaries of arrays saved with `numpy.save` or `pickle.dump`, without executing anything in them.

THINGS-EEG2 and much other lab data come as `.npy` files that hold one pickled dictionary, which numpy only opens with
`allow_pickle=True`, that is by running whatever the file asks for. Large arrays are not read but mapped, so that files of 8 GB take
no memory until they are used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from dreamdiff.untrusted.kinds import check_weights_file
from dreamdiff.untrusted.machine import Machine, Refused
from dreamdiff.untrusted.values import DAMAGE, PLAIN_CALLS, Finish, mapped
from eegprep.errors import CheckpointError


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
