"""The commit record: what a finished group and a finished store are made of, with one way to write and to check it.

A group's record (attribute `commit` of its `zarr.json`) holds size and SHA-256 of every file of the group and a digest of its
attributes. The root's record holds the same of every group's `zarr.json`, and `metadata_sha256` is the digest of the root's
`zarr.json` with 64 zeros in its place. So one digest covers a whole store, and each part can be checked by itself.
Version 1 of the formats had the groups' records only.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from eegprep.atomic import private_path, publish_folder, write_bytes
from eegprep.errors import StoreError, no_zarr_group
from eegprep.provenance import plain_json, sha256, sha256_json
from eegprep.store.names import check_relative, read_inside

VERSION = 2
FORMATS = ("eegprep-corpus", "eegprep-view", "eegprep-recordings", "dreamdiff-pairs", "dreamdiff-image-cache")
AGAIN = "run the command that made the store again; finished subjects are kept"
_DIGEST = "metadata_sha256"
# with a blank behind the colon too: most writers of JSON put one there
_PLACE = re.compile(rb'"metadata_sha256":\s?"([0-9a-f]{64})"')


@dataclass(frozen=True)
class StoredFile:
    """A file as it was written. crc32c: of a chunk that ends with it, so that its place is checked without a full hash."""

    size: int
    sha256: str
    crc32c: int | None = None

    @classmethod
    def of(cls, content: bytes, crc32c: int | None = None) -> StoredFile:
        return cls(len(content), sha256(content), crc32c)

    def to_json(self) -> dict[str, object]:
        record = {"bytes": self.size, "sha256": self.sha256}
        return record if self.crc32c is None else record | {"crc32c": self.crc32c}

    def problem(self, content: bytes) -> str | None:
        """What is wrong with these bytes."""
        if len(content) != self.size:
            return f"{len(content):,} bytes, committed were {self.size:,}"
        digest = sha256(content)
        return None if digest == self.sha256 else f"SHA-256 {digest[:12]}..., committed was {self.sha256[:12]}..."


@dataclass(frozen=True)
class Commit:
    """What a group or store is made of: the last thing that is written of it.

    key: what the group was made from; an equal key means that there is nothing to do. files: by path inside the group.
    windows: None in a recordings store.
    """

    key: str
    files: Mapping[str, StoredFile]
    attributes_sha256: str = ""
    windows: int | None = None

    @classmethod
    def of(cls, attributes: Mapping[str, Any], where: str) -> Commit:
        """The record in the attributes of a group.

        Raises:
            StoreError: there is none, or it is damaged, or it names a file outside of the group.
        """
        record = attributes.get("commit")
        if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
            raise StoreError(f"{where}: has no commit record, so it is not whole", AGAIN)
        return cls.from_json(record, where)

    @classmethod
    def from_json(cls, record: Mapping[str, Any], where: str = "group") -> Commit:
        """The record from its JSON form; errors as in `of`."""
        files = {check_relative(path, where): _stored(path, entry, where) for path, entry in record["files"].items()}
        windows = record.get("windows")
        if windows is not None and (type(windows) is not int or windows < 0):
            raise StoreError(f"{where}: its commit record says {windows!r} windows", AGAIN)
        return cls(str(record.get("key", "")), files, str(record.get("attributes_sha256", "")), windows)

    def to_json(self) -> dict[str, object]:
        content: dict[str, object] = {
            "key": self.key,
            "files": {path: file.to_json() for path, file in sorted(self.files.items())},
            "attributes_sha256": self.attributes_sha256,
        }
        return content if self.windows is None else content | {"windows": self.windows}

    def file(self, path: str, where: str) -> StoredFile:
        """The record of one file; a StoreError when there is none."""
        if path not in self.files:
            raise StoreError(f"{where}: its commit record does not name {path}", AGAIN)
        return self.files[path]

    def read(self, folder: Path, path: str) -> bytes:
        """A file of the group, compared with its record.

        Raises:
            StoreError: it is missing or altered.
        """
        record = self.file(path, str(folder))
        try:
            content = read_inside(folder, path)
        except FileNotFoundError:
            raise StoreError(f"{folder / path}: is missing (it should hold {record.size:,} bytes)", AGAIN) from None
        problem = record.problem(content)
        if problem is not None:
            raise StoreError(f"{folder / path}: is damaged ({problem})", AGAIN)
        return content


def _stored(path: str, entry: Any, where: str) -> StoredFile:
    try:
        size, digest, crc32c = entry["bytes"], entry["sha256"], entry.get("crc32c")
    except (TypeError, KeyError, AttributeError):
        size, digest, crc32c = None, None, None
    # `type(...) is int`, because True is an int as well, and JSON has both
    if type(size) is not int or size < 0 or not isinstance(digest, str) or not (crc32c is None or type(crc32c) is int):
        raise StoreError(f"{where}: its commit record of {path} is damaged", AGAIN)
    return StoredFile(size, digest, crc32c)


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection inside: parsing the root of ten thousand subjects makes a million objects, none of them garbage.

    Looking through them again and again took more than half of the time that opening a corpus takes.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            if not gc.get_freeze_count():  # else somebody froze objects who would not want them thawed
                # moves everything to the oldest generation; the first collection would look through it otherwise
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def dump(node: Mapping[str, Any]) -> bytes:
    """Metadata as JSON that is the same, byte for byte, for the same content."""
    return json.dumps(node, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_node(content: bytes, where: str) -> Mapping[str, Any]:
    """Parse the bytes of a `zarr.json`; `attributes` is a dictionary afterwards.

    Raises:
        StoreError: it is not JSON, or not the metadata of zarr format 3.
    """
    try:
        with no_collection():
            node = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise StoreError(f"{where}: not JSON ({reason})", AGAIN) from None
    if not isinstance(node, dict) or node.get("zarr_format") != 3 or not isinstance(node.setdefault("attributes", {}), dict):
        raise StoreError(f"{where}: not zarr format 3 metadata", "give a store that this software made")
    return node


def read_node(path: Path) -> Mapping[str, Any]:
    """A `zarr.json`, or a StoreError that says what is wrong with it."""
    try:
        return parse_node(read_inside(path.parent, path.name), str(path))
    except FileNotFoundError:
        raise no_zarr_group(path.parent) from None


def group_node(attributes: Mapping[str, Any]) -> dict[str, object]:
    return {"zarr_format": 3, "node_type": "group", "attributes": plain_json(attributes)}


def write_node(folder: Path, node: Mapping[str, Any]) -> None:
    """Write the `zarr.json` of a group or array."""
    write_bytes(folder / "zarr.json", dump(node))


# -------------------------------------------------------------------------------------------------------------- root


def sealed(node: Mapping[str, Any]) -> bytes:
    """The bytes of a root's `zarr.json`, with the digest of themselves."""
    # 64 zeros hold the place: the digest cannot be in what it is the digest of
    attributes = {**node["attributes"], _DIGEST: "0" * 64}
    content = dump({**node, "attributes": attributes})
    return _PLACE.sub(b'"metadata_sha256":"%s"' % sha256(content).encode(), content, count=1)


