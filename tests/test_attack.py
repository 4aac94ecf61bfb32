"""The campaign of attacks (`make attack`) in its short form: nothing is lost, believed, written outside, or ends in a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[1] / "tools" / "attack" / "run.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the campaign forks and reads /proc")
def test_a_short_campaign_breaks_nothing():
    """Some kills, injected errors, flipped bits and hostile files over commands and stores; `make attack` tries them all."""
    done = subprocess.run([sys.executable, CAMPAIGN, "--quick", "--seconds", "60"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    for kind in ("kills", "errors", "flips", "files"):
        assert f"| {kind} |" in done.stdout
