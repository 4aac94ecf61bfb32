"""Checkpoints of a run: safetensors and JSON in one folder, complete or not there at all, verified before they are used.

    RUN/checkpoints/step-00001000/
        model.safetensors       trainable parameters and persistent buffers
        optimizer.safetensors   `<state>.<parameter>` tensors
        average.safetensors     the moving average, if one is kept
        state.json              step, stream position, gradient scale, sha256 of every other file and, since version 2, of itself
        config.json ...         what the stage adds

Nothing is ever pickled. The folder is prepared under a hidden name, flushed to the disk and renamed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamdiff.untrusted.tensors import load_tensors, save_tensors
from eegprep import atomic
from eegprep.errors import CheckpointError
from eegprep.provenance import sha256_file
from eegprep.sealed import DIGEST, is_whole, write_sealed
from eegprep.settings import differences

FOLDER = "checkpoints"

STATE_FILE = "state.json"

STATE_VERSION = 2

RUN_FILE = "run.json"


def save(
    run_dir: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep: int,
    describe: Callable[[Path], None] | None = None,
) -> Path:
    """Write one checkpoint, then remove all but the last `keep`.

    Args:
        tensors: file stem -> tensors.
        state: JSON values for state.json.
        describe: writes further files into the folder while it is still hidden.
    """
    final = run_dir / FOLDER / f"step-{step:08d}"
    partial = atomic.partial_path(final)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for stem, named in tensors.items():
            save_tensors(partial / f"{stem}.safetensors", named)
        if describe:
            describe(partial)
    except OSError:  # a full disk: what is half written must not keep it full
        shutil.rmtree(partial, ignore_errors=True)
        raise
    # read back from the disk: what was meant to be written proves nothing
    digests = {file.name: sha256_file(file) for file in sorted(partial.iterdir())}
    write_sealed(partial / STATE_FILE, {"version": STATE_VERSION, "step": step, "files": digests, **state})
    atomic.publish_folder(partial, final)
    # only now: until the new one is in its place, the old ones are all there is
    for old in folders(run_dir)[:-keep]:
        shutil.rmtree(old)
    return final


def folders(run_dir: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(path for path in (run_dir / FOLDER).glob("step-*") if path.is_dir())


def latest(run_dir: Path) -> tuple[Path, list[str]] | None:
    """The newest checkpoint whose files are all as they were written, and what is wrong with newer ones; None when there is none.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    if (run_dir / FOLDER).is_dir():
        atomic.clean_partial(run_dir / FOLDER)
    problems: list[str] = []
    for folder in reversed(folders(run_dir)):
        problem = damage(folder)
        if problem is None:
            return folder, problems
        problems.append(problem)
    if problems:
        raise CheckpointError(
            f"none of {len(problems)} checkpoints can be used: {problems[0]}",
            f"remove {run_dir} to start again, or restore its files",
        )
    return None


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["version"] not in (1, STATE_VERSION):
            return f"{folder.name}: version {state['version']} (this release reads up to {STATE_VERSION})"
        if (state["version"] > 1 or DIGEST in state) and not is_whole(state):
            return f"{folder.name}/{STATE_FILE}: not what was written (sha256 differs)"
        for name, digest in state["files"].items():
            if not (folder / name).is_file():
                return f"{folder.name}/{name}: missing"
            if sha256_file(folder / name) != digest:
                return f"{folder.name}/{name}: not what was written (sha256 differs)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{folder.name}/{STATE_FILE}: cannot be read ({type(error).__name__})"
    return None


def read_state(folder: Path) -> Mapping[str, Any]:
    """state.json of a verified checkpoint."""
    return json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))


def read_tensors(folder: Path, stem: str) -> dict[str, Tensor]:
    """One file of tensors of a checkpoint."""
    return load_tensors(folder / f"{stem}.safetensors")


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps of a module: parameters that are trained, and persistent buffers. Frozen weights come from elsewhere."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


def frozen_state(module: nn.Module) -> dict[str, Tensor]:
    """What `trained_state` leaves out."""
    return {name: parameter.detach() for name, parameter in module.named_parameters() if not parameter.requires_grad}


def load_trained_state(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put `trained_state` back; exactly the same names and shapes are needed."""
    expected = trained_state(module)
    wrong = sorted(expected.keys() ^ state.keys()) or [n for n in expected if expected[n].shape != state[n].shape]
    if wrong:
        raise CheckpointError(
            f"{where}: {len(wrong)} of {len(expected)} tensors do not fit the model ({wrong[0]})",
            "use the configuration the run was started with",
        )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(state[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state by parameter name: `exp_avg.<name>`, `exp_avg_sq.<name>`, `step.<name>`."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        f"{key}.{names[id(parameter)]}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put `optimizer_tensors` back."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        by_name.setdefault(name, {})[kind] = tensor
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = by_name.get(names[id(parameter)])
            if state is not None:
                optimizer.state[parameter] = {
                    # PyTorch keeps `step` on the CPU unless the optimiser is fused
                    kind: tensor if kind == "step" and not group.get("fused") else tensor.to(parameter.device)
                    for kind, tensor in state.items()
                }


def same_run(
    run_dir: Path, identity: Mapping[str, Any], current_form: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None
) -> bool:
    """Whether `run_dir` already holds a run of this identity; False when it holds none.

    Args:
        current_form: what an identity written by an older version is called now.

    Raises:
        CheckpointError: it holds a run of another identity; the differences are listed.
    """
    file = run_dir / RUN_FILE
    if not file.is_file():
        if run_dir.is_dir() and any(p for p in run_dir.iterdir() if not p.name.startswith(".")):
            raise CheckpointError(
                f"{run_dir}: the folder is not empty and holds no run (no {RUN_FILE})", "choose a new folder for --out"
            )
        return False
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise CheckpointError(f"{file}: not JSON of a run", "choose a new folder for --out")
    if current_form is not None:
        stored = current_form(stored)
    # through JSON, as the stored one went: tuples become lists
    expected = json.loads(json.dumps(identity))
    changes = differences(stored, expected)
    if changes:
        more = f" and {len(changes) - 8} more" if len(changes) > 8 else ""
        raise CheckpointError(
            f"{run_dir}: holds a run with other settings: {'; '.join(changes[:8])}{more}",
            "give the settings and the store it was started with, or another --out",
        )
    return True


def write_identity(run_dir: Path, identity: Mapping[str, Any]) -> None:
    """Say what this run is."""
    atomic.write_json(run_dir / RUN_FILE, identity)
