"""Linear layers in float32 on a CPU through oneDNN, which uses the processor's widest vectors whoever made it.

PyTorch multiplies float32 matrices with MKL. On processors that are not Intel's, MKL stays with vectors of 256 bits: 105 of
236 GFLOP/s of one core of an AMD EPYC of the fifth generation. PyTorch's wheels hold oneDNN as well, and `torch.compile` calls the
same operator in its own code. Sums are taken in another order, so results agree to rounding and not bit for bit.

Shapes: M rows, K inputs, N outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 2**20  # multiply-adds below which a call from Python costs more than the faster product saves
_FOUND = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _product(left_MK: Tensor, right_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """left x right^T + bias; both may be transposed views."""
    result: Tensor
    if torch.compiler.is_compiling():
        result = _opaque_product(left_MK, right_NK, bias_N)
    else:
        result = torch.ops.mkldnn._linear_pointwise(left_MK, right_NK, bias_N, "none", [], "")
    return result


# for `torch.compile`, which tries to fuse the bare operator with what follows it and fails where a weight is a view (PyTorch 2.14)
@torch.library.custom_op("dreamdiff::product", mutates_args=())
def _opaque_product(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return result


@_opaque_product.register_fake
def _(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    return left.new_empty((*left.shape[:-1], len(right)))


class _Linear(torch.autograd.Function):
    """y = x W^T + b and its derivatives; x is (..., K)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_NK)
        return _product(x, weight_NK, bias_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight_NK = ctx.saved_tensors
        grad_MN, x_MK = gradients[0].flatten(0, -2), x.flatten(0, -2)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _product(grad_MN, weight_NK.t()).view(x.shape)
        if ctx.needs_input_grad[1]:
            # the smaller of the two is rearranged in memory by the product
            if len(weight_NK) >= weight_NK.shape[1]:
                grad_weight = _product(x_MK.t(), grad_MN.t()).t()
            else:
                grad_weight = _product(grad_MN.t(), x_MK.t())
        if ctx.needs_input_grad[2]:
            grad_bias = grad_MN.sum(0)
        return grad_x, grad_weight, grad_bias


def linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: (..., K) -> (..., N). Through oneDNN on a CPU in float32, where the product is large enough to gain."""
    if (
        _FOUND
        and x.device.type == "cpu"
        and x.dtype == weight_NK.dtype == torch.float32
        and x.ndim > 1
        and x.numel() * len(weight_NK) >= SMALLEST
        and not torch.is_autocast_enabled("cpu")
    ):
        result: Tensor = _Linear.apply(x, weight_NK, bias_N)
        return result
    return F.linear(x, weight_NK, bias_N)


class Linear(nn.Linear):
    """`torch.nn.Linear`, through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
