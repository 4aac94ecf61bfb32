"""Images from EEG: whose EEG, one random generator per (trial, seed), PNG files that say how to make them again.

Shapes: N trials, C channels, T samples, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from dreamdiff.devices import choose_device, dtype_of
from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.generation.aligned import AlignedPipeline, load_aligned_pipeline, needs_generator
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.trials import TrialSet
from dreamdiff.run_folder import is_aligned
from dreamdiff.training.task import mix
from eegprep.errors import DataError
from eegprep.provenance import sha256_array
from eegprep.recording import ProgressCallback


@dataclass(frozen=True)
class GeneratedFrom:
    """What an image is asked to be made from. trial: number in the source."""

    trial: int
    seed: int
    name: str
    label: str | None
    eeg_sha256: str


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
    device = choose_device(config.device)
    return load_aligned_pipeline(
        model, config.sd, config.adapter, prior=config.prior, dtype=dtype_of(config.precision, device), scheduler=config.scheduler,
        prompt=config.prompt, adapter_scale=config.adapter_scale, device=device,
    )  # fmt: skip


def load_pipeline(model: str | Path, config: GenerateConfig) -> DreamDiffusionPipeline:
    """The pipeline of a run on the device, in the precision and with the scheduler of `config`."""
    device = choose_device(config.device)
    pipeline = DreamDiffusionPipeline.from_pretrained(model, dtype=dtype_of(config.precision, device))
    if config.scheduler != "own":
        pipeline.scheduler = make_scheduler(config.scheduler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
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
    skip: Callable[[GeneratedFrom], bool] | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[GeneratedImage]:
    """Images of all trials, sample by sample within a trial.

    Every batch has `config.batch_size` rows, the last one filled up by repeating its last row, so that the arithmetic is always
    of the same shape. Rows do not influence each other.

    Args:
        skip: whether that image exists; a batch of which all exist is not computed.

    Raises:
        DataError: EEG that is not finite, naming the trial.
    """
    jobs = [(position, config.seed + k) for position in range(len(trials)) for k in range(config.samples)]
    for start in range(0, len(jobs), config.batch_size):
        batch = jobs[start : start + config.batch_size]
        positions = sorted({position for position, _ in batch})
        eeg_NCT = trials.read(positions)
        _require_finite(eeg_NCT, positions, trials)
        place = {position: row for row, position in enumerate(positions)}
        # before the U-Net runs: whether a picture is there already depends on the EEG's content
        digests = [sha256_array(eeg_CT) for eeg_CT in eeg_NCT]
        asked = [
            GeneratedFrom(
                int(trials.numbers[position]), seed, trials.names[position], trials.labels[position], digests[place[position]]
            )
            for position, seed in batch
        ]
        if not (skip and all(skip(job) for job in asked)):
            rows = [place[position] for position, _ in batch]
            people = [trials.people[position] for position in positions] if trials.people else None
            yield from _make_batch(pipeline, eeg_NCT, rows, asked, config, people)
        if progress:
            progress(min(start + config.batch_size, len(jobs)), len(jobs), "images")


def _require_finite(eeg_NCT: np.ndarray, positions: Sequence[int], trials: TrialSet) -> None:
    good_N = np.isfinite(eeg_NCT).all(axis=(1, 2))
    if not good_N.all():
        position = positions[int(np.flatnonzero(~good_N)[0])]
        raise DataError(
            f"{trials.source}: the EEG of trial {int(trials.numbers[position])} ({trials.names[position]}) holds values that are not finite",
            "leave that trial out with --trials, or repair it",
        )


def _make_batch(
    pipeline: Maker,
    eeg_NCT: np.ndarray,
    rows: Sequence[int],
    asked: Sequence[GeneratedFrom],
    config: GenerateConfig,
    people: Sequence[str | None] | None,
) -> Iterator[GeneratedImage]:
    # filled up: a batch of another shape would round differently
    more = config.batch_size - len(asked)
    filled = [*zip(rows, asked, strict=True), *[(rows[-1], asked[-1])] * more]
    images = render(
        pipeline, eeg_NCT[[row for row, _ in filled]], [generator_for(job.trial, job.seed) for _, job in filled], config,
        None if people is None else [people[row] for row, _ in filled],
    )  # fmt: skip
    for row, job in enumerate(asked):
        yield GeneratedImage(images[row], job.trial, job.seed, job.name, job.label, job.eeg_sha256, row)


def render(
    pipeline: Maker, eeg_NCT: np.ndarray, generators: list[torch.Generator], config: GenerateConfig,
    people: Sequence[str | None] | None = None,
) -> np.ndarray:  # fmt: skip
    """(n, H, W, 3) uint8, one image per EEG window and generator. people: whose trials they are, for aligned encoders."""
    more: dict[str, Any] = {"people": people} if isinstance(pipeline, AlignedPipeline) else {}
    made = cast(
        Any,
        pipeline(
            eeg_NCT,
            num_inference_steps=config.steps,
            guidance_scale=config.guidance,
            generator=generators,
            output_type="np",
            **more,
        ),
    ).images
    # rounded, not cut off: diffusers' PIL output does the same
    return (np.asarray(made) * 255).round().astype(np.uint8)
