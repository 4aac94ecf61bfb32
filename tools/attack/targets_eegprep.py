"""What of `eegprep` is attacked: every command that writes, every kind of store, and files of strangers."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import recordings
from campaign import Command, Hostile, Stored
from harness import Ended

import eegprep
from eegprep.inspection.report import report
from eegprep.sources.reading import read_file
from eegprep.steps.index import index as eegprep_index

# ------------------------------------------------------------------------------------------------------------ commands


def _people(inputs: Path) -> None:
    recordings.people(inputs / "people", 4)


def _recordings(inputs: Path) -> None:
    eegprep.fetch(recordings.people(inputs / "people", 4), inputs / "r.zarr")


def _filtered(inputs: Path) -> None:
    _recordings(inputs)
    eegprep.filter_recordings(inputs / "r.zarr", inputs / "f.zarr")


def _two_corpora(inputs: Path) -> None:
    eegprep.build(recordings.people(inputs / "one", 2), inputs / "1.zarr")
    eegprep.build(recordings.people(inputs / "two", 2), inputs / "2.zarr")


def _source(inputs: Path) -> str:
    return f"files:{inputs}/people/*.edf"


def _arrays(out: Path) -> Any:
    windows = np.arange(6 * 4 * 64, dtype=np.float32).reshape(6, 4, 64)
    people = [{"subject": str(number), "windows": windows + number} for number in range(4)]
    return eegprep.from_arrays(out, people, sfreq=64.0, pad_to=4, shard=2)


def _repaired(inputs: Path, out: Path) -> None:
    """A damaged corpus, put right; the damage is part of the command, so that every run meets it."""
    eegprep.build(_source(inputs), out)
    shard = next(out.glob("*/01/windows/c/0/0/0"))
    shard.write_bytes(shard.read_bytes()[:-1])
    eegprep.verify(out, repair=True)


COMMANDS = [
    Command("build, 2 workers", _people, lambda inputs, out: eegprep.build(_source(inputs), out, workers=2)),
    Command("build, 1 worker", _people, lambda inputs, out: eegprep.build(_source(inputs), out)),
    Command("fetch, 2 workers", _people, lambda inputs, out: eegprep.fetch(_source(inputs), out, workers=2)),
    Command("filter, 2 workers", _recordings, lambda inputs, out: eegprep.filter_recordings(inputs / "r.zarr", out, workers=2)),
    Command("pad, 2 workers", _filtered, lambda inputs, out: eegprep.pad(inputs / "f.zarr", out, workers=2)),
    Command("from_arrays", lambda inputs: None, lambda inputs, out: _arrays(out)),
    Command("merge", _two_corpora, lambda inputs, out: eegprep.merge([inputs / "1.zarr", inputs / "2.zarr"], out)),
    Command("export npy", _two_corpora, lambda inputs, out: eegprep.export(inputs / "1.zarr", out, "npy")),
    Command("export hdf5", _two_corpora, lambda inputs, out: eegprep.export(inputs / "1.zarr", out, "hdf5")),
    Command("verify --repair", _people, _repaired),
    Command("index", _people, lambda inputs, out: eegprep_index(_source(inputs), out), share=0.5),
    Command("report", _two_corpora, lambda inputs, out: report(inputs / "1.zarr", out), share=0.3),
]

# -------------------------------------------------------------------------------------------------------------- stores


def _corpus(folder: Path) -> Path:
    eegprep.build(recordings.people(folder / "people", 2), folder / "c.zarr")
    return folder / "c.zarr"


def _read_corpus(path: Path) -> Any:
    corpus = eegprep.Corpus.open(path)
    columns = [corpus.column(name).tolist() for name in ("recording", "start", "label")]
    tables = [corpus.subjects.to_csv(), corpus.recordings.to_csv(), json.dumps([corpus.record(i) for i in (0, len(corpus) - 1)])]
    root = json.dumps({key: value for key, value in corpus.attributes.items() if key != "metadata_sha256"}, sort_keys=True)
    return corpus.read(np.arange(len(corpus))).tobytes(), columns, tables, root, corpus.labels.tolist()


def _padded_again(path: Path) -> Any:
    """What `pad` makes of a filtered store: every byte of it is used."""
    out = path.parent / "again.zarr"
    shutil.rmtree(out, ignore_errors=True)
    eegprep.pad(path, out)
    return _read_corpus(out)[0]


def _recordings_store(folder: Path) -> Path:
    eegprep.fetch(recordings.people(folder / "people", 2, runs=2), folder / "r.zarr")
    eegprep.filter_recordings(folder / "r.zarr", folder / "f.zarr")
    return folder / "f.zarr"


STORES = [
    Stored("corpus", _corpus, _read_corpus),
    Stored("recordings store", _recordings_store, _padded_again),
]

# --------------------------------------------------------------------------------------------------- files of strangers


def _build(folder: Path) -> Any:
    """Build what is in `folder` beside two good recordings; what came of it."""
    summary = eegprep.build(f"files:{folder}/*.edf", folder / "c.zarr")
    return summary.recordings, [finding.code for finding in summary.findings]


def _good_ones_are_kept(ended: Ended) -> bool:
    """The two good recordings are built, and the third is among the findings or is built as well."""
    return ended.kind == "value" and ended.value[0] >= 2


def _edf(**lies: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        recordings.people(folder, 2)
        (folder / "sub-03_run-1.edf").write_bytes(recordings.edf(seed=3, **lies))

    return make


def _cut(share: float) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        recordings.people(folder, 2)
        content = recordings.edf(seed=3)
        (folder / "sub-03_run-1.edf").write_bytes(content[: int(len(content) * share)])

    return make


_NUMBERS = ("0", "-1", "nan", "inf", "1e-300", "1e-6", "1e300", "", "x", "99999999")
_LIES = {
    "duration": _NUMBERS, "records": _NUMBERS, "signals": ("0", "-1", "9999", "4096", "x", ""), "header_bytes": _NUMBERS,
    "samples": _NUMBERS, "pmin": _NUMBERS, "pmax": _NUMBERS, "dmin": _NUMBERS, "dmax": _NUMBERS, "unit": ("", "V", "\xff", "kg"),
    "reserved": ("", "EDF+D", "BDF+C", "\xff" * 40),
}  # fmt: skip
_ANNOTATIONS = {
    "digits": b"+" + b"1" * 130_000, "signs": b"+" * 130_000, "onsets without an end": b"+1\x14" * 43_000,
    "durations": b"+1\x15" * 43_000, "separators": b"+1" + b"\x14" * 130_000, "text without an end": b"+1\x14" + b"a" * 130_000,
    "many": b"+1\x14a\x14\0" * 21_000, "newlines": b"+1\x14\n" * 32_000, "no UTF-8": b"+1\x14\xff\xfe\x14\0" * 100,
}  # fmt: skip


def _annotated(text: bytes, reserved: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        recordings.people(folder, 2)
        (folder / "sub-03_run-1.edf").write_bytes(recordings.edf(seed=3, annotations=text, reserved=reserved))

    return make


def _companion(data: str, marker: str = "own.vmrk") -> Callable[[Path], None]:
    """A header that names a file which is there and is not in its folder."""

    def make(folder: Path) -> None:
        outside = recordings.samples(folder / "private" / "secret.eeg")
        shutil.copy(outside, folder / "secret.eeg")
        place = folder / "given"
        recordings.brain_vision(place, data=data.format(folder=folder), marker=marker.format(folder=folder))
        secret = (place / "own.vmrk").read_text() + "Mk2=Stimulus,secret,100,1,0\n"
        (folder / "private" / "secret.vmrk").write_text(secret)
        if data != "own.eeg":
            (place / "own.eeg").unlink()  # else it is taken for a renamed file of the header's
        else:
            (place / "own.vmrk").unlink()
        if data == "link.eeg":
            (place / "link.eeg").symlink_to(outside)

    return make


def _build_header(folder: Path) -> Any:
    return eegprep.build(f"files:{folder}/given/*.vhdr", folder / "c.zarr").windows


def _events_of_header(folder: Path) -> Any:
    return [event.label for event in read_file(folder / "given" / "own.vhdr").events]


def _without_secret(ended: Ended) -> bool:
    """Markers that may not be read are lost markers: the signal is read without them."""
    return ended.kind == "value" and ended.value == []


def _refused(ended: Ended) -> bool:
    return ended.kind == "refused"


def _bomb(folder: Path) -> None:
    with gzip.open(folder / "a_raw.fif.gz", "wb", 1) as file:
        for _ in range(1000):
            file.write(bytes(1 << 20))


def _toml(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "m.toml").write_text(text) and None


def _build_manifest(folder: Path) -> Any:
    return eegprep.build(folder / "m.toml", folder / "c.zarr").windows


def _pattern(pattern: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        name = "sub-" + "a" * 40 + "_run-1.edf"
        (folder / name).write_bytes(recordings.edf())
        (folder / "m.toml").write_text(f'[[source]]\nspec = "files:*.edf"\ndataset = "d"\npattern = {json.dumps(pattern)}\n')

    return make


_MANIFESTS = {
    "arrays in each other": "a = " + "[" * 100_000 + "]" * 100_000,
    "tables in each other": "a = " + "{b=" * 50_000 + "1" + "}" * 50_000,
    "a key of many parts": "a" + ".a" * 200_000 + " = 1",
    "a table of many parts": "[a" + ".a" * 200_000 + "]",
    "a long number": "seed = " + "9" * 1_000_000,
    "a NUL": 'title = "a\0b"',
    "a negative target": "target_windows = -1",
    "no UTF-8 name": 'title = "\\ud800"',
}


def _setting(**settings: Any) -> Callable[[Path], Any]:
    return lambda folder: eegprep.build(f"files:{folder}/*.edf", folder / "c.zarr", **settings).windows


_SETTINGS: list[dict[str, Any]] = [
    {"channels": 10**9}, {"window": 10**9}, {"channels": 10**4, "window": 10**7}, {"notch": 1e-6}, {"notch": float("nan")}, {"resample": 1e9},
    {"resample": 1e-9}, {"low": 1e-12}, {"low": float("nan")}, {"high": -1.0}, {"stride": 0}, {"min_uv": float("inf")},
    {"max_memory": "9" * 400 + "GB"}, {"max_memory": "1..2GB"}, {"subjects": "1-999999999"}, {"workers": 0},
]  # fmt: skip


def _changed_store(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """A corpus of one subject that a stranger has changed, without the digest that would show it."""

    def make(folder: Path) -> None:
        eegprep.build(recordings.people(folder / "people", 1), folder / "c.zarr")
        change(folder / "c.zarr")

    return make


def _node(path: Path) -> Any:
    return json.loads((path / "zarr.json").read_bytes())


def _put(path: Path, node: Any) -> None:
    (path / "zarr.json").write_text(json.dumps(node, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def _as_version_1(store: Path, node: Any) -> None:
    """Write a root as version 1 has it: no digest stands between the reader and what the stranger says."""
    node["attributes"] = {key: value for key, value in node["attributes"].items() if key not in ("commit", "metadata_sha256")}
    node["attributes"]["version"] = 1
    _put(store, node)


def _key(key: str) -> Callable[[Path], None]:
    """Another name of the subject's group in the consolidated metadata."""

    def change(store: Path) -> None:
        node = _node(store)
        metadata = node["consolidated_metadata"]["metadata"]
        old = next(name for name in metadata if name.count("/") == 1)
        for name in [name for name in metadata if name == old or name.startswith(old + "/")]:
            metadata[key + name[len(old) :]] = metadata.pop(name)
        _as_version_1(store, node)

    return change


