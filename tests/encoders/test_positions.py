"""The encoder that knows its electrodes, and its masked pre-training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamdiff import EEGEncoder
from dreamdiff.encoders.masked_positions import (
    MaskConfig,
    MaskedPositionsConfig,
    MaskedPositionsModel,
    hide_neighbourhoods,
)
from dreamdiff.encoders.positions import PositionsConfig, PositionsEncoder, positions_preset
from dreamdiff.spectra import log_power
from eegprep.errors import ModelError, UsageError
from eegprep.signals.channels import standard_positions

NAMES = ["Fp1", "Fp2", "F3", "F4", "C3", "Cz", "C4", "P3", "P4", "O1", "O2"]
PLACES = torch.from_numpy(standard_positions(NAMES)).float()


def encoder(**changes) -> PositionsEncoder:
    torch.manual_seed(0)
    return PositionsEncoder(PositionsConfig(token=20, **changes)).eval()


def windows(batch: int = 2, channels: int = len(NAMES), samples: int = 60) -> torch.Tensor:
    return torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(1))


def test_filling_up_a_batch_changes_nothing():
    """A cap of 11 beside one of 30 and a window of 3 tokens beside one of 5 give what they give alone."""
    model, x = encoder(), windows()
    alone = model(x, PLACES.expand(2, -1, -1))
    wide = torch.zeros(2, 30, 100)
    wide[:, :11, :60] = x
    places = torch.full((2, 30, 3), float("nan"))
    places[:, :11] = PLACES
    mask = torch.zeros(2, 30, dtype=torch.bool)
    mask[:, :11] = True

    together = model(wide, places, mask, torch.tensor([60, 60]))

    assert torch.allclose(together.values[:, :11, :3], alone.values, atol=1e-5)
    assert together.valid.sum() == 2 * 11 * 3
    assert torch.allclose(together.mean(), alone.mean(), atol=1e-5)
    assert torch.allclose(together.per_electrode()[:, :11], alone.per_electrode(), atol=1e-5)


def test_the_order_of_channels_is_of_no_consequence():
    """Electrodes are known by their place, not by their row."""
    model, x, order = encoder(), windows(), torch.randperm(11, generator=torch.Generator().manual_seed(2))

    moved = model(x[:, order], PLACES[order].expand(2, -1, -1)).values

    assert torch.allclose(moved, model(x, PLACES.expand(2, -1, -1)).values[:, order], atol=1e-5)


def test_a_place_matters():
    """Two electrodes with the same signal at other places give other tokens."""
    model, x = encoder(), windows()
    swapped = PLACES.clone()
    swapped[[4, 6]] = PLACES[[6, 4]]

    assert not torch.allclose(model(x, swapped.expand(2, -1, -1)).values, model(x, PLACES.expand(2, -1, -1)).values, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 256])
def test_from_one_to_256_channels(channels):
    """The caps that people have."""
    height, turn = np.linspace(0.99, -0.3, channels), np.arange(channels) * 2.399963  # a spiral down the head
    flat = np.sqrt(1 - height**2)
    places = torch.from_numpy(0.09 * np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)).float()

    assert encoder()(windows(1, channels, 40), places[None]).values.shape == (1, channels, 2, 64)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda p: p.index_fill(0, torch.tensor([3]), float("nan")), "has no position"),
        (lambda p: p.index_fill(0, torch.tensor([3]), 0.0), "position zero"),
        (lambda p: p * 1000, "from the centre of the head"),
        (lambda p: torch.cat([p[:10], p[:1] + 1e-5]), "mm apart"),
        (lambda p: p[:5], "do not fit"),
    ],
)
def test_places_that_no_cap_has_are_refused(wrong, words):
    """Missing, zero, in millimetres, doubled, or too few: a wrong place is worse than none."""
    with pytest.raises(ModelError, match=words):
        encoder()(windows(), wrong(PLACES.clone()).expand(2, -1, -1))


def test_a_window_shorter_than_a_token_is_refused():
    with pytest.raises(ModelError, match="shorter than one token of 20"):
        encoder()(windows(samples=19), PLACES.expand(2, -1, -1))


def test_large_stays_below_five_million_parameters():
    """The issue's limit."""
    for name in ("positions", "positions-large"):
        model = PositionsEncoder(PositionsConfig(**positions_preset(name)))
        assert sum(p.numel() for p in model.parameters()) <= 5_000_000


