"""Results are keyed by content: other EEG at the same path, and altered pictures, are never taken for what was asked for."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_generate import FAST, parts, pixels  # noqa: F401
from tiny_pairs import tiny_pairs

from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.files import generate_to_folder
from dreamdiff.pairs.image_cache import cached_rows
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import StoreError


def make(parts, out, pairs=None):  # noqa: F811
    generate_to_folder(parts / "model", pairs or parts / "pairs.zarr", out, GenerateConfig(**FAST), select="test")
    return {file.name: pixels(file) for file in sorted(out.glob("trial-*.png"))}


def test_images_of_other_eeg_at_the_same_path_are_made_again(parts, tmp_path):  # noqa: F811
    """With the path as key, the old images stayed, and their scores."""
    store = tmp_path / "pairs.zarr"
    tiny_pairs(store, per_class=6)
    before = make(parts, tmp_path / "kept", store)
    shutil.rmtree(store)
    tiny_pairs(store, per_class=6, seed=7)

    after, fresh = make(parts, tmp_path / "kept", store), make(parts, tmp_path / "fresh", store)

    assert any((before[name] != after[name]).any() for name in before.keys() & after.keys())
    for name, image in fresh.items():
        np.testing.assert_array_equal(after[name], image)


@pytest.mark.parametrize("harm", ["delete", "alter", "exchange", "cut"])
def test_a_picture_that_is_not_the_one_in_its_sidecar_is_made_again(parts, tmp_path, harm):  # noqa: F811
    """Deleted, painted over, exchanged with another, cut short."""
    right = make(parts, tmp_path / "out")
    first, second = (tmp_path / "out" / name for name in sorted(right)[:2])
    if harm == "delete":
        first.unlink()
    elif harm == "alter":
        Image.new("RGB", right[first.name].shape[1::-1], (9, 99, 9)).save(first)
    elif harm == "exchange":
        a, b = first.read_bytes(), second.read_bytes()
        first.write_bytes(b), second.write_bytes(a)
    else:
        first.write_bytes(first.read_bytes()[:200])

    again = make(parts, tmp_path / "out")

    assert all((again[name] == image).all() for name, image in right.items())


def test_the_content_of_a_store_is_more_than_its_recipe(tmp_path):
    """One value of EEG changes it; another path does not."""
    tiny_pairs(tmp_path / "a.zarr", per_class=2)
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert Pairs.open(tmp_path / "a.zarr").content_sha256 == Pairs.open(tmp_path / "b.zarr").content_sha256
    shard = next(file for file in (tmp_path / "b.zarr").rglob("*") if file.is_file() and "eeg/c" in file.as_posix())
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)

    assert Pairs.open(tmp_path / "a.zarr").content_sha256 != Pairs.open(tmp_path / "b.zarr").content_sha256


def test_damaged_and_lost_rows_of_an_image_cache_are_errors(tmp_path):
    """A flipped bit was trained on, and a lost file read as zeros."""
    rows = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    digests = [f"image {k}" for k in range(20)]
    cached_rows(tmp_path / "c", "latents", "k" * 64, digests, lambda chosen: rows[list(chosen)])
    shard = next(file for file in (tmp_path / "c").rglob("*") if file.is_file() and "rows/c/" in file.as_posix())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:5] + bytes([whole[5] ^ 4]) + whole[6:])
    with pytest.raises(StoreError, match="a damaged segment of an image cache"):
        cached_rows(tmp_path / "c", "latents", "k" * 64, digests, lambda chosen: rows[list(chosen)])
    shard.unlink()
    with pytest.raises(StoreError, match="No such file"):
        cached_rows(tmp_path / "c", "latents", "k" * 64, digests, lambda chosen: rows[list(chosen)])


def test_a_whole_cache_beside_read_only_pairs_is_used(tmp_path):
    """Nothing is computed, and nothing is written."""
    rows = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    digests = [f"image {k}" for k in range(4)]
    cached_rows(tmp_path / "beside", "clip", "k" * 64, digests, lambda chosen: rows[list(chosen)])

    result = cached_rows(tmp_path / "own", "clip", "k" * 64, digests, lambda _: 1 / 0, also=tmp_path / "beside")

    np.testing.assert_array_equal(result.read(range(4)), rows)
    assert not list((tmp_path / "own").glob("*")) if (tmp_path / "own").exists() else True


def test_a_sidecar_holds_digests_of_what_it_was_made_from(parts, tmp_path):  # noqa: F811
    """EEG, pixels, weights and the schedule of noise."""
    make(parts, tmp_path / "out")
    content = json.loads(next((tmp_path / "out").glob("trial-*.json")).read_text())

    digests = [content["eeg"]["sha256"], content["image_sha256"], content["model"]["fingerprint"], content["model"]["schedule"]]
    assert [len(text) for text in digests] == [64, 64, 64, 64]
