"""Creates a corpus, publishes its groups, and writes the roll-ups of its root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegprep.atomic import clean_partial, fsync_folder, partial_path, publish_folder
from eegprep.errors import StoreError
from eegprep.provenance import plain_json, software_versions
from eegprep.store.format import (
    COLUMNS,
    FORMAT,
    VERSION,
    _dump,
    _group_node,
    _write_node,
    check_corpus_attributes,
    parse_node,
    read_node,
)


def create_corpus(root: Path, recipe: Mapping[str, Any], fingerprint: str, *, channels: int = 128, samples: int = 512) -> None:
    """Make an empty corpus, or check that `root` is one of the same recipe.

    Args:
        root: folder of the corpus; made when it is not there.
        recipe: how windows are made, resolved, as JSON values; stored as it is.
        fingerprint: of what makes windows comparable; a corpus holds windows of one fingerprint only.
        channels, samples: shape of every window.

    Raises:
        StoreError: `root` holds something else, or a corpus of another recipe or shape.
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root}: is a file, not a folder", "choose another --out")
    if root.is_dir() and any(not entry.name.startswith(".") for entry in root.iterdir()):
        attributes = read_corpus_attributes(root)
        _check_same(root, attributes, fingerprint, channels, samples)
        return
    root.mkdir(parents=True, exist_ok=True)
    attributes = {
        "format": FORMAT,
        "version": VERSION,
        "channels": channels,
        "samples": samples,
        "recipe": dict(recipe),
        "fingerprint": fingerprint,
        "software": software_versions(),
        "licences": {},
        "people": {},
    }
    _write_node(root, _group_node(attributes))


def read_corpus_attributes(root: Path) -> dict[str, Any]:
    """The root attributes of a local corpus.

    Raises:
        StoreError: there is no corpus at `root`, or one of a newer version.
    """
    return check_corpus_attributes(read_node(Path(root) / "zarr.json").get("attributes", {}), str(root))


def committed_key(root: Path, dataset: str, subject: str) -> str | None:
    """The key a subject was committed under, or None when it is not there, or not whole."""
    try:
        node = read_node(Path(root) / dataset / subject / "zarr.json")
    except StoreError:
        return None
    record = node.get("attributes", {}).get("commit")
    return record.get("key") if isinstance(record, dict) else None


def finish_corpus(root: Path) -> None:
    """Write the roll-ups (licences, people) and consolidated metadata, and clear what killed runs left; the last step.

    Equal content gives equal bytes, and a corpus that is finished already is not touched.
    """
    root = Path(root)
    node = read_node(root / "zarr.json")
    attributes = check_corpus_attributes(node.get("attributes", {}), str(root))
    clean_partial(root)
    metadata: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for dataset in _folders(root):
        clean_partial(dataset)
        if not any(dataset.iterdir()):  # its only subjects were left out whole, or the process was killed here
            dataset.rmdir()
            continue
        metadata[dataset.name] = read_node(dataset / "zarr.json")
        for subject in _folders(dataset):
            key = f"{dataset.name}/{subject.name}"
            metadata[key] = read_node(subject / "zarr.json")
            groups[key] = metadata[key]["attributes"]
            for name in ("windows", *COLUMNS):
                metadata[f"{key}/{name}"] = read_node(subject / name / "zarr.json")
    attributes = {**attributes, "licences": _licences(groups), "people": _people(groups)}
    final = _group_node(attributes)
    final["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    if (root / "zarr.json").read_bytes() != _dump(final):
        _write_node(root, final)


def set_recipe(root: Path, recipe: Mapping[str, Any], fingerprint: str) -> None:
    """Give the corpus another recipe; the caller then makes every subject again that the change touches."""
    set_attributes(root, recipe=dict(recipe), fingerprint=fingerprint)


def set_attributes(root: Path, **values: Any) -> None:
    """Replace root attributes, unless they are so already; consolidated metadata goes, `finish_corpus` makes it again."""
    node = read_node(root / "zarr.json")
    attributes = check_corpus_attributes(node.get("attributes", {}), str(root))
    changed = {**attributes, **plain_json(values)}
    if changed != attributes:
        _write_node(root, _group_node(changed))


def publish_group(root: Path, key: str) -> None:
    """Give a group that is whole, in its hidden folder, its place in the corpus."""
    final = root / key
    partial = partial_path(final)
    if not (final.parent / "zarr.json").exists():
        _write_node(final.parent, _group_node({}))
    drop_consolidated(root)
    publish_folder(partial, final)
    fsync_folder(root)


def drop_consolidated(root: Path) -> None:
    """Remove the consolidated metadata before a subject changes, so that no reader believes an old view."""
    content = (root / "zarr.json").read_bytes()
    if b'"consolidated_metadata"' in content:
        node = parse_node(content, str(root))
        node.pop("consolidated_metadata", None)
        _write_node(root, node)


def _check_same(root: Path, attributes: Mapping[str, Any], fingerprint: str, channels: int, samples: int) -> None:
    shape = (attributes.get("channels"), attributes.get("samples"))
    if shape != (channels, samples):
        raise StoreError(
            f"{root}: holds windows of shape {shape}, not ({channels}, {samples})", "choose another --out, or the same shape"
        )
    old = str(attributes.get("fingerprint"))
    if old != fingerprint:
        raise StoreError(
            f"{root}: was made with another recipe (fingerprint {old[:12]}, now {fingerprint[:12]})",
            "choose another --out, or the same options as before; `eegprep inspect` shows them",
        )


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _licences(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """For each licence: how many windows, recordings and people, and which data sets."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups.values():
        for record in group["recordings"]:
            entry = found.setdefault(
                record.get("licence") or "unknown", {"windows": 0, "recordings": 0, "people": set(), "datasets": set()}
            )
            entry["windows"] += record["windows"]
            entry["recordings"] += 1
            entry["people"].add(group["person"])
            entry["datasets"].add(group["dataset"])
    return {
        name: {**entry, "people": len(entry["people"]), "datasets": sorted(entry["datasets"])}
        for name, entry in sorted(found.items())
    }


def _people(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Which groups belong to which person."""
    found: dict[str, list[str]] = {}
    for key, group in sorted(groups.items()):
        found.setdefault(group["person"], []).append(key)
    return found
