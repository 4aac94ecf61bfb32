"""A fine-tuned encoder as a scikit-learn classifier.

Shapes: N windows, B batch, C channels, T samples, D width, K classes.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from dreamdiff.encoders.positions import PositionsConfig, PositionsEncoder
from dreamdiff.estimators.checks import check_groups, check_windows, mirror_map, places_of
from dreamdiff.estimators.features import (
    check_places,
    front_end_of,
    in_microvolts,
    load_positions_encoder,
    prepared,
    require_rate,
)
from dreamdiff.training.config import LoopConfig, OptimConfig
from dreamdiff.training.loop import fit as train
from dreamdiff.training.optim import ParameterGroup
from dreamdiff.training.shuffled import EpochBatches
from dreamdiff.training.task import Batch, Draw, Task
from dreamdiff.whitening import Align
from eegprep.errors import DataError, UsageError


class EEGClassifier(ClassifierMixin, BaseEstimator):
    """An encoder and a linear layer per electrode, fine-tuned on labelled windows.

    Args:
        model: run or folder of an encoder of kind "positions", or such an encoder; None is the one in the package,
            "scratch" is a fresh one.
        sfreq, channels, positions, align, unit: as in `EEGFeatures`.
        epochs: over the training windows.
        lr, lr_encoder: of the head and of the encoder; 0 freezes the encoder.
        weight_decay, batch_size: of the training.
        mirror: play half of the windows of a batch with left and right exchanged and the label with them; for two lateral labels only.
        shift: largest circular shift in time, s.
        seed: of weights, order and shifts.
        device: auto, cpu, cuda, cuda:N or mps.

    Example:
        EEGClassifier(model="RUN", sfreq=160.0, channels=names).fit(X, y, groups=person).predict(X_new)
    """

    def __init__(
        self, model: str | Path | PositionsEncoder | None = None, align: Align | None = None, *, sfreq: float | None = None,
        channels: Sequence[str] | None = None, positions: Any = None, epochs: int = 20, lr: float = 1e-3, lr_encoder: float = 3e-4,
        weight_decay: float = 0.05, batch_size: int = 64, mirror: bool = False, shift: float = 0.0, unit: Literal["uV", "mV", "V"] = "uV",
        seed: int = 0, device: str = "auto",
    ) -> None:  # fmt: skip
        self.model, self.align, self.sfreq, self.channels, self.positions = model, align, sfreq, channels, positions
        self.epochs, self.lr, self.lr_encoder, self.weight_decay, self.batch_size = (
            epochs,
            lr,
            lr_encoder,
            weight_decay,
            batch_size,
        )
        self.mirror, self.shift, self.unit, self.seed, self.device = mirror, shift, unit, seed, device

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Fine-tune; people are whitened apart when `groups` names them."""
        x_NCT = in_microvolts(check_windows(X), self.unit)
        y_N = np.asarray(y)
        if y_N.shape != (len(x_NCT),):
            raise DataError(f"labels of shape {y_N.shape} for {len(x_NCT)} windows", "give one label per window")
        self.classes_, codes_N = np.unique(y_N, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"{len(self.classes_)} class in the labels (at least 2)", "give windows of two classes or more")
        if self.mirror and (len(self.classes_) != 2 or self.channels is None):
            raise UsageError(
                f"mirror=True with {len(self.classes_)} classes and channels={self.channels}",
                "it needs two lateral classes and channel names",
            )
        self.sfreq_ = require_rate(self.sfreq)
        self.places_C3_ = places_of(self.channels, self.positions, x_NCT.shape[1])
        check_places(self.places_C3_, self.channels)
        self.n_channels_, self.n_samples_ = x_NCT.shape[1:]
        # the caller's random numbers go on as if this had not run
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            encoder = (
                PositionsEncoder(PositionsConfig())
                if self.model == "scratch"
                else copy.deepcopy(load_positions_encoder(self.model))
            )
            head = nn.Linear(x_NCT.shape[1] * encoder.width, len(self.classes_))
            # zero: at the first step all classes are equally likely, and the encoder gets no gradient from a random head
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.front_end_ = front_end_of(encoder, self.align)
        ready_NCT = prepared(x_NCT, check_groups(groups, len(x_NCT)), self.sfreq_, self.front_end_)
        self.network_ = _Network(encoder, head, torch.from_numpy(self.places_C3_).float())
        task = _FineTuning(self, self.network_, torch.from_numpy(ready_NCT), torch.from_numpy(codes_N))
        steps = max(1, len(task.batches(0))) * self.epochs
        loop = LoopConfig(
            seed=self.seed, epochs=self.epochs, max_steps=steps, tracker="none", precision="fp32", device=self.device,
            # the loop of the package without its files: one validation at the end, and a folder that is thrown away
            validate_steps=steps, checkpoint_minutes=60.0, keep_checkpoints=1,
        )  # fmt: skip
        optim = OptimConfig(
            lr=self.lr, betas=(0.9, 0.999), weight_decay=self.weight_decay, warmup_epochs=0.1 * self.epochs, clip=1.0
        )
        with tempfile.TemporaryDirectory() as folder:
            train(task, loop, optim, Path(folder) / "run")
        self.network_.cpu().eval()
        return self

    @torch.no_grad()
    def predict_proba(self, X: Any, groups: Any = None) -> np.ndarray:
        """(N, K) probabilities, in the order of `classes_`."""
        check_is_fitted(self, "network_")
        x_NCT = in_microvolts(check_windows(X, self.n_channels_, self.n_samples_), self.unit)
        ready = torch.from_numpy(prepared(x_NCT, check_groups(groups, len(x_NCT)), self.sfreq_, self.front_end_))
        rows = [
            self.network_(ready[first : first + self.batch_size]).softmax(1) for first in range(0, len(ready), self.batch_size)
        ]
        return torch.cat(rows).double().numpy()

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """(N,) the likeliest class."""
        return np.asarray(self.classes_[self.predict_proba(X, groups).argmax(1)])


