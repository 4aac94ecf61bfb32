"""What the metadata of a corpus says of its groups, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eegprep.corpus.files import REPAIR, Checksums, Files, LocalFiles, Shard
from eegprep.errors import StoreError
from eegprep.store.commit import (
    Commit,
    StoredFile,
    attributes_digest,
    check_finished,
    finished_files,
    no_collection,
    parse_node,
    parse_root,
)
from eegprep.store.format import CHECKSUMS, COLUMNS, RECORDS, VIEW_FORMAT, check_corpus_attributes, check_windows_node
from eegprep.store.names import check_key, check_relative


@dataclass(frozen=True)
class Group:
    """One subject's group: its name, its windows, and their shards."""

    key: str
    windows: int
    shards: tuple[Shard, ...]
    columns: Mapping[str, StoredFile]
    attributes_sha256: str


def read_attributes(files: Files, group: Group, url: str) -> Mapping[str, Any]:
    """The attributes of a group, as they were committed."""
    path = f"{group.key}/zarr.json"
    attributes: Mapping[str, Any] = parse_node(files.metadata(path), f"{url}/{path}")["attributes"]
    if attributes_digest(attributes) != group.attributes_sha256:
        raise StoreError(f"{url}/{path}: not the attributes that were committed", REPAIR)
    return attributes


def read_column(files: Files, group: Group, name: str, url: str) -> np.ndarray:
    """A column of a group: one value a window, or a data record."""
    data_type = COLUMNS.get(name, "<u4")
    record = group.columns.get(name)
    if record is None or not record.size:
        return np.empty(0, data_type)
    content = files.recorded(f"{group.key}/{name}/c/0", record)
    expected = (group.windows if name in COLUMNS else (record.size - 4) // 4) * np.dtype(data_type).itemsize + 4
    if len(content) != expected:
        raise StoreError(f"{url}/{group.key}/{name}: damaged ({len(content)} bytes, expected {expected})", REPAIR)
    return np.frombuffer(content[:-4], data_type)


def read_groups(files: Files, url: str) -> tuple[Mapping[str, Any], list[Group], dict[str, dict[str, object]]]:
    """The root's attributes, the groups in the order of their keys, and the attributes of each group by key.

    Raises:
        StoreError: there is no corpus, it is damaged, or a subject in it is not whole or is another than it was finished with.
    """
    with no_collection():
        node = parse_root(files.metadata("zarr.json"), f"{url}/zarr.json")
        root = check_corpus_attributes(node["attributes"], url, views=isinstance(files, LocalFiles))
        nodes = consolidated(node, url) or walk(files)
        finished = finished_files(node, url)
        keys = sorted(check_key(key, url) for key in nodes if key.count("/") == 1 and nodes[key].get("node_type") == "group")
        if isinstance(files, LocalFiles):  # an object store would take a request a group; there the windows' checksums tell
            check_finished(files.root, finished)
        groups = [group_of_node(key, nodes, root, url, checked=bool(finished)) for key in keys]
    return root, groups, {key: nodes[key]["attributes"] for key in keys}


def consolidated(node: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The consolidated metadata of a root, or nothing."""
    value = node.get("consolidated_metadata")
    nodes = value.get("metadata") if isinstance(value, dict) else None
    if not nodes:
        return {}
    whole = isinstance(nodes, dict) and all(isinstance(entry, dict) for entry in nodes.values())
    if not whole or not all(isinstance(entry.get("attributes"), dict) for entry in nodes.values()):
        raise StoreError(f"{where}: its consolidated metadata is damaged", REPAIR)
    for name in nodes:
        # names out of a file become paths: nothing may lead out of the store
        parent = check_relative(name, where).rpartition("/")[0]
        if name.count("/") > 2 or (parent and parent not in nodes):
            raise StoreError(f"{where}: its consolidated metadata names {name!r}, which is in none of its groups", REPAIR)
    return nodes


def walk(files: Files) -> Mapping[str, Any]:
    """Read every group's metadata, where a corpus has no consolidated metadata (yet)."""
    nodes: dict[str, object] = {}
    for dataset in files.children(""):
        for subject in files.children(dataset):
            for path in (f"{dataset}/{subject}", f"{dataset}/{subject}/windows"):
                nodes[path] = parse_node(files.metadata(f"{path}/zarr.json"), path)
    return nodes


def group_of_node(key: str, nodes: Mapping[str, Any], root: Mapping[str, Any], url: str, *, checked: bool) -> Group:
    """What the metadata of a group says of its windows.

    Args:
        nodes: metadata by name. root: attributes of the root. checked: whether the root's digest covers the group's attributes.

    Raises:
        StoreError: it has no commit record, or that does not fit the root.
    """
    where = f"{url}/{key}"
    attributes = nodes[key]["attributes"]
    commit = Commit.of(attributes, where)
    if not checked and attributes_digest(attributes) != commit.attributes_sha256:
        raise StoreError(f"{where}: not the attributes that were committed", REPAIR)
    n = commit.windows
    if n is None:
        raise StoreError(f"{where}: its commit record does not say how many windows it holds", REPAIR)
    columns = {name: commit.file(f"{name}/c/0", where) for name in COLUMNS} if n else {}
    if root["format"] == VIEW_FORMAT:
        columns[RECORDS] = commit.files.get(f"{RECORDS}/c/0", StoredFile(0, ""))
        return Group(key, n, (), columns, commit.attributes_sha256)
    if f"{key}/windows" not in nodes:
        raise StoreError(f"{where}/windows: has no metadata", REPAIR)
    capacity = check_windows_node(nodes[f"{key}/windows"], n, root["channels"], root["samples"], f"{where}/windows")
    sums = commit.file(f"{CHECKSUMS}/c/0", where) if n and f"{CHECKSUMS}/c/0" in commit.files else None
    shards = []
    for number, first in enumerate(range(0, n, capacity)):
        path = f"windows/c/{number}/0/0"
        entry = commit.file(path, where)
        checksums = None if sums is None else Checksums(f"{key}/{CHECKSUMS}/c/0", sums, n, first)
        shards.append(Shard(f"{key}/{path}", min(capacity, n - first), capacity, entry.size, entry.sha256, checksums))
    return Group(key, n, tuple(shards), columns, commit.attributes_sha256)
