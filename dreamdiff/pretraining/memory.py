"""What a step of pre-training needs, counted on fake tensors; `size.py` estimates it without PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dreamdiff.devices import choose_device, resolved_precision
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.memory import OVERHEAD, StepMemory, sentence, step_memory
from dreamdiff.pretraining.config import PretrainConfig


def pretrain_memory(config: PretrainConfig, precision: str, device: str = "cuda") -> StepMemory:
    """Weights, gradients, AdamW and the activations of one batch."""
    encoder, batch = config.model.encoder, config.data.batch_size

    def build() -> tuple[nn.Module, Callable[[], Tensor]]:
        model = MaskedSignalModel(config.model).train()
        model.set_gradient_checkpointing(config.gradient_checkpointing)
        eeg_BCT, noise_BL = torch.zeros(batch, encoder.channels, encoder.window), torch.zeros(batch, encoder.tokens)
        return model, lambda: model.loss(eeg_BCT, noise=noise_BL, scale_B=torch.ones(batch))

    return step_memory(build, precision=precision, device=device, moments=2 if config.optim.eight_bit else 8)


def needs(config: PretrainConfig) -> str:
    """One line for a person: on this device, and on a GPU where there is none."""
    device = choose_device(config.loop.device)
    text = sentence(pretrain_memory(config, resolved_precision(config.loop.precision, device), device.type).total, device)
    if device.type == "cuda":
        return text
    return f"{text} (on a GPU in bf16 about {(pretrain_memory(config, 'bf16').total + OVERHEAD) / 1e9:.1f} GB)"
