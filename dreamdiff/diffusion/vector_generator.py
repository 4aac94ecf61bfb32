"""Frozen generators that read image vectors: an IP-Adapter on Stable Diffusion 1.5, SDXL or the embedded model, a stable unCLIP
U-Net, or the Kandinsky 2.2 decoder.

Nothing here is trained on EEG. A vector goes in, `sampling.guided_sample` runs, a picture comes out, and a picture depends on its own
vector and its own random generator alone.

Shapes: B pictures, D width of a vector, L text tokens, W context width, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from dreamdiff.diffusion.adapters import VIT_G, VIT_H, ImageAdapter, VectorSpace, load_adapter
from dreamdiff.diffusion.noise import load_scheduler, make_scheduler
from dreamdiff.diffusion.sampling import Condition, decode, guided_sample, start_noise, to_uint8
from dreamdiff.diffusion.stable_diffusion import load_part, local_folder, vae_factor
from eegprep.errors import CheckpointError, ModelError, UsageError
from eegprep.provenance import sha256_file, sha256_json
from eegprep.sealed import read_object

Generators = Sequence[torch.Generator]
Conditions = Callable[[Tensor, Generators], tuple[Condition, Condition | None]]
ADAPTED_GUIDANCE = 7.5  # the published adapters' own examples
EMBEDDED_GUIDANCE = 3.0  # see docs/embedded-model.md
KANDINSKY_GUIDANCE, UNCLIP_GUIDANCE = 4.0, 10.0  # defaults of diffusers' pipelines


@dataclass(frozen=True)
class VectorGenerator:
    """Image vectors in, pictures out.

    reads: the vectors it was trained on. conditions: vectors and generators -> what the U-Net is asked for, and nothing (None: this
    generator has no "nothing", so guidance must be 1). guidance: its own scale. adapter: what reads the vectors, for messages. bank_ND: vectors for the prior, if it brings them.
    files: weight file -> SHA-256.
    """

    unet: Any
    vae: Any
    scheduler: Any
    reads: VectorSpace
    conditions: Conditions
    source: str
    guidance: float
    image_size: int
    adapter: str = ""
    bank_ND: Tensor | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Digest of all weight files."""
        return sha256_json(self.files, blanks=True)

    def to(self, device: str | torch.device) -> VectorGenerator:
        """Moved in place."""
        self.unet.to(device)
        self.vae.to(device)
        return self

    @overload
    def __call__(
        self, vectors_BD: Tensor, generators: Generators, *, steps: int = ..., guidance: float | None = ..., output: Literal["uint8"] = ...
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def __call__(
        self, vectors_BD: Tensor, generators: Generators, *, steps: int = ..., guidance: float | None = ..., output: Literal["latent"]
    ) -> Tensor: ...  # fmt: skip

    @torch.no_grad()
    def __call__(
        self, vectors_BD: Tensor, generators: Generators, *, steps: int = 20, guidance: float | None = None,
        output: Literal["uint8", "latent"] = "uint8",
    ) -> np.ndarray | Tensor:  # fmt: skip
        """(B, H, W, 3) uint8 pictures, or latents.

        Args:
            vectors_BD: as the image encoder gives them. generators: one per picture. guidance: None for the generator's own.

        Raises:
            ModelError: vectors of another width. UsageError: another number of generators; guidance without "nothing".
        """
        if vectors_BD.ndim != 2 or vectors_BD.shape[1] != self.reads.width:
            raise ModelError(
                f"{self.source} reads vectors of {self.reads.width} numbers ({self.reads.name}), these have shape "
                f"{tuple(vectors_BD.shape)}",
                f"give vectors of {self.reads.name}",
            )
        scale = self.guidance if guidance is None else float(guidance)
        side = self.image_size // vae_factor(self.vae)
        device = self.unet.device
        asked, nothing = self.conditions(vectors_BD.float().cpu(), generators)
        noise = start_noise((_latent_channels(self.vae), side, side), generators, len(vectors_BD), device)
        latents = guided_sample(
            self.unet, self.scheduler, noise, asked, nothing, scale=scale, steps=steps, generator=list(generators)
        )
        return latents if output == "latent" else to_uint8(decode(self.vae, latents))


def _latent_channels(vae: Any) -> int:
    return int(vae.config.latent_channels)


def load_vector_generator(
    sd: str | Path, adapter: str | Path | None = None, *, dtype: torch.dtype = torch.float32, scheduler: str | None = None,
    prompt: str = "", adapter_scale: float = 1.0, noise_level: int = 0, offline: bool = False,
) -> VectorGenerator:  # fmt: skip
    """Read a frozen generator from a local folder, "embedded", or a hub name.

    Args:
        sd: Stable Diffusion 1.5 or SDXL (Turbo) in diffusers' folders, which need an adapter; a stable unCLIP or Kandinsky 2.2 decoder
            folder, which read image vectors themselves; or "embedded".
        adapter: see `adapters.load_adapter`; "embedded" has one and takes it by default.
        scheduler: see `stable_diffusion.make_scheduler`; None keeps the folder's own, which SDXL-Turbo needs.
        prompt: text beside the vector; the published adapters were trained with and without.
        adapter_scale: weight of the adapter's attention. noise_level: of a stable unCLIP, 0 for the vector as it is.

    Raises:
        ModelError: parts that do not fit together, an adapter for a generator that needs none, or none for one that needs it.
        CheckpointError: a damaged file.
    """
    folder = local_folder(sd, offline=offline, text=True)
    config = _json(folder / "unet" / "config.json")
    own_vectors = config.get("encoder_hid_dim_type") == "image_proj" or config.get("class_embed_type") == "projection"
    if own_vectors and adapter is not None:
        raise ModelError(f"{sd} reads image vectors itself, and {adapter} is an adapter", "leave --adapter out")
    if not own_vectors and adapter is None and str(sd) != "embedded":
        raise ModelError(
            f"{sd} reads text, and no adapter was given that turns image vectors into what it reads",
            "give --adapter, for instance ip-adapter_sd15.safetensors (see docs/frozen-generators.md)",
        )
    from diffusers import UNet2DConditionModel

    unet = load_part(UNet2DConditionModel, folder / "unet", dtype).requires_grad_(False)
    vae = _decoder(folder, dtype).requires_grad_(False)
    schedule = load_scheduler(folder / "scheduler")
    if scheduler is not None and scheduler != "own":
        schedule = make_scheduler(scheduler, schedule.config)
    files = {f"{f.parent.name}/{f.name}": sha256_file(f) for part in ("unet", "vae", "movq") for f in _weights(folder / part)}
    size = int(unet.config.sample_size) * vae_factor(vae)
    if config.get("encoder_hid_dim_type") == "image_proj":
        reads, conditions = _kandinsky(folder, unet)
        return VectorGenerator(unet, vae, schedule, reads, conditions, str(sd), KANDINSKY_GUIDANCE, size, str(sd), None, files)
    text = _text(sd, folder, prompt)
    if config.get("class_embed_type") == "projection":
        reads, conditions = _unclip(folder, unet, text, noise_level)
        return VectorGenerator(unet, vae, schedule, reads, conditions, str(sd), UNCLIP_GUIDANCE, size, str(sd), None, files)
    loaded = load_adapter("embedded" if adapter is None else adapter)
    loaded.attach(unet, adapter_scale)
    guidance = EMBEDDED_GUIDANCE if str(sd) == "embedded" else ADAPTED_GUIDANCE
    return VectorGenerator(
        unet, vae, schedule, loaded.reads, _adapted(loaded, unet, text, size), str(sd), guidance, size,
        f"adapter {loaded.source}", loaded.bank_ND,
        files | {f"adapter/{name}": digest for name, digest in loaded.files.items()},
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ conditions


@dataclass(frozen=True)
class _Text:
    """States (1, L, W) and, for SDXL, pooled vectors (1, P), of the prompt and of nothing."""

    asked: Condition
    nothing: Condition


def _adapted(adapter: ImageAdapter, unet: Any, text: _Text, size: int) -> Conditions:
    is_xl = unet.config.addition_embed_type == "text_time"
    # original size, corner of the crop, target size (Podell et al. 2023, section 2.2)
    sizes = torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32) if is_xl else None

    def conditions(vectors_BD: Tensor, generators: Generators) -> tuple[Condition, Condition]:
        batch, read = len(vectors_BD), adapter.direction(vectors_BD)
        asked = _rows(text.asked, batch, sizes)
        if adapter.words is not None:
            asked = Condition(adapter.words(read), None, None, asked.text_BD, asked.size_B6)
        nothing = _rows(text.nothing, batch, sizes)
        return (
            Condition(asked.states_BLD, None, read, asked.text_BD, asked.size_B6),
            Condition(nothing.states_BLD, None, torch.zeros_like(read), nothing.text_BD, nothing.size_B6),
        )

    return conditions


def _rows(text: Condition, batch: int, sizes: Tensor | None) -> Condition:
    once = Condition(text.states_BLD, None, None, text.text_BD, sizes)
    return once.repeat(batch)


def _kandinsky(folder: Path, unet: Any) -> tuple[VectorSpace, Conditions]:
    """The decoder reads the vector alone; "nothing" is the vector of a black picture, kept in zero_image_vector.npy if known."""
    width = int(unet.config.encoder_hid_dim)
    file = folder / "zero_image_vector.npy"
    zero_1D = torch.from_numpy(np.load(file, allow_pickle=False).reshape(1, -1)).float() if file.is_file() else None
    if zero_1D is not None and zero_1D.shape[1] != width:
        raise ModelError(
            f"{file} has {zero_1D.shape[1]} numbers, the decoder reads {width}", "make it again with this decoder's image encoder"
        )

    def conditions(vectors_BD: Tensor, generators: Generators) -> tuple[Condition, Condition | None]:
        nothing = None if zero_1D is None else Condition(image_BD=zero_1D.expand(len(vectors_BD), -1))
        return Condition(image_BD=vectors_BD), nothing

    return VectorSpace(VIT_G if width == 1280 else "the decoder's own image encoder", width), conditions


def _unclip(folder: Path, unet: Any, text: _Text, noise_level: int) -> tuple[VectorSpace, Conditions]:
    """Stable unCLIP: the vector with a little noise, and how much, is added to the time embedding (Ramesh et al. 2022)."""
    from diffusers.models.embeddings import get_timestep_embedding
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    normaliser = load_part(StableUnCLIPImageNormalizer, folder / "image_normalizer", torch.float32)
    noising = load_scheduler(folder / "image_noising_scheduler")
    width = int(normaliser.mean.shape[1])
    if not 0 <= noise_level < int(noising.config.num_train_timesteps):
        raise UsageError(
            f"noise level {noise_level} is outside 0..{int(noising.config.num_train_timesteps) - 1}",
            "use 0 for the vector as it is",
        )

    def conditions(vectors_BD: Tensor, generators: Generators) -> tuple[Condition, Condition]:
        batch = len(vectors_BD)
        level_B = torch.full((batch,), noise_level)
        noise_BD = torch.stack([torch.randn(width, generator=g) for g in generators])
        noisy_BD = normaliser.unscale(noising.add_noise(normaliser.scale(vectors_BD), noise_BD, level_B))
        level_BD = get_timestep_embedding(level_B, width, flip_sin_to_cos=True, downscale_freq_shift=0)
        read = torch.cat([noisy_BD, level_BD], dim=1)
        asked, nothing = _rows(text.asked, batch, None), _rows(text.nothing, batch, None)
        return Condition(asked.states_BLD, read), Condition(nothing.states_BLD, torch.zeros_like(read))

    name = VIT_H if width == 1024 else "ViT-L-14:openai" if width == 768 else "the generator's own image encoder"
    return VectorSpace(name, width), conditions


# ------------------------------------------------------------------------------------------------ parts on disk


def _decoder(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKL, VQModel

    if (folder / "movq").is_dir():
        return load_part(VQModel, folder / "movq", dtype)
    return load_part(AutoencoderKL, folder / "vae", dtype)


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) if folder.is_dir() else []


def _json(file: Path) -> Mapping[str, Any]:
    content = read_object(file)
    if content is None:
        raise CheckpointError(f"{file}: missing or not a JSON object", "copy or download that folder again")
    return content


def _text(sd: str | Path, folder: Path, prompt: str) -> _Text:
    """States of the prompt and of the empty text, from the folder's own text encoders."""
    if str(sd) == "embedded":
        from dreamdiff.diffusion.clip import load_clip

        states = load_clip("embedded").text_states([prompt, ""], "zero")
        return _Text(Condition(states[:1]), Condition(states[1:]))
    index = _json(folder / "model_index.json")
    names = [name for name in ("text_encoder", "text_encoder_2") if (folder / name / "config.json").is_file()]
    if not names:
        raise ModelError(
            f"{sd}: no text_encoder/ folder in it, and the generator reads text beside the image vector",
            "copy the text encoder and tokenizer folders of this model too",
        )
    asked = [_encode(folder, name, prompt) for name in names]
    nothing = [_encode(folder, name, "") for name in names]
    if len(names) == 1 and not index.get("_class_name", "").startswith("StableDiffusionXL"):
        return _Text(Condition(asked[0][0]), Condition(nothing[0][0]))
    # SDXL joins the last hidden state but one of both encoders, and reads the pooled text of the second
    states, pooled = torch.cat([a[1] for a in asked], dim=2), asked[-1][2]
    none_states, none_pooled = torch.cat([a[1] for a in nothing], dim=2), nothing[-1][2]
    if index.get("force_zeros_for_empty_prompt", True):
        none_states, none_pooled = torch.zeros_like(none_states), torch.zeros_like(none_pooled)
    return _Text(Condition(states, text_BD=pooled), Condition(none_states, text_BD=none_pooled))


def _encode(folder: Path, name: str, prompt: str) -> tuple[Tensor, Tensor, Tensor]:
    """Last hidden state, the one before it, and the pooled vector, of a text encoder of transformers."""
    import transformers

    config = _json(folder / name / "config.json")
    kind = getattr(transformers, str((config.get("architectures") or ["CLIPTextModel"])[0]))
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        encoder = kind.from_pretrained(folder / name, local_files_only=True, use_safetensors=True, dtype=torch.float32).eval()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / name}: not a readable {kind.__name__} ({str(error).strip().splitlines()[0][:160]})",
            "copy or download that folder again, and check its SHA-256",
        ) from None
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    try:
        tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(
            folder / name.replace("text_encoder", "tokenizer"), local_files_only=True
        )
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: no readable tokenizer for {name} ({str(error).splitlines()[0][:160]})", "copy the tokenizer folders too"
        ) from None
    length = int(config.get("max_position_embeddings", 77))
    tokens = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        output = encoder(tokens, output_hidden_states=True)
    pooled = getattr(output, "text_embeds", None)
    return output.last_hidden_state, output.hidden_states[-2], output.pooler_output if pooled is None else pooled
