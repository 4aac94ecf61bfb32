"""What pulls EEG vectors towards image vectors. z: predicted, t: target, both standardised (see `model.Head`).

    error        mean |z - t|^2, un-normalised: 1 for a model that says nothing, so the length is learned as well
    contrastive  symmetric InfoNCE over cosines with a learned temperature; all trials of a picture, of whatever person and
                 repetition, are positives of each other
    cosine       1 - cos(z, t): directions from the mean of the training pictures
    clip         1 - cos of the vectors in the target's own space: L_clip of DreamDiffusion, section 3.3

Shapes: B batch, D width of the target.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_SCALE = math.log(1 / 0.07)


def error_loss(z_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Squared distance, mean over the batch."""
    return (z_BD - target_BD).square().sum(1).mean()


def cosine_loss(z_BD: Tensor, target_BD: Tensor) -> Tensor:
    """1 - cosine, mean over the batch; of vectors in CLIP's space it is L_clip = 1 - cos(E_I(I), h(tau(y))) (paper, section 3.3)."""
    return 1 - F.cosine_similarity(z_BD.float(), target_BD.float(), dim=-1).mean()


def contrastive_loss(z_BD: Tensor, target_BD: Tensor, image_B: Tensor, log_scale: Tensor | float = LOG_SCALE) -> Tensor:
    """Symmetric InfoNCE; every trial of the same picture is a positive.

    Args:
        image_B: number of each trial's picture. log_scale: logarithm of one over the temperature; CLIP's start value by default.

    Source: Radford et al. 2021 (CLIP); several positives as in Khosla et al. 2020, section 3.2.2 (mean outside the logarithm).
    """
    scale = torch.as_tensor(log_scale).exp()
    similarity_BB = F.normalize(z_BD.float(), dim=-1) @ F.normalize(target_BD.float(), dim=-1).T * scale
    same_BB = (image_B[:, None] == image_B[None]).to(similarity_BB.dtype)
    positive_BB = same_BB / same_BB.sum(1, keepdim=True)
    rows = -(positive_BB * similarity_BB.log_softmax(1)).sum(1).mean()
    columns = -(positive_BB * similarity_BB.log_softmax(0)).sum(0).mean()
    return (rows + columns) / 2
