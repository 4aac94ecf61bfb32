"""Changes of drawings that keep what they show: moved, mirrored, recoloured.

Shapes: B pictures, H W pixels; pictures are (B, 3, H, W) in [-1, 1], white paper is 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def to_signed(images_NHWC: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def jitter(
    images_BCHW: Tensor,
    generator: torch.Generator,
    *,
    shift: float,
    scale: tuple[float, float],
    turn: float = 0.0,
    flip: float = 0.0,
) -> Tensor:
    """Move, scale, turn and mirror drawings on white paper.

    Args:
        shift: largest displacement, in half widths of the picture.
        scale: smallest and largest size relative to the drawing.
        turn: largest angle, degrees.
        flip: probability of a mirror image.
    """
    count = len(images_BCHW)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, size = uniform(-turn, turn) * math.pi / 180, 1 / uniform(*scale)
    mirror = torch.where(torch.rand(count, generator=generator) < flip, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * size * angle.cos(), -size * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = mirror * size * angle.sin(), size * angle.cos()
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-shift, shift), uniform(-shift, shift)
    grid = F.affine_grid(theta, list(images_BCHW.shape), align_corners=False)
    ink = F.grid_sample(1 - images_BCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return 1 - ink


def recolour(images_BCHW: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Turn the hue and change the saturation of the ink; white and black stay.

    The three channels are rotated about the grey axis by up to `strength` times 180 degrees.
    """
    count = len(images_BCHW)
    angle = (2 * torch.rand(count, generator=generator) - 1) * math.pi * strength
    saturation = 1 + strength * (2 * torch.rand(count, generator=generator) - 1)
    axis = torch.full((3, 3), 1 / 3)
    skew = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    plane = torch.eye(3) - axis
    rotation = axis + saturation[:, None, None] * (angle.cos()[:, None, None] * plane + angle.sin()[:, None, None] * skew)
    return torch.einsum("bij,bjhw->bihw", rotation, images_BCHW).clamp(-1, 1)
