"""Files of unknown origin: read right, or refused, never executed."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamdiff.untrusted import checkpoints
from dreamdiff.untrusted.machine import Foreign
from eegprep.errors import CheckpointError


@pytest.fixture
def authors_config(monkeypatch):
    """A class `config.Config_MBM_EEG`, as the authors' checkpoints hold one, gone again when the file is read."""
    module = types.ModuleType("config")
    cls = type("Config_MBM_EEG", (), {"__module__": "config"})
    module.Config_MBM_EEG = cls
    monkeypatch.setitem(sys.modules, "config", module)
    return cls


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_views_and_configuration_come_back_without_their_class(tmp_path, authors_config, monkeypatch, zipped) -> None:
    """Both of torch's formats since 0.1.10; the class need not be importable, as for every user but the authors."""
    base = torch.arange(24.0).reshape(4, 6)
    config = authors_config()
    config.lr, config.patch_size, config.roi, config.betas = 2.5e-4, np.int64(4), np.arange(3.0), (0.9, 0.95)
    model = OrderedDict(
        whole=base, turned=base.t(), part=base[1:, 2:5], parameter=torch.nn.Parameter(torch.ones(2)), empty=torch.empty(0, 3),
        half=torch.ones(3).half(), brain=torch.ones(3).bfloat16(), flags=torch.tensor([True, False]), scalar=torch.tensor(3),
    )  # fmt: skip
    content = {"model": model, "config": config, "state": torch.get_rng_state(), 5: [1, (2.5, None), {"a"}, b"raw"]}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, "config")

    result = checkpoints.load(tmp_path / "x.pth")

    for name, tensor in model.items():
        assert result["model"][name].dtype == tensor.dtype
        torch.testing.assert_close(result["model"][name], tensor.detach(), atol=0, rtol=0)
    assert isinstance(result["config"], Foreign) and result["config"].type_name == "config.Config_MBM_EEG"
    kept = result["config"].attributes
    assert (kept["lr"], kept["patch_size"], kept["betas"]) == (2.5e-4, 4, (0.9, 0.95))
    np.testing.assert_array_equal(kept["roi"], np.arange(3.0))
    torch.testing.assert_close(result["state"], content["state"])
    assert result[5] == content[5]


