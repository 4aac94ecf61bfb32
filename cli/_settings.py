"""The configuration behind each command: listed, completed by the shell, and written as a commented TOML file."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

# command -> module, class, table of presets ("" where there are none)
CONFIGURATIONS = {
    "train msm": ("dreamdiff.pretraining.config", "PretrainConfig", "PRETRAIN_PRESETS"),
    "train align": ("dreamdiff.alignment.config", "AlignConfig", "ALIGN_PRESETS"),
    "train finetune": ("dreamdiff.finetuning.config", "FinetuneConfig", "FINETUNE_PRESETS"),
    "generate": ("dreamdiff.generation.config", "GenerateConfig", "GENERATE_PRESETS"),
    "evaluate": ("dreamdiff.protocols.config", "EvaluateConfig", ""),
    "retrieve": ("dreamdiff.protocols.config", "RetrieveConfig", ""),
    "ablate": ("dreamdiff.programs.ablate_config", "AblateConfig", "ABLATE_PRESETS"),
    "demo": ("dreamdiff.programs.demo_config", "DemoConfig", ""),
    "build": ("eegprep.signals.recipe", "Recipe", ""),  # the settings of `eegprep build`, `filter` and `pad`
}


@dataclass(frozen=True)
class Setting:
    """One key of a configuration."""

    key: str
    value: Any
    kind: str
    meaning: str


def load(command: str) -> tuple[Any, Mapping[str, Any]]:
    """(configuration class, presets) of a command."""
    from eegprep.settings import named

    module, name, presets = named(CONFIGURATIONS, command, "command")
    loaded = import_module(module)
    return getattr(loaded, name), getattr(loaded, presets) if presets else {}


def settings(command: str, preset: str | None = None) -> list[Setting]:
    """Every key of a command's configuration with the value that it has under a preset."""
    from eegprep.settings import resolve

    schema, presets = load(command)
    return list(_walk(schema, resolve(schema, presets=presets, preset=preset), ""))


def preset_names(command: str) -> list[str]:
    """The presets of a command, in the order of the table."""
    return list(load(command)[1])


def _walk(schema: Any, values: Any, prefix: str) -> Iterator[Setting]:
    # late: a command that only shows help does not need it
    from pydantic import BaseModel

    sections = []
    for name, field in schema.model_fields.items():
        value = getattr(values, name)
        if isinstance(value, BaseModel):
            sections.append((name, value))
        else:
            yield Setting(prefix + name, value, kind_of(field.annotation), meaning(schema, name))
    for name, value in sections:
        yield from _walk(type(value), value, f"{prefix}{name}.")


def kind_of(annotation: Any) -> str:
    """A type as a person would write it: number, text, a|b, list."""
    text = str(annotation)
    choices = re.findall(r"Literal\[(.*?)\]", text)
    if choices:
        text = "|".join(part.strip().strip("'\"") for part in choices[0].split(","))
        return text
    if "tuple" in text or "list" in text:
        return "list"
    if "dict" in text:
        return "table"
    for word, name in (("bool", "true|false"), ("int", "whole number"), ("float", "number")):
        if re.search(rf"\b{word}\b", text):
            return name
    return "text"


def meaning(schema: Any, name: str) -> str:
    """What a field means: its description, that of the class it extends, or the sentence about it in their docstrings."""
    classes = [one for one in schema.__mro__ if name in getattr(one, "model_fields", {})]
    described = [one.model_fields[name].description for one in classes if one.model_fields[name].description]
    if described:
        return str(described[0]).strip()
    for one in classes:
        text = " ".join((one.__doc__ or "").split())
        match = re.search(rf"(?:^|[.;] )(?:\w+, )*{name}(?:, \w+)*: (.*?)(?=[.;] (?:\w+, )*\w+: |\.?$)", text)
        if match:
            return match[1].strip()
    return ""


def toml(command: str, preset: str | None = None) -> str:
    """A commented TOML file with every key of a command, at the values of a preset."""
    lines = [
        f"# Settings of `{program_of(command)} {command}`"
        + (f", preset {preset}" if preset else "")
        + ". Keep the lines that you change."
    ]
    section = ""
    for one in settings(command, preset):
        parent, _, key = one.key.rpartition(".")
        if parent != section:
            lines += ["", f"[{parent}]"]
            section = parent
        comment = one.meaning + (f" ({one.kind})" if one.meaning and one.kind else one.kind)
        lines += textwrap.wrap(comment, 100, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"{key} = {toml_value(one.value)}" if one.value is not None else f"# {key} = not set")
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(k))} = {toml_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False)


def program_of(command: str) -> str:
    """`eegprep` or `dreamdiff`."""
    return "eegprep" if CONFIGURATIONS[command][0].startswith("eegprep") else "dreamdiff"


def write_config(command: str, path: Path, preset: str | None) -> None:
    """Write `--create-config`; an existing file is left alone."""
    from eegprep.errors import UsageError

    if path.exists():
        raise UsageError(f"{path} exists already", "choose another file name, or delete it first")
    path.write_text(toml(command, preset), encoding="utf-8")


def complete_preset(command: str, incomplete: str) -> list[str]:
    """Presets that begin so."""
    return [name for name in load(command)[1] if name.startswith(incomplete)]


def complete_setting(command: str, incomplete: str) -> list[str]:
    """`key=` of every setting that begins so."""
    return [f"{one.key}=" for one in settings(command) if one.key.startswith(incomplete)]


def complete_source(incomplete: str) -> list[str]:
    """Manifests of the package, and `moabb:` with its data sets."""
    from eegprep.catalogue import manifests, moabb

    known = [*manifests.shipped(), *(f"moabb:{entry.name}" for entry in moabb.entries()), "bids:", "files:"]
    return [name for name in known if name.startswith(incomplete)]
