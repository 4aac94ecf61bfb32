"""`dreamdiff settings`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _settings
from ._app import dreamdiff_app
from ._output import emit_json, emit_table, note


@dreamdiff_app.command(
    "settings",
    examples="""
    dreamdiff settings
    dreamdiff settings train msm
    dreamdiff settings train msm --preset tiny
    """,
)
def settings_(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="Command, e.g. train msm; all when left out")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Show the values of this preset instead of the defaults")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout")] = False,
) -> None:
    """List the settings of a command, for --set and --config.

    Without a command: the commands that have settings, with their presets.
    """
    if not command:
        rows = [
            {"command": f"{_settings.program_of(name)} {name}", "presets": _settings.preset_names(name)}
            for name in _settings.CONFIGURATIONS
        ]
        emit_json(rows) if as_json else emit_table("commands with settings", rows)
        return
    name = " ".join(command)
    listed = _settings.settings(name, preset)
    if as_json:
        emit_json([vars(one) for one in listed])
        return
    emit_table(
        name,
        [
            {
                "setting": one.key,
                "value": _settings.toml_value(one.value) if one.value is not None else "",
                "meaning": one.meaning,
            }
            for one in listed
        ],
    )
    presets = _settings.preset_names(name)
    note(f"change one with --set KEY=VALUE or a TOML file{'; presets: ' + ', '.join(presets) if presets else ''}")
