"""Help of options that set a configuration field: the description of the field, so that it is written in one place only.

It is read from the source text. Importing the class would bring pydantic and more, and `--help` has to answer at once.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer


def field_help(module: str, cls: str, field: str) -> str:
    """The description of `cls.field`, with its default; a description that names its default in brackets is complete.

    Args:
        module: where the class is, for instance "eegprep.signals.recipe".
    """
    description, default = _fields(module, cls)[field]
    return description if default is None or "[default: " in description else f"{description} [default: {default}]"


@cache
def _fields(module: str, cls: str) -> dict[str, tuple[str, str | None]]:
    """Field -> (description, default as text, or None where there is none to show)."""
    tree = _parsed(module)
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)
    inherited: dict[str, tuple[str, str | None]] = {}
    for base in found.bases:
        home = _home(tree, base.id) if isinstance(base, ast.Name) else None
        if home:
            inherited |= _fields(home, base.id)
    return inherited | {
        node.target.id: _described(node.value)
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Call)
    }


def _parsed(module: str) -> ast.Module:
    package, *rest = module.split(".")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {package!r}")
    file = Path(spec.submodule_search_locations[0]).joinpath(*rest).with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


def _home(tree: ast.Module, name: str) -> str | None:
    """The module of a base class that a file imports; None for `Settings`, which has no fields, and for what the file does not import."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names} - {"Settings"}:
            return node.module
    return None


def _described(call: ast.Call) -> tuple[str, str | None]:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    default = ast.literal_eval(given["default"]) if isinstance(given.get("default"), ast.Constant) else None
    text = ast.literal_eval(given["description"]) if "description" in given else ""
    return text.replace("`", ""), None if default in (None, "") or isinstance(default, bool) else f"{default:g}" if isinstance(
        default, float
    ) else str(default)


# options that several commands share
DeviceOption = Annotated[
    str | None, typer.Option("--device", help=field_help("dreamdiff.training.config", "LoopConfig", "device"))
]
TrainingPrecision = Annotated[
    str | None, typer.Option("--precision", help=field_help("dreamdiff.training.config", "LoopConfig", "precision"))
]
PicturePrecision = Annotated[
    str | None, typer.Option("--precision", help=field_help("dreamdiff.generation.config", "GenerateConfig", "precision"))
]
