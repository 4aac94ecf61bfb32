"""Transformer blocks of the EEG encoder and its patch embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import checkpoint as checkpointing

from dreamdiff.matmul import Linear, linear


def position_table(tokens: int, width: int) -> Tensor:
    """Fixed table (1, 1 + tokens, width): zeros for CLS, then [sin | cos] of position / 10000^(i / (width / 2))."""
    omega = 1.0 / 10000.0 ** (torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle_LH = torch.arange(tokens, dtype=torch.float64)[:, None] * omega[None, :]
    table_LD = torch.cat([angle_LH.sin(), angle_LH.cos()], dim=1)
    # in float64 until here, as the authors' numpy code computes it
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table_LD])[None].float()


def to_patches(eeg_BCT: Tensor, patch: int) -> Tensor:
    """(B, C, T) -> (B, L, P), time-major inside a patch, channels fastest (the authors' target layout)."""
    batch, channels, samples = eeg_BCT.shape
    return eeg_BCT.transpose(1, 2).reshape(batch, samples // patch, patch * channels)


def from_patches(patches_BLP: Tensor, channels: int) -> Tensor:
    """(B, L, P) -> (B, C, T): the inverse of `to_patches`."""
    return patches_BLP.reshape(patches_BLP.shape[0], -1, channels).transpose(1, 2)


class PatchEmbed(nn.Module):
    """Conv1d with kernel = stride = patch over all channels. Takes patches, so that only visible ones need be embedded."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, patches_BLP: Tensor) -> Tensor:
        # the convolution as one matrix product on time-major patches: weight (D, C, patch) -> (D, patch x C)
        return linear(patches_BLP, self.proj.weight.transpose(1, 2).flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention with qkv bias, through PyTorch's fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x_BLD: Tensor, rows_BM: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(B, L, D), or (B, M, D) when only the tokens `rows_BM` ask; all tokens answer, or those that `mask` (B, 1, 1, L) leaves."""
        if rows_BM is None:
            q, k, v = self._heads(self.qkv(x_BLD)).unbind(0)
        else:
            width = x_BLD.shape[2]
            # queries of the tokens that are asked for only: in the last block before the loss, visible ones need none
            weight, bias = self.qkv.weight, self.qkv.bias
            (q,) = self._heads(linear(take_rows(x_BLD, rows_BM), weight[:width], bias[:width])).unbind(0)
            k, v = self._heads(linear(x_BLD, weight[width:], bias[width:])).unbind(0)
        mixed_BHLd = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(mixed_BHLd.transpose(1, 2).flatten(2))

    def _heads(self, x_BLnD: Tensor) -> Tensor:
        """(B, L, n x D) -> (n, B, heads, L, D / heads)."""
        batch, tokens, width = x_BLnD.shape
        head = self.proj.in_features // self.heads
        return x_BLnD.view(batch, tokens, width // self.proj.in_features, self.heads, head).permute(2, 0, 3, 1, 4)


def take_rows(x_BLD: Tensor, rows_BM: Tensor) -> Tensor:
    """Each window's own choice of tokens: (B, M, D)."""
    return x_BLD.gather(1, rows_BM[:, :, None].expand(-1, -1, x_BLD.shape[2]))


class Mlp(nn.Module):
    """Two linear layers with exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_BLD)))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)  # eps 1e-5, PyTorch's default and the authors' choice, not ViT's 1e-6
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x_BLD: Tensor, rows_BM: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """All tokens, or only the tokens `rows_BM` of each window, which is enough in the last block before a loss on them."""
        kept = x_BLD if rows_BM is None else take_rows(x_BLD, rows_BM)
        kept = kept + self.attn(self.norm1(x_BLD), rows_BM, mask)
        return kept + self.mlp(self.norm2(kept))


def run_blocks(blocks: Sequence[nn.Module], x_BLD: Tensor, recompute: bool, rows_BM: Tensor | None = None) -> Tensor:
    """Apply blocks in turn; `recompute` (gradient checkpointing) makes a block's activations again in the backward pass.

    `rows_BM`: the tokens that the last block has to give.
    """
    for number, block in enumerate(blocks, start=1):
        rows = rows_BM if number == len(blocks) else None
        again = recompute and torch.is_grad_enabled()
        x_BLD = checkpointing.checkpoint(block, x_BLD, rows, use_reentrant=False) if again else block(x_BLD, rows)
    return x_BLD


def init_weights(module: nn.Module) -> None:
    """Xavier-uniform linears without bias, normal(0.02) convolutions: the authors' initialisation."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv1d):
            nn.init.normal_(part.weight, std=0.02)
