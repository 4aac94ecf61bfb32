"""Lays out `--help`: commands in the order of work, options under headings, types as N or PATH, every default, examples at the end."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer.core

from ._defaults import DEFAULTS

# The heading of an option, by the name of its parameter: one table, because the same option belongs to several commands
HEADINGS: dict[str, tuple[str, ...]] = {
    "Input": (
        *(
            "subjects",
            "data_dir",
            "accept",
            "offline",
            "dataset",
            "subject_pattern",
            "session_pattern",
            "licence",
            "bad",
            "sfreq",
            "unit",
            "channel_names",
            "scale",
        ),
        *("keep_private", "lock", "trials", "splits", "images"),
    ),
    "Filter": ("low", "high", "nyquist", "resample", "notch"),
    "Windows": (
        *("channels", "window", "stride", "windows", "short", "mode", "channel_order", "max_per_subject"),
        *("select_channels", "max_channels", "offset", "repetitions"),
    ),
    "Quality gates": ("min_channels", "min_uv", "max_uv"),
    "Sampling": ("samples", "steps", "guidance", "batch_size"),
    "Judges": ("classifier", "inception", "lpips", "controls", "baselines"),
    "Settings": ("preset", "config", "set_", "create_config"),
    "Running": ("workers", "scheduler", "max_memory", "rebuild", "device", "precision", "strict_rate", "dry_run", "timeout"),
    "Output": ("as_json", "json", "json_", "wide", "quiet", "verbose", "help", "plot", "manifest", "notes"),
}
# Options that mean something else in one command: the scheduler of `dreamdiff generate` is a noise schedule, not a Dask address
HEADINGS_OF_COMMAND: dict[str, dict[str, str]] = {
    "generate": {"scheduler": "Sampling", "seed": "Sampling"},
    "build": {"seed": "Windows"},
    "pad": {"seed": "Windows"},
    "index": {"seed": "Windows"},
    "filter": {"window": "Quality gates", "short": "Quality gates"},
    "evaluate": {"clip": "Judges"},
    "retrieve": {"repetitions": "Options"},
    "simulate": {"sfreq": "Options"},
    "datasets": dict.fromkeys(("min_channels", "max_channels", "min_rate", "max_rate", "licence", "name"), "Input"),
}
NAMES_WIDTH = 26  # columns of the option names; longer ones get a line of their own
GROUPED_FROM = 9  # options; a shorter list is read at a glance
TYPE_NAMES = {"int": "N", "float": "X", "str": "TEXT", "Path": "PATH"}


def heading(command: str, parameter: str) -> str:
    """The heading that an option stands under; "Options" for those of one command only."""
    own = HEADINGS_OF_COMMAND.get(command, {})
    if parameter in own:
        return own[parameter]
    return next((title for title, names in HEADINGS.items() if parameter in names), "Options")


def type_name(parameter: Any) -> str:
    """What a value looks like: N, X, PATH, TEXT, or the choices; empty for a flag."""
    if parameter.metavar:
        return str(parameter.metavar)
    if getattr(parameter, "is_flag", False) or getattr(parameter, "count", False):
        return ""
    kind = parameter.type_descriptor
    if kind.is_choice:
        return "|".join(str(getattr(choice, "value", choice)) for choice in kind.choices or ())
    words = re.findall(r"int|float|Path|str", str(kind.annotation))
    return TYPE_NAMES.get(words[0] if words else "str", "TEXT")


def argument_name(parameter: Any) -> str:
    """SOURCE... or [KEY]."""
    name = (parameter.metavar or parameter.name.upper()).removesuffix("...")
    name += "..." if parameter.nargs != 1 else ""
    return name if parameter.required else f"[{name}]"


class Command(typer.core.TyperCommand):
    """One command; `epilog` holds its examples, a command line each, `settings` names its configuration."""

    settings = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for one in self.params:
            complete = completion(one.name, self.settings)
            if complete is not None:
                one._custom_shell_complete = lambda ctx, param, incomplete, complete=complete: complete(incomplete)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Handle `--create-config` before a missing option is complained about."""
        file = option_value(args, "--create-config")
        if self.settings and file:
            from ._output import note
            from ._settings import write_config

            preset = option_value(args, "--preset")
            write_config(self.settings, Path(file), preset)
            note(f"{file}: written; use it with {f'--preset {preset} ' if preset else ''}--config {file}")
            ctx.exit(0)
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [argument_name(one) for one in self.get_params(ctx) if one.param_type_name == "argument"]
        required = [
            f"{max(one.opts, key=len)} {type_name(one)}"
            for one in self.get_params(ctx)
            if one.param_type_name == "option" and one.required
        ]
        return [*arguments, *required, "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        parameters = self.get_params(ctx)
        rows = [(argument_name(one), _text(one, ctx, "")) for one in parameters if one.param_type_name == "argument"]
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        options = [one for one in parameters if one.param_type_name == "option" and not one.hidden]
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], **{title: [] for title in HEADINGS}}
        for option in options:
            title = heading(self.name or "", option.name) if len(options) >= GROUPED_FROM else "Options"
            sections.setdefault(title, []).append(_option_row(option, ctx, self.settings))
        widest = min(NAMES_WIDTH, max(len(names) for section in sections.values() for names, _ in section))
        for title, section in sections.items():
            if section:
                with formatter.section(title):
                    formatter.write_dl([(names.ljust(widest), text) for names, text in section], col_max=NAMES_WIDTH)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write("".join(f"{'':>{formatter.current_indent}}{line}\n" for line in self.epilog.splitlines()))


