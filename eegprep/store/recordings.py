"""Recordings on disk, between the steps: `/<dataset>/<subject>/<session>.<run>`, one (channel, time) array of float32 uV each.

A subject's group is prepared in a hidden folder and renamed when whole, as in the corpus. Shapes: C channels, T samples.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from eegprep.atomic import clean_partial, partial_path, publish_folder, write_bytes
from eegprep.errors import StoreError
from eegprep.provenance import attributes_digest, plain_json
from eegprep.recording import Facts, FilterRecord, Processed, Recording, Spectra
from eegprep.store.format import check_name
from eegprep.store.records import Commit, Provenance, StoredFile, SubjectGroup

FORMAT = "eegprep-recordings"

VERSION = 1

_CHUNK_BYTES = 4_000_000


def create_recordings(root: Path, stage: str, recipe: Mapping[str, Any]) -> None:
    """Make an empty recordings store, or check that `root` is one of the same stage ("fetched" or "filtered").

    Raises:
        StoreError: `root` holds something else.
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root}: is a file, not a folder", "choose another output")
    if root.is_dir() and any(not entry.name.startswith(".") for entry in root.iterdir()):
        found = read_root(root)
        if found["stage"] != stage:
            raise StoreError(f"{root}: holds {found['stage']} recordings, not {stage} ones", "choose another output")
        if found["recipe"] == plain_json(recipe):
            return
    root.mkdir(parents=True, exist_ok=True)
    _write_group(root, {"format": FORMAT, "version": VERSION, "stage": stage, "recipe": dict(recipe)})


def read_root(root: Path) -> dict[str, Any]:
    """Root attributes of a recordings store.

    Raises:
        StoreError: there is none at `root`.
    """
    attributes = _read_attributes(Path(root)) if (Path(root) / "zarr.json").is_file() else {}
    if attributes.get("format") != FORMAT:
        raise StoreError(
            f"{root}: not a recordings store (attribute `format` is {attributes.get('format')!r}, expected {FORMAT!r})",
            "give a store that `eegprep fetch` or `eegprep filter` made",
        )
    return attributes