def _named(path: str) -> Callable[[Path], None]:
    """Another file in the commit record of the subject."""

    def change(store: Path) -> None:
        group = next(place for place in store.glob("*/*") if (place / "windows").is_dir())
        node = _node(group)
        node["attributes"]["commit"]["files"][path.format(store=store)] = {"bytes": 4, "sha256": "0" * 64}
        _put(group, node)
        root = _node(store)
        root.pop("consolidated_metadata", None)
        _as_version_1(store, root)

    return change


def _root(**values: Any) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        node = _node(store)
        node["attributes"].update(values)
        _as_version_1(store, node) if "version" not in values else _put(store, node)

    return change


def _special(kind: str) -> Callable[[Path], None]:
    """A shard that is a link, a pipe, a device or a folder."""

    def change(store: Path) -> None:
        shard = next(store.glob("*/*/windows/c/0/0/0"))
        kept = store.parent / "outside.bin"
        shard.rename(kept)
        if kind == "link":
            shard.symlink_to(kept)
        elif kind == "pipe":
            os.mkfifo(shard)
        elif kind == "device":
            shard.symlink_to("/dev/zero")
        else:
            shard.mkdir()

    return change


def _group_link(store: Path) -> None:
    group = next(place for place in store.glob("*/*") if (place / "windows").is_dir())
    group.rename(store.parent / "elsewhere")
    group.symlink_to(store.parent / "elsewhere")