def write_root(root: Path, node: Mapping[str, Any]) -> None:
    """Write a root's `zarr.json`, unless it is so already."""
    content, path = sealed(node), root / "zarr.json"
    # an equal root is not written again, so that its time of change tells readers the truth
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


def parse_root(content: bytes, where: str, *, newest: int = VERSION) -> Mapping[str, Any]:
    """The node of a root, after comparing it with its digest; version 1 has none.

    Raises:
        StoreError: it is damaged, or of a version that this software does not know.
    """
    node = parse_node(content, where)
    if node["attributes"].get("format") not in FORMATS:
        return node  # somebody else's: the caller says what it expected
    version, places = node["attributes"].get("version"), list(_PLACE.finditer(content))
    if type(version) is not int or version < 1:
        raise StoreError(f"{where}: attribute `version` is {version!r} (a whole number, least 1)", AGAIN)
    if version > newest:
        raise StoreError(f"{where}: version {version}, this software reads up to {newest}", "install a newer eeg-dreamdiff")
    if version == 1 and not places:
        return node
    if len(places) != 1:
        raise StoreError(f"{where}: holds {len(places)} digests of itself (expected 1)", AGAIN)
    digest, recorded = _digest_without(places[0], content), places[0][1].decode()
    if digest != recorded:
        raise StoreError(f"{where}: altered after it was written (SHA-256 {digest[:12]}..., recorded {recorded[:12]}...)", AGAIN)
    return node


