"""The aligned encoder: what it makes of people, shapes and folders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dreamdiff
from dreamdiff.alignment.model import AlignedConfig, AlignedEncoder
from dreamdiff.encoders.frontend import FrontEnd, FrontEndConfig, trial_covariance
from eegprep.errors import ModelError

CHANNELS, SAMPLES, WINDOW = 6, 64, 32


def front_config(**changes) -> FrontEndConfig:
    return FrontEndConfig(
        **{"channels": CHANNELS, "samples": SAMPLES, "sfreq": 128.0, "rate": 128.0, "window": WINDOW, **changes}
    )


def small_model(kind: str = "conv", people: tuple[str, ...] = ("a", "b"), **changes) -> AlignedEncoder:
    section = {
        "conv": {"kind": "conv", "channels": CHANNELS, "window": WINDOW, "spatial": 4, "filters": 5},
        "paper": {"channels": CHANNELS, "window": WINDOW, "width": 16, "depth": 1, "heads": 2, "scaling": "none"},
    }[kind]
    targets = [{"name": "one", "fingerprint": "1", "width": 7}, {"name": "two", "fingerprint": "2", "width": 3}]
    config = AlignedConfig(front=front_config(), encoder=section, people=people, targets=targets, **changes)
    torch.manual_seed(0)
    model = AlignedEncoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def trials(n: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, CHANNELS, SAMPLES)).astype(np.float32) * 10


@pytest.mark.parametrize("kind", ["conv", "paper"])
def test_a_saved_model_gives_the_same_vectors_when_it_is_read(tmp_path, kind):
    model = small_model(kind)
    model.front.fit(torch.stack([trial_covariance(model.front.cut(torch.from_numpy(trials(20, seed)))) for seed in (1, 2)]))
    model.save_pretrained(tmp_path / "run")

    again = dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "run")

    for target in (0, "two"):
        expected = model.encode(trials(), person=["a", "b", "a", "a", "b"], target=target)
        assert torch.equal(again.encode(trials(), person=["a", "b", "a", "a", "b"], target=target), expected)
    assert tuple(again.encode(trials()).shape) == (5, 7)


def test_the_encoder_of_an_aligned_folder_can_be_read_alone(tmp_path):
    model = small_model("conv")
    model.save_pretrained(tmp_path / "run")

    encoder = dreamdiff.EEGEncoder.from_pretrained(tmp_path / "run").eval()

    x = torch.randn(2, CHANNELS, WINDOW)
    assert torch.equal(encoder(x), model.encoder(x))
    assert tuple(encoder(x).shape) == (2, encoder.tokens, encoder.width)


def test_people_have_their_own_whitening_and_somebody_new_that_of_all():
    model = small_model()
    model.front.fit(torch.stack([trial_covariance(model.front.cut(torch.from_numpy(trials(20, seed)))) for seed in (1, 2)]))

    a, b, new = (model.encode(trials(), person=person) for person in ("a", "b", None))

    assert not torch.allclose(a, b)
    assert not torch.allclose(a, new)


def test_somebody_new_is_whitened_by_their_own_trials_once_these_are_added():
    model = small_model()
    x = torch.from_numpy(trials(400, 3)) * torch.tensor([1.0, 2.0, 0.7, 1.0, 1.5, 1.0])[:, None]
    model.add_person("c", trial_covariance(model.front.cut(x)))

    white = model.front(x, model.front.numbers("c", len(x)))

    assert torch.allclose(trial_covariance(white).float(), torch.eye(CHANNELS), atol=0.03)
    assert model.config.people == ("a", "b", "c")
    assert model.encode(x[:3], person="c").shape == (3, 7)


def test_a_trial_gives_the_same_vector_in_any_company():
    model = small_model()

    together = model.encode(trials(), person=["a", "b", "a", "b", "a"])
    alone = torch.cat([model.encode(trials()[[i]], person=p) for i, p in enumerate("ababa")])

    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.encode(trials()[:, :4]), ["4", "6 channels", "64 samples"]),
        (lambda m: m.encode(trials(), person="d"), ["'d'", "a, b"]),
        (lambda m: m.encode(trials(), person=["a", "b"]), ["2 names", "5 trials"]),
        (lambda m: m.encode(trials(), target="three"), ["'three'", "one, two"]),
    ],
)
def test_what_does_not_fit_is_named(call, words):
    with pytest.raises(ModelError) as error:
        call(small_model())

    assert all(word in str(error.value) for word in words)


def test_the_window_is_where_it_says_it_is():
    """A pulse 0.25 s after onset stands at that place after resampling from 512 to 128 Hz and cutting from 0.1 s on."""
    front = FrontEnd(FrontEndConfig(channels=1, samples=512, sfreq=512.0, t0=-0.2, rate=128.0, start=0.1, window=40))
    x = torch.zeros(1, 1, 512)
    x[0, 0, round((0.25 + 0.2) * 512)] = 1.0

    at = int(front.cut(x).abs().argmax())

    assert abs(at / 128 - 0.15) <= 1 / 128


def test_a_window_that_the_trials_do_not_hold_is_refused():
    with pytest.raises(ModelError, match="do not hold the window"):
        FrontEnd(front_config(start=0.3))


def test_whitening_survives_repeated_channels():
    """Pairs of few channels repeat them; a covariance without full rank must not blow up."""
    config = front_config()
    front = FrontEnd(config, ("a",))
    x = torch.from_numpy(trials(50))[:, [0, 1, 2, 0, 1, 2]]
    front.fit(trial_covariance(front.cut(x))[None])

    white = front(x, torch.zeros(50, dtype=torch.long))

    assert torch.isfinite(white).all()
    assert 0.1 < float(white.std()) < 3
