"""Streams training trials with the latents and CLIP vectors of their images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamdiff.finetuning.config import FinetuneConfig
from dreamdiff.finetuning.latent_cache import CachedRows
from dreamdiff.pairs.reader import Pairs
from dreamdiff.training.task import Batch, mix
from eegprep.errors import DataError

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
    moments: CachedRows
    clip_vectors: CachedRows | None

    def batch(self, positions: np.ndarray, eeg_NCT: np.ndarray | None = None) -> dict[str, Any]:
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


class PairStream:
    """Shuffled batches of trials; every process takes its share of each epoch's permutation (see `loop.Stream`)."""

    def __init__(self, data: TrainingData, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.data, self.batch_size, self.seed, self.rank, self.world_size = data, batch_size, seed, rank, world_size
        self.positions = data.parts["train"]
        self.share = len(self.positions) // world_size
        if self.share == 0:
            raise DataError(
                f"{len(self.positions)} training trials for {world_size} processes", "use fewer processes, or another split"
            )
        self.epoch, self.done = 0, 0
        bytes_wanted = len(self.positions) * int(np.prod(data.pairs.eeg_shape)) * 4
        self._held = data.pairs.eeg(self.positions) if bytes_wanted <= EEG_MEMORY else None

    def __len__(self) -> int:
        return (self.share + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        order = np.random.default_rng(mix(self.seed, self.epoch, "pairs")).permutation(len(self.positions))
        mine = order[self.rank :: self.world_size][: self.share]
        while self.done < len(self):
            chosen = mine[self.done * self.batch_size : (self.done + 1) * self.batch_size]
            self.done += 1
            yield self.data.batch(self.positions[chosen], None if self._held is None else self._held[chosen])
        self.epoch, self.done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batches handed out in it."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the very next batch."""
        self.epoch, self.done = int(state["epoch"]), int(state["done"])


def split_parts(pairs: Pairs, config: FinetuneConfig) -> dict[str, np.ndarray]:
    """Positions of train, val and test; test is returned so that it can be kept out, nothing here reads it.

    Raises:
        DataError: an empty part, or parts that share a trial.
    """
    parts = pairs.split(config.split)  # the same trials under this name for generate and evaluate, whatever the training seed
    if len(parts["train"]) == 0:
        raise DataError(f"{pairs.path}: split {config.split!r} has no training trials", "choose another --set split=NAME")
    if len(parts["val"]) == 0 and config.select != "last":
        raise DataError(
            f"{pairs.path}: split {config.split!r} has no validation trials, which select = {config.select!r} judges by",
            "choose a split with a val part, or --set select=last",
        )
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = np.intersect1d(parts[first], parts[second])
        if len(both):
            raise DataError(f"{pairs.path}: {first} and {second} share {len(both)} trials", "mend the split")
    return parts


def image_moments(vae: Any, images_NHWC: np.ndarray) -> Tensor:
    """Mean and log-variance of q(z | image), (N, 2 C, h, w): all that is needed to draw latents later."""
    pixels = torch.from_numpy(np.ascontiguousarray(images_NHWC)).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
    return vae.encode(pixels).latent_dist.parameters.float().cpu()


def draw_latents(moments_BCHW: Tensor, noise_BCHW: Tensor, scaling_factor: float) -> Tensor:
    """z = (mean + std * noise) * scaling factor, log-variance limited to -30..20 as in the VAE itself."""
    mean, log_variance = moments_BCHW.chunk(2, dim=1)
    return (mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise_BCHW) * scaling_factor
