"""Published encoders: the numbers that their papers state, and a place among our kinds."""

from __future__ import annotations

import pytest
import torch

from dreamdiff.alignment.prepare import find_encoder
from dreamdiff.encoders.kinds import build_encoder, read_encoder
from dreamdiff.encoders.published.nice import TemporalSpatial
from eegprep.errors import ModelError, ToolkitError

PUBLISHED = {"nice": 1440, "atm-s": 1440, "enigma": 184}


@pytest.mark.parametrize(("kind", "numbers"), PUBLISHED.items())
def test_sizes_are_those_of_the_papers(kind, numbers, tmp_path):
    """63 channels, 250 samples: 1,440 numbers (NICE, ATM-S), 184 (ENIGMA); weights are read back to the same output."""
    torch.manual_seed(0)
    encoder = build_encoder({"kind": kind}).eval()
    eeg = torch.randn(3, 63, 250)
    with torch.no_grad():
        out = encoder(eeg)
        assert tuple(out.shape) == (3, encoder.tokens, encoder.width) and encoder.tokens * encoder.width == numbers
        encoder.save_pretrained(tmp_path)
        again = read_encoder(tmp_path).eval()
        torch.testing.assert_close(again(eeg), out)
    with pytest.raises(ModelError, match="does not fit an encoder"):
        encoder(eeg[:, :32])


def test_parameters_are_those_of_the_published_layers():
    """Counted by hand from NICE's table 6 and ENIGMA's code: convolutions with bias, two batch norms, ENIGMA's map over time; 46 times of 4 numbers."""
    counts = {kind: sum(p.numel() for p in build_encoder({"kind": kind}).parameters()) for kind in ("nice", "enigma")}
    spatial = 80 + (40 * 40 * 63 + 40) + 80
    assert counts["nice"] == (40 * 25 + 40) + spatial + (40 * 40 + 40)
    assert counts["enigma"] == (250 * 250 + 250) + (40 * 5 + 40) + spatial + (4 * 40 + 4)
    enigma = build_encoder({"kind": "enigma"})
    assert (enigma.tokens, enigma.width) == (46, 4)


@pytest.mark.parametrize(("kernel", "pool", "features"), [(25, 51, None), (5, 17, 4)])
def test_the_layers_that_are_computed_as_one_give_what_they_give_one_after_another(kernel, pool, features):
    """NICE's and ENIGMA's sizes, output and gradients."""
    torch.manual_seed(0)
    module = TemporalSpatial(12, 40, kernel, pool, 5, 0.0, features)
    eeg = torch.randn(3, 12, 148)
    results = []
    for out in (module(eeg), module.layers(eeg[:, None])[:, :, 0].transpose(1, 2)):
        module.zero_grad()
        (out**2).sum().backward()
        results.append((out, [p.grad.clone() for p in module.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-4)
    for first, second in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(first, second, atol=1e-3 * float(second.abs().max()) + 1e-3, rtol=1e-2)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_alignment_takes_them_at_the_rate_of_their_papers(kind):
    """`--encoder nice` needs nothing else."""
    start = find_encoder(kind)
    assert start.rate == 250.0
    section = {**start.section, "channels": 17, "window": 150}
    encoder = build_encoder(section)
    loss = encoder(torch.randn(2, 17, 150)).square().sum()
    loss.backward()
    assert all(p.grad is not None for p in encoder.parameters())
    with pytest.raises(ToolkitError):
        build_encoder({**section, "window": 20})
