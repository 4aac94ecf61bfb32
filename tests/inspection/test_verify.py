"""Damage is found, named, and mended by making just that subject again."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from eeg_files import eeg, write_edf, write_people

import eegprep
from eegprep.errors import StoreError, UsageError
from eegprep.inspection.verify import trace, verify
from eegprep.steps.build import fetch, filter_recordings, pad


def tree(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"), 3)


@pytest.fixture(scope="module")
def built(people, tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "c.zarr"
    eegprep.build(people, root)
    return root


@pytest.fixture
def corpus(built, people, tmp_path):
    """A corpus of its own for each test, built where it lies, so that its origin is on record."""
    shutil.copytree(built, tmp_path / "c.zarr")
    eegprep.build(people, tmp_path / "c.zarr")
    return tmp_path / "c.zarr"


def subject(root: Path, name: str) -> Path:
    return next(path for path in root.iterdir() if path.is_dir()) / name


def delete_chunk(folder):
    (folder / "windows/c/0/0/0").unlink()


def truncate(folder):
    path = folder / "windows/c/0/0/0"
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(folder):
    path = folder / "windows/c/0/0/0"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(bytes(content))


def add_a_chunk(folder):
    (folder / "windows/c/1/0").mkdir(parents=True)
    (folder / "windows/c/1/0/0").write_bytes(b"x")


def change_an_attribute(folder):
    path = folder / "zarr.json"
    path.write_text(path.read_text().replace('"sfreq":200.0', '"sfreq":250.0'))


def break_metadata(folder):
    (folder / "zarr.json").write_text("{")


def delete_the_record(folder):
    (folder / "zarr.json").unlink()


def delete_all(folder):
    shutil.rmtree(folder)


DAMAGE = [
    (delete_chunk, "missing", True),
    (truncate, "truncated", True),
    (flip_a_bit, "altered", False),
    (add_a_chunk, "extra", True),
    (change_an_attribute, "altered", True),
    (break_metadata, "altered", True),
    (delete_the_record, "uncommitted", True),
    (delete_all, "missing", True),
]


@pytest.mark.parametrize(("damage", "code", "seen_fast"), DAMAGE, ids=lambda value: getattr(value, "__name__", str(value)))
def test_damage_is_found_and_repaired_in_that_subject_only(corpus, built, damage, code, seen_fast):
    """Plain zarr reads a missing chunk as fill value; here it is an error, and mending it touches nobody else."""
    damage(subject(corpus, "02"))
    others = {path: path.stat().st_mtime_ns for path in subject(corpus, "01").rglob("*")}

    result = verify(corpus)
    fast = verify(corpus, fast=True)
    repaired = verify(corpus, repair=True)

    assert {problem.code for problem in result.problems} >= {code} and result.exit_code == 1
    assert {problem.group.rpartition("/")[2] for problem in result.problems} == {"02"}
    assert bool(fast.problems) is seen_fast
    assert repaired.problems == () and repaired.exit_code == 0 and len(repaired.repaired) == 1
    assert tree(corpus) == tree(built)
    assert {path: path.stat().st_mtime_ns for path in subject(corpus, "01").rglob("*")} == others


def test_a_whole_corpus_is_whole(built):
    """No false alarm; sizes and counts are said."""
    result = verify(built)

    assert result.problems == () and result.checked == 3 and result.bytes > 0 and "whole and unchanged" in result.text


def test_files_that_macos_lays_beside_others_are_passed_over(corpus):
    """A foreign disk that was once in a Mac: every file has a `._` twin."""
    for path in list(corpus.rglob("*")):
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\26\7")
    (corpus / ".DS_Store").write_bytes(b"x")

    assert verify(corpus).problems == ()


def test_a_file_beside_the_groups_is_extra(corpus):
    """Somebody's notes in the store; not deleted for them."""
    (corpus / "notes.txt").write_text("x")

    (problem,) = verify(corpus).problems

    assert (problem.code, problem.file) == ("extra", "notes.txt")
    with pytest.raises(StoreError, match="the damage is outside the subject folders"):
        verify(corpus, repair=True)


def test_stores_of_the_steps_are_verified_and_repaired_too(people, tmp_path):
    """Recordings as fetched, as filtered, and a corpus made by `pad`."""
    fetch(people, tmp_path / "r.zarr")
    filter_recordings(tmp_path / "r.zarr", tmp_path / "f.zarr")
    pad(tmp_path / "f.zarr", tmp_path / "c.zarr")

    for name, relative in (("r.zarr", "0.1/c/0/0"), ("f.zarr", "0.1/c/0/0"), ("c.zarr", "windows/c/0/0/0")):
        before = tree(tmp_path / name)
        (file,) = (subject(tmp_path / name, "03")).glob(relative.replace("0.1", "0.*"))
        file.write_bytes(b"no")
        assert [problem.code for problem in verify(tmp_path / name).problems] == ["truncated"]
        assert verify(tmp_path / name, repair=True).problems == ()
        assert tree(tmp_path / name) == before


def test_deep_verification_notices_windows_that_the_sources_do_not_give(tmp_path):
    """The bytes are as committed, but the file behind them is another now."""
    source = write_people(tmp_path / "p", 2)
    eegprep.build(source, tmp_path / "c.zarr")
    write_edf(tmp_path / "p/sub-02_run-1.edf", eeg(4, 2400, 200.0, 5), 200.0)

    result = verify(tmp_path / "c.zarr", deep=True)

    assert {(problem.code, problem.group.rpartition("/")[2]) for problem in result.problems} == {("different", "02")}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_repair_whose_sources_are_unknown_says_what_to_do(corpus, people, tmp_path):
    """A corpus that was moved or came from elsewhere."""
    moved = tmp_path / "moved.zarr"
    corpus.rename(moved)
    delete_chunk(subject(moved, "01"))

    with pytest.raises(StoreError, match="no record of what the store was built from"):
        verify(moved, repair=True)
    assert verify(moved, repair=True, source=[people]).problems == ()


def test_a_folder_without_a_store_is_refused(tmp_path):
    """Rather than called whole."""
    with pytest.raises(StoreError, match="no zarr group here"):
        verify(tmp_path)


def test_a_window_that_does_not_exist_cannot_be_traced(built):
    """With the number there is."""
    with pytest.raises(UsageError, match="window 99 does not exist"):
        trace(built, 99)
