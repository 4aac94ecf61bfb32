"""Weights that a run does not train: written once beside its checkpoints, which hold the trained ones alone.

    RUN/checkpoints/frozen.safetensors          the frozen parameters
    RUN/checkpoints/step-00001000/frozen.json   their digest: which frozen weights this checkpoint belongs to

A checkpoint is read together with them, so that a run that has not finished is as good a model as one that has. Adapters
(`X.lora_A.default.weight` and `X.lora_B.default.weight` beside `X.base_layer.weight`, as peft names them) are then added to the weights
that they adapt, as `alignment.tuning.merge_lora` does for a finished run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dreamdiff.untrusted.tensors import check_tensors, load_tensors, save_tensors, tensor_shapes
from eegprep import atomic
from eegprep.errors import CheckpointError
from eegprep.sealed import read_object

FROZEN_FILE = "frozen.safetensors"

RECORD_FILE = "frozen.json"

_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.", ".lora_B."


def keep_frozen(checkpoints: Path, frozen: Mapping[str, Tensor]) -> str:
    """Write the frozen weights of a run, or compare them with those that are there; their digest.

    Args:
        checkpoints: folder of the run's checkpoints.

    Raises:
        CheckpointError: other weights are there, or they are damaged.
    """
    file = checkpoints / FROZEN_FILE
    if not file.is_file():
        return save_tensors(file, frozen)
    kept = load_tensors(file)
    different = sorted(
        name
        for name in kept.keys() | frozen.keys()
        if name not in kept or name not in frozen or not torch.equal(kept[name], frozen[name].detach().cpu())
    )
    if different:
        raise CheckpointError(
            f"{file}: {len(different)} of {len(kept)} frozen weights are not those that the run began with ({different[0]})",
            "give the encoder that the run was started with, or choose a new folder for --out",
        )
    return str(check_tensors(file))


def write_record(checkpoint: Path, digest: str) -> None:
    """Say in a checkpoint which frozen weights it belongs to."""
    atomic.write_json(checkpoint / RECORD_FILE, {"file": FROZEN_FILE, "sha256": digest})


def frozen_file(folder: Path) -> Path | None:
    """The frozen weights that a checkpoint belongs to, after comparing their digest; None where its weights are whole.

    Raises:
        CheckpointError: they are missing, damaged or others.
    """
    record = folder / RECORD_FILE
    if not record.is_file():
        return None
    content = read_object(record) or {}
    file = folder.parent / FROZEN_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{file}: missing; {folder.name} holds the trained weights alone",
            "copy the whole folder of the run, or run the command that trains it again",
        )
    digest = check_tensors(file)
    if digest is None or digest != content.get("sha256"):
        raise CheckpointError(
            f"{file}: digest {str(digest)[:12]}, {folder.name} belongs to {str(content.get('sha256'))[:12]}",
            "copy the whole folder of the run again",
        )
    return file


def whole_shapes(folder: Path, weights: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a model folder, frozen weights included and adapters merged, from headers alone."""
    shapes, frozen = tensor_shapes(folder / weights), frozen_file(folder)
    if frozen is None:
        return shapes
    both = tensor_shapes(frozen) | shapes
    return {name.replace(_BASE, "."): shape for name, shape in both.items() if _DOWN not in name and _UP not in name}


def whole_tensors(folder: Path, weights: str) -> dict[str, Tensor]:
    """Name -> tensor of a model folder, frozen weights included and adapters merged."""
    trained, frozen = load_tensors(folder / weights), frozen_file(folder)
    if frozen is None:
        return trained
    both = load_tensors(frozen) | trained
    state = {name.replace(_BASE, "."): tensor for name, tensor in both.items() if _DOWN not in name and _UP not in name}
    for name in (name for name in both if _DOWN in name):
        adapted = name.partition(_DOWN)[0] + ".weight"
        # the factor alpha / r of the adapters is 1 (`alignment.tuning`)
        state[adapted] = state[adapted] + both[name.replace(_DOWN, _UP)] @ both[name]
    return state
