"""One way to configure: defaults < preset < TOML file < `section.key=value`, checked when built, fingerprinted.

Used by `eegprep` (recipes) and by `dreamdiff` (training, generation, evaluation).
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from eegprep.errors import UsageError


class Settings(BaseModel):
    """Base of every configuration: frozen, no unknown keys.

    renamed: keys of older versions and what they are called now, as `old: new` with dots between sections. They are accepted
    wherever settings come from, so that files, commands and finished runs keep working.
    """

    # `--set name=2024` is a name; infinity and NaN have no JSON form, so that a store could not say what it was made with
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, content: Any) -> Any:
        return current_names(cls, content) if isinstance(content, Mapping) else content


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
    options: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> SettingsT:
    """Merge all sources of settings into one checked object.

    Args:
        schema: the pydantic model to build.
        presets, preset: named starting points, and the one to start from.
        file: a TOML file.
        assignments: `section.key=value` strings; a value is read as TOML, else as plain text.
        options: values of command-line options by key (`section.key` in a section), as Python values; None is "not given". They win
            over everything else.
        base: what lies below the preset.

    Raises:
        UsageError: unknown preset, key or value, or a file that is missing or not TOML.
    """
    merged: dict[str, Any] = {}
    merge(merged, current_names(schema, base or {}))
    if preset is not None:
        known = presets or {}
        if preset not in known:
            raise UsageError(
                f"there is no preset {preset!r}{suggest(preset, known)}", f"choose one of: {', '.join(sorted(known))}"
            )
        merge(merged, current_names(schema, known[preset]))
    if file is not None:
        merge(merged, current_names(schema, read_toml(file)))
    for text in assignments:
        _assign(merged, text, schema)
    given: dict[str, Any] = {}
    for key, value in (options or {}).items():
        if value is not None:
            _set(given, key.split("."), value)
    merge(merged, current_names(schema, given))
    return validated(schema, merged)


def current_names(schema: type[BaseModel], content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the keys of older versions moved to where they are now, see `Settings.renamed`."""
    renamed: Mapping[str, str] = getattr(schema, "renamed", {})
    moved: dict[str, Any] = deepcopy({key: value for key, value in content.items() if key not in renamed})
    for key in content.keys() & renamed.keys():
        _set(moved, renamed[key].split("."), content[key])
    return moved


def current_form(schema: type[BaseModel], stored: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that an older version wrote, as this one would write it: renamed keys moved, new keys at their defaults.

    What this version does not understand is returned as it is.
    """
    try:
        return schema.model_validate(stored).model_dump(mode="json")
    except ValidationError:
        return dict(stored)


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
            near = _nearest_keys(schema, first["loc"], getattr(parent, "renamed", {}))
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UsageError(
                f"there is no setting {key!r}{hint}",
                f"remove it, or use one of: {', '.join(names) or 'the documented keys'}",
            ) from None
        raise UsageError(
            f"setting {key!r} = {first.get('input')!r}: {first['msg'].removeprefix('Value error, ')}",
            f"change {key!r} in the configuration or with --set",
        ) from None


def leaf_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """`section.key` of every setting."""
    keys: list[str] = []
    for name, field in schema.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += leaf_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _nearest_keys(schema: type[BaseModel], path: Sequence[Any], renamed: Mapping[str, str]) -> list[str]:
    """Settings that were probably meant: of the same name in another section, else of a similar name, its own section first."""
    *sections, word = map(str, path)
    keys = leaf_keys(schema)
    keys += sorted({key.rpartition(".")[0] for key in keys} - {""})  # sections
    names = {key: key.rpartition(".")[2] for key in keys}
    near = difflib.get_close_matches(word, [*names.values(), *renamed], n=1, cutoff=0.5)
    if not near:
        return []
    if near[0] in renamed:
        return [".".join([*sections, renamed[near[0]]])]
    matches = [key for key in keys if names[key] == near[0]]
    here = [key for key in matches if key.rpartition(".")[0] == ".".join(sections)]
    return here or matches[:3]


def differences(there: Any, here: Any, key: str = "", *, options: bool = False) -> list[str]:
    """`key: old there, new here` for every leaf that differs.

    Args:
        there, here: JSON values, as they are stored and as they are requested now.
        options: write keys as options of the command line, `--max-channels`.
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        return [
            line
            for name in sorted(there.keys() | here.keys())
            for line in differences(there.get(name), here.get(name), f"{key}.{name}" if key else name, options=options)
        ]
    if there == here:
        return []
    name = f"--{key.replace('_', '-')}" if options else f"{key}:"
    return [f"{name} {_short(there)} there, {_short(here)} here"]


def _short(value: Any) -> str:
    text = "not given" if value is None else f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file as a dictionary, or an error that names the line."""
    try:
        size = file.stat().st_size
        if size > _LARGEST_TOML:
            raise UsageError(f"{file}: {size:,} bytes (limit {_LARGEST_TOML:,})", "give a configuration or a manifest")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})", "check the path of the configuration") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not a TOML file ({error})", "correct that line") from None
    if _LONG_KEY.search(text):
        raise UsageError(f"{file}: a key of more than {_DEEPEST} parts", "correct that line")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UsageError(f"{file}: tables or arrays are nested too deep", "correct that line") from None
    except ValueError as error:  # also a number of thousands of digits
        raise UsageError(f"{file}: not a TOML file ({str(error)[:200]})", "correct that line") from None


_LARGEST_TOML = 16_000_000  # bytes
_DEEPEST = 32  # parts of a key
_LONG_KEY = re.compile(rf"""(?:[ \t]?\.[ \t]?["']?[\w-]{{1,40}}["']?){{{_DEEPEST}}}""")


def merge(target: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Put `extra` over `target`, section by section."""
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = deepcopy(value)  # presets are shared: what is assigned later must not reach them


def _assign(target: dict[str, Any], text: str, schema: type[BaseModel]) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text!r} is not of the form section.key=value", "write for instance --set optim.lr=1e-4")
    name = key.strip()
    sections = getattr(schema, "renamed", {}).get(name, name).split(".")
    if len(sections) > _DEEPEST or _LONG_KEY.search(value):
        raise UsageError(f"--set {text[:40]!r}...: a key of more than {_DEEPEST} parts", "write for instance --set optim.lr=1e-4")
    try:
        parsed = tomllib.loads(f"x = {value}")["x"]
    except (ValueError, RecursionError):
        parsed = value.strip()
    try:
        _set(target, sections, parsed)
    except TypeError as error:
        raise UsageError(f"--set {text!r}: {str(error)!r} is a value, not a section", "name an existing section") from None


def _set(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Put `value` at `path`, making sections on the way.

    Raises:
        TypeError: naming the part of the path that is a value.
    """
    *sections, last = path
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise TypeError(section)
    target[last] = value


def _schema_at(schema: type[BaseModel], path: tuple[Any, ...]) -> type[BaseModel] | None:
    current: Any = schema
    for part in path:
        field = current.model_fields.get(str(part)) if isinstance(current, type) and issubclass(current, BaseModel) else None
        if field is None:
            return None
        current = field.annotation
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def __getattr__(name: str) -> Any:
    if name == "build":  # what `validated` was called in 0.1.0; scripts written against it keep working
        return validated
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
