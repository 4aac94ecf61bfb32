"""Stable Diffusion: load it from wherever it lies, freeze it, choose by module what trains, and one loss.

Shapes: B batch, C latent channels, H W latent pixels, L context tokens, D context width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from eegprep.errors import CheckpointError, ModelError, UsageError
from eegprep.settings import suggest

SD15_CONFIG = Path(__file__).parent / "sd15"
EMBEDDED = Path(__file__).parent / "embedded" / "sd"

# SHA-256 of files that are known by content, as published beside each download
KNOWN_WEIGHTS = {
    "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa": "Stable Diffusion 1.5, pruned, EMA only (safetensors)",
    "1a189f0be69d6106a48548e7626207dddd7042a418dbf372cefd05e0cdba61b6": "Stable Diffusion 1.5, pruned (safetensors)",
    "cc6cb27103417325ff94f52b7a5d2dde45a7515b25c255d8e396c90014281516": "Stable Diffusion 1.5, pruned, EMA only (ckpt)",
    "e1441589a6f3c5a53f5f54d0975a18a7feb7cdf0b0dee276dfc3331ae376a053": "Stable Diffusion 1.5, pruned (ckpt, the paper's)",
    "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1": "Stable Diffusion 1.5, U-Net of the diffusers folder",
    "1b134cded8eb78b184aefb8805b6b572f36fa77b255c483665dda931fa0130c5": "Stable Diffusion 1.5, VAE of the diffusers folder",
}

Trains = Literal["attention", "kv", "released", "lora", "none"]
SingleFileKind = Literal["unet", "vae"]
_PREFIX: dict[SingleFileKind, str] = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}


@dataclass(frozen=True)
class StableDiffusion:
    """The parts of a latent diffusion model that this project uses; the text encoder is not one of them.

    files: path inside the source -> SHA-256; `known` names those whose content is known.
    """

    unet: Any
    vae: Any
    scheduler: Any
    source: str
    files: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, str]:
        """Path -> what that file is, for the files whose SHA-256 is in `KNOWN_WEIGHTS`."""
        return {name: KNOWN_WEIGHTS[digest] for name, digest in self.files.items() if digest in KNOWN_WEIGHTS}

    @property
    def remarks(self) -> list[str]:
        """What a person should know: weight files by SHA-256, and which of them are known."""
        return [
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
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


def vae_factor(vae: Any) -> int:
    """Image pixels per latent pixel."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    path = EMBEDDED if text == "embedded" else Path(text).expanduser()
    if path.is_file():
        loaded = _load_single_file(path, config or SD15_CONFIG, dtype)
    elif path.is_dir():
        loaded = _load_folder(path, text, dtype)
    elif text == "embedded":
        raise ModelError(
            "the embedded Stable Diffusion is not in this installation", "install the package again, or name another --sd"
        )
    elif _is_hub_name(text):
        loaded = _load_folder(_hub_snapshot(text, offline), text, dtype)
    else:
        raise ModelError(
            f"{text}: no such folder or file, and not a hub name (owner/model)",
            "give a diffusers folder, a .ckpt or .safetensors file, a hub name, or 'embedded'",
        )
    _check_parts(loaded)
    return loaded


def _is_hub_name(text: str) -> bool:
    owner, slash, name = text.partition("/")
    return bool(slash and owner and name) and "/" not in name and not text.startswith((".", "~", "/")) and "\\" not in text


