"""A prior over image vectors: predicted vectors pulled towards vectors of training pictures.

A frozen generator draws clear pictures of clear vectors; vectors predicted from EEG lie between pictures. The prior is a soft choice
of the nearest training pictures, without training, and must be named where results are shown: it can only give what was shown in
training.

Shapes: B trials, N training pictures, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 16.0  # cosines of predictions to the right picture and to the others differ by some tenths
SHARE = 0.7  # of the nearest pictures in the result


@dataclass(frozen=True)
class Prior:
    """Softmax over cosines to training pictures, then `share` of their mean direction and the rest of the prediction's own.

    mean_D: where directions start; the mean of the training vectors.
    """

    bank_ND: Tensor
    sharpness: float = SHARPNESS
    share: float = SHARE

    @property
    def mean_D(self) -> Tensor:
        return self.bank_ND.mean(0)

    def __call__(self, vectors_BD: Tensor) -> Tensor:
        """(B, D), at the distance from the mean that each prediction has."""
        centred_BD = vectors_BD - self.mean_D
        direction_BD = F.normalize(centred_BD, dim=1)
        directions_ND = F.normalize(self.bank_ND - self.mean_D, dim=1)
        weight_BN = (self.sharpness * direction_BD @ directions_ND.T).softmax(dim=1)
        near_BD = F.normalize(weight_BN @ directions_ND, dim=1)
        pulled_BD = F.normalize((1 - self.share) * direction_BD + self.share * near_BD, dim=1)
        return self.mean_D + centred_BD.norm(dim=1, keepdim=True) * pulled_BD