def _use_store(command: str) -> Callable[[Path], Any]:
    def use(folder: Path) -> Any:
        store = folder / "c.zarr"
        if command == "read":
            corpus = eegprep.Corpus.open(store)
            return len(corpus.read(np.arange(len(corpus))))
        if command == "verify":
            return eegprep.verify(store).exit_code
        if command == "merge":
            return len(eegprep.merge([store], folder / "out" / "m.zarr"))
        return eegprep.export(store, folder / "out", "npy")

    return use


def _noticed(ended: Ended) -> bool:
    """Refused; or, for `verify`, problems were reported."""
    return ended.kind == "refused" or ended.value == 1


_STORES: dict[str, Callable[[Path], None]] = {
    **{f"key {key!r}": _key(key) for key in ("../victim", "..\\victim/x", "./..", "a/../../victim", "/tmp/x", "a/.", "a/b\0c")},
    **{f"record of {path!r}": _named(path) for path in ("../../../mine.txt", "{store}/../mine.txt", "../.planted", "a\\b", "a//b", "./zarr.json", "")},
    "64 channels": _root(channels=64, samples=1024), "10^9 channels": _root(channels=10**9), "-128 channels": _root(channels=-128),
    "samples as text": _root(samples="x"), "version as text": _root(version="1"), "version 99": _root(version=99),
    "a shard that is a link": _special("link"), "a shard that is a pipe": _special("pipe"), "a shard that is a device": _special("device"),
    "a shard that is a folder": _special("folder"), "a group that is a link": _group_link,
    "deep JSON": lambda store: (store / "zarr.json").write_text('{"zarr_format":3,"attributes":' + '{"a":' * 10**6 + "1" + "}" * 10**6 + "}") and None,
    "an empty root": lambda store: (store / "zarr.json").write_text("") and None,
}  # fmt: skip

