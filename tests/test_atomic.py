"""Old or new, never half: the one writer."""

from __future__ import annotations

import errno
import os

import pytest

from eegprep import atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_error_in_the_middle_leaves_the_old_content_and_no_leftover(tmp_path):
    """A full disk must not cost the previous checkpoint."""
    path = tmp_path / "state.json"
    atomic.write_text(path, "old")

    with pytest.raises(OSError, match="no space"), atomic.open_atomic(path) as file:
        file.write(b"ne")
        raise OSError(errno.ENOSPC, "no space")

    assert path.read_text() == "old"
    assert names(tmp_path) == ["state.json"]


def test_the_file_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    """Rename before fsync would leave an empty file after a power cut."""
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: (calls.append("rename"), replace(self, target))[1])

    atomic.write_bytes(tmp_path / "x", b"1")

    assert calls == ["fsync", "rename", "fsync"]


def test_json_is_the_same_bytes_for_the_same_content(tmp_path):
    """Stores are compared byte by byte."""
    atomic.write_json(tmp_path / "a", {"b": 1, "a": [1.5, "µV"]})
    atomic.write_json(tmp_path / "b", {"a": [1.5, "µV"], "b": 1})

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_published_folder_replaces_the_old_one_whole(tmp_path):
    """Nothing of the old group may survive in the new."""
    final, partial = tmp_path / "group", tmp_path / ".group.partial"
    final.mkdir()
    (final / "old").write_text("old")
    partial.mkdir()
    (partial / "new").write_text("new")

    atomic.publish_folder(partial, final)

    assert [p.name for p in final.iterdir()] == ["new"]
    assert names(tmp_path) == ["group"]


def test_leftovers_of_killed_runs_are_removed(tmp_path):
    """A killed run leaves at most `.NAME.partial`; the next run starts clean."""
    (tmp_path / ".a.partial").write_text("x")
    (tmp_path / ".b.partial").mkdir()
    (tmp_path / "keep").write_text("x")

    atomic.clean_partial(tmp_path)

    assert names(tmp_path) == ["keep"]
