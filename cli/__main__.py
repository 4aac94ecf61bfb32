"""`python -m cli eegprep|dreamdiff ...` in a bare checkout."""

from __future__ import annotations

import sys

from .main import dreamdiff, eegprep

if __name__ == "__main__":
    {"eegprep": eegprep, "dreamdiff": dreamdiff}[sys.argv[1]](sys.argv[2:])