@pytest.mark.parametrize("target", ["samples", "log-power", "latent"])
def test_hidden_values_do_not_reach_the_prediction(target):
    """A model that sees what it must predict learns to copy: the input at hidden tokens has no gradient through the encoder."""
    torch.manual_seed(0)
    model = MaskedPositionsModel(MaskedPositionsConfig(encoder=PositionsConfig(token=20), target=target, bands=((8.0, 20.0),)))
    x = windows().requires_grad_(True)
    hidden = torch.zeros(2, 11, 3, dtype=torch.bool)
    hidden[:, 4, 1] = True

    model.encoder(x, PLACES.expand(2, -1, -1), None, None, hidden).values.sum().backward()

    assert x.grad[:, 4, 20:40].abs().max() == 0
    assert x.grad[:, 4, :20].abs().max() > 0


def test_log_power_of_a_sine():
    """A sine of amplitude A in a Hann window of n samples: the sum of squared spectrum is n A^2 (3/8) n / 4; only its band sees it."""
    time = torch.arange(80) / 80.0
    wave = 2.0 * torch.sin(2 * torch.pi * 10 * time)

    low, high = log_power(wave[None, None, None], 80.0, ((8.0, 13.0), (20.0, 32.0)), 1e-3)[0, 0, 0].tolist()

    # at 10 Hz the Hann window gives (A n / 4)^2 there and a quarter of it at 9 and 11 Hz, over five bins
    assert low == pytest.approx(np.log((2 * 80 / 4) ** 2 * 1.5 / 5 + 1e-3), abs=0.01)
    assert high < np.log(2e-3)


def test_log_power_refuses_a_token_too_short_for_a_band():
    with pytest.raises(UsageError, match="no frequency between 8 and 9"):
        log_power(torch.zeros(1, 1, 1, 8), 80.0, ((8.0, 9.0),), 1e-3)


@pytest.mark.parametrize(("radius", "span", "share"), [(4.5, 1, 0.5), (3.0, 2, 0.55), (0.0, 1, 0.3)])
def test_masks_hide_whole_neighbourhoods_and_the_share_asked_for(radius, span, share):
    """Every hidden token lies in a neighbourhood that is hidden whole, and each window depends on its own noise alone."""
    noise = torch.rand(6, 11, 8, generator=torch.Generator().manual_seed(3))
    valid = torch.ones(6, 11, 8, dtype=torch.bool)
    valid[:, 9:] = False
    places = PLACES.expand(6, -1, -1)

    hidden = hide_neighbourhoods(places, valid, noise, MaskConfig(share=share, radius_cm=radius, span=span))
    alone = hide_neighbourhoods(places[:1], valid[:1], noise[:1], MaskConfig(share=share, radius_cm=radius, span=span))

    shares = hidden.flatten(1).sum(1) / valid.flatten(1).sum(1)
    assert not hidden[~valid].any()
    assert (shares >= share).all()
    assert (shares <= share + 0.35).all()
    assert torch.equal(hidden[:1], alone)
    near = torch.cdist(PLACES, PLACES) * 100 <= max(radius, 1e-6)
    for c, s in torch.nonzero(hidden[0]).tolist():
        around = [(k, t) for k in torch.nonzero(near[c])[:, 0].tolist() for t in range(max(0, s - span + 1), s + 1)]
        reach = lambda k, t: near[k][:, None] & ((torch.arange(8) >= t) & (torch.arange(8) < t + span))[None] & valid[0]  # noqa: E731
        assert any(hidden[0][reach(k, t)].all() for k, t in around if valid[0, k, t])


def test_the_slow_copy_follows_and_is_never_trained():
    """Its weights are buffers: saved with a checkpoint, moved by `follow` alone."""
    torch.manual_seed(0)
    config = MaskedPositionsConfig(encoder=PositionsConfig(token=20), target="latent", momentum=0.9)
    model = MaskedPositionsModel(config)
    assert not list(model.teacher.parameters())
    before = model.teacher.norm.weight.clone()
    with torch.no_grad():
        model.encoder.norm.weight += 1.0

    model.follow()

    assert torch.allclose(model.teacher.norm.weight, before + 0.1, atol=1e-6)


def test_a_folder_gives_the_same_encoder_back(tmp_path):
    """Through the model, through its own class, and through `EEGEncoder.from_pretrained`, which reads any kind."""
    torch.manual_seed(0)
    model = MaskedPositionsModel(MaskedPositionsConfig(encoder=PositionsConfig(token=20)))
    model.save_pretrained(tmp_path / "model")
    model.encoder.save_pretrained(tmp_path / "encoder")
    x, places = windows(), PLACES.expand(2, -1, -1)
    expected = model.encoder(x, places).values

    assert torch.equal(MaskedPositionsModel.from_pretrained(tmp_path / "model").encoder(x, places).values, expected)
    for folder in ("model", "encoder"):
        assert torch.equal(PositionsEncoder.from_pretrained(tmp_path / folder)(x, places).values, expected)
        assert torch.equal(EEGEncoder.from_pretrained(tmp_path / folder)(x, places).values, expected)
