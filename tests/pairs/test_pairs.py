"""The pairs store: what is written can be read with plain zarr, and nothing missing or altered passes for data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from eegprep.errors import DataError, StoreError, ToolkitError, UsageError

RECIPE = {"kind": "test", "seed": 1}
CLASSES = ["cat", "dog"]


def trials(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 128, 512)).astype(np.float32)


def pictures(n: int = 4) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (n, 8, 10, 3), dtype=np.uint8)


def writer(path: Path, **changes: object) -> PairsWriter:
    settings = {"recipe": RECIPE, "classes": CLASSES, "provenance": "simulated", "licence": "CC0-1.0", **changes}
    return PairsWriter(path, **settings)  # type: ignore[arg-type]


def add_subject(target: PairsWriter, name: str, n: int, seed: int = 0) -> None:
    with target.subject(name, "key", {"sfreq": 512.0, "t0": -0.2}) as subject:
        subject.add(
            trials(n, seed), image=np.arange(n) % 4, label=np.arange(n) % 2, block=np.arange(n) // 2, session=np.zeros(n, int),
            onset=np.arange(n) * 1.5,
        )  # fmt: skip


def make(path: Path, subjects: tuple[tuple[str, int], ...] = (("a", 6), ("b", 4))) -> Path:
    with writer(path) as target:
        if not target.complete:
            target.set_images(pictures(), [f"p{k}" for k in range(4)])
            for seed, (name, n) in enumerate(subjects):
                if not target.done(name, "key"):
                    add_subject(target, name, n, seed)
            target.finish({"train": [0, 1, 2, 6], "val": [3, 7], "test": [4, 5, 8, 9]})
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("pairs") / "pairs.zarr")


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(template, tmp_path / "pairs.zarr"))


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --------------------------------------------------------------------------------------------------- layout and reading


def test_plain_zarr_reads_the_layout_of_the_contract(store: Path):
    """Other tools must not need this package."""
    root = zarr.open_group(store, mode="r")

    np.testing.assert_array_equal(root["b/eeg"][1], trials(4, 1)[1])
    assert root["a/eeg"].shape == (6, 128, 512) and root["a/eeg"].dtype == np.float32
    assert root["a/eeg"].metadata.dimension_names == ("trial", "channel", "time")
    assert {root[f"a/{name}"].dtype for name in ("image", "label", "block", "session", "trial")} == {np.dtype("int32")}
    np.testing.assert_array_equal(root["a/onset"][:], np.arange(6) * 1.5)
    np.testing.assert_array_equal(root["images"][:], pictures())
    assert root.attrs["classes"] == CLASSES and root.attrs["provenance"] == "simulated" and root.attrs["licence"] == "CC0-1.0"
    assert root.attrs["splits"]["test"] == [4, 5, 8, 9]


def test_one_trial_is_one_inner_chunk(store: Path):
    """Shuffled reading must not decode neighbours."""
    array = zarr.open_group(store, mode="r")["a/eeg"]

    assert array.chunks == (1, 128, 512) and array.shards == (256, 128, 512)


def test_reading_keeps_any_order_and_repeats(store: Path):
    """Batches are shuffled and span subjects."""
    pairs = Pairs.open(store)
    everything = np.concatenate([trials(6, 0), trials(4, 1)])
    order = [9, 0, 6, 6, 5, -1]

    np.testing.assert_array_equal(pairs.eeg(order), everything[order])
    np.testing.assert_array_equal(pairs.eeg(), everything)
    np.testing.assert_array_equal(pairs.eeg(3), everything[3:4])
    np.testing.assert_array_equal(pairs.images(order), pictures()[pairs.image[order]])


def test_trials_are_numbered_through_the_subjects_in_order(store: Path):
    """Splits are lists of these numbers."""
    pairs = Pairs.open(store)

    assert len(pairs) == 10 and pairs.subjects == ["a", "b"]
    np.testing.assert_array_equal(pairs.person, [0] * 6 + [1] * 4)
    np.testing.assert_array_equal(pairs.labels, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(pairs.trial, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3])
    assert pairs.table["label"].tolist()[:2] == ["cat", "dog"] and pairs.table["image"].tolist()[7] == "p1"


def test_a_selection_counts_its_own_trials(store: Path):
    """Training takes a view and indexes it from 0."""
    pairs = Pairs.open(store)
    test = pairs.select(split="test")

    assert len(test) == 4
    np.testing.assert_array_equal(test.eeg([1, 3]), pairs.eeg([5, 9]))
    np.testing.assert_array_equal(test.splits["test"], [0, 1, 2, 3])
    assert len(test.splits["train"]) == 0
    assert len(test.select(subjects=["b"])) == 2 and len(test.select(labels=[1])) == 2
    np.testing.assert_array_equal(pairs.select(indices=[7, 2]).eeg(), pairs.eeg([7, 2]))


def test_a_split_by_a_factor_is_made_on_request(store: Path):
    """`--split stimulus` and `stimulus/test` mean the same trials everywhere."""
    pairs = Pairs.open(store)
    parts = pairs.split("trial")

    assert sorted(np.concatenate(list(parts.values()))) == list(range(10))
    np.testing.assert_array_equal(pairs.select(split="trial/test").indices, parts["test"])
    np.testing.assert_array_equal(pairs.split("default")["val"], [3, 7])


def test_images_can_be_resized_and_keep_their_number(store: Path):
    """The generator wants squares; the reference code does not keep the aspect either."""
    pairs = Pairs.open(store)

    assert pairs.images([0, 1], size=16).shape == (2, 16, 16, 3)
    assert pairs.load_images([3, 3, 0]).shape == (3, 8, 10, 3)
    np.testing.assert_array_equal(pairs.load_images([3, 3, 0])[1], pictures()[3])


def test_an_open_store_survives_pickling(store: Path):
    """Loader processes get a copy."""
    pairs = pickle.loads(pickle.dumps(Pairs.open(store).select(split="val")))

    np.testing.assert_array_equal(pairs.eeg(), Pairs.open(store).eeg([3, 7]))


# ------------------------------------------------------------------------------------------------ writing again, and kills


def test_the_same_input_gives_the_same_bytes(tmp_path: Path):
    """Two people can compare stores by checksum."""
    assert digest(make(tmp_path / "one.zarr")) == digest(make(tmp_path / "two.zarr"))


def test_batches_of_any_size_give_the_same_bytes(tmp_path: Path):
    """Shards are filled the same way whatever the importer hands over, also across a shard's end."""
    for name, step in (("one", 300), ("many", 7)):
        with writer(tmp_path / name, channels=2, samples=4) as target:
            target.set_images(pictures(), list("abcd"))
            with target.subject("s", "key", {}) as subject:
                for start in range(0, 300, step):
                    part = np.arange(start, min(start + step, 300))
                    subject.add(part[:, None, None] * np.ones((2, 4), np.float32), image=part % 4, label=part % 2)
            target.finish({})

    assert digest(tmp_path / "one") == digest(tmp_path / "many")


