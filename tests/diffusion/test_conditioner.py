"""tau, the CLIP head, the time branch, and the losses on them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dreamdiff.alignment.losses import contrastive_loss, cosine_loss
from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.linear import PENALTIES, grouped_ridge
from eegprep.errors import ModelError

SMALL = {"tokens_in": 6, "width_in": 10, "tokens_mid": 5, "tokens_out": 7, "context_width": 8, "clip_width": 4}


def small(**changes):
    torch.manual_seed(0)
    return Conditioner(ConditionerConfig(**{**SMALL, **changes}))


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_full_size_has_the_published_number_of_parameters():
    """1.59 M in tau and h, 0.987 M in the time branch: what the released checkpoint of 5.22 GiB leaves room for."""
    conditioner = Conditioner(ConditionerConfig(time_width=1280))

    tau = count(conditioner.channel_mapper) + count(conditioner.dim_mapper)
    assert tau == (128 * 64 + 64) + (64 * 77 + 77) + (1024 * 768 + 768)
    assert tau + count(conditioner.clip_head) == 1_587_790
    assert count(conditioner.time_branch) == (77 * 38 + 38) + (38 + 1) + (768 * 1280 + 1280)


def test_tau_and_h_equal_the_formulas_written_out():
    """A second implementation: two token mixers with nothing between, a width map; h is one weighted mean over tokens."""
    conditioner = small(time_width=9)
    x = torch.randn(3, 6, 10)
    state = conditioner.state_dict()

    context = conditioner(x)

    a, b = state["channel_mapper.0.weight"][..., 0], state["channel_mapper.1.weight"][..., 0]
    mixed = torch.einsum("ml,bld->bmd", a, x) + state["channel_mapper.0.bias"][:, None]
    mixed = torch.einsum("om,bmd->bod", b, mixed) + state["channel_mapper.1.bias"][:, None]
    tokens = mixed @ state["dim_mapper.weight"].T + state["dim_mapper.bias"]
    torch.testing.assert_close(context.tokens_BLD, tokens)
    pooled = torch.einsum("l,bld->bd", state["clip_head.pool.weight"][0, :, 0], x) + state["clip_head.pool.bias"]
    torch.testing.assert_close(context.clip_BD, pooled @ state["clip_head.fc.weight"].T + state["clip_head.fc.bias"])
    half = torch.einsum("ml,bld->bmd", state["time_branch.0.weight"][..., 0], tokens) + state["time_branch.0.bias"][:, None]
    one = torch.einsum("l,bld->bd", state["time_branch.1.weight"][0, :, 0], half) + state["time_branch.1.bias"]
    torch.testing.assert_close(context.time_BD, one @ state["time_branch.2.weight"].T + state["time_branch.2.bias"])


def test_h_can_read_tau_as_the_paper_writes_it():
    """The paper has h(tau(y)), the code h(y): with `tau` the head must not see the latent directly."""
    conditioner = small(clip_from="tau")

    assert conditioner.clip_head.pool.in_channels == 7
    assert conditioner.clip_head.fc.in_features == 8
    assert conditioner(torch.randn(2, 6, 10)).clip_BD.shape == (2, 4)


def test_a_latent_of_another_encoder_is_refused():
    """Shapes of two runs mixed up: both are named."""
    with pytest.raises(ModelError, match=r"latent is \(6, 12\).*reads \(6, 10\)"):
        small()(torch.randn(2, 6, 12))


def test_a_class_head_without_a_clip_head_is_refused():
    """It reads h(y)."""
    with pytest.raises(ModelError, match=r"class.* head needs the CLIP head"):
        small(clip_width=0, classes=3)


def test_dropping_replaces_only_the_chosen_rows():
    """Classifier-free guidance: a dropped trial must look exactly like no EEG, the others must not change."""
    conditioner = small(time_width=9)
    with torch.no_grad():
        conditioner.null_LD.normal_()
    context, null = conditioner(torch.randn(3, 6, 10)), conditioner.null(1)

    dropped = conditioner.drop(context, torch.tensor([True, False, True]))

    for row in (0, 2):
        assert torch.equal(dropped.tokens_BLD[row], null.tokens_BLD[0])
        torch.testing.assert_close(dropped.time_BD[row], null.time_BD[0])
    assert torch.equal(dropped.tokens_BLD[1], context.tokens_BLD[1])
    assert torch.equal(dropped.time_BD[1], context.time_BD[1])
    assert torch.equal(dropped.clip_BD, context.clip_BD)


def test_calibration_gives_the_wanted_spread():
    """Tokens as made have a spread of a few hundredths; the U-Net was trained on tokens of about 1."""
    conditioner, latent = small(), torch.randn(16, 6, 10)

    conditioner.calibrate(latent, 0.25, 1.5)

    tokens = conditioner(latent).tokens_BLD
    assert float(tokens.mean()) == pytest.approx(0.25, abs=1e-5)
    assert float(tokens.std()) == pytest.approx(1.5, rel=1e-5)


def test_clip_loss_is_zero_in_the_same_direction_and_two_in_the_opposite():
    """1 - cosine: the length of h(y) does not matter."""
    target = F.normalize(torch.randn(5, 4), dim=-1)

    assert float(cosine_loss(3 * target, target)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_loss(-target, target)) == pytest.approx(2, abs=1e-6)


def test_contrastive_loss_does_not_punish_trials_of_the_same_image():
    """Two trials of one image have the same target; treating them as negatives of each other would ask for the impossible."""
    target = torch.eye(4)[[0, 0, 1]]
    same, image = target.clone(), torch.tensor([5, 5, 9])

    as_positives = contrastive_loss(same, target, image)
    as_negatives = contrastive_loss(same, target, torch.tensor([5, 6, 9]))

    assert float(as_positives) == pytest.approx(2 / 3 * 0.6931, abs=1e-3)  # two of three rows split evenly between two positives
    assert as_positives <= as_negatives + 1e-6
    alone = contrastive_loss(torch.eye(4), torch.eye(4), torch.arange(4))
    assert float(alone) == pytest.approx(0, abs=1e-4)


def test_contrastive_loss_equals_cross_entropy_when_all_images_differ():
    """The usual InfoNCE, written with torch's own cross-entropy."""
    eeg, target = torch.randn(6, 4), torch.randn(6, 4)
    logits = F.normalize(eeg, dim=-1) @ F.normalize(target, dim=-1).T / 0.07
    expected = (F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))) / 2

    torch.testing.assert_close(contrastive_loss(eeg, target, torch.arange(6)), expected)


