"""Other people's encoders behind our interface."""

from __future__ import annotations

import importlib

import pytest
import torch

pytest.importorskip("braindecode")

from dreamdiff.encoders.library import LibraryEncoder
from eegprep.errors import ModelError, UsageError

NAMES = ["Fz", "Cz", "Pz", "Oz"]


def test_cbramod_takes_corpus_windows_and_gives_tokens() -> None:
    """512 samples at 160 Hz are 3.2 s: three patches of a second, for each real channel; repeated channels are left out."""
    encoder = LibraryEncoder("cbramod", NAMES, sfreq=160.0).eval()
    eeg_BCT = torch.randn(2, 4, 512).repeat(1, 32, 1)

    tokens_BLD = encoder(eeg_BCT)

    assert tokens_BLD.shape == (2, encoder.tokens, encoder.width) == (2, 4 * 3, 200)
    other_BCT = eeg_BCT.clone()
    other_BCT[:, 4:] += 100
    torch.testing.assert_close(encoder(other_BCT), tokens_BLD, atol=0, rtol=0)


def test_resampling_keeps_the_time_scale() -> None:
    """A 10 Hz rhythm must reach the model as 10 Hz at 200 Hz sampling."""
    encoder = LibraryEncoder("cbramod", NAMES, sfreq=160.0)
    seen = []
    encoder.model.forward = lambda x, return_features: (seen.append(x), {"features": x})[1]

    encoder(torch.sin(2 * torch.pi * 10 * torch.arange(512) / 160).repeat(1, 4, 1))

    spectrum = torch.fft.rfft(seen[0][0, 0]).abs()
    assert int(spectrum.argmax()) == 10 * 600 // 200


def test_what_does_not_fit_is_refused(monkeypatch) -> None:
    """Unknown name, too short a window, another shape, braindecode missing."""
    with pytest.raises(UsageError, match="no encoder 'cbramud'; did you mean 'cbramod'"):
        LibraryEncoder("cbramud", NAMES, 160.0)
    with pytest.raises(ModelError, match=r"needs 1 s for one patch, a window has 0.512 s"):
        LibraryEncoder("cbramod", NAMES, 1000.0)
    with pytest.raises(ModelError, match=r"\(2, 3, 512\) does not fit 4 channels and 512 samples"):
        LibraryEncoder("cbramod", NAMES, 160.0)(torch.zeros(2, 3, 512))

    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError, match="braindecode is not installed"):
        LibraryEncoder("cbramod", NAMES, 160.0)
