"""The corpus on disk: plain zarr reads it, equal content is equal bytes, and a kill leaves nothing half done."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from eegprep import provenance as store_provenance
from eegprep.errors import SignalError, StoreError
from eegprep.store import root as store_root
from eegprep.store import writer as store_writer
from eegprep.store.checks import whole_group
from eegprep.store.names import check_name

RECIPE = {"high": 95.0}


def windows(n: int, seed: int = 0, channels: int = 8, samples: int = 32) -> np.ndarray:
    """Six different channels, padded by repeating them."""
    source = np.random.default_rng(seed).standard_normal((n, 6, samples)).astype(np.float32)
    return source[:, np.arange(channels) % 6]


def write(
    root: Path, subject: str = "1", n: int = 20, *, dataset: str = "Set", seed: int = 0, shard: int = 8, key: str = "k"
) -> None:
    store_root.create_corpus(root, RECIPE, "fingerprint", channels=8, samples=32)
    with store_writer.SubjectWriter(root, dataset, subject, channels=8, samples=32, shard=shard) as writer:
        for run, part in enumerate(np.array_split(windows(n, seed), 2)):
            recording = writer.add_recording({"session": "0", "run": str(run), "sfreq": 250.0, "licence": "CC0-1.0"})
            labels = ["left" if i % 3 else None for i in range(len(part))]
            writer.add(part, recording, np.arange(len(part)) * 32, labels)
        writer.commit(key, {"person": f"person {subject}"})


def tree(root: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("n", [1, 7, 8, 9, 20])
def test_plain_zarr_reads_every_bit_without_a_warning(tmp_path, n):
    """People and tools that know nothing of this package own the data, too."""
    write(tmp_path / "c.zarr", n=n)
    store_root.finish_corpus(tmp_path / "c.zarr")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "c.zarr", mode="r")
        array = group["Set/1/windows"]
        result, members = array[:], dict(group.members(max_depth=None))

    assert np.array_equal(result, windows(n))
    assert array.metadata.dimension_names == ("window", "channel", "time")
    assert array.dtype == np.float32 and array.chunks == (1, 8, 32) and array.shards == (8, 8, 32)
    assert set(members) == {"Set", "Set/1", *(f"Set/1/{name}" for name in ("windows", "recording", "start", "label", "crc32c"))}


def test_columns_say_where_each_window_comes_from(tmp_path):
    """recording indexes `recordings`, label indexes `labels`, -1 is none, and starts are samples."""
    write(tmp_path / "c.zarr", n=10)

    group = zarr.open_group(tmp_path / "c.zarr", mode="r")["Set/1"]

    assert group["recording"][:].tolist() == [0] * 5 + [1] * 5
    assert group["start"][:].tolist() == [0, 32, 64, 96, 128] * 2
    assert group["label"][:].tolist() == [-1, 0, 0, -1, 0] * 2
    assert group.attrs["labels"] == ["left"]
    assert [record["windows"] for record in group.attrs["recordings"]] == [5, 5]


def test_a_subject_without_windows_is_a_group_of_length_zero(tmp_path):
    """Someone whose recordings were all too short is still someone who was looked at."""
    store_root.create_corpus(tmp_path / "c", RECIPE, "f", channels=8, samples=32)
    with store_writer.SubjectWriter(tmp_path / "c", "Set", "1", channels=8, samples=32) as writer:
        writer.commit("k")
    store_root.finish_corpus(tmp_path / "c")

    assert zarr.open_group(tmp_path / "c", mode="r")["Set/1/windows"].shape == (0, 8, 32)


def test_equal_content_is_equal_bytes(tmp_path):
    """No times, process numbers or host names: a store can be compared by its checksums."""
    for name in ("a", "b"):
        write(tmp_path / name, subject="1")
        write(tmp_path / name, subject="2", seed=1)
        store_root.finish_corpus(tmp_path / name)

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_repeated_channels_cost_nothing(tmp_path):
    """At a negative level zstd finds the repeats and leaves the rest as it is: 6 of 8 channels are stored."""
    write(tmp_path / "c", n=8)

    stored = (tmp_path / "c/Set/1/windows/c/0/0/0").stat().st_size - (16 * 8 + 4)

    assert 6 / 8 < stored / windows(8).nbytes < 6 / 8 + 0.06


def test_the_commit_record_names_every_file_of_the_group(tmp_path):
    """`verify` trusts nothing else; a file that it does not name would never be checked."""
    write(tmp_path / "c", n=20)

    group = tmp_path / "c/Set/1"
    record = json.loads((group / "zarr.json").read_text())["attributes"]["commit"]
    result = tree(group)
    del result["zarr.json"]

    assert {name: entry["sha256"] for name, entry in record["files"].items()} == result
    assert all((group / name).stat().st_size == entry["bytes"] for name, entry in record["files"].items())
    assert record["windows"] == 20 and record["key"] == "k"


def test_nothing_is_visible_before_the_commit_and_nothing_left_after_an_error(tmp_path):
    """A reader must never meet half a subject."""
    store_root.create_corpus(tmp_path / "c", RECIPE, "f", channels=8, samples=32)
    with (
        pytest.raises(RuntimeError, match="stop"),
        store_writer.SubjectWriter(tmp_path / "c", "Set", "1", channels=8, samples=32) as writer,
    ):
        writer.add(windows(20), writer.add_recording({}), np.arange(20))
        assert not (tmp_path / "c/Set/1").exists()
        raise RuntimeError("stop")

    assert committed_key(tmp_path / "c", "1") is None
    assert list((tmp_path / "c/Set").iterdir()) == []


def committed_key(root: Path, subject: str) -> str | None:
    """The key a subject was committed under; None when it is not there, or not whole."""
    return whole_group(root / "Set" / subject).get("commit", {}).get("key")


def write_slowly(root: Path, told: Any = None) -> None:
    """Write a subject window by window, and tell how far it got."""
    with store_writer.SubjectWriter(root, "Set", "1", channels=8, samples=32, shard=8) as writer:
        recording = writer.add_recording({"run": "0"})
        for i in range(40):
            writer.add(windows(1, i), recording, [i * 32])
            if told is not None:
                told.send(i)
                time.sleep(0.002)
        writer.commit("k")
        if told is not None:
            told.send("committed")


@pytest.mark.parametrize("kill_at", [3, 17, 39, "committed"])
def test_a_killed_writer_leaves_all_or_nothing_and_the_next_run_ends_in_the_same_bytes(tmp_path, kill_at):
    """Power cuts and preempted nodes are the rule in long builds."""
    for name in ("whole", "killed"):
        store_root.create_corpus(tmp_path / name, RECIPE, "f", channels=8, samples=32)
    write_slowly(tmp_path / "whole")
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=write_slowly, args=(tmp_path / "killed", there))
    process.start()
    while here.recv() != kill_at:
        pass
    process.kill()
    process.join()

    assert committed_key(tmp_path / "killed", "1") in {None, "k"}
    write_slowly(tmp_path / "killed")
    for name in ("whole", "killed"):
        store_root.finish_corpus(tmp_path / name)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_workers_can_write_subjects_of_one_data_set_at_the_same_time(tmp_path):
    """They share the data set's folder and its zarr.json."""
    store_root.create_corpus(tmp_path / "c", RECIPE, "fingerprint", channels=8, samples=32)
    processes = [multiprocessing.get_context("fork").Process(target=write, args=(tmp_path / "c", str(i))) for i in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 6
    assert all(committed_key(tmp_path / "c", str(i)) == "k" for i in range(6))
    assert [path.name for path in (tmp_path / "c/Set").glob(".*")] == []


def test_changing_a_subject_takes_back_the_consolidated_view(tmp_path):
    """Consolidated metadata is a copy: plain zarr would go on showing the old subjects."""
    write(tmp_path / "c", "1")
    store_root.finish_corpus(tmp_path / "c")
    assert "consolidated_metadata" in json.loads((tmp_path / "c/zarr.json").read_text())

    write(tmp_path / "c", "2")

    assert "consolidated_metadata" not in json.loads((tmp_path / "c/zarr.json").read_text())
    assert set(zarr.open_group(tmp_path / "c", mode="r")["Set"].group_keys()) == {"1", "2"}


def test_a_subject_can_be_written_again(tmp_path):
    """Another recipe for the subject, another key; the new windows replace the old."""
    write(tmp_path / "c", n=20, key="old")
    write(tmp_path / "c", n=9, seed=5, key="new")

    assert committed_key(tmp_path / "c", "1") == "new"
    assert np.array_equal(zarr.open_group(tmp_path / "c", mode="r")["Set/1/windows"][:], windows(9, 5))


def test_a_finished_corpus_is_not_touched_again(tmp_path):
    """A run that has nothing to do must not change a byte or a time."""
    write(tmp_path / "c")
    store_root.finish_corpus(tmp_path / "c")
    before = (tmp_path / "c/zarr.json").stat().st_mtime_ns
    time.sleep(0.01)

    store_root.create_corpus(tmp_path / "c", RECIPE, "fingerprint", channels=8, samples=32)
    store_root.finish_corpus(tmp_path / "c")

    assert (tmp_path / "c/zarr.json").stat().st_mtime_ns == before


def test_the_root_rolls_up_licences_and_people(tmp_path):
    """Who may use this, and who is in it, is asked of the whole."""
    write(tmp_path / "c", "1", 20)
    write(tmp_path / "c", "2", 6)
    store_root.finish_corpus(tmp_path / "c")

    attributes = zarr.open_group(tmp_path / "c", mode="r").attrs

    assert attributes["licences"] == {"CC0-1.0": {"datasets": ["Set"], "people": 2, "recordings": 4, "windows": 26}}
    assert attributes["people"] == {"person 1": ["Set/1"], "person 2": ["Set/2"]}
    assert attributes["recipe"] == RECIPE and attributes["format"] == "eegprep-corpus" and attributes["version"] == 2


def test_what_json_lacks_becomes_null():
    """NaN in a zarr.json is no JSON: readers in other languages refuse it."""
    value = store_provenance.plain_json(
        {"band": (0.0, float("inf")), "n": np.int64(3), "x": np.array([1.5, np.nan]), 4: Path("a")}
    )

    assert value == {"band": [0.0, None], "n": 3, "x": [1.5, None], "4": "a"}


def test_a_corpus_keeps_to_one_recipe_and_one_shape(tmp_path):
    """Windows of another filter in the same store would be found out by nobody."""
    store_root.create_corpus(tmp_path / "c", RECIPE, "a" * 64, channels=8, samples=32)

    with pytest.raises(StoreError, match=r"another recipe \(fingerprint aaaaaaaaaaaa, now bbbbbbbbbbbb\)"):
        store_root.create_corpus(tmp_path / "c", RECIPE, "b" * 64, channels=8, samples=32)
    with pytest.raises(StoreError, match=r"shape \(8, 32\), not \(128, 512\)"):
        store_root.create_corpus(tmp_path / "c", RECIPE, "a" * 64)


def test_a_corpus_is_not_made_where_something_else_is(tmp_path):
    """`--out` pointing at one's thesis must not end in files among it."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thesis.tex").write_text("x")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/zarr.json").write_text("{")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/zarr.json").write_text('{"zarr_format": 2}')

    for name, message in [
        ("file", "is a file, not a folder"),
        ("folder", "not a corpus"),
        ("other.zarr", r"not a corpus \(attribute `format` is None"),
        ("broken", "not JSON"),
        ("old", "not zarr format 3"),
    ]:
        with pytest.raises(StoreError, match=message):
            store_root.create_corpus(tmp_path / name, RECIPE, "f")


def test_a_corpus_of_a_newer_version_is_refused(tmp_path):
    """An old reader must not guess at a new layout."""
    store_root.create_corpus(tmp_path / "c", RECIPE, "f")
    node = json.loads((tmp_path / "c/zarr.json").read_text())
    node["attributes"]["version"] = 3
    (tmp_path / "c/zarr.json").write_text(json.dumps(node))

    with pytest.raises(StoreError, match="version 3, this software reads up to 2"):
        store_root.read_corpus_attributes(tmp_path / "c")


def test_what_does_not_fit_is_refused_with_both_numbers(tmp_path):
    """A wrong shape or a NaN found here costs a message; found in training it costs a week."""
    with (
        pytest.raises(StoreError, match="no corpus here to write Set/1 into"),
        store_writer.SubjectWriter(tmp_path / "none", "Set", "1"),
    ):
        pass
    store_root.create_corpus(tmp_path / "c", RECIPE, "f", channels=8, samples=32)
    with store_writer.SubjectWriter(tmp_path / "c", "Set", "1", channels=8, samples=32) as writer:
        with pytest.raises(StoreError, match="recording 0 of 0 is unknown"):
            writer.add(windows(1), 0, [0])
        recording, bad = writer.add_recording({}), windows(3)
        bad[1, 2, 3] = np.nan
        with pytest.raises(SignalError, match=r"shape \(8, 16\) do not fit a corpus of \(8, 32\)"):
            writer.add(windows(2)[:, :, :16], recording, [0, 1])
        with pytest.raises(SignalError, match="window 1 of 3 holds NaN"):
            writer.add(bad, recording, [0, 1, 2])
        with pytest.raises(StoreError, match="2 windows with 1 starts and 2 labels"):
            writer.add(windows(2), recording, [0])


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "__meta", "zarr.json", "a\0b", "a:b"])
def test_names_that_are_no_folder_or_zarr_names_are_refused(name):
    """A subject called '../x' must not write outside of the store."""
    with pytest.raises(StoreError, match="cannot be the name of a zarr group"):
        check_name(name, "subject")