def test_ridge_is_the_textbook_formula_at_the_chosen_penalty():
    """The dual form must equal (X^T X + a I)^-1 X^T Y of centred data for one of the penalties on offer."""
    g = torch.Generator().manual_seed(0)
    x, true = torch.randn(60, 5, generator=g), torch.randn(5, 3, generator=g)
    y = x @ true + 0.1 * torch.randn(60, 3, generator=g) + 2.0

    fitted = grouped_ridge(x, y, torch.arange(60))
    weights, offset = torch.from_numpy(fitted.weights_DE), torch.from_numpy(fitted.offset_E)

    xc, yc = (x - x.mean(0)).double(), (y - y.mean(0)).double()
    scale = float(torch.trace(xc @ xc.T)) / 60
    candidates = [torch.linalg.solve(xc.T @ xc + a * scale * torch.eye(5, dtype=torch.float64), xc.T @ yc) for a in PENALTIES]
    assert min(float((weights - c).abs().max()) for c in candidates) < 1e-4
    torch.testing.assert_close((x.double() @ weights + offset).mean(0), y.double().mean(0), atol=1e-4, rtol=1e-4)
    assert fitted.left_over < 0.05


def test_repeats_of_an_image_do_not_choose_the_penalty():
    """Noise that is the same in all trials of an image looks like signal unless whole images are left out."""
    g = torch.Generator().manual_seed(0)
    image = torch.arange(20).repeat_interleave(6)
    x = torch.randn(20, 40, generator=g)[image] + 0.1 * torch.randn(120, 40, generator=g)
    y = torch.randn(20, 2, generator=g)[image]  # nothing to learn across images

    assert grouped_ridge(x, y, image).left_over > 0.9
    assert grouped_ridge(x, y, torch.arange(120)).left_over < 0.3


def test_a_linear_path_without_a_clip_head_is_refused():
    """It ends in CLIP's space."""
    with pytest.raises(ModelError, match="linear path needs the CLIP head"):
        small(clip_width=0, linear_channels=3)


def test_the_linear_path_adds_to_h_and_reaches_the_tokens():
    """h(y) = head(latent) + map(EEG); tokens = tau(latent) + text states of the captions, weighted by their nearness to h(y)."""
    conditioner = small(linear_channels=3, linear_bins=4, captions=5)
    torch.nn.init.normal_(conditioner.bridge.keys_KD)
    torch.nn.init.normal_(conditioner.bridge.states_KLD)
    latent, eeg = torch.randn(2, 6, 10), torch.randn(2, 3, 8)

    context = conditioner(latent, eeg)

    features = eeg.reshape(2, 3, 4, 2).mean(-1).flatten(1)
    clip = conditioner.clip_head(latent) + conditioner.linear.map(features)
    torch.testing.assert_close(context.clip_BD, clip)
    tau = conditioner.dim_mapper(conditioner.channel_mapper(latent))
    nearness = F.cosine_similarity(clip[:, None], conditioner.bridge.keys_KD[None], dim=-1)
    weights = torch.exp(16 * nearness) / torch.exp(16 * nearness).sum(dim=1, keepdim=True)
    added = sum(weights[:, k, None, None] * conditioner.bridge.states_KLD[k] for k in range(5))
    torch.testing.assert_close(context.tokens_BLD, tau + added)
