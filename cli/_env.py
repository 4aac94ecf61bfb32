"""What is around the commands: packages that are missing or in the way, and whether there is a screen.

Another distribution called `eegprep` owns the same import name; two in one environment shadow each other silently.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from importlib.util import find_spec


def require_package(name: str, what: str, extra: str) -> None:
    """Raise UsageError where a package is not installed, before anything heavy is imported.

    Args:
        what: needs it, for the message. extra: of this distribution that brings it.
    """
    try:
        missing = find_spec(name) is None
    except ImportError:  # an import hook that refuses it
        missing = True
    if missing:
        from eegprep.errors import UsageError

        raise UsageError(
            f"{what} needs {name}, which is not installed",
            f"run: pip install 'eeg-dreamdiff[{extra}]', or in a checkout: pip install -e '.[{extra}]'",
        )


def has_screen() -> bool:
    """Whether a browser can be opened for the person who started this: a terminal on a machine with a display."""
    desktop = sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return desktop and sys.stderr.isatty()


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
