"""Files of unknown origin: read right, or refused, never executed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import tarfile
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamdiff.untrusted import checkpoints as safe_pickle
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

    found = safe_pickle.load(tmp_path / "x.pth")

    for name, tensor in model.items():
        assert found["model"][name].dtype == tensor.dtype
        torch.testing.assert_close(found["model"][name], tensor.detach(), atol=0, rtol=0)
    assert isinstance(found["config"], types.SimpleNamespace)
    assert (found["config"].lr, found["config"].patch_size, found["config"].betas) == (2.5e-4, 4, (0.9, 0.95))
    np.testing.assert_array_equal(found["config"].roi, np.arange(3.0))
    torch.testing.assert_close(found["state"], content["state"])
    assert found[5] == content[5]


def test_the_oldest_format_a_tar_is_read(tmp_path) -> None:
    """torch before 0.1.10, when the first EEG data sets were published; no torch writes it any more, so it is put together here."""
    numbers = torch.arange(6.0)
    storages, tensors, content = io.BytesIO(), io.BytesIO(), io.BytesIO()

    class Named(pickle.Pickler):
        def persistent_id(self, value):
            return "7" if isinstance(value, torch.Tensor) else None

    pickle.dump(1, storages, protocol=2)
    pickle.dump((3, "cpu", torch.FloatStorage), storages, protocol=2)
    storages.write(struct.pack("<q", 6) + numbers.numpy().tobytes())
    pickle.dump([], storages, protocol=2)
    pickle.dump(1, tensors, protocol=2)
    pickle.dump((7, 3, torch.FloatTensor), tensors, protocol=2)
    tensors.write(struct.pack("<i4x", 2) + struct.pack("<5q", 2, 2, 3, 1, 1))  # size (2, 2), stride (3, 1), offset 1
    Named(content, protocol=2).dump({"eeg": torch.zeros(1)})
    with tarfile.open(tmp_path / "x.pth", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, part in (("sys_info", io.BytesIO()), ("pickle", content), ("storages", storages), ("tensors", tensors)):
            info = tarfile.TarInfo(name)
            info.size = len(part.getvalue())
            archive.addfile(info, io.BytesIO(part.getvalue()))

    found = safe_pickle.load(tmp_path / "x.pth")

    assert found["eeg"].tolist() == [[1.0, 2.0], [4.0, 5.0]]


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

    with pytest.raises(CheckpointError, match=r"asks for (posix|nt).system, which is not on the list"):
        safe_pickle.load(tmp_path / "x.pth")

    assert not target.exists()


@pytest.mark.parametrize("name", ["builtins\neval", "builtins\ngetattr", "torch\nload", "config\nA.B", "copyreg\nadd_extension"])
def test_names_that_help_an_attacker_are_not_on_the_list(tmp_path, name) -> None:
    """Also a dotted path below an allowed module, which would reach what that module imports."""
    legacy = b"".join(pickle.dumps(v, protocol=2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    module, attribute = name.split("\n")
    (tmp_path / "x.pth").write_bytes(legacy + b"\x80\x04" + _text(module) + _text(attribute) + b"\x93.")

    with pytest.raises(CheckpointError, match=f"asks for {module}.{attribute}"):
        safe_pickle.load(tmp_path / "x.pth")


def _text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


def test_a_small_file_that_stands_for_an_enormous_tree_is_refused(tmp_path) -> None:
    """Forty lists, each holding the one before twice: 2^40 values in 500 bytes."""
    bomb: list = []
    for _ in range(40):
        bomb = [bomb, bomb]
    torch.save(bomb, tmp_path / "x.pth")

    with pytest.raises(CheckpointError, match="more than 2000000 values"):
        safe_pickle.load(tmp_path / "x.pth")


def test_memory_is_bounded(tmp_path) -> None:
    """A pickle may ask for any amount; the reading process gets what it was given."""
    torch.save({"text": "x" * 300_000_000}, tmp_path / "x.pth")

    with pytest.raises(CheckpointError, match="needs more than 256 MiB"):
        safe_pickle.load(tmp_path / "x.pth", memory_bytes=256 << 20)


def test_damaged_files_are_named(tmp_path) -> None:
    """Missing, not a checkpoint, cut short."""
    file = tmp_path / "x.pth"
    with pytest.raises(CheckpointError, match="no such file"):
        safe_pickle.load(file)
    file.write_bytes(b"hello world" * 99)
    with pytest.raises(CheckpointError, match="not a readable PyTorch file"):
        safe_pickle.load(file)
    torch.save({"a": torch.ones(1000)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cut short: \d+ bytes are announced"):
        safe_pickle.load(file)
    torch.save({"a": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="not a readable PyTorch file"):
        safe_pickle.load(file)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path) -> None:
    """Otherwise a file could make us read memory that isn't its own."""
    file = tmp_path / "x.pth"
    torch.save({"a": torch.ones(1000)}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    size = b"M\xe8\x03\x85"  # the number 1000 and the end of a one-item tuple: the size
    assert content.count(size) == 1
    file.write_bytes(content.replace(size, b"M\xe9\x03\x85"))

    with pytest.raises(CheckpointError, match="reaches to element 1000 of a storage of 1000"):
        safe_pickle.load(file)


def test_tensors_share_the_files_pages_and_can_be_changed_without_changing_it(tmp_path) -> None:
    """A 5 GiB checkpoint needs no 5 GiB of memory, and is never written to."""
    file = tmp_path / "x.pth"
    torch.save({"a": torch.ones(1000)}, file)
    before = file.read_bytes()

    found = safe_pickle.load(file)["a"]
    found.add_(1)

    assert file.read_bytes() == before
    assert safe_pickle.load(file)["a"].sum() == 1000
