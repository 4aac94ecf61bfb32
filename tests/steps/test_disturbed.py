"""Interrupted, failing or damaged: the same command finishes, with the bytes of a run that nothing disturbed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from eeg_files import write_people

import eegprep
from eegprep import pool
from eegprep.corpus.merge import merge
from eegprep.errors import StoreError
from eegprep.inspection.verify import verify
from eegprep.locks import store_lock
from eegprep.steps.build import fetch, filter_recordings, pad
from eegprep.store import checks, commit, recordings


def tree(root: Path) -> dict[str, str]:
    """SHA-256 of every file, hidden ones included."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"), 4)


@pytest.fixture(scope="module")
def stores(people, tmp_path_factory):
    """What each step makes undisturbed, by one worker."""
    root = tmp_path_factory.mktemp("stores")
    fetch(people, root / "fetch")
    filter_recordings(root / "fetch", root / "filter")
    pad(root / "filter", root / "pad")
    eegprep.build(people, root / "build")
    return root


def step(name: str, people: str, stores: Path, out: Path, workers: int = 2) -> None:
    if name == "fetch":
        fetch(people, out, workers=workers)
    elif name == "filter":
        filter_recordings(stores / "fetch", out, workers=workers)
    elif name == "pad":
        pad(stores / "filter", out, workers=workers)
    else:
        eegprep.build(people, out, workers=workers)


STEPS = pytest.mark.parametrize("name", ["fetch", "filter", "pad", "build"])


@STEPS
def test_two_workers_give_the_bytes_of_one(people, stores, tmp_path, name):
    """All of them write the metadata of one data set."""
    step(name, people, stores, tmp_path / "out")

    assert tree(tmp_path / "out") == tree(stores / name)


@STEPS
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupt_with_two_workers_leaves_a_store_that_the_same_command_finishes(people, stores, tmp_path, name, sent):
    """No worker writes once the store is cleaned up and its lock let go."""
    out = tmp_path / "out"
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        try:
            step(name, people, stores, out)
        finally:
            os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if out.is_dir() and any(out.glob("*/.*.partial")):
            os.kill(pid, sent)
            os.waitpid(pid, 0)
            break
        time.sleep(0.001)
    for _ in range(50):
        try:
            step(name, people, stores, out)
            break
        except StoreError as error:  # workers of a parent that was killed live for a moment
            assert "another process" in error.problem
            time.sleep(0.2)

    assert tree(out) == tree(stores / name)


