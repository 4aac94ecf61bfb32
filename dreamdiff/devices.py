"""Which device a command works on, in which precision, and how much goes into one batch there.

PyTorch is imported inside the functions, so that configurations can name a device without it.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import AfterValidator

from eegprep.errors import UsageError

if TYPE_CHECKING:
    import torch

NAMES = "auto, cpu, cuda, cuda:N or mps"
Precision = Literal["fp32", "bf16", "fp16"]


def _known(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"there is no such device, use {NAMES}")
    return name


Device = Annotated[str, AfterValidator(_known)]
"""A setting that names a device."""


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the first GPU where there is one, else the CPU.

    Raises:
        UsageError: an unknown name, or a device that this machine does not have: never a silent CPU.
    """
    import torch

    if name in ("auto", "cuda") and torch.cuda.is_available():
        local = os.environ.get("LOCAL_RANK")  # of `accelerate launch` and `torchrun`: a card for each process
        return torch.device("cuda" if local is None else f"cuda:{int(local)}")
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"there is no device {name!r}", f"use {NAMES}") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UsageError(f"device {name!r} was asked for, and PyTorch sees {count} GPUs here", "use --device cpu or auto")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' was asked for, and this machine has none", "use --device cpu or auto")
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"device {name!r} is not supported", f"use {NAMES}")
    return device


def resolved_precision(precision: str, device: torch.device) -> Precision:
    """`auto` as one of fp32 (CPU), bf16 (a GPU that has it) and fp16; others as they are.

    Raises:
        UsageError: fp16 on a CPU, whose fp16 kernels are slow and partly missing.
    """
    import torch

    if precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU, and the networks run on the CPU", "use --precision fp32 or bf16")
    if precision != "auto":
        return cast(Precision, precision)
    if device.type != "cuda":
        return "fp32"  # bf16 pays on some CPUs and for wide models only; and fp32 gives the same bits again
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """The number type of frozen networks under `precision`; see `resolved_precision`."""
    import torch

    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return types[resolved_precision(precision, device)]


def mixed(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Autocast of the forward pass to `precision` (`no` and `fp32`: as it is)."""
    import torch

    if precision in ("no", "fp32"):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def place_of(module: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a module's weights are, and of which type."""
    first = next(module.parameters())
    return first.device, first.dtype


def send(values: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """`values` on `device`; a copy to a GPU goes through pinned memory and does not wait."""
    import torch

    if device.type == "cuda" and values.device.type == "cpu" and torch.cuda.is_available():
        values = values if values.is_pinned() else values.pin_memory()
        return values.to(device, dtype, non_blocking=True)
    return values.to(device, dtype)


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a GPU, with what PyTorch holds in reserve; None elsewhere."""
    import torch

    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def fitting_batch(device: torch.device, bytes_each: float, *, least: int, most: int) -> int:
    """How many samples of `bytes_each` go through a frozen network at once: `least` on a CPU, on a GPU what half of its free memory holds.

    A power of two between `least` and `most`.
    """
    free = free_bytes(device)
    if free is None:
        return least
    size = least
    while size * 2 <= most and size * 2 * bytes_each <= free / 2:
        size *= 2
    return size


def used(device: torch.device, precision: str) -> dict[str, object]:
    """What a record says about where it was computed: device, its name, precision, and threads, which change last bits."""
    import torch

    facts: dict[str, object] = {"device": str(device), "precision": precision, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        facts["device_name"] = torch.cuda.get_device_name(device)
    return facts
