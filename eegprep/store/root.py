"""Creates a corpus, publishes its groups, and writes the roll-ups of its root."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eegprep.atomic import clean_partial
from eegprep.errors import StoreError
from eegprep.provenance import plain_json, software_versions
from eegprep.store.commit import VERSION, finish_root, group_node, put_data_set, read_node, read_root, write_root
from eegprep.store.format import CHECKSUMS, COLUMNS, FORMAT, VIEW_FORMAT, check_corpus_attributes
from eegprep.store.names import folders
from eegprep.store.recovery import usable_root


def create_corpus(
    root: Path, recipe: Mapping[str, Any], fingerprint: str, *, channels: int = 128, samples: int = 512, kind: str = FORMAT
) -> None:
    """Make an empty corpus, or check that `root` is one of the same recipe.

    Args:
        root: folder of the corpus; made when it is not there. Groups of a corpus whose root is damaged are kept.
        recipe: how windows are made, resolved, as JSON values; stored as it is.
        fingerprint: of what makes windows comparable; a corpus holds windows of one fingerprint only.
        channels, samples: shape of every window.
        kind: the format, a corpus or a view.

    Raises:
        StoreError: `root` holds something else, or a corpus of another recipe or shape.
    """
    root = Path(root)
    node = usable_root(root)
    if node is not None:
        attributes = check_corpus_attributes(node["attributes"], str(root), views=kind == VIEW_FORMAT)
        if attributes["format"] != kind:
            raise StoreError(
                f"{root}: holds a corpus ({attributes['format']!r}), not a view of recordings", "choose another --out"
            )
        _check_same(root, attributes, fingerprint, channels, samples)
        return
    root.mkdir(parents=True, exist_ok=True)
    attributes = {
        "format": kind,
        "version": VERSION,
        "channels": channels,
        "samples": samples,
        "recipe": dict(recipe),
        "fingerprint": fingerprint,
        "software": software_versions(),
        "licences": {},
        "people": {},
    }
    write_root(root, group_node(attributes))


def read_corpus_attributes(root: Path) -> Mapping[str, Any]:
    """The root attributes of a local corpus or view.

    Raises:
        StoreError: there is no corpus at `root`, or it is damaged, or of a newer version.
    """
    return check_corpus_attributes(read_root(Path(root))["attributes"], str(root), views=True)


def finish_corpus(root: Path) -> None:
    """Write the roll-ups (licences, people), consolidated metadata and the record of all groups; the last step.

    What killed runs left is cleared. Equal content gives equal bytes, and a corpus that is finished already is not touched.
    """
    root = Path(root)
    attributes = read_corpus_attributes(root)
    clean_partial(root)
    metadata: dict[str, Mapping[str, Any]] = {}
    groups: dict[str, Mapping[str, Any]] = {}
    for dataset in folders(root):
        clean_partial(dataset)
        subjects = folders(dataset)
        if not subjects:  # its only subjects were left out whole, or the process was killed here
            with suppress(OSError):
                (dataset / "zarr.json").unlink(missing_ok=True)
                dataset.rmdir()
            continue
        metadata[dataset.name] = put_data_set(dataset)
        for subject in subjects:
            key = f"{dataset.name}/{subject.name}"
            metadata[key] = read_node(subject / "zarr.json")
            groups[key] = metadata[key]["attributes"]
            for name in ("windows", *COLUMNS, CHECKSUMS):
                # version 1 had no checksums, a view has no windows
                if name in COLUMNS or (name == "windows" and attributes["format"] == FORMAT) or (subject / name).exists():
                    metadata[f"{key}/{name}"] = read_node(subject / name / "zarr.json")
    # rolled up from the groups each time, never added to: a group that was replaced must not count twice
    attributes = {**attributes, "licences": _licences(groups), "people": _people(groups)}
    final = group_node(attributes)
    # one request instead of six for each subject, for readers of object stores
    final["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    finish_root(root, final, [f"{name}/zarr.json" for name in metadata if name.count("/") < 2])


def set_recipe(root: Path, recipe: Mapping[str, Any], fingerprint: str) -> None:
    """Give the corpus another recipe; the caller then makes every subject again that the change touches."""
    set_attributes(root, recipe=dict(recipe), fingerprint=fingerprint)


def set_attributes(root: Path, **values: Any) -> None:
    """Replace root attributes, unless they are so already; consolidated metadata goes, `finish_corpus` makes it again."""
    attributes = read_corpus_attributes(root)
    changed = {**attributes, **plain_json(values)}
    if changed != attributes:
        # the record spoke of the old attributes
        kept = {key: value for key, value in changed.items() if key != "commit"}
        write_root(root, group_node({**kept, "version": VERSION}))


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


@dataclass
class _LicenceUse:
    """How much of a corpus is under one licence."""

    windows: int = 0
    recordings: int = 0
    people: set[str] = field(default_factory=set)
    datasets: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, object]:
        return {**vars(self), "people": len(self.people), "datasets": sorted(self.datasets)}


def _licences(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """For each licence: how many windows, recordings and people, and which data sets."""
    used: defaultdict[str, _LicenceUse] = defaultdict(_LicenceUse)
    for group in groups.values():
        for record in group["recordings"]:
            use = used[record.get("licence") or "unknown"]
            use.windows += record["windows"]
            use.recordings += 1
            use.people.add(group["person"])
            use.datasets.add(group["dataset"])
    return {name: use.to_json() for name, use in sorted(used.items())}


def _people(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Which groups belong to which person."""
    result: dict[str, list[str]] = {}
    for key, group in sorted(groups.items()):
        result.setdefault(group["person"], []).append(key)
    return result
