"""A corpus from numpy arrays or from other corpora, and a corpus as other people's files.

Legend: N windows, C channels, T samples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from eegprep import atomic
from eegprep.corpus.reader import Corpus
from eegprep.corpus.views import where_from
from eegprep.errors import SignalError, UsageError
from eegprep.locks import store_lock
from eegprep.provenance import fingerprint, plain_json, sha256_array, sha256_file
from eegprep.recording import ProgressCallback
from eegprep.sealed import read_object
from eegprep.store.format import COLUMNS
from eegprep.store.root import create_corpus, finish_corpus
from eegprep.store.writer import SubjectWriter

FORMATS = ("hdf5", "npy")

_BLOCK = 256  # windows in memory at once


def from_arrays(
    out: str | Path,
    windows: np.ndarray | Iterable[Mapping[str, Any]],
    *,
    sfreq: float,
    channels: Sequence[str] | None = None,
    dataset: str = "arrays",
    labels: Sequence[str | None] | None = None,
    licence: str = "unknown",
    pad_to: int = 128,
    shard: int = 256,
) -> Corpus:
    """Make a corpus of windows that are numpy arrays already.

    Args:
        out: the corpus to make, or to add to.
        windows: (N, C, T) float, uV, of one subject; or one dictionary a subject with `windows` (N, C, T) and, as far as
            they are known, `subject`, `dataset`, `person`, `session`, `run`, `sfreq`, `channels`, `labels`, `starts`, `licence`,
            `positions` (C, 3) m. A generator is read one subject at a time.
        sfreq: sampling rate, Hz, where a dictionary names none.
        channels, dataset, labels, licence: the same for what a dictionary does not say.
        pad_to: channels of the corpus; fewer are repeated in their order until there are as many.
        shard: windows a file.

    Returns:
        The corpus, open for reading.

    Raises:
        SignalError: no subjects, windows of several lengths, too many channels, or names and positions that do not fit them.

    Example:
        >>> import eegprep, numpy
        >>> windows = numpy.random.default_rng(0).normal(0, 10, (6, 32, 512))
        >>> eegprep.from_arrays("arrays.zarr", windows, sfreq=250.0, labels=["rest", "task"] * 3).shape
        (6, 128, 512)
    """
    if isinstance(windows, np.ndarray):
        windows = [{"windows": windows, "labels": labels}]
    if isinstance(windows, Sequence):  # all at once, so that nothing is written where one does not fit
        for entry in windows[1:]:
            _check_length(entry, windows[0])
    entries = iter(windows)
    first = next(entries, None)
    if first is None:
        raise SignalError("there are no subjects in these windows", "give an array, or one dictionary a subject")
    root, length = Path(out), int(np.shape(first["windows"])[-1])
    recipe = {"made_by": "from_arrays", "pad_to": pad_to, "samples": length}
    defaults = {"sfreq": sfreq, "channels": channels, "dataset": dataset, "licence": licence}
    with store_lock(root):
        create_corpus(root, recipe, fingerprint(recipe), channels=pad_to, samples=length)
        for number, given in enumerate(chain([first], entries), start=1):
            _check_length(given, first)
            entry = {**defaults, "subject": str(number), **given}
            _write_subject(root, entry, pad_to, length, shard)
        finish_corpus(root)
    return Corpus.open(root)


def _check_length(entry: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    samples, expected = np.shape(entry["windows"])[-1], np.shape(first["windows"])[-1]
    if samples != expected:
        raise SignalError(f"windows have {sorted((samples, expected))} samples", "give windows of one length")


def _write_subject(root: Path, entry: Mapping[str, Any], pad_to: int, samples: int, shard: int) -> None:
    windows_NCT = np.asarray(entry["windows"], np.float32)
    n_channels = windows_NCT.shape[1]
    if not 1 <= n_channels <= pad_to:
        raise SignalError(
            f"{entry['subject']}: {n_channels} channels do not fit a corpus of {pad_to}", "choose channels, or set pad_to"
        )
    names = list(entry["channels"] or (f"EEG{i + 1:03d}" for i in range(n_channels)))
    if len(names) != n_channels:
        raise SignalError(f"{entry['subject']}: {len(names)} channel names for {n_channels} channels", "give one name a channel")
    positions = entry.get("positions")
    if positions is not None and np.shape(positions) != (n_channels, 3):
        raise SignalError(
            f"{entry['subject']}: positions of shape {np.shape(positions)} for {n_channels} channels", "give (channels, 3) in m"
        )
    # as the reference code pads: channels again, in their order
    pad_map = np.arange(pad_to) % n_channels
    starts = entry.get("starts")
    with SubjectWriter(root, entry["dataset"], str(entry["subject"]), channels=pad_to, samples=samples, shard=shard) as writer:
        recording = writer.add_recording(
            {
                "session": str(entry.get("session", "0")),
                "run": str(entry.get("run", "0")),
                "sfreq": float(entry["sfreq"]),
                "original_sfreq": float(entry.get("original_sfreq", entry["sfreq"])),
                "channels": names,
                "n_channels": n_channels,
                "pad_map": pad_map.tolist(),
                "band": entry.get("band"),
                "licence": entry["licence"],
                "doi": entry.get("doi", ""),
                "sources": [],
                "findings": [],
                **({} if positions is None else {"positions": plain_json(np.asarray(positions, float))}),
            }
        )
        writer.add(
            windows_NCT[:, pad_map],
            recording,
            np.arange(len(windows_NCT)) * samples if starts is None else starts,
            entry.get("labels"),
        )
        person = entry.get("person", f"{entry['dataset']}/{entry['subject']}")
        made_of = {"arrays": str(entry["subject"]), "sha256": sha256_array(windows_NCT), "recording": writer.recordings[0]}
        writer.commit(fingerprint(plain_json({**made_of, "labels": entry.get("labels"), "starts": starts})), {"person": person})


def export(
    store: str | Path | Corpus,
    out: str | Path,
    kind: Literal["hdf5", "npy"],
    *,
    progress: ProgressCallback | None = None,
) -> int:
    """Write a corpus, or a selection of it, as HDF5 or as one .npy file a window.

    Args:
        store: where the corpus is, or an open corpus or selection.
        out: HDF5: the file. npy: the folder; `<dataset>/<subject>/<number>.npy`, each (channels, samples) float32 uV, as the
            published DreamDiffusion script scans them, and a `windows.csv` a subject.
        kind: "hdf5" or "npy".

    Returns:
        How many windows were written.

    Example:
        >>> import eegprep
        >>> eegprep.export(eegprep.Corpus.open("corpus.zarr"), "corpus.h5", "hdf5")
        148
    """
    if kind not in FORMATS:
        raise UsageError(f"there is no format {kind!r}", f"use one of: {', '.join(FORMATS)}")
    corpus = store if isinstance(store, Corpus) else Corpus.open(store)
    return (_export_hdf5 if kind == "hdf5" else _export_npy)(corpus, Path(out), progress)


def _export_hdf5(corpus: Corpus, out: Path, progress: ProgressCallback | None) -> int:
    """The groups of the corpus under their names; a chunk a window, gzip, which every HDF5 library reads."""
    out.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that the last step is a rename on one disk
    partial = atomic.private_path(out)
    try:
        with h5py.File(partial, "w") as file:
            done = _fill_hdf5(corpus, file, progress)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    atomic.clean_partial(out.parent, out.name)
    atomic.fsync_folder(out.parent)
    return done


def _fill_hdf5(corpus: Corpus, file: h5py.File, progress: ProgressCallback | None) -> int:
    file.attrs["corpus"] = json.dumps({key: corpus.attributes[key] for key in ("format", "version", "recipe", "fingerprint")})
    done = 0
    for key in corpus.keys:
        part = _of_group(corpus, key)
        if not len(part):
            continue
        group, shape = file.create_group(key), (len(part), corpus.channels, corpus.samples)
        data = group.create_dataset(
            # no times: the same corpus gives the same bytes
            "windows",
            shape,
            "<f4",
            chunks=(1, *shape[1:]),
            compression="gzip",
            compression_opts=1,
            track_times=False,
        )
        data.attrs["unit"] = "uV"
        for first in range(0, len(part), _BLOCK):
            last = min(first + _BLOCK, len(part))
            data[first:last] = part.read(np.arange(first, last))
            done += last - first
            if progress:
                progress(done, len(corpus), key)
        for name in COLUMNS:
            group.create_dataset(name, data=part.column(name), track_times=False)
        attributes = part.attributes_of(key)
        group.attrs["recordings"] = json.dumps(attributes["recordings"], ensure_ascii=False)
        group.attrs["labels"] = json.dumps(attributes["labels"], ensure_ascii=False)
        group.attrs["person"] = attributes["person"]
    return done


def _export_npy(corpus: Corpus, out: Path, progress: ProgressCallback | None) -> int:
    """One folder a subject, each published whole; a later run leaves finished folders as they are."""
    done, total = 0, len(corpus)
    with store_lock(out):
        for key in corpus.keys:
            part = _of_group(corpus, key)
            n = len(part)
            # the attributes' digest: labels and where the windows come from are in the table
            mark = {
                "content": part.identity,
                "windows": n,
                "attributes": corpus.attributes_of(key)["commit"]["attributes_sha256"],
            }
            if n and not _is_done(out / key, mark, corpus.channels * corpus.samples * 4):
                for written in _export_group(part, out / key, mark):
                    if progress:
                        progress(done + written, total, key)
            done += n
        for folder in {(out / key).parent for key in corpus.keys}:
            atomic.clean_partial(folder)
    return done


def _export_group(part: Corpus, folder: Path, mark: Mapping[str, Any]) -> Iterator[int]:
    """Write one subject's folder; yields how many windows are written so far."""
    n, partial = len(part), atomic.private_path(folder)
    partial.mkdir(parents=True)
    try:
        for first in range(0, n, _BLOCK):
            last = min(first + _BLOCK, n)
            for i, window_CT in enumerate(part.read(np.arange(first, last)), start=first):
                np.save(partial / f"{i:08d}.npy", window_CT)
            yield last
        table = where_from(part)
        table.insert(0, "file", [f"{i:08d}.npy" for i in range(n)])
        table.to_csv(partial / "windows.csv", index=False)
        (partial / "export.json").write_text(json.dumps({**mark, "table": sha256_file(partial / "windows.csv")}))
        atomic.publish_folder(partial, folder)
    finally:
        atomic.remove(partial)


def _is_done(folder: Path, mark: Mapping[str, Any], size: int) -> bool:
    """Whether an earlier run wrote this, and every file is there in its size.

    Args:
        size: bytes of a window; a .npy file holds a short header as well.
    """
    try:
        content = read_object(folder / "export.json")
        files = [(folder / f"{i:08d}.npy").stat().st_size for i in range(mark["windows"])]
        table = sha256_file(folder / "windows.csv")
    except (OSError, ValueError):
        return False
    return bool(content == {**mark, "table": table}) and all(size < file_size <= size + 256 for file_size in files)


def _of_group(corpus: Corpus, key: str) -> Corpus:
    return corpus.take(np.flatnonzero(corpus.group_of(np.arange(len(corpus))) == corpus.keys.index(key)))
