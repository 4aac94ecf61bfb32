"""Networks of braindecode as encoders of aligned models: `dreamdiff train align --encoder braindecode:EEGNet`.

Needs `pip install 'eeg-dreamdiff[encoders]'`, to train and to read such a run. The architecture is braindecode's, the weights are trained
here: its output of `width` numbers is one token, which the head of the aligned model reads.

Shapes: B batch, C channels, T samples, D width.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dreamdiff.encoders.weights import Placed, save_folder
from eegprep.errors import ModelError, UsageError
from eegprep.settings import Settings, suggest

NEEDED = {"n_chans", "n_times", "n_outputs"}  # what a network that can be built for any windows takes
INSTALL = "pip install 'eeg-dreamdiff[encoders]'"


class LibraryConfig(Settings):
    """A network of braindecode for windows of one shape. sfreq: Hz of what it reads. width: numbers that it gives."""

    kind: Literal["braindecode"] = "braindecode"
    model: str
    channels: int = Field(default=128, ge=1)
    window: int = Field(default=76, ge=1)  # samples
    sfreq: float = Field(default=128.0, gt=0)
    width: int = Field(default=256, ge=1)


class LibraryEncoder(Placed):
    """(B, C, T) -> (B, 1, D). Reads what the front end gives: whitened EEG.

    Raises:
        UsageError: braindecode is not installed, or has no such network. ModelError: the network cannot read such windows.
    """

    Config = LibraryConfig
    gradient_checkpointing = False

    def __init__(self, config: LibraryConfig) -> None:
        super().__init__()
        self.config = config
        kind = network_class(config.model)
        try:
            self.network: nn.Module = kind(
                n_chans=config.channels, n_times=config.window, n_outputs=config.width, sfreq=config.sfreq
            )
            self.network.eval()
            with torch.no_grad():
                self._width = int(self(torch.zeros(1, config.channels, config.window)).shape[2])
        except Exception as error:  # each network checks its input in its own way
            reason = str(error).strip().splitlines()
            raise ModelError(
                f"{config.model} of braindecode cannot read {config.channels} channels and {config.window} samples at "
                f"{config.sfreq:g} Hz ({reason[0][:160] if reason else type(error).__name__})",
                "set front.seconds (and front.start) to a longer stretch, or use --encoder conv",
            ) from None
        self.network.train()

    @property
    def tokens(self) -> int:
        """One: the network's output."""
        return 1

    @property
    def width(self) -> int:
        """Size of it."""
        return self._width

    def forward(self, eeg_BCT: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """(B, C, T) -> (B, 1, D)."""
        return self.network(eeg_BCT).flatten(1)[:, None]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        content = {"architecture": "LibraryEncoder", "version": 1, "encoder": self.config.model_dump()}
        save_folder(Path(folder), content, self.state_dict())


def network_class(name: str) -> Any:
    """A class of `braindecode.models`.

    Raises:
        UsageError: braindecode is not installed, or has no network of that name that can be built for any windows.
    """
    try:
        models = importlib.import_module("braindecode.models")
    except ImportError:
        raise UsageError(f"--encoder braindecode:{name}: braindecode is not installed", INSTALL) from None
    known = {
        key: value for key, value in vars(models).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and set(inspect.signature(value).parameters) >= NEEDED
    }  # fmt: skip
    if name not in known:
        raise UsageError(
            f"braindecode has no network {name!r} for windows of any shape{suggest(name, known)}",
            f"use one of: {', '.join(sorted(known))}",
        )
    return known[name]
