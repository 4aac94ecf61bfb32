"""Defines the two commands. As a script, Ctrl-C during the first imports is one line, as it is later."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def stop(*_: object) -> None:
    """End at once: nothing has been started yet."""
    os.write(2, b"interrupted; nothing was done\n")
    os._exit(130)


if Path(sys.argv[0] if sys.argv else "").name in {"eegprep", "dreamdiff"}:
    signal.signal(signal.SIGINT, stop)
