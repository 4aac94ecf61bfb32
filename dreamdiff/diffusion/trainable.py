"""Selects which parts of the U-Net train, and adds and merges LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

from torch import nn

from eegprep.errors import UsageError
from eegprep.settings import suggest

Trains = Literal["attention", "kv", "released", "lora", "none"]


# --------------------------------------------------------------------------------------------- what trains


def cross_attention_blocks(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    """(name, block) of every transformer block that has cross-attention, found by class."""
    from diffusers.models.attention import BasicTransformerBlock

    for name, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock) and module.attn2 is not None:
            yield name, module


def trainable_modules(unet: nn.Module, trains: Trains) -> dict[str, nn.Module]:
    """Name -> module of the U-Net that `trains` selects; by module, never by a part of a parameter's name.

    attention: the cross-attention heads (paper, section 3.2). kv: only their key and value maps, which alone read the EEG.
    released: attention and the LayerNorm before it, as in the authors' code. lora: nothing here, see `add_lora`. none: nothing.
    """
    if trains not in get_args(Trains):
        raise UsageError(f"trains = {trains!r}{suggest(trains, get_args(Trains))}", f"use one of {', '.join(get_args(Trains))}")
    chosen: dict[str, nn.Module] = {}
    for name, block in cross_attention_blocks(unet):
        if trains in ("attention", "released"):
            chosen[f"{name}.attn2"] = block.attn2
        if trains == "released":
            chosen[f"{name}.norm2"] = block.norm2
        if trains == "kv":
            chosen[f"{name}.attn2.to_k"] = block.attn2.to_k
            chosen[f"{name}.attn2.to_v"] = block.attn2.to_v
    return chosen


def choose_trainable(unet: nn.Module, trains: Trains, lora_rank: int = 8) -> None:
    """Freeze every parameter of the U-Net, then thaw what `trains` selects."""
    unet.requires_grad_(False)
    if trains == "lora":
        add_lora(unet, lora_rank)
    for module in trainable_modules(unet, trains).values():
        module.requires_grad_(True)


def add_lora(unet: Any, rank: int) -> None:
    """Put low-rank adapters beside the four linear maps of every cross-attention (peft); all else stays frozen."""
    from peft import LoraConfig

    targets = [
        f"{name}.attn2.{part}" for name, _ in cross_attention_blocks(unet) for part in ("to_q", "to_k", "to_v", "to_out.0")
    ]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights="gaussian"))


def merge_lora(unet: Any) -> None:
    """Add the adapters into the weights, so that the model is an ordinary one again."""
    unet.fuse_lora()
    unet.unload_lora()


def accept_time_branch(unet: Any) -> None:
    """Let the U-Net add a given vector to its time embedding, by diffusers' own `class_embed_type = "identity"`."""
    unet.register_to_config(class_embed_type="identity")
    unet.class_embedding = nn.Identity()
