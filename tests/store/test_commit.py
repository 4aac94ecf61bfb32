"""Nothing damaged is believed: one record covers a store from its root to every chunk, in format 2."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

import eegprep
from eegprep.corpus.export import export
from eegprep.corpus.merge import merge
from eegprep.errors import StoreError, ToolkitError
from eegprep.inspection.verify import verify
from eegprep.store import commit
from eegprep.store.names import check_key, check_relative, inside


def windows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 4, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two subjects of two shards each."""
    root = tmp_path_factory.mktemp("made") / "c.zarr"
    people = [{"subject": "1", "windows": windows(8), "labels": ["x", "y"] * 4}, {"subject": "2", "windows": windows(6, 1)}]
    eegprep.from_arrays(root, people, sfreq=100.0, dataset="A", pad_to=4, shard=4)
    return root


@pytest.fixture
def store(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "c.zarr")
    return tmp_path / "c.zarr"


def seen(root: Path) -> list:
    """Everything that a reader sees."""
    corpus = eegprep.Corpus.open(root)
    columns = [corpus.column(name).tolist() for name in ("recording", "start", "label")]
    record = json.dumps([corpus.record(0), corpus.record(len(corpus) - 1)])
    root_says = {key: value for key, value in corpus.attributes.items() if key not in ("commit", "metadata_sha256")}
    return [
        corpus.read(np.arange(len(corpus))).tobytes(),
        columns,
        corpus.labels.tolist(),
        corpus.subjects.to_csv(),
        record,
        root_says,
    ]


def node(folder: Path) -> dict:
    return json.loads((folder / "zarr.json").read_bytes())


def put(folder: Path, content: dict) -> None:
    (folder / "zarr.json").write_text(json.dumps(content))


def without_digest(root: Path, content: dict) -> None:
    """A root as version 1 has it, so that nothing but the checks of names and shapes stands in the way."""
    attributes = {key: value for key, value in content["attributes"].items() if key not in ("commit", "metadata_sha256")}
    put(root, {**content, "attributes": {**attributes, "version": 1}})


# -------------------------------------------------------------------------------------------------------------- digests


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_bit_of_any_file_is_believed(made, store, seed):
    """An error, or the same content: never another one. Root, groups, arrays, columns, checksums and shards alike."""
    draw, before = random.Random(seed), seen(made)
    files = sorted(path for path in store.rglob("*") if path.is_file())
    for path in draw.sample(files, 12) + [store / "zarr.json"] * 6:
        content = bytearray(path.read_bytes())
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        content[place] ^= 1 << bit
        kept = path.read_bytes()
        path.write_bytes(content)
        with contextlib.suppress(ToolkitError):
            assert seen(store) == before, f"{path.relative_to(store)} byte {place} bit {bit}"
        path.write_bytes(kept)


