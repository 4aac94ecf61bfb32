"""Losses of alignment against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from dreamdiff.alignment.losses import contrastive_loss, cosine_loss, error_loss


def test_contrastive_loss_is_that_of_clip_when_every_picture_is_shown_once():
    torch.manual_seed(0)
    z, t = torch.randn(6, 4), torch.randn(6, 4)
    cosine = torch.nn.functional.cosine_similarity(z[:, None], t[None], dim=-1) * 10
    labels = torch.arange(6)
    expected = (torch.nn.functional.cross_entropy(cosine, labels) + torch.nn.functional.cross_entropy(cosine.T, labels)) / 2

    assert float(contrastive_loss(z, t, labels, math.log(10))) == pytest.approx(float(expected), rel=1e-5)


def test_trials_of_one_picture_do_not_repel_each_other():
    """Two repetitions of a picture in a batch: each is right for the other's vector. As negatives they would cost log 2."""
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    image = torch.tensor([5, 5, 9])

    positives = contrastive_loss(z, z, image, math.log(50))
    negatives = contrastive_loss(z, z, torch.tensor([0, 1, 2]), math.log(50))

    assert float(positives) == pytest.approx(float(negatives), abs=1e-4)  # equal vectors: log 2 for two rows either way
    moved = z.clone().requires_grad_()
    contrastive_loss(moved, torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]]), image, math.log(50)).backward()
    assert moved.grad is not None
    assert float(moved.grad[:2, 1].abs().max()) < 1e-3  # their mean target is straight ahead


def test_error_is_one_for_a_model_that_says_nothing():
    torch.manual_seed(0)
    target = torch.nn.functional.normalize(torch.randn(50, 8), dim=1)

    assert float(error_loss(torch.zeros(50, 8), target)) == pytest.approx(1.0, rel=1e-5)
    assert float(cosine_loss(3 * target, target)) == pytest.approx(0.0, abs=1e-6)
