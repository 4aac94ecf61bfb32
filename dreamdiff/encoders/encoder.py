"""The EEG encoder of masked signal modelling: one Conv1d patch embedding over all channels, then pre-norm transformer blocks.

Shapes: B batch, C channels, T samples, L tokens (T / patch), D width, P values in a patch (patch x C).

Source: DreamDiffusion, section 3.1. What the paper leaves open follows the authors' published code: fixed position table with
sines and cosines concatenated, LayerNorm with eps 1e-5, qkv bias, exact GELU, no CLS token outside the autoencoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from dreamdiff.eeg_input import SignalConfig
from dreamdiff.encoders.config import EncoderConfig, Scaling, encoder_preset
from dreamdiff.encoders.kinds import read_encoder
from dreamdiff.encoders.transformer import Block, PatchEmbed, init_weights, position_table, run_blocks, to_patches
from dreamdiff.encoders.weights import Placed, save_folder, with_signal
from dreamdiff.untrusted.hub import model_folder
from eegprep.errors import ModelError

ROBUST_LIMIT = (
    20.0  # ours: scaled values beyond +-20 robust standard deviations are electrode pops, not brain; they would own the loss
)

ROBUST_FLOOR_UV = 1e-3  # ours: a flat window is not divided by zero

MAD_TO_STD = 1.4826  # standard deviation of a normal variable, per median absolute value


def robust_scale(eeg_BCT: Tensor) -> Tensor:
    """Robust standard deviation of each window over its channels and all samples, uV: (B,).

    1.4826 x median |x|: band-passed EEG has no offset, so the median is taken about zero. Rows that are 0 throughout hold no
    channel (`--mode zeros`) and are left out.
    """
    magnitude_BCT = eeg_BCT.abs()
    empty_BC1 = magnitude_BCT.amax(dim=2, keepdim=True) == 0
    # also where no row is empty: to look would halt a GPU, and break the graph of a compiled step
    middle_B = magnitude_BCT.masked_fill(empty_BC1, float("nan")).flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)
    return (middle_B * MAD_TO_STD).clamp_min(ROBUST_FLOOR_UV)


def scale_input(eeg_BCT: Tensor, scaling: Scaling, scale_B: Tensor | None = None) -> Tensor:
    """uV to the units the encoder works in.

    Args:
        eeg_BCT: (B, C, T), uV.
        scaling: `none`: unchanged. `divide-by-10`: x / 10. `robust`: divided by a robust standard deviation, limited to +-20.
        scale_B: for `robust`, the standard deviation of the recording each window came from, uV. Where the recording is unknown
            (a window alone) leave it out: each window is then divided by its own. Pre-training measures it per recording.
    """
    if scaling == "none":
        return eeg_BCT
    if scaling == "divide-by-10":
        return eeg_BCT / 10.0
    scale = robust_scale(eeg_BCT) if scale_B is None else scale_B.to(eeg_BCT).clamp_min(ROBUST_FLOOR_UV)
    return (eeg_BCT / scale[:, None, None]).clamp(-ROBUST_LIMIT, ROBUST_LIMIT)


class EEGEncoder(Placed):
    """EEG window -> one vector per token of `patch` samples.

    `encoder(eeg_BCT)` takes uV, applies the configured input scaling, and uses no CLS token, as the authors' fine-tuning encoder
    does; `embed` and `encode` are what the masked autoencoder calls, which does use one. Source: DreamDiffusion, section 3.1.

    Example:
        >>> import dreamdiff, torch
        >>> encoder = dreamdiff.MaskedSignalModel.from_preset("tiny").encoder  # or EEGEncoder.from_pretrained("RUN")
        >>> encoder(torch.randn(2, 128, 512)).shape
        torch.Size([2, 128, 64])
    """

    Config = EncoderConfig
    derived = ("pos_embed",)  # follows from the configuration

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.signal = SignalConfig()  # of the EEG that it was trained on
        self.gradient_checkpointing = False
        self.patch_embed = PatchEmbed(config.channels, config.patch, config.width)
        # used by the autoencoder alone, but saved with the encoder, as in the authors' checkpoints
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", position_table(config.tokens, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        init_weights(self)
        nn.init.normal_(self.cls_token, std=0.02)

    @classmethod
    def from_preset(cls, name: str, scaling: Scaling | None = None) -> EEGEncoder:
        """A randomly initialised encoder of a named shape, see `encoder_preset`."""
        return cls(encoder_preset(name, scaling))

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, scaling: Scaling | None = None, *, revision: str | None = None, local_files_only: bool = False
    ) -> EEGEncoder:
        """Read an encoder of any kind, or the encoder part of a larger model, from config.json and model.safetensors.

        Args:
            folder: a run of `dreamdiff train msm` or `dreamdiff train align`, finished or not, one of its checkpoints, or what
                `save_pretrained` wrote; or a repository of the Hub, `owner/name` or `hf:owner/name@revision`. What is not of the paper's kind
                comes as its own class (`encoders.kinds`).
            scaling: overrules the input scaling in config.json; of the paper's kind only.
            revision: of a repository: branch, tag or commit. local_files_only: never ask the Hub.
        """
        source = model_folder(folder, revision=revision, offline=local_files_only)
        return cast(EEGEncoder, read_encoder(source, {} if scaling is None else {"scaling": scaling}))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors; each appears under its name only when complete."""
        content = {"architecture": "EEGEncoder", "version": 1, "encoder": self.config.model_dump()}
        save_folder(Path(folder), with_signal(content, self.signal), self.state_dict())

    @property
    def tokens(self) -> int:
        """Tokens that `forward` returns."""
        return 1 if self.config.global_pool else self.config.tokens

    @property
    def width(self) -> int:
        """Size of each token."""
        return self.config.width

    def scale(self, eeg_BCT: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """uV to the encoder's units, after checking the shape."""
        expected = (self.config.channels, self.config.window)
        if eeg_BCT.ndim != 3 or tuple(eeg_BCT.shape[1:]) != expected:
            raise ModelError(
                f"EEG of shape {tuple(eeg_BCT.shape)} does not fit a model for (batch, {expected[0]}, {expected[1]})",
                "crop and pad with eegprep.crop and eegprep.pad_channels, or set model.encoder.channels and model.encoder.window",
            )
        return scale_input(eeg_BCT, self.config.scaling, scale_B)

    def embed(self, patches_BLP: Tensor, position_BLD: Tensor) -> Tensor:
        """Tokens of the given patches with their positions added."""
        return self.patch_embed(patches_BLP) + position_BLD

    def encode(self, tokens_BLD: Tensor) -> Tensor:
        """All blocks, without the last norm."""
        return run_blocks(tuple(self.blocks), tokens_BLD, self.gradient_checkpointing and self.training)

    def forward(self, eeg_BCT: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """(B, C, T) uV -> (B, L, D), or (B, 1, D) with `global_pool`.

        The configured scaling is applied first; with `scaling="none"` this is the authors' `eeg_encoder` to rounding.
        """
        patches_BLP = to_patches(self.scale(eeg_BCT.to(self.pos_embed.device), scale_B), self.config.patch)
        # row 0 of the table is the CLS token's
        tokens_BLD = self.encode(self.embed(patches_BLP, self.pos_embed[:, 1:]))
        if self.config.global_pool:
            tokens_BLD = tokens_BLD.mean(dim=1, keepdim=True)
        return self.norm(tokens_BLD)


def parameter_count(module: nn.Module) -> int:
    """Parameters of a module; the fixed position tables are buffers and do not count."""
    return sum(parameter.numel() for parameter in module.parameters())
