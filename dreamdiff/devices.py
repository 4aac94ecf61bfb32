"""Which device a command works on."""

from __future__ import annotations

import torch

from eegprep.errors import UsageError

Device = str  # auto, cpu, cuda, cuda:N or mps


def choose_device(name: Device = "auto") -> torch.device:
    """The device of that name; `auto` is the first GPU where there is one, else the CPU.

    Raises:
        UsageError: an unknown name, or a device that this machine does not have: never a silent CPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"there is no device {name!r}", "use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UsageError(f"device {name!r} was asked for, and PyTorch sees {count} GPUs here", "use --device cpu or auto")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' was asked for, and this machine has none", "use --device cpu or auto")
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"device {name!r} is not supported", "use auto, cpu, cuda, cuda:N or mps")
    return device
