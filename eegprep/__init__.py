"""Builds, verifies and reads harmonised EEG corpora.

The public names are found on first use, so that `import eegprep` loads neither MNE nor pandas.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if os.environ.get("EEGPREP_OFFLINE") == "1":  # before any library is imported that tries whether there is a network
    import eegprep.offline  # noqa: F401

if TYPE_CHECKING:
    from eegprep.corpus.export import export, from_arrays
    from eegprep.corpus.merge import merge
    from eegprep.corpus.reader import Corpus
    from eegprep.errors import ToolkitError
    from eegprep.inspection.verify import verify
    from eegprep.readers.raws import from_raw
    from eegprep.sharing.corpus import push_corpus
    from eegprep.signals.filters import band_pass, effective_band
    from eegprep.signals.windows import crop, pad_channels
    from eegprep.steps.build import build, fetch, filter_recordings, pad
    from eegprep.steps.index import index

__version__ = "0.2.0"

__all__ = [
    "Corpus",
    "ToolkitError",
    "__version__",
    "band_pass",
    "build",
    "crop",
    "effective_band",
    "export",
    "fetch",
    "filter_recordings",
    "from_arrays",
    "from_raw",
    "index",
    "merge",
    "pad",
    "pad_channels",
    "push_corpus",
    "verify",
]

_HOME = {
    "Corpus": "corpus.reader",
    "ToolkitError": "errors",
    "band_pass": "signals.filters",
    "build": "steps.build",
    "crop": "signals.windows",
    "effective_band": "signals.filters",
    "export": "corpus.export",
    "fetch": "steps.build",
    "filter_recordings": "steps.build",
    "from_arrays": "corpus.export",
    "from_raw": "readers.raws",
    "index": "steps.index",
    "merge": "corpus.merge",
    "pad": "steps.build",
    "pad_channels": "signals.windows",
    "push_corpus": "sharing.corpus",
    "verify": "inspection.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'eegprep' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
