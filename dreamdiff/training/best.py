"""The weights that did best on validation data, kept in `RUN/best/model.safetensors` with their score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from dreamdiff.untrusted.tensors import check_tensors, load_tensors, read_metadata, save_tensors
from eegprep.errors import CheckpointError


def best_file(run_dir: Path) -> Path:
    """Where the best weights of a run are."""
    return run_dir / "best" / "model.safetensors"


def best_score(run_dir: Path) -> float | None:
    """Score of the weights in `best/` (lower is better), or None."""
    file = best_file(run_dir)
    if not file.is_file():
        return None
    check_tensors(file)
    return float(read_metadata(file).get("score", "inf"))


def keep_if_best(run_dir: Path, module: nn.Module, score: float, facts: Mapping[str, str]) -> None:
    """Store the trained parameters when no lower score has been stored; `facts` go into the file's metadata."""
    best = best_score(run_dir)
    # strictly lower: of two equal scores the earlier weights stay, also when a continued run comes by again
    if best is None or score < best:
        state = {name: p for name, p in module.named_parameters() if p.requires_grad}
        save_tensors(best_file(run_dir), state, {"score": repr(score), **facts})


def load_shared(module: nn.Module, file: Path) -> None:
    """Put the tensors of a file into a module that has all of them and maybe more.

    Raises:
        CheckpointError: it lacks some, or they have other shapes.
    """
    content, state = load_tensors(file), module.state_dict()
    wrong = [name for name, tensor in content.items() if name not in state or state[name].shape != tensor.shape]
    if wrong:
        raise CheckpointError(
            f"{file}: {len(wrong)} of {len(content)} tensors do not fit the model, the first is {wrong[0]}",
            "use the run that the file belongs to",
        )
    with torch.no_grad():
        for name, tensor in content.items():
            state[name].copy_(tensor)


def load_trained(module: nn.Module, file: Path) -> None:
    """Put trained parameters back; all of them must be there."""
    content = load_tensors(file)
    expected = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if set(content) != set(expected):
        raise CheckpointError(
            f"{file}: holds {len(content)} tensors, {len(expected)} are trained", "remove the folder best/ and run again"
        )
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(content[name])
