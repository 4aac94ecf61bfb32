"""Says what a fine-tuning run would cost, before anything is encoded or written: images, bytes, memory, minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dreamdiff.devices import choose_device, resolved_precision
from dreamdiff.diffusion.adapters import without_adapter
from dreamdiff.finetuning.config import FinetuneConfig
from dreamdiff.finetuning.step import Shapes, finetune_memory
from dreamdiff.memory import OVERHEAD, sentence
from dreamdiff.pairs.image_cache import PlannedRows
from dreamdiff.pretraining.size import duration, speed

if TYPE_CHECKING:
    from dreamdiff.finetuning.data import TrainingData

BACKWARD = 3.0  # a training step costs about three forward passes


class Planned(Protocol):
    """What the plan reads of a task."""

    config: FinetuneConfig
    data: TrainingData
    module: Any
    model: Any
    image_size: int


@dataclass(frozen=True)
class FinetunePlan:
    """images: to encode. cached: encoded by an earlier run. cache_bytes, run_bytes: on disk. memory_bytes: of weights, gradients,
    optimiser and one batch of activations, counted on fake tensors; gpu_bytes: the same on a GPU in bf16. needs: both in words.
    encode_minutes, train_minutes: on `device`, estimated from operations."""

    images: int
    cached: int
    cache_bytes: int
    run_bytes: int
    memory_bytes: int
    steps: int
    encode_minutes: float
    train_minutes: float
    device: str
    gpu_bytes: int = 0
    needs: str = ""

    def lines(self) -> list[str]:
        """For people."""
        work = f" ({_size(self.cache_bytes)} to write, about {duration(60 * self.encode_minutes)})" if self.images else ""
        return [
            f"images to encode: {self.images} new, {self.cached} cached{work}",
            f"training: {self.steps:,} steps, about {duration(60 * self.train_minutes)} on {self.device}",
            f"memory: {self.needs}",
            f"run folder: about {_size(self.run_bytes)}",
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def finetune_plan(task: Planned, planned: Sequence[PlannedRows]) -> FinetunePlan:
    """Estimate from shapes: operations are counted on tensors without memory, and nothing is computed."""
    config, data = task.config, task.data
    unet, vae = cast(nn.Module, task.module.unet), cast(nn.Module, task.model.vae)
    trained = sum(p.numel() for p in task.module.parameters() if p.requires_grad)
    weights = sum(p.numel() * p.element_size() for part in (task.module, vae) for p in part.parameters())
    side = next((rows.row_shape[-1] for rows in planned if rows.kind == "latents"), 8)
    rate, device = speed(config.loop.device)
    encode = sum(rows.new for rows in planned if rows.kind == "latents") * _vae_operations(vae, task.image_size) / rate / 60
    with without_adapter(unet):  # the copy is made from the configuration, which knows no adapter
        per_trial = _unet_operations(unet, side)
    batches = max(1, -(-len(data.parts["train"]) // config.data.batch_size))
    steps = max(1, round(batches * config.loop.epochs / config.loop.accumulation))
    if config.loop.max_steps is not None:
        steps = min(steps, config.loop.max_steps)
    train = (
        steps * config.data.batch_size * config.loop.accumulation * per_trial * BACKWARD / rate / 60
        if config.losses.w_sd
        else 0.0
    )
    here = choose_device(config.loop.device)
    shapes = _shapes(task, side)
    with without_adapter(unet):
        memory = finetune_memory(config, shapes, resolved_precision(config.loop.precision, here), device=here.type)
        on_gpu = memory if here.type == "cuda" else finetune_memory(config, shapes, "bf16")
    needs = sentence(memory.total, here)
    if here.type != "cuda":
        needs += f" (on a GPU in bf16 about {(on_gpu.total + OVERHEAD) / 1e9:.1f} GB)"
    return FinetunePlan(
        images=max((rows.new for rows in planned), default=0),
        cached=min((rows.cached for rows in planned), default=0),
        cache_bytes=sum(rows.bytes_new for rows in planned),
        # three checkpoints, each with the weights and the two moments of AdamW, in float32
        run_bytes=int(weights + 3 * 3 * 4 * trained),
        memory_bytes=int(memory.total),
        steps=steps,
        encode_minutes=encode,
        train_minutes=train,
        device=device,
        gpu_bytes=int(on_gpu.total),
        needs=needs,
    )


def _shapes(task: Planned, side: int) -> Shapes:
    """The parts of the task without their weights."""
    trained, data = task.module, task.data
    conditioner = trained.conditioner.config
    return Shapes(
        lambda: type(trained.encoder)(trained.encoder.config), lambda: _from_config(trained.unet), data.pairs.eeg_shape, side,
        conditioner.clip_width, conditioner.classes, conditioner.captions,
    )  # fmt: skip


def _from_config(network: nn.Module) -> nn.Module:
    return cast(nn.Module, cast(Any, type(network)).from_config(cast(Any, network).config))


def _vae_operations(vae: nn.Module, pixels: int) -> float:
    copy = _without_memory(vae)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        cast(Any, copy).encode(torch.empty(1, 3, pixels, pixels, device="meta"))
    return float(counter.get_total_flops())


def _unet_operations(unet: nn.Module, side: int) -> float:
    """Operations of one forward pass of one image."""
    copy = _without_memory(unet)
    config = cast(Any, unet).config
    state = torch.empty(1, int(config.in_channels), side, side, device="meta")
    text = torch.empty(1, 77, int(config.cross_attention_dim), device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        cast(Any, copy)(state, torch.zeros(1, dtype=torch.long, device="meta"), encoder_hidden_states=text)
    return float(counter.get_total_flops())


def _without_memory(module: nn.Module) -> nn.Module:
    """The same network from its configuration, on the meta device: shapes without values."""
    with torch.device("meta"):
        return _from_config(module)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