def _hub_snapshot(name: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [f"{part}/{kind}" for part in ("unet", "vae") for kind in ("config.json", "diffusion_pytorch_model*.safetensors*")]
    try:
        return Path(snapshot_download(
            name, allow_patterns=["model_index.json", "scheduler/*.json", *wanted],
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

    for part in ("unet", "vae", "scheduler"):
        if not (folder / part).is_dir():
            raise ModelError(
                f"{source}: no {part}/ folder in it, so this is not a diffusers model",
                "give the folder that holds model_index.json",
            )
    files = {
        f"{part}/{file.name}": file_sha256(file)
        for part in ("unet", "vae") for file in sorted((folder / part).glob("*.safetensors"))
    }  # fmt: skip
    unet = load_part(UNet2DConditionModel, folder / "unet", dtype)
    vae = load_part(AutoencoderKL, folder / "vae", dtype)
    return StableDiffusion(unet, vae, load_scheduler(folder / "scheduler"), source, files)


def load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """One diffusers model from a local folder of safetensors; damage and wrong shapes become one line."""
    import contextlib
    import io

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, torch_dtype=dtype, low_cpu_mem_usage=True
            )  # fmt: skip
    except Exception as error:  # safetensors, JSON, missing files and wrong shapes each raise their own kind
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{folder}: not a readable {kind.__name__} ({reason[:200]})",
            "copy or download that folder again, and check its SHA-256",
        ) from None


def load_scheduler(folder: Path) -> Any:
    """A noise schedule of the class that its configuration names."""
    try:
        content = json.loads((folder / "scheduler_config.json").read_text())
    except (OSError, ValueError):
        raise CheckpointError(f"{folder}: no readable scheduler_config.json", "copy or download that folder again") from None
    return make_scheduler(str(content.get("_class_name", "PNDMScheduler")), content)


SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm-solver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False}),
    "ddim": ("DDIMScheduler", {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
}
_SCHEDULE_KEYS = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type", "trained_betas")


def make_scheduler(name: str, base: Mapping[str, Any]) -> Any:
    """A sampler over the noise schedule of `base`.

    Args:
        name: a short name of `SCHEDULERS`, or any diffusers scheduler class. "pndm" is the paper's PLMS sampler.
        base: configuration of the schedule that the model was trained with (its betas and prediction type are kept).
    """
    import diffusers

    class_name, options = SCHEDULERS.get(name.lower(), (name, {}))
    kind = getattr(diffusers, class_name, None)
    if kind is None or not class_name.endswith("Scheduler"):
        raise UsageError(
            f"there is no scheduler {name!r}{suggest(name, SCHEDULERS)}",
            f"use one of {', '.join(SCHEDULERS)}, or a diffusers scheduler class",
        )
    kept = dict(base) if class_name == base.get("_class_name") else {key: base[key] for key in _SCHEDULE_KEYS if key in base}
    return kind.from_config({**kept, **options})


def _load_single_file(path: Path, config: Path, dtype: torch.dtype) -> StableDiffusion:
    tensors = read_tensors(path)
    digest = file_sha256(path)
    unet, vae = (from_compvis(kind, tensors, config, str(path), dtype) for kind in ("unet", "vae"))
    return StableDiffusion(unet, vae, load_scheduler(config / "scheduler"), str(path), {path.name: digest})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a `.safetensors` file, or of a pickled checkpoint read without executing it."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: not a readable safetensors file ({error})", "copy or download it again, and check its SHA-256"
            ) from None
    from .safe_pickle import load as load_pickle

    content = load_pickle(path)
    for key in ("state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds no state_dict", "give a Stable Diffusion checkpoint")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


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
    return model.requires_grad_(True).eval()


def _check_parts(loaded: StableDiffusion) -> None:
    wanted, found = int(loaded.unet.config.in_channels), int(loaded.vae.config.latent_channels)
    if wanted != found:
        raise ModelError(
            f"{loaded.source}: its U-Net reads {wanted} latent channels, its VAE writes {found}",
            "use a U-Net and a VAE of the same model",
        )


# --------------------------------------------------------------------------------------------- what trains


def cross_attention_blocks(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    """(name, block) of every transformer block that has cross-attention, found by class."""
    from diffusers.models.attention import BasicTransformerBlock

    for name, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock) and module.attn2 is not None:
            yield name, module


def trainable_modules(unet: nn.Module, trains: Trains) -> dict[str, nn.Module]:
    """Name -> module of the U-Net that `trains` selects; by module, never by a part of a parameter's name.

    attention: the cross-attention heads (paper, section 3.2). kv: only their key and value maps, which alone read the EEG.
    released: attention and the LayerNorm before it, as in the authors' code. lora: nothing here, see `add_lora`. none: nothing.
    """
    if trains not in get_args(Trains):
        raise UsageError(f"trains = {trains!r}{suggest(trains, get_args(Trains))}", f"use one of {', '.join(get_args(Trains))}")
    chosen: dict[str, nn.Module] = {}
    for name, block in cross_attention_blocks(unet):
        if trains in ("attention", "released"):
            chosen[f"{name}.attn2"] = block.attn2
        if trains == "released":
            chosen[f"{name}.norm2"] = block.norm2
        if trains == "kv":
            chosen[f"{name}.attn2.to_k"] = block.attn2.to_k
            chosen[f"{name}.attn2.to_v"] = block.attn2.to_v
    return chosen


def choose_trainable(unet: nn.Module, trains: Trains, lora_rank: int = 8) -> None:
    """Freeze every parameter of the U-Net, then thaw what `trains` selects."""
    unet.requires_grad_(False)
    if trains == "lora":
        add_lora(unet, lora_rank)
    for module in trainable_modules(unet, trains).values():
        module.requires_grad_(True)


