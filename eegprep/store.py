"""The corpus on disk: one zarr group per subject, written by one worker, complete only when its commit record says so.

Everything is plain zarr format 3. The files are written here rather than by zarr-python, because only then each byte is
written once, hashed on the way, and the same on every machine: no times, process numbers or host names.

Legend: N windows, C channels, T samples.

Layout of a subject's group (`/<dataset>/<subject>`):

    zarr.json            attributes: dataset, subject, person, recordings, labels, and `commit`, the commit record
    windows/             float32 (N, C, T), uV; shards of 256 windows; inner chunk of one window: zstd level -1, crc32c
    recording/ start/ label/     one uncompressed chunk each, with crc32c

A group is prepared in a hidden folder beside its final place, brought to the disk, and renamed: it is there, whole, or
it is not there. The commit record holds the size and SHA-256 of every file of the group.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import google_crc32c
import numcodecs
import numpy as np

from .atomic import clean_partial, fsync_folder, partial_path, publish_folder
from .errors import SignalError, StoreError

FORMAT = "eegprep-corpus"
VERSION = 1
ZSTD_LEVEL = -1  # padding is stored for nothing and decodes at memory speed; see docs/design-storage.md
SHARD = 256  # windows: 17-67 MB a file
EMPTY = np.uint64(2**64 - 1)  # offset and length of an inner chunk that is not there (zarr 3, sharding codec)
COLUMNS = {"recording": "<i4", "start": "<i8", "label": "<i4"}
_DATA_TYPES = {"<i4": "int32", "<i8": "int64", "<f4": "float32"}
_SOFTWARE = ("eeg-dreamdiff", "mne", "moabb", "numcodecs", "numpy", "scipy")


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
        "software": _software(),
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


def check_corpus_attributes(attributes: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `attributes` if they are those of a corpus this version can read."""
    if attributes.get("format") != FORMAT:
        raise StoreError(
            f"{where}: not a corpus (attribute `format` is {attributes.get('format')!r}, expected {FORMAT!r})",
            "give a store that `eegprep pad` or `eegprep build` made",
        )
    if attributes.get("version", 0) > VERSION:
        raise StoreError(
            f"{where}: corpus version {attributes['version']}, this software reads up to {VERSION}",
            "install a newer eeg-dreamdiff",
        )
    return attributes