@STEPS
def test_an_error_in_a_worker_leaves_a_store_that_the_same_command_finishes(people, stores, tmp_path, monkeypatch, name):
    """The disk is full at the third group."""
    monkeypatch.setattr(pool, "start_method", lambda: "fork")
    publish = commit.publish_folder

    def failing(partial: Path, final: Path) -> None:
        if final.name == "03":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(final))
        publish(partial, final)

    monkeypatch.setattr(commit, "publish_folder", failing)
    with pytest.raises(OSError, match="No space left"):
        step(name, people, stores, tmp_path / "out")
    monkeypatch.undo()

    step(name, people, stores, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(stores / name)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@STEPS
@pytest.mark.parametrize("damage", [empty, cut, Path.unlink], ids=["empty", "cut", "gone"])
def test_the_same_command_makes_again_what_is_cut_emptied_or_gone(people, stores, tmp_path, name, damage):
    """It said "were there already" with exit code 0."""
    out = tmp_path / "out"
    step(name, people, stores, out, workers=1)
    chunk = sorted(out.glob("*/02/*/c/0/0*"))[0]
    damage(chunk if chunk.is_file() else chunk / "0")
    damage(out / "zarr.json")
    for dataset in out.glob("*/zarr.json"):
        damage(dataset)

    step(name, people, stores, out, workers=1)

    assert tree(out) == tree(stores / name) and verify(out).problems == ()


@STEPS
def test_the_same_command_writes_the_metadata_of_a_data_set_again(people, stores, tmp_path, name):
    """Nothing else is wrong, and no subject has to be made again."""
    out = tmp_path / "out"
    step(name, people, stores, out, workers=1)
    (dataset,) = out.glob("*/zarr.json")
    cut(dataset)

    step(name, people, stores, out, workers=1)

    assert tree(out) == tree(stores / name)


@pytest.mark.parametrize("damage", ["altered", "older", "a link", "extra bytes"])
def test_a_finished_corpus_with_another_group_makes_that_group_again(people, stores, tmp_path, damage):
    """The root is as it was finished with; only the group tells."""
    out = tmp_path / "out"
    shutil.copytree(stores / "build", out)
    (group,) = out.glob("*/02")
    if damage == "altered":
        content = (group / "zarr.json").read_bytes().replace(b'"subject":"02"', b'"subject":"20"')  # as long as it was
        (group / "zarr.json").write_bytes(content)
    elif damage == "older":
        shutil.rmtree(group)
        shutil.copytree(group.with_name("01"), group)
    elif damage == "a link":
        (group / "start").rename(tmp_path / "start")
        (group / "start").symlink_to(tmp_path / "start")
    else:
        with (group / "start" / "c" / "0").open("ab") as file:
            file.write(b"0")

    eegprep.build(people, out)

    assert tree(out) == tree(stores / "build") and verify(out).problems == ()


def test_a_build_with_nothing_to_do_parses_the_root_once_and_no_group(people, stores, monkeypatch):
    """With ten thousand people each parsing of the root costs half a second, and those of the groups a second."""
    parsed = []
    parse = commit.parse_node
    for module in (commit, checks):
        monkeypatch.setattr(module, "parse_node", lambda content, where: parsed.append(where) or parse(content, where))

    assert eegprep.build(people, stores / "build").skipped == 4

    assert parsed == [str(stores / "build" / "zarr.json")]


def test_a_chunk_in_the_place_of_another_is_no_signal(stores, tmp_path):
    """Both are whole, of one size, and in the same store."""
    shutil.copytree(stores / "fetch", tmp_path / "r")
    one, two = sorted((tmp_path / "r").glob("*/0[12]/*/c/0/0"))
    one.write_bytes(two.read_bytes())
    dataset = one.relative_to(tmp_path / "r").parts[0]

    with pytest.raises(StoreError, match="is damaged, or another's"):
        recordings.read_recording(tmp_path / "r", dataset, "01", recordings.array_names(tmp_path / "r", dataset, "01")[0])
    with pytest.raises(StoreError):
        filter_recordings(tmp_path / "r", tmp_path / "f")


# ---------------------------------------------------------------------------------------------------------------- merge


@pytest.mark.parametrize(
    "change",
    [{"windows": np.full((3, 4, 64), 2.0, "f4")}, {"labels": ["right"] * 3}, {"sfreq": 128.0}],
    ids=["windows", "labels", "rate"],
)
def test_merge_takes_over_what_has_changed(tmp_path, change):
    """The key of a subject says nothing of what came with it."""
    given = {"subject": "1", "windows": np.ones((3, 4, 64), "f4"), "labels": ["left"] * 3, "sfreq": 64.0}
    for number, entry in enumerate((given, {**given, **change})):
        eegprep.from_arrays(tmp_path / str(number), [entry], sfreq=64.0, pad_to=4)
    (tmp_path / "0").rename(tmp_path / "source")
    merge([tmp_path / "source"], tmp_path / "m")
    (tmp_path / "source").rename(tmp_path / "old")
    (tmp_path / "1").rename(tmp_path / "source")

    merged = merge([tmp_path / "source"], tmp_path / "m")

    expected = eegprep.Corpus.open(tmp_path / "source")
    assert np.array_equal(merged.read([0]), expected.read([0])) and merged.labels.tolist() == expected.labels.tolist()
    assert merged.recordings["sfreq"].tolist() == expected.recordings["sfreq"].tolist()


def test_merge_and_export_take_the_lock(tmp_path):
    """Beside `build`, a store of neither came of it."""
    eegprep.from_arrays(tmp_path / "c", np.ones((3, 4, 64), "f4"), sfreq=64.0, pad_to=4)

    with store_lock(tmp_path / "out"):
        for use in (
            lambda: merge([tmp_path / "c"], tmp_path / "out"),
            lambda: eegprep.export(tmp_path / "c", tmp_path / "out", "npy"),
        ):
            with pytest.raises(StoreError, match="another process is writing"):
                use()