_PARSED: ContextVar[dict[str, tuple[bytes, Mapping[str, Any]]] | None] = ContextVar("parsed roots", default=None)


@contextmanager
def roots_parsed_once() -> Iterator[None]:
    """Inside, `read_root` parses a root again only when its bytes are others.

    A step asks for it five times, and to parse the root of ten thousand subjects takes most of a second.
    """
    token = _PARSED.set({})
    try:
        yield
    finally:
        _PARSED.reset(token)


def _digest_without(place: re.Match[bytes], content: bytes) -> str:
    """SHA-256 of a root with zeros in the place of its digest, as `sealed` computed it; without a copy of it."""
    digest = hashlib.sha256(memoryview(content)[: place.start()])
    digest.update(b'"metadata_sha256":"%s"' % (b"0" * 64))
    digest.update(memoryview(content)[place.end() :])
    return digest.hexdigest()


def read_root(root: Path) -> Mapping[str, Any]:
    """The checked node of a store's root on this machine."""
    try:
        content = read_inside(root, "zarr.json")
    except FileNotFoundError:
        raise no_zarr_group(root) from None
    parsed, where = _PARSED.get(), str(root / "zarr.json")
    if parsed is None:
        return parse_root(content, where)
    # bytes are compared, not times: a rename within one tick of the clock changes neither time nor size
    if where not in parsed or parsed[where][0] != content:
        parsed[where] = (content, parse_root(content, where))
    return parsed[where][1]


def finished_files(node: Mapping[str, Any], where: str) -> dict[str, StoredFile]:
    """What a finished root says of its groups' `zarr.json`; empty while a store is being written, and in version 1."""
    return {} if "commit" not in node["attributes"] else dict(Commit.of(node["attributes"], where).files)


