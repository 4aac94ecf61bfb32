"""Recordings on disk, between the steps: `/<dataset>/<subject>/<session>.<run>`, one (channel, time) array of float32 uV each.

A subject's group is prepared in a hidden folder and renamed when whole, as in the corpus, with the same commit record. Each chunk ends
with its crc32c, which the record names as well, so that a chunk in another's place is noticed; in version 1 its SHA-256 is
compared instead. Shapes: C channels, T samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numcodecs
import numpy as np

from eegprep.atomic import clean_partial, remove
from eegprep.errors import StoreError, require_path
from eegprep.provenance import plain_json
from eegprep.recording import Facts, FilterRecord, Processed, Recording, Spectra
from eegprep.store import commit
from eegprep.store.commit import AGAIN, VERSION, Commit
from eegprep.store.format import crc_fits, crc_of
from eegprep.store.names import check_name, folders, read_inside
from eegprep.store.records import Provenance, SubjectGroup
from eegprep.store.recovery import usable_root

FORMAT = "eegprep-recordings"

# large enough to compress well, small enough that reading one stretch of a recording stays cheap
_CHUNK_BYTES = 4_000_000

_CODECS = (["bytes", "blosc"], ["bytes", "blosc", "crc32c"])  # of version 1, and of this one


def create_recordings(root: Path, stage: str, recipe: Mapping[str, Any]) -> None:
    """Make an empty recordings store, or check that `root` is one of the same stage ("fetched" or "filtered").

    Groups of a store whose root is damaged are kept.

    Raises:
        StoreError: `root` holds something else.
    """
    root = Path(root)
    node = usable_root(root, "a recordings store", "choose another output")
    if node is not None:
        root_record = _of_ours(node["attributes"], root)
        if root_record["stage"] != stage:
            raise StoreError(f"{root}: holds {root_record['stage']} recordings, not {stage} ones", "choose another output")
        if root_record["recipe"] == plain_json(recipe):
            return
    root.mkdir(parents=True, exist_ok=True)
    attributes = {"format": FORMAT, "version": VERSION, "stage": stage, "recipe": dict(recipe)}
    commit.write_root(root, commit.group_node(attributes))


def read_root(root: Path) -> Mapping[str, Any]:
    """Root attributes of a recordings store.

    Raises:
        StoreError: there is none at `root`, or it is damaged.
    """
    require_path(root)
    if not (Path(root) / "zarr.json").is_file():
        return _of_ours({}, root)
    return _of_ours(commit.read_root(Path(root))["attributes"], root)


def _of_ours(attributes: Mapping[str, Any], root: Path) -> Mapping[str, Any]:
    if attributes.get("format") != FORMAT:
        raise StoreError(
            f"{root}: not a recordings store (attribute `format` is {attributes.get('format')!r}, expected {FORMAT!r})",
            "give a store that `eegprep fetch` or `eegprep filter` made",
        )
    if attributes.get("stage") not in ("fetched", "filtered") or not isinstance(attributes.get("recipe"), dict):
        raise StoreError(f"{root}: its attributes do not say how it was made", AGAIN)
    return attributes


class RecordingsWriter:
    """Writes one subject's recordings; nothing is visible before `commit`, nothing is left after an error."""

    def __init__(self, root: Path, dataset: str, subject: str) -> None:
        self.root, self.dataset, self.subject = Path(root), check_name(dataset, "data set"), check_name(subject, "subject")
        self._partial: Path | None = None

    def __enter__(self) -> Self:
        self._partial = commit.start_group(self.root, f"{self.dataset}/{self.subject}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._partial is not None:
            remove(self._partial)

    def add(self, item: Recording | Processed) -> None:
        """Write one recording; of a processed one also what was measured on the way."""
        import zarr  # here, because `import eegprep` must stay fast
        from zarr.codecs import BloscCodec, Crc32cCodec

        assert self._partial is not None
        recording = item.recording if isinstance(item, Processed) else item
        n_channels, n_samples = recording.signal_CT.shape
        array = zarr.create_array(
            str(self._partial / check_name(f"{recording.session}.{recording.run}", "recording")),
            shape=(n_channels, n_samples),
            dtype="float32",
            chunks=(n_channels, _chunk_length(n_channels, n_samples)),
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()],
            fill_value=float("nan"),  # a chunk that is lost shows as NaN in plain zarr, never as a believable zero
            dimension_names=("channel", "time"),
            attributes=plain_json({"unit": "uV", **recording.to_json(), **_measured(item)}),
            zarr_format=3,
            config={"write_empty_chunks": True},  # each chunk has a file, so that a missing one is an error
        )
        array[:] = recording.signal_CT

    def commit(self, key: str, about: Provenance) -> None:
        """Publish the subject. A later run that finds the same key has nothing to do."""
        assert self._partial is not None
        content = {**about.to_json(), "dataset": self.dataset, "subject": self.subject}
        files = commit.measure(self._partial, ending=_checksum_of)
        commit.write_node(self._partial, commit.committed_node(key, files, content))
        commit.publish_group(self.root, f"{self.dataset}/{self.subject}", self._partial)
        self._partial = None


