"""Settings and presets of fine-tuning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dreamdiff.training.config import LoopConfig, OptimConfig
from eegprep.settings import Settings


class FinetuneOptim(OptimConfig):
    """The authors' optimiser for fine-tuning: constant 5.3e-5, PyTorch's other defaults, gradient norm limited to 0.5."""

    lr: float = Field(default=5.3e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["half-cosine", "constant"] = "constant"
    warmup_epochs: float = Field(default=0.0, ge=0)
    clip: float = Field(default=0.5, ge=0)


class FinetuneLoop(LoopConfig):
    """300 epochs (paper, section 3.2)."""

    epochs: float = Field(default=300, gt=0)


class FinetuneConfig(Settings):
    """Stable Diffusion fine-tuning on EEG-image pairs.

    trains: parts of the U-Net that are trained: `attention` (paper), `kv`, `released` (attention, its LayerNorm), `lora`, `none`.
    train_encoder: whether the EEG encoder is trained too. tau and the heads, which are new, always are.
    w_clip, w_contrastive, w_class: weights of L_clip (paper, 3.3), of a contrastive loss, and of the class labels (the authors' cls_tune).
    guidance_dropout: share of trials trained without EEG, which classifier-free guidance needs; guidance: scale kept for generation.
    context_std: spread that tau's tokens are given before training, so that the U-Net sees them; None leaves them as made.
    linear_start: begin with a linear map EEG -> CLIP space -> text contexts, fitted in closed form on the training trials (ours; see
        `finetune.linear_start`). caption: how a class name becomes a text for it.
    lr_encoder, lr_conditioner: learning rates relative to `optim.lr`, which the U-Net has.
    select: which weights become the pipeline, judged on the validation trials only; `last` needs none.
    cache: folder for latents and CLIP vectors; default beside the pairs.
    """

    batch_size: int = Field(default=25, ge=1)
    split: str = "default"
    image_size: int | None = Field(default=None, ge=8)
    trains: Literal["attention", "kv", "released", "lora", "none"] = "attention"
    train_encoder: bool = True
    lora_rank: int = Field(default=8, ge=1)
    clip_from: Literal["latent", "tau"] = "latent"
    time_branch: bool = False
    w_sd: float = Field(default=1.0, ge=0)
    w_clip: float = Field(default=1.0, ge=0)
    w_contrastive: float = Field(default=0.0, ge=0)
    w_class: float = Field(default=0.0, ge=0)
    guidance_dropout: float = Field(default=0.0, ge=0, lt=1)
    guidance: float = Field(default=1.0, ge=0)
    min_snr_gamma: float | None = Field(default=None, gt=0)
    context_std: float | None = Field(default=1.0, gt=0)
    lr_encoder: float = Field(default=1.0, gt=0)
    lr_conditioner: float = Field(default=1.0, gt=0)
    linear_start: bool = False
    linear_bins: int = Field(default=32, ge=1)
    caption: str = "a photo of {a} {name}"
    gradient_checkpointing: bool = False
    select: Literal["loss", "clip-accuracy", "last"] = "loss"
    validate_trials: int = Field(default=256, ge=1)
    preview_trials: int = Field(default=4, ge=0)
    cache: str | None = None
    loop: FinetuneLoop = FinetuneLoop()
    optim: FinetuneOptim = FinetuneOptim()


FINETUNE_PRESETS: dict[str, dict[str, Any]] = {
    # paper, sections 3.2 and 3.3: encoder and cross-attention heads; optimiser and batch are the authors' code's
    "paper": {},
    # the authors' code: LayerNorm before cross-attention and a time branch train too, tokens start as PyTorch makes them, 500 epochs
    "released": {"trains": "released", "time_branch": True, "context_std": None, "loop": {"epochs": 500}},
    # rows 12 to 14 of Table 2
    "encoder-only": {"trains": "none"},
    "no-clip": {"w_clip": 0.0},
    "attention-only": {"train_encoder": False, "w_clip": 0.0},
    # for one graphics card of 24 GB: adapters, half precision, activations made again
    "lora": {"trains": "lora", "gradient_checkpointing": True, "optim": {"lr": 1e-4}},
    "kv": {"trains": "kv"},
    # ours: minutes on two cores with the embedded model. The linear start does most of the decoding, so that the little training
    # that time allows goes into cross-attention, encoder and tau
    "demo": {
        "batch_size": 16,
        "linear_start": True,
        "caption": "a drawing of {a} {name}",
        "context_std": None,
        "guidance_dropout": 0.1,
        "guidance": 3.0,
        "optim": {"lr": 1e-4, "warmup_epochs": 0.1},
        "loop": {"epochs": 2, "max_steps": 120, "tracker": "none"},
        "lr_conditioner": 0.3,
        "validate_trials": 120,
        "preview_trials": 8,
    },
    # a smoke test: seconds
    "tiny": {"batch_size": 8, "loop": {"epochs": 2, "tracker": "none"}, "optim": {"lr": 1e-3}, "preview_trials": 2},
}
