"""Linear layers through oneDNN: the same function as PyTorch's, for every layout that a network hands over."""

import pytest
import torch
import torch.nn.functional as F

from dreamdiff import matmul


def both(x, weight, bias):
    """Output and gradients of ours in float32, and of PyTorch's in float64."""
    results = []
    for function, dtype in ((matmul.linear, torch.float32), (F.linear, torch.float64)):
        leaves = [None if t is None else t.to(dtype).detach().requires_grad_() for t in (x, weight, bias)]
        y = function(*leaves)
        y.square().sum().backward()
        results.append([y, *(t.grad for t in leaves if t is not None)])
    return zip(*results, strict=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "outputs"), [((9, 33, 256), 512), ((1200, 512), 64), ((7, 129, 63), 129)])
@pytest.mark.parametrize("layout", ["plain", "transposed"])
def test_outputs_and_gradients_are_those_of_pytorch(shape, outputs, layout, bias):
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(outputs, shape[-1])
    if layout == "transposed":
        x, weight = x.transpose(0, -2).contiguous().transpose(0, -2), weight.t().contiguous().t()
    for ours, exact in both(x, weight, torch.randn(outputs) if bias else None):
        assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()


def test_frozen_weights_get_no_gradient_and_pass_one_on():
    layer = matmul.Linear(256, 256).requires_grad_(False)
    x = torch.randn(64, 256, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(64, -1))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, True),
        ({"rows": 2}, False),
        ({"dtype": torch.float64}, False),
        ({"device": "meta"}, False),
    ],
)  # fmt: skip
def test_only_large_products_in_float32_on_a_cpu_take_this_way(given, taken, monkeypatch):
    calls = []
    monkeypatch.setattr(matmul._Linear, "apply", lambda *arguments: calls.append(arguments))
    place = {key: value for key, value in given.items() if key != "rows"}
    matmul.linear(torch.zeros(given.get("rows", 64), 256, **place), torch.zeros(256, 256, **place))
    assert bool(calls) == taken


def test_half_precision_stays_half():
    with torch.autocast("cpu", torch.bfloat16):
        assert matmul.Linear(256, 256)(torch.zeros(64, 256)).dtype == torch.bfloat16
