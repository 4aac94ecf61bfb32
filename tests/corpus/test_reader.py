"""Reading a corpus: the same bits as plain zarr in any order, tables and selections, and damage is never taken for data."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr

import eegprep
from eegprep.corpus import files as shards_files
from eegprep.corpus import shards
from eegprep.errors import SignalError, StoreError, UsageError
from eegprep.store import commit
from eegprep.store import root as store_root
from eegprep.store import writer as store_writer

PEOPLE = [
    {"dataset": "A", "subject": "1", "windows": 20, "channels": 6, "sfreq": 250.0, "licence": "CC0-1.0", "person": "anna"},
    {"dataset": "A", "subject": "2", "windows": 9, "channels": 8, "sfreq": 128.0, "licence": "CC0-1.0", "person": "bert"},
    {"dataset": "B", "subject": "1", "windows": 17, "channels": 3, "sfreq": 512.0, "licence": "CC-BY-4.0", "person": "anna"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "c.zarr"
    rng = np.random.default_rng(0)
    entries = []
    for person in PEOPLE:
        shape = (person["windows"], person["channels"], 32)
        labels = ["left", None, "right"] * 10
        data = rng.standard_normal(shape).astype(np.float32)
        entries.append({**person, "windows": data, "channels": None, "labels": labels[: shape[0]]})
    eegprep.from_arrays(path, entries, sfreq=100.0, pad_to=8, shard=8)
    return path


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A corpus that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy.zarr"))


@pytest.fixture(scope="module")
def plain(folder) -> np.ndarray:
    """All windows as plain zarr reads them."""
    group = zarr.open_group(folder, mode="r")
    return np.concatenate([group[f"{p['dataset']}/{p['subject']}/windows"][:] for p in PEOPLE])


@pytest.mark.parametrize("threads", [1, 3, None])
def test_any_order_gives_the_bits_that_plain_zarr_gives(folder, plain, threads):
    """The fast reader shares no code with zarr's: they check each other."""
    corpus = eegprep.Corpus.open(folder)
    rng = np.random.default_rng(1)

    for size in (1, 2, 15, 16, 46, 200):
        indices = rng.integers(-46, 46, size)
        assert np.array_equal(corpus.read(indices, threads=threads), plain[indices])


def test_the_zarrs_pipeline_gives_the_same_bits(folder, plain):
    """A third implementation, in Rust."""
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        group = zarr.open_group(folder, mode="r")
        result = np.concatenate([group[f"{p['dataset']}/{p['subject']}/windows"][:] for p in PEOPLE])

    assert np.array_equal(result, plain)


def test_the_decoder_through_numcodecs_gives_the_same_bits(folder, plain, monkeypatch):
    """Where numcodecs hides its zstd library the reader goes the public way."""
    monkeypatch.setattr(shards, "_LIBRARY", None)
    monkeypatch.setattr(shards, "THREAD", threading.local())

    assert isinstance(shards._decoder(), shards._PlainDecoder)
    assert np.array_equal(eegprep.Corpus.open(folder).read(np.arange(46)[::-1], threads=1), plain[::-1])


def test_a_given_array_is_filled(folder, plain):
    """A training loop reuses its memory."""
    out = np.full((3, 8, 32), np.nan, np.float32)

    assert eegprep.Corpus.open(folder).read([45, 0, 45], out=out) is out
    assert np.array_equal(out, plain[[45, 0, 45]])


def test_a_given_array_must_fit(folder):
    """Anything else would be written past its end, or in the wrong order."""
    corpus = eegprep.Corpus.open(folder)

    for out in (np.empty((2, 8, 32), np.float32), np.empty((1, 8, 32)), np.empty((1, 32, 8), np.float32).swapaxes(1, 2)):
        with pytest.raises(UsageError, match=r"expected contiguous float32 \(1, 8, 32\)"):
            corpus.read([0], out=out)


def test_no_indices_are_no_windows(folder):
    """An empty selection is not an error."""
    assert eegprep.Corpus.open(folder).read([]).shape == (0, 8, 32)


@pytest.mark.parametrize("index", [46, -47])
def test_a_window_that_does_not_exist_is_named(folder, index):
    """numpy's wrap-around would read somebody else's window."""
    with pytest.raises(UsageError, match=rf"window {index} does not exist \(it has 46\)"):
        eegprep.Corpus.open(folder).read([0, index])


