"""Loads Stable Diffusion from any source and freezes it.

Shapes: B batch, C latent channels, H W latent pixels, L context tokens, D context width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dreamdiff.diffusion.model_folders import load_part, read_json, refuse_other_models, require_finite, weight_files
from dreamdiff.diffusion.noise import load_scheduler
from dreamdiff.untrusted.states import read_tensors
from eegprep.errors import ModelError
from eegprep.provenance import sha256_file, sha256_json

# the configuration of a single file, which holds tensors only
SD15_CONFIG = Path(__file__).parent / "sd15"

PARTS = ("unet", "vae")
# text encoders beside an adapter; the other decoders' own parts
TEXT_PARTS = (
    "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "movq", "image_normalizer", "image_noising_scheduler",
)  # fmt: skip
EMBEDDED = Path(__file__).parents[1] / "embedded" / "sd"


# SHA-256 of files that are known by content, as published beside each download
KNOWN_WEIGHTS = {
    "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa": "Stable Diffusion 1.5, pruned, EMA only (safetensors)",
    "1a189f0be69d6106a48548e7626207dddd7042a418dbf372cefd05e0cdba61b6": "Stable Diffusion 1.5, pruned (safetensors)",
    "cc6cb27103417325ff94f52b7a5d2dde45a7515b25c255d8e396c90014281516": "Stable Diffusion 1.5, pruned, EMA only (ckpt)",
    "e1441589a6f3c5a53f5f54d0975a18a7feb7cdf0b0dee276dfc3331ae376a053": "Stable Diffusion 1.5, pruned (ckpt, the paper's)",
    "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1": "Stable Diffusion 1.5, U-Net of the diffusers folder",
    "1b134cded8eb78b184aefb8805b6b572f36fa77b255c483665dda931fa0130c5": "Stable Diffusion 1.5, VAE of the diffusers folder",
    "36f45fbb58286820607a5f9dcf0e9549f6943320a64147e47ab4b94bfce37acf": "the embedded generator, U-Net",
    "31292a6fe351125d0448b612537457620c540edee140ccc448ed916c896adb01": "the embedded generator, VAE",
}

SingleFileKind = Literal["unet", "vae"]

_PREFIX: dict[SingleFileKind, str] = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}


@dataclass(frozen=True)
class StableDiffusion:
    """The parts of a latent diffusion model that this project uses; the text encoder is not one of them.

    files: path inside the source -> SHA-256; `known` names those whose content is known. notes: what is unusual about the source.
    """

    unet: Any
    vae: Any
    scheduler: Any
    source: str
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> StableDiffusion:
        """Moved in place."""
        for part in (self.unet, self.vae):
            part.to(device, dtype)
        return self

    @property
    def known(self) -> dict[str, str]:
        """Path -> what that file is, for the files whose SHA-256 is in `KNOWN_WEIGHTS`."""
        return {name: KNOWN_WEIGHTS[digest] for name, digest in self.files.items() if digest in KNOWN_WEIGHTS}

    @property
    def remarks(self) -> list[str]:
        """What a person should know: weight files by SHA-256, and which of them are known."""
        return [f"{self.source}: {note}" for note in self.notes] + [
            f"{name}: SHA-256 {digest} ({KNOWN_WEIGHTS.get(digest, 'not a file known here')})"
            for name, digest in self.files.items()
        ]

    @property
    def context_width(self) -> int:
        """D, the width of a token that cross-attention reads."""
        return int(self.unet.config.cross_attention_dim)

    @property
    def image_size(self) -> int:
        """Pixels along the side of an image at the size that the U-Net was made for."""
        return int(self.unet.config.sample_size) * vae_factor(self.vae)

    @property
    def fingerprint(self) -> str:
        """One digest of all weight files."""
        return sha256_json(self.files, blanks=True)


def vae_factor(vae: Any) -> int:
    """Image pixels per latent pixel."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


# ------------------------------------------------------------------------------------------------ loading


def load_stable_diffusion(
    source: str | Path, *, config: Path | None = None, offline: bool = False, dtype: torch.dtype = torch.float32
) -> StableDiffusion:
    """Load U-Net, VAE and noise schedule; a local source opens no network connection.

    Args:
        source: "embedded", a diffusers folder, one `.ckpt` or `.safetensors` file in CompVis names, or a hub name `owner/model`.
        config: folder with `unet/`, `vae/` and `scheduler/` configurations for a single file; default Stable Diffusion 1.5's.
        offline: for a hub name, use only what was downloaded before.
        dtype: of the weights in memory.

    Raises:
        ModelError: nothing there, or parts that do not fit together.
        CheckpointError: a damaged or unsafe file.
    """
    text = str(source)
    path = Path(text).expanduser()
    if text != "embedded" and path.is_file():
        loaded = _load_single_file(path, config or SD15_CONFIG, dtype)
    else:
        loaded = _load_folder(local_folder(text, offline=offline), text, dtype)
    _check_parts(loaded)
    return loaded


def local_folder(source: str | Path, *, offline: bool = False, text: bool = False) -> Path:
    """The folder of a diffusers model: "embedded", a local folder, or a hub name, which is downloaded unless it was before.

    Args:
        text: also bring the text encoders and what decoders of image vectors need.

    Raises:
        ModelError: there is no such folder.
    """
    name = str(source)
    path = EMBEDDED if name == "embedded" else Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(
            f"{name}: a single file; beside image vectors the generator reads text, and its text encoder is not in that file",
            "give the diffusers folder of this model",
        )
    if name == "embedded":
        raise ModelError(
            "the embedded Stable Diffusion is not in this installation", "install the package again, or name another --sd"
        )
    if _is_hub_name(name):
        return _hub_snapshot(name, offline, (*PARTS, *TEXT_PARTS) if text else PARTS)
    raise ModelError(
        f"{name}: no such folder or file, and not a hub name (owner/model)",
        "give a diffusers folder, a .ckpt or .safetensors file, a hub name, or 'embedded'",
    )


