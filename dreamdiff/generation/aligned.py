"""An aligned encoder before a frozen generator, with the face of a pipeline: EEG in, pictures out.

`train align` has never seen the generator, and the generator has never seen EEG: the image vector between them is all that passes.

Shapes: N trials, C channels, T samples, D width of an image vector, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.diffusion.adapters import VectorSpace, check_space
from dreamdiff.diffusion.pipeline import DreamDiffusionOutput, PipelineConfig, SignalConfig
from dreamdiff.diffusion.prior import Prior
from dreamdiff.diffusion.vector_generator import VectorGenerator, load_vector_generator
from dreamdiff.encoders.weights import weights_digest
from dreamdiff.run_folder import WEIGHTS_FILE, weights_folder
from eegprep.errors import CheckpointError, ModelError, UsageError
from eegprep.provenance import sha256_json


@dataclass(frozen=True)
class TrialShape:
    """What trials have to be: see `generation.trials.check_shape`."""

    channels: int
    window: int
    scaling: str = "none"


@dataclass(frozen=True)
class Reader:
    """Stands where a pipeline has its EEG encoder."""

    config: TrialShape


@dataclass
class AlignedPipeline:
    """EEG -> image vector -> picture.

    prior: pulls vectors towards training pictures first (`--prior`). files: weight file -> SHA-256.
    """

    aligned: AlignedEncoder
    generator: VectorGenerator
    prior: Prior | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def details(self) -> PipelineConfig:
        """What the EEG has to be, and the generator's own guidance."""
        front = self.aligned.config.front
        signal = SignalConfig(sfreq=front.sfreq, t0=front.t0, unit=front.unit)
        return PipelineConfig(guidance=self.generator.guidance, guidance_trained=True, signal=signal)

    @property
    def encoder(self) -> Reader:
        """Shape of the trials that the encoder reads."""
        front = self.aligned.config.front
        return Reader(TrialShape(front.channels, front.samples))

    @property
    def image_size(self) -> int:
        """Pixels along the side of a picture."""
        return self.generator.image_size

    @property
    def fingerprint(self) -> str:
        """Digest of all weights, of the encoder and of the generator."""
        content = {"aligned": self.files, "generator": self.generator.files}
        return sha256_json(content, blanks=True)

    def vectors(self, eeg_NCT: Tensor | np.ndarray, people: Sequence[str | None] | None = None) -> Tensor:
        """(N, D) image vectors of trials; people that the encoder has not seen count as new."""
        eeg = torch.as_tensor(np.asarray(eeg_NCT))
        names = list(people) if people is not None else [None] * len(eeg)
        out = torch.empty(len(eeg), self.generator.reads.width)
        for name in dict.fromkeys(names):
            rows = [row for row, other in enumerate(names) if other == name]
            # None: the encoder's way for people it has not seen
            known = name if name in self.aligned.config.people else None
            out[rows] = self.aligned.encode(eeg[rows], person=known, target=self.target)
        return out

    @property
    def target(self) -> int:
        """Number of the target whose vectors the generator reads."""
        return fitting_target(self.aligned, self.generator)

    def pictures(
        self, vectors_ND: Tensor, generators: Sequence[torch.Generator], *, steps: int = 20, guidance: float | None = None
    ) -> np.ndarray:
        """(N, H, W, 3) uint8 pictures of vectors, behind the prior if there is one."""
        pulled = vectors_ND if self.prior is None else self.prior(vectors_ND)
        return self.generator(pulled, generators, steps=steps, guidance=guidance)

    def __call__(
        self, eeg_NCT: Tensor | np.ndarray, num_inference_steps: int = 20, guidance_scale: float | None = None,
        generator: Sequence[torch.Generator] = (), output_type: str = "np", people: Sequence[str | None] | None = None,
    ) -> DreamDiffusionOutput:  # fmt: skip
        """As `DreamDiffusionPipeline`, for arrays in 0..1; one generator per trial."""
        if output_type != "np":
            raise UsageError(f"output_type {output_type!r} is not offered here", "use 'np'")
        vectors = self.vectors(eeg_NCT, people)
        made = self.pictures(vectors, generator, steps=num_inference_steps, guidance=guidance_scale)
        return DreamDiffusionOutput(images=made.astype(np.float32) / 255, clip_vectors=vectors)


def spaces_of(aligned: AlignedEncoder) -> list[VectorSpace]:
    """The spaces of its targets, in order."""
    return [VectorSpace(target.name, target.width, target.fingerprint) for target in aligned.config.targets]


def fitting_target(aligned: AlignedEncoder, generator: VectorGenerator) -> int:
    """Number of the first target whose vectors the generator reads.

    Raises:
        ModelError: there is none; names the generator's image encoder and the run's.
    """
    for number, space in enumerate(spaces_of(aligned)):
        try:
            check_space(generator.adapter, generator.reads, space)
        except ModelError:
            continue
        return number
    check_space(generator.adapter, generator.reads, spaces_of(aligned)[0])
    raise AssertionError("unreachable: the first target fits or was refused")


def load_aligned_pipeline(
    model: str | Path, sd: str | None, adapter: str | None = None, *, prior: bool = False, dtype: torch.dtype = torch.float32,
    scheduler: str | None = None, prompt: str = "", adapter_scale: float = 1.0, device: str | torch.device = "cpu",
) -> AlignedPipeline:  # fmt: skip
    """Read an aligned run and the frozen generator that turns its vectors into pictures.

    Args:
        model: run of `dreamdiff train align`. sd, adapter, scheduler, prompt, adapter_scale: see `load_vector_generator`; without
            `sd`, the embedded generator for a run whose target is the embedded CLIP.
        prior: pull vectors towards the pictures that the adapter was trained on.

    Raises:
        ModelError: no generator named, or one that reads other vectors than the run gives.
    """
    aligned = AlignedEncoder.from_pretrained(model)
    if sd is None and "embedded" not in aligned.target_names:
        raise ModelError(
            f"{model} gives vectors of {', '.join(aligned.target_names)}, and no generator was named that draws them",
            "give --sd and --adapter (see docs/frozen-generators.md)",
        )
    generator = load_vector_generator(
        sd or "embedded", adapter, dtype=dtype, scheduler=scheduler, prompt=prompt, adapter_scale=adapter_scale
    )
    fitting_target(aligned, generator)
    pull = None
    if prior:
        if generator.bank_ND is None:
            raise ModelError(
                f"{generator.adapter} brings no vectors of training pictures, which --prior needs", "leave --prior out"
            )
        pull = Prior(generator.bank_ND)
    generator.to(device)
    aligned.to(device)
    weights = weights_folder(Path(model)) / WEIGHTS_FILE
    if not weights.is_file():
        raise CheckpointError(f"{weights}: missing", "run `dreamdiff train align` again with the same --out")
    return AlignedPipeline(aligned, generator, pull, {WEIGHTS_FILE: weights_digest(weights.parent)})


def needs_generator(options: dict[str, object]) -> None:
    """Raises UsageError when options of a frozen generator are given for a pipeline that brings its own."""
    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(
            f"--{given[0]} belongs to runs of `dreamdiff train align`; this model brings its own generator",
            f"leave --{given[0]} out",
        )
