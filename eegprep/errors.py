"""Defines the only errors that a user should ever see: what does not fit, with both numbers, and a fix."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path


class ToolkitError(Exception):
    """A failure with a one-line cause and a `fix:` line.

    Args:
        problem: which item, what does not fit, with both numbers (value and limit).
        fix: what the person can do about it, with the exact option or key.

    Example:
        >>> import eegprep
        >>> try:
        ...     eegprep.Corpus.open("nothing.zarr")
        ... except eegprep.ToolkitError as error:
        ...     print(error.problem)
        nothing.zarr does not exist
    """

    exit_code = 1

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)  # both kept in args, so that the error survives pickling between processes
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\n  fix: {self.fix}"


class UsageError(ToolkitError):
    """The command line, a configuration key or an argument is wrong."""

    exit_code = 2


class SourceError(ToolkitError):
    """A data set, file or recording cannot be found or read."""


class FetchError(ToolkitError):
    """A download failed, was refused, or does not match its checksum."""


class LicenceError(ToolkitError):
    """A licence has to be accepted first, or forbids what was asked for."""


class SignalError(ToolkitError):
    """A signal's rate, length, channel count or unit does not fit."""


class StoreError(ToolkitError):
    """A store is missing, damaged, incomplete, or holds something else."""


class CheckpointError(ToolkitError):
    """A checkpoint is missing, damaged, unsafe, or belongs to something else."""


class ModelError(ToolkitError):
    """A model, its weights and its input do not fit together."""


class DataError(ToolkitError):
    """EEG-image pairs, labels or splits do not fit together."""


def missing_path(path: str | os.PathLike[str], error: type[ToolkitError] = StoreError) -> ToolkitError:
    """The error for a file or folder that does not exist: one sentence in every command, with the nearest name beside it."""
    missing = Path(path)
    folder = missing.parent
    if not folder.is_dir():
        return error(f"{path} does not exist, nor does its folder", "check the path")
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = get_close_matches(missing.name, names, n=1)
    return error(f"{path} does not exist", f"check the path; did you mean {folder / near[0]}?" if near else "check the path")


def require_path(path: str | os.PathLike[str]) -> None:
    """Raise `missing_path` unless there is a file or folder."""
    if not Path(path).exists():
        raise missing_path(path)


def no_zarr_group(folder: str | os.PathLike[str]) -> ToolkitError:
    """The error for a path that should be a store: it does not exist, or it holds something else."""
    if not Path(folder).exists():
        return missing_path(folder)
    return StoreError(f"{folder}: no zarr group here (no zarr.json)", "check the path of the store")