def add_lora(unet: Any, rank: int) -> None:
    """Put low-rank adapters beside the four linear maps of every cross-attention (peft); all else stays frozen."""
    from peft import LoraConfig

    targets = [
        f"{name}.attn2.{part}" for name, _ in cross_attention_blocks(unet) for part in ("to_q", "to_k", "to_v", "to_out.0")
    ]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights="gaussian"))


def merge_lora(unet: Any) -> None:
    """Add the adapters into the weights, so that the model is an ordinary one again."""
    unet.fuse_lora()
    unet.unload_lora()


# ------------------------------------------------------------------------------------------------ one loss


@dataclass(frozen=True)
class NoiseSchedule:
    """alpha_bar_t of the forward process q(z_t | z_0) = N(sqrt(alpha_bar_t) z_0, (1 - alpha_bar_t) I)  (DDPM, equation 4)."""

    alpha_bar_S: Tensor
    prediction: str

    @classmethod
    def of(cls, scheduler: Any) -> NoiseSchedule:
        """The schedule of any diffusers scheduler."""
        return cls(scheduler.alphas_cumprod.detach().clone().float(), str(scheduler.config.get("prediction_type", "epsilon")))

    def __len__(self) -> int:
        return len(self.alpha_bar_S)

    def to(self, device: torch.device) -> NoiseSchedule:
        """The same, on another device."""
        return NoiseSchedule(self.alpha_bar_S.to(device), self.prediction)

    def noisy(self, clean_BCHW: Tensor, noise_BCHW: Tensor, step_B: Tensor) -> Tensor:
        """z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps."""
        alpha = self.alpha_bar_S[step_B].view(-1, 1, 1, 1)
        return alpha.sqrt() * clean_BCHW + (1 - alpha).sqrt() * noise_BCHW

    def target(self, clean_BCHW: Tensor, noise_BCHW: Tensor, step_B: Tensor) -> Tensor:
        """What the U-Net is asked for: eps, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z_0 (Salimans and Ho 2022)."""
        if self.prediction == "epsilon":
            return noise_BCHW
        if self.prediction == "v_prediction":
            alpha = self.alpha_bar_S[step_B].view(-1, 1, 1, 1)
            return alpha.sqrt() * noise_BCHW - (1 - alpha).sqrt() * clean_BCHW
        raise ModelError(
            f"prediction_type {self.prediction!r} is not one that trains here", "use a model with 'epsilon' or 'v_prediction'"
        )

    def weight(self, step_B: Tensor, min_snr_gamma: float | None) -> Tensor:
        """Min-SNR weights: min(SNR, gamma) / SNR for eps, / (SNR + 1) for v (Hang et al. 2023); ones without gamma."""
        if min_snr_gamma is None:
            return torch.ones_like(step_B, dtype=torch.float32)
        alpha = self.alpha_bar_S[step_B]
        snr = alpha / (1 - alpha)
        return snr.clamp(max=min_snr_gamma) / (snr if self.prediction == "epsilon" else snr + 1)


def diffusion_loss(
    unet: Any, schedule: NoiseSchedule, clean_BCHW: Tensor, context_BLD: Tensor, noise_BCHW: Tensor, step_B: Tensor,
    *, time_BD: Tensor | None = None, min_snr_gamma: float | None = None,
) -> Tensor:  # fmt: skip
    """L_SD = E || eps - eps_theta(z_t, t, tau(y)) ||^2  (paper, section 3.2), a scalar.

    Args:
        clean_BCHW: scaled latents z_0; noise_BCHW: eps; step_B: t; context_BLD: tau(y).
        time_BD: added to the time embedding (the released model's second way in), or None.
        min_snr_gamma: weight of each step; None for the paper's plain mean.
    """
    predicted = unet(
        schedule.noisy(clean_BCHW, noise_BCHW, step_B), step_B, encoder_hidden_states=context_BLD, class_labels=time_BD
    ).sample
    error_B = (predicted.float() - schedule.target(clean_BCHW, noise_BCHW, step_B).float()).square().mean(dim=(1, 2, 3))
    return (schedule.weight(step_B, min_snr_gamma) * error_B).mean()


def accept_time_branch(unet: Any) -> None:
    """Let the U-Net add a given vector to its time embedding, by diffusers' own `class_embed_type = "identity"`."""
    unet.register_to_config(class_embed_type="identity")
    unet.class_embedding = nn.Identity()
