"""Masked signal modelling: hide most tokens of a window, encode the visible ones, rebuild the hidden ones.

Shapes: B batch, C channels, T samples, L tokens, K visible tokens, D encoder width, E decoder width, P values in a patch.

Source: DreamDiffusion, section 3.1, and the authors' published code where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamdiff.encoders.config import (
    MaskedSignalConfig,
    Scaling,
    masked_signal_preset,
    with_scaling,
)
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.transformer import Block, from_patches, init_weights, position_table, run_blocks, take_rows, to_patches
from dreamdiff.encoders.weights import config_section, load_module, save_folder, signal_section, with_signal
from dreamdiff.matmul import Linear
from dreamdiff.run_folder import read_config, weights_folder
from dreamdiff.untrusted.hub import model_folder
from eegprep import settings
from eegprep.errors import ModelError, UsageError


@dataclass
class MaskedSignalOutput:
    """What one pass gives.

    loss: mean squared error over hidden tokens, in the encoder's scaled units; a scalar.
    prediction: (B, C, T) rebuilt signal in scaled units, all tokens (those that were visible too); the layout of the input.
    mask: (B, L), 1 where a token was hidden, 0 where it was visible.
    target: (B, C, T) the scaled input that the prediction is compared with.
    """

    loss: Tensor
    prediction: Tensor
    mask: Tensor
    target: Tensor


class MaskedSignalModel(nn.Module):
    """Asymmetric masked autoencoder over time tokens; `encoder` is the part that is kept.

    Source: DreamDiffusion, section 3.1, and the authors' published code for what the paper leaves open.

    Example:
        >>> import dreamdiff, torch
        >>> model = dreamdiff.MaskedSignalModel.from_preset("tiny")
        >>> output = model(torch.randn(2, 128, 512), mask_ratio=0.75)
        >>> output.prediction.shape, output.mask.shape
        (torch.Size([2, 128, 512]), torch.Size([2, 128]))
    """

    def __init__(self, config: MaskedSignalConfig) -> None:
        super().__init__()
        self.config = config
        encoder, decoder = config.encoder, config.decoder
        self.encoder = EEGEncoder(encoder)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder.width))
        self.decoder_pos_embed: Tensor
        self.register_buffer("decoder_pos_embed", position_table(encoder.tokens, decoder.width))
        self.decoder_embed = Linear(encoder.width, decoder.width)
        self.decoder_blocks = nn.ModuleList(Block(decoder.width, decoder.heads, encoder.mlp_ratio) for _ in range(decoder.depth))
        self.decoder_norm = nn.LayerNorm(decoder.width)
        self.decoder_pred = Linear(decoder.width, encoder.patch * encoder.channels)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            init_weights(part)
        nn.init.normal_(self.mask_token, std=0.02)

    @classmethod
    def from_preset(cls, name: str, scaling: Scaling | None = None) -> MaskedSignalModel:
        """A randomly initialised model of a named size: paper, released, w256 ... w1280, shallow2, small, tiny."""
        return cls(masked_signal_preset(name, scaling))

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, scaling: Scaling | None = None, *, revision: str | None = None, local_files_only: bool = False
    ) -> MaskedSignalModel:
        """Read a model from a run of `dreamdiff train msm`, one of its checkpoints, a folder made by `save_pretrained`, or a repository of the Hub.

        Args:
            scaling: overrules the input scaling in config.json.
            revision: of a repository: branch, tag or commit. local_files_only: never ask the Hub.
        """
        source = weights_folder(model_folder(folder, revision=revision, offline=local_files_only))
        content = read_config(source)
        parts = {name: config_section(content, name, source) for name in ("encoder", "decoder")}
        config = settings.validated(MaskedSignalConfig, {**parts, "mask_ratio": content.get("mask_ratio", 0.75)})
        scaled = config.model_copy(update={"encoder": with_scaling(config.encoder, scaling)})
        model = load_module(lambda: cls(scaled), source)
        model.encoder.signal = signal_section(content)
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        save_folder(Path(folder), self.config_content(), self.state_dict())

    def config_content(self) -> Mapping[str, Any]:
        """What config.json holds."""
        content = {"architecture": "MaskedSignalModel", "version": 1, **self.config.model_dump(mode="json")}
        return with_signal(content, self.encoder.signal)

    def set_gradient_checkpointing(self, on: bool) -> None:
        """Trade time for memory in encoder and decoder."""
        self.encoder.gradient_checkpointing = on

    def forward(
        self,
        eeg_BCT: Tensor,
        noise: Tensor | None = None,
        mask_ratio: float | None = None,
        scale_B: Tensor | None = None,
    ) -> MaskedSignalOutput:
        """Hide tokens, rebuild them, compare.

        Args:
            eeg_BCT: (B, C, T), uV. The configured input scaling is applied first; loss, prediction, target are in scaled units.
                With `scaling="none"` nothing is applied and the numbers are those of the authors' autoencoder.
            noise: (B, L); the int(L x (1 - ratio)) tokens with the smallest values stay visible. Uniform when left out.
            mask_ratio: share of hidden tokens, 0 <= ratio < 1; the configured one when left out.
            scale_B: (B,) uV, see `encoder.scale_input`.
        """
        patches_BLP, keep_BK, restore_BL = self._hide(eeg_BCT, noise, mask_ratio, scale_B)
        hidden_BLE = self._decode(self._encode_visible(patches_BLP, keep_BK), restore_BL)
        prediction_BLP = self.decoder_pred(self.decoder_norm(hidden_BLE))
        # rank K and above: the visible ones come first in the order of noise
        mask_BL = (restore_BL >= keep_BK.shape[1]).to(patches_BLP.dtype)
        channels = self.config.encoder.channels
        return MaskedSignalOutput(
            loss=masked_mse(prediction_BLP, patches_BLP, mask_BL),
            prediction=from_patches(prediction_BLP, channels),
            mask=mask_BL,
            target=from_patches(patches_BLP, channels),
        )

    def loss(
        self,
        eeg_BCT: Tensor,
        noise: Tensor | None = None,
        mask_ratio: float | None = None,
        scale_B: Tensor | None = None,
    ) -> Tensor:
        """The loss of `forward`, for training: visible tokens are not rebuilt, because the loss does not use them."""
        patches_BLP, keep_BK, restore_BL = self._hide(eeg_BCT, noise, mask_ratio, scale_B)
        latent_BKD = self._encode_visible(patches_BLP, keep_BK)
        # the tokens of rank K and above in the order of noise: as many in every window
        missing_BM = restore_BL.argsort(dim=1)[:, keep_BK.shape[1] :]
        if missing_BM.shape[1] == 0:
            # a zero with a graph, so that backward works and every parameter has a gradient
            return latent_BKD.sum() * 0.0
        prediction_BMP = self.decoder_pred(self.decoder_norm(self._decode(latent_BKD, restore_BL, missing_BM)))
        return nn.functional.mse_loss(prediction_BMP, take_rows(patches_BLP, missing_BM))

    def _hide(
        self, eeg_BCT: Tensor, noise_BL: Tensor | None, mask_ratio: float | None, scale_B: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled patches, the indices of the visible ones, and each token's rank in the order of noise."""
        patches_BLP = to_patches(self.encoder.scale(eeg_BCT, scale_B), self.config.encoder.patch)
        ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        batch, tokens = patches_BLP.shape[:2]
        if not 0 <= ratio < 1 or int(tokens * (1 - ratio)) < 1:
            raise UsageError(
                f"a mask ratio of {ratio} leaves no token of {tokens} visible", "set a mask ratio of at least 0 and below 1"
            )
        if noise_BL is None:
            noise_BL = torch.rand(batch, tokens, device=patches_BLP.device)
        elif tuple(noise_BL.shape) != (batch, tokens):
            raise ModelError(
                f"masking noise of shape {tuple(noise_BL.shape)} does not fit {batch} windows of {tokens} tokens",
                f"pass noise of shape ({batch}, {tokens}), or none",
            )
        order_BL = noise_BL.argsort(dim=1)
        return patches_BLP, order_BL[:, : int(tokens * (1 - ratio))], order_BL.argsort(dim=1)

    def _encode_visible(self, patches_BLP: Tensor, keep_BK: Tensor) -> Tensor:
        """(B, 1 + K, D): CLS, then the visible tokens. Hidden patches are never embedded."""
        visible_BKP = take_rows(patches_BLP, keep_BK)
        position_LD = self.encoder.pos_embed[0]
        tokens_BKD = self.encoder.embed(visible_BKP, position_LD[1:][keep_BK])
        cls_B1D = (self.encoder.cls_token + position_LD[:1]).expand(len(keep_BK), -1, -1)
        return self.encoder.norm(self.encoder.encode(torch.cat([cls_B1D, tokens_BKD], dim=1)))

    def _decode(self, latent_BKD: Tensor, restore_BL: Tensor, missing_BM: Tensor | None = None) -> Tensor:
        """(B, L, E) before the last norm: mask tokens filled in, order restored, CLS dropped after the blocks.

        (B, M, E) when only the tokens `missing_BM` are requested.
        """
        visible_BKE = self.decoder_embed(latent_BKD)
        batch, known, _ = visible_BKE.shape
        filler = self.mask_token.to(visible_BKE.dtype).expand(batch, restore_BL.shape[1] + 1 - known, -1)
        shuffled_BLE = torch.cat([visible_BKE[:, 1:], filler], dim=1)
        ordered_BLE = take_rows(shuffled_BLE, restore_BL)
        # positions after the order is restored: a mask token knows only where it is
        x_BLE = torch.cat([visible_BKE[:, :1], ordered_BLE], dim=1) + self.decoder_pos_embed
        recompute = self.encoder.gradient_checkpointing and self.training
        if missing_BM is None:
            return run_blocks(tuple(self.decoder_blocks), x_BLE, recompute)[:, 1:]
        return run_blocks(tuple(self.decoder_blocks), x_BLE, recompute, rows_BM=missing_BM + 1)  # CLS is row 0


def masked_mse(prediction_BLP: Tensor, target_BLP: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over the values of a token, then over hidden tokens; not normalised per token. Zero when nothing is hidden."""
    error_BL = (prediction_BLP - target_BLP).square().mean(dim=-1)
    return (error_BL * mask_BL).sum() / mask_BL.sum().clamp_min(1)
