"""One way to configure: defaults < preset < TOML file < `section.key=value`, checked when built, fingerprinted.

Used by `eegprep` (recipes) and by `dreamdiff` (training, generation, evaluation).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from eegprep.errors import UsageError


class Settings(BaseModel):
    """Base of every configuration: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SettingsT = TypeVar("SettingsT", bound=BaseModel)
NamedT = TypeVar("NamedT")


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def named(known: Mapping[str, NamedT], name: str, what: str) -> NamedT:
    """The entry `name` of a table of choices.

    Raises:
        UsageError: there is none; `what` is the option that named it.
    """
    if name not in known:
        raise UsageError(f"{what} {name!r} is not known{suggest(name, known)}", f"choose one of: {', '.join(sorted(known))}")
    return known[name]


def resolve(
    schema: type[SettingsT],
    *,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str | None = None,
    file: Path | None = None,
    assignments: Iterable[str] = (),
    base: Mapping[str, Any] | None = None,
) -> SettingsT:
    """Merge all sources of settings into one checked object.

    Args:
        schema: the pydantic model to build.
        presets, preset: named starting points, and the one that is wanted.
        file: a TOML file.
        assignments: `section.key=value` strings; a value is read as TOML, else as plain text.
        base: what lies below the preset (for instance options of a command line).

    Raises:
        UsageError: unknown preset, key or value, or a file that is missing or not TOML.
    """
    merged: dict[str, Any] = {}
    if base:
        merge(merged, base)
    if preset is not None:
        known = presets or {}
        if preset not in known:
            raise UsageError(
                f"there is no preset {preset!r}{suggest(preset, known)}", f"choose one of: {', '.join(sorted(known))}"
            )
        merge(merged, known[preset])
    if file is not None:
        merge(merged, read_toml(file))
    for text in assignments:
        _assign(merged, text)
    return validated(schema, merged)


def validated(schema: type[SettingsT], content: Mapping[str, Any]) -> SettingsT:
    """Check `content` against `schema`; a mistake becomes one line with the key, the value and the cure."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            parent = _schema_at(schema, first["loc"][:-1])
            names = list(parent.model_fields) if parent else []
            raise UsageError(
                f"there is no setting {key!r}{suggest(str(first['loc'][-1]), names)}",
                f"remove it, or use one of: {', '.join(names) or 'the documented keys'}",
            ) from None
        raise UsageError(
            f"setting {key!r} = {first.get('input')!r}: {first['msg']}", f"change {key!r} in the configuration or with --set"
        ) from None


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file as a dictionary, or an error that names the line."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})", "check the path of the configuration") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not a TOML file ({error})", "mend the line that is named") from None


def merge(target: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Put `extra` over `target`, section by section."""
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = deepcopy(value)  # presets are shared: what is assigned later must not reach them


def _assign(target: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text!r} is not of the form section.key=value", "write for instance --set optim.lr=1e-4")
    *sections, last = key.strip().split(".")
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise UsageError(f"--set {text!r}: {section!r} is a value, not a section", "name an existing section")
    try:
        target[last] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        target[last] = value.strip()


def _schema_at(schema: type[BaseModel], path: tuple[Any, ...]) -> type[BaseModel] | None:
    current: Any = schema
    for part in path:
        field = current.model_fields.get(str(part)) if isinstance(current, type) and issubclass(current, BaseModel) else None
        if field is None:
            return None
        current = field.annotation
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None
