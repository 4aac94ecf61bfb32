"""Writes and reads an encoder folder: config.json and safetensors."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor, nn

from eegprep import atomic
from eegprep.errors import CheckpointError

CONFIG_FILE = "config.json"

WEIGHTS_FILE = "model.safetensors"


def save_folder(folder: Path, content: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write model.safetensors, then config.json, each atomically."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    atomic.write_bytes(folder / WEIGHTS_FILE, safetensors_torch.save(weights, metadata={"format": "pt"}))
    atomic.write_json(folder / CONFIG_FILE, content)


def weights_folder(folder: Path) -> Path:
    """`folder` itself when it holds weights, else the newest checkpoint of the run in it."""
    if (folder / WEIGHTS_FILE).is_file():
        return folder
    checkpoints = sorted((folder / "checkpoints").glob("step-*/" + WEIGHTS_FILE))
    if checkpoints:
        return checkpoints[-1].parent
    raise CheckpointError(
        f"{folder}: there is no {WEIGHTS_FILE} in it, nor a checkpoint of a run",
        "give the --out folder of `dreamdiff train msm` or of `dreamdiff convert`",
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    file = folder / CONFIG_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: missing", "give a folder that holds config.json beside model.safetensors") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: not JSON ({error})", "make the folder again with the command that wrote it") from None
    if content.get("version") != 1:
        raise CheckpointError(
            f"{file}: version {content.get('version')!r}, this release reads version 1", "use the release that wrote it"
        )
    return content


def load_weights(module: nn.Module, folder: Path, prefix: str = "", derived: Collection[str] = ()) -> None:
    """Load model.safetensors into `module`, taking keys under `prefix`; every key and shape must fit.

    Args:
        derived: buffers that follow from the configuration (position tables): the module's own are kept.
    """
    file = folder / WEIGHTS_FILE
    try:
        tensors = safetensors_torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: damaged ({error})", "take an older checkpoint of the run, or copy the file again"
        ) from None
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    found |= {name: tensor for name, tensor in module.state_dict().items() if name in derived}
    problems = state_problems(module.state_dict(), found)
    if problems:
        raise CheckpointError(
            f"{file}: does not fit its config.json: {'; '.join(problems)}",
            "use the config.json that was written with the weights",
        )
    module.load_state_dict(found)


def state_problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], limit: int = 3) -> list[str]:
    """Missing, unexpected and wrongly shaped entries in words; the first `limit` of each kind are named."""

    def listed(title: str, items: list[str]) -> list[str]:
        more = f" and {len(items) - limit} more" if len(items) > limit else ""
        return [f"{len(items)} {title}: {', '.join(items[:limit])}{more}"] if items else []

    wrong = [
        f"{name} {tuple(found[name].shape)} where {tuple(expected[name].shape)} is needed"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    return (
        listed("missing", sorted(expected.keys() - found.keys()))
        + listed("unexpected", sorted(found.keys() - expected.keys()))
        + listed("wrongly shaped", wrong)
    )


def config_section(content: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    if not isinstance(content.get(name), dict):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: has no {name!r} section",
            "give a folder written by save_pretrained or `dreamdiff train msm`",
        )
    return content[name]
