"""braindecode's networks as encoders of aligned models. The wiring is tested on a stand-in; the last test needs braindecode itself."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "alignment"))
from tiny_alignment import make_pairs, small_config

from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.prepare import align
from dreamdiff.encoders.library import LibraryConfig, LibraryEncoder
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import ModelError, UsageError


class Plain(nn.Module):
    """A network with braindecode's signature, which wants at least 20 samples."""

    def __init__(self, n_chans=None, n_times=None, n_outputs=None, sfreq=None, drop=0.0):
        super().__init__()
        if n_times < 20:
            raise ValueError(f"n_times={n_times} is too short\nfor four pools")
        self.rate = sfreq
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(n_chans * n_times, n_outputs))

    def forward(self, x):
        return self.net(x)


class Fixed(nn.Module):
    """One that is built for windows of its own."""

    def __init__(self, montage):
        super().__init__()


@pytest.fixture
def stand_in(monkeypatch):
    right = importlib.import_module
    models = SimpleNamespace(Plain=Plain, Fixed=Fixed)
    monkeypatch.setattr(importlib, "import_module", lambda name: models if name == "braindecode.models" else right(name))


def test_a_run_learns_and_reads_back_as_it_was(stand_in, tmp_path):
    """Its configuration says network, shape and rate, so that the folder is enough."""
    pairs, target = make_pairs(tmp_path)
    config = small_config("loop.epochs=6")

    align(pairs, tmp_path / "run", config, encoder="braindecode:Plain", targets=[target])

    model = AlignedEncoder.from_pretrained(tmp_path / "run")
    assert model.config.encoder["model"] == "Plain" and model.encoder.network.rate == model.config.front.rate
    store = Pairs.open(pairs)
    test = store.split()["test"]
    vectors = model.encode(store.eeg(test), [store.subjects[p] for p in store.person[test]])
    away = torch.cdist(vectors, vectors) + 1e9 * torch.eye(len(test))
    same = torch.from_numpy(store.labels[test])[away.argmin(1)] == torch.from_numpy(store.labels[test])
    assert same.float().mean() > 0.6  # of four classes: vectors of a class lie together


def test_what_does_not_fit_is_refused_before_anything_is_read(stand_in, tmp_path):
    with pytest.raises(UsageError, match=r"no network 'Plane' .*did you mean 'Plain'"):
        align("nowhere", tmp_path, encoder="braindecode:Plane")
    with pytest.raises(UsageError, match="no network 'Fixed'"):
        align("nowhere", tmp_path, encoder="braindecode:Fixed")
    with pytest.raises(ModelError, match=r"Plain of braindecode cannot read 4 channels and 10 samples at 64 Hz \(n_times=10"):
        LibraryEncoder(LibraryConfig(model="Plain", channels=4, window=10, sfreq=64))


def test_without_braindecode_the_cure_is_named(monkeypatch, tmp_path):
    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr("dreamdiff.encoders.library.importlib.import_module", missing)
    with pytest.raises(UsageError, match="braindecode is not installed") as refused:
        align("nowhere", tmp_path, encoder="braindecode:EEGNet")
    assert refused.value.fix == "pip install 'eeg-dreamdiff[encoders]'"


@pytest.mark.parametrize(("name", "window"), [("EEGNet", 76), ("ATCNet", 76), ("ShallowFBCSPNet", 128)])
def test_braindecodes_own_networks_read_what_the_front_end_gives(name, window):
    """0.6 or 1 s at 128 Hz of 128 channels (the third pools over 0.6 s and needs more); a network in evaluation gives the same for a trial in any batch."""
    pytest.importorskip("braindecode")
    encoder = LibraryEncoder(LibraryConfig(model=name, window=window, width=32)).eval()
    eeg_BCT = torch.randn(3, 128, window)

    tokens_BLD = encoder(eeg_BCT)

    assert tokens_BLD.shape == (3, encoder.tokens, encoder.width) == (3, 1, 32)
    torch.testing.assert_close(encoder(eeg_BCT[1:2]), tokens_BLD[1:2], atol=1e-5, rtol=1e-5)
