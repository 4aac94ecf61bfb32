"""One step of fine-tuning as a function of tensors: what trains, what the conditioner looks like, the losses, and the same on blank parts.

Nothing here reads data or draws random numbers, so torch.compile takes the losses as one graph, and fake tensors run them without memory.

Shapes: B batch, C channels, T samples, L tokens, D width, H W latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamdiff.alignment.losses import contrastive_loss, cosine_loss
from dreamdiff.diffusion.adapters import freeze_adapter
from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig, condition
from dreamdiff.diffusion.noise import NoiseSchedule, diffusion_loss
from dreamdiff.diffusion.trainable import accept_time_branch, choose_trainable, cross_attention_blocks
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.finetuning.config import FinetuneConfig
from dreamdiff.finetuning.data import draw_latents
from dreamdiff.finetuning.trained import Trained
from dreamdiff.memory import StepMemory, step_memory

CONTEXT_TOKENS = 77  # what Stable Diffusion 1.x was trained with
STEPS = 1000  # of the blank noise schedule


def conditioner_config(
    config: FinetuneConfig,
    encoder: EEGEncoder,
    unet: Any,
    *,
    clip_width: int,
    classes: int = 0,
    captions: int = 0,
    adapter: Mapping[str, tuple[int, ...]] | None = None,
) -> ConditionerConfig:
    """The conditioner between an encoder and a U-Net. captions: of the linear start, 0 without. adapter: shapes of the
    tensors of an image adapter that is attached to the U-Net."""
    return ConditionerConfig(
        tokens_in=encoder.tokens,
        width_in=encoder.width,
        tokens_out=CONTEXT_TOKENS,
        context_width=int(unet.config.cross_attention_dim),
        clip_width=clip_width,
        clip_from=config.what.clip_from,
        time_width=int(unet.config.block_out_channels[0]) * 4 if config.what.time_branch else 0,
        classes=classes if config.losses.w_class else 0,
        linear_channels=encoder.config.channels if captions else 0,
        linear_bins=config.start.linear_bins,
        captions=captions,
        adapter=dict(adapter or {}),
    )


def choose_what_trains(trained: Trained, config: FinetuneConfig) -> None:
    """Everything is frozen first, then what is chosen thaws."""
    trained.requires_grad_(False)
    choose_trainable(trained.unet, config.what.trains, config.what.lora_rank)
    freeze_adapter(trained.unet)
    if config.what.train_encoder:
        trained.encoder.requires_grad_(True)
        for name, parameter in trained.encoder.named_parameters():
            if name.rpartition(".")[2] == "cls_token":
                parameter.requires_grad_(False)  # not used outside pre-training
    trained.conditioner.requires_grad_(True)
    trained.conditioner.null_LD.requires_grad_(config.losses.guidance_dropout > 0)


def losses_of(
    trained: Trained, config: FinetuneConfig, schedule: NoiseSchedule, scaling: float, batch: Mapping[str, Tensor],
    random: Mapping[str, Tensor],
) -> dict[str, Tensor]:  # fmt: skip
    """`loss` and its parts.

    Args:
        scaling: of the VAE's latents. batch: eeg (B, C, T), moments (B, 2 C, H, W), clip (B, D), image, label. random: latent and noise
            (B, C, H, W), step (B,), dropped (B,).
    """
    weights = config.losses
    context = condition(trained.encoder, trained.conditioner, batch["eeg"])
    losses: dict[str, Tensor] = {}
    if context.clip_BD is not None and "clip" in batch:
        losses["clip"] = cosine_loss(context.clip_BD, batch["clip"])
        if weights.w_contrastive:
            losses["contrastive"] = contrastive_loss(context.clip_BD, batch["clip"], batch["image"])
    if context.logits_BK is not None:
        losses["class"] = F.cross_entropy(context.logits_BK.float(), batch["label"])
    if weights.w_sd:
        if "dropped" in random:
            context = trained.conditioner.drop(context, random["dropped"])
        clean_BCHW = draw_latents(batch["moments"], random["latent"], scaling)
        losses["sd"] = diffusion_loss(
            trained.unet, schedule, clean_BCHW, context.tokens_BLD, random["noise"], random["step"], time_BD=context.time_BD,
            image_BD=context.image_BD, min_snr_gamma=weights.min_snr_gamma,
        )  # fmt: skip
    shares = {"sd": weights.w_sd, "clip": weights.w_clip, "contrastive": weights.w_contrastive, "class": weights.w_class}
    total = sum((shares[name] * value for name, value in losses.items()), torch.zeros((), device=batch["eeg"].device))
    return {"loss": total, **losses}


@dataclass(frozen=True)
class Shapes:
    """What a step is made of, without weights and data.

    encoder: makes an EEG encoder. unet: makes a U-Net. eeg: (C, T). side: latent pixels. clip_width, classes, captions: see
    `conditioner_config`.
    """

    encoder: Callable[[], EEGEncoder]
    unet: Callable[[], nn.Module]
    eeg: tuple[int, int]
    side: int
    clip_width: int
    classes: int = 0
    captions: int = 0


class BlankAdapter(nn.Module):
    """A linear map with a low-rank one beside it, of the sizes that peft gives it."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def blank_parts(config: FinetuneConfig, shapes: Shapes, precision: str = "fp32") -> Trained:
    """All parts with fresh weights, marked as in training; frozen matrices in half precision under bf16 and fp16, as `FrozenHalf` leaves them."""
    encoder, unet = shapes.encoder(), shapes.unet()
    if config.what.time_branch:
        accept_time_branch(unet)
    expected = conditioner_config(
        config, encoder, unet, clip_width=shapes.clip_width, classes=shapes.classes, captions=shapes.captions
    )
    trained = Trained(encoder, Conditioner(expected), unet)
    if config.what.trains == "lora":  # peft moves modules, which fake tensors do not allow once they are made
        choose_what_trains(trained, config.model_copy(update={"what": config.what.model_copy(update={"trains": "none"})}))
        for _, block in list(cross_attention_blocks(unet)):
            attention = block.attn2
            for name in ("to_q", "to_k", "to_v"):
                setattr(attention, name, BlankAdapter(getattr(attention, name), config.what.lora_rank))
            attention.to_out[0] = BlankAdapter(attention.to_out[0], config.what.lora_rank)
    else:
        choose_what_trains(trained, config)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    for part in unet.modules() if half is not None else ():
        for name, parameter in part.named_parameters(recurse=False):
            if not parameter.requires_grad and parameter.ndim > 1:
                setattr(part, name, nn.Parameter(parameter.to(half), requires_grad=False))
    if config.what.gradient_checkpointing:
        cast(Any, unet).enable_gradient_checkpointing()
        encoder.gradient_checkpointing = True
    return trained.train()