class Group(typer.core.TyperGroup):
    """A group whose commands stand under headings, in the order of work."""

    panels: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  (set once, below a group's definition)
    # option -> command line that it leads to, for options given to the group itself: `dreamdiff train --store corpus.zarr`
    leads: dict[str, str] = {}  # noqa: RUF012  (as above)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say which command an option belongs to, where none is named."""
        if self.leads and args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            from eegprep.errors import UsageError  # late: `--help` stays free of imports

            names = ", ".join(name for names in self.panels.values() for name in names)
            given = shlex.join(args)
            line = next(
                (line for option, line in self.leads.items() if option_given(args, option)), next(iter(self.leads.values()))
            )
            raise UsageError(f"{ctx.command_path} was not told what to train ({names})", line.format(given))
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        ordered = [name for names in self.panels.values() for name in names if name in self.commands]
        return ordered + [name for name in self.commands if name not in ordered]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(len(name) for name in self.commands)
        named = {name for names in self.panels.values() for name in names}
        rest = tuple(name for name in self.commands if name not in named)
        for title, names in {**self.panels, "Commands" if not self.panels else "More": rest}.items():
            rows = [(name.ljust(width), _first_sentence(self.commands[name])) for name in names if name in self.commands]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def option_given(args: Sequence[str], name: str) -> bool:
    """Whether `--name` stands among arguments that are not parsed yet."""
    return any(text == name or text.startswith(f"{name}=") for text in args)


def option_value(args: Sequence[str], name: str) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE` among arguments that are not parsed yet."""
    for number, text in enumerate(args):
        if text == name and number + 1 < len(args):
            return args[number + 1]
        if text.startswith(f"{name}="):
            return text.partition("=")[2]
    return None


def completion(parameter: str, settings: str) -> Callable[[str], list[str]] | None:
    """What the shell offers for a parameter: presets and setting keys of a configuration, manifests and data sets of MOABB."""
    from . import _settings

    if parameter == "sources":
        return _settings.complete_source
    if parameter == "preset" and settings:
        return lambda incomplete: _settings.complete_preset(settings, incomplete)
    if parameter == "set_" and settings:
        return lambda incomplete: _settings.complete_setting(settings, incomplete)
    return None


def _option_row(option: Any, ctx: Any, settings: str) -> tuple[str, str]:
    names = ", ".join(sorted(option.opts, key=len)) + "".join(f" / {name}" for name in option.secondary_opts)
    return f"{names} {type_name(option)}".rstrip(), _text(option, ctx, settings)


def _text(parameter: Any, ctx: Any, settings: str) -> str:
    """The help text with its default, that of the setting where the option stands for one; Typer's ranges (`x>=0`) are left to the error of a value outside."""
    text, bracket, extra = parameter.get_help_record(ctx)[1].rpartition("  [")
    if not bracket:
        text, extra = extra, ""
    extra = re.sub(r"default: \((.*)\)", r"default: \1", extra)  # Typer puts a default that is given in words in parentheses
    kept = [part for part in extra.removesuffix("]").split("; ") if part and not re.fullmatch(r"[-\d.<=]*x[-\d.<>=]*", part)]
    kept = [part for part in kept if part != "required" or parameter.param_type_name == "option"]
    if "[default: " in text:  # written at the setting, see `_described`
        kept = [part for part in kept if not part.startswith("default")]
    default = DEFAULTS.get(settings, {}).get(parameter.name)
    if default and "default" not in text and not any(part.startswith("default") for part in kept):
        kept.append(f"default: {default}")
    return f"{text} [{'; '.join(kept)}]" if kept else text


def _first_sentence(command: Any) -> str:
    text = " ".join((command.short_help or command.help or "").split())
    return re.split(r"(?<=[.:;])\s", text)[0].rstrip(".:;")


def closest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?`, or an empty string."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
