"""The only errors a user should ever see: what does not fit, with both numbers, and how to put it right."""

from __future__ import annotations


class ToolkitError(Exception):
    """A failure with a one-line cause and a `fix:` line.

    Args:
        problem: which item, what does not fit, with both numbers (value and limit).
        fix: what the person can do about it, with the exact option or key.
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
