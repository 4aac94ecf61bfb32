"""`DreamDiffusionPipeline`: a diffusers pipeline whose prompt is EEG.

Shapes: N trials, B images, C channels (of EEG or latent), T samples, L tokens, D width, H W pixels.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from pydantic import Field
from torch import Tensor

from dreamdiff.devices import place_of, send
from dreamdiff.diffusion.adapters import attach_tensors, has_adapter, without_adapter
from dreamdiff.diffusion.conditioner import Conditioner, Context, condition
from dreamdiff.diffusion.model_folders import load_part
from dreamdiff.diffusion.noise import load_scheduler, make_scheduler
from dreamdiff.diffusion.pipeline_folder import (
    DETAILS,
    INDEX,
    OWN_PARTS,
    PARTS,
    check_options,
    load_conditioner,
    pipeline_folder,
    require_json,
    save_conditioner,
    verify_files,
)
from dreamdiff.diffusion.sampling import NOT_FINITE, Condition, at_decoder, guided_sample, require_finite, start_noise
from dreamdiff.diffusion.stable_diffusion import vae_factor
from dreamdiff.eeg_input import SignalConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.untrusted.hub import model_folder
from eegprep import atomic, settings
from eegprep.errors import CheckpointError, DataError, ModelError, UsageError
from eegprep.provenance import sha256_file, sha256_json
from eegprep.settings import Settings

DEFAULT_STEPS = 20  # DPM-Solver++ of order 2 (Lu et al. 2022)


class PipelineConfig(Settings):
    """What belongs to a pipeline besides its weights."""

    guidance: float = Field(default=1.0, description="Guidance scale that is used when none is asked for")
    guidance_trained: bool = Field(
        default=False, description='Whether "no EEG" was trained, so that a scale other than 1 has a meaning'
    )
    image_size: int | None = Field(default=None, description="Pixels along the side; None: the U-Net's own size")
    signal: SignalConfig = Field(default=SignalConfig(), description="What the EEG has to be, as it was for training")
    classes: tuple[str, ...] = Field(default=(), description="Names of the classes that it was trained on")
    training: dict[str, object] = Field(default_factory=dict, description="What it was trained on and how, for people to read")


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
        details: PipelineConfig | dict[str, Any] | None = None, files: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_fit(unet, vae, encoder, conditioner)
        if conditioner.adapter is not None and not has_adapter(unet):
            attach_tensors(unet, conditioner.adapter.tensors)
        self.register_modules(unet=unet, vae=vae, scheduler=scheduler, encoder=encoder, conditioner=conditioner)
        self.details = settings.validated(PipelineConfig, details) if isinstance(details, dict) else details or PipelineConfig()
        self.files = files or {}
        self.image_processor = VaeImageProcessor(vae_scale_factor=vae_factor(vae))

    # ------------------------------------------------------------------------------------------- on disk

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | Path, *, dtype: torch.dtype | None = None, torch_dtype: torch.dtype | None = None, verify: bool = True,
        scheduler: str | None = None, variant: str | None = None, revision: str | None = None, local_files_only: bool = False,
        cache_dir: str | Path | None = None, token: str | bool | None = None, **options: Any,
    ) -> DreamDiffusionPipeline:  # fmt: skip
        """Read a pipeline folder, or the run of `dreamdiff train finetune` that holds one; or a repository of the Hub, named `owner/name` or
        `hf:owner/name`. A folder opens no network connection.

        Args:
            dtype, torch_dtype: of U-Net and VAE, default float32; encoder and conditioner, which are small, stay in float32.
            verify: compare every file with the SHA-256 that was written with it (once per file and time stamp).
            scheduler: replace the sampler, see `noise.make_scheduler`.
            revision: of a repository: branch, tag or commit. local_files_only, cache_dir, token: as everywhere on the Hub.
            variant: of the weight files, such as "fp16"; without it, whichever is there.
            options: parts to use in place of the folder's (`unet=`, `vae=`, `encoder=`, `conditioner=`); what else diffusers takes for
                loading and has no meaning here (`use_safetensors`, `low_cpu_mem_usage`, ...).

        Raises:
            UsageError: an unknown option. ModelError: not such a pipeline, or parts that do not fit together.
            CheckpointError: a damaged file.
        """
        given = {part: options.pop(part) for part in PARTS if part in options}
        check_options(options)
        dtype = dtype or torch_dtype or torch.float32
        source = pipeline_folder(
            model_folder(folder, revision=revision, offline=local_files_only, cache_dir=cache_dir, token=token)
        )
        index = require_json(source / INDEX)
        missing = [part for part in PARTS if part not in given and (part not in index or not (source / part).is_dir())]
        if index.get("_class_name") != cls.__name__ or missing:
            lacks = f"it lacks {', '.join(missing)}" if missing else f"it is a {index.get('_class_name')}"
            raise ModelError(
                f"{source}: not a DreamDiffusion pipeline, {lacks}",
                "give a run of `dreamdiff train finetune`, or a folder of `dreamdiff convert`",
            )
        content = require_json(source / DETAILS)
        details, files = settings.validated(PipelineConfig, content.get("pipeline", {})), dict(content.get("files", {}))
        if verify:
            verify_files(source, {**files, **dict(content.get("settings", {}))})
        schedule = given.get("scheduler") or load_scheduler(source / "scheduler")
        parts: dict[str, Any] = {
            "unet": given.get("unet") or load_part(UNet2DConditionModel, source / "unet", dtype, variant),
            "vae": given.get("vae") or load_part(AutoencoderKL, source / "vae", dtype, variant),
            "encoder": given.get("encoder") or EEGEncoder.from_pretrained(source / "encoder"),
            "conditioner": given.get("conditioner") or load_conditioner(source / "conditioner"),
        }
        for name, part in parts.items():
            if name not in given:
                part.eval().requires_grad_(False)
        parts["scheduler"] = schedule if scheduler is None else make_scheduler(scheduler, schedule.config)
        return cls(**parts, details=details, files=files)

    def save_pretrained(  # type: ignore[override]
        self, folder: str | Path, *, safe_serialization: bool = True, variant: str | None = None, **options: Any
    ) -> None:
        """Write model_index.json and a folder per part (JSON and safetensors); the whole appears at once, complete.

        Args:
            variant: part of the names of the U-Net's and VAE's weight files, such as "fp16".
            options: `max_shard_size`.

        Raises:
            UsageError: pickled weights are asked for, or an unknown option.
        """
        if not safe_serialization or set(options) - {"max_shard_size"}:
            unknown = "safe_serialization=False" if not safe_serialization else sorted(set(options) - {"max_shard_size"})[0]
            raise UsageError(f"save_pretrained({unknown}) is not supported", "weights are written as safetensors; leave it out")
        final = Path(folder)
        if final.exists() and not (final / INDEX).is_file() and any(final.iterdir()):
            raise CheckpointError(f"{final}: is not empty and is not a pipeline folder", "choose another folder")
        partial = atomic.partial_path(final)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _save_part(self.vae, partial / "vae", variant, options)
        with without_adapter(self.unet):  # the conditioner keeps it
            _save_part(self.unet, partial / "unet", variant, options)
        self.scheduler.save_pretrained(partial / "scheduler")
        self.encoder.save_pretrained(partial / "encoder")
        save_conditioner(self.conditioner, partial / "conditioner")
        details = self.details.model_dump(mode="json")
        index: dict[str, Any] = {"_class_name": type(self).__name__, "_diffusers_version": metadata.version("diffusers")}
        index |= {part: list(self.config[part]) for part in PARTS} | OWN_PARTS | {"details": details}
        digests = {
            file.relative_to(partial).as_posix(): sha256_file(file) for file in sorted(partial.rglob("*")) if file.is_file()
        }
        self.files = {name: digest for name, digest in digests.items() if name.endswith(".safetensors")}
        # apart from the weights: the fingerprint of a model must not change with a key of a configuration
        others = {name: digest for name, digest in digests.items() if name not in self.files}
        atomic.write_json(partial / DETAILS, {"pipeline": details, "files": self.files, "settings": others})
        # last: diffusers takes a folder with this file for a pipeline
        atomic.write_json(partial / INDEX, index)
        atomic.publish_folder(partial, final)

    def push_to_hub(self, *args: Any, **options: Any) -> Any:
        """Refused: diffusers' own would publish without a licence verdict, manifest and card.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "this pipeline is published with its licences and evidence", 'use dreamdiff.push_to_hub(pipeline, "OWNER/NAME")'
        )

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the U-Net; encoder and conditioner may be in another."""
        return self.unet.dtype

    @property
    def fingerprint(self) -> str:
        """Digest of all weight files; two pipelines with the same one give the same images."""
        return sha256_json(self.files, blanks=True)

    @property
    def image_size(self) -> int:
        """Pixels along the side of an image."""
        return self.details.image_size or int(self.unet.config.sample_size) * vae_factor(self.vae)

    # --------------------------------------------------------------------------------------- generation

    @torch.no_grad()
    def encode(self, eeg_NCT: Any) -> Context:
        """EEG in uV, (N, channels, samples), as array, tensor or nested lists of any number type, to what the U-Net reads."""
        for part in (
            self.encoder,
            self.conditioner,
        ):  # `scale` and `null` are no forward passes, which alone a hook of model offload sees
            hook = getattr(part, "_hf_hook", None)
            if hook is not None:
                hook.pre_forward(part)
        device, dtype = place_of(self.encoder)
        return condition(self.encoder, self.conditioner, send(as_eeg(eeg_NCT), device, dtype))

    @torch.no_grad()
    def __call__(
        self,
        eeg_NCT: Any,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float | None = None,
        num_images_per_trial: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: Literal["pil", "np", "pt", "latent"] = "pil",
        eta: float = 0.0,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
    ) -> DreamDiffusionOutput:
        """Images for EEG trials; image k belongs to trial k // num_images_per_trial.

        Args:
            eeg_NCT: (N, channels, samples), uV.
            guidance_scale: 1 for none (the paper); above, classifier-free guidance, for a model that was trained for it.
            generator: one per image, so that an image does not depend on what else is in the batch; or one for all.
            latents: start noise (B, C, H, W) with unit variance instead of the generators'.
            eta: for schedulers that have it (DDIM).
            callback_on_step_end_tensor_inputs: what the callback is given; there are only "latents".
            return_dict: False gives a tuple of images and CLIP vectors.

        Raises:
            DataError: EEG or latents that are not finite, naming the trial. ModelError: an image would not be finite.
            UsageError: guidance, steps or options that the model cannot do.
        """
        others = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if others:
            raise UsageError(f"the callback cannot be given {sorted(others)[0]!r}", "ask for latents")
        context = repeat(self.encode(eeg_NCT), num_images_per_trial)
        batch = len(context.tokens_BLD)
        scale = self._guidance(guidance_scale)
        generators = list(generator) if isinstance(generator, Sequence) else generator
        side = self.image_size // vae_factor(self.vae)
        shape = (int(self.unet.config.in_channels), side, side)
        device = self._execution_device
        if latents is not None:
            require_finite(latents, "the latents given", DataError, "give finite start noise")
        noise_BCHW = start_noise(shape, generators, batch, device) if latents is None else latents.to(device)

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
        vectors = None if context.clip_BD is None else context.clip_BD[::num_images_per_trial]
        made = DreamDiffusionOutput(images=images, clip_vectors=vectors)
        return made if return_dict else (images, vectors)  # type: ignore[return-value]  # as diffusers' pipelines do

    def _guidance(self, asked: float | None) -> float:
        scale = self.details.guidance if asked is None else float(asked)
        if scale != 1 and not self.details.guidance_trained:
            raise UsageError(
                f"guidance {scale:g} needs a model that was trained without EEG part of the time, and this one was not",
                "use --guidance 1, or train with --set guidance_dropout=0.1",
            )
        return scale

    def _decode(self, state_BCHW: Tensor, output_type: str) -> Any:
        decoded = self.vae.decode(at_decoder(self.vae, state_BCHW) / self.vae.config.scaling_factor).sample
        require_finite(decoded, "the pixels of image", ModelError, NOT_FINITE)
        return self.image_processor.postprocess(decoded.float(), output_type=output_type)


def as_eeg(eeg_NCT: Any) -> Tensor:
    """EEG of trials as a tensor, whatever it comes as: arrays of any byte order and number type, tensors, nested lists.

    Raises:
        DataError: not numbers of three dimensions, or not finite, naming the first trial that is not.
    """
    try:
        if isinstance(eeg_NCT, list | tuple) and any(isinstance(trial, Tensor) for trial in eeg_NCT):
            eeg_NCT = torch.stack([torch.as_tensor(trial) for trial in eeg_NCT])
        if not isinstance(eeg_NCT, Tensor):
            array = np.asarray(eeg_NCT)
            if array.dtype.kind not in "fiub":
                raise ValueError(f"values of type {array.dtype}")
            # torch knows neither foreign byte orders nor long doubles
            plain = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
            eeg_NCT = torch.from_numpy(np.ascontiguousarray(array.astype(plain)))
        if eeg_NCT.ndim != 3:
            raise ValueError(f"shape {tuple(eeg_NCT.shape)}")
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"the EEG is not (trials, channels, samples) of numbers: {error}", "give an array in uV") from None
    require_finite(eeg_NCT, "the EEG of trial", DataError, "leave that trial out, or repair it")
    return eeg_NCT if eeg_NCT.is_floating_point() else eeg_NCT.float()


def _condition(context: Context) -> Condition:
    """What the U-Net reads of a context."""
    return Condition(context.tokens_BLD, context.time_BD, context.image_BD)


def repeat(context: Context, times: int) -> Context:
    """Every row `times` times, in order."""
    if times == 1:
        return context

    def each(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.repeat_interleave(times, dim=0)

    return Context(
        context.tokens_BLD.repeat_interleave(times, dim=0),
        each(context.clip_BD),
        each(context.time_BD),
        each(context.logits_BK),
        each(context.image_BD),
    )


def check_fit(unet: Any, vae: Any, encoder: EEGEncoder, conditioner: Conditioner) -> None:
    """Stop parts that cannot work together, before any time is spent.

    Raises:
        ModelError: naming both numbers.
    """
    config = conditioner.config
    channels = encoder.config.channels
    embedding_width = int(unet.config.block_out_channels[0]) * 4  # the U-Net's time embedding is 4 times its first width
    for what, first, second in (
        ("tokens of the EEG encoder and of the conditioner", encoder.tokens, config.tokens_in),
        ("channels of the EEG encoder and of the linear path", channels, config.linear_channels or channels),
        ("width of the EEG encoder and of the conditioner", encoder.width, config.width_in),
        ("context width of the conditioner and of the U-Net", config.context_width, int(unet.config.cross_attention_dim)),
        ("latent channels of the VAE and of the U-Net", int(vae.config.latent_channels), int(unet.config.in_channels)),
        ("time width of the conditioner and of the U-Net", config.time_width or embedding_width, embedding_width),
    ):
        if first != second:
            raise ModelError(f"{what} differ: {first} and {second}", "put together parts of one training run")
    if bool(config.time_width) != (unet.config.class_embed_type == "identity"):
        raise ModelError(
            f"time branch of width {config.time_width}, but class_embed_type {unet.config.class_embed_type} in the U-Net",
            "put together parts of one training run",
        )


def _save_part(part: Any, folder: Path, variant: str | None, options: dict[str, Any]) -> None:
    """diffusers' own writing; a full disk is an OSError here as everywhere, not an error of safetensors."""
    try:
        part.save_pretrained(folder, variant=variant, **options)
    except Exception as error:
        full = re.search(r"os error (\d+)", str(error))
        if full is None:
            raise
        raise OSError(int(full[1]), os.strerror(int(full[1])), str(folder)) from None


class _EncoderPart:
    """How `diffusers.DiffusionPipeline.from_pretrained` reads the encoder of a pipeline folder."""

    @classmethod
    def from_pretrained(cls, folder: str, **_: Any) -> EEGEncoder:
        return EEGEncoder.from_pretrained(folder).eval()


class _ConditionerPart:
    """The same for the conditioner."""

    @classmethod
    def from_pretrained(cls, folder: str, **_: Any) -> Conditioner:
        return load_conditioner(Path(folder)).eval()


def _register() -> None:
    """Make `DiffusionPipeline.from_pretrained(folder)` find this class: diffusers looks for classes in itself and its `pipelines`."""
    import diffusers

    diffusers.DreamDiffusionPipeline = DreamDiffusionPipeline  # type: ignore[attr-defined]
    for part, kind in (("encoder", _EncoderPart), ("conditioner", _ConditionerPart)):
        library, name = OWN_PARTS[part]
        setattr(diffusers.pipelines, library, SimpleNamespace(**{name: kind}))


_register()
