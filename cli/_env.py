"""Another distribution called `eegprep` owns the same import name; two in one environment shadow each other silently."""

from __future__ import annotations

from importlib import metadata


def foreign_eegprep() -> str | None:
    """Version of the foreign `eegprep` distribution in this environment, or None."""
    try:
        return metadata.version("eegprep")
    except metadata.PackageNotFoundError:
        return None


def foreign_message(version: str) -> str:
    """What to say about it; used by the guard and by `doctor`."""
    return (
        f"error: this environment also holds another package called 'eegprep' (version {version}), "
        "and Python imports only one of the two\n"
        "  fix: install eeg-dreamdiff in an environment of its own, or run: pip uninstall eegprep, "
        "then pip install --force-reinstall --no-deps eeg-dreamdiff"
    )