@pytest.mark.parametrize(
    "values",
    [
        {"channels": 64, "samples": 1024}, {"channels": 10**9}, {"channels": -4}, {"samples": "x"}, {"version": "1"}, {"version": 0},
        {"recipe": {}}, {"people": {"one": ["a/b"]}}, {"fingerprint": "0" * 64}, {"labels": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_root_that_was_changed_is_refused(store, values):
    """By `open` and by `verify`, also where the windows would still be read."""
    content = node(store)
    content["attributes"].update(values)
    put(store, content)

    for use in (eegprep.Corpus.open, verify):
        with pytest.raises(StoreError, match=r"altered after it was written|version"):
            use(store)


@pytest.mark.parametrize(
    "values", [{"channels": 64, "samples": 2}, {"channels": 10**9}, {"channels": 0}, {"samples": True}], ids=str
)
def test_a_version_1_root_of_another_shape_is_refused(store, values):
    """Without a digest the shape is held against that of the arrays."""
    content = node(store)
    content["attributes"].update(values)
    without_digest(store, content)

    with pytest.raises(StoreError, match=r"channels|samples|windows of|the store says"):
        eegprep.Corpus.open(store)


def test_a_version_1_corpus_is_read_and_becomes_version_2_when_something_is_added(store):
    """Old stores stay readable; nobody has to build them again."""
    before = seen(store)
    shutil.rmtree(store / "A/1/crc32c")
    group = node(store / "A/1")
    group["attributes"]["commit"]["files"] = {
        name: entry for name, entry in group["attributes"]["commit"]["files"].items() if not name.startswith("crc32c")
    }
    put(store / "A/1", group)
    content = node(store)
    content["consolidated_metadata"]["metadata"]["A/1"] = group
    del content["consolidated_metadata"]["metadata"]["A/1/crc32c"]
    without_digest(store, content)

    assert seen(store)[:5] == before[:5] and verify(store).problems == ()

    eegprep.from_arrays(store, [{"subject": "3", "windows": windows(2, 2)}], sfreq=100.0, dataset="A", pad_to=4, shard=4)
    assert node(store)["attributes"]["version"] == 2 and verify(store).problems == ()
    assert seen(store)[0][: len(before[0])] == before[0]


# ---------------------------------------------------------------------------------------------------------------- places


def exchange(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def test_shards_of_equal_size_in_each_others_place_are_noticed_without_a_full_hash(tmp_path):
    """Both are whole; only the record of each window's checksum tells."""
    flat = np.repeat(np.float32([1.0, 2.0]), 4)[:, None, None] * np.ones((8, 4, 32), np.float32)
    eegprep.from_arrays(tmp_path / "c", flat, sfreq=100.0, pad_to=4, shard=4)
    one, two = sorted((tmp_path / "c").glob("*/*/windows/c/*/0/0"))
    assert one.stat().st_size == two.stat().st_size
    exchange(one, two)

    with pytest.raises(StoreError, match="is another's"):
        eegprep.Corpus.open(tmp_path / "c").read(np.arange(8))


def test_windows_exchanged_inside_a_shard_are_noticed(store):
    """The index is consistent in itself, as after a wrong copy."""
    shard = store / "A/1/windows/c/0/0/0"
    raw = shard.read_bytes()
    index = np.frombuffer(raw[-68:-4], "<u8").reshape(4, 2)[[1, 0, 2, 3]].tobytes()
    from eegprep.store.format import with_crc32c

    shard.write_bytes(raw[:-68] + with_crc32c(index))

    with pytest.raises(StoreError, match="is another's"):
        eegprep.Corpus.open(store).read([0])


def test_columns_exchanged_between_arrays_are_noticed(store):
    """`recording` and `label` have one type and size."""
    exchange(store / "A/1/recording/c/0", store / "A/1/label/c/0")

    with pytest.raises(StoreError, match="label/c/0: is damaged"):
        _ = eegprep.Corpus.open(store).labels


def test_a_subject_replaced_by_another_whole_one_is_noticed_by_open_and_verify(store):
    """Its own record fits; the root's does not."""
    shutil.rmtree(store / "A/1")
    shutil.copytree(store / "A/2", store / "A/1")

    with pytest.raises(StoreError, match="not what the store was finished with"):
        eegprep.Corpus.open(store)
    assert [(problem.group, problem.code) for problem in verify(store).problems] == [("A/1", "altered")]


# ----------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../x", "a\\b", "a//b", "./a", "", "a\0", "a/.hidden", "__x", "a\nb"])
def test_paths_of_a_store_that_lead_anywhere_else_are_refused(path):
    """Whatever the operating system would make of them."""
    with pytest.raises(StoreError, match="not inside it"):
        check_relative(path, "store")


@pytest.mark.parametrize("key", ["../victim", "a", "a/b/c", "..\\x/y", "./..", "/a", "a/", "a/.b"])
def test_keys_of_groups_are_a_data_set_and_a_subject(key):
    """And both can be names."""
    with pytest.raises(StoreError):
        check_key(key, "store")


@pytest.mark.parametrize("key", ["../victim", "a/../../victim", "..\\victim/x"])
def test_merge_and_export_touch_nothing_when_a_key_climbs_out(store, tmp_path, key):
    """The folder beside the output was replaced once."""
    (tmp_path / "out/victim").mkdir(parents=True)
    (tmp_path / "out/victim/thesis.txt").write_text("mine")
    content = node(store)
    metadata = content["consolidated_metadata"]["metadata"]
    content["consolidated_metadata"]["metadata"] = {name.replace("A/1", key): entry for name, entry in metadata.items()}
    without_digest(store, content)

    for use in (lambda: merge([store], tmp_path / "out/m.zarr"), lambda: export(store, tmp_path / "out/npy", "npy")):
        with pytest.raises(StoreError):
            use()
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["victim", "thesis.txt"]


@pytest.mark.parametrize("target", ["../../../victim.txt", "../.planted", "{folder}/victim.txt"])
def test_merge_refuses_a_record_that_names_a_file_outside(store, tmp_path, target):
    """Before it reads or writes the first file."""
    target = target.format(folder=tmp_path)
    group = node(store / "A/1")
    group["attributes"]["commit"]["files"][target] = {"bytes": 4, "sha256": "0" * 64}
    put(store / "A/1", group)
    content = node(store)
    content.pop("consolidated_metadata")
    without_digest(store, content)

    with pytest.raises(StoreError, match="not inside it"):
        merge([store], tmp_path / "out/m.zarr")
    assert not (tmp_path / "out").exists()
    assert verify(store).problems[0].group == "A/1"


def link(path: Path) -> None:
    path.rename(path.parents[4] / "outside")
    path.symlink_to(path.parents[4] / "outside")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unix_socket(path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


@pytest.mark.parametrize("place", ["A/1/label/c/0", "A/1/windows/c/0/0/0", "A/1/zarr.json"])
@pytest.mark.parametrize("special", [link, pipe, device, folder, unix_socket], ids=lambda special: special.__name__)
def test_only_regular_files_inside_a_store_are_opened(store, special, place):
    """A link is not followed, a pipe is not waited for, a device is not read."""
    path = store / place
    if (special is link and place.count("/") == 2) or special is link:
        path.rename(store.parent / "outside")
        path.symlink_to(store.parent / "outside")
    else:
        special(path)

    assert {problem.group for problem in verify(store).problems} == {"A/1"}
    with pytest.raises(StoreError):
        seen(store)


def test_a_repair_writes_through_no_link(tmp_path):
    """A data set's folder that is a link leads to somebody's files."""
    eegprep.from_arrays(tmp_path / "c", windows(2), sfreq=100.0, dataset="A", pad_to=4)
    (tmp_path / "c/A").rename(tmp_path / "elsewhere")
    (tmp_path / "c/A").symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in (tmp_path / "elsewhere").rglob("*"))

    with pytest.raises(StoreError, match="is a link"):
        eegprep.from_arrays(tmp_path / "c", windows(2, 5), sfreq=100.0, dataset="A", pad_to=4)
    assert sorted(path.name for path in (tmp_path / "elsewhere").rglob("*")) == before


def test_the_store_itself_may_be_reached_through_a_link(store, tmp_path):
    """A person's own link to a store is not the store's."""
    (tmp_path / "shortcut").symlink_to(store)

    assert len(eegprep.Corpus.open(tmp_path / "shortcut").read([0, 13])) == 2
    assert inside(tmp_path / "shortcut", "A/1/zarr.json").exists()


def test_file_takes_nothing_from_outside(store, tmp_path):
    """`corpus.file` is given names that came out of a store."""
    (tmp_path / "secret").write_text("x")

    with pytest.raises(StoreError, match="not inside it"):
        eegprep.Corpus.open(store).file("../secret")


# ----------------------------------------------------------------------------------------------------------- what is left


@pytest.mark.parametrize("content", [b"", b'{"attributes":{"channels":4,"commit":{"fil'])
def test_the_same_command_writes_a_root_again_that_was_emptied_or_cut(made, store, content):
    """Nothing but the root was lost; the groups are whole."""
    (store / "zarr.json").write_bytes(content)
    with pytest.raises(StoreError):
        eegprep.Corpus.open(store)

    people = [{"subject": "1", "windows": windows(8), "labels": ["x", "y"] * 4}, {"subject": "2", "windows": windows(6, 1)}]
    eegprep.from_arrays(store, people, sfreq=100.0, dataset="A", pad_to=4, shard=4)

    assert (store / "zarr.json").read_bytes() == (made / "zarr.json").read_bytes()


def test_deep_metadata_is_a_message(store):
    """Two million objects in each other."""
    (store / "zarr.json").write_text('{"zarr_format":3,"attributes":' + '{"a":' * 200_000 + "1" + "}" * 200_001)

    with pytest.raises(StoreError, match="not JSON"):
        eegprep.Corpus.open(store)


def test_the_digest_is_of_the_bytes_with_zeros_in_its_place():
    """So that anybody can check it without this package."""
    import hashlib

    content = commit.sealed(commit.group_node({"format": "eegprep-corpus", "version": 2}))
    recorded = json.loads(content)["attributes"]["metadata_sha256"]

    assert hashlib.sha256(content.replace(recorded.encode(), b"0" * 64)).hexdigest() == recorded
    assert commit.parse_root(content, "x")["attributes"]["version"] == 2
