"""Trains EEG encoders, turns EEG into images, and measures what the images are worth.

The public names are found on first use: `WindowStream` in a loader process should not cost the import of diffusers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamdiff.alignment.model import AlignedEncoder
    from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
    from dreamdiff.encoders.encoder import EEGEncoder
    from dreamdiff.encoders.mae import MaskedSignalModel
    from dreamdiff.estimators.classifier import EEGClassifier
    from dreamdiff.estimators.features import EEGFeatures
    from dreamdiff.pairs.reader import Pairs
    from dreamdiff.pairs.writer import PairsWriter
    from dreamdiff.pretraining.stream import WindowStream
    from dreamdiff.sharing.push import push_to_hub

__version__ = "0.2.0"

__all__ = [
    "AlignedEncoder",
    "DreamDiffusionPipeline",
    "EEGClassifier",
    "EEGEncoder",
    "EEGFeatures",
    "MaskedSignalModel",
    "Pairs",
    "PairsWriter",
    "WindowStream",
    "__version__",
    "push_to_hub",
]

_HOME = {
    "AlignedEncoder": "alignment.model",
    "DreamDiffusionPipeline": "diffusion.pipeline",
    "EEGClassifier": "estimators.classifier",
    "EEGEncoder": "encoders.encoder",
    "EEGFeatures": "estimators.features",
    "MaskedSignalModel": "encoders.mae",
    "Pairs": "pairs.reader",
    "PairsWriter": "pairs.writer",
    "WindowStream": "pretraining.stream",
    "push_to_hub": "sharing.push",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dreamdiff' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
