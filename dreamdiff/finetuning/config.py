"""Settings and presets of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from dreamdiff.training.config import LoopConfig, OptimConfig
from eegprep.settings import Settings


class FinetuneOptim(OptimConfig):
    """The authors' optimiser for fine-tuning: constant 5.3e-5, PyTorch's other defaults, gradient norm limited to 0.5."""

    lr: float = Field(default=5.3e-5, gt=0, description="Highest learning rate, that of the U-Net")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="Decay of the two moments of AdamW")
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay of matrices; biases and norms have none")
    schedule: Literal["half-cosine", "constant"] = Field(
        default="constant", description="`half-cosine` rises, then falls to `min_lr` at the end; `constant` only has the rise"
    )
    warmup_epochs: float = Field(default=0.0, ge=0, description="Length of the rise, epochs")
    clip: float = Field(default=0.5, ge=0, description="Largest gradient norm; 0 turns clipping off")
    lr_encoder: float = Field(default=1.0, gt=0, description="Learning rate of the encoder relative to `lr`")
    lr_conditioner: float = Field(default=1.0, gt=0, description="Learning rate of tau and the heads relative to `lr`")


class FinetuneLoop(LoopConfig):
    """300 epochs (paper, section 3.2)."""

    epochs: float = Field(default=300, gt=0, description="Passes over the training trials")


class FinetuneData(Settings):
    """What fine-tuning reads from a pairs store."""

    batch_size: int = Field(default=25, ge=1, description="Trials per process and step (the authors: 25)")
    split: str = Field(default="default", description="Name of the split whose train part is learned from")
    image_size: int | None = Field(default=None, ge=8, description="Pixels along the side; the U-Net's own size when not given")
    cache: str | None = Field(default=None, description="Folder for latents and CLIP vectors; beside the pairs when not given")


class FinetuneParts(Settings):
    """Which parts of the model are trained. tau and the heads, which are new, always are."""

    trains: Literal["attention", "kv", "released", "lora", "none"] = Field(
        default="attention",
        description="Parts of the U-Net: cross-`attention` (paper), its keys and values (`kv`), attention with its LayerNorm "
        "(`released`), low-rank adapters (`lora`), or `none`",
    )
    train_encoder: bool = Field(default=True, description="Whether the EEG encoder is trained too")
    lora_rank: int = Field(default=8, ge=1, description="Rank of the adapters of `lora`")
    time_branch: bool = Field(default=False, description="Add the encoder's output to the U-Net's time embedding (authors' code)")
    clip_from: Literal["latent", "tau"] = Field(
        default="tau", description="The CLIP head reads tau(y) (paper, equation 3) or the encoder's latent (authors' code)"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass to save memory"
    )


class FinetuneLosses(Settings):
    """What is minimised: w_sd L_SD + w_clip L_clip + w_contrastive L_contrastive + w_class cross-entropy (paper: 1, 1, 0, 0)."""

    w_sd: float = Field(default=1.0, ge=0, description="Weight of the diffusion loss")
    w_clip: float = Field(default=1.0, ge=0, description="Weight of 1 - cosine to the image's CLIP vector (paper, section 3.3)")
    w_contrastive: float = Field(default=0.0, ge=0, description="Weight of a contrastive loss over the batch")
    w_class: float = Field(default=0.0, ge=0, description="Weight of the class labels (the authors' cls_tune)")
    min_snr_gamma: float | None = Field(
        default=None, gt=0, description="Limit the weight of little noise to this signal-to-noise ratio (Hang et al. 2023)"
    )
    guidance_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of trials trained without EEG, which classifier-free guidance needs"
    )
    guidance: float = Field(default=1.0, ge=0, description="Guidance scale that generation uses unless it is given another")


class FinetuneStart(Settings):
    """Where training starts."""

    context_std: float | None = Field(
        default=1.0, gt=0, description="Standard deviation that tau's tokens are given, so that cross-attention responds to them"
    )
    linear_start: bool = Field(
        default=False,
        description="Begin with a linear map EEG -> CLIP space -> text contexts, fitted in closed form on the training trials (ours)",
    )
    linear_bins: int = Field(default=32, ge=1, description="Time bins that the linear map averages a window into")
    caption: str = Field(default="a photo of {a} {name}", description="How a class name becomes a text for the linear map")
    adapter: str = Field(
        default="own",
        description="What reads the linear map's vector: `own`, the image adapter of `--sd embedded --clip embedded` (others have none: captions); "
        "`captions`, attention over the captions of the classes, as in 0.1.0; or the folder of an adapter",
    )


class FinetuneValidation(Settings):
    """Which weights become the pipeline, and what is drawn on the way."""

    select: Literal["loss", "clip-accuracy", "last"] = Field(
        default="loss", description="Which weights become the pipeline, judged on the validation trials only; `last` needs none"
    )
    validate_trials: int = Field(default=256, ge=1, description="Validation trials used at most")
    preview_trials: int = Field(default=4, ge=0, description="Validation trials that pictures are made of after each validation")


class FinetuneConfig(Settings):
    """Stable Diffusion fine-tuning on EEG-image pairs."""

    renamed: ClassVar[Mapping[str, str]] = {
        **{name: f"data.{name}" for name in ("batch_size", "split", "image_size", "cache")},
        **{
            name: f"what.{name}"
            for name in ("trains", "train_encoder", "lora_rank", "time_branch", "clip_from", "gradient_checkpointing")
        },
        **{
            name: f"losses.{name}"
            for name in ("w_sd", "w_clip", "w_contrastive", "w_class", "min_snr_gamma", "guidance_dropout", "guidance")
        },
        **{name: f"start.{name}" for name in ("context_std", "linear_start", "linear_bins", "caption")},
        **{name: f"validation.{name}" for name in ("select", "validate_trials", "preview_trials")},
        **{name: f"optim.{name}" for name in ("lr_encoder", "lr_conditioner")},
    }  # 0.1.0 had no sections

    data: FinetuneData = Field(default=FinetuneData(), description="What is read from the pairs")
    what: FinetuneParts = Field(default=FinetuneParts(), description="Which parts are trained")
    losses: FinetuneLosses = Field(default=FinetuneLosses(), description="What is minimised")
    start: FinetuneStart = Field(default=FinetuneStart(), description="Where training starts")
    validation: FinetuneValidation = Field(default=FinetuneValidation(), description="Which weights become the pipeline")
    optim: FinetuneOptim = Field(default=FinetuneOptim(), description="Optimiser and schedule")
    loop: FinetuneLoop = Field(default=FinetuneLoop(), description="Length, precision, checkpoints")


FINETUNE_PRESETS: dict[str, Mapping[str, Any]] = {
    # paper, sections 3.2 and 3.3: encoder and cross-attention heads; L_clip = 1 - cos(E_I(I), h(tau(y))), equation 3. What the paper
    # leaves open is the authors' code's: optimiser, batch of 25, constant rate 5.3e-5
    "paper": {},
    # the authors' code: LayerNorm before cross-attention and a time branch train too, tokens start as PyTorch makes them, 500 epochs
    "released": {
        "what": {"trains": "released", "time_branch": True, "clip_from": "latent"},
        "start": {"context_std": None},
        "loop": {"epochs": 500},
    },
    # MinD-Vis (Chen et al. 2023), double conditioning: cross-attention and the time embedding both read the encoder, which trains with them;
    # no CLIP loss; batch, rate and length of the authors' second stage. The paper reads fMRI and a label-to-image generator at 256 pixels
    "mind-vis": {
        "data": {"batch_size": 5},
        "what": {"trains": "released", "time_branch": True},
        "losses": {"w_clip": 0.0},
        "start": {"context_std": None},
        "loop": {"epochs": 500},
    },
    # rows 12 to 14 of Table 2
    "encoder-only": {"what": {"trains": "none"}},
    "no-clip": {"losses": {"w_clip": 0.0}},
    "attention-only": {"what": {"train_encoder": False}, "losses": {"w_clip": 0.0}},
    # one card of 24 GB: `paper` with activations made again. One of 12 GB: keys and values only, the same 25 trials a step in five batches
    "24gb": {"what": {"gradient_checkpointing": True}},
    "12gb": {
        "data": {"batch_size": 5},
        "what": {"trains": "kv", "gradient_checkpointing": True},
        "loop": {"accumulation": 5},
    },
    # adapters
    "lora": {"what": {"trains": "lora", "gradient_checkpointing": True}, "optim": {"lr": 1e-4}},
    "kv": {"what": {"trains": "kv"}},
    # ours: minutes on two cores with the embedded model. The linear start does most of the decoding, so that the little training
    # that time allows goes into cross-attention, encoder and tau
    "demo": {
        "data": {"batch_size": 16},
        "what": {"clip_from": "latent"},
        "losses": {"guidance_dropout": 0.1, "guidance": 3.0},
        "start": {"linear_start": True, "caption": "a drawing of {a} {name}", "context_std": None},
        "validation": {"validate_trials": 120, "preview_trials": 8},
        "optim": {"lr": 1e-4, "warmup_epochs": 0.1, "lr_conditioner": 0.3},
        "loop": {"epochs": 2, "max_steps": 120, "tracker": "none"},
    },
    # a smoke test: seconds
    "tiny": {
        "data": {"batch_size": 8},
        "what": {"clip_from": "latent"},
        "validation": {"preview_trials": 2},
        "optim": {"lr": 1e-3},
        "loop": {"epochs": 2, "tracker": "none"},
    },
}
