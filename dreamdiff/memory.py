"""How much memory a step needs, without a GPU and without the memory: the forward pass on PyTorch's fake tensors, whose storages are counted.

What is alive at the end of the forward pass is what the backward pass will need. Attention is counted as the fused kernels hold it:
inputs, output and one number a row, never the square of scores.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint as checkpointing
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OVERHEAD = 0.6e9  # bytes: context, kernels and workspaces of cuBLAS and cuDNN on a card


@dataclass(frozen=True)
class StepMemory:
    """Bytes. weights: of all parts as they lie in memory. trained: of gradients and AdamW's moments. kept: activations for the backward
    pass. passing: what comes and goes beside them."""

    weights: float
    trained: float
    kept: float
    passing: float

    @property
    def total(self) -> float:
        """At the peak, without what the device itself takes."""
        return self.weights + self.trained + self.kept + self.passing


def step_memory(
    build: Callable[[], tuple[nn.Module, Callable[[], Tensor]]], *, precision: str = "fp32", device: str = "cuda", moments: int = 8,
    training: bool = True,
) -> StepMemory:  # fmt: skip
    """Memory of one step.

    Args:
        build: called under fake tensors with `device` as the default device; returns a module and what runs it. Frozen parts do not
            require gradients.
        precision: of autocast. moments: bytes of optimiser state for a trained number (AdamW 8, in 8 bits 2).
        training: False for a pass without gradients.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device(device):
            module, run = build()
        weights = float(sum(p.numel() * p.element_size() for p in module.parameters()))
        trained = float(sum(p.numel() * (p.element_size() + moments) for p in module.parameters() if p.requires_grad))
        counted = _Live(known=module)
        with (
            torch.set_grad_enabled(training), _made_again(counted), counted, _FusedAttention(), _autocast(precision, device),
            torch.device(device),
        ):  # fmt: skip
            result = run()
            kept = float(counted.now) if training else 0.0
        del result
    passing = max(float(counted.peak) - kept, 2.0 * counted.largest if training else 0.0)
    return StepMemory(weights, trained if training else 0.0, kept, passing)


def sentence(needed: float, device: torch.device) -> str:
    """ "needs about 17.2 GB; this card has 24": for people."""
    total = device_memory(device)
    if device.type == "cuda":
        needed += OVERHEAD
    what = "card" if device.type == "cuda" else "machine"
    has = "" if total is None else f"; this {what} has {total / 1e9:.0f}"
    return f"needs about {needed / 1e9:.1f} GB{has}"


def device_memory(device: torch.device) -> int | None:
    """All of a GPU's memory, or of the machine's; None where nobody says."""
    import os

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


class _Live(TorchDispatchMode):
    """Counts bytes of storages that are alive, those of `known` left out."""

    def __init__(self, known: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._sizes: dict[int, int] = {}
        self._known = {p.untyped_storage()._cdata for p in (*known.parameters(), *known.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._sizes or key in self._known:
            return
        size = int(storage.nbytes())
        self._sizes[key] = size
        self.now += size
        self.peak, self.largest = max(self.peak, self.now), max(self.largest, size)
        weakref.finalize(storage, self._drop, key)

    def hold(self) -> None:
        """At what is alive now the backward pass begins: two tensors of gradients come beside it."""
        self.peak = max(self.peak, self.now + 2 * self.largest)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


class _FusedAttention(TorchFunctionMode):
    """Attention that keeps what the fused kernels keep."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if torch.is_autocast_enabled(q.device.type):
            q, k, v = (part.to(torch.get_autocast_dtype(q.device.type)) for part in (q, k, v))
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError  # sizes are counted, nothing is computed


@contextlib.contextmanager
def _made_again(counted: _Live) -> Iterator[None]:
    """What is checkpointed is held for a while when the backward pass makes it again: it runs once as it will run then."""
    plain = checkpointing.checkpoint

    def both(function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        own = {name: value for name, value in named.items() if name not in inspect.signature(plain).parameters}
        made = function(*given, **own)
        counted.hold()
        del made
        return plain(function, *given, **named)

    checkpointing.checkpoint = cast(Any, both)
    try:
        yield
    finally:
        checkpointing.checkpoint = plain


@contextlib.contextmanager
def _autocast(precision: str, device: str) -> Iterator[None]:
    """torch.autocast without its question whether there is such a device."""
    if precision not in ("bf16", "fp16"):
        yield
        return
    kind = torch.device(device).type
    before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    torch.set_autocast_enabled(kind, True)
    torch.set_autocast_dtype(kind, torch.bfloat16 if precision == "bf16" else torch.float16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(kind, before[0])
        torch.set_autocast_dtype(kind, before[1])


class HostReads(TorchDispatchMode):
    """Counts numbers of tensors that are read on the host: on a GPU each of them halts the step."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def allocated_peak(step: Callable[[], object]) -> float:
    """Bytes that a call allocates on the CPU at its peak, as PyTorch's profiler records them; what was there before does not count."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events: Any = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    now = peak = 0
    for event in events:
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return float(peak)
