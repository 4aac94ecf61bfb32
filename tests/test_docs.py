"""The pages of the docs and the README are run, block by block, as a reader would run them.

A fenced block tagged `python` or `bash` is executed in an empty folder shared by the whole page, in order. A block that needs
something a test machine cannot have (a model hub, a GPU) stands under a line `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import dreamdiff
import eegprep
from cli import _settings, main  # noqa: F401  (registers the commands)
from cli._app import dreamdiff_app, eegprep_app
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


# ------------------------------------------------------------------------------------------------- command lines of all pages

FENCE = re.compile(r"```(?P<language>\w*)[^\n]*\n(?P<code>.*?)```", re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:eegprep|dreamdiff) [^`]+)`(?!`)")
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
STOPS = {"|", "||", "&&", ";", ">", ">>", "2>", "2>&1", "&", "#"}


def command_lines(text: str) -> list[list[str]]:
    """Words of every command of ours in fenced blocks and in code within a sentence, up to a pipe, a redirection or a comment."""
    shell = [m["code"] for m in FENCE.finditer(text) if m["language"] in ("bash", "sh", "console", "text", "")]
    outside = FENCE.sub("", text)
    lines = [line for code in shell for line in code.replace("\\\n", " ").splitlines()] + INLINE.findall(outside)
    result = []
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a sentence with an apostrophe in a block of text
            continue
        for number, word in enumerate(words):
            if word in ("eegprep", "dreamdiff") and (
                number == 0 or "=" in words[number - 1] or words[number - 1] in STOPS | {"$", "--"}
            ):
                end = next((n for n in range(number + 1, len(words)) if words[n] in STOPS), len(words))
                result.append(words[number:end])
    return result


def what_is_wrong(words: list[str]) -> str:
    """The first word of a command line that its command does not have; empty where all are right."""
    command = typer.main.get_command(eegprep_app if words[0] == "eegprep" else dreamdiff_app)
    rest = [word.rstrip(",.") for word in words[1:]]
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        if rest[0] in ("COMMAND", "...", "…") or "|" in rest[0] or "/" in rest[0]:
            return ""
        if rest[0] not in command.commands:
            return f"no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}
    for word in rest:
        name = word.partition("=")[0]
        if re.fullmatch(r"--?[A-Za-z][\w-]*", name) and name not in known:
            return f"no option {name!r}"
    return ""


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_line_of_the_page_names_commands_and_options_that_exist(page):
    """Also those in blocks that are not run: an option that does not exist stood in a tutorial, and nothing noticed."""
    wrong = [f"{' '.join(words)}: {problem}" for words in command_lines(page.read_text()) if (problem := what_is_wrong(words))]

    assert wrong == []


def test_a_wrong_command_line_is_noticed():
    page = "```bash\neegprep build a.edf \\\n  --wrongly 1 | head\n```\nand `dreamdiff probe --out x` or `dreamdiff nonsense`, `eegprep pad --help`\n"

    assert [what_is_wrong(words) for words in command_lines(page)] == [
        "no option '--wrongly'", "no option '--out'", "no command 'nonsense'", ""
    ]  # fmt: skip


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_that_are_not_run_are_at_least_whole(page):
    for block in BLOCK.finditer(page.read_text()):
        if block["language"] == "python":
            ast.parse(block["code"])
        else:
            done = subprocess.run(["bash", "-n", "-c", block["code"]], check=False, capture_output=True, text=True)
            assert done.returncode == 0, f"{block['code']}\n{done.stderr}"
