"""A second implementation of the encoder and the masked autoencoder, from timm's Block, written from the description of the
authors' code and not from ours: convolution over all tokens, then masking, then blocks. Its parameter names are the authors'."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import nn


def sincos(width: int, positions: np.ndarray) -> np.ndarray:
    omega = 1.0 / 10000 ** (np.arange(width // 2, dtype=float) / (width / 2.0))
    angles = np.outer(positions, omega)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def table(width: int, tokens: int) -> nn.Parameter:
    rows = np.concatenate([np.zeros([1, width]), sincos(width, np.arange(tokens, dtype=float))])
    return nn.Parameter(torch.from_numpy(rows).float()[None], requires_grad=False)


class Patches(nn.Module):
    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, x):
        return self.proj(x).transpose(1, 2).contiguous()


class TimmMAE(nn.Module):
    """Masked autoencoder with the authors' state-dict keys."""

    def __init__(self, channels=128, window=512, patch=4, width=64, depth=2, heads=4, mlp_ratio=1.0, decoder=(32, 2, 4)) -> None:
        super().__init__()
        tokens, (d_width, d_depth, d_heads) = window // patch, decoder
        block = partial(Block, mlp_ratio=mlp_ratio, qkv_bias=True, norm_layer=nn.LayerNorm)
        self.patch, self.channels = patch, channels
        self.patch_embed = Patches(channels, patch, width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = table(width, tokens)
        self.blocks = nn.ModuleList(block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.decoder_embed = nn.Linear(width, d_width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, d_width) * 0.02)
        self.decoder_pos_embed = table(d_width, tokens)
        self.decoder_blocks = nn.ModuleList(block(d_width, d_heads) for _ in range(d_depth))
        self.decoder_norm = nn.LayerNorm(d_width)
        self.decoder_pred = nn.Linear(d_width, channels * patch)

    def forward(self, x, noise, ratio):
        """-> loss, prediction (B, L, patch x channels), mask (B, L)."""
        batch, tokens = noise.shape
        h = self.patch_embed(x) + self.pos_embed[:, 1:]
        keep = int(tokens * (1 - ratio))
        shuffle = torch.argsort(noise, dim=1)
        restore = torch.argsort(shuffle, dim=1)
        h = torch.gather(h, 1, shuffle[:, :keep, None].repeat(1, 1, h.shape[-1]))
        mask = torch.ones(batch, tokens)
        mask[:, :keep] = 0
        mask = torch.gather(mask, 1, restore)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        h = torch.cat([cls, h], dim=1)
        for block in self.blocks:
            h = block(h)
        h = self.decoder_embed(self.norm(h))
        filler = self.mask_token.repeat(batch, tokens + 1 - h.shape[1], 1)
        body = torch.cat([h[:, 1:], filler], dim=1)
        body = torch.gather(body, 1, restore[:, :, None].repeat(1, 1, h.shape[2]))
        h = torch.cat([h[:, :1], body], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            h = block(h)
        prediction = self.decoder_pred(self.decoder_norm(h))[:, 1:]
        target = x.transpose(1, 2).contiguous().view(batch, tokens, self.patch * self.channels)
        loss = ((prediction - target) ** 2).mean(dim=-1)
        return (loss * mask).sum() / mask.sum(), prediction, mask

    def encode(self, x, global_pool=False):
        """The authors' fine-tuning encoder: no CLS token."""
        h = self.patch_embed(x) + self.pos_embed[:, 1:]
        for block in self.blocks:
            h = block(h)
        return self.norm(h.mean(dim=1, keepdim=True) if global_pool else h)
