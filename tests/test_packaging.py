"""What setuptools is told against what lies on disk."""

from __future__ import annotations

import tomllib
from pathlib import Path

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
    dependencies = PROJECT["project"]["dependencies"]

    assert [name for name in dependencies if ">=" not in name] == []
    assert [name for name in dependencies if "<" in name] == ["zarr>=3.1,<4"]


def test_versions_agree():
    """CITATION.cff and CHANGELOG.md name the version of the package."""
    version = PROJECT["project"]["version"]

    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
