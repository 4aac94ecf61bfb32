"""Images from EEG: whose EEG, one random generator per (trial, seed), PNG files that say how to make them again.

Shapes: N trials, C channels, T samples, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.generation.aligned import AlignedPipeline, is_aligned, load_aligned_pipeline, needs_generator
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.trials import TrialSet
from dreamdiff.training.task import mix
from eegprep.provenance import sha256_array
from eegprep.recording import ProgressCallback

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class GeneratedImage:
    """One image and how it came to be. trial: number in the source. row: its place in a batch of `batch_size`."""

    image: np.ndarray
    trial: int
    seed: int
    name: str
    label: str | None
    eeg_sha256: str
    row: int

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"trial-{self.trial:06d}_seed-{self.seed}"


# ---------------------------------------------------------------------------------------------- images


Maker = DreamDiffusionPipeline | AlignedPipeline  # what makes pictures of EEG


def load_maker(model: str | Path, config: GenerateConfig) -> Maker:
    """The pipeline of a fine-tuned run, or an aligned run before the frozen generator that `config` names."""
    if not is_aligned(model):
        needs_generator({name: getattr(config, name) for name in ("sd", "adapter", "prompt", "prior")})
        return load_pipeline(model, config)
    device = "cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu"
    return load_aligned_pipeline(
        model, config.sd, config.adapter, prior=config.prior, dtype=DTYPES[config.precision], scheduler=config.scheduler,
        prompt=config.prompt, adapter_scale=config.adapter_scale, device=device,
    )  # fmt: skip


def load_pipeline(model: str | Path, config: GenerateConfig) -> DreamDiffusionPipeline:
    """The pipeline of a run on the device, in the precision and with the scheduler of `config`."""
    pipeline = DreamDiffusionPipeline.from_pretrained(model, dtype=DTYPES[config.precision])
    if config.scheduler != "own":
        pipeline.scheduler = make_scheduler(config.scheduler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    device = "cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu"
    for part in (pipeline.unet, pipeline.vae, pipeline.encoder, pipeline.conditioner):
        part.to(device)
    return pipeline


def generator_for(trial: int, seed: int) -> torch.Generator:
    """The random numbers of one image: they depend on the trial's number and the seed, and on nothing else."""
    return torch.Generator().manual_seed(mix(trial, seed, "generate"))


def generate(
    pipeline: Maker,
    trials: TrialSet,
    config: GenerateConfig,
    *,
    skip: Callable[[int, int], bool] | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[GeneratedImage]:
    """Images of all trials, sample by sample within a trial.

    Every batch has `config.batch_size` rows, the last one filled up by repeating its last row, so that the arithmetic is always
    of the same shape. Rows do not influence each other.

    Args:
        skip: (trial number, seed) -> whether that image exists; a batch of which all exist is not computed.
    """
    jobs = [(position, config.seed + k) for position in range(len(trials)) for k in range(config.samples)]
    for start in range(0, len(jobs), config.batch_size):
        batch = jobs[start : start + config.batch_size]
        if not (skip and all(skip(int(trials.numbers[position]), seed) for position, seed in batch)):
            yield from _make_batch(pipeline, trials, config, batch)
        if progress:
            progress(min(start + config.batch_size, len(jobs)), len(jobs), "images")


def _make_batch(
    pipeline: Maker, trials: TrialSet, config: GenerateConfig, batch: Sequence[tuple[int, int]]
) -> Iterator[GeneratedImage]:
    positions = sorted({position for position, _ in batch})
    eeg_NCT = trials.read(positions)
    place = {position: row for row, position in enumerate(positions)}
    filled = [*batch, *[batch[-1]] * (config.batch_size - len(batch))]
    images = render(
        pipeline, eeg_NCT[[place[position] for position, _ in filled]],
        [generator_for(int(trials.numbers[position]), seed) for position, seed in filled], config,
        [trials.people[position] for position, _ in filled] if trials.people else None,
    )  # fmt: skip
    for row, (position, seed) in enumerate(batch):
        yield GeneratedImage(
            images[row], int(trials.numbers[position]), seed, trials.names[position], trials.labels[position],
            sha256_array(eeg_NCT[place[position]]), row,
        )  # fmt: skip


def render(
    pipeline: Maker, eeg_NCT: np.ndarray, generators: list[torch.Generator], config: GenerateConfig,
    people: Sequence[str | None] | None = None,
) -> np.ndarray:  # fmt: skip
    """(n, H, W, 3) uint8, one image per EEG window and generator. people: whose trials they are, for aligned encoders."""
    more: dict[str, Any] = {"people": people} if isinstance(pipeline, AlignedPipeline) else {}
    made = pipeline(
        eeg_NCT, num_inference_steps=config.steps, guidance_scale=config.guidance, generator=generators, output_type="np", **more
    ).images
    return (np.asarray(made) * 255).round().astype(np.uint8)
