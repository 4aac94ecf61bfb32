"""Encoders that braindecode ships, behind the interface of `EEGEncoder`: (B, C, T) uV -> (B, L, D).

Needs `pip install 'eeg-dreamdiff[encoders]'`. Pre-trained weights come from braindecode (`weights` names a file or a hub id) and keep
their own licences; without `weights` the architecture is randomly initialised.

Shapes: B batch, C channels, T samples, L tokens, D width.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegprep.errors import ModelError, UsageError
from eegprep.settings import suggest


@dataclass(frozen=True)
class Kind:
    """What an architecture expects: its class in braindecode, sampling rate (Hz), samples per patch, and uV per input unit."""

    name: str
    rate: float
    patch: int
    unit: float
    wants_names: bool = False


KINDS = {
    "cbramod": Kind("CBraMod", 200.0, 200, 100.0),
    "labram": Kind("Labram", 200.0, 200, 100.0, wants_names=True),
    "eegpt": Kind("EEGPT", 256.0, 64, 1.0),
    "reve": Kind("REVE", 200.0, 200, 1.0),  # downloads its table of positions on first use
}


class LibraryEncoder(nn.Module):
    """One of braindecode's encoders on windows of a corpus.

    Args:
        kind: cbramod, labram, eegpt or reve.
        channels: names of the real channels of a window, first to last. Repeated ones that fill a corpus up to 128 are left out.
        sfreq: of the windows, Hz; they are brought to the rate the architecture was made for.
        window: samples of a window.
        weights: file or hub id for braindecode's `from_pretrained`; None for random weights.
    """

    def __init__(self, kind: str, channels: Sequence[str], sfreq: float, window: int = 512, weights: str | None = None) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UsageError(f"there is no encoder {kind!r}{suggest(kind, KINDS)}", f"choose one of: {', '.join(KINDS)}")
        try:
            models = importlib.import_module("braindecode.models")
        except ImportError:
            raise UsageError("braindecode is not installed", "pip install 'eeg-dreamdiff[encoders]'") from None
        self.kind, self.channels, self.window = KINDS[kind], tuple(channels), window
        self.samples = round(window / sfreq * self.kind.rate) // self.kind.patch * self.kind.patch
        self.used = round(self.samples * sfreq / self.kind.rate)  # samples of a window that fill whole patches
        if self.samples == 0:
            needed = self.kind.patch / self.kind.rate
            raise ModelError(
                f"{kind} needs {needed:g} s for one patch, a window has {window / sfreq:g} s",
                "build the corpus with longer windows",
            )
        maker = getattr(models, self.kind.name)
        shape = {"n_chans": len(channels), "n_times": self.samples, "n_outputs": 2, "sfreq": self.kind.rate}
        self.model = maker.from_pretrained(weights, **shape) if weights else maker(**shape)
        self._extra = {"ch_names": [name.upper() for name in channels]} if self.kind.wants_names else {}
        self.model.eval()
        with torch.no_grad():
            self._example = self(torch.zeros(1, len(channels), window)).shape
        self.model.train()

    @property
    def tokens(self) -> int:
        """Tokens that `forward` returns."""
        return int(self._example[1])

    @property
    def width(self) -> int:
        """Size of each token."""
        return int(self._example[2])

    def forward(self, eeg_BCT: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """(B, C, T) uV -> (B, L, D); channels beyond the named ones are ignored, and so is `scale_B`."""
        if eeg_BCT.ndim != 3 or eeg_BCT.shape[1] < len(self.channels) or eeg_BCT.shape[2] != self.window:
            raise ModelError(
                f"EEG of shape {tuple(eeg_BCT.shape)} does not fit {len(self.channels)} channels and {self.window} samples",
                "give windows of the length and montage this encoder was made for",
            )
        signal_BCT = eeg_BCT[:, : len(self.channels), : self.used] / self.kind.unit
        signal_BCT = F.interpolate(signal_BCT, size=self.samples, mode="linear", align_corners=False)
        features = self.model(signal_BCT, return_features=True, **self._extra)["features"]
        return features.reshape(features.shape[0], -1, features.shape[-1])
