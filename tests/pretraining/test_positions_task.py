"""Pre-training on true channels: what the stream hands over, whitening, caps side by side, resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import eegprep
from dreamdiff import EEGEncoder, WindowStream
from dreamdiff.encoders.positions import PositionsEncoder
from dreamdiff.pretraining.electrodes import TrueChannels, Whitened
from dreamdiff.pretraining.positions_task import POSITIONS_PRESETS, PositionsPretrainConfig, pretrain_positions
from dreamdiff.whitening import WhiteningConfig, covariances
from eegprep.errors import DataError, ModelError
from eegprep.settings import resolve
from eegprep.signals.channels import standard_positions

CAPS = {"a": ["C3", "Cz", "C4", "Pz", "Oz"], "b": ["Fz", "C3", "C4"]}
RATE, SAMPLES, ROWS = 80.0, 240, 8


def make(folder, caps=CAPS, **changes):
    rng = np.random.default_rng(0)
    entries = [
        {
            "dataset": "Set",
            "subject": person,
            "windows": rng.standard_normal((24, len(names), SAMPLES)).astype(np.float32) * (5 + 20 * number),
            "channels": names,
            "positions": standard_positions(names),
        }
        for number, (person, names) in enumerate(caps.items())
    ]
    return eegprep.from_arrays(folder, [{**entry, **changes} for entry in entries], sfreq=RATE, pad_to=ROWS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two people with other caps, padded to 8 rows."""
    folder = tmp_path_factory.mktemp("corpus") / "c.zarr"
    make(folder)
    return eegprep.Corpus.open(folder)


def test_true_channels_are_the_recordings_own(corpus):
    """No padding row comes through; positions stand beside each channel; absent ones are masked."""
    batch = next(iter(WindowStream(corpus, 48, channels="true", prefetch=0, shuffle=False)))
    stored = corpus.read(np.arange(48))

    assert batch["eeg"].shape == (48, 5, SAMPLES)
    assert batch["channel_mask"].sum(1).tolist() == [5] * 24 + [3] * 24
    assert np.array_equal(batch["eeg"][:24].numpy(), stored[:24, :5])
    assert np.array_equal(batch["eeg"][24:, :3].numpy(), stored[24:, :3])
    assert batch["eeg"][24:, 3:].abs().max() == 0
    assert np.allclose(batch["positions"][0].numpy(), standard_positions(CAPS["a"]), atol=1e-6)
    assert torch.isnan(batch["positions"][24:, 3:]).all()


def test_stored_rows_are_the_default(corpus):
    assert set(next(iter(WindowStream(corpus, 4, prefetch=0)))) == {"eeg", "index"}


def test_windows_without_known_positions_are_refused(tmp_path):
    """A place that is guessed would be learned."""
    make(tmp_path / "c.zarr", positions=None, channels=["X1", "X2", "X3"], windows=np.ones((2, 3, SAMPLES), np.float32))

    with pytest.raises(ModelError, match="'X1' has no position"):
        TrueChannels(eegprep.Corpus.open(tmp_path / "c.zarr"))


def test_a_recording_without_the_electrodes_asked_for_is_refused(corpus):
    with pytest.raises(DataError, match="none of the 1 electrodes"):
        TrueChannels(corpus, ["Iz"])


def test_each_person_is_whitened_by_the_own_windows(corpus):
    """Mean covariance the identity, whatever the person's amplitude and cap."""
    whitened = Whitened(corpus, WhiteningConfig(band=None, shrinkage=0.0))

    for first, channels in ((0, 5), (24, 3)):
        eeg = whitened.read(np.arange(first, first + 24))["eeg"][:, :channels].numpy()
        assert np.allclose(covariances(eeg).mean(0), np.eye(channels), atol=1e-3)


def config(**changes) -> PositionsPretrainConfig:
    sets = [
        f"{key}={value}" for key, value in {"loop.max_steps": 6, "loop.tracker": "none", "data.batch_size": 8, **changes}.items()
    ]
    return resolve(PositionsPretrainConfig, presets=POSITIONS_PRESETS, preset="positions", assignments=sets)


@pytest.mark.parametrize("target", ["samples", "log-power", "latent"])
def test_a_run_that_is_stopped_goes_on_bit_for_bit(corpus, tmp_path, target):
    """Whole run against a run of three steps that is continued; the slow copy of `latent` comes back as well."""
    changes = {"model.target": target, "model.encoder.front_end.band": "[8.0, 30.0]", "loop.checkpoint_steps": 3}
    whole = pretrain_positions(corpus, tmp_path / "whole", config(**changes))
    part = config(**changes)
    stops = part.model_copy(update={"loop": part.loop.model_copy(update={"max_steps": 6, "epochs": 1000})})
    calls = []

    class Stop(Exception):
        pass

    def stop(done, total, message):
        calls.append(done)
        if done >= 4:
            raise Stop

    with pytest.raises(Stop):
        pretrain_positions(corpus, tmp_path / "part", stops, progress=stop)
    again = pretrain_positions(corpus, tmp_path / "part", stops)

    assert again.resumed_from == 3
    assert whole.finished and again.finished
    assert whole.validation == again.validation
    expected, result = (PositionsEncoder.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "part"))
    assert all(torch.equal(expected[name], result[name]) for name in expected)


def test_the_run_is_an_encoder_for_everybody(corpus, tmp_path):
    pretrain_positions(corpus, tmp_path / "run", config())

    assert isinstance(EEGEncoder.from_pretrained(tmp_path / "run"), PositionsEncoder)
