"""A corpus in, a model and images out.

The public names are found on first use: `WindowStream` in a loader process should not cost the import of diffusers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .encoder import EEGEncoder
    from .mae import MaskedSignalModel
    from .pairs import Pairs
    from .pipeline import DreamDiffusionPipeline
    from .stream import WindowStream

__all__ = ["DreamDiffusionPipeline", "EEGEncoder", "MaskedSignalModel", "Pairs", "WindowStream"]

_HOME = {
    "DreamDiffusionPipeline": "pipeline",
    "EEGEncoder": "encoder",
    "MaskedSignalModel": "mae",
    "Pairs": "pairs",
    "WindowStream": "stream",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dreamdiff' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