class RecordingsWriter:
    """Writes one subject's recordings; nothing is visible before `commit`, nothing is left after an error."""

    def __init__(self, root: Path, dataset: str, subject: str) -> None:
        self.root, self.dataset, self.subject = Path(root), check_name(dataset, "data set"), check_name(subject, "subject")
        self._final = self.root / dataset / subject
        self._partial = partial_path(self._final)

    def __enter__(self) -> Self:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, item: Recording | Processed) -> None:
        """Write one recording; of a processed one also what was measured on the way."""
        import zarr  # here, because `import eegprep` must stay fast
        from zarr.codecs import BloscCodec

        recording = item.recording if isinstance(item, Processed) else item
        n_channels, n_samples = recording.signal_CT.shape
        # whole kilosamples, so that chunks of recordings at one rate line up
        chunk = min(max(1, _CHUNK_BYTES // (4 * n_channels * 1000)) * 1000, max(n_samples, 1))
        array = zarr.create_array(
            str(self._partial / check_name(f"{recording.session}.{recording.run}", "recording")),
            shape=(n_channels, n_samples),
            dtype="float32",
            chunks=(n_channels, chunk),
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
            fill_value=float("nan"),  # a chunk that is lost shows as NaN, never as a believable zero
            dimension_names=("channel", "time"),
            attributes=plain_json({"unit": "uV", **recording.to_json(), **_measured(item)}),
            zarr_format=3,
        )
        array[:] = recording.signal_CT

    def commit(self, key: str, about: Provenance) -> None:
        """Publish the subject. A later run that finds the same key has nothing to do."""
        if not (self._final.parent / "zarr.json").exists():
            _write_group(self._final.parent, {})
        content = plain_json({**about.to_json(), "dataset": self.dataset, "subject": self.subject})
        files = {
            path.relative_to(self._partial).as_posix(): _stored_file(path) for path in self._partial.rglob("*") if path.is_file()
        }
        commit = Commit(key, files, attributes_digest(content))
        _write_group(self._partial, {**content, "commit": commit.to_json()})
        publish_folder(self._partial, self._final)


def _measured(item: Recording | Processed) -> dict[str, Any]:
    """What `filter` found out about a recording; empty in a store of fetched ones."""
    if isinstance(item, Recording):
        return {"extra": {}, "facts": {}}
    parts = {"filter": item.filter, "summary": item.spectra}
    return {"extra": {name: part.to_json() for name, part in parts.items() if part is not None}, "facts": item.facts.to_json()}


def _stored_file(path: Path) -> StoredFile:
    content = path.read_bytes()
    return StoredFile(len(content), hashlib.sha256(content).hexdigest())


def subjects(root: Path) -> list[tuple[str, str]]:
    """(dataset, subject) of every group, sorted."""
    found = []
    for dataset in sorted(entry for entry in Path(root).iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        entries = [entry for entry in dataset.iterdir() if not entry.name.startswith(".")]
        found += [(dataset.name, entry.name) for entry in entries if (entry / "zarr.json").is_file()]
    return sorted(found)


def read_group(root: Path, dataset: str, subject: str) -> SubjectGroup | None:
    """A subject's group in a corpus or a recordings store; None when it is not there."""
    attributes = group_attributes(root, dataset, subject)
    return SubjectGroup.from_json({"dataset": dataset, "subject": subject} | attributes) if attributes else None


def group_attributes(root: Path, dataset: str, subject: str) -> dict[str, Any]:
    """Attributes of a subject's group, empty when it is not there."""
    folder = Path(root) / dataset / subject
    return _read_attributes(folder) if (folder / "zarr.json").is_file() else {}


def array_names(root: Path, dataset: str, subject: str) -> list[str]:
    """`session.run` of the subject's recordings."""
    folder = Path(root) / dataset / subject
    return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and (entry / "zarr.json").is_file()]


def read_recording(root: Path, dataset: str, subject: str, name: str) -> Recording:
    """One recording, as it was written."""
    return _read(root, dataset, subject, name)[0]


def _read(root: Path, dataset: str, subject: str, name: str) -> tuple[Recording, dict[str, Any]]:
    """A recording and all its attributes.

    Raises:
        StoreError: a chunk is missing or damaged.
    """
    import zarr

    where = Path(root) / dataset / subject / name
    try:
        array = zarr.open_array(str(where), mode="r")
        signal_CT = np.asarray(array[:])
    except Exception as error:  # zarr raises anything from FileNotFoundError to the codec's own errors
        raise StoreError(f"{where}: cannot be read ({error})", "make the store again") from error
    expected = math.ceil(array.shape[1] / array.chunks[1])
    present = sum(1 for path in (where / "c" / "0").glob("*") if path.name.isdigit())
    if present != expected:
        raise StoreError(f"{where}: {present} of {expected} chunks are there", "make the store again")
    session, _, run = name.partition(".")
    stored = array.attrs.asdict()
    place = {"dataset": dataset, "subject": subject, "session": session, "run": run}
    return Recording.from_json(stored, signal_CT, **place), stored


def _read_attributes(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "zarr.json").read_bytes()).get("attributes", {}))
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{folder / 'zarr.json'}: not zarr metadata ({error})", "make the store again") from None


def finish_recordings(root: Path) -> None:
    """Clear what killed runs left; the last step."""
    clean_partial(root)
    for dataset in Path(root).iterdir():
        if dataset.is_dir() and not dataset.name.startswith("."):
            clean_partial(dataset)


def set_attributes(root: Path, **values: Any) -> None:
    """Replace root attributes, unless they are so already."""
    attributes = _read_attributes(root)
    changed = {**attributes, **plain_json(values)}
    if changed != attributes:
        _write_group(root, changed)


def _write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    node = {"zarr_format": 3, "node_type": "group", "attributes": plain_json(attributes)}
    write_bytes(folder / "zarr.json", json.dumps(node, sort_keys=True, indent=1, ensure_ascii=False).encode())


def iterate(root: Path, dataset: str, subject: str, names: Sequence[str]) -> Iterator[Recording]:
    """The named recordings of a subject, one in memory at a time."""
    for name in names:
        yield read_recording(root, dataset, subject, name)


def iterate_processed(root: Path, dataset: str, subject: str, names: Sequence[str]) -> Iterator[Processed]:
    """The same of a filtered store, with what `filter` found out about each."""
    for name in names:
        recording, stored = _read(root, dataset, subject, name)
        yield _processed(recording, stored["extra"], stored["facts"])


def _processed(recording: Recording, extra: Mapping[str, Any], facts: Mapping[str, Any]) -> Processed:
    """The inverse of `_measured`."""
    band_pass = FilterRecord.from_json(extra["filter"]) if "filter" in extra else None
    spectra = Spectra.from_json(extra["summary"]) if "summary" in extra else None
    return Processed(recording, Facts.from_json(facts), band_pass, spectra)
