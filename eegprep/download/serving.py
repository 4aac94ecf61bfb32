"""NEMAR's zarr copies of recordings: which there are, whether they do, and their level-0 signal brought here piece by piece.

A copy is one zarr v3 store a recording, int16 at 250 Hz at most for EEG, made by `biosigio`. Stores are overwritten in place and have no
version: the commit that the index names and the hash of every file that is read are kept, and a store that changes while it is being
read is refused by name. Of a store only what is read is brought: the metadata, the signal (never its envelopes for drawing), the events.

Layout: nemarOrg/nemar-cli, shared/zarr-index.schema.json (format version 3) and docs/operations/zarr-serving.md.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from eegprep.atomic import write_json
from eegprep.download.documents import mirrored, read_json, read_url
from eegprep.download.transfer import ByteProgress, download
from eegprep.errors import FetchError
from eegprep.sealed import read_object

BASE = "https://zarr.nemar.org/"  # the one address that a client may know; the index says where the bytes are
SOURCE = "source.json"  # beside a copy: which recording, and at which commit
MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Copy:
    """A copy of one recording.

    path: of the recording in BIDS; zarr: of the store, below `base`. group: with the EEG. rate, source_rate: Hz. commit: of the data set.
    channels, samples: of that group; 0 where the index does not say.
    """

    path: str
    zarr: str
    group: str
    rate: float
    source_rate: float
    base: str
    commit: str
    updated: str
    channels: int = 0
    samples: int = 0

    @property
    def most_bytes(self) -> int:
        """Of its signal before compression: 16 bits a sample. The index tells no sizes of files."""
        return 2 * self.channels * self.samples

    @property
    def version(self) -> str:
        """What changes when the store is written anew."""
        return f"{self.updated} {self.zarr} {self.group}"


@dataclass(frozen=True)
class Index:
    """The entry point of a data set. about: licence, doi, citation as its catalogue states them."""

    copies: tuple[Copy, ...]
    about: Mapping[str, Any]


def folder_of(path: str) -> str:
    """Where the copy of a recording lies in the BIDS folder, with a slash at its end."""
    return re.sub(r"\.[^./]+(\.gz)?$", "", path) + ".zarr/"


def read_index(target: str) -> Index | None:
    """The index of a data set; None where NEMAR serves no copies of it.

    Raises:
        FetchError: an index of another form.
    """
    url = f"{BASE}{target}/zarr/index.json"
    content = read_json(url, missing=True)
    if content is None:
        return None
    if not isinstance(content, dict) or content.get("format") != "nemar-zarr-index" or content.get("format_version") != 3:
        stated = content.get("format_version") if isinstance(content, dict) else None
        raise FetchError(
            f"{url}: an index of version {stated!r} (this release reads 3)",
            'take the originals: options = { copy = "originals" } in a manifest',
        )
    try:
        base, commit = str(content["data_base"]), str(content["source_commit"])
        copies = [copy for store in content["stores"] if (copy := _copy(store, base, commit)) is not None]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FetchError(f"{url}: lacks {error}", "try again later, or take the originals") from None
    return Index(tuple(copies), {key: content.get(key) for key in ("license", "doi", "citation")})


def _copy(store: Mapping[str, Any], base: str, commit: str) -> Copy | None:
    path, zarr = str(store["path"]), str(store["zarr"])
    for name in (path, zarr):
        if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
            raise ValueError(f"a store inside its folder ({name!r})")
    # what was computed from a recording is not the recording
    if store.get("source_tree") != "raw" or store.get("derived") or not re.match(r"sub-[^/]+/(ses-[^/]+/)?eeg/", path):
        return None
    groups = [group for group in store.get("groups", ()) if str(group.get("modality", "")).upper() == "EEG" and group.get("rate")]
    if not groups:
        return None
    most = max(groups, key=lambda group: int(group.get("n_channels") or 0))
    rate = float(most["rate"])
    source = float(most.get("source_rate_hz") or rate)
    size = (int(most.get("n_channels") or 0), int(most.get("n_samples") or 0))
    return Copy(path, zarr, str(most["name"]), rate, source, base, commit, str(store.get("updated_utc", "")), *size)


def sufficient(index: Index, rate: float) -> dict[str, Copy]:
    """Copies that hold what is needed, by the path of the recording: at least `rate` Hz, or all that was recorded."""
    return {copy.path: copy for copy in index.copies if copy.rate >= rate or copy.rate >= copy.source_rate}


def fetch_copy(copy: Copy, root: Path, tell: ByteProgress, *, signal: bool = True) -> list[Path]:
    """Bring a copy below the BIDS folder `root`; returns its files.

    Args:
        signal: False leaves the signal where it is: it is then read by ranges, see `readers.serving_copy`.

    Raises:
        FetchError: a part is missing, damaged, or the store was overwritten meanwhile.
    """
    folder = root / folder_of(copy.path)
    before = _read(copy, "zarr.json")
    _discard_other(folder, copy)
    array = _array(copy)
    names = [
        "zarr.json",
        f"{copy.group}/zarr.json",
        f"{copy.group}/0/zarr.json",
        *(_shards(copy, array) if signal else ()),
        *_events(copy),
    ]
    about = {"path": copy.path, "commit": copy.commit, "updated": copy.updated, "group": copy.group}
    write_json(folder / SOURCE, about if signal else {**about, "url": mirrored(f"{copy.base}{quote(copy.zarr)}")})
    for name in names:
        if not (folder / name).is_file():
            download(mirrored(f"{copy.base}{quote(copy.zarr)}/{quote(name)}"), folder / name, progress=tell)
    if _read(copy, "zarr.json") != before or (folder / "zarr.json").read_bytes() != before:
        _forget(folder)
        raise FetchError(f"{copy.zarr}: was overwritten by its archive while it was being read", "run the same command again")
    return [folder / name for name in (*names, SOURCE)]


def _read(copy: Copy, name: str) -> bytes:
    content = read_url(f"{copy.base}{quote(copy.zarr)}/{quote(name)}")
    assert content is not None
    return content


def _json(copy: Copy, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads(_read(copy, name))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise FetchError(f"{copy.zarr}/{name}: no metadata of a zarr store", "take the originals, or try again later")
    return content


def _array(copy: Copy) -> Mapping[str, Any]:
    node = _json(copy, f"{copy.group}/0/zarr.json")
    if node.get("node_type") != "array" or len(node.get("shape", ())) != 2:
        raise FetchError(f"{copy.zarr}/{copy.group}/0: no array of channels and samples", "take the originals")
    return node


def _shards(copy: Copy, node: Mapping[str, Any]) -> list[str]:
    """Names of all files of a two-dimensional array."""
    return [f"{copy.group}/0/{key}" for key in _keys(copy.zarr, node)]


def _keys(where: str, node: Mapping[str, Any]) -> list[str]:
    try:
        shape = [int(size) for size in node["shape"]]
        piece = [int(size) for size in node["chunk_grid"]["configuration"]["chunk_shape"]]
        separator = str(node.get("chunk_key_encoding", {}).get("configuration", {}).get("separator", "/"))
        counts = [math.ceil(size / part) for size, part in zip(shape, piece, strict=True)]
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise FetchError(f"{where}: its metadata cannot be followed ({error})", "take the originals") from None
    if math.prod(counts) > MOST_SHARDS:
        raise FetchError(f"{where}: {math.prod(counts)} files of signal ({MOST_SHARDS} at most)", "take the originals")
    keys: list[Sequence[int]] = [()]
    for count in counts:
        keys = [(*key, number) for key in keys for number in range(count)]
    return ["c" + "".join(f"{separator}{number}" for number in key) for key in keys]


def _events(copy: Copy) -> list[str]:
    if read_url(f"{copy.base}{quote(copy.zarr)}/events/zarr.json", missing=True) is None:
        return []
    names = ["events/zarr.json"]
    if not _json(copy, "events/zarr.json").get("attributes", {}).get("n_events"):
        return names
    for column in ("onset", "duration", "code"):
        node = _json(copy, f"events/{column}/zarr.json")
        names += [f"events/{column}/zarr.json", *(f"events/{column}/{key}" for key in _keys(copy.zarr, node))]
    return names


def _discard_other(folder: Path, copy: Copy) -> None:
    """Parts of an older state of the store, that a killed run left."""
    known = read_object(folder / SOURCE)
    if known is not None and (known.get("updated"), known.get("commit")) != (copy.updated, copy.commit):
        _forget(folder)


def _forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
