"""Checkpoint folders: complete or absent, verified, never pickled."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn

from dreamdiff.training import checkpoint
from eegprep.errors import CheckpointError
from eegprep.settings import differences


def write(run, step: int, keep: int = 9, value: float = 1.0):
    return checkpoint.save(run, step, {"model": {"w": torch.full((3,), value)}}, {"epoch": step}, keep=keep)


def test_only_the_last_k_are_kept(tmp_path) -> None:
    """Five written, two kept."""
    for step in (1, 2, 30, 400, 5000):
        write(tmp_path, step, keep=2)
    assert [folder.name for folder in checkpoint.folders(tmp_path)] == ["step-00000400", "step-00005000"]


@pytest.mark.parametrize("harm", ["bit", "missing", "short", "state"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_named(tmp_path, harm) -> None:
    """One flipped bit in a weight is enough."""
    write(tmp_path, 1)
    bad = write(tmp_path, 2)
    file = bad / ("state.json" if harm == "state" else "model.safetensors")
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes({"bit": content, "short": content[:-5], "state": b"{"}[harm])

    folder, problems = checkpoint.latest(tmp_path)

    assert folder.name == "step-00000001"
    assert len(problems) == 1 and problems[0].startswith("step-00000002/")


@pytest.mark.parametrize(("old", "new"), [('"epoch": 2', '"epoch": 3'), ('"step": 2', '"step": 7'), ('"sha256":', '"sha257":')])
def test_a_changed_position_is_not_believed(tmp_path, old, new) -> None:
    """One flipped bit in state.json would train on from another place, in silence."""
    write(tmp_path, 1)
    file = write(tmp_path, 2) / "state.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))

    folder, problems = checkpoint.latest(tmp_path)

    assert folder.name == "step-00000001" and problems[0].startswith("step-00000002/state.json")


def test_a_checkpoint_of_the_first_version_is_read(tmp_path) -> None:
    """Runs of 0.1.0 resume; their state.json has no digest of itself."""
    file = write(tmp_path, 2) / "state.json"
    state = json.loads(file.read_text())
    del state["sha256"]
    file.write_text(json.dumps({**state, "version": 1}))

    assert checkpoint.latest(tmp_path) is not None and checkpoint.read_state(file.parent)["epoch"] == 2


def test_when_all_are_damaged_it_is_an_error(tmp_path) -> None:
    """Starting from nothing in silence would waste weeks."""
    (write(tmp_path, 1) / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of 1 checkpoints can be used: step-00000001/model.safetensors: not what"):
        checkpoint.latest(tmp_path)


def test_a_half_written_checkpoint_is_not_seen_and_is_cleaned_up(tmp_path) -> None:
    """A kill while writing leaves a hidden folder."""
    good = write(tmp_path, 1)
    shutil.copytree(good, good.with_name(".step-00000002.partial"))

    folder, problems = checkpoint.latest(tmp_path)

    assert (folder.name, problems) == ("step-00000001", [])
    assert [path.name for path in good.parent.iterdir()] == ["step-00000001"]
    assert checkpoint.latest(tmp_path / "nothing") is None


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path) -> None:
    """safetensors and JSON only, so that sharing one is safe."""
    names = {path.suffix for path in write(tmp_path, 1).iterdir()}
    assert names == {".safetensors", ".json"}


def test_an_optimiser_comes_back_to_the_bit(tmp_path) -> None:
    """Momenta and step counts, by parameter name."""
    torch.manual_seed(0)
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.1, fused=True) for m in (first, second)]
    for _ in range(3):
        first(torch.randn(4, 3)).square().sum().backward()
        optimizers[0].step()
    folder = checkpoint.save(
        tmp_path, 3, {"model": first.state_dict(), "optimizer": checkpoint.optimizer_tensors(optimizers[0], first)}, {}, keep=1
    )

    checkpoint.load_trained_state(second, checkpoint.read_tensors(folder, "model"), "here")
    checkpoint.load_optimizer_tensors(optimizers[1], second, checkpoint.read_tensors(folder, "optimizer"))
    for module, optimizer in zip((first, second), optimizers, strict=True):
        module.zero_grad()
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()

    torch.testing.assert_close(first.weight, second.weight, atol=0, rtol=0)


def test_weights_of_another_model_are_refused(tmp_path) -> None:
    """With the first tensor that does not fit."""
    folder = checkpoint.save(tmp_path, 1, {"model": nn.Linear(3, 2).state_dict()}, {}, keep=1)
    found = checkpoint.read_tensors(folder, "model")
    with pytest.raises(CheckpointError, match=r"1 of 2 tensors do not fit the model \(weight\)"):
        checkpoint.load_trained_state(nn.Linear(4, 2), found, folder.name)
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"model.safetensors: damaged"):
        checkpoint.read_tensors(folder, "model")


def test_differences_are_listed_by_key() -> None:
    """Nested settings, added and removed ones."""
    old, new = {"a": {"b": 1, "c": [1, 2]}, "gone": 3}, {"a": {"b": 2, "c": [1, 2]}, "new": 4}
    assert differences(old, new) == ["a.b: 1 there, 2 here", "gone: 3 there, not given here", "new: not given there, 4 here"]


def test_a_run_file_that_is_not_json_is_refused(tmp_path) -> None:
    """It can't be compared."""
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run.json: not JSON"):
        checkpoint.same_run(tmp_path, {})
    (tmp_path / "run.json").write_text(json.dumps({"a": 1}))
    assert checkpoint.same_run(tmp_path, {"a": 1})
