"""The image tower of the embedded CLIP, trained further by itself: 900 steps against the frozen text tower.

Trained together with the text tower (`clip.py`), the image tower names 83.6 % of the held-out drawings by the nearest category direction.
Here the captions stay as they are, and with them every context that the U-Net was trained on; only the image tower moves, on drawings that are
disguised harder: bent, recoloured, thickened, partly covered. A second, linear head that is thrown away afterwards has to give the mean colour of
the ink and a 4 x 4 thumbnail of the disguised drawing, so that the vector keeps the drawing and not only its category.

Shapes: B drawings, K categories, D width of a vector, H W pixels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamdiff.embedded import captions, categories, load_images
from tools.embedded_model.clip import tokenize
from tools.embedded_model.pictures import jitter, recolour, to_signed
from tools.embedded_model.stages import Plan, Stage

LOOK = 0.3  # weight of the second head's error, as a share of the variance of what it predicts
THUMBNAIL = 4  # cells along a side
COLOUR = 3.0  # weight of the mean colour against one cell of the thumbnail


def disguised(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Drawings moved, bent, recoloured, with thicker or thinner lines, blurred, and partly covered by white."""
    x = jitter(x_BCHW, generator, shift=0.2, scale=(0.6, 1.15), turn=20, flip=0.5)
    x = bent(x, generator)
    x = recolour(x, generator, 0.8 * float(torch.rand((), generator=generator)))
    x = _some(x, x.mean(1, keepdim=True).expand_as(x), 0.2, generator)  # grey
    gamma = torch.exp(0.5 * torch.randn(len(x), 3, 1, 1, generator=generator))
    x = 2 * ((x + 1) / 2).clamp(1e-3, 1) ** gamma - 1
    x = _some(x, F.max_pool2d(x, 3, 1, 1), 0.15, generator)  # thinner lines
    x = _some(x, -F.max_pool2d(-x, 3, 1, 1), 0.15, generator)  # thicker lines
    x = _some(x, F.avg_pool2d(F.pad(x, (1,) * 4, value=1.0), 3, 1), 0.3, generator)
    return _some(x, covered(x, generator), 0.4, generator)


def bent(x_BCHW: Tensor, generator: torch.Generator, size: float = 0.06) -> Tensor:
    """Moved by a smooth random field of `size` half widths."""
    count = len(x_BCHW)
    field = size * torch.randn(count, 2, 5, 5, generator=generator)
    field = F.interpolate(field, size=x_BCHW.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    still = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(x_BCHW.shape), align_corners=False)
    return 1 - F.grid_sample(1 - x_BCHW, still + field, align_corners=False)


def covered(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """A white square of 8 to 22 pixels somewhere."""
    count, _, height, width = x_BCHW.shape
    top, left = 48 * torch.rand(2, count, 1, 1, generator=generator)
    side = 8 + 14 * torch.rand(count, 1, 1, generator=generator)
    row, column = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
    return torch.where(inside[:, None], 1.0, x_BCHW)


def _some(x_BCHW: Tensor, changed_BCHW: Tensor, share: float, generator: torch.Generator) -> Tensor:
    return torch.where(torch.rand(len(x_BCHW), 1, 1, 1, generator=generator) < share, changed_BCHW, x_BCHW)


def look(x_BCHW: Tensor) -> Tensor:
    """(B, 51): mean colour of the ink and a thumbnail, 0 for white paper."""
    ink = 1 - x_BCHW
    mask = (ink.amax(1, keepdim=True) > 0.2).float()
    colour = (ink * mask).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1)
    return torch.cat([COLOUR * colour, F.adaptive_avg_pool2d(ink, THUMBNAIL).flatten(1)], 1)


class Tower(nn.Module):
    """The image tower and the head that is thrown away."""

    def __init__(self, visual: nn.Module, width: int) -> None:
        super().__init__()
        self.visual = visual.requires_grad_(True)
        self.look = nn.Linear(width, 3 + 3 * THUMBNAIL**2)


def train_tower(work: Path, seed: int, plan: Plan, clip: Any) -> Any:
    """The CLIP model with its image tower trained further; one drawing of every category in a step."""
    torch.manual_seed(seed + 4)
    drawings = load_images("train")
    images = to_signed(drawings.images_NHWC)
    members = [np.flatnonzero(drawings.labels_N == label) for label in range(len(categories()))]
    clip = clip.requires_grad_(False)
    with torch.no_grad():
        means = [clip.encode_text(tokenize(captions(name)), normalize=True).mean(0) for name in categories()]
    words_KD, scale = F.normalize(torch.stack(means), dim=1), float(clip.logit_scale.clamp(max=math.log(50)).exp())
    centre = look(images).mean(0)

    def loss_of(model: Tower, generator: torch.Generator, batch: int) -> Tensor:
        draw = torch.rand(len(members), generator=generator)
        picked = [int(group[int(len(group) * float(d))]) for group, d in zip(members, draw, strict=True)]
        x = disguised(images[picked], generator)
        expected = look(x) - centre
        x = x + 0.12 * torch.rand(batch, 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
        vector = F.normalize(model.visual(x), dim=1)
        named = F.cross_entropy(scale * vector @ words_KD.T, torch.arange(batch), label_smoothing=0.05)
        seen = F.mse_loss(model.look(vector * vector.shape[1] ** 0.5), expected) / expected.var(0).mean()
        return named + LOOK * seen

    tower = Stage("tower", Tower(clip.visual, words_KD.shape[1]), plan, work, seed + 4).run(loss_of)
    clip.visual = tower.visual
    return clip.eval()
