"""Streams training trials with the latents and CLIP vectors of their images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamdiff.devices import send
from dreamdiff.pairs.image_cache import CachedRows, PlannedRows
from dreamdiff.pairs.reader import Pairs
from dreamdiff.training.shuffled import ShuffledBatches
from dreamdiff.training.task import Batch

PREFETCH = 4  # batches

EEG_MEMORY = 1 << 30  # bytes; a pairs store up to here is held in memory


# ------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class TrainingData:
    """Pairs with what the frozen networks say about the images of training and validation trials.

    parts: positions of train, val and test.
    row: image number -> row of `moments` and `clip_vectors`, -1 for images that only test trials have.
    """

    pairs: Pairs
    parts: dict[str, np.ndarray]
    row: np.ndarray
    moments: CachedRows | PlannedRows
    clip_vectors: CachedRows | PlannedRows | None

    def batch(self, positions: np.ndarray, eeg_NCT: np.ndarray | None = None) -> dict[str, Tensor]:
        """EEG in uV, VAE moments, CLIP vectors, labels and image numbers of these trials, as tensors."""
        image = self.pairs.image[positions]
        batch = {
            "index": torch.as_tensor(positions), "image": torch.as_tensor(image),
            "eeg": torch.from_numpy(self.pairs.eeg(positions) if eeg_NCT is None else eeg_NCT),
            "moments": torch.from_numpy(self.moments.read(self.row[image])),
            "label": torch.as_tensor(self.pairs.labels[positions].astype(np.int64)),
        }  # fmt: skip
        if self.clip_vectors is not None:
            batch["clip"] = torch.from_numpy(self.clip_vectors.read(self.row[image]))
        return batch


class PairStream(ShuffledBatches):
    """Shuffled batches of training trials. Their EEG is held in memory where it fits; that of a view of a corpus, and what does not
    fit, streams: read ahead by a thread, every window checked, and taken up again at the very next batch. Latents that do not fit into
    memory are read ahead as well.
    """

    def __init__(self, data: TrainingData, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        positions = data.parts["train"]
        bytes_needed = len(positions) * int(np.prod(data.pairs.eeg_shape)) * 4
        held = data.pairs.held and bytes_needed <= EEG_MEMORY
        ready = held and all(getattr(rows, "held", True) for rows in (data.moments, data.clip_vectors))
        super().__init__(positions, self._batch, batch_size, seed, rank, world_size, prefetch=0 if ready else PREFETCH)
        self.data = data
        self._held = data.pairs.eeg(positions) if held else None

    def _batch(self, rows: np.ndarray) -> Batch:
        return self.data.batch(self.positions[rows], None if self._held is None else self._held[rows])


def image_moments(vae: Any, images_NHWC: np.ndarray) -> Tensor:
    """Mean and log-variance of q(z | image), (N, 2 C, h, w): all that is needed to draw latents later."""
    pixels = send(torch.from_numpy(np.ascontiguousarray(images_NHWC)), vae.device).permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1
    # not a draw: every epoch draws its own latents from these two numbers
    return vae.encode(pixels).latent_dist.parameters.float().cpu()


def draw_latents(moments_BCHW: Tensor, noise_BCHW: Tensor, scaling_factor: float) -> Tensor:
    """z = (mean + std * noise) * scaling factor, log-variance limited to -30..20 as in the VAE itself."""
    mean, log_variance = moments_BCHW.chunk(2, dim=1)
    return (mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise_BCHW) * scaling_factor