def _measured(item: Recording | Processed) -> dict[str, object]:
    """What `filter` found out about a recording; empty in a store of fetched ones."""
    if isinstance(item, Recording):
        return {"extra": {}, "facts": {}}
    parts = {"filter": item.filter, "summary": item.spectra}
    return {"extra": {name: part.to_json() for name, part in parts.items() if part is not None}, "facts": item.facts.to_json()}


def _checksum_of(path: str, content: bytes) -> int | None:
    """What a chunk ends with; None for metadata."""
    return None if path.endswith("zarr.json") else crc_of(content)


def _chunk_length(n_channels: int, n_samples: int) -> int:
    """Samples a chunk: whole kilosamples, so that chunks of recordings at one rate line up."""
    return min(max(1, _CHUNK_BYTES // (4 * n_channels * 1000)) * 1000, max(n_samples, 1))


def subjects(root: Path) -> list[tuple[str, str]]:
    """(dataset, subject) of every group, sorted.

    Raises:
        StoreError: a folder is a link.
    """
    return [
        (dataset.name, subject.name)
        for dataset in folders(Path(root))
        for subject in folders(dataset)
        if (subject / "zarr.json").is_file()
    ]


def read_group(root: Path, dataset: str, subject: str) -> SubjectGroup | None:
    """A subject's group in a corpus or a recordings store; None when it is not there.

    Raises:
        StoreError: it is not what was committed.
    """
    attributes = group_attributes(root, dataset, subject)
    return SubjectGroup.from_json({"dataset": dataset, "subject": subject, **attributes}) if attributes else None


def group_attributes(root: Path, dataset: str, subject: str) -> Mapping[str, Any]:
    """Attributes of a subject's group, compared with its record and the root's; empty when it is not there.

    Raises:
        StoreError: they are not those that were committed.
    """
    if not (Path(root) / dataset / subject / "zarr.json").is_file():
        return {}
    return StoredSubject.open(root, dataset, subject).attributes


def array_names(root: Path, dataset: str, subject: str) -> list[str]:
    """`session.run` of the subject's recordings."""
    folder = Path(root) / dataset / subject
    return [entry.name for entry in folders(folder) if (entry / "zarr.json").is_file()]


@dataclass(frozen=True)
class StoredSubject:
    """A subject's group that is open for reading, its record checked against the root's."""

    folder: Path
    dataset: str
    subject: str
    commit: Commit
    attributes: dict[str, Any]

    @classmethod
    def open(cls, root: Path, dataset: str, subject: str) -> StoredSubject:
        """Raises StoreError when the group is not there, or not what was committed, or not what the store was finished with."""
        key = f"{check_name(dataset, 'data set')}/{check_name(subject, 'subject')}"
        where = str(Path(root) / key)
        try:
            content = read_inside(Path(root), f"{key}/zarr.json")
        except FileNotFoundError:
            raise StoreError(f"{where}: no such subject in the store", AGAIN) from None
        attributes = commit.parse_node(content, where)["attributes"]
        record = Commit.of(attributes, where)
        finished = commit.finished_of(Path(root)).get(f"{key}/zarr.json")
        if finished is not None and (problem := finished.problem(content)) is not None:
            raise StoreError(f"{where}: not what the store was finished with ({problem})", AGAIN)
        if commit.attributes_digest(attributes) != record.attributes_sha256:
            raise StoreError(f"{where}: not the attributes that were committed", AGAIN)
        return cls(Path(root) / key, dataset, subject, record, attributes)

    @property
    def names(self) -> list[str]:
        """`session.run` of the recordings, as the commit record has them."""
        return [path.removesuffix("/zarr.json") for path in self.commit.files if path.endswith("/zarr.json")]

    def read(self, name: str) -> tuple[Recording, Mapping[str, Any]]:
        """A recording and all its attributes.

        Raises:
            StoreError: a chunk is missing, damaged, or another's.
        """
        where = self.folder / check_name(name, "recording")
        node = commit.parse_node(self.commit.read(self.folder, f"{name}/zarr.json"), str(where))
        signal_CT = self._signal(name, node)
        session, _, run = name.partition(".")
        stored = node["attributes"]
        place = {"dataset": self.dataset, "subject": self.subject, "session": session, "run": run}
        try:
            return Recording.from_json(stored, signal_CT, **place), stored
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{where}: its attributes are not those of a recording ({error})", AGAIN) from None

    def _signal(self, name: str, node: Mapping[str, Any]) -> np.ndarray:
        """The samples, (C, T) float32; each chunk is compared with its record before it is unpacked."""
        where = self.folder / name
        n_channels, n_samples, chunk, checked = _layout(node, str(where))
        count = math.ceil(n_samples / chunk)
        paths = [path for path in self.commit.files if path.startswith(f"{name}/c/")]
        present = sum((self.folder / path).is_file() for path in paths)
        if len(paths) != count or present != count:
            raise StoreError(f"{where}: {min(present, len(paths))} of {count} chunks are there", AGAIN)
        signal_CT = np.empty((n_channels, n_samples), np.float32)
        for number in range(count):
            content = self._chunk(f"{name}/c/0/{number}", checked)
            # checked before Blosc reserves memory for it
            unpacked = int.from_bytes(content[4:8], "little")  # as Blosc's header says
            try:
                if unpacked != 4 * n_channels * chunk:
                    raise ValueError(f"{unpacked:,} bytes, not {4 * n_channels * chunk:,}")
                values = np.frombuffer(numcodecs.blosc.decompress(content), "<f4").reshape(n_channels, chunk)
            except (RuntimeError, ValueError) as error:
                raise StoreError(f"{where}/c/0/{number}: cannot be unpacked ({error})", AGAIN) from None
            first = number * chunk
            # the last chunk is padded to its full length
            signal_CT[:, first : first + chunk] = values[:, : n_samples - first]
        return signal_CT

    def _chunk(self, path: str, checked: bool) -> bytes:
        """The packed bytes of a chunk. checked: it ends with its crc32c; else its SHA-256 is compared."""
        if not checked:
            return self.commit.read(self.folder, path)
        record = self.commit.file(path, str(self.folder))
        try:
            content = read_inside(self.folder, path)
        except FileNotFoundError:
            raise StoreError(f"{self.folder / path}: is missing", AGAIN) from None
        # both: the chunk is undamaged, and it is the one that was committed in this place
        whole = len(content) == record.size and crc_fits(np.frombuffer(content, np.uint8))
        if not whole or crc_of(content) != record.crc32c:
            raise StoreError(f"{self.folder / path}: is damaged, or another's (its crc32c does not fit)", AGAIN)
        return content[:-4]


def _layout(node: Mapping[str, Any], where: str) -> tuple[int, int, int, bool]:
    """(channels, samples, samples a chunk, whether chunks end with a crc32c) of an array's metadata.

    Raises:
        StoreError: it is not an array as `RecordingsWriter` writes it.
    """
    try:
        n_channels, n_samples = node["shape"]
        codecs = [codec["name"] for codec in node["codecs"]]
        sizes = (type(n_channels), type(n_samples)) == (int, int) and 0 < n_channels <= 1 << 20 and n_samples >= 0
        chunk = _chunk_length(n_channels, n_samples) if sizes else 0
        fits = sizes and node["chunk_grid"]["configuration"]["chunk_shape"] == [n_channels, chunk]
        if not fits or codecs not in _CODECS or node["data_type"] != "float32" or not isinstance(node["attributes"], dict):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise StoreError(f"{where}: not an array of a recordings store", AGAIN) from None
    return n_channels, n_samples, chunk, codecs[-1] == "crc32c"


def read_recording(root: Path, dataset: str, subject: str, name: str) -> Recording:
    """One recording, as it was written."""
    return StoredSubject.open(root, dataset, subject).read(name)[0]


def iterate(root: Path, dataset: str, subject: str, names: Sequence[str]) -> Iterator[Recording]:
    """The named recordings of a subject, one in memory at a time."""
    stored = StoredSubject.open(root, dataset, subject)
    for name in names:
        yield stored.read(name)[0]


def iterate_processed(root: Path, dataset: str, subject: str, names: Sequence[str]) -> Iterator[Processed]:
    """The same of a filtered store, with what `filter` found out about each."""
    opened = StoredSubject.open(root, dataset, subject)
    for name in names:
        recording, stored = opened.read(name)
        yield _processed(recording, stored["extra"], stored["facts"])


def _processed(recording: Recording, extra: Mapping[str, Any], facts: Mapping[str, Any]) -> Processed:
    """The inverse of `_measured`."""
    band_pass = FilterRecord.from_json(extra["filter"]) if "filter" in extra else None
    spectra = Spectra.from_json(extra["summary"]) if "summary" in extra else None
    return Processed(recording, Facts.from_json(facts), band_pass, spectra)


def finish_recordings(root: Path, **values: Any) -> None:
    """Set root attributes, write the record of all groups, and clear what killed runs left; the last step.

    A store that is finished already, with the same groups and attributes, is not touched.
    """
    root = Path(root)
    node = commit.read_root(root)
    clean_partial(root)
    paths = []
    for dataset in folders(root):
        clean_partial(dataset)
        groups = [subject for subject in folders(dataset) if (subject / "zarr.json").is_file()]
        if groups:
            commit.put_data_set(dataset)
        paths += [f"{dataset.name}/{group.name}/zarr.json" for group in groups]
        paths += [f"{dataset.name}/zarr.json"] if groups else []
    attributes = {**node["attributes"], **plain_json(values)}
    if node["attributes"]["version"] == 1 and attributes == node["attributes"]:
        return  # an older store to which nothing was added stays as it is
    commit.finish_root(root, {**node, "attributes": attributes}, paths)
