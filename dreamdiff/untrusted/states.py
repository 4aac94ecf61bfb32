"""Finds the weights in a file, whatever format it has and whatever trainers have put around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dreamdiff.untrusted.checkpoints import load
from dreamdiff.untrusted.kinds import check_weights_file
from dreamdiff.untrusted.machine import Foreign
from dreamdiff.untrusted.tensors import load_tensors
from eegprep.errors import CheckpointError

# where trainers put the weights, most specific first; averaged ones only where nothing else is there
_PLACES = (
    "model_state_dict",
    "state_dict",
    "model",
    "network",
    "net",
    "weights",
    "model_ema",
    "state_dict_ema",
    "ema",
    "params_ema",
)


def read_tensors(path: Path, anchors: Sequence[str] = ()) -> dict[str, Tensor]:
    """Name -> tensor of a safetensors file, or of a pickled checkpoint, told apart by content; nothing is executed.

    Args:
        anchors: see `state_of`.

    Raises:
        CheckpointError: missing, damaged, unsafe, or without weights.
    """
    head = check_weights_file(path)
    # people rename files: the content decides
    if (path.suffix == ".safetensors" and not head.startswith(b"PK\x03\x04")) or head[8:10] == b'{"':
        return state_of(load_tensors(path), anchors)
    tensors = state_of(load(path), anchors)
    if not tensors:
        raise CheckpointError(f"{path}: holds no state_dict (no named tensors)", "give a checkpoint saved with torch.save")
    return tensors


def state_of(content: Any, anchors: Sequence[str] = ()) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, under the names that the model itself gives them; empty where there are none.

    `module.` (DistributedDataParallel) and `_orig_mod.` (torch.compile) are taken out of the names.

    Args:
        anchors: names that the model has. Where one is found only with something before it (Lightning's `model.`), that is taken
            off all names that begin with it.
    """
    state = {
        _unwrapped(str(name)): value
        for name, value in _innermost(content).items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    for anchor in anchors:
        if anchor in state:
            return state
    for anchor in anchors:
        before = [name.removesuffix(anchor) for name in state if name.endswith("." + anchor)]
        # two would mean two models in one file, and taking off either prefix would mix them
        if len(before) == 1:
            return {name.removeprefix(before[0]): value for name, value in state.items()}
    return state


def attributes_of(value: Any) -> Mapping[str, Any]:
    """What a pickled configuration says, whether it was a dictionary or an object of somebody's class."""
    if isinstance(value, Foreign):
        return {**(value.items if isinstance(value.items, dict) else {}), **value.attributes}
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def _innermost(content: Any) -> Mapping[Any, Any]:
    for _ in range(4):  # weights lie in few boxes
        content = content.items if isinstance(content, Foreign) else content
        if not isinstance(content, Mapping):
            return {}
        inner = next((content[key] for key in _PLACES if _holds_weights(content.get(key))), None)
        if inner is None:
            return content
        content = inner
    return content if isinstance(content, Mapping) else {}


def _holds_weights(value: Any, depth: int = 3) -> bool:
    value = value.items if isinstance(value, Foreign) else value
    if not isinstance(value, Mapping):
        return False
    if any(isinstance(item, Tensor) for item in value.values()):
        return True
    return depth > 0 and any(_holds_weights(value.get(key), depth - 1) for key in _PLACES)


def _unwrapped(name: str) -> str:
    pieces = [piece for piece in name.split(".") if piece != "_orig_mod"]
    while len(pieces) > 1 and pieces[0] == "module":
        pieces = pieces[1:]
    return ".".join(pieces)
