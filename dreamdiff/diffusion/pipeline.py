"""`DreamDiffusionPipeline`: a diffusers pipeline whose prompt is EEG.

Shapes: N trials, B images, C channels (of EEG or latent), T samples, L tokens, D width, H W pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from pydantic import Field
from torch import Tensor

from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig, Context, condition
from dreamdiff.diffusion.noise import load_scheduler, make_scheduler
from dreamdiff.diffusion.sampling import Condition, guided_sample, start_noise
from dreamdiff.diffusion.stable_diffusion import load_part, vae_factor
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.weights import load_module, read_config, save_folder
from eegprep import atomic, settings
from eegprep.errors import CheckpointError, ModelError, UsageError
from eegprep.provenance import sha256_file
from eegprep.settings import Settings

INDEX, DETAILS, FOLDER = "model_index.json", "dreamdiff.json", "pipeline"
# what model_index.json has always called our own parts; diffusers would write the module that a class happens to live in
OWN_PARTS = {"encoder": ["dreamdiff.encoder", "EEGEncoder"], "conditioner": ["dreamdiff.conditioner", "Conditioner"]}

PARTS = ("unet", "vae", "scheduler", "encoder", "conditioner")

DEFAULT_STEPS = 20  # DPM-Solver++ of order 2 (Lu et al. 2022)


class SignalConfig(Settings):
    """What the EEG has to be, as it was for training: rate, first sample relative to the image, pass band, unit."""

    sfreq: float | None = Field(default=None, description="Hz")
    t0: float | None = Field(default=None, description="First sample, s from the onset of the image")
    band: tuple[float, float] | None = Field(default=None, description="Pass band, Hz")
    unit: str = "uV"


class PipelineConfig(Settings):
    """What belongs to a pipeline besides its weights.

    guidance: scale used when none is asked for.
    guidance_trained: whether "no EEG" was trained, so that a scale other than 1 has a meaning.
    """

    guidance: float = 1.0
    guidance_trained: bool = False
    image_size: int | None = Field(default=None, description="Pixels along the side; None: the U-Net's own size")
    signal: SignalConfig = SignalConfig()
    classes: tuple[str, ...] = ()
    training: dict[str, Any] = Field(default_factory=dict, description="What it was trained on and how, for people to read")


@dataclass
class DreamDiffusionOutput(BaseOutput):
    """images: PIL images, or an array or tensor, as asked for. clip_vectors: h(y) of every trial, (N, D), or None."""

    images: Any
    clip_vectors: Tensor | None = None


class DreamDiffusionPipeline(DiffusionPipeline):
    """EEG in, images out: encoder -> conditioner -> U-Net under any diffusers scheduler -> VAE.

    Example:
        pipe = DreamDiffusionPipeline.from_pretrained("RUN")
        pipe(eeg_NCT, num_inference_steps=20, generator=[torch.Generator().manual_seed(s) for s in seeds]).images
    """

    model_cpu_offload_seq: Any = "encoder->conditioner->unet->vae"
    _callback_tensor_inputs = ("latents",)
    unet: Any
    vae: Any
    scheduler: Any
    encoder: EEGEncoder
    conditioner: Conditioner

    def __init__(
        self, unet: Any, vae: Any, scheduler: Any, encoder: EEGEncoder, conditioner: Conditioner,
        details: PipelineConfig | None = None, files: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_fit(unet, vae, encoder, conditioner)
        self.register_modules(unet=unet, vae=vae, scheduler=scheduler, encoder=encoder, conditioner=conditioner)
        self.details = details or PipelineConfig()
        self.files = files or {}
        self.image_processor = VaeImageProcessor(vae_scale_factor=vae_factor(vae))

    # ------------------------------------------------------------------------------------------- on disk

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | Path, *, dtype: torch.dtype = torch.float32, verify: bool = False, scheduler: str | None = None
    ) -> DreamDiffusionPipeline:
        """Read a pipeline folder, or the run of `dreamdiff train finetune` that holds one. Opens no network connection.

        Args:
            dtype: of U-Net and VAE; encoder and conditioner, which are small, stay in float32.
            verify: compare every weight file with the SHA-256 that was written with it.
            scheduler: replace the sampler, see `latent_diffusion.make_scheduler`.

        Raises:
            ModelError: not such a pipeline, or parts that do not fit together.
            CheckpointError: a damaged file.
        """
        source = pipeline_folder(Path(folder))
        index = _read_json(source / INDEX)
        missing = [part for part in PARTS if part not in index or not (source / part).is_dir()]
        if index.get("_class_name") != cls.__name__ or missing:
            lacks = f"it lacks {', '.join(missing)}" if missing else f"it is a {index.get('_class_name')}"
            raise ModelError(
                f"{source}: not a DreamDiffusion pipeline, {lacks}",
                "give a run of `dreamdiff train finetune`, or a folder of `dreamdiff convert`",
            )
        content = _read_json(source / DETAILS)
        details, files = settings.validated(PipelineConfig, content.get("pipeline", {})), dict(content.get("files", {}))
        if verify:
            _verify(source, files)
        unet = load_part(UNet2DConditionModel, source / "unet", dtype)
        vae = load_part(AutoencoderKL, source / "vae", dtype)
        schedule = load_scheduler(source / "scheduler")
        if scheduler is not None:
            schedule = make_scheduler(scheduler, schedule.config)
        pipeline = cls(
            unet,
            vae,
            schedule,
            EEGEncoder.from_pretrained(source / "encoder"),
            load_conditioner(source / "conditioner"),
            details,
            files,
        )
        for part in (pipeline.unet, pipeline.vae, pipeline.encoder, pipeline.conditioner):
            part.eval().requires_grad_(False)
        return pipeline

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Write model_index.json and a folder per part (JSON and safetensors); the whole appears at once, complete."""
        final = Path(folder)
        if final.exists() and not (final / INDEX).is_file() and any(final.iterdir()):
            raise CheckpointError(f"{final}: holds something else than a pipeline", "choose another folder")
        partial = atomic.partial_path(final)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for part in ("unet", "vae", "scheduler"):
            getattr(self, part).save_pretrained(partial / part)
        self.encoder.save_pretrained(partial / "encoder")
        save_conditioner(self.conditioner, partial / "conditioner")
        index: dict[str, Any] = {"_class_name": type(self).__name__, "_diffusers_version": metadata.version("diffusers")}
        index |= {part: list(self.config[part]) for part in PARTS} | OWN_PARTS
        self.files = {file.relative_to(partial).as_posix(): sha256_file(file) for file in sorted(partial.rglob("*.safetensors"))}
        atomic.write_json(partial / DETAILS, {"pipeline": self.details.model_dump(mode="json"), "files": self.files})
        atomic.write_json(partial / INDEX, index)
        atomic.publish_folder(partial, final)

    @property
    def fingerprint(self) -> str:
        """Digest of all weight files; two pipelines with the same one give the same images."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    @property
    def image_size(self) -> int:
        """Pixels along the side of an image."""
        return self.details.image_size or int(self.unet.config.sample_size) * vae_factor(self.vae)

    # --------------------------------------------------------------------------------------- generation

    @torch.no_grad()
    def encode(self, eeg_NCT: Tensor | np.ndarray) -> Context:
        """EEG in uV, (N, channels, samples), to what the U-Net reads."""
        place = next(self.encoder.parameters())
        eeg = torch.as_tensor(np.ascontiguousarray(eeg_NCT) if isinstance(eeg_NCT, np.ndarray) else eeg_NCT)
        return condition(self.encoder, self.conditioner, eeg.to(place.device, place.dtype))

    @torch.no_grad()
    def __call__(
        self,
        eeg_NCT: Tensor | np.ndarray,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float | None = None,
        num_images_per_trial: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: Literal["pil", "np", "pt", "latent"] = "pil",
        eta: float = 0.0,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor]] | None = None,
    ) -> DreamDiffusionOutput:
        """Images for EEG trials; image k belongs to trial k // num_images_per_trial.

        Args:
            eeg_NCT: (N, channels, samples), uV.
            guidance_scale: 1 for none (the paper); above, classifier-free guidance, for a model that was trained for it.
            generator: one per image, so that an image does not depend on what else is in the batch; or one for all.
            latents: start noise (B, C, H, W) with unit variance instead of the generators'.
            eta: for schedulers that have it (DDIM).
        """
        context = repeat(self.encode(eeg_NCT), num_images_per_trial)
        batch = len(context.tokens_BLD)
        scale = self._guidance(guidance_scale)
        generators = list(generator) if isinstance(generator, Sequence) else generator
        side = self.image_size // vae_factor(self.vae)
        shape = (int(self.unet.config.in_channels), side, side)
        noise_BCHW = start_noise(shape, generators, batch, self.unet.device) if latents is None else latents.to(self.unet.device)

        with self.progress_bar(total=num_inference_steps) as bar:

            def on_step(number: int, time: Tensor, state_BCHW: Tensor) -> Tensor:
                bar.update()
                if callback_on_step_end is None:
                    return state_BCHW
                return callback_on_step_end(self, number, time, {"latents": state_BCHW}).get("latents", state_BCHW)

            state_BCHW = guided_sample(
                self.unet, self.scheduler, noise_BCHW, _condition(context),
                _condition(self.conditioner.null(batch)) if scale != 1 else None,
                scale=scale, steps=num_inference_steps, eta=eta, generator=generators, on_step=on_step,
            )  # fmt: skip
        images = state_BCHW if output_type == "latent" else self._decode(state_BCHW, output_type)
        self.maybe_free_model_hooks()
        return DreamDiffusionOutput(
            images=images, clip_vectors=None if context.clip_BD is None else context.clip_BD[::num_images_per_trial]
        )

    def _guidance(self, asked: float | None) -> float:
        scale = self.details.guidance if asked is None else float(asked)
        if scale != 1 and not self.details.guidance_trained:
            raise UsageError(
                f"guidance {scale:g} needs a model that was trained without EEG part of the time, and this one was not",
                "use --guidance 1, or train with --set guidance_dropout=0.1",
            )
        return scale

    def _decode(self, state_BCHW: Tensor, output_type: str) -> Any:
        decoded = self.vae.decode(state_BCHW / self.vae.config.scaling_factor).sample
        return self.image_processor.postprocess(decoded.float(), output_type=output_type)


def _condition(context: Context) -> Condition:
    """What the U-Net reads of a context."""
    return Condition(context.tokens_BLD, context.time_BD)


def repeat(context: Context, times: int) -> Context:
    """Every row `times` times, in order."""
    if times == 1:
        return context

    def each(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.repeat_interleave(times, dim=0)

    return Context(
        context.tokens_BLD.repeat_interleave(times, dim=0), each(context.clip_BD), each(context.time_BD), each(context.logits_BK)
    )


def check_fit(unet: Any, vae: Any, encoder: EEGEncoder, conditioner: Conditioner) -> None:
    """Stop parts that cannot work together, before any time is spent.

    Raises:
        ModelError: naming both numbers.
    """
    config = conditioner.config
    channels = encoder.config.channels
    time_wanted = int(unet.config.block_out_channels[0]) * 4  # the U-Net's time embedding is 4 times its first width
    for what, first, second in (
        ("tokens of the EEG encoder and of the conditioner", encoder.tokens, config.tokens_in),
        ("channels of the EEG encoder and of the linear path", channels, config.linear_channels or channels),
        ("width of the EEG encoder and of the conditioner", encoder.width, config.width_in),
        ("context width of the conditioner and of the U-Net", config.context_width, int(unet.config.cross_attention_dim)),
        ("latent channels of the VAE and of the U-Net", int(vae.config.latent_channels), int(unet.config.in_channels)),
        ("time width of the conditioner and of the U-Net", config.time_width or time_wanted, time_wanted),
    ):
        if first != second:
            raise ModelError(f"{what} differ: {first} and {second}", "put together parts of one training run")
    if bool(config.time_width) != (unet.config.class_embed_type == "identity"):
        raise ModelError(
            f"time branch of width {config.time_width}, but class_embed_type {unet.config.class_embed_type} in the U-Net",
            "put together parts of one training run",
        )


def pipeline_folder(folder: Path) -> Path:
    """`folder` itself, or the pipeline in the run that it is."""
    for candidate in (folder, folder / FOLDER):
        if (candidate / INDEX).is_file():
            return candidate
    if (folder / "run.json").is_file():
        raise ModelError(
            f"{folder}: the run in it has not finished, there is no pipeline yet",
            "run `dreamdiff train finetune` again with the same --out",
        )
    raise ModelError(
        f"{folder}: no {INDEX} in it", "give a run of `dreamdiff train finetune`, or a folder of `dreamdiff convert`"
    )


def save_conditioner(conditioner: Conditioner, folder: Path) -> None:
    """config.json and model.safetensors."""
    save_folder(
        folder,
        {"architecture": "Conditioner", "version": 1, "conditioner": conditioner.config.model_dump()},
        conditioner.state_dict(),
    )


def load_conditioner(folder: Path) -> Conditioner:
    """The inverse of `save_conditioner`; every tensor must fit."""
    content = read_config(folder)
    config = settings.validated(ConditionerConfig, content.get("conditioner", {}))
    return load_module(lambda: Conditioner(config), folder)


def _verify(folder: Path, files: dict[str, str]) -> None:
    for name, wanted in files.items():
        found = sha256_file(folder / name) if (folder / name).is_file() else "nothing"
        if found != wanted:
            raise CheckpointError(
                f"{folder / name}: SHA-256 is {found[:12]}, it was {wanted[:12]} when the pipeline was written",
                "copy the pipeline again",
            )


def _read_json(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    raise CheckpointError(f"{file}: missing or not JSON", "copy the pipeline again")
