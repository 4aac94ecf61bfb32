"""Writes and reads an encoder folder: config.json and safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dreamdiff.eeg_input import SignalConfig
from dreamdiff.encoders.frozen import RECORD_FILE, frozen_file, whole_shapes, whole_tensors
from dreamdiff.run_folder import CONFIG_FILE, WEIGHTS_FILE, read_config
from dreamdiff.untrusted.tensors import read_metadata, save_tensors
from eegprep import atomic, settings
from eegprep.errors import CheckpointError
from eegprep.provenance import fingerprint, sha256_file

STATE_FILE = "state.json"  # of a checkpoint


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def with_signal(content: Mapping[str, Any], signal: SignalConfig) -> Mapping[str, Any]:
    """config.json with the section `signal`: the EEG that a model was trained on. Models that saw none have no such section."""
    return content if signal == SignalConfig() else {**content, "signal": signal.model_dump(mode="json")}


def signal_section(content: Mapping[str, Any]) -> SignalConfig:
    """The section `signal` of config.json; nothing known without one, as in folders of release 0.1."""
    value = content.get("signal")
    return settings.validated(SignalConfig, value) if isinstance(value, dict) else SignalConfig()


class Placed(nn.Module):
    """A module that says where and in which precision its parameters are, as diffusers' models do: `pipeline.to` asks for both."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def save_folder(folder: Path, content: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write model.safetensors, then config.json, each atomically. The weights carry digests of themselves and of the configuration."""
    # weights first: a folder with a config.json is whole
    save_tensors(folder / WEIGHTS_FILE, state, {"config_sha256": _config_digest(content)})
    atomic.write_json(folder / CONFIG_FILE, content)


def _config_digest(content: Mapping[str, Any]) -> str:
    # through JSON: tuples are lists in the file
    return fingerprint(json.loads(json.dumps(content)))


def weights_digest(folder: Path) -> str:
    """What identifies the weights of a model folder: the SHA-256 of model.safetensors, with that of the frozen weights of a checkpoint."""
    frozen = frozen_file(folder)
    digest = sha256_file(folder / WEIGHTS_FILE)
    return digest if frozen is None else fingerprint({"trained": digest, "frozen": sha256_file(frozen)})


def load_module(make: Callable[[], ModuleT], folder: Path, prefix: str = "", derived: Collection[str] = ()) -> ModuleT:
    """A module with the weights of model.safetensors under `prefix`; every key and shape must fit.

    The module is made without memory first: a configuration that asks for more than the file holds is an error before it costs anything.

    Args:
        make: builds the module from config.json.
        derived: buffers that follow from the configuration (position tables): the module's own are kept.

    Raises:
        CheckpointError: damaged, or weights and configuration that were not written together.
    """
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise CheckpointError(f"{file}: missing", "give a folder that holds config.json and model.safetensors")
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
    stored = whole_shapes(folder, WEIGHTS_FILE)
    shapes = {name.removeprefix(prefix): shape for name, shape in stored.items() if name.startswith(prefix)}
    problems = shape_problems(expected, shapes | {name: expected[name] for name in derived})
    if problems:
        # checkpoints of earlier releases left out what is not trained, and nothing beside them holds it
        partial = (folder / STATE_FILE).is_file() and not (folder / RECORD_FILE).is_file() and expected.keys() > shapes.keys()
        raise CheckpointError(
            f"{file}: does not fit its config.json: {'; '.join(problems)}",
            "run the command that trains it again until it has finished, and give the folder of the run"
            if partial
            else "use the config.json that was written with the weights",
        )
    _check_config(folder)
    whole = whole_tensors(folder, WEIGHTS_FILE)
    entries = {name.removeprefix(prefix): tensor for name, tensor in whole.items() if name.startswith(prefix)}
    module = make()
    module.load_state_dict(entries | {name: tensor for name, tensor in module.state_dict().items() if name in derived})
    return module


def fill(module: nn.Module, state: Mapping[str, Tensor], where: str, problem: str = "does not fit its config.json") -> None:
    """Give a module that was made without memory its tensors, in the types that it has.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape; all are counted, the first named.
    """
    expected = module.state_dict()
    problems = state_problems(expected, state)
    if problems:
        raise CheckpointError(
            f"{where}: {problem}: {'; '.join(problems)}", "use the configuration that was written with the weights"
        )
    module.load_state_dict({name: state[name].to(tensor.dtype, copy=True) for name, tensor in expected.items()}, assign=True)


def _check_config(folder: Path) -> None:
    """Compare config.json with the digest in the weights, or in the record of a checkpoint; release 0.1.0 wrote the latter only."""
    record = folder / STATE_FILE
    if record.is_file():
        try:
            written = json.loads(record.read_text(encoding="utf-8"))["files"].get(CONFIG_FILE)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
            raise CheckpointError(f"{record}: cannot be read", "use another checkpoint of the run") from None
        if written not in (None, sha256_file(folder / CONFIG_FILE)):
            raise CheckpointError(f"{folder / CONFIG_FILE}: not what was written", "use another checkpoint of the run")
    stated = read_metadata(folder / WEIGHTS_FILE).get("config_sha256")
    if stated is not None and _config_digest(read_config(folder)) != stated:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: not the configuration that {WEIGHTS_FILE} was written with",
            "copy both files again; to change the input scaling, pass it when loading",
        )


def state_problems(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor], limit: int = 3) -> list[str]:
    """Missing, unexpected and wrongly shaped entries in words; the first `limit` of each kind are named."""
    return shape_problems({n: tuple(t.shape) for n, t in expected.items()}, {n: tuple(t.shape) for n, t in actual.items()}, limit)


def shape_problems(expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, tuple[int, ...]], limit: int = 3) -> list[str]:
    """`state_problems` from names and shapes alone."""

    def listed(title: str, items: list[str]) -> list[str]:
        more = f" and {len(items) - limit} more" if len(items) > limit else ""
        return [f"{len(items)} {title}: {', '.join(items[:limit])}{more}"] if items else []

    wrong = [
        f"{name} {actual[name]} where {expected[name]} is needed"
        for name in sorted(expected.keys() & actual.keys())
        if actual[name] != expected[name]
    ]
    return (
        listed("missing", sorted(expected.keys() - actual.keys()))
        + listed("unexpected", sorted(actual.keys() - expected.keys()))
        + listed("wrongly shaped", wrong)
    )


def config_section(content: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    if not isinstance(content.get(name), dict):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: has no {name!r} section",
            "give a folder written by save_pretrained or `dreamdiff train msm`",
        )
    return content[name]
