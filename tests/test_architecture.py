"""The direction of imports, read from the source with `ast`: no module is imported for this."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "eegprep": {"torch", "diffusers", "open_clip", "transformers", "accelerate", "typer", "dreamdiff", "cli", "dreamdiff_cli"},
    "dreamdiff": {"mne", "moabb", "mne_bids", "typer", "cli", "dreamdiff_cli"},
    "cli": {"mne", "moabb", "zarr", "cli", "dreamdiff_cli"},
}
# what the training loop may know of the rest of the house
LOOP_FORBIDDEN = {"diffusers", "open_clip", "zarr", "mne"}
LOOP_ALLOWED_EEGPREP = {"eegprep.errors", "eegprep.settings", "eegprep.atomic", "eegprep.recording"}
# importing these at the top of a command file would make `--help` slow
HEAVY = {"torch", "numpy", "scipy", "pandas", "diffusers", "open_clip", "eegprep", "dreamdiff", "rich", "pydantic", "matplotlib"}


def imports(source: str, top_level_only: bool = False) -> set[str]:
    """Absolute module names that a source text imports."""
    tree = ast.parse(source)
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from eegprep import atomic` may name a module or a thing in one: both spellings count
            found |= {node.module} if node.module not in FORBIDDEN else {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_room_imports_what_lies_above_or_beside_it(package):
    """`eegprep` must stay usable without torch, and `dreamdiff` without the readers."""
    guilty = {
        str(path.relative_to(ROOT)): sorted(roots(imports(path.read_text())) & FORBIDDEN[package])
        for path in files(package)
        if roots(imports(path.read_text())) & FORBIDDEN[package]
    }

    assert guilty == {}


@pytest.mark.parametrize("planted", ["import torch", "from torch import nn", "def f():\n    import torch.nn as nn"])
def test_the_check_finds_a_planted_import(planted):
    """A check that cannot fail proves nothing."""
    assert roots(imports(planted)) & FORBIDDEN["eegprep"] == {"torch"}


def test_the_training_loop_knows_neither_eeg_nor_images():
    """One loop serves both stages only as long as it knows neither."""
    path = ROOT / "dreamdiff" / "loop.py"
    names = imports(path.read_text())

    assert roots(names) & LOOP_FORBIDDEN == set()
    assert {name for name in names if name.startswith("eegprep")} <= LOOP_ALLOWED_EEGPREP


def test_command_files_import_nothing_heavy_at_the_top():
    """`--help` answers in under half a second only as long as this holds."""
    guilty = {
        str(path.relative_to(ROOT)): sorted(roots(imports(path.read_text(), top_level_only=True)) & HEAVY)
        for path in files("cli")
        if roots(imports(path.read_text(), top_level_only=True)) & HEAVY
    }

    assert guilty == {}


def test_no_catch_all_modules():
    """`utils`, `common` and `base` collect what has no home."""
    names = {path.name for package in FORBIDDEN for path in files(package)}

    assert names & {"utils.py", "common.py", "base.py", "helpers.py"} == set()


def test_the_library_neither_prints_nor_exits():
    """Only `cli/` talks to the person; a library that exits cannot be built on. Programs (`__main__`) may: they are processes of their own."""
    guilty = []
    for path in [*files("eegprep"), *files("dreamdiff")]:
        source = path.read_text()
        if '__name__ == "__main__"' in source:
            continue
        for node in ast.walk(ast.parse(source)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in {"print", "sys.exit", "exit", "quit"}:
                guilty.append(f"{path.relative_to(ROOT)}:{node.lineno} {called}")

    assert guilty == []
