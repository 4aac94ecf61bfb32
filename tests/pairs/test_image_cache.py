"""Rows about images are computed once, survive a kill as whole segments, and come back in the order asked for."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from dreamdiff.pairs import image_cache
from dreamdiff.pairs.image_cache import cached_rows
from eegprep.errors import StoreError


def rows_of(digests, calls):
    def compute(indices):
        calls.append([digests[i] for i in indices])
        return np.stack([np.full((2, 3), float(int(digests[i], 16))) for i in indices])

    return compute


def test_every_image_is_computed_once(tmp_path):
    """At full size an image costs seconds; a second run, and repeats within one, must cost nothing."""
    calls, digests = [], ["a", "b", "a", "c"]
    cached_rows(tmp_path / "c", "latents", "key", digests, rows_of(digests, calls), batch=2)
    again = cached_rows(tmp_path / "c", "latents", "key", digests, rows_of(digests, calls), batch=2)

    assert calls == [["a", "b"], ["c"]]
    np.testing.assert_array_equal(again.read([3, 0, 2])[:, 0, 0], [12, 10, 10])


def test_new_images_are_added(tmp_path):
    """Another data set with some images in common."""
    calls = []
    first, second = ["1", "2"], ["2", "3"]
    cached_rows(tmp_path / "c", "latents", "key", first, rows_of(first, calls))
    rows = cached_rows(tmp_path / "c", "latents", "key", second, rows_of(second, calls))

    assert calls == [["1", "2"], ["3"]]
    np.testing.assert_array_equal(rows.read([1, 0])[:, 0, 0], [3, 2])


def test_another_preprocessing_is_another_cache(tmp_path):
    """Latents at 256 pixels must never be served for 512."""
    calls = []
    cached_rows(tmp_path / "c", "latents", "256", ["1"], rows_of(["1"], calls))
    cached_rows(tmp_path / "c", "latents", "512", ["1"], rows_of(["1"], calls))

    assert len(calls) == 2


def test_a_failure_leaves_no_half_segment(tmp_path):
    """A kill in the middle: the next run computes again and finds nothing wrong."""
    calls = []

    def fails_late(indices):
        if 2 in indices:
            raise KeyboardInterrupt
        return np.zeros((len(indices), 2, 3))

    with pytest.raises(KeyboardInterrupt):
        cached_rows(tmp_path / "c", "latents", "key", ["1", "2", "3"], fails_late, batch=1)
    rows = cached_rows(tmp_path / "c", "latents", "key", ["1", "2", "3"], rows_of(["1", "2", "3"], calls), batch=1)

    np.testing.assert_array_equal(rows.read([0, 1, 2])[:, 0, 0], [1, 2, 3])


def test_rows_too_many_for_memory_are_read_as_asked_for(tmp_path, monkeypatch):
    """16,540 latents of THINGS are 2 GB."""
    digests = [f"{i:x}" for i in range(1, 8)]
    held = cached_rows(tmp_path / "c", "latents", "key", digests, rows_of(digests, []), batch=3)
    monkeypatch.setattr(image_cache, "MEMORY_LIMIT", 10)
    lazy = cached_rows(tmp_path / "c", "latents", "key", digests, rows_of(digests, []), batch=3)

    np.testing.assert_array_equal(lazy.read([6, 0, 0, 3]), held.read([6, 0, 0, 3]))


def test_a_full_disk_is_seen_before_the_work(tmp_path, monkeypatch):
    """After one batch the size of all is known."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10}))

    with pytest.raises(StoreError, match="latents of the images need"):
        cached_rows(tmp_path / "c", "latents", "key", ["1", "2"], rows_of(["1", "2"], []))


def test_a_damaged_segment_is_named(tmp_path):
    """It can simply be removed; the message says so."""
    cached_rows(tmp_path / "c", "latents", "key", ["1"], rows_of(["1"], []))
    segment = next(p for p in (tmp_path / "c" / "latents-key").iterdir() if p.is_dir())
    (segment / "zarr.json").write_text("{")

    with pytest.raises(StoreError, match="a damaged segment of an image cache"):
        cached_rows(tmp_path / "c", "latents", "key", ["1"], rows_of(["1"], []))


def test_a_file_in_the_way_is_named(tmp_path):
    """--set cache=FILE."""
    (tmp_path / "c").write_text("")
    with pytest.raises(StoreError, match="not a folder"):
        cached_rows(tmp_path / "c", "latents", "key", ["1"], rows_of(["1"], []))


def segment_of(folder, key="key"):
    return next(p for p in (folder / f"latents-{key}").iterdir() if p.is_dir())


def exchange(first, second):
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


@pytest.mark.parametrize("damage", ["two files exchanged", "names exchanged", "shape altered", "of another preprocessing"])
def test_rows_are_never_those_of_other_images(tmp_path, damage):
    """Each file is whole for itself then, and every checksum in it fits."""
    digests = ["1", "2", "3", "4"]
    cached_rows(tmp_path, "latents", "key", digests, rows_of(digests, []), batch=2)
    segment = segment_of(tmp_path)
    if damage == "two files exchanged":
        exchange(segment / "rows/c/0/0/0", segment / "rows/c/1/0/0")
    elif damage == "names exchanged":
        root = (segment / "zarr.json").read_text()
        (segment / "zarr.json").write_text(root.replace('["1","2"', '["2","1"'))
        assert (segment / "zarr.json").read_text() != root
    elif damage == "shape altered":
        node = (segment / "rows/zarr.json").read_text()
        (segment / "rows/zarr.json").write_text(node.replace("crc32c", "crc32c "))
    else:
        cached_rows(tmp_path, "latents", "other", digests, rows_of(digests, []), batch=2)
        segment.rename(segment_of(tmp_path, "other").parent / "moved")

    with pytest.raises(StoreError, match="a damaged segment of an image cache"):
        cached_rows(tmp_path, "latents", "other" if "another" in damage else "key", digests, rows_of(digests, []), batch=2)


def test_a_cache_of_the_first_version_is_read(tmp_path):
    """Release 0.1.0 wrote rows without a digest of its files; hours of encoding are in them."""
    segment = zarr.open_group(
        tmp_path / "latents-key" / "s",
        mode="w",
        attributes={"format": "dreamdiff-image-cache", "version": 1, "kind": "latents", "key": "key", "images": ["a", "b"]},
    )
    rows = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    segment.create_array("rows", data=rows)

    result = cached_rows(tmp_path, "latents", "key", ["b", "a"], lambda chosen: 1 / 0)

    np.testing.assert_array_equal(result.read([0, 1]), rows[::-1])
