"""Every command line that a page or a help text shows is parsed by the real command, whether or not its block is run."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer

from cli.main import CLICK_ERROR, dreamdiff_app, eegprep_app

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
APPS = {"eegprep": typer.main.get_command(eegprep_app), "dreamdiff": typer.main.get_command(dreamdiff_app)}


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, code) of every block in a language, those marked "not run" included."""
    return [
        (str(page.relative_to(ROOT)), m["code"])
        for page in PAGES
        for m in BLOCK.finditer(page.read_text())
        if m["language"] in language.split()
    ]


def command_lines(code: str) -> list[list[str]]:
    """The calls of our two commands in a shell script, as lists of arguments."""
    calls = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for part in split_at(words, {"||", "&&", "|", ";", ">", "2>"}):
            starts = [i for i, word in enumerate(part) if word in APPS]
            if starts and (starts[0] == 0 or part[0] in {"accelerate", "python", "time"}):
                calls.append(part[starts[0] :])
    return calls


def split_at(words: list[str], separators: set[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word in separators:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def problem(words: list[str]) -> str:
    """What the real command says about these arguments, or an empty string. Nothing is run."""
    command, rest = APPS[words[0]], words[1:]
    try:
        while hasattr(command, "commands"):
            if rest and rest[0].startswith("-"):
                known = {name for one in command.get_params(typer.Context(command)) for name in one.opts}
                return "" if rest[0] in known | {"--help", "-h"} else f"no such option {rest[0]}"
            if not rest:
                return ""
            if rest[0] not in command.commands:
                return f"no such command {rest[0]!r}"
            command, rest = command.commands[rest[0]], rest[1:]
        if {"--help", "-h", "--create-config"} & set(rest):
            return ""
        command.make_context(words[0], list(rest))
    except CLICK_ERROR as error:
        return str(error.format_message())
    return ""


def every_line() -> list[tuple[str, str]]:
    result = [(page, shlex.join(call)) for page, code in blocks("bash sh") for call in command_lines(code)]
    return sorted(set(result))


@pytest.mark.parametrize(("page", "line"), every_line())
def test_a_command_line_on_a_page_is_one_that_the_command_accepts(page, line):
    """`dreamdiff probe --out` stood in a tutorial for a release; there was no such option."""
    assert problem(shlex.split(line)) == ""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("eegprep build a.toml --outt c.zarr", "No such option"),
        ("eegprep build a.toml", "Missing option"),
        ("eegprep pad a.zarr b.zarr --mode replicat", "replicat"),
        ("dreamdiff probe --model m --store c.zarr --out p.json", "No such option"),
        ("dreamdiff trian msm", "no such command"),
    ],
)
def test_the_check_finds_a_planted_mistake(line, complaint):
    """A check that cannot fail proves nothing."""
    assert complaint.lower() in problem(shlex.split(line)).lower()


def test_blocks_parse_even_where_they_are_not_run():
    """A block that needs a GPU can still be misspelt."""
    for page, code in blocks("bash sh"):
        checked = subprocess.run(
            ["bash", "-n", "-c", code.replace("<this repository>", "x")], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, f"{page}: {checked.stderr}"
    for _, code in blocks("python"):
        ast.parse(code)
    for _, code in blocks("toml"):
        tomllib.loads(code)


def test_no_block_hides_a_failure():
    """`a || b` passes when `a` is broken; only an expected exit code may stand there."""
    hidden = [
        (page, line)
        for page, code in blocks("bash sh")
        for line in code.splitlines()
        if "||" in re.sub(r"\|\| test \$\? = \d+", "", line)
    ]

    assert hidden == []


def commands(command: object, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], object]]:
    children = getattr(command, "commands", {})
    if not children:
        return [(path, command)]
    return [result for name, child in children.items() for result in commands(child, (*path, name))]


@pytest.mark.parametrize(("path", "command"), [one for name, app in APPS.items() for one in commands(app, (name,))], ids=str)
def test_every_command_shows_examples_that_work(path, command):
    """What people copy first is the example in `--help`."""
    lines = command_lines(command.epilog or "")

    assert lines
    assert [problem(line) for line in lines] == [""] * len(lines)
