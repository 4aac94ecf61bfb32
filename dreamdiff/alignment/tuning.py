"""What of an encoder trains: all of it, nothing, or low-rank adapters."""

from __future__ import annotations

from typing import Literal

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from dreamdiff.alignment.model import AlignedEncoder
from eegprep.errors import ModelError

Tune = Literal["whole", "frozen", "lora"]


def choose_what_trains(model: AlignedEncoder, tune: Tune, rank: int) -> None:
    """Mark the parameters of the encoder; heads and maps of people always train.

    Raises:
        ModelError: adapters for an encoder without linear layers in its blocks.
    """
    encoder = model.encoder
    encoder.requires_grad_(tune == "whole")
    model.frozen = tune == "frozen"
    if hasattr(encoder, "cls_token"):
        encoder.cls_token.requires_grad_(False)  # not used outside pre-training
    if tune == "lora":
        names = [
            name
            for name, part in encoder.named_modules()
            if isinstance(part, nn.Linear) and ".".join(name.split(".")[:1]) == "blocks"
        ]
        if not names:
            raise ModelError("this encoder has no transformer blocks for adapters", "use --set tune=whole or tune=frozen")
        # alpha = rank: the factor alpha / r is 1, and the rank does not change the step
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), encoder)
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_("lora_" in name)


def merge_lora(encoder: nn.Module) -> None:
    """Put the adapters into the weights, so that the encoder is a plain one again."""
    for name, part in list(encoder.named_modules()):
        if isinstance(part, LoraLayer):
            part.merge()  # type: ignore[operator]
            parent = encoder.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], part.get_base_layer())