def test_tables_list_subjects_and_recordings(folder):
    """What is in it, without reading a window."""
    corpus = eegprep.Corpus.open(folder)

    assert len(corpus) == 46
    assert corpus.subjects[["dataset", "subject", "person", "windows"]].to_numpy().tolist() == [
        ["A", "1", "anna", 20],
        ["A", "2", "bert", 9],
        ["B", "1", "anna", 17],
    ]
    assert corpus.recordings["sfreq"].tolist() == [250.0, 128.0, 512.0]
    assert corpus.recordings["licence"].tolist() == ["CC0-1.0", "CC0-1.0", "CC-BY-4.0"]
    assert corpus.recordings["n_channels"].tolist() == [6, 8, 3]


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ({"dataset": "A"}, range(29)),
        ({"dataset": ["A", "B"], "subjects": "1"}, [*range(20), *range(29, 46)]),
        ({"subjects": ["A/2"]}, range(20, 29)),
        ({"min_rate": 250}, [*range(20), *range(29, 46)]),
        ({"licence": "CC-BY-4.0"}, range(29, 46)),
        ({"person": "anna", "min_rate": 300}, range(29, 46)),
        ({"dataset": "A", "licence": "CC-BY-4.0"}, []),
    ],
)
def test_select_keeps_what_fits_all_conditions(folder, plain, wanted, rows):
    """Data sets, subjects, rates, licences and people are how studies choose."""
    part = eegprep.Corpus.open(folder).select(**wanted)

    assert np.array_equal(part.read(np.arange(len(part))), plain[list(rows)])
    assert part.subjects["windows"].sum() == len(part) == part.recordings["windows"].sum()


def test_selections_can_be_narrowed(folder, plain):
    """A selection is a corpus: it counts from 0, and select and take work on it."""
    part = eegprep.Corpus.open(folder).select(dataset="A").select(subjects="2").take([8, 1])

    assert np.array_equal(part.read([0, 1]), plain[[21, 28]])
    assert part.labels.tolist() == [None, "right"]
    assert part.subjects["windows"].tolist() == [2]


def test_select_reads_a_group_of_which_only_a_part_fits(tmp_path):
    """Recordings of one person may differ in rate or licence."""
    store_root.create_corpus(tmp_path / "c", {}, "f", channels=2, samples=4)
    data = np.arange(6 * 8, dtype=np.float32).reshape(6, 2, 4)
    with store_writer.SubjectWriter(tmp_path / "c", "A", "1", channels=2, samples=4) as writer:
        for sfreq in (100.0, 300.0):
            recording = writer.add_recording({"sfreq": sfreq, "licence": f"licence {sfreq:g}"})
            writer.add(data[recording::2], recording, np.arange(3))
        writer.commit("k")
    part = eegprep.Corpus.open(tmp_path / "c").select(min_rate=200)

    assert np.array_equal(part.read([0, 1, 2]), data[1::2])
    assert part.recordings["licence"].tolist() == ["licence 300"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"dataset": "a"}, "there is no data set 'a'"),
        ({"subjects": "A/7"}, "there is no subject 'A/7' in .*did you mean 'A/"),
        ({"licence": "CC-BY"}, "did you mean 'CC-BY-4.0'"),
        ({"person": "ann"}, "did you mean 'anna'"),
    ],
)
def test_names_that_are_not_there_are_an_error(folder, wanted, message):
    """A typing mistake must not select nothing, and train on it."""
    with pytest.raises(UsageError, match=message):
        eegprep.Corpus.open(folder).select(**wanted)


def test_labels_and_columns_follow_the_windows(folder):
    """Of the whole, and of a part."""
    corpus = eegprep.Corpus.open(folder)

    assert corpus.labels[:4].tolist() == ["left", None, "right", "left"]
    assert corpus.column("start")[[0, 1, 20, 21]].tolist() == [0, 32, 0, 32]
    assert corpus.select(dataset="B").column("recording").tolist() == [0] * 17
    assert corpus.record(45)["sfreq"] == 512.0
    with pytest.raises(UsageError, match="there is no column 'lable'; did you mean 'label'"):
        corpus.column("lable")
    with pytest.raises(UsageError, match="there is no group 'A/3'"):
        corpus.attributes_of("A/3")


