"""Pickled dictionaries in .npy files: the same values numpy gives, and nothing of them is ever executed."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dreamdiff.untrusted import arrays, values
from dreamdiff.untrusted.machine import Foreign
from eegprep.errors import CheckpointError

CONTENT = {
    "preprocessed_eeg_data": np.random.default_rng(0).standard_normal((30, 4, 7, 20)), "ch_names": ["Oz", "O1", "Öz"],
    "times": np.arange(20) / 100, "n": 3, "large": 2**70, "minus": -5, "pair": (1, "a"), "none": None, "yes": True,
    "scalar": np.float64(2.5), "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)), "text": np.array(["a", "bb"]),
    "big_endian": np.arange(3, dtype=">i4"), "nested": {"a": [1, [2, {"b": 0.5}]]}, "bytes": b"raw", "empty": np.zeros((0, 3)),
    "flags": np.array([True, False]), "half": np.float32([1.5, 2.5]),
}  # fmt: skip


def same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray | np.generic):
        # numpy turns other byte orders into the native one when it unpickles
        return bool(np.array_equal(a, b)) and np.asarray(a).dtype.newbyteorder("=") == np.asarray(b).dtype.newbyteorder("=")
    return a == b and type(a) is type(b)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_what_pickle_writes_is_read_back(tmp_path: Path, protocol: int):
    """`pickle.load` is the second implementation."""
    file = tmp_path / "x.npy"
    file.write_bytes(pickle.dumps(CONTENT, protocol=protocol))

    assert same(arrays.load(file), pickle.loads(file.read_bytes()))


def test_what_numpy_save_writes_is_read_back(tmp_path: Path):
    """An array of one object, as `numpy.save(file, dictionary)` makes it; and ordinary arrays."""
    np.save(tmp_path / "x.npy", CONTENT, allow_pickle=True)  # type: ignore[arg-type]
    np.save(tmp_path / "y.npy", np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "z.npy", np.array(["a", None, {"b": 1}], dtype=object), allow_pickle=True)

    assert same(arrays.load(tmp_path / "x.npy"), CONTENT)
    np.testing.assert_array_equal(arrays.load(tmp_path / "y.npy"), np.arange(6.0).reshape(2, 3))
    assert arrays.load(tmp_path / "z.npy") == ["a", None, {"b": 1}]


def test_large_arrays_stay_in_the_file(tmp_path: Path):
    """THINGS-EEG2 has 8 GB in one array."""
    np.save(tmp_path / "x.npy", CONTENT, allow_pickle=True)  # type: ignore[arg-type]
    data = arrays.load(tmp_path / "x.npy")["preprocessed_eeg_data"]

    assert not data.flags.owndata and not data.flags.writeable


class Calls:
    """An object whose pickle calls something."""

    def __init__(self, function, *arguments: object) -> None:
        self.what = (function, arguments)

    def __reduce__(self):
        return self.what


class Plain:
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Calls(os.system, "touch pwned"), r"asks for posix\.system|asks for nt\.system"),
        (Calls(eval, "1+1"), r"asks for builtins\.eval"),
        (Calls(np.load, "secret"), r"asks for numpy\.load"),
        (Calls(getattr, "a", "b"), r"asks for builtins\.getattr"),
    ],
)
@pytest.mark.parametrize("protocol", [3, 4])
def test_what_could_do_something_is_refused(tmp_path: Path, monkeypatch, value: object, message: str, protocol: int):
    """Wherever it is in the file; nothing happens."""
    monkeypatch.chdir(tmp_path)
    Path("x.npy").write_bytes(pickle.dumps({"a": [value]}, protocol=protocol))
    with pytest.raises(CheckpointError, match=message):
        arrays.load("x.npy")
    assert not Path("pwned").exists()


def test_objects_of_foreign_classes_become_inert_records(tmp_path: Path):
    """Their class is neither imported nor called; the numbers beside them are read."""
    plain = Plain()
    plain.rate = 250
    (tmp_path / "x.npy").write_bytes(pickle.dumps({"a": plain, "b": np.arange(3), "c": {1, 2}}, protocol=4))

    result = arrays.load(tmp_path / "x.npy")

    assert isinstance(result["a"], Foreign) and result["a"].attributes == {"rate": 250}
    assert result["b"].tolist() == [0, 1, 2] and result["c"] == {1, 2}


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_the_protocols_of_python_2_are_read(tmp_path: Path, protocol: int):
    """They hide bytes in calls of `_codecs.encode`."""
    (tmp_path / "x.npy").write_bytes(pickle.dumps(CONTENT, protocol=protocol))

    assert same(arrays.load(tmp_path / "x.npy"), pickle.loads((tmp_path / "x.npy").read_bytes()))


@pytest.mark.parametrize("cut", [0, 1, 7, 50, 5_000, -1, -9])
def test_a_truncated_file_is_an_error(tmp_path: Path, cut: int):
    """Downloads break off anywhere."""
    whole = pickle.dumps(CONTENT, protocol=4)
    (tmp_path / "x.npy").write_bytes(whole[:cut])
    with pytest.raises(CheckpointError, match=r"x\.npy: (damaged|refused|the file is empty)"):
        arrays.load(tmp_path / "x.npy")


def test_random_damage_never_gives_anything_but_a_value_or_our_error(tmp_path: Path):
    """400 files with flipped bytes."""
    whole = pickle.dumps({key: value for key, value in CONTENT.items() if key != "preprocessed_eeg_data"}, protocol=4)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        (tmp_path / "x.npy").write_bytes(content)
        try:
            arrays.load(tmp_path / "x.npy")
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_a_small_file_that_stands_for_an_enormous_value_is_refused(tmp_path: Path, monkeypatch):
    """Lists of lists of the same list: 2**40 values in 400 bytes; and a list that holds itself."""
    monkeypatch.setattr(values, "MAX_VALUES", 10_000)
    value: list = ["x"]
    for _ in range(40):
        value = [value, value]
    (tmp_path / "x.npy").write_bytes(pickle.dumps(value, protocol=4))
    with pytest.raises(CheckpointError, match="more than 10,000 values"):
        arrays.load(tmp_path / "x.npy")
    loop: list = []
    loop.append(loop)
    (tmp_path / "y.npy").write_bytes(pickle.dumps(loop, protocol=4))
    with pytest.raises(CheckpointError, match="holds itself"):
        arrays.load(tmp_path / "y.npy")


def test_lengths_beyond_the_file_do_not_take_memory(tmp_path: Path):
    """A claim of 2**60 bytes."""
    for code in (b"\x8e", b"\x8d"):
        (tmp_path / "x.npy").write_bytes(b"\x80\x04" + code + struct.pack("<Q", 2**60) + b"abc.")
        with pytest.raises(CheckpointError, match=r"ends too early|more than 256 MiB"):
            arrays.load(tmp_path / "x.npy")


def test_a_missing_file_is_an_error(tmp_path: Path):
    """With its name."""
    with pytest.raises(CheckpointError, match=r"gone\.npy does not exist"):
        arrays.load(tmp_path / "gone.npy")


def test_an_npz_file_of_arrays_is_read(tmp_path: Path):
    """Packed or not, as numpy reads it."""
    for number, write in enumerate((np.savez, np.savez_compressed)):
        write(tmp_path / f"{number}.npz", vectors=np.arange(6.0).reshape(2, 3), names=np.array(["a", "b"]))
        result = arrays.load_npz(tmp_path / f"{number}.npz")

        np.testing.assert_array_equal(result["vectors"], [[0, 1, 2], [3, 4, 5]])
        assert result["names"].tolist() == ["a", "b"]


def npz_with(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vectors.npy", content)
    return path


@pytest.mark.parametrize("what", ["one bit", "cut", "empty", "a .npy file", "objects", "a promise of terabytes", "no array"])
def test_an_npz_file_that_is_none_is_an_error_of_our_own(tmp_path: Path, what: str):
    """zipfile, zlib and numpy raise seven kinds of their own."""
    file = tmp_path / "x.npz"
    np.savez_compressed(file, vectors=np.random.default_rng(0).normal(size=(50, 3)))
    whole = file.read_bytes()
    if what == "one bit":
        file.write_bytes(whole[:300] + bytes([whole[300] ^ 8]) + whole[301:])
    elif what == "cut":
        file.write_bytes(whole[:-30])
    elif what == "empty":
        file.write_bytes(b"")
    elif what == "a .npy file":
        np.save(tmp_path / "x.npy", np.zeros(3))
        file = tmp_path / "x.npy"
    elif what == "objects":
        np.savez(file, vectors=np.array([{"a": 1}], dtype=object))
    elif what == "a promise of terabytes":
        head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (200000000000, 8), }".ljust(117) + b"\n"
        npz_with(file, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
    else:
        npz_with(file, b"hello")

    with pytest.raises(CheckpointError, match="not an npz file of plain arrays"):
        arrays.load_npz(file)
