"""Says what making pictures would take, before any is made: how many, memory of a batch, time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.devices import choose_device
from dreamdiff.diffusion.conditioner import Conditioner
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.diffusion.sampling import decode
from dreamdiff.eeg_input import CapMatch
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.generation.aligned import AlignedPipeline
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.files import chosen_trials
from dreamdiff.generation.generate import Maker, load_maker
from dreamdiff.memory import OVERHEAD, StepMemory, sentence, step_memory
from dreamdiff.pretraining.size import duration, speed
from eegprep.sources.file_reading import FileReading


@dataclass(frozen=True)
class GenerationPlan:
    """memory_bytes: of all weights and what one batch needs beside them, counted on fake tensors, in the precision asked for. minutes:
    on `device`, estimated from operations."""

    trials: int
    pictures: int
    image_size: int
    memory_bytes: int
    needs: str
    minutes: float
    device: str

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"pictures: {self.pictures:,} of {self.trials:,} trials, {self.image_size} x {self.image_size} pixels, about "
            f"{duration(60 * self.minutes)} on {self.device}",
            f"memory: {self.needs}",
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def generation_plan(
    model: str | Path, eeg: str | Path, config: GenerateConfig, *, select: str | None = None, trials: Sequence[int] | None = None,
    images: Path | None = None, cap: CapMatch = "name", strict_rate: bool = False, reading: FileReading | None = None,
) -> GenerationPlan:  # fmt: skip
    """Load and check as `generate_to_folder` does, on the CPU whatever the device, and estimate; nothing is written."""
    device = choose_device(config.device)
    # fp16 and bf16 weigh the same, and a CPU has no fp16
    precision = "bf16" if config.precision == "fp16" else config.precision
    maker = load_maker(model, config.model_copy(update={"device": "cpu", "precision": precision}))
    chosen = chosen_trials(maker, eeg, select, trials, images, cap, strict_rate, reading)
    counter = FlopCounterMode(display=False)
    memory = batch_memory(maker, config, counter)
    needs = sentence(memory.total, device)
    if device.type != "cuda":
        needs += f" (on a GPU about {(memory.total + OVERHEAD) / 1e9:.1f} GB)"
    rate, where = speed(config.device)
    pictures = len(chosen) * config.samples
    batches = -(-pictures // config.batch_size)
    return GenerationPlan(
        trials=len(chosen), pictures=pictures, image_size=maker.image_size, memory_bytes=int(memory.total), needs=needs,
        minutes=batches * config.steps * counter.get_total_flops() / rate / 60, device=where,
    )  # fmt: skip


def batch_memory(maker: Maker, config: GenerateConfig, counter: FlopCounterMode | None = None) -> StepMemory:
    """All networks in memory, and one batch: EEG to condition, one pass of the U-Net with guidance if there is any, decoding.

    Args:
        counter: counts the operations of the U-Net's pass.
    """
    batch = config.batch_size
    shape = maker.encoder.config
    generators = [torch.Generator().manual_seed(row) for row in range(batch)]

    def build() -> tuple[nn.Module, Callable[[], Tensor]]:
        if isinstance(maker, AlignedPipeline):
            frozen, window = maker.generator, maker.aligned.config.front.window
            unet, vae, aligned = (_weightless(part) for part in (frozen.unet, frozen.vae, maker.aligned))
            generator = replace(frozen, unet=_counted(unet, counter), vae=vae, scheduler=_OneStep())

            def picture() -> Tensor:
                cast(AlignedEncoder, aligned)(torch.zeros(batch, shape.channels, window), torch.zeros(batch, dtype=torch.long))
                vectors_BD = torch.zeros(batch, generator.reads.width)
                return decode(vae, generator(vectors_BD, generators, steps=1, guidance=config.guidance, output="latent"))

            return nn.ModuleList([unet, vae, aligned]), picture
        unet, vae, encoder, conditioner = (_weightless(p) for p in (maker.unet, maker.vae, maker.encoder, maker.conditioner))
        pipeline: Any = DreamDiffusionPipeline(
            _counted(unet, counter), vae, _OneStep(), cast(EEGEncoder, encoder), cast(Conditioner, conditioner), maker.details
        )
        pipeline.set_progress_bar_config(disable=True)

        def image() -> Tensor:
            options = {"num_inference_steps": 1, "guidance_scale": config.guidance, "generator": generators, "output_type": "pt"}
            return cast(Tensor, pipeline(torch.zeros(batch, shape.channels, shape.window), **options).images)

        return nn.ModuleList([unet, vae, encoder, conditioner]), image

    return step_memory(build, device="cpu", training=False)


class _OneStep:
    """Stands where a sampler does: samplers look at numbers, which fake tensors do not have."""

    init_noise_sigma = 1.0

    def __init__(self) -> None:
        self.config = SimpleNamespace(num_train_timesteps=1000)
        self.timesteps = torch.zeros(0)

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        self.timesteps = torch.zeros(steps, device=device)

    def scale_model_input(self, state: Tensor, _: Tensor) -> Tensor:
        return state

    def step(self, predicted: Tensor, _: Tensor, state: Tensor) -> SimpleNamespace:
        return SimpleNamespace(prev_sample=state - predicted)


def _weightless(module: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes and no memory; called under fake tensors."""
    blank: dict[int, Any] = {id(buffer): torch.empty_like(buffer) for buffer in module.buffers()}
    blank |= {id(p): nn.Parameter(torch.empty_like(p), requires_grad=False) for p in module.parameters()}
    return copy.deepcopy(module, blank)


def _counted(network: nn.Module, counter: FlopCounterMode | None) -> nn.Module:
    """The network, the operations of whose passes are counted."""
    if counter is None:
        return network
    inner = network.forward

    def forward(*given: Any, **named: Any) -> Any:
        with counter:
            return inner(*given, **named)

    network.forward = forward  # type: ignore[method-assign]
    return network
