"""A corpus from arrays and from other corpora, and a corpus as HDF5 and as .npy files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import eegprep
from cli._app import eegprep_app
from cli.main import run
from eegprep.corpus import export as exports
from eegprep.corpus import merge as exports_merge
from eegprep.errors import SignalError, StoreError, UsageError


def arrays(n: int = 10, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, channels, 16)).astype(np.float32)


def make(path: Path, *, seed: int = 0, dataset: str = "A", **more) -> eegprep.Corpus:
    people = [
        {"subject": "1", "windows": arrays(10, 3, seed), "labels": ["x", None] * 5, "licence": "CC0-1.0"},
        {"subject": "2", "windows": arrays(7, 4, seed + 1), "person": "two"},
    ]
    return eegprep.from_arrays(path, people, sfreq=100.0, dataset=dataset, pad_to=4, shard=4, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_arrays_become_a_padded_corpus(tmp_path):
    """Channel c of a window is channel c modulo the number of channels."""
    corpus = make(tmp_path / "c")

    assert np.array_equal(corpus.read(np.arange(10)), arrays()[:, [0, 1, 2, 0]])
    assert corpus.record(0)["pad_map"] == [0, 1, 2, 0]
    assert corpus.record(0)["channels"] == ["EEG001", "EEG002", "EEG003"]
    assert corpus.labels[:3].tolist() == ["x", None, "x"]
    assert corpus.subjects["person"].tolist() == ["A/1", "two"]
    assert corpus.column("start")[:3].tolist() == [0, 16, 32]


def test_one_array_is_one_subject_of_128_channels(tmp_path):
    """The shortest way in for people who have numpy."""
    data = np.random.default_rng(0).standard_normal((3, 62, 512))
    names = [f"C{i}" for i in range(62)]
    corpus = eegprep.from_arrays(tmp_path / "c", data, sfreq=250.0, channels=names, labels=["a", "b", "a"])

    assert corpus.read([2]).shape == (1, 128, 512)
    assert np.array_equal(corpus[2], data[2].astype(np.float32)[np.arange(128) % 62])
    assert corpus.record(2)["channels"] == names and corpus.labels.tolist() == ["a", "b", "a"]


def test_adding_arrays_to_a_corpus_keeps_what_is_there(tmp_path):
    """Subjects arrive over months."""
    make(tmp_path / "c")
    corpus = make(tmp_path / "c", dataset="B", seed=5)

    assert corpus.keys == ["A/1", "A/2", "B/1", "B/2"]
    assert np.array_equal(corpus.read([0, 17]), np.stack([arrays()[0], arrays(seed=5)[0]])[:, [0, 1, 2, 0]])


@pytest.mark.parametrize(
    ("windows", "more", "message"),
    [
        ([{"windows": arrays()}, {"windows": arrays()[:, :, :8]}], {}, r"windows have \[8, 16\] samples"),
        ([{"windows": arrays(channels=5)}], {}, "1: 5 channels do not fit a corpus of 4"),
        ([{"windows": arrays(), "channels": ["a"]}], {}, "1: 1 channel names for 3 channels"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, windows, more, message):
    """With the numbers that disagree."""
    with pytest.raises(SignalError, match=message):
        eegprep.from_arrays(tmp_path / "c", windows, sfreq=100.0, pad_to=4, **more)


def test_subjects_of_a_generator_are_written_one_after_the_other(tmp_path):
    """A generator was used up by a look at the lengths, and the corpus was empty without a word."""

    def people():
        for number in range(3):
            yield {"subject": str(number), "windows": np.full((2, 4, 8), number, np.float32)}

    corpus = eegprep.from_arrays(tmp_path / "c", people(), sfreq=100.0, pad_to=4)

    assert list(corpus.subjects["subject"]) == ["0", "1", "2"] and corpus.read([0, 2, 4])[:, 0, 0].tolist() == [0, 1, 2]


def test_a_corpus_of_nobody_is_refused(tmp_path):
    with pytest.raises(SignalError, match="no subjects"):
        eegprep.from_arrays(tmp_path / "c", iter(()), sfreq=100.0)
    assert not (tmp_path / "c").exists()


def test_a_generator_whose_lengths_differ_is_refused_at_the_one_that_differs(tmp_path):
    people = ({"subject": str(n), "windows": np.zeros((2, 4, 8 + n), np.float32)} for n in range(2))
    with pytest.raises(SignalError, match=r"\[8, 9\] samples"):
        eegprep.from_arrays(tmp_path / "c", people, sfreq=100.0, pad_to=4)


def test_hdf5_holds_the_same_bits_and_names(tmp_path):
    """MATLAB and Julia users read it without zarr."""
    corpus = make(tmp_path / "c")

    assert exports.export(tmp_path / "c", tmp_path / "c.h5", "hdf5") == 17

    with h5py.File(tmp_path / "c.h5") as file:
        assert np.array_equal(file["A/1/windows"][:], corpus.read(np.arange(10)))
        assert np.array_equal(file["A/2/windows"][:], corpus.read(np.arange(10, 17)))
        assert file["A/1/label"][:].tolist() == [0, -1] * 5 and json.loads(file["A/1"].attrs["labels"]) == ["x"]
        assert json.loads(file["A/2"].attrs["recordings"])[0]["sfreq"] == 100.0
        assert file["A/2"].attrs["person"] == "two"
        assert file["A/1/windows"].chunks == (1, 4, 16) and file["A/1/windows"].attrs["unit"] == "uV"


def test_hdf5_of_equal_content_is_equal_bytes(tmp_path):
    """HDF5 likes to write the time of day into objects."""
    make(tmp_path / "c")
    for name in ("a.h5", "b.h5"):
        exports.export(tmp_path / "c", tmp_path / name, "hdf5")

    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_an_export_that_fails_leaves_nothing(tmp_path):
    """Half a file under the final name would be read by somebody."""
    make(tmp_path / "c")
    (tmp_path / "c/A/2/windows/c/0/0/0").unlink()
    for kind, name in (("hdf5", "c.h5"), ("npy", "npy")):
        with pytest.raises(StoreError, match="this shard is missing"):
            exports.export(tmp_path / "c", tmp_path / name, kind)

    assert not (tmp_path / "c.h5").exists() and not list(tmp_path.glob(".*.partial"))
    assert not (tmp_path / "npy/A/2").exists()


def test_npy_files_are_what_the_published_script_scans(tmp_path):
    """It takes every *.npy below a folder as one sample (channels, time)."""
    corpus = make(tmp_path / "c")

    assert exports.export(corpus, tmp_path / "npy", "npy") == 17

    result = sorted((tmp_path / "npy").rglob("*.npy"))
    assert len(result) == 17
    assert np.array_equal(np.stack([np.load(path) for path in result]), corpus.read(np.arange(17)))
    assert np.load(result[0]).dtype == np.float32
    with (tmp_path / "npy/A/1/windows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[2] == {"file": "00000002.npy", "dataset": "A", "subject": "1", "recording": "0", "start": "32", "label": "x"}


def test_an_npy_export_goes_on_where_it_was_stopped(tmp_path):
    """Finished subjects are kept as they are; one of other content is written anew."""
    corpus = make(tmp_path / "c")
    exports.export(corpus, tmp_path / "npy", "npy")
    before = files(tmp_path / "npy")
    shutil.rmtree(tmp_path / "npy/A/2")
    kept = tmp_path / "npy/A/1/00000000.npy"
    time_of_kept = kept.stat().st_mtime_ns

    exports.export(corpus, tmp_path / "npy", "npy")
    assert files(tmp_path / "npy") == before and kept.stat().st_mtime_ns == time_of_kept

    exports.export(corpus.take(range(4)), tmp_path / "npy", "npy")
    assert len(list((tmp_path / "npy/A/1").glob("*.npy"))) == 4


def test_a_selection_is_exported_alone(tmp_path):
    """Groups without a chosen window do not appear."""
    corpus = make(tmp_path / "c").select(subjects="2")
    calls = []
    exports.export(corpus, tmp_path / "c.h5", "hdf5", progress=lambda done, total, message: calls.append((done, total, message)))

    with h5py.File(tmp_path / "c.h5") as file:
        assert list(file["A"]) == ["2"]
    assert calls == [(7, 7, "A/2")]


def test_an_unknown_format_is_refused(tmp_path):
    """Before anything is written."""
    make(tmp_path / "c")

    with pytest.raises(UsageError, match="there is no format 'mat'"):
        exports.export(tmp_path / "c", tmp_path / "c.mat", "mat")


def test_merged_corpora_hold_the_windows_of_both(tmp_path):
    """Files are copied: bit for bit, with their commit records."""
    a, b = make(tmp_path / "a"), make(tmp_path / "b", dataset="B", seed=3)

    merged = exports_merge.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")

    assert np.array_equal(merged.read(np.arange(34)), np.concatenate([a.read(np.arange(17)), b.read(np.arange(17))]))
    assert files(tmp_path / "m/A/1") == files(tmp_path / "a/A/1")
    assert merged.attributes["licences"]["CC0-1.0"]["windows"] == 20
    assert merged.attributes["recipe"] == a.attributes["recipe"]


def test_merging_again_changes_nothing(tmp_path):
    """A killed merge is finished by the same command; subjects that are there are not copied again."""
    make(tmp_path / "a")
    make(tmp_path / "b", dataset="B")
    exports_merge.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    before = files(tmp_path / "m")
    shutil.rmtree(tmp_path / "m/B/2")

    exports_merge.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")

    assert files(tmp_path / "m") == before


def test_corpora_of_two_recipes_say_so_when_merged(tmp_path):
    """The root names both recipes by their fingerprints."""
    from eegprep.store.root import create_corpus, finish_corpus
    from eegprep.store.writer import SubjectWriter

    for name in "ab":
        create_corpus(tmp_path / name, {"high": name}, name * 64, channels=4, samples=16)
        with SubjectWriter(tmp_path / name, name, "1", channels=4, samples=16) as writer:
            writer.add(arrays(2, 4), writer.add_recording({}), [0, 16])
            writer.commit("k")
        finish_corpus(tmp_path / name)

    merged = exports_merge.merge([tmp_path / "b", tmp_path / "a"], tmp_path / "m")

    assert merged.attributes["recipe"] == {"merged": {"a" * 64: {"high": "a"}, "b" * 64: {"high": "b"}}}
    assert (
        merged.attributes["fingerprint"]
        == exports_merge.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "n").attributes["fingerprint"]
    )


def test_what_cannot_be_merged_is_refused(tmp_path):
    """Two different people under one name, other shapes, damaged files."""
    make(tmp_path / "a")
    make(tmp_path / "b", seed=9)
    eegprep.from_arrays(tmp_path / "wide", arrays(), sfreq=1.0, pad_to=8)

    with pytest.raises(StoreError, match=r"A/1 is in .*a and in .*b with different content"):
        exports_merge.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    with pytest.raises(StoreError, match=r"different shapes: \[\(4, 16\), \(8, 16\)\]"):
        exports_merge.merge([tmp_path / "a", tmp_path / "wide"], tmp_path / "m")
    with pytest.raises(UsageError, match="no corpora to merge"):
        exports_merge.merge([], tmp_path / "m")
    path = tmp_path / "a/A/2/label/c/0"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"A/2/label/c/0: does not fit the commit record \(31 bytes, committed were 32"):
        exports_merge.merge([tmp_path / "a"], tmp_path / "m")


def test_the_commands_export_and_merge(tmp_path, capsys):
    """The shells pass on what they are given, and say how much was written."""
    make(tmp_path / "a")
    make(tmp_path / "b", dataset="B")

    assert run(eegprep_app, "eegprep", ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "m")]) == 0
    assert "34 windows of 4 subjects" in capsys.readouterr().err
    export = ["export", str(tmp_path / "m"), str(tmp_path / "npy"), "--format", "npy", "--dataset", "B"]
    assert run(eegprep_app, "eegprep", export) == 0
    assert "17 windows" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "npy").iterdir()] == ["B"]
    assert run(eegprep_app, "eegprep", ["export", str(tmp_path / "m"), str(tmp_path / "x"), "--format", "mat"]) == 2
