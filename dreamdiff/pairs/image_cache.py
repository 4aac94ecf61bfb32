"""What a frozen network says about an image, computed once: rows in a zarr store, keyed by image SHA-256 and preprocessing.

Layout: group `/<kind>-<key>/<segment>` with an array `rows` (n, ...) and the attribute `images` (SHA-256 of each row's image).
A segment is written under a hidden name and renamed when complete, so a killed run leaves whole segments only; new images
add a segment. Since version 2 a segment's root holds a digest of itself and the SHA-256 of every file (`eegprep.store.commit`), so that
exchanged files and altered names are found as well as flipped bits; version 1, without, is read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from dreamdiff.untrusted.tensors import sha256_once
from eegprep.atomic import partial_path, publish_folder
from eegprep.errors import StoreError, UsageError
from eegprep.folders import require_free
from eegprep.locks import folder_lock
from eegprep.provenance import sha256
from eegprep.recording import ProgressCallback
from eegprep.store.commit import Commit, finish_root, group_node, read_root

MEMORY_LIMIT = 1 << 30  # bytes; up to here all rows are held in memory, beyond they are read as asked for


FORMAT, VERSION = "dreamdiff-image-cache", 2

Compute = Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Segment:
    """Rows that were written together. commit: what its files have to be; None in version 1."""

    folder: Path
    array: zarr.Array
    images: list[str]
    commit: Commit | None

    @classmethod
    def open(cls, folder: Path) -> Segment:
        """A segment whose metadata is as it was written; its rows are compared when they are read.

        Raises:
            StoreError: it is damaged, or something else.
        """
        try:
            attributes = read_root(folder)["attributes"]
            if attributes.get("format") != FORMAT:
                raise _damaged(folder, f"its format is {attributes.get('format')!r}")
            commit = Commit.of(attributes, str(folder)) if attributes["version"] > 1 else None
            if commit is not None:
                commit.read(folder, "rows/zarr.json")
                # a folder can be copied to where another preprocessing is looked for
                if f"{attributes['kind']}-{attributes['key'][:16]}" != folder.parent.name:
                    raise _damaged(folder, f"it holds {attributes['kind']} of another preprocessing")
            rows, images = zarr.open_group(folder, mode="r")["rows"], attributes["images"]
        except StoreError as error:
            raise _damaged(folder, error.problem) from None
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:  # what zarr says of damage
            raise _damaged(folder, str(error)) from None
        if not isinstance(rows, zarr.Array) or not isinstance(images, list) or len(images) != rows.shape[0]:
            raise _damaged(folder, "its rows and the names of its images do not belong together")
        return cls(folder, rows, [str(digest) for digest in images], commit)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """These rows (n, ...), float32.

        Raises:
            StoreError: a file of them is missing or altered.
        """
        for shard in np.unique(rows // (self.array.shards or self.array.chunks)[0]) if self.commit is not None else ():
            self._check(f"rows/c/{shard}" + "/0" * (self.array.ndim - 1))
        try:
            result = np.asarray(self.array.oindex[rows], np.float32)
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise _damaged(self.folder, str(error)) from None
        # a missing chunk reads as the fill value, NaN
        if not np.isfinite(result).all():
            raise _damaged(self.folder, "rows are missing, or not finite")
        return result

    def _check(self, name: str) -> None:
        assert self.commit is not None
        recorded = self.commit.files.get(name)
        try:
            digest = sha256_once(self.folder / name)
        except OSError as error:
            raise _damaged(self.folder, f"{name}: {error.strerror}") from None
        if recorded is None or digest != recorded.sha256:
            raise _damaged(self.folder, f"{name} is not what was written")


class CachedRows:
    """One row per image, in the order asked for; from memory or from the store."""

    def __init__(self, segments: Sequence[Segment], where: Sequence[tuple[int, int]]) -> None:
        self._segments, self._where = list(segments), np.asarray(where, dtype=np.int64).reshape(-1, 2)
        row_bytes = int(np.prod(self.row_shape)) * self._segments[0].array.dtype.itemsize if self._segments else 0
        self._held = self._gather(np.arange(len(self._where))) if row_bytes * len(self._where) <= MEMORY_LIMIT else None

    def __len__(self) -> int:
        return len(self._where)

    @property
    def held(self) -> bool:
        """Whether all rows are in memory."""
        return self._held is not None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self._segments[0].array.shape[1:]) if self._segments else ()

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows of these images, float32."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self._held[chosen] if self._held is not None else self._gather(chosen)

    def _gather(self, chosen: np.ndarray) -> np.ndarray:
        out = np.empty((len(chosen), *self.row_shape), np.float32)
        for number, segment in enumerate(self._segments):
            mine = np.flatnonzero(self._where[chosen, 0] == number)
            if len(mine):
                # sorted and each once: zarr reads a shard once for all its rows
                rows, back = np.unique(self._where[chosen[mine], 1], return_inverse=True)
                out[mine] = segment.read(rows)[back]
        return out


@dataclass(frozen=True)
class PlannedRows:
    """What `cached_rows` would do: how many images are new, how many are there already, and the shape of a row."""

    kind: str
    new: int
    cached: int
    row_shape: tuple[int, ...]

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Nothing was computed.

        Raises:
            UsageError: always.
        """
        raise UsageError("this run was prepared as a dry run: its images are not encoded", "prepare it without dry_run")

    @property
    def bytes_new(self) -> int:
        """Size of the rows to add, float32."""
        return 4 * self.new * int(np.prod(self.row_shape))


