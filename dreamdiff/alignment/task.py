"""Alignment as a task for the training loop.

Shapes: B batch, C channels, W samples that the encoder reads, D width of a target, K classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamdiff.alignment.config import AlignConfig
from dreamdiff.alignment.data import AlignData, class_centres
from dreamdiff.alignment.epochs import keep_epoch
from dreamdiff.alignment.losses import contrastive_loss, cosine_loss, error_loss
from dreamdiff.alignment.model import AlignedEncoder, Head
from dreamdiff.alignment.tuning import merge_lora
from dreamdiff.devices import send
from dreamdiff.encoders.frozen import FROZEN_FILE, keep_frozen, write_record
from dreamdiff.pretraining.pretrain import rolled
from dreamdiff.run_folder import CONFIG_FILE
from dreamdiff.training import checkpoint
from dreamdiff.training.best import best_file, keep_if_best, load_trained
from dreamdiff.training.optim import ParameterGroup
from dreamdiff.training.shuffled import ShuffledBatches
from dreamdiff.training.task import Batch, Draw, Stream, Task
from eegprep import atomic
from eegprep.signals.spectra import spread


class AlignTask(Task):
    """Losses, validation and files of one alignment.

    Args:
        model: with what trains marked (`requires_grad`), and targets measured. identity: digests of all inputs.
        remarks: lines for a person.
    """

    name = "align"

    def __init__(
        self, config: AlignConfig, data: AlignData, model: AlignedEncoder, identity: Mapping[str, Any], run_dir: Path,
        remarks: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.config, self.data, self.model, self.run_dir = config, data, model, run_dir
        self._identity, self.remarks = identity, tuple(remarks)
        self.module = model
        self._frozen_digest: str | None = None
        learns = config.loss.learn_scale and config.loss.contrastive > 0
        model.log_scale.requires_grad_(learns)
        with torch.no_grad():
            model.log_scale.fill_(math.log(config.loss.scale))

    def identity(self) -> Mapping[str, Any]:
        """Configuration and digests of all inputs."""
        return self._identity

    def stream(self, rank: int, world_size: int) -> Stream:
        """Training trials."""
        positions = self.data.parts["train"]
        return ShuffledBatches(
            positions,
            lambda rows: self.data.batch(positions[rows]),
            self.config.batch_size,
            self.config.loop.seed,
            rank,
            world_size,
        )

    def parameter_groups(self, weight_decay: float) -> list[ParameterGroup]:
        """AdamW groups: the encoder with its own rate; vectors and scalars are not decayed."""
        inside = {id(parameter) for parameter in self.model.encoder.parameters()}
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups: list[ParameterGroup] = []
        for scale, own in ((self.config.lr_encoder, True), (1.0, False)):
            chosen = [parameter for parameter in trained if (id(parameter) in inside) == own]
            for params, decay in (([p for p in chosen if p.ndim > 1], weight_decay), ([p for p in chosen if p.ndim <= 1], 0.0)):
                if params:
                    groups.append({"params": params, "weight_decay": decay, "lr_scale": scale})
        return groups

    def step(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Losses of one batch, means over targets; only the shift in time is random."""
        return self.losses(self.model(shifted(batch["eeg"], self.config.shift, draw), batch["person"]), batch)

    def losses(self, predicted: Sequence[Tensor], batch: Batch) -> dict[str, Tensor]:
        """`loss` and its parts, for z of every target."""
        config, image_B = self.config.loss, batch["image"]
        sums: dict[str, Tensor] = {}
        for number, z_BD in enumerate(predicted):
            head, vector_BD = cast(Head, self.model.heads[number]), batch[f"target{number}"]
            target_BD = head.standardise(vector_BD)
            parts: dict[str, Callable[[], Tensor]] = {
                "error": partial(error_loss, z_BD, target_BD),
                "contrastive": partial(contrastive_loss, z_BD, target_BD, image_B, self.model.log_scale),
                "cosine": partial(cosine_loss, z_BD, target_BD),
                "clip": partial(_restored_cosine, head, z_BD, vector_BD),
            }
            for name, compute in parts.items():
                if getattr(config, name):
                    sums[name] = sums.get(name, torch.zeros((), device=z_BD.device)) + compute() / len(predicted)
        total = torch.zeros((), device=batch["eeg"].device)
        for name, value in sums.items():
            total = total + getattr(config, name) * value
        return {"loss": total, **sums}

    @torch.no_grad()
    def validate(self, device: torch.device) -> dict[str, float]:
        """On validation trials: losses, mean cosine, and how often the first target's vector is nearest to its class.

        With `select = validation` the weights with the highest mean cosine are kept in `best/`. Test trials are never read.
        """
        held_out = self.data.parts["val"]
        positions = held_out[spread(len(held_out), self.config.validate_trials)]
        if len(positions) == 0:
            self._keep_epoch(None)
            return {}
        sums: dict[str, float] = {}
        hits, known = 0, 0
        centres_KD = class_centres(self.data).to(device)
        for part in np.array_split(positions, -(-len(positions) // 256)):
            batch = {name: send(value, device) for name, value in self.data.batch(part).items()}
            predicted = self.model(batch["eeg"], batch["person"])
            losses = self.losses(predicted, batch)
            head = cast(Head, self.model.heads[0])
            # not the loss of that name: a number that means the same whatever mixture is trained
            losses["cosine"] = 1 - cosine_loss(predicted[0], head.standardise(batch["target0"]))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part)
            nearest_B = (F.normalize(predicted[0], dim=1) @ centres_KD.T).argmax(1)
            # a class without training images has no centre to be near to
            has_class_B = centres_KD[batch["label"]].abs().sum(1) > 0
            hits += int(((nearest_B == batch["label"]) & has_class_B).sum())
            known += int(has_class_B.sum())
        numbers = {name: value / len(positions) for name, value in sums.items()}
        if known:
            numbers["class_accuracy"] = hits / known
        self._keep_epoch(-numbers["cosine"])
        if self.config.select == "validation":
            facts = {"select": "validation", **{f"val_{name}": repr(value) for name, value in numbers.items()}}
            keep_if_best(self.run_dir, self.module, -numbers["cosine"], facts)
        return numbers

    def _keep_epoch(self, score: float | None) -> None:
        if self.config.keep_epochs_mb:
            keep_epoch(self.run_dir, self.module, self.steps_done, score, self.config.keep_epochs_mb)

    def describe(self, folder: Path) -> None:
        """config.json beside the weights; in a checkpoint also which frozen weights belong to it."""
        atomic.write_json(folder / CONFIG_FILE, self.model.config_content())
        frozen = self._frozen()
        if folder == self.run_dir or not frozen:
            return
        if self._frozen_digest is None:
            self._frozen_digest = keep_frozen(self.run_dir / checkpoint.FOLDER, frozen)
        write_record(folder, self._frozen_digest)

    def continued(self, folder: Path) -> None:
        """Compare the frozen weights with those of the run."""
        if (folder.parent / FROZEN_FILE).is_file():
            self._frozen_digest = keep_frozen(folder.parent, self._frozen())

    def _frozen(self) -> dict[str, Tensor]:
        # an object of the caller's: no folder can build it again
        external = self.model.config.encoder.get("kind") == "external"
        return {} if external else checkpoint.frozen_state(self.module)

    def export(self, run_dir: Path) -> None:
        """Write config.json and model.safetensors of the finished model into the run folder."""
        if self.config.select == "validation" and best_file(run_dir).is_file():
            load_trained(self.module, best_file(run_dir))
        model = self.model
        if self.config.tune == "lora":
            model = copy.deepcopy(model)  # the run may go on; its adapters stay apart
            merge_lora(model.encoder)
        model.save_pretrained(run_dir)


def shifted(eeg_BCW: Tensor, most: int, draw: Draw) -> Tensor:
    """Each trial moved in time by up to `most` samples, round the ends; the trials themselves when `most` is 0."""
    if not most:
        return eeg_BCW
    return rolled(eeg_BCW, draw.integers("shift", 2 * most + 1) - most)


def _restored_cosine(head: Head, z_BD: Tensor, vector_BD: Tensor) -> Tensor:
    """The paper's L_clip: in the target's own space, not the standardised one."""
    return cosine_loss(head.restore(z_BD), vector_BD)
