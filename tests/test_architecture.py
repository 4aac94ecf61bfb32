"""The direction of imports, read from the source with `ast`: no module is imported for this."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# what no file of a package may import, whatever its room
FORBIDDEN = {
    "eegprep": {"torch", "diffusers", "open_clip", "transformers", "accelerate", "typer"},
    "dreamdiff": {"mne", "moabb", "mne_bids", "typer"},
    "cli": {"mne", "moabb", "zarr"},
}
# a room imports itself and what stands earlier; the files directly in a package are its ground floor
ORDER = [
    "eegprep", "eegprep.signals", "eegprep.readers", "eegprep.catalogue", "eegprep.download", "eegprep.sources",
    "eegprep.store", "eegprep.corpus", "eegprep.steps", "eegprep.inspection", "eegprep.sharing",
    "dreamdiff", "dreamdiff.embedded", "dreamdiff.untrusted", "dreamdiff.encoders", "dreamdiff.encoders.published", "dreamdiff.diffusion", "dreamdiff.metrics",
    "dreamdiff.sameness", "dreamdiff.pairs", "dreamdiff.pairs.importers", "dreamdiff.pairs.importers.layouts", "dreamdiff.lineage", "dreamdiff.simulation", "dreamdiff.training", "dreamdiff.estimators", "dreamdiff.yardsticks", "dreamdiff.pretraining",
    "dreamdiff.alignment", "dreamdiff.finetuning", "dreamdiff.generation", "dreamdiff.certificates", "dreamdiff.protocols", "dreamdiff.baselines",
    "dreamdiff.evaluation", "dreamdiff.study", "dreamdiff.sharing", "dreamdiff.programs", "dreamdiff.web", "dreamdiff.figures",
    "cli", "cli.corpus", "cli.alignment", "cli.model", "cli.pairs", "cli.sharing",
]  # fmt: skip
FACES = {"eegprep", "dreamdiff"}  # their `__init__` names what is public, found on first use
LONGEST_FILE, FULLEST_ROOM = 450, 14
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


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path): path for package in FORBIDDEN for path in files(package)}


def room_of(module: tuple[str, ...]) -> str:
    return ".".join(module if MODULES[module].name == "__init__.py" else module[:-1])


def modules_imported(path: Path) -> set[tuple[str, ...]]:
    """Modules of the house that a file imports anywhere, type checking and function bodies included; faces left out."""
    here = module_of(path)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here if path.name == "__init__.py" else here[:-1]
            start = base[: len(base) - node.level + 1] if node.level else ()
            names = [(*start, *(node.module or "").split("."), alias.name) for alias in node.names]
        else:
            continue
        for name in (tuple(part for part in name if part) for name in names):
            module = next((name[:n] for n in range(len(name), 0, -1) if name[:n] in MODULES), None)
            if module and ".".join(module) not in FACES:
                found.add(module)
    return found


def arrows() -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    return {module: modules_imported(path) - {module} for module, path in MODULES.items() if ".".join(module) not in FACES}


def test_every_room_imports_only_itself_and_what_stands_earlier():
    """Read from the first room to the last, the list is the pipeline; an arrow upwards would make it a tangle."""
    upward = [
        f"{'.'.join(module)} -> {'.'.join(other)}"
        for module, others in arrows().items()
        for other in others
        if ORDER.index(room_of(other)) > ORDER.index(room_of(module))
    ]

    assert upward == []


def test_no_circle_between_files():
    """Removing files that import nothing that is left, again and again, leaves none."""
    left = arrows()
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]

    assert left == {}


def test_no_file_is_too_long_and_no_room_too_full():
    """A reader finds the one idea of a file, and the files of a room, at a glance."""
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES.values()}
    rooms = Counter(str(path.parent.relative_to(ROOT)) for path in MODULES.values())

    assert {name: n for name, n in lines.items() if n > LONGEST_FILE} == {}
    assert {name: n for name, n in rooms.items() if n > FULLEST_ROOM} == {}


def test_every_room_says_what_belongs_there():
    """The first thing a contributor reads in a folder is its `__init__`."""
    mute = [
        name for name in ORDER if not ast.get_docstring(ast.parse((ROOT / Path(*name.split(".")) / "__init__.py").read_text()))
    ]

    assert mute == []


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
