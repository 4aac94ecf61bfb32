"""What public benchmarks ask of a model and of data, tried without them: the same calls, on tiny data of our own."""

from __future__ import annotations

import inspect
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import eegprep
from dreamdiff.yardsticks.braindecode_data import from_braindecode, to_braindecode
from dreamdiff.yardsticks.model import YardstickModel
from eegprep.errors import DataError, UsageError

NAMES = ["Fp1", "Fp2", "C3", "Cz", "C4", "O1", "O2"]


def described(names=NAMES):
    """`info["chs"]` as MNE gives it, without places."""
    return [{"ch_name": name, "loc": np.zeros(12)} for name in names]


@pytest.mark.parametrize("width", [3, 19, 64, 128])
@pytest.mark.parametrize(("samples", "rate"), [(60, 120.0), (500, 250.0)])
def test_one_instance_survives_every_montage_and_length(width, samples, rate):
    """As `neuralbench.evaluate.check_model` tries it: random places, several widths, batch first, no head."""
    model = YardstickModel(sfreq=rate, model="scratch").eval()
    assert "channel_positions" in inspect.signature(model.forward).parameters

    with torch.no_grad():
        out = model(torch.randn(2, width, samples), channel_positions=torch.randn(2, width, 3))

    assert out.shape == (2, 64) and torch.isfinite(out).all()


def test_a_rhythm_keeps_its_frequency_and_power_through_the_front_end():
    """250 to 80 Hz: a 10 Hz sine comes out as a 10 Hz sine of unit variance, a 50 Hz hum not at all."""
    time_T = np.arange(750) / 250.0
    x = torch.from_numpy(3 * np.sin(2 * np.pi * 10 * time_T) + 20 * np.sin(2 * np.pi * 50 * time_T)).float()[None, None]
    model = YardstickModel(sfreq=250.0, model="scratch")

    out = model._front_end(x, torch.ones(1, 1, dtype=torch.bool))[0, 0].numpy()

    expected = np.sqrt(2) * np.sin(2 * np.pi * 10 * np.arange(240) / 80.0)
    assert out.shape == (240,)
    assert np.allclose(out, expected, atol=0.02)


def test_the_unit_of_windows_and_of_places_does_not_matter():
    """Benchmarks give volts or microvolts, metres or unit spheres."""
    model = YardstickModel(3, len(NAMES), described(), 256, sfreq=128.0, model="scratch").eval()
    x = torch.randn(2, len(NAMES), 256)
    places = model.places_C3.expand(2, -1, -1)

    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(model(x * 1e-6), expected, atol=1e-4)
        assert torch.allclose(model(x, places * 1000), model(x, places * 1e6), atol=1e-4)


def test_a_channel_without_a_place_does_not_count():
    """Sentinels such as (-0.1, -0.1, -0.1), zeros and NaN are no place of an electrode."""
    model = YardstickModel(sfreq=80.0, model="scratch").eval()
    x = torch.randn(1, 4, 160)
    places = torch.tensor([[[0.05, 0.0, 0.07], [-0.05, 0.01, 0.07], [-0.1, -0.1, -0.1], [float("nan")] * 3]])

    with torch.no_grad():
        out = model(x, places)
        x[:, 2:] = 100.0 * torch.randn(1, 2, 160)
        assert torch.allclose(model(x, places), out, atol=1e-5)
    with pytest.raises(UsageError, match="without a single channel"):
        model(x, torch.zeros(1, 4, 3))


