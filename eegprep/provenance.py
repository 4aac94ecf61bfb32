"""Says where data came from: hashes of files and settings, versions of software."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel


def fingerprint(content: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a configuration: equal settings, equal fingerprint."""
    return sha256_json(content.model_dump(mode="json") if isinstance(content, BaseModel) else content)


def sha256(content: bytes | str) -> str:
    """SHA-256 of bytes, or of a text in UTF-8 (names of files that are not UTF-8 included)."""
    return hashlib.sha256(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content).hexdigest()


def sha256_json(content: Any, *, blanks: bool = False) -> str:
    """SHA-256 of canonical JSON: keys sorted, no blanks.

    blanks: one after each comma and colon, as in the fingerprints of weights that saved runs and sidecars hold.
    """
    return sha256(json.dumps(content, sort_keys=True, separators=None if blanks else (",", ":")))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in a constant amount of memory."""
    with path.open("rb") as file:
        return sha256_stream(file)


def sha256_stream(file: BufferedReader) -> str:
    """SHA-256 of what is left of an open file, in a constant amount of memory."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_array(array: np.ndarray) -> str:
    """SHA-256 of shape and values."""
    return sha256(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())


_SOFTWARE = ("eeg-dreamdiff", "mne", "moabb", "numcodecs", "numpy", "scipy")


def plain_json(value: Any) -> Any:
    """`value` as strict JSON values: numpy scalars become Python's; NaN and infinity, which JSON lacks, become null."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:  # most values: first, and without the cost of isinstance
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, np.generic):
        return plain_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return str(value)
    return value


def installed_version(name: str) -> str | None:
    """The version of an installed package, without importing it; None for what is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


_known_version = cache(installed_version)  # asked for with every recording


def installed(*names: str) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    return {name: known for name in names if (known := _known_version(name)) is not None}


def software_versions() -> dict[str, str]:
    """What decides the numbers of a corpus."""
    return installed(*_SOFTWARE)
