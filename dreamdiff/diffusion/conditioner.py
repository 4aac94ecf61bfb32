"""EEG latent -> what Stable Diffusion reads: tokens for cross-attention, a CLIP vector, and (released model) a time vector.

Shapes: B batch, L tokens, D width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dreamdiff.diffusion.adapters import AdapterTensors
from dreamdiff.encoders.weights import Placed
from eegprep.errors import ModelError
from eegprep.settings import Settings


class ConditionerConfig(Settings):
    """Widths come from the models that are joined: the EEG encoder, the U-Net and the CLIP tower."""

    tokens_in: int = Field(default=128, ge=1, description="Tokens of the EEG encoder")
    width_in: int = Field(default=1024, ge=1, description="Width of an EEG token")
    tokens_mid: int = Field(default=64, ge=1, description="Tokens between the two mixers (authors' code: 64)")
    tokens_out: int = Field(default=77, ge=1, description="Context tokens; Stable Diffusion 1.x was trained with 77")
    context_width: int = Field(default=768, ge=1, description="Width of a context token")
    clip_width: int = Field(default=768, ge=0, description="Width of a CLIP image vector; 0 leaves the CLIP head out")
    clip_from: Literal["latent", "tau"] = Field(
        default="latent", description="h reads the encoder latent (authors' code) or tau(y) (paper, section 3.3)"
    )
    time_width: int = Field(
        default=0, ge=0, description="Width of the U-Net's time embedding, for the released model's branch; 0: none"
    )
    classes: int = Field(default=0, ge=0, description="Outputs of the classifier head of `cls_tune`; 0: none")
    linear_channels: int = Field(default=0, ge=0, description="EEG channels that the linear path reads; 0: no linear path")
    linear_bins: int = Field(default=32, ge=1, description="Time bins that the linear path averages a window into")
    captions: int = Field(default=0, ge=0, description="Captions that the linear path's bridge holds")
    adapter: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="Tensors of the image adapter that reads h(y), and their shapes; none: captions alone"
    )


@dataclass(frozen=True)
class Context:
    """What one batch of EEG asks the generator for.

    tokens_BLD: tau(y), keys and values of cross-attention. clip_BD: h(.), not normalised, or None without a CLIP head.
    time_BD: added to the time embedding, or None. logits_BK: classifier head, or None. image_BD: what an image adapter in the U-Net
    reads, zeros for nothing, or None without one.
    """

    tokens_BLD: Tensor
    clip_BD: Tensor | None = None
    time_BD: Tensor | None = None
    logits_BK: Tensor | None = None
    image_BD: Tensor | None = None


class Conditioner(Placed):
    """tau (paper, section 3.2), the CLIP head h (section 3.3), and the released model's time branch.

    tau mixes tokens twice, 128 -> 64 -> 77, with nothing between, then maps widths (authors' code). `null_LD` is the context
    of "no EEG", for classifier-free guidance; it is zero until it is trained.
    """

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.config = config
        # convolutions of width 1 over tokens: matrices that mix tokens, under the names of the authors' checkpoints
        self.channel_mapper = nn.Sequential(
            nn.Conv1d(config.tokens_in, config.tokens_mid, 1), nn.Conv1d(config.tokens_mid, config.tokens_out, 1)
        )
        self.dim_mapper = nn.Linear(config.width_in, config.context_width)
        self.null_LD = nn.Parameter(torch.zeros(config.tokens_out, config.context_width))
        self.clip_head: ClipHead | None = None
        self.time_branch: nn.Sequential | None = None
        self.classifier: nn.Linear | None = None
        if config.clip_width:
            tokens, width = (
                (config.tokens_in, config.width_in) if config.clip_from == "latent" else (config.tokens_out, config.context_width)
            )
            self.clip_head = ClipHead(tokens, width, config.clip_width)
        if config.time_width:
            half = max(config.tokens_out // 2, 1)
            self.time_branch = nn.Sequential(
                nn.Conv1d(config.tokens_out, half, 1), nn.Conv1d(half, 1, 1), nn.Linear(config.context_width, config.time_width)
            )
        self.linear: LinearPath | None = None
        self.bridge: Bridge | None = None
        if config.linear_channels:
            if not config.clip_width:
                raise ModelError(
                    "a linear path needs the CLIP head (clip_width is 0)", "set w_clip above 0, or linear_start to false"
                )
            self.linear = LinearPath(config.linear_channels, config.linear_bins, config.clip_width)
            self.bridge = Bridge(config.captions, config.clip_width, config.tokens_out, config.context_width)
        self.adapter = AdapterTensors(config.adapter) if config.adapter else None
        if config.classes:
            if not config.clip_width:
                raise ModelError(
                    "a classifier head needs the CLIP head (clip_width is 0)", "set w_clip above 0, or leave w_class at 0"
                )
            self.classifier = nn.Linear(config.clip_width, config.classes)

    def forward(self, latent_BLD: Tensor, eeg_BCT: Tensor | None = None) -> Context:
        """Latent of the EEG encoder, (B, tokens_in, width_in), and (only for the linear path) its scaled input to a `Context`.

        Raises:
            ModelError: the latent has another shape than this conditioner was made for.
        """
        expected = (self.config.tokens_in, self.config.width_in)
        if tuple(latent_BLD.shape[1:]) != expected:
            raise ModelError(
                f"the EEG latent is {tuple(latent_BLD.shape[1:])} (tokens, width), this conditioner reads {expected}",
                "use the encoder that the conditioner was trained with",
            )
        tokens_BLD = self.dim_mapper(self.channel_mapper(latent_BLD))
        clip_BD = self.clip_head(latent_BLD if self.config.clip_from == "latent" else tokens_BLD) if self.clip_head else None
        image_BD: Tensor | None = None
        if self.linear is not None and self.bridge is not None and clip_BD is not None and eeg_BCT is not None:
            clip_BD = clip_BD + self.linear(eeg_BCT)
            tokens_BLD = tokens_BLD + self.bridge(clip_BD)
            image_BD = self.bridge.direction(clip_BD)
        logits_BK = self.classifier(clip_BD) if self.classifier is not None and clip_BD is not None else None
        return Context(tokens_BLD, clip_BD, self.time_vector(tokens_BLD), logits_BK, self._read(image_BD, len(tokens_BLD)))

    def _read(self, image_BD: Tensor | None, batch: int) -> Tensor | None:
        """What the adapter reads: the direction, or zeros, which is nothing; None without an adapter."""
        if self.adapter is None:
            return None
        return self.null_LD.new_zeros(batch, self.adapter.width) if image_BD is None else image_BD

    def null(self, batch: int) -> Context:
        """The context of no EEG, for guidance."""
        tokens_BLD = self.null_LD.expand(batch, -1, -1)
        return Context(tokens_BLD, time_BD=self.time_vector(tokens_BLD), image_BD=self._read(None, batch))

    def time_vector(self, tokens_BLD: Tensor) -> Tensor | None:
        """(B, time_width) from tau(y), or None without the branch."""
        return self.time_branch(tokens_BLD).squeeze(1) if self.time_branch is not None else None

    def drop(self, context: Context, dropped_B: Tensor) -> Context:
        """The same context with the chosen rows replaced by "no EEG" (Ho and Salimans 2021: classifier-free guidance)."""
        null = self.null(len(dropped_B))
        chosen = dropped_B.view(-1, 1, 1)
        time_BD = context.time_BD
        if time_BD is not None and null.time_BD is not None:
            time_BD = torch.where(chosen[:, 0], null.time_BD, time_BD)
        tokens_BLD = torch.where(chosen, null.tokens_BLD.to(context.tokens_BLD.dtype), context.tokens_BLD)
        image_BD = context.image_BD
        if image_BD is not None:
            image_BD = torch.where(chosen[:, 0], 0.0, image_BD)
        return Context(tokens_BLD, context.clip_BD, time_BD, context.logits_BK, image_BD)

    @torch.no_grad()
    def calibrate(self, latent_BLD: Tensor, mean: float, std: float) -> None:
        """Shift and scale tau so that its output on these latents has the mean and spread that the U-Net was trained to read.

        Newly initialised layers give tokens with a standard deviation far below 1, so cross-attention barely responds. Ours, not the paper's.
        """
        tokens = self.dim_mapper(self.channel_mapper(latent_BLD)).float()
        scale = std / tokens.std().clamp_min(1e-8)  # a tensor: a number would have the host wait for the device
        self.dim_mapper.weight.mul_(scale)
        # the bias goes through the same map as the tokens: (x - mean) * scale + mean
        self.dim_mapper.bias.sub_(tokens.mean()).mul_(scale).add_(mean)


class LinearPath(nn.Module):
    """Scaled EEG -> CLIP's space by one linear map of channels x time bins: the baseline that any decoder has to beat. Ours."""

    def __init__(self, channels: int, bins: int, clip_width: int) -> None:
        super().__init__()
        self.bins = bins
        self.map = nn.Linear(channels * bins, clip_width)

    def features(self, eeg_BCT: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, bins): means over time bins."""
        return eeg_BCT.unflatten(-1, (self.bins, -1)).mean(-1)

    def forward(self, eeg_BCT: Tensor) -> Tensor:
        """(B, C, T) -> (B, clip_width)."""
        return self.map(self.features(eeg_BCT).flatten(1))


class Bridge(nn.Module):
    """A direction in CLIP's space -> context tokens, by attention over captions: their text states, weighted by how near each one is.

    A linear map instead would mix the states of all captions that the EEG leaves open, and the U-Net knows no such mixtures.
    Ours; the paper goes from the latent only. Keys and states are trained further like any other parameter.
    """

    clip_mean_D: Tensor
    SHARPNESS = 16.0  # ours: cosines of single trials differ by some tenths between the right caption and the others

    def __init__(self, captions: int, clip_width: int, tokens: int, width: int) -> None:
        super().__init__()
        self.keys_KD = nn.Parameter(torch.zeros(captions, clip_width))
        self.states_KLD = nn.Parameter(torch.zeros(captions, tokens, width))
        self.register_buffer("clip_mean_D", torch.zeros(clip_width))

    def direction(self, clip_BD: Tensor) -> Tensor:
        """Where a vector points, seen from the mean of the training images; what an image adapter reads."""
        return F.normalize(clip_BD - self.clip_mean_D, dim=-1)

    def forward(self, clip_BD: Tensor) -> Tensor:
        """(B, clip_width) -> (B, tokens, width)."""
        weight_BK = (self.SHARPNESS * self.direction(clip_BD) @ F.normalize(self.keys_KD, dim=-1).T).softmax(dim=-1)
        return torch.einsum("bk,kld->bld", weight_BK, self.states_KLD)


def condition(encoder: nn.Module, conditioner: Conditioner, eeg_BCT: Tensor) -> Context:
    """EEG in uV through encoder and conditioner."""
    scaled_BCT = cast(Any, encoder).scale(eeg_BCT) if conditioner.linear is not None else None
    return conditioner(encoder(eeg_BCT), scaled_BCT)


class ClipHead(nn.Module):
    """h: one learned mean over tokens, then a linear map to CLIP's width (authors' code)."""

    def __init__(self, tokens: int, width: int, clip_width: int) -> None:
        super().__init__()
        self.pool = nn.Conv1d(tokens, 1, 1)
        self.fc = nn.Linear(width, clip_width)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """(B, tokens, width) -> (B, clip_width)."""
        return self.fc(self.pool(tokens_BLD).squeeze(1))
