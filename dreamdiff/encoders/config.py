"""Settings and presets of the paper's encoder and of its masked autoencoder. Nothing here needs PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from eegprep import settings
from eegprep.errors import UsageError

Scaling = Literal["none", "divide-by-10", "robust"]
Align = Literal["person", "none"]  # whose whitener a front end takes

MAX_DEPTH = 1000  # blocks

MAX_PARAMETERS = 2e10  # 80 GB in float32: what is larger is a mistake, and making it would take all memory first


class EncoderConfig(settings.Settings):
    """Shape of the encoder, and how its input in uV is scaled (`scaling`), so that weights and scaling never part.

    scaling: `none`; `divide-by-10`, what the authors' pre-training data loader does; `robust`, see `scale_input`.
    """

    channels: int = Field(default=128, ge=1, description="Rows of a window")
    window: int = Field(default=512, ge=1, description="Length of a window, samples")
    patch: int = Field(default=4, ge=1, description="Samples per token")
    width: int = Field(default=1024, ge=2, description="Size of a token inside the encoder")
    depth: int = Field(default=24, ge=1, le=MAX_DEPTH, description="Transformer blocks of the encoder")
    heads: int = Field(default=16, ge=1, description="Attention heads; they divide the width")
    mlp_ratio: float = Field(default=1.0, gt=0, description="Hidden size of the two-layer networks, in widths")
    global_pool: bool = Field(default=False, description="One token: the mean over all before the last norm")
    scaling: Scaling = Field(
        default="robust", description="How uV are scaled: not at all, divided by 10, or by a robust standard deviation"
    )

    @model_validator(mode="after")
    def _fits(self) -> EncoderConfig:
        if self.window % self.patch:
            raise ValueError(f"a window of {self.window} samples cannot be cut into patches of {self.patch}")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"a width of {self.width} cannot be divided among {self.heads} heads (and must be even)")
        # per block 4 D^2 of attention and 2 r D^2 of the two layers; biases and norms do not matter for a limit
        parameters = self.width * (self.channels * self.patch + self.tokens + self.depth * self.width * (4 + 2 * self.mlp_ratio))
        if parameters > MAX_PARAMETERS:
            raise ValueError(f"a model of {parameters:.1e} parameters (limit {MAX_PARAMETERS:.0e})")
        return self

    @property
    def tokens(self) -> int:
        """L, tokens per window."""
        return self.window // self.patch


# name -> encoder; counts in the docstring of `preset`
ENCODER_PRESETS: dict[str, Mapping[str, Any]] = {
    "paper": {"width": 1024, "depth": 24, "heads": 16, "mlp_ratio": 4.0},
    "released": {"width": 1024, "depth": 24, "heads": 16, "mlp_ratio": 1.0},
    "w256": {"width": 256, "depth": 24, "heads": 16, "mlp_ratio": 4.0},
    "w512": {"width": 512, "depth": 24, "heads": 16, "mlp_ratio": 4.0},
    "w768": {"width": 768, "depth": 24, "heads": 16, "mlp_ratio": 4.0},
    "w1280": {"width": 1280, "depth": 24, "heads": 16, "mlp_ratio": 4.0},
    "shallow2": {"width": 1024, "depth": 2, "heads": 16, "mlp_ratio": 2.0},
    "small": {"width": 256, "depth": 6, "heads": 8, "mlp_ratio": 4.0},
    "tiny": {"width": 64, "depth": 2, "heads": 4, "mlp_ratio": 2.0},
}


def encoder_preset(name: str, scaling: Scaling | None = None) -> EncoderConfig:
    """A named encoder shape.

    Trainable parameters: paper 302.84 M; released 151.77 M (depth 24, width 1024, MLP ratio 1: what the authors' checkpoint
    holds); w256 19.09 M, w512 75.92 M, w768 170.51 M, w1280 472.92 M (sizes of Table 2 to within 6 %: the paper does not say
    how they were made); shallow2 17.33 M (two layers; the paper's 18.3 M); small 4.87 M and tiny 0.10 M: ours, for laptops and tests.
    """
    if name not in ENCODER_PRESETS:
        raise UsageError(
            f"there is no preset {name!r}{settings.suggest(name, ENCODER_PRESETS)}",
            f"choose one of: {', '.join(ENCODER_PRESETS)}",
        )
    extra = {} if scaling is None else {"scaling": scaling}
    return settings.validated(EncoderConfig, {**ENCODER_PRESETS[name], **extra})


def with_scaling(config: EncoderConfig, scaling: Scaling | None) -> EncoderConfig:
    return config if scaling is None else settings.validated(EncoderConfig, {**config.model_dump(), "scaling": scaling})


class DecoderConfig(settings.Settings):
    """The decoder that is thrown away after pre-training; its MLP ratio is the encoder's, as in the authors' code."""

    width: int = Field(default=512, ge=2, description="Size of a token inside the decoder")
    depth: int = Field(default=8, ge=1, description="Transformer blocks of the decoder")
    heads: int = Field(default=16, ge=1, description="Attention heads of the decoder")

    @model_validator(mode="after")
    def _fits(self) -> DecoderConfig:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"a width of {self.width} cannot be divided among {self.heads} heads (and must be even)")
        return self


class MaskedSignalConfig(settings.Settings):
    """Encoder, decoder, and the share of tokens that is hidden: 0.75 in the paper, 0.1 in the published code."""

    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    mask_ratio: float = Field(default=0.75, ge=0, lt=1, description="Share of tokens that is hidden")


DECODER_PRESETS: dict[str, Mapping[str, Any]] = {
    "small": {"width": 128, "depth": 2, "heads": 4},
    "tiny": {"width": 64, "depth": 2, "heads": 4},
}


def masked_signal_preset(name: str, scaling: Scaling | None = None) -> MaskedSignalConfig:
    """A named autoencoder: the encoder of `encoder_preset` with the authors' 512 x 8 decoder (smaller for `small` and `tiny`).

    `released` is the authors' published code in all respects: 10 % masked, input divided by 10. All others hide 75 %, as the paper.
    """
    encoder = encoder_preset(name, scaling or ("divide-by-10" if name == "released" else None))
    parts = {"encoder": encoder.model_dump(), "decoder": DECODER_PRESETS.get(name, {})}
    return settings.validated(MaskedSignalConfig, {**parts, "mask_ratio": 0.1 if name == "released" else 0.75})


PRESETS = tuple(ENCODER_PRESETS)