_FILE_NAMES = ["sub-01\nx", "sub-\x1b[31m01", "sub-'01\"", "sub-e\u0301", "sub-\u202e10", "sub-\U0001f9e0", "sub-\udcff\udcfe", "--out=x", "...",
               "s" * 246, "  sub 01  ", "sub-%2e%2e%2f", "sub-*", "..\\..\\x", "CON"]  # fmt: skip


def _file_name(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / f"{name}.edf").write_bytes(recordings.edf()) and None


def _once(folder: Path) -> Any:
    return eegprep.build(f"files:{folder}/**/*.edf", folder / "c.zarr").recordings


def _loop(folder: Path) -> None:
    recordings.people(folder, 1)
    (folder / "self").symlink_to(folder)
    (folder / "a.edf").symlink_to(folder / "a.edf")
    (folder / "gone.edf").symlink_to(folder / "nothing")


HOSTILE = [
    *(Hostile(f"EDF header: {field} {value!r}", _edf(**{field: value}), _build, _good_ones_are_kept) for field, values in _LIES.items() for value in values),
    *(Hostile(f"EDF cut: {share:g}", _cut(share), _build, _good_ones_are_kept) for share in (0.0, 0.001, 0.01, 0.02, 0.1, 0.5, 0.9, 0.999)),
    *(Hostile(f"EDF annotations: {name}, {kind}", _annotated(text, kind), _build, _good_ones_are_kept) for name, text in _ANNOTATIONS.items() for kind in ("EDF+C", "EDF+D")),
    *(Hostile(f"companion: {data}", _companion(data), _build_header, _refused) for data in ("../secret.eeg", "../private/secret.eeg", "{folder}/private/secret.eeg", "link.eeg")),
    *(Hostile(f"companion: marker {marker}", _companion("own.eeg", marker), _events_of_header, _without_secret) for marker in ("../private/secret.vmrk", "{folder}/private/secret.vmrk")),
    Hostile("bomb: 1 GB of zeros as .fif.gz", _bomb, lambda folder: eegprep.build(f"files:{folder}/*.fif.gz", folder / "c.zarr").windows, memory=3 << 30),
    *(Hostile(f"manifest: {name}", _toml(text), _build_manifest, _refused) for name, text in _MANIFESTS.items()),
    *(Hostile(f"pattern: {pattern}", _pattern(pattern), _build_manifest) for pattern in (r"(?P<subject>(a+)+)$", r"(?P<subject>(a|a)*)b", r"^(?P<subject>(\w+\s?)*)!", r"(?P<subject>(?:a*)*)c", "(?P<subject>", "(?P<x>a)")),
    *(Hostile(f"setting: {settings}", lambda folder: recordings.people(folder, 1) and None, _setting(**settings), _refused) for settings in _SETTINGS),
    *(Hostile(f"store: {name}, {command}", _changed_store(change), _use_store(command), _noticed) for name, change in _STORES.items() for command in ("read", "verify", "merge", "export")),
    *(Hostile(f"file name: {name!r}", _file_name(name), _once) for name in _FILE_NAMES),
    Hostile("links: a folder in itself", _loop, _once, lambda ended: ended.kind == "value" and ended.value == 1),
]  # fmt: skip
