"""One frozen configuration per stage; `eegprep.settings.resolve` merges presets, TOML files and `--set section.key=value`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from eegprep.settings import Settings

from .mae import PRESETS as MODEL_PRESETS
from .mae import MaskedSignalConfig, masked_signal_preset


class OptimConfig(Settings):
    """AdamW and its schedule; the defaults are the authors' for pre-training.

    schedule: `half-cosine` rises linearly over `warmup_epochs`, then falls to `min_lr` at the end, set anew at every step;
        `constant` only has the rise.
    clip: largest gradient norm; 0 turns clipping off.
    """

    lr: float = Field(default=2.5e-4, gt=0)
    min_lr: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.05, ge=0)
    schedule: Literal["half-cosine", "constant"] = "half-cosine"
    warmup_epochs: float = Field(default=40.0, ge=0)
    clip: float = Field(default=0.8, ge=0)
    fused: bool = True


class LoopConfig(Settings):
    """How long to train, in what precision, and when to write.

    max_steps: stop after so many optimiser steps even if `epochs` asks for more; the schedule then ends there too.
    precision: `auto` is fp32 on a CPU, bf16 on a GPU that has it, else fp16. On a CPU with bf16 products (see `dreamdiff doctor`)
        bf16 takes four tenths of the time off at `released` size, and adds a third at `tiny`.
    ema: decay of the moving average of weights that is validated and exported; 0 turns it off.
    checkpoint_minutes, checkpoint_steps: whichever comes first; neither changes what is learned.
    validate_steps: 0 validates once per epoch (and always at the end).
    tracker: where losses also go; `wandb` needs the extra of that name.
    """

    seed: int = 2022
    epochs: float = Field(default=500, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    accumulation: int = Field(default=1, ge=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu"] = "auto"
    compile: bool = False
    ema: float = Field(default=0.0, ge=0, lt=1)
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    checkpoint_steps: int | None = Field(default=None, ge=1)
    keep_checkpoints: int = Field(default=3, ge=1)
    validate_steps: int = Field(default=0, ge=0)
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"


class PretrainData(Settings):
    """What pre-training reads from a corpus.

    batch_size: windows a process and step (the authors: 100).
    validation: what is held out: whole people, or whole recordings, or nothing; `auto` takes people when there are several.
    validation_share: of people or recordings; at least one.
    validation_windows: at most so many held-out windows are used, evenly spread.
    weights: of data sets or `dataset/subject`: how often their windows come in an epoch.
    """

    batch_size: int = Field(default=100, ge=1)
    validation: Literal["auto", "person", "recording", "none"] = "auto"
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    validation_windows: int = Field(default=512, ge=1)
    split_seed: int = 0
    weights: dict[str, float] = Field(default_factory=dict)
    prefetch: int = Field(default=4, ge=0)


class Augmentation(Settings):
    """Changes to training windows, all off by default.

    shift: largest circular shift in time, samples. reverse: share of windows played backwards.
    gain: standard deviation of the logarithm of a random amplitude factor.
    """

    shift: int = Field(default=0, ge=0)
    reverse: float = Field(default=0.0, ge=0, le=1)
    gain: float = Field(default=0.0, ge=0)


class PretrainConfig(Settings):
    """Masked signal modelling."""

    model: MaskedSignalConfig = MaskedSignalConfig()
    data: PretrainData = PretrainData()
    augment: Augmentation = Augmentation()
    gradient_checkpointing: bool = False
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()


def _pretrain_presets() -> dict[str, dict[str, Any]]:
    presets: dict[str, dict[str, Any]] = {name: {"model": masked_signal_preset(name).model_dump()} for name in MODEL_PRESETS}
    # ours, for a minute or two on two cores: a small model needs a high rate to find the neighbours of a hidden token in that time
    presets["tiny"] |= {
        "data": {"batch_size": 16},
        "augment": {"shift": 256},  # a hundred windows are few: held-out loss 0.98 instead of 1.07 on the sample recordings
        "optim": {"lr": 5e-3, "warmup_epochs": 2},
        "loop": {"epochs": 1000, "max_steps": 2000},
    }
    presets["small"] |= {"data": {"batch_size": 64}, "optim": {"lr": 5e-4, "warmup_epochs": 10}, "loop": {"epochs": 200}}
    return presets


PRETRAIN_PRESETS = _pretrain_presets()
"""`paper`: 302.84 M, 75 % masked. `released`: the authors' published code, 151.77 M, 10 % masked, input divided by 10.
`w256` ... `w1280`, `shallow2`: the sizes of Table 2. All with the authors' 500 epochs at batch 100; `small`, `tiny`: one machine."""


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


class GenerateConfig(Settings):
    """How images are made.

    samples: images per trial, with seeds `seed`, `seed` + 1, ...
    scheduler: a short name (dpm-solver++, pndm, ddim, ...) or a diffusers class. guidance: None takes the model's own.
    """

    steps: int = Field(default=20, ge=1)
    samples: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    scheduler: str = "dpm-solver++"
    guidance: float | None = Field(default=None, ge=0)
    batch_size: int = Field(default=8, ge=1)
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


GENERATE_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # the authors' sampling: 250 steps of PLMS, five images per trial, no guidance
    "paper": {"steps": 250, "samples": 5, "scheduler": "pndm", "guidance": 1.0},
}