def _is_hub_name(text: str) -> bool:
    owner, slash, name = text.partition("/")
    return bool(slash and owner and name) and "/" not in name and not text.startswith((".", "~", "/")) and "\\" not in text


def _hub_snapshot(name: str, offline: bool, parts: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    kinds = ("*.json", "merges.txt", "diffusion_pytorch_model*.safetensors*", "model.safetensors")
    try:
        return Path(snapshot_download(
            name, allow_patterns=["model_index.json", "scheduler/*.json", *(f"{part}/{kind}" for part in parts for kind in kinds)],
            ignore_patterns=["*.fp16.*", "*.non_ema.*"], local_files_only=offline,
        ))  # fmt: skip
    except Exception as error:  # the hub client raises many kinds, of its own, of HTTP libraries and of the operating system
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{name}: the hub could not provide this model ({reason[:200]})",
            "check the name and the connection, or download the model and give the path of its folder or file",
        ) from None


def _load_folder(folder: Path, source: str, dtype: torch.dtype) -> StableDiffusion:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    refuse_other_models(folder, source)
    for part in ("unet", "vae", "scheduler"):
        if not (folder / part).is_dir():
            raise ModelError(
                f"{source}: no {part}/ folder in it, so this is not a diffusers model",
                "give the folder that holds model_index.json",
            )
    files = {
        f"{part}/{file.name}": sha256_file(file)
        for part in ("unet", "vae") for file in _all_weights(folder / part)
    }  # fmt: skip
    unet = load_part(UNet2DConditionModel, folder / "unet", dtype)
    vae = load_part(AutoencoderKL, folder / "vae", dtype)
    return StableDiffusion(unet, vae, load_scheduler(folder / "scheduler"), source, files, _notes(folder))


def _all_weights(folder: Path) -> list[Path]:
    """What identifies a part: all its safetensors, else the pickled weights that are read; not what macOS leaves (`._name`)."""
    tensor_files = [file for file in sorted(folder.glob("*.safetensors")) if not file.name.startswith(".")]
    return tensor_files or weight_files(folder)[0]


def _notes(folder: Path) -> tuple[str, ...]:
    """What is unusual about a folder and does not stop anything."""
    notes = []
    if read_json(folder / "model_index.json").get("_class_name") == "DreamDiffusionPipeline":
        trained = read_json(folder / "dreamdiff.json").get("pipeline", {}).get("training", {})
        notes.append(
            f"this is not a base model but a pipeline of dreamdiff: its U-Net was already fine-tuned on EEG (from {trained.get('sd')!r})"
        )
    for part in ("unet", "vae"):
        files, variant = weight_files(folder / part)
        if variant:
            notes.append(f"{part}: only the {variant} variant is there, {files[0].name}; its numbers have that precision")
        if files[0].suffix == ".bin":
            notes.append(f"{part}: pickled weights ({files[0].name}), read without executing them")
    return tuple(notes)


def _load_single_file(path: Path, config: Path, dtype: torch.dtype) -> StableDiffusion:
    tensors = read_tensors(path, ("model.diffusion_model.input_blocks.0.0.weight",))
    digest = sha256_file(path)
    unet, vae = (from_compvis(kind, tensors, config, str(path), dtype) for kind in ("unet", "vae"))
    return StableDiffusion(unet, vae, load_scheduler(config / "scheduler"), str(path), {path.name: digest})


def from_compvis(kind: SingleFileKind, tensors: Mapping[str, Tensor], config: Path, source: str, dtype: torch.dtype) -> Any:
    """Build a diffusers U-Net or VAE from tensors in CompVis names.

    The renaming is diffusers' own; every tensor must find its place and its shape.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    part = {name: value for name, value in tensors.items() if name.startswith(_PREFIX[kind])}
    if not part:
        raise ModelError(
            f"{source}: no tensor is called {_PREFIX[kind]}*", "give a full Stable Diffusion checkpoint, not a part of one"
        )
    settings = json.loads((config / kind / "config.json").read_text())
    model_class = UNet2DConditionModel if kind == "unet" else AutoencoderKL
    with torch.device("meta"):
        model = model_class.from_config(settings)
    try:
        renamed: dict[str, Tensor] = (
            convert_ldm_unet_checkpoint(part, settings) if kind == "unet" else convert_ldm_vae_checkpoint(part, settings)
        )
        if len(renamed) != len(part):
            raise KeyError(f"{len(part)} tensors, of which {len(renamed)} have a place")
        model.load_state_dict(
            {name: value.to(dtype).clone() if value.dtype == dtype else value.to(dtype) for name, value in renamed.items()},
            strict=True, assign=True,
        )  # fmt: skip
    except (RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"{source}: its {kind} does not have the shape of {config} ({(lines[1] if len(lines) > 1 else lines[0])[:200]})",
            "give the configuration folder that belongs to this checkpoint",
        ) from None
    require_finite(model, source)
    return model.requires_grad_(True).eval()


def _check_parts(loaded: StableDiffusion) -> None:
    unet_channels, vae_channels = int(loaded.unet.config.in_channels), int(loaded.vae.config.latent_channels)
    if unet_channels != vae_channels:
        raise ModelError(
            f"{loaded.source}: its U-Net reads {unet_channels} latent channels, its VAE writes {vae_channels}",
            "use a U-Net and a VAE of the same model",
        )