def shard_of(root: Path, number: int = 0) -> Path:
    return root / f"A/1/windows/c/{number}/0/0"


def rewrite_index(path: Path, entry: int, offset: int, length: int, capacity: int = 8) -> None:
    """Change an entry of a shard's index, with a fitting checksum."""
    content = bytearray(path.read_bytes())
    index = np.frombuffer(content[-16 * capacity - 4 : -4], "<u8").reshape(capacity, 2).copy()
    index[entry] = offset, length
    content[-16 * capacity - 4 : -4] = index.tobytes()
    content[-4:] = google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    path.write_bytes(content)


def test_a_missing_chunk_is_an_error_and_no_zeros(copy):
    """zarr fills what is missing and says nothing; here it has a name, and plain zarr shows NaN."""
    rewrite_index(shard_of(copy), 3, 2**64 - 1, 2**64 - 1)

    with pytest.raises(StoreError, match=r"A/1/windows/c/0/0/0: window 3 of the shard is missing"):
        eegprep.Corpus.open(copy).read([3, 4])
    assert np.isnan(zarr.open_group(copy, mode="r")["A/1/windows"][3]).all()


def test_every_flipped_bit_in_a_shard_is_found(copy, plain):
    """Raw literals decode to anything: without its checksum a flipped bit would be a slightly different brain."""
    path = shard_of(copy, 1)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.choice(len(content), 100, replace=False):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            eegprep.Corpus.open(copy).read(np.arange(8, 16), threads=1)
    path.write_bytes(content)
    assert np.array_equal(eegprep.Corpus.open(copy).read(np.arange(8, 16)), plain[8:16])


def test_a_shard_of_another_size_is_an_error(copy):
    """Half a download, or a full disk in the middle of a copy."""
    path = shard_of(copy)
    size = path.stat().st_size
    os.truncate(path, size - 1)

    with pytest.raises(StoreError, match=f"has {size - 1} bytes, the commit record says {size}"):
        eegprep.Corpus.open(copy).read([0])


def test_a_shard_that_is_not_there_is_an_error(copy):
    """zarr reads a missing shard as its fill value."""
    shard_of(copy, 2).unlink()

    with pytest.raises(StoreError, match="this shard is missing"):
        eegprep.Corpus.open(copy).read([19])


def test_an_index_that_points_beyond_its_shard_is_an_error(copy):
    """A checksum that fits proves who wrote it, not that it makes sense."""
    rewrite_index(shard_of(copy), 0, 2**40, 100)

    with pytest.raises(StoreError, match="points beyond its"):
        eegprep.Corpus.open(copy).read([0])


def test_a_chunk_of_another_window_size_is_an_error(copy):
    """A chunk with a good checksum that decodes to too few bytes must not leave the rest of the batch as it was."""
    import numcodecs

    path = shard_of(copy)
    short = bytes(numcodecs.Zstd(-1).encode(np.zeros(10, np.float32)))
    content = bytearray(path.read_bytes())
    content[: len(short)] = short
    content[len(short) : len(short) + 4] = google_crc32c.value(short).to_bytes(4, "little")
    path.write_bytes(content)
    rewrite_index(path, 0, 0, len(short) + 4)

    with pytest.raises(StoreError, match="is damaged, or is another"):
        eegprep.Corpus.open(copy).read([0])


def test_a_disk_that_fails_is_an_error_with_a_name(folder, monkeypatch):
    """An I/O error has to say which file."""

    def fail(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)

    with pytest.raises(StoreError, match=r"cannot be read \(Input/output error\)"):
        eegprep.Corpus.open(folder).read([0])


def test_a_file_that_shrinks_while_it_is_open_is_an_error(copy):
    """Nobody should write into a store, but somebody will."""
    corpus = eegprep.Corpus.open(copy)
    corpus.read([0])
    os.truncate(shard_of(copy), 100)

    with pytest.raises(StoreError, match="ends after"):
        corpus.read([5])


def test_a_damaged_column_is_an_error(copy):
    """A wrong label is as bad as a wrong window."""
    path = copy / "A/1/label/c/0"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)

    with pytest.raises(StoreError, match="A/1/label/c/0: is damaged"):
        _ = eegprep.Corpus.open(copy).labels