def finished_groups(node: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The attributes of all groups as a finished root repeats them, under its digest, by `dataset/subject`; empty where it does not."""
    copies = node.get("consolidated_metadata")
    if "commit" not in node["attributes"] or not isinstance(copies, dict):
        return {}
    return {key: copy["attributes"] for key, copy in copies["metadata"].items() if key.count("/") == 1}


def finished_of(root: Path) -> Mapping[str, StoredFile]:
    """The same for a store on this machine; the root is read again only when it has changed."""
    try:
        status = (root / "zarr.json").stat()
    except OSError:
        raise no_zarr_group(root) from None
    # the inode too: a rename within one tick of the clock changes neither time nor size
    return _finished_at(str(root.absolute()), status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=4)
def _finished_at(root: str, *changed: int) -> Mapping[str, StoredFile]:
    return finished_files(read_root(Path(root)), root)


def check_finished(root: Path, finished: Mapping[str, StoredFile], but: Container[str] = ()) -> None:
    """Compare every group's `zarr.json` with what the root says of it.

    Args:
        finished: what it says, see `finished_files`. but: groups that were compared already.

    Raises:
        StoreError: a group is gone, or is another than the store was finished with.
    """
    plain: set[str] = set()
    for path, record in finished.items():
        if path.removesuffix("/zarr.json") in but:
            continue
        try:
            problem = record.problem(read_inside(root, path, plain))
        except FileNotFoundError:
            problem = "it is gone"
        if problem is not None:
            raise StoreError(f"{root / path}: not what the store was finished with ({problem})", AGAIN)


def is_as_finished(root: Path, node: Mapping[str, Any], but: Container[str] = ()) -> bool:
    """Whether every group's `zarr.json` is what the root says of it; `but`: groups that were compared already."""
    try:
        check_finished(root, finished_files(node, str(root)), but)
    except StoreError:
        return False
    return True


def finish_root(root: Path, node: Mapping[str, Any], paths: Iterable[str]) -> None:
    """Write the root with the record of these files; the last thing that is written."""
    files = {path: StoredFile.of(read_inside(root, path)).to_json() for path in sorted(paths)}
    write_root(root, {**node, "attributes": {**node["attributes"], "version": VERSION, "commit": {"files": files}}})


def reopen_root(root: Path) -> None:
    """Take the record and the consolidated metadata out of the root before a group changes, so that no reader believes an old view."""
    content = (root / "zarr.json").read_bytes()
    # looked for in the bytes first: this runs before each subject, and the root of a large store takes long to parse
    if b'"commit"' in content or b'"consolidated_metadata"' in content:
        node = parse_node(content, str(root))
        rest = {key: value for key, value in node.items() if key != "consolidated_metadata"}
        attributes = {key: value for key, value in node["attributes"].items() if key != "commit"}
        write_root(root, {**rest, "attributes": {**attributes, "version": VERSION}})


# ------------------------------------------------------------------------------------------------------------- group


def attributes_digest(attributes: Mapping[str, Any]) -> str:
    """SHA-256 of a group's attributes without the commit record, in canonical JSON."""
    return sha256_json({key: value for key, value in attributes.items() if key != "commit"})


def committed_node(
    key: str, files: Mapping[str, StoredFile], attributes: Mapping[str, Any], windows: int | None = None
) -> dict[str, object]:
    """The node of a group with its commit record."""
    content = plain_json(attributes)
    commit = Commit(key, files, attributes_digest(content), windows).to_json()
    return {"zarr_format": 3, "node_type": "group", "attributes": {**content, "commit": commit}}


def put_data_set(folder: Path) -> dict[str, Any]:
    """Write the metadata of a data set's group, which says nothing but that it is one, unless it is there and undamaged."""
    node = group_node({})
    try:
        if read_node(folder / "zarr.json") == node:
            return node
    except StoreError:
        pass
    write_node(folder, node)
    return node


def publish_group(root: Path, key: str, partial: Path) -> None:
    """Give a group that is whole, in its hidden folder, its place in the store.

    Raises:
        StoreError: its data set's folder is a link, which leads out of the store.
    """
    final = root / key
    check_parent(root, final.parent)
    if not (final.parent / "zarr.json").exists():
        write_node(final.parent, group_node({}))
    # before the rename: a reader who comes between sees a store that is being written, not one that is finished and wrong
    reopen_root(root)
    publish_folder(partial, final)


def check_parent(root: Path, folder: Path) -> None:
    """Raise StoreError when a data set's folder is a link."""
    if folder.is_symlink():
        raise StoreError(f"{folder}: is a link, which leads out of {root}", "remove the link, or choose another store")


def start_group(root: Path, key: str) -> Path:
    """An empty hidden folder in which this writer alone prepares a group."""
    check_parent(root, (root / key).parent)
    partial = private_path(root / key)
    partial.mkdir(parents=True)
    return partial


def measure(folder: Path, ending: Callable[[str, bytes], int | None] | None = None) -> dict[str, StoredFile]:
    """The record of every file below a folder that was just written.

    Args:
        ending: the checksum that a file ends with, from its name and bytes; None for a file without one.
    """
    files = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = (Path(place) / name).relative_to(folder).as_posix()
            content = (folder / path).read_bytes()
            files[path] = StoredFile.of(content, None if ending is None else ending(path, content))
    return files
