"""What setuptools is told against what lies on disk."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import dreamdiff
import eegprep

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE_DIR = PROJECT["tool"]["setuptools"]["package-dir"]


def folder(package: str) -> Path:
    """Where a declared package lies in the checkout."""
    top, _, below = package.partition(".")
    return ROOT / PACKAGE_DIR.get(
        package, "/".join([PACKAGE_DIR.get(top, top), *below.split(".")]) if below else PACKAGE_DIR.get(top, top)
    )


def test_every_folder_with_python_files_is_declared():
    """The list is explicit: a forgotten folder would be missing from the wheel only."""
    on_disk = {path.parent for top in ("eegprep", "dreamdiff", "cli", "data_manifests") for path in (ROOT / top).rglob("*.py")}
    declared = {folder(package) for package in PROJECT["tool"]["setuptools"]["packages"]}

    assert declared == on_disk


def test_every_data_file_matches_a_declared_pattern():
    """Weights, templates, manifests and sample recordings must be in the wheel."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    missing = []
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        base = folder(package)
        nested = [folder(other) for other in PROJECT["tool"]["setuptools"]["packages"] if other.startswith(f"{package}.")]
        for path in base.rglob("*"):
            if path.is_dir() or path.suffix in {".py", ".pyc"} or any(inner in path.parents for inner in nested):
                continue
            if not any(path in base.glob(pattern) for pattern in patterns.get(package, [])):
                missing.append(str(path.relative_to(ROOT)))

    assert missing == []


def test_every_dependency_has_a_floor():
    """A missing floor installs a release that nobody tried; a ceiling needs a reason, and only zarr has one."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    dependencies = [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in extra)]

    assert [name for name in dependencies if ">=" not in name] == []
    assert [name for name in dependencies if "<" in name] == ["zarr>=3.1,<4"]


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extras: list[str], groups: list[str] = ()) -> set[str]:
    """Distributions that the project asks for with these extras and groups."""
    project = PROJECT["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    texts += [text for group in groups for text in PROJECT["dependency-groups"][group]]
    # `dask[distributed]` brings the distribution of that name too
    return {normal(name) for text in texts for name in re.findall(r"[\w.-]+", text.partition(">")[0])}


def imported(top: str) -> dict[str, str]:
    """Foreign top-level modules that the files of a folder import, inside functions too, with one of the files."""
    own = {"eegprep", "dreamdiff", "cli", "tools", *sys.stdlib_module_names}
    own |= {path.stem for path in ROOT.glob(f"{top}/**/*")}  # packages too: scripts import what lies beside them
    result: dict[str, str] = {}
    for path in sorted((ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            result |= {name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {name: path for name, path in result.items() if name not in own}


EXTRAS = list(PROJECT["project"]["optional-dependencies"])
GROUPS = list(PROJECT["dependency-groups"])


@pytest.mark.parametrize(
    ("top", "extras", "groups"),
    [
        ("eegprep", ["cluster", "formats", "views"], []),
        ("cli", [], []),
        ("dreamdiff", EXTRAS, []),
        ("benchmarks", EXTRAS, GROUPS),
        ("tests", EXTRAS, GROUPS),
        ("tools", EXTRAS, GROUPS),
    ],
)
def test_every_imported_module_is_declared(top, extras, groups):
    """What another package happens to bring is gone after its next release."""
    known, homes = declared(extras, groups), packages_distributions()
    if top in {"benchmarks", "tests", "tools"}:  # helpers beside the tests, and a module that a test makes up
        beside = {path.stem for path in (ROOT / "tests").rglob("*")} - set(homes) | {"nemar"}
        homes |= {name: ["eeg-dreamdiff"] for name in beside}
    missing = {
        name: path
        for name, path in imported(top).items()
        if not {normal(home) for home in homes.get(name, [name])} & (known | {"eeg-dreamdiff"})
    }

    assert missing == {}


def test_the_base_install_brings_no_pytorch():
    """`pip install eeg-dreamdiff` is for people who want a corpus; PyTorch would be 6 GB."""
    assert {"torch", "torchvision", "diffusers", "open-clip-torch", "timm"} & declared([]) == set()
    assert {"torch", "torchvision", "diffusers", "open-clip-torch", "timm"} <= declared(["models"])


def test_setuptools_includes_only_what_the_patterns_name():
    """With automatic inclusion setuptools prints a page of warnings for every data folder."""
    assert PROJECT["tool"]["setuptools"]["include-package-data"] is False


def test_versions_agree():
    """CITATION.cff and CHANGELOG.md name the version of the package."""
    version = PROJECT["project"]["version"]

    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert (eegprep.__version__, dreamdiff.__version__) == (version, version)