def test_a_subject_without_a_commit_record_is_an_error(copy):
    """Somebody else's group, or one that was edited."""
    commit.reopen_root(copy)
    node = json.loads((copy / "A/1/zarr.json").read_text())
    del node["attributes"]["commit"]
    (copy / "A/1/zarr.json").write_text(json.dumps(node))

    with pytest.raises(StoreError, match="A/1: has no commit record"):
        eegprep.Corpus.open(copy)


def test_a_path_without_a_store_is_an_error(tmp_path):
    """The most common mistake of all."""
    with pytest.raises(StoreError, match=r"nothing.zarr does not exist"):
        eegprep.Corpus.open(tmp_path / "nothing.zarr")


def test_a_corpus_that_is_still_growing_can_be_read(copy, plain):
    """Without consolidated metadata the groups are looked up one by one."""
    commit.reopen_root(copy)

    assert np.array_equal(eegprep.Corpus.open(copy).read(np.arange(46)), plain)


def test_many_threads_share_one_corpus(folder, plain, monkeypatch):
    """With two files open at most, each thread closes what others are about to use."""
    monkeypatch.setattr(shards_files, "OPEN_FILES", 2)
    corpus = eegprep.Corpus.open(folder)

    def work(seed: int) -> bool:
        indices = np.random.default_rng(seed).integers(0, 46, 30)
        return np.array_equal(corpus.read(indices, threads=1), plain[indices])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))
    assert len(corpus._files._open) <= 2


def test_files_are_closed_when_the_limit_is_reached(folder, monkeypatch):
    """Hundreds of subjects have more shards than a process may have files open."""
    monkeypatch.setattr(shards_files, "OPEN_FILES", 2)
    before = len(list(Path("/proc/self/fd").iterdir()))
    corpus = eegprep.Corpus.open(folder)
    for index in range(46):
        corpus.read([index])

    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_a_corpus_can_be_sent_to_another_process(folder, plain):
    """Spawned workers get it as a pickle: without tables and open files."""
    corpus = eegprep.Corpus.open(folder).select(dataset="A")
    _ = corpus.read([0]), corpus.subjects, corpus.recordings

    content = pickle.dumps(corpus)
    again = pickle.loads(content)

    assert np.array_equal(again.read([28, 0]), plain[[28, 0]])
    assert again.identity == corpus.identity
    assert again.recordings.equals(corpus.recordings)
    assert b"n_channels" not in content


def test_the_identity_tells_other_content_and_other_selections_apart(folder, tmp_path):
    """A training run continues only on the windows it started with."""
    corpus = eegprep.Corpus.open(folder)
    other = eegprep.from_arrays(tmp_path / "o", np.zeros((46, 8, 32)), sfreq=1.0, pad_to=8)

    identities = {corpus.identity, other.identity, corpus.select(dataset="A").identity, corpus.take([1]).identity}

    assert len(identities) == 4
    assert eegprep.Corpus.open(folder).identity == corpus.identity


def test_400_subjects_are_opened_from_one_file(folder, tmp_path, monkeypatch):
    """Opening must not cost a look at every subject: on object stores each look is a request."""
    root = tmp_path / "many.zarr"
    store_root.create_corpus(root, {}, "f", channels=8, samples=32)
    (root / "A").mkdir()
    shutil.copy(folder / "A/zarr.json", root / "A/zarr.json")
    for i in range(400):
        shutil.copytree(folder / "A/1", root / f"A/{i:03d}", copy_function=os.link)
    store_root.finish_corpus(root)
    asked = []
    metadata = shards_files.LocalFiles.metadata
    monkeypatch.setattr(shards_files.LocalFiles, "metadata", lambda self, path: asked.append(path) or metadata(self, path))

    corpus = eegprep.Corpus.open(root)

    assert asked == ["zarr.json"]
    assert len(corpus) == 8000 and len(corpus.subjects) == 400 and len(corpus.recordings) == 400
    assert len(corpus.select(min_rate=200)) == 8000
    assert asked == ["zarr.json"]


