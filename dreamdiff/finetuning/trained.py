"""Keeps the best weights of a run and lists what was trained."""

from __future__ import annotations

from torch import nn

from dreamdiff.diffusion.conditioner import Conditioner
from dreamdiff.encoders.encoder import EEGEncoder

# ------------------------------------------------------------------------------------------------- the task


class Trained(nn.Module):
    """All parts that take part in a step, under one root, so that one state holds what is trained."""

    def __init__(self, encoder: EEGEncoder, conditioner: Conditioner, unet: nn.Module) -> None:
        super().__init__()
        self.encoder, self.conditioner, self.unet = encoder, conditioner, unet


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