class Attack:
    """Unpickling this runs a shell command."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_wants_to_run_a_command_is_refused_and_nothing_happens(tmp_path, zipped) -> None:
    """The reason why this module exists."""
    target = tmp_path / "attacked"
    torch.save({"model": {}, "extra": Attack(target)}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)

    with pytest.raises(CheckpointError, match=r"asks for (posix|nt).system, which is not on the list of harmless names"):
        checkpoints.load(tmp_path / "x.pth")

    assert not target.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins\neval", "builtins\ngetattr", "torch\nload", "torch._utils\n_rebuild_tensor.__globals__", "copyreg\nadd_extension"],
)
def test_names_that_help_an_attacker_are_not_on_the_list(tmp_path, name) -> None:
    """Also a dotted path below an allowed module, which would reach what that module imports."""
    legacy = b"".join(pickle.dumps(v, protocol=2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    module, attribute = name.split("\n")
    (tmp_path / "x.pth").write_bytes(legacy + b"\x80\x04" + _text(module) + _text(attribute) + b"\x93.")

    with pytest.raises(CheckpointError, match=f"asks for {module}.{attribute}"):
        checkpoints.load(tmp_path / "x.pth")


def _text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


def test_a_small_file_that_stands_for_an_enormous_tree_is_refused(tmp_path) -> None:
    """Forty lists, each holding the one before twice: 2^40 values in 500 bytes."""
    bomb: list = []
    for _ in range(40):
        bomb = [bomb, bomb]
    torch.save(bomb, tmp_path / "x.pth")

    with pytest.raises(CheckpointError, match="more than 5,000,000 values"):
        checkpoints.load(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02" + b"N0" * 3_000_000 + b"N.", "more than 5,000,000 instructions"),
        (b"\x80\x02\x8b" + struct.pack("<i", 3_000_000) + b"\x7f" * 3_000_000 + b".", "an integer of 3,000,000 bytes"),
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "nested more than 64 deep"),
        (b"\x80\x02})" + b"2" + b"K\x01s.", "builds more than plain data"),
        # a tuple of the tuple before, twice, sixty times: its hash takes 2^60 steps
        (b"\x80\x02})q\x00" + b"".join(b"h%ch%c\x86q%c0" % (k, k, k + 1) for k in range(60)) + b"h\x3cK\x01s.", "tuples as keys|damaged"),
    ],
    ids=["instructions", "integer", "depth", "DUP", "hash"],
)  # fmt: skip
def test_work_and_memory_are_bounded(tmp_path, pickled, message) -> None:
    """In this process: there is no other that could be stopped."""
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")

    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(tmp_path / "x.pth")


def test_what_a_file_refers_to_many_times_is_held_once(tmp_path) -> None:
    """Text of 3 MB, 300 times: 900 MB if it were written out."""
    torch.save(["x" * 3_000_000] * 300, tmp_path / "x.pth")

    result = checkpoints.load(tmp_path / "x.pth")

    assert len({id(text) for text in result}) == 1 and len(result) == 300


def test_a_tensor_that_repeats_a_few_numbers_without_end_is_refused(tmp_path) -> None:
    """A stride of 0 makes terabytes of 4 bytes as soon as somebody copies them."""
    torch.save({"a": torch.zeros(1).expand(1_000_000, 1_000_000)}, tmp_path / "x.pth")

    with pytest.raises(CheckpointError, match="its tensors hold 4,000,000,000,000 bytes"):
        checkpoints.load(tmp_path / "x.pth")


def test_the_checksums_of_the_zip_are_compared(tmp_path) -> None:
    """One flipped bit in the numbers, in the structure or in a name."""
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    before = checkpoints.load(tmp_path / "x.pth")["a"]
    silent = []
    for position in np.random.default_rng(0).integers(0, len(whole), 150):
        harmed = bytearray(whole)
        harmed[position] ^= 1 << int(position % 8)
        (tmp_path / "x.pth").write_bytes(harmed)
        try:
            result = checkpoints.load(tmp_path / "x.pth")
        except CheckpointError:
            continue
        if result.keys() != {"a"} or not torch.equal(result["a"], before):
            silent.append(int(position))
    assert not silent


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438167534\n",
            "a Git LFS pointer of a file of 3.4 GB",
        ),
        (b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
        (b'{"error":"Repository not found"}', "JSON text"),
        (b"\x1f\x8b\x08" + b"x" * 50, "a compressed archive"),
        (bytes(1000), "nothing but zeros"),
    ],
)
def test_what_a_failed_download_leaves_is_called_that(tmp_path, content, message) -> None:
    """And not "invalid load key"."""
    (tmp_path / "x.pth").write_bytes(content)

    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(tmp_path / "x.pth")


def test_a_torchscript_archive_is_named(tmp_path) -> None:
    """OpenAI's CLIP files are such programs."""
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "x.pt"))

    with pytest.raises(CheckpointError, match="TorchScript"):
        checkpoints.load(tmp_path / "x.pt")


def test_damaged_files_are_named(tmp_path) -> None:
    """Missing, not a checkpoint, cut short."""
    file = tmp_path / "x.pth"
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoints.load(file)
    file.write_bytes(b"hello world" * 99)
    with pytest.raises(CheckpointError, match=r"damaged, or not a PyTorch file|refused"):
        checkpoints.load(file)
    torch.save({"a": torch.ones(1000)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cut short: \d+ bytes are announced"):
        checkpoints.load(file)
    torch.save({"a": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=r"damaged, or not a PyTorch file|refused"):
        checkpoints.load(file)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path) -> None:
    """Otherwise a file could make us read memory that isn't its own."""
    file = tmp_path / "x.pth"
    torch.save({"a": torch.ones(1000)}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    size = b"M\xe8\x03\x85"  # the number 1000 and the end of a one-item tuple: the size
    assert content.count(size) == 1
    file.write_bytes(content.replace(size, b"M\xe9\x03\x85"))

    with pytest.raises(CheckpointError, match="reaches to element 1000 of a storage of 1000"):
        checkpoints.load(file)


def test_tensors_share_the_files_pages_and_can_be_changed_without_changing_it(tmp_path) -> None:
    """A 5 GiB checkpoint needs no 5 GiB of memory, and is never written to."""
    file = tmp_path / "x.pth"
    torch.save({"a": torch.ones(1000)}, file)
    before = file.read_bytes()

    result = checkpoints.load(file)["a"]
    result.add_(1)

    assert file.read_bytes() == before
    assert checkpoints.load(file)["a"].sum() == 1000


def test_module_names_of_python_2_hide_nothing(tmp_path) -> None:
    """`subprocess.call` is `commands.call` in protocol 2."""
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Runs(), 2))
        archive.writestr("archive/byteorder", "little")

    with pytest.raises(CheckpointError, match=r"asks for (commands|subprocess)\.call"):
        checkpoints.load(tmp_path / "x.pth")


class Runs:
    """Unpickling this starts a program."""

    def __reduce__(self):
        return subprocess.call, (["touch", "pwned"],)
