"""The schedule, the groups and the moving average."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dreamdiff.encoders.config import DecoderConfig, EncoderConfig, MaskedSignalConfig
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.training.config import OptimConfig
from dreamdiff.training.optim import MovingAverage, adamw, learning_rate, parameter_groups, set_learning_rate


def test_the_rate_rises_over_40_epochs_and_falls_along_half_a_cosine_to_nothing() -> None:
    """The authors' schedule at its corners; between them the closed form."""
    config = OptimConfig()

    assert learning_rate(0, 500, config) == 0
    assert learning_rate(20, 500, config) == pytest.approx(1.25e-4)
    assert learning_rate(40, 500, config) == pytest.approx(2.5e-4)
    assert learning_rate(270, 500, config) == pytest.approx(1.25e-4)
    assert learning_rate(155, 500, config) == pytest.approx(2.5e-4 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(500, 500, config) == pytest.approx(0, abs=1e-12)


def test_a_constant_schedule_stays_after_its_rise() -> None:
    """Fine-tuning has no decay."""
    config = OptimConfig(schedule="constant", warmup_epochs=2)
    assert [learning_rate(e, 9, config) for e in (1, 2, 9)] == pytest.approx([1.25e-4, 2.5e-4, 2.5e-4])


def test_biases_and_norms_are_not_decayed_but_cls_and_mask_tokens_are() -> None:
    """As timm's rule (one-dimensional parameters) has it in the authors' code."""
    encoder = EncoderConfig(width=16, depth=1, heads=2)
    model = MaskedSignalModel(MaskedSignalConfig(encoder=encoder, decoder=DecoderConfig(width=8, depth=1, heads=2)))
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    decayed, plain = parameter_groups(model, 0.05)

    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert {"encoder.cls_token", "mask_token", "encoder.patch_embed.proj.weight"} <= {names[id(p)] for p in decayed["params"]}
    assert all("norm" in names[id(p)] or names[id(p)].endswith("bias") for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_one_step_of_adamw_is_the_published_formula_with_decay_outside() -> None:
    """Loshchilov and Hutter's algorithm 2 by hand, first step: m/(1-b1) = g, v/(1-b2) = g^2."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = adamw(parameter_groups(layer, 0.1), OptimConfig(lr=0.01), torch.device("cpu"))
    layer.weight.grad = torch.full((1, 1), 3.0)

    optimizer.step()

    assert layer.weight.item() == pytest.approx(2.0 - 0.01 * 0.1 * 2.0 - 0.01 * 3.0 / (3.0 + 1e-8))


def test_a_group_may_learn_at_its_own_pace() -> None:
    """lr_scale multiplies the schedule."""
    layer = nn.Linear(2, 2)
    groups = [{"params": [layer.weight], "weight_decay": 0.0, "lr_scale": 0.1}, {"params": [layer.bias], "weight_decay": 0.0}]
    optimizer = adamw(groups, OptimConfig(), torch.device("cpu"))

    set_learning_rate(optimizer, 1.0)

    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]


def test_the_moving_average_follows_its_formula_and_swaps_there_and_back() -> None:
    """Validation sees the average; training goes on from the weights, unchanged to the bit."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    average = MovingAverage(layer, decay=0.9)
    nn.init.constant_(layer.weight, 2.0)

    average.update(layer)
    average.swap(layer)
    seen = float(layer.weight)
    average.swap(layer)

    assert seen == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)
    assert float(layer.weight) == 2.0
    assert float(average.average["weight"]) == pytest.approx(1.1)