class Killed(BaseException):
    """Not an Exception, as SIGKILL is not."""


@pytest.mark.parametrize("moment", ["images", "first subject", "second subject", "root"])
def test_killed_anywhere_the_same_command_finishes_with_the_same_bytes(tmp_path: Path, monkeypatch, moment: str):
    """Imports take hours; what was done must not be done again, and nothing half-done may be seen."""
    reference = digest(make(tmp_path / "reference.zarr"))
    path = tmp_path / "pairs.zarr"
    publish = PairsWriter._publish
    names = {"images": "images", "first subject": "a", "second subject": "b"}

    def die(self: PairsWriter, name: str) -> None:
        if name == names.get(moment):
            raise Killed
        publish(self, name)

    def die_at_the_end(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(PairsWriter, "_publish", die)
        if moment == "root":
            patch.setattr("dreamdiff.pairs.writer.publish_folder", lambda partial, final: die_at_the_end() if final == path else
                          shutil.move(partial, final))  # fmt: skip
        with pytest.raises(Killed):
            make(path)
    assert not path.exists()
    with pytest.raises(StoreError, match="was not finished"):
        Pairs.open(path)

    make(path)

    assert digest(path) == reference
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_finished_subject_is_not_written_again(tmp_path: Path):
    """Hours of work are kept when a later subject fails."""
    path = tmp_path / "pairs.zarr"
    with writer(path) as target:
        target.set_images(pictures(), list("abcd"))
        add_subject(target, "a", 6)

    with writer(path) as target:
        assert target.done("a", "key") and not target.done("a", "another key") and not target.done("b", "key")


def test_a_finished_store_is_left_alone_and_another_recipe_is_refused(store: Path):
    """Running again costs nothing; mixing two data sets in one store must not happen."""
    assert writer(store).complete
    with pytest.raises(StoreError, match="was made with other settings"):
        writer(store, recipe={"kind": "other"})


def test_two_writers_of_one_store_do_not_meet(tmp_path: Path):
    """They would prepare the same hidden folder, and each would remove what the other wrote."""
    read, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        held = writer(tmp_path / "p.zarr")
        os.write(write_end, b"x")
        time.sleep(60)
        os._exit(int(held.complete))
    os.read(read, 1)
    try:
        with pytest.raises(StoreError, match=rf"another process is writing this store \(process {child} "):
            writer(tmp_path / "p.zarr")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    make(tmp_path / "p.zarr")  # the lock goes with its process
    assert not list((tmp_path / "p.zarr").rglob(".*")) and [path.name for path in tmp_path.iterdir()] == ["p.zarr"]


@pytest.mark.parametrize("damage", ["cut", "emptied", "removed", "no column", "empty root", "a group's metadata"])
def test_the_same_command_makes_a_damaged_store_again(store: Path, damage: str):
    """It was "there already", and every reader said to make it again."""
    whole = digest(store)
    shard = next(path for path in store.rglob("*") if path.is_file() and "eeg/c/" in path.as_posix())
    harm = {
        "cut": lambda: shard.write_bytes(shard.read_bytes()[:-9]), "emptied": lambda: shard.write_bytes(b""), "removed": shard.unlink,
        "no column": lambda: shutil.rmtree(store / "a" / "label"), "empty root": lambda: (store / "zarr.json").write_bytes(b""),
        "a group's metadata": lambda: (store / "a" / "zarr.json").write_text("{}"),
    }  # fmt: skip
    harm[damage]()

    make(store)

    assert digest(store) == whole


def test_a_folder_that_is_something_else_is_not_overwritten(tmp_path: Path):
    """`--out` may be mistyped."""
    (tmp_path / "thesis").mkdir()
    with pytest.raises(StoreError, match="exists and is not a pairs store"):
        writer(tmp_path / "thesis")


# --------------------------------------------------------------------------------------------------------- bad input


def test_input_that_does_not_fit_is_refused(tmp_path: Path):
    """Each message names the thing, the value and the limit."""
    with writer(tmp_path / "p") as target:
        with pytest.raises(StoreError, match="images have to be written before"), target.subject("a", "k", {}):
            pass
        with pytest.raises(DataError, match=r"do not fit \(n, h, w, 3\) uint8"):
            target.set_images(pictures().astype(float), list("abcd"))
        with pytest.raises(DataError, match="4 images have 4 names, 3 of them distinct"):
            target.set_images(pictures(), list("abca"))
        target.set_images(pictures(), list("abcd"))
        for name in ("images", "../up", ""):
            with pytest.raises(DataError, match="cannot be a group"), target.subject(name, "k", {}):
                pass
        with target.subject("a", "k", {}) as subject:
            with pytest.raises(DataError, match=r"trials of shape \(64, 512\) do not fit a store of \(128, 512\)"):
                subject.add(np.zeros((2, 64, 512), np.float32), image=np.zeros(2), label=np.zeros(2))
            with pytest.raises(DataError, match="trial 1 holds values that are not finite"):
                subject.add(np.stack([trials(1)[0], np.full((128, 512), np.nan)]), image=np.zeros(2), label=np.zeros(2))
            with pytest.raises(DataError, match=r"image 4 is outside 0\.\.3"):
                subject.add(trials(2), image=np.array([0, 4]), label=np.zeros(2))
            with pytest.raises(DataError, match=r"label -1 is outside 0\.\.1"):
                subject.add(trials(2), image=np.zeros(2), label=np.array([0, -1]))
            with pytest.raises(DataError, match=r"column 'block' has shape \(1,\) for 2 trials"):
                subject.add(trials(2), image=np.zeros(2), label=np.zeros(2), block=np.zeros(1))
            subject.add(trials(2), image=np.zeros(2), label=np.zeros(2))
        with pytest.raises(DataError, match=r"split 'test' names trials 1\.\.2"):
            target.finish({"test": [1, 2]})
        with pytest.raises(DataError, match=r"split 'test' names trials 1\.\.1 \(1 twice\)"):
            target.finish({"test": [1, 1]})


def test_a_store_without_trials_is_not_made(tmp_path: Path):
    """An empty store would only fail later."""
    with writer(tmp_path / "p") as target:
        target.set_images(pictures(), list("abcd"))
        with pytest.raises(DataError, match="no trial was written"):
            target.finish({})


def test_unknown_names_are_refused_with_a_suggestion(store: Path):
    """Typing errors must not select nothing."""
    pairs = Pairs.open(store)
    with pytest.raises(UsageError, match="no split list 'tets'; did you mean 'test'"):
        pairs.select(split="tets")
    with pytest.raises(UsageError, match="no split 'stimulsu'; did you mean 'stimulus'"):
        pairs.split("stimulsu")
    with pytest.raises(UsageError, match="no subject 'c'"):
        pairs.select(subjects=["c"])
    with pytest.raises(UsageError, match=r"trial 10 is outside 0\.\.9"):
        pairs.eeg([10])
    with pytest.raises(StoreError, match=r"nowhere.zarr does not exist"):
        Pairs.open(store.parent / "nowhere.zarr")
    zarr.open_group(store.parent / "other.zarr", mode="w").attrs["format"] = "other"
    with pytest.raises(StoreError, match="not a pairs store \\(format 'other'"):
        Pairs.open(store.parent / "other.zarr")


def test_a_newer_version_is_refused(store: Path):
    """Reading a layout that is not known gives wrong numbers at best."""
    zarr.open_group(store, mode="r+").attrs["version"] = 3
    with pytest.raises(StoreError, match="version 3, this software reads up to 2"):
        Pairs.open(store)


# -------------------------------------------------------------------------------------------------- damage is an error


def test_a_lost_shard_is_an_error_and_not_zeros(store: Path):
    """zarr fills what is missing; that must never reach training."""
    (store / "a/eeg/c/0/0/0").unlink()
    with pytest.raises(StoreError, match="trials 0 and on of subject 'a' are missing"):
        Pairs.open(store)


def test_a_flipped_byte_in_a_trial_is_an_error(store: Path):
    """Each window carries a checksum."""
    shard = store / "a/eeg/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 0xFF
    shard.write_bytes(content)

    with pytest.raises(StoreError, match="is damaged"):
        Pairs.open(store).eeg()


def test_a_shard_that_was_cut_short_is_an_error(store: Path):
    """A full disk or a broken copy."""
    shard = store / "a/eeg/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-5000])

    with pytest.raises(StoreError, match=r"pairs\.zarr: .*a/eeg/c/0/0/0"):
        Pairs.open(store).eeg()


def test_a_lost_subject_is_an_error_at_once(store: Path):
    """Opening tells, not the third hour of training."""
    shutil.rmtree(store / "b")
    with pytest.raises(StoreError, match="subject 'b' is missing"):
        Pairs.open(store)


def test_an_altered_picture_is_an_error_and_not_noise(store: Path):
    """The reference code trained on random images for months without a word."""
    array = zarr.open_group(store, mode="r+")["images"]
    array[1] = 255 - array[1]

    pairs = Pairs.open(store)
    assert pairs.load_images([0]).shape == (1, 8, 10, 3)
    with pytest.raises(DataError, match="image 'p1' is not the one the store was made with"):
        pairs.load_images([0, 1])


def seen(store: Path) -> tuple[object, ...]:
    """All that a reader sees of the tables, the pictures and the splits."""
    pairs = Pairs.open(store)
    columns = [getattr(pairs, name).tobytes() for name in ("person", "image", "labels", "block", "session", "trial", "onset")]
    splits = sorted((name, numbers.tolist()) for name, numbers in pairs.splits.items())
    pictures = pairs.load_images(np.arange(len(pairs.image_names))).tobytes()
    return columns, splits, pairs.classes, pairs.image_names, pairs.image_sha256, pictures, pairs.eeg().tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_of_any_file_is_believed(store: Path, seed: int):
    """Labels, onsets, blocks, splits, names, pictures and EEG: an error, or the same."""
    draw, before = random.Random(seed), seen(store)
    files = sorted(path for path in store.rglob("*") if path.is_file())
    for path in draw.sample(files, 14) + [store / "zarr.json", store / "images/zarr.json"] * 3:
        kept = path.read_bytes()
        content = bytearray(kept)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        with contextlib.suppress(ToolkitError):
            assert seen(store) == before, path
        path.write_bytes(kept)


@pytest.mark.parametrize("column", ["image", "label", "block", "session", "trial", "onset", "crc32c"])
def test_a_lost_column_is_an_error_and_not_unknown(store: Path, column: str):
    """The fill value of `block` means "unknown", and the audit of a split would then see no leak."""
    (store / f"a/{column}/c/0").unlink()
    with pytest.raises(StoreError, match=r"is missing|not there"):
        seen(store)


def test_two_names_of_pictures_exchanged_are_noticed(store: Path):
    """Each would be the name of another picture."""
    node = json.loads((store / "images/zarr.json").read_text())
    names = node["attributes"]["names"]
    names[0], names[1] = names[1], names[0]
    (store / "images/zarr.json").write_text(json.dumps(node))
    with pytest.raises(StoreError, match=r"images.zarr\.json: is damaged"):
        Pairs.open(store)


def test_a_store_of_version_1_is_read_and_its_lost_columns_are_errors(store: Path):
    """It has no digests; a chunk that is missing is an error all the same."""
    before = seen(store)
    root = json.loads((store / "zarr.json").read_text())
    for name in ("commit", "metadata_sha256"):
        del root["attributes"][name]
    root["attributes"]["version"] = 1
    (store / "zarr.json").write_text(json.dumps(root))
    for subject in ("a", "b"):
        shutil.rmtree(store / subject / "crc32c")
    assert seen(store) == before

    (store / "a/block/c/0").unlink()
    with pytest.raises(StoreError, match="its chunk is missing"):
        Pairs.open(store)


@pytest.fixture
def with_files(tmp_path: Path) -> Path:
    folder = tmp_path / "imagenet" / "n01"
    folder.mkdir(parents=True)
    for k in range(4):
        Image.fromarray(np.full((8 + k, 10, 3), 60 * k, np.uint8)).save(folder / f"{k}.png")
    with writer(tmp_path / "pairs.zarr") as target:
        target.set_image_files(tmp_path / "imagenet", [f"n01/{k}.png" for k in range(4)])
        add_subject(target, "a", 4)
        target.finish({"train": [0, 1], "val": [2], "test": [3]})
    return tmp_path / "pairs.zarr"


def test_references_are_read_where_they_are(with_files: Path):
    """ImageNet can't be copied into stores that are passed on."""
    pairs = Pairs.open(with_files)

    assert pairs.images([2], size=8).shape == (1, 8, 8, 3) and pairs.images([2], size=8)[0, 0, 0, 0] == 120
    assert pairs.image_names[3] == "n01/3.png"
    assert pairs.image_sha256[0] == hashlib.sha256((with_files.parent / "imagenet" / "n01" / "0.png").read_bytes()).hexdigest()
    with pytest.raises(DataError, match="2 different sizes"):
        pairs.images([0, 1])


def test_store_and_images_can_move_together_and_apart(with_files: Path, tmp_path: Path):
    """Folders are kept relative; `images=` names another place."""
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(with_files, moved / "pairs.zarr")
    with pytest.raises(DataError, match=r"image 'n01/0\.png' is missing"):
        Pairs.open(moved / "pairs.zarr").images([0])
    assert len(Pairs.open(moved / "pairs.zarr", images=tmp_path / "imagenet").images([0])) == 1

    shutil.move(tmp_path / "imagenet", moved / "imagenet")
    assert len(Pairs.open(moved / "pairs.zarr").images([0])) == 1


def test_a_missing_altered_or_unreadable_file_is_an_error(with_files: Path, tmp_path: Path):
    """Missing images must stop a run."""
    pairs = Pairs.open(with_files)
    Image.fromarray(np.zeros((9, 10, 3), np.uint8)).save(tmp_path / "imagenet/n01/1.png")
    (tmp_path / "imagenet/n01/2.png").unlink()

    with pytest.raises(DataError, match=r"image 'n01/1\.png' is not the one"):
        pairs.images([1])
    with pytest.raises(DataError, match=r"image 'n01/2\.png' is missing"):
        pairs.images([2])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"image 'broken\.png' cannot be read"):
        writer(tmp_path / "new.zarr").set_image_files(tmp_path, ["broken.png"])
    with pytest.raises(DataError, match=r"image 4 is outside 0\.\.3"):
        pairs.load_images([4])