def test_a_window_goes_back_to_mne_in_volts(folder, plain):
    """Real channels only, under their names, with the label."""
    raw = eegprep.Corpus.open(folder).to_mne(30)

    assert raw.info["sfreq"] == 512.0 and raw.ch_names == ["EEG001", "EEG002", "EEG003"]
    np.testing.assert_allclose(raw.get_data(), plain[30][:3] * 1e-6, rtol=1e-6)
    assert raw.annotations.description.tolist() == []  # window 30 has label None
    assert eegprep.Corpus.open(folder).to_mne(29).annotations.description.tolist() == ["left"]


def test_padding_with_zeros_and_blocks_of_many_channels_go_back_to_their_names():
    """-1 is no channel; more than 128 channels keep a block, which may wrap round."""
    from eegprep.corpus.views import source_rows

    assert source_rows({"channels": ["a", "b"], "pad_map": [0, 1, -1, -1]}, 4)[1] == ["a", "b"]
    rows, names = source_rows({"channels": list("abcde"), "pad_map": [3, 4, 0]}, 3)
    assert (rows.tolist(), names) == ([0, 1, 2], ["d", "e", "a"])
    assert source_rows({"channels": ["a"], "pad_map": [-1, -1], "pad_mode": "spline"}, 2)[1] == ["row000", "row001"]


def test_positions_come_along(tmp_path):
    """A topographic map needs them; a channel without one is left without."""
    store_root.create_corpus(tmp_path / "c", {}, "f", channels=4, samples=4)
    with store_writer.SubjectWriter(tmp_path / "c", "A", "1", channels=4, samples=4) as writer:
        record = {"sfreq": 100.0, "channels": ["Cz", "X"], "pad_map": [0, 1, 0, 1]}
        writer.add(np.zeros((1, 4, 4), np.float32), writer.add_recording({**record, "positions": [[0, 0, 0.1], [None] * 3]}), [0])
        writer.commit("k")

    info = eegprep.Corpus.open(tmp_path / "c").to_mne(0).info

    np.testing.assert_allclose(info["chs"][0]["loc"][:3], [0, 0, 0.1])
    assert not np.isfinite(info["chs"][1]["loc"][:3]).any() or not info["chs"][1]["loc"][:3].any()


def test_a_selection_becomes_epochs(folder, plain):
    """For everything that MNE can do with them."""
    epochs = eegprep.Corpus.open(folder).select(dataset="B").to_epochs()

    np.testing.assert_allclose(epochs.get_data(), plain[29:, :3] * 1e-6, rtol=1e-6)
    assert epochs.metadata["start"].tolist() == (np.arange(17) * 32).tolist()
    assert set(epochs.event_id) == {"left", "right", "none"} and len(epochs["left"]) == 6


def test_epochs_need_one_rate_and_one_channel_list(folder):
    """MNE would have to invent the difference."""
    corpus = eegprep.Corpus.open(folder)

    with pytest.raises(SignalError, match="3 recordings have 3 sampling rates and 3 channel lists"):
        corpus.to_epochs()
    with pytest.raises(SignalError, match="the selection has no windows"):
        corpus.take([]).to_epochs()


def test_dask_and_xarray_views_are_lazy_and_equal(folder, plain, monkeypatch):
    """Means over more windows than memory holds."""
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    corpus = eegprep.Corpus.open(folder)
    reads = []
    read = eegprep.Corpus.read
    monkeypatch.setattr(eegprep.Corpus, "read", lambda self, *a, **k: reads.append(a) or read(self, *a, **k))

    view = corpus.to_xarray(chunk=10)
    left = view["windows"][view["label"] == "left"]
    assert reads == []

    assert np.array_equal(view["windows"].values, plain)
    assert np.array_equal(left.values, plain[corpus.labels == "left"])
    assert view["windows"].dims == ("window", "channel", "time") and view["windows"].attrs["units"] == "uV"
    assert corpus.take([]).to_dask().shape == (0, 8, 32)


@pytest.mark.parametrize("name", ["dask", "xarray"])
def test_views_name_the_extra_that_is_missing(folder, name, monkeypatch):
    """They are not part of the plain installation."""
    import sys

    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{name}.array", None)
    corpus = eegprep.Corpus.open(folder)

    with pytest.raises(UsageError, match=rf"{name} is not installed\n.*eeg-dreamdiff\[views\]"):
        corpus.to_dask() if name == "dask" else corpus.to_xarray()