class _Network(nn.Module):
    """Encoder, then one linear layer over the mean of every electrode."""

    def __init__(self, encoder: PositionsEncoder, head: nn.Linear, places_C3: Tensor) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.places_C3: Tensor
        self.register_buffer("places_C3", places_C3)

    def forward(self, eeg_BCT: Tensor) -> Tensor:
        tokens = self.encoder(eeg_BCT, self.places_C3.expand(len(eeg_BCT), -1, -1))
        return self.head(tokens.per_electrode().flatten(1))


class _FineTuning(Task):
    """Cross-entropy on windows held in memory."""

    name = "classifier"

    def __init__(self, settings: EEGClassifier, network: _Network, eeg_NCT: Tensor, code_N: Tensor) -> None:
        self.module = self.network = network
        self.settings, self.eeg_NCT, self.code_N = settings, eeg_NCT, code_N
        network.encoder.requires_grad_(settings.lr_encoder > 0)
        # nothing is masked here
        network.encoder.mask_token.requires_grad_(False)
        self.mirror_C = None
        if settings.mirror:
            self.mirror_C = torch.from_numpy(mirror_map(list(settings.channels or ())))

    def identity(self) -> Mapping[str, Any]:
        return {"task": self.name}

    def parameter_groups(self, weight_decay: float) -> list[ParameterGroup]:
        groups: list[ParameterGroup] = [{"params": list(self.network.head.parameters()), "weight_decay": weight_decay}]
        encoder = [p for p in self.network.encoder.parameters() if p.requires_grad]
        if encoder:
            groups.append(
                {"params": encoder, "weight_decay": weight_decay, "lr_scale": self.settings.lr_encoder / self.settings.lr}
            )
        return groups

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Windows of each batch of an epoch."""
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.eeg_NCT))
        # parts of nearly one size: a last batch of two windows would pull as hard as a whole one
        count = max(1, round(len(order) / self.settings.batch_size))
        return [part for part in np.array_split(order, count) if len(part)]

    def stream(self, rank: int, world_size: int) -> EpochBatches:
        return EpochBatches(self.batches, self.read)

    def read(self, rows: np.ndarray) -> Batch:
        """Windows held in memory."""
        index = torch.from_numpy(rows)
        return {"eeg": self.eeg_NCT[index], "code": self.code_N[index], "index": index}

    def step(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        eeg, code = batch["eeg"], batch["code"]
        most = round(self.settings.shift * self.network.encoder.config.front_end.sfreq)
        if most:
            shift_B = draw.integers("shift", 2 * most + 1) - most
            # circular: nothing has to be made up at the edges
            eeg = torch.stack([window.roll(int(n), dims=-1) for window, n in zip(eeg, shift_B, strict=True)])
        if self.mirror_C is not None:
            flip_B = draw.uniform("mirror") < 0.5
            eeg = torch.where(flip_B[:, None, None], eeg[:, self.mirror_C.to(eeg.device)], eeg)
            # the mirror image of a left hand is a right hand
            code = torch.where(flip_B, 1 - code, code)
        return {"loss": F.cross_entropy(self.network(eeg), code)}
