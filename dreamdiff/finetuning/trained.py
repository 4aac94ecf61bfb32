"""Keeps the best weights of a run and lists what was trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamdiff.diffusion.conditioner import Conditioner
from dreamdiff.encoders.encoder import EEGEncoder

# ------------------------------------------------------------------------------------------------- the task


class Trained(nn.Module):
    """All parts that take part in a step, under one root, so that one state holds what is trained."""

    def __init__(self, encoder: EEGEncoder, conditioner: Conditioner, unet: nn.Module) -> None:
        super().__init__()
        self.encoder, self.conditioner, self.unet = encoder, conditioner, unet


class FrozenHalf:
    """The frozen matrices of a network in half precision while it trains: half the memory, and what autocast would make of them anyway.

    What they were stays on the CPU, and is what a finished model is saved with.
    """

    def __init__(self) -> None:
        self._whole: dict[str, Tensor] = {}

    @torch.no_grad()
    def halve(self, module: nn.Module, precision: str) -> None:
        """Frozen parameters of two and more dimensions to `precision` (bf16 or fp16; nothing under another)."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        for name, parameter in module.named_parameters() if dtype is not None else ():
            if not parameter.requires_grad and parameter.ndim > 1 and parameter.dtype == torch.float32:
                self._whole[name] = parameter.detach().cpu()
                parameter.data = parameter.data.to(dtype)

    @torch.no_grad()
    def restore(self, module: nn.Module) -> None:
        """Back to what they were."""
        for name, parameter in module.named_parameters() if self._whole else ():
            if name in self._whole:
                parameter.data = self._whole[name].to(parameter.device)
        self._whole.clear()


def trainable_table(module: nn.Module) -> list[dict[str, object]]:
    """Part, parameters, of which trained; one row per part that a person can name."""
    rows: dict[str, list[int]] = {}
    for name, parameter in module.named_parameters():
        part = _part_of(name)
        counts = rows.setdefault(part, [0, 0])
        counts[0] += parameter.numel()
        counts[1] += parameter.numel() if parameter.requires_grad else 0
    table = [{"part": part, "parameters": all_, "trained": trained} for part, (all_, trained) in rows.items()]
    all_, trained = (sum(counts[i] for counts in rows.values()) for i in (0, 1))
    return [*table, {"part": "all", "parameters": all_, "trained": trained}]


_CONDITIONER_PARTS = {
    "channel_mapper": "tau", "dim_mapper": "tau", "null_LD": "no-EEG tokens", "clip_head": "CLIP head h",
    "time_branch": "time branch", "classifier": "class head",
}  # fmt: skip


def _part_of(name: str) -> str:
    """Only for the table; what trains is chosen by module."""
    pieces = name.split(".")
    if pieces[0] == "encoder":
        return "EEG encoder"
    if pieces[0] == "conditioner":
        return _CONDITIONER_PARTS.get(pieces[1], pieces[1])
    if "attn2" in pieces:
        part = "adapters" if "lora_A" in pieces or "lora_B" in pieces else "cross-attention"
        return f"U-Net, {part}"
    return "U-Net, rest"