def read_node(path: Path) -> dict[str, Any]:
    """A `zarr.json`, or a StoreError that says what is wrong with it."""
    try:
        return parse_node(path.read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{path.parent}: no zarr group here (no zarr.json)", "check the path of the store") from None


def parse_node(content: bytes, where: str) -> dict[str, Any]:
    """Parse the bytes of a `zarr.json`."""
    try:
        node = json.loads(content)
    except ValueError as error:
        raise StoreError(f"{where}: not JSON ({error})", "restore the file, or build the subject again") from None
    if not isinstance(node, dict) or node.get("zarr_format") != 3:
        raise StoreError(f"{where}: not zarr format 3 metadata", "build the store again with this software")
    return node


def committed_key(root: Path, dataset: str, subject: str) -> str | None:
    """The key a subject was committed under, or None when it is not there, or not whole."""
    try:
        node = read_node(Path(root) / dataset / subject / "zarr.json")
    except StoreError:
        return None
    record = node.get("attributes", {}).get("commit")
    return record.get("key") if isinstance(record, dict) else None


class SubjectWriter:
    """Writes one subject's group; nothing is visible before `commit`, nothing is left after an error.

    Args:
        root: a corpus that `create_corpus` made.
        dataset, subject: the group's name; any text that can be a folder name.
        channels, samples: shape of every window, as in `create_corpus`.
        shard: windows a file.
    """

    def __init__(
        self, root: Path, dataset: str, subject: str, *, channels: int = 128, samples: int = 512, shard: int = SHARD
    ) -> None:
        self.root = Path(root)
        self.dataset, self.subject = check_name(dataset, "data set"), check_name(subject, "subject")
        self.channels, self.samples, self.shard = channels, samples, shard
        self.recordings: list[dict[str, Any]] = []
        self._final = self.root / dataset / subject
        self._partial = partial_path(self._final)
        self._files: dict[str, dict[str, Any]] = {}
        self._labels: dict[str, int] = {}
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
        self._codec = numcodecs.Zstd(level=ZSTD_LEVEL)
        self._open_shard: _ShardFile | None = None
        self._n = 0

    def __enter__(self) -> Self:
        if not (self.root / "zarr.json").is_file():
            raise StoreError(
                f"{self.root}: no corpus here to write {self.dataset}/{self.subject} into", "call create_corpus first"
            )
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._open_shard is not None:
            self._open_shard.abandon()
        shutil.rmtree(self._partial, ignore_errors=True)

    def add_recording(self, record: Mapping[str, Any]) -> int:
        """Note a recording; returns the index to give to `add`."""
        self.recordings.append(dict(record))
        return len(self.recordings) - 1

    def add(
        self,
        windows_NCT: np.ndarray,
        recording: int,
        starts_N: Sequence[int] | np.ndarray,
        labels_N: Sequence[str | None] | np.ndarray | None = None,
    ) -> None:
        """Append windows of one recording.

        Args:
            windows_NCT: (N, channels, samples) float32, uV.
            recording: what `add_recording` returned.
            starts_N: first sample of each window in its recording.
            labels_N: a label each, or None for none.

        Raises:
            SignalError: wrong shape, or a value that is not finite.
            StoreError: unknown recording, or numbers of windows, starts and labels that differ.
        """
        n = len(windows_NCT)
        labels: Sequence[str | None] | np.ndarray = [None] * n if labels_N is None else labels_N
        self._check(windows_NCT, recording, len(starts_N), len(labels))
        for window_CT in np.ascontiguousarray(windows_NCT, dtype="<f4"):
            self._append(window_CT)
        codes = [-1 if label is None else self._labels.setdefault(str(label), len(self._labels)) for label in labels]
        self._columns["recording"].append(np.full(n, recording, "<i4"))
        self._columns["start"].append(np.asarray(starts_N, "<i8"))
        self._columns["label"].append(np.asarray(codes, "<i4"))

    def commit(self, key: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Publish the group. The commit record is the last thing written before the rename.

        Args:
            key: fingerprint of (recipe, sources); a later run that finds the same key has nothing to do.
            attributes: further attributes of the group, as JSON values.
        """
        if self._open_shard is not None:
            self._finish_shard()
        counts = Counter(np.concatenate(self._columns["recording"]).tolist() if self._n else [])
        self._write_array("windows", _windows_node(self._n, self.channels, self.samples, self.shard))
        for name, data_type in COLUMNS.items():
            values = np.concatenate(self._columns[name]) if self._n else np.empty(0, data_type)
            if self._n:
                self._write(f"{name}/c/0", _with_crc32c(values.astype(data_type).tobytes()))
            self._write_array(name, _column_node(self._n, data_type))
        content = {
            **(attributes or {}),
            "dataset": self.dataset,
            "subject": self.subject,
            "recordings": [{**record, "windows": counts.get(i, 0)} for i, record in enumerate(self.recordings)],
            "labels": list(self._labels),
        }
        content.setdefault("person", f"{self.dataset}/{self.subject}")
        content = plain_json(content)
        record = {"key": key, "windows": self._n, "files": self._files, "attributes_sha256": attributes_digest(content)}
        _write_node(self._partial, _group_node({**content, "commit": record}))
        publish_group(self.root, f"{self.dataset}/{self.subject}")

    @property
    def windows(self) -> int:
        """How many windows were added so far."""
        return self._n

    def _check(self, windows_NCT: np.ndarray, recording: int, starts: int, labels: int) -> None:
        name, n = f"{self.dataset}/{self.subject}", len(windows_NCT)
        if windows_NCT.shape[1:] != (self.channels, self.samples):
            raise SignalError(
                f"{name}: windows of shape {windows_NCT.shape[1:]} do not fit a corpus of ({self.channels}, {self.samples})",
                "pad the channels and crop the samples first, or make a corpus of that shape",
            )
        if not 0 <= recording < len(self.recordings):
            raise StoreError(f"{name}: recording {recording} of {len(self.recordings)} is unknown", "call add_recording first")
        if n != starts or n != labels:
            raise StoreError(f"{name}: {n} windows with {starts} starts and {labels} labels", "give one of each for every window")
        if not np.isfinite(windows_NCT).all():
            bad = int(np.flatnonzero(~np.isfinite(windows_NCT).all(axis=(1, 2)))[0])
            raise SignalError(
                f"{name}: window {bad} of {n} holds NaN or infinity", "leave such stretches out, or repair them first"
            )

    def _append(self, window_CT: np.ndarray) -> None:
        if self._open_shard is None:
            relative = f"windows/c/{self._n // self.shard}/0/0"
            self._open_shard = _ShardFile(self._partial / relative, relative, self.shard)
        self._open_shard.append(_with_crc32c(self._codec.encode(window_CT)))
        self._n += 1
        if self._open_shard.full:
            self._finish_shard()

    def _finish_shard(self) -> None:
        assert self._open_shard is not None
        self._files[self._open_shard.relative] = self._open_shard.finish()
        self._open_shard = None

    def _write(self, relative: str, content: bytes) -> None:
        path = self._partial / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._files[relative] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def _write_array(self, name: str, node: dict[str, Any]) -> None:
        self._write(f"{name}/zarr.json", _dump(node))


class _ShardFile:
    """One shard: encoded chunks one after the other, then the index of offsets and lengths with its crc32c."""

    def __init__(self, path: Path, relative: str, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.relative, self._file, self._hash = relative, path.open("wb"), hashlib.sha256()
        self._index = np.full((size, 2), EMPTY, "<u8")
        self._count, self._offset = 0, 0

    @property
    def full(self) -> bool:
        return self._count == len(self._index)

    def append(self, encoded: bytes) -> None:
        self._put(encoded)
        self._index[self._count] = self._offset, len(encoded)
        self._offset += len(encoded)
        self._count += 1

    def finish(self) -> dict[str, Any]:
        index = _with_crc32c(self._index.tobytes())
        self._put(index)
        self._file.close()
        return {"bytes": self._offset + len(index), "sha256": self._hash.hexdigest()}

    def abandon(self) -> None:
        self._file.close()

    def _put(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)


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


def check_name(name: str, what: str) -> str:
    """`name` as it is, if it can be the name of a zarr group and of a folder."""
    if not name or name.startswith((".", "__")) or name == "zarr.json" or any(c in name for c in '/\\:*?"<>|\0\n'):
        raise StoreError(f"{what} {name!r} cannot be the name of a zarr group", "use letters, digits, '-', '_' and '.'")
    return name


def attributes_digest(attributes: Mapping[str, Any]) -> str:
    """SHA-256 of a group's attributes without the commit record, in canonical JSON."""
    content = {key: value for key, value in attributes.items() if key != "commit"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def plain_json(value: Any) -> Any:
    """`value` as strict JSON values: numpy scalars become Python's; NaN and infinity, which JSON lacks, become null."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:  # most values: first, and without the cost of isinstance
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, np.generic):
        return plain_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return str(value)
    return value


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


@cache
def _software() -> dict[str, str]:
    found = {}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _with_crc32c(content: bytes) -> bytes:
    return content + struct.pack("<I", google_crc32c.value(content))


def _group_node(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": plain_json(attributes)}


_BYTES: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
_ZSTD: dict[str, Any] = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}
_CRC32C: dict[str, Any] = {"name": "crc32c"}


def _array_node(
    shape: Iterable[int], chunk: Iterable[int], *, data_type: str, fill: Any, codecs: list[dict[str, Any]], names: list[str]
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": _DATA_TYPES[data_type],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
        "dimension_names": names,
        "storage_transformers": [],
    }


def _windows_node(n: int, channels: int, samples: int, shard: int) -> dict[str, Any]:
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, channels, samples],
            "codecs": [_BYTES, _ZSTD, _CRC32C],
            "index_codecs": [_BYTES, _CRC32C],
            "index_location": "end",
        },
    }
    # the fill value is NaN: plain zarr shows a missing chunk as NaN rather than as a believable zero
    node = _array_node(
        (n, channels, samples),
        (shard, channels, samples),
        data_type="<f4",
        fill="NaN",
        codecs=[sharding],
        names=["window", "channel", "time"],
    )
    return {**node, "attributes": {"unit": "uV"}}


def _column_node(n: int, data_type: str) -> dict[str, Any]:
    return _array_node((n,), (max(n, 1),), data_type=data_type, fill=-1, codecs=[_BYTES, _CRC32C], names=["window"])


def _dump(node: Mapping[str, Any]) -> bytes:
    return json.dumps(node, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _write_node(folder: Path, node: Mapping[str, Any]) -> None:
    """Write `folder`/zarr.json through a name of this thread's own: several workers may write the same content."""
    own = folder / f".zarr.json.{os.getpid()}.{threading.get_ident()}.partial"
    try:
        with own.open("wb") as file:
            file.write(_dump(node))
            file.flush()
            os.fsync(file.fileno())
        own.replace(folder / "zarr.json")
    finally:
        own.unlink(missing_ok=True)
    fsync_folder(folder)