def blank_batch(
    config: FinetuneConfig, shapes: Shapes, batch: int, channels: int = 4
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Batch and random numbers of a step, as zeros and ones on the default device."""
    latent = (batch, channels, shapes.side, shapes.side)
    given = {
        "eeg": torch.ones(batch, *shapes.eeg),
        "moments": torch.zeros(batch, 2 * channels, shapes.side, shapes.side),
        "image": torch.arange(batch),
        "label": torch.zeros(batch, dtype=torch.long),
    }
    if shapes.clip_width:
        given["clip"] = torch.ones(batch, shapes.clip_width)
    random = {"latent": torch.zeros(latent), "noise": torch.zeros(latent), "step": torch.zeros(batch, dtype=torch.long)}
    if config.losses.guidance_dropout:
        random["dropped"] = torch.zeros(batch, dtype=torch.bool)
    return given, random


def finetune_memory(
    config: FinetuneConfig, shapes: Shapes, precision: str, *, batch: int | None = None, device: str = "cuda"
) -> StepMemory:
    """What a step needs, from shapes alone."""

    def build() -> tuple[nn.Module, Callable[[], Tensor]]:
        trained = blank_parts(config, shapes, precision)
        schedule = NoiseSchedule(torch.linspace(0.99, 0.01, STEPS), "epsilon")
        given, random = blank_batch(config, shapes, batch or config.data.batch_size)
        return trained, lambda: losses_of(trained, config, schedule, 0.18215, given, random)["loss"]

    return step_memory(build, precision=precision, device=device, moments=2 if config.optim.eight_bit else 8)
