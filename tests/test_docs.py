"""The pages of the docs and the README are run, block by block, as a reader would run them.

A fenced block tagged `python` or `bash` is executed in an empty folder shared by the whole page, in order. A block that needs
something a test machine cannot have (a model hub, a GPU) stands under a line `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dreamdiff
import eegprep
from cli import _settings
from tools import reference

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?P<skip><!-- not run: [^>]+ -->\n)?```(?P<language>python|bash)\n(?P<code>.*?)```", re.DOTALL)


# the changelog and the like are parts of other files
PAGES = [
    page
    for page in (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
    if any(not m["skip"] for m in BLOCK.finditer(page.read_text()))
]


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of every block that is to be run."""
    return [(m["language"], m["code"]) for m in BLOCK.finditer(page.read_text()) if not m["skip"]]


def run(language: str, code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run one block with this interpreter's scripts first on the path, offline."""
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
    }
    return subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_runs(page, tmp_path):
    """Documentation that is not run is wrong after a month."""
    result = blocks(page)
    assert result, f"{page.name} holds no block to run"

    for number, (language, code) in enumerate(result, start=1):
        done = run(language, code, tmp_path)

        assert done.returncode == 0, f"{page.name}, block {number}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_a_skipped_block_needs_a_reason():
    """`not run` without a reason would hide a broken example."""
    page = "<!-- not run: needs a GPU -->\n```bash\nfalse\n```\n```python\nx = 1\n```\n"
    result = [(m["language"], bool(m["skip"])) for m in BLOCK.finditer(page)]

    assert result == [("bash", True), ("python", False)]


def test_the_reference_pages_are_what_the_code_says():
    """Settings and options change; `make reference` writes these pages again."""
    stale = [file.name for file, text in reference.pages().items() if not file.is_file() or file.read_text() != text]

    assert stale == [], "run `make reference`"


def test_every_setting_of_training_has_a_meaning():
    """A key with a default and no sentence is a riddle."""
    silent = [
        f"{command} {one.key}" for command in _settings.CONFIGURATIONS for one in _settings.settings(command) if not one.meaning
    ]

    assert silent == []


def test_the_python_page_lists_every_public_name():
    """A name that a script may use has its place in the reference."""
    listed = set(re.findall(r"^::: (\S+)", (ROOT / "docs/reference/python.md").read_text(), re.MULTILINE))
    public = {f"{package.__name__}.{name}" for package in (eegprep, dreamdiff) for name in dir(package) if name[0] != "_"}

    assert listed == public
