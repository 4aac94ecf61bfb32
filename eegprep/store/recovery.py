"""A store whose root is missing or damaged, and whose groups are there: the command that made it writes the root again.

A folder is taken for the rest of a store only if nothing else is in it; somebody's own files are never written over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegprep.errors import StoreError
from eegprep.store.commit import AGAIN, FORMATS, VERSION, Commit, parse_node, read_root
from eegprep.store.names import read_inside


def usable_root(root: Path, what: str = "a corpus", exists: str = "choose another --out") -> Mapping[str, Any] | None:
    """The checked node of the root; None when it has to be written: a new folder, or the groups of a store whose root is damaged.

    Args:
        what: for the message. exists: what to do when something else is there.

    Raises:
        StoreError: the folder holds something else, or a store of a newer version.
    """
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root}: is a file, not a folder", exists)
    if not root.is_dir() or not any(not entry.name.startswith(".") for entry in root.iterdir()):
        return None
    try:
        node = read_root(root)
        if node["attributes"].get("format") in FORMATS or "metadata_sha256" not in node["attributes"]:
            return node
        raise StoreError(f"{root}: is damaged (attribute `format` is {node['attributes'].get('format')!r})", AGAIN)
    except StoreError:
        if not _may_be_ours(root) or not all(_is_rest(entry) for entry in root.iterdir()):
            if not (root / "zarr.json").exists():
                raise StoreError(f"{root}: not {what} (it holds other files, and no zarr.json)", exists) from None
            raise
        return None


def _may_be_ours(root: Path) -> bool:
    """Whether the root's `zarr.json` is missing, is no JSON any more, or says that it is ours."""
    try:
        content = read_inside(root, "zarr.json")
    except FileNotFoundError:
        return True
    if not content or content.startswith(b'{"attributes":{"'):  # as we begin
        cut = True
    else:
        # overwritten from its first byte: only groups with our commit records can tell that this was a store
        cut = any(_is_group(subject) for subject in root.glob("*/*"))
    try:
        attributes = json.loads(content)["attributes"]
        version = attributes.get("version")
    except (ValueError, RecursionError):
        return cut
    except (KeyError, TypeError, AttributeError):
        return False
    # a root of a newer version is whole for somebody else: never written over
    newer = type(version) is int and version > VERSION
    return not newer and ("metadata_sha256" in attributes or attributes.get("format") in FORMATS)


def _is_rest(entry: Path) -> bool:
    """Whether this can be the root's metadata, a leftover of a killed run, or a data set's folder with groups of ours."""
    if entry.name.startswith(".") or entry.name == "zarr.json":
        return True
    if entry.is_symlink() or not entry.is_dir():
        return False
    return all(child.name.startswith(".") or child.name == "zarr.json" or _is_group(child) for child in entry.iterdir())


def _is_group(folder: Path) -> bool:
    try:
        node = parse_node(read_inside(folder, "zarr.json"), str(folder))
        return bool(Commit.of(node["attributes"], str(folder)).key)
    except (StoreError, OSError):
        return False
