"""Writes the reference pages of the docs from the code: every command with its help, every setting with default and meaning.

`make reference` runs it; a test compares the pages with what it would write.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
COMMANDS, SETTINGS = FOLDER / "commands.md", FOLDER / "settings.md"
DEFAULTS = FOLDER.parents[1] / "cli" / "_defaults.py"
WIDTH = 100


def pages() -> dict[Path, str]:
    """The text of each page by its file."""
    return {DEFAULTS: defaults_module(), COMMANDS: commands_page(), SETTINGS: settings_page()}


def defaults_module() -> str:
    """Defaults of options that stand for a setting: help shows them without importing the configuration."""
    from cli import _settings

    lines = [
        '"""Defaults of options that stand for a setting, by command: written by `make reference` from the configurations."""',
        "",
        "DEFAULTS: dict[str, dict[str, str]] = {",
    ]
    for command in _settings.CONFIGURATIONS:
        values: dict[str, str] = {}
        for one in _settings.settings(command):
            text = (
                ", ".join(map(str, one.value))
                if isinstance(one.value, tuple)
                else f"{one.value:g}"
                if isinstance(one.value, float)
                else str(one.value)
            )
            name = one.key.removeprefix("loop.")
            if "." not in name and one.value is not None and not isinstance(one.value, bool) and one.value not in ((), {}):
                values.setdefault(name, text)
        lines += [
            f"    {json.dumps(command)}: {{",
            *(f"        {json.dumps(k)}: {json.dumps(v)}," for k, v in values.items()),
            "    },",
        ]
    return "\n".join([*lines, "}", ""])


def commands_page() -> str:
    """`--help` of every command, in the order of work."""
    os.environ["COLUMNS"] = str(WIDTH)
    import typer

    from cli.main import dreamdiff_app, eegprep_app

    lines = [
        "# Commands",
        "",
        "Exit codes: 0 done; 1 failed, with the cause and a fix; 2 wrong usage; 3 done with quarantined recordings, or a split that leaks. "
        'Results go to stdout, messages to stderr. With `--json` an error is `{"error": ..., "fix": ...}` on stdout.',
        "",
    ]
    for script, app in (("eegprep", eegprep_app), ("dreamdiff", dreamdiff_app)):
        for name, command in _leaves(typer.main.get_command(app), script):
            context = typer.Context(command, info_name=name, terminal_width=WIDTH, help_option_names=["-h", "--help"])
            text = command.get_help(context)
            lines += [f"## {name}", "", "```text", text.strip(), "```", ""]
    return "\n".join(lines)


def _leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
        return
    for name in command.list_commands(None):
        yield from _leaves(children[name], f"{path} {name}")


def settings_page() -> str:
    """A table of settings for every command that has any."""
    from cli import _settings

    lines = [
        "# Settings",
        "",
        "For `--set KEY=VALUE` and for TOML files given with `--config`; see [configuration](../configuration.md). Defaults are those without a preset.",
        "",
    ]
    for command in _settings.CONFIGURATIONS:
        presets = _settings.preset_names(command)
        lines += [f"## {_settings.program_of(command)} {command}", ""]
        if presets:
            lines += [f"Presets: {', '.join(f'`{name}`' for name in presets)}.", ""]
        lines += ["| setting | default | type | meaning |", "|---|---|---|---|"]
        for one in _settings.settings(command):
            default = "not set" if one.value is None else f"`{_settings.toml_value(one.value)}`"
            lines.append(f"| `{one.key}` | {_cell(default)} | {_cell(one.kind)} | {_cell(one.meaning)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    DEFAULTS.write_text(defaults_module(), encoding="utf-8")  # first: the page of commands shows them
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")
        print(file)


if __name__ == "__main__":
    main()