def planned_rows(root: Path, kind: str, key: str, digests: Sequence[str], row_shape: tuple[int, ...]) -> PlannedRows:
    """Count what `cached_rows` would compute; reads the names of cached images, writes nothing."""
    group = root / f"{kind}-{key[:16]}"
    where = _index(group)[1] if group.is_dir() else {}
    distinct = set(digests)
    new = len(distinct - where.keys())
    return PlannedRows(kind, new, len(distinct) - new, row_shape)


def cached_rows(
    root: Path, kind: str, key: str, digests: Sequence[str], compute: Compute,
    *, batch: int = 16, progress: ProgressCallback | None = None, also: Path | None = None, part: str = "",
) -> CachedRows:  # fmt: skip
    """Rows for the images with these digests; what is missing is computed, `batch` rows (one file) at a time, and added.

    Args:
        root: the store; made when absent. also: another one that is only read, such as one beside pairs that cannot be written. kind: for instance "latents". key: digest of weights and preprocessing.
        digests: SHA-256 of each image, repeats allowed. compute: indices into `digests` -> rows (n, ...) float32.
        part: name of this share of the work, where several processes add to the group at once; each share has a lock of its own.

    Raises:
        StoreError: no space for the rows, or something else is at `root`.
    """
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root}: not a folder", "give another --set cache=FOLDER")
    name = f"{kind}-{key[:16]}"
    group = root / name
    others = _index(also / name) if also is not None and (also / name).is_dir() else ([], {})
    if all(digest in others[1] for digest in digests):
        return CachedRows(others[0], [others[1][digest] for digest in digests])
    group.mkdir(parents=True, exist_ok=True)
    locked = group / f".{part}" if part else group
    locked.mkdir(exist_ok=True)
    with folder_lock(locked, wait=-1, refused=StoreError):
        segments, where = _index(group)
        first: dict[str, int] = {}
        for index, digest in enumerate(digests):
            if digest not in where:
                first.setdefault(digest, index)
        if first:
            _add_segment(group, kind, key, first, compute, batch, progress)
            segments, where = _index(group)
    return CachedRows(segments, [where[digest] for digest in digests])


def shared_cache(pairs: Path) -> Path:
    """Beside the pairs, so that several runs share it."""
    return pairs.resolve().parent / f"{pairs.name.removesuffix('.zarr')}.cache.zarr"


def default_cache(pairs: Path, out: Path) -> Path:
    """The shared cache; where its folder cannot be written, a hidden one in the run, which then still counts as an empty folder."""
    beside = shared_cache(pairs)
    return beside if os.access(beside.parent, os.W_OK) else out / ".cache.zarr"


def _damaged(folder: Path, reason: str) -> StoreError:
    return StoreError(
        f"{folder}: a damaged segment of an image cache ({reason[:200]})", "remove that folder; it will be computed again"
    )


def _index(group: Path) -> tuple[list[Segment], dict[str, tuple[int, int]]]:
    segments: list[Segment] = []
    where: dict[str, tuple[int, int]] = {}
    for folder in sorted(path for path in group.iterdir() if path.is_dir() and not path.name.startswith(".")):
        segment = Segment.open(folder)
        where.update({digest: (len(segments), row) for row, digest in enumerate(segment.images)})
        segments.append(segment)
    return segments, where


def _add_segment(
    group: Path, kind: str, key: str, first: dict[str, int], compute: Compute, batch: int, progress: ProgressCallback | None
) -> None:
    digests, indices = list(first), list(first.values())
    # named by its images, so that what a killed run left is found and replaced
    final = group / sha256("".join(digests))[:16]
    partial = partial_path(final)
    shutil.rmtree(partial, ignore_errors=True)
    array: zarr.Array | None = None
    segment = zarr.open_group(partial, mode="w")
    for start in range(0, len(indices), batch):
        rows = np.asarray(compute(indices[start : start + batch]), np.float32)
        # the network decides how large a row is, so that space is checked after the first batch
        if array is None:
            _need_space(group, rows[0].nbytes * len(indices), kind)
            array = segment.create_array(
                "rows", shape=(len(indices), *rows.shape[1:]), dtype="float32", chunks=(1, *rows.shape[1:]),
                shards=(batch, *rows.shape[1:]), compressors=[Crc32cCodec()], fill_value=float("nan"),
            )  # fmt: skip
        array[start : start + len(rows)] = rows
        if progress:
            progress(min(start + batch, len(indices)), len(indices), f"{kind} of images")
    files = [path.relative_to(partial).as_posix() for path in (partial / "rows").rglob("*") if path.is_file()]
    finish_root(
        partial, group_node({"format": FORMAT, "version": VERSION, "kind": kind, "key": key, "images": digests}), sorted(files)
    )
    publish_folder(partial, final)


def _need_space(folder: Path, size: int, kind: str) -> None:
    fix = "free disk space, or put the cache elsewhere with --set data.cache=FOLDER"
    require_free(folder, size, f"the {kind} of the images", fix)