def test_a_checkpoint_fills_a_fresh_model_and_the_head_trains(tmp_path):
    """As Open EEG Bench does: a class, a file with its state, `final_layer` as the head, the rest frozen."""
    first = YardstickModel(2, len(NAMES), described(), 240, sfreq=80.0, model="scratch").eval()
    first.save_checkpoint(tmp_path / "model.safetensors")
    second = YardstickModel(2, len(NAMES), described(), 240, sfreq=80.0, model="scratch").eval()
    state = load_file(tmp_path / "model.safetensors")
    assert all(second.state_dict()[name].shape == value.shape for name, value in state.items())
    second.load_state_dict(state)
    x = torch.randn(4, len(NAMES), 240)
    assert torch.equal(first(x), second(x))

    second.encoder.requires_grad_(False)
    second(x).square().sum().backward()

    assert [name for name, value in second.named_parameters() if value.grad is not None] == [
        "final_layer.weight",
        "final_layer.bias",
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "sampling rate"),
        ({"sfreq": 80.0, "n_chans": 3, "chs_info": described()}, "chs_info of 7 channels, n_chans=3"),
        ({"sfreq": 80.0, "chs_info": described(["Foo", "C3"])}, "no place is known for Foo"),
    ],
)
def test_what_does_not_follow_is_asked_for(settings, words):
    with pytest.raises(UsageError, match=words):
        YardstickModel(2, model="scratch", **settings)


def test_the_rate_follows_from_samples_and_seconds():
    """As in braindecode's `EEGModuleMixin`."""
    assert YardstickModel(2, n_times=300, input_window_seconds=3.0, model="scratch").sfreq == 100.0


@pytest.fixture
def braindecode(monkeypatch):
    """The real package where it is installed; else two classes with the constructors and the items of its own."""
    try:
        import braindecode.datasets as real

        return real
    except ImportError:
        pass

    class WindowsDataset:
        def __init__(self, windows, description=None):
            self.windows, self.description = windows, description
            self.y = windows.metadata["target"].tolist()
            self.crop_inds = windows.metadata[["i_window_in_trial", "i_start_in_trial", "i_stop_in_trial"]].to_numpy()

        def __len__(self):
            return len(self.windows)

        def __getitem__(self, i):
            return self.windows.get_data(item=[i], verbose="error")[0].astype("float32"), self.y[i], self.crop_inds[i].tolist()

    class BaseConcatDataset:
        def __init__(self, parts):
            self.datasets = list(parts)

    module = types.ModuleType("braindecode.datasets")
    module.WindowsDataset, module.BaseConcatDataset = WindowsDataset, BaseConcatDataset
    monkeypatch.setitem(sys.modules, "braindecode", types.ModuleType("braindecode"))
    monkeypatch.setitem(sys.modules, "braindecode.datasets", module)
    return module


def test_a_corpus_goes_to_braindecode_and_back(braindecode, tmp_path):
    """The same samples, labels, channels, rate and people; V there, uV here; padding is left out."""
    rng = np.random.default_rng(0)
    given = {name: 10 * rng.standard_normal((4, 7, 96)).astype(np.float32) for name in ("1", "2")}
    labels = ["left", "right", None, "left"]
    corpus = eegprep.from_arrays(
        tmp_path / "a.zarr",
        [{"windows": windows, "subject": name, "labels": labels, "channels": NAMES} for name, windows in given.items()],
        sfreq=96.0, pad_to=8,
    )  # fmt: skip

    data = to_braindecode(corpus, labels=["left", "right"])

    assert [len(part) for part in data.datasets] == [3, 3]
    x, y, place = data.datasets[1][1]
    assert np.allclose(x * 1e6, given["2"][1], atol=1e-4) and y == 1 and list(place)[1:] == [96, 192]

    back = from_braindecode(data, tmp_path / "b.zarr", labels={0: "left", 1: "right"})

    assert back.shape == (6, 7, 96) and back.channel_names == NAMES
    assert list(back.labels) == ["left", "right", "left"] * 2
    assert np.allclose(back[0:3], given["1"][[0, 1, 3]], atol=1e-4)
    assert list(back.subjects["subject"]) == ["1", "2"] and set(back.recordings["sfreq"]) == {96.0}


def test_labels_that_are_not_there_are_an_error(braindecode, tmp_path):
    corpus = eegprep.from_arrays(tmp_path / "a.zarr", np.ones((2, 3, 32), np.float32), sfreq=32.0, pad_to=3)

    with pytest.raises(DataError, match="no window has one of the labels up"):
        to_braindecode(corpus, labels=["up"])
