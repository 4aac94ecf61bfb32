"""Masked pre-training of the encoder that knows its electrodes, as a task for the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dreamdiff.encoders.masked_positions import MaskedPositionsConfig, MaskedPositionsModel
from dreamdiff.encoders.positions import positions_preset
from dreamdiff.lineage.seen import seen_in_corpus, write_seen
from dreamdiff.pretraining.config import POSITIONS_NAMES, PretrainData
from dreamdiff.pretraining.electrodes import Whitened
from dreamdiff.pretraining.pretrain import rolled, split_corpus
from dreamdiff.pretraining.stream import WindowStream
from dreamdiff.run_folder import CONFIG_FILE
from dreamdiff.training.config import LoopConfig, OptimConfig
from dreamdiff.training.loop import fit
from dreamdiff.training.task import Batch, Draw, FitResult, Stream, Task
from eegprep import atomic
from eegprep.corpus.reader import Corpus
from eegprep.recording import ProgressCallback
from eegprep.settings import Settings
from eegprep.signals.spectra import spread


class PositionsPretrainConfig(Settings):
    """Masked pre-training on tokens of (electrode, stretch of time)."""

    model: MaskedPositionsConfig = MaskedPositionsConfig()
    data: PretrainData = PretrainData()
    electrodes: tuple[str, ...] = Field(default=(), description="Names of the electrodes to use; all when empty")
    shift: bool = Field(default=True, description="Shift each window circularly in time by a random number of samples")
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()


_TRAINING = {
    "data": {"batch_size": 64},
    "optim": {"lr": 1e-3, "warmup_epochs": 1, "betas": [0.9, 0.999], "clip": 1.0},
    "loop": {"epochs": 1000, "max_steps": 1200, "precision": "fp32"},
}

POSITIONS_PRESETS: dict[str, Mapping[str, Any]] = {
    name: {"model": {"encoder": positions_preset(name)}, **_TRAINING} for name in POSITIONS_NAMES
}


def pretrain_positions(
    store: str | Path | Corpus, out: str | Path, config: PositionsPretrainConfig, progress: ProgressCallback | None = None
) -> FitResult:
    """Pre-train on a corpus, or continue the run in `out`; see `pretrain`."""
    with torch.random.fork_rng():
        torch.manual_seed(config.loop.seed)
        model = MaskedPositionsModel(config.model)
    corpus = store if isinstance(store, Corpus) else Corpus.open(str(store))
    return fit(PositionsPretraining(model, corpus, config), config.loop, config.optim, Path(out), progress=progress)


class PositionsPretraining(Task):
    """Hide neighbourhoods of electrodes and times, predict the target there."""

    name = "msm-positions"
    unused_parameters = True  # the mask token has no gradient in a step whose windows hide nothing

    def __init__(self, model: MaskedPositionsModel, corpus: Corpus, config: PositionsPretrainConfig) -> None:
        self.module = self.model = model
        self.config, self.corpus = config, corpus
        train, self.held_out, self.split = split_corpus(corpus, config.data)
        self.train = corpus.take(train)
        self.seen = seen_in_corpus(self.train)
        few = self.held_out[spread(len(self.held_out), config.data.validation_windows)]
        front_end = config.model.encoder.front_end
        self.windows = Whitened(self.train, front_end, config.electrodes)
        self.valid = Whitened(corpus.take(few), front_end, config.electrodes) if len(self.held_out) else None

    def identity(self) -> Mapping[str, Any]:
        """The configuration and the windows."""
        kept = self.config.model_dump(
            mode="json", exclude={"loop": True, "optim": True, "data": {"prefetch", "validation_windows"}}
        )
        return {"task": self.name, **kept, "store": {"content": self.corpus.identity, "windows": len(self.corpus)}}

    def stream(self, rank: int, world_size: int) -> Stream:
        data = self.config.data
        return WindowStream(
            self.train, data.batch_size, seed=self.config.loop.seed, rank=rank, world_size=world_size, weights=data.weights,
            prefetch=data.prefetch,
        )  # fmt: skip

    def host(self, batch: Batch) -> Batch:
        """The windows whitened, with the places of their electrodes."""
        return {"index": batch["index"], **self.windows.batch(batch["index"].numpy(), batch["eeg"])}

    def step(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        eeg_BCT = batch["eeg"]
        if self.config.shift:
            eeg_BCT = rolled(eeg_BCT, draw.integers("shift", eeg_BCT.shape[-1]))
        output = self.model(eeg_BCT, batch["positions"], self._noise(draw, eeg_BCT), batch["channel_mask"], batch["length"])
        self.model.follow()
        return {"loss": output.loss, "error_hidden": output.error_hidden}

    def validate(self, device: torch.device) -> dict[str, float]:
        if self.valid is None:
            return {}
        errors, count = 0.0, 0
        for first in range(0, len(self.valid.corpus), self.config.data.batch_size):
            index_B = np.arange(first, min(first + self.config.data.batch_size, len(self.valid.corpus)))
            made = {name: value.to(device) for name, value in self.valid.read(index_B).items()}
            # the same masks at every validation and in every run, so that losses compare
            noise = self._noise(Draw(0, 0, torch.from_numpy(index_B), device), made["eeg"])
            output = self.model(made["eeg"], made["positions"], noise, made["channel_mask"], made["length"])
            errors, count = errors + len(index_B) * float(output.error_hidden), count + len(index_B)
        return {"error_hidden": errors / count}

    def describe(self, folder: Path) -> None:
        atomic.write_json(folder / CONFIG_FILE, self.model.config_content())
        write_seen(folder, [self.seen])

    def export(self, run_dir: Path) -> None:
        write_seen(run_dir, [self.seen])
        self.model.save_pretrained(run_dir)

    def _noise(self, draw: Draw, eeg_BCT: Tensor) -> Tensor:
        """A row of numbers per window, as many as the widest cap has: a window's own do not depend on who else is in the batch."""
        _, channels, samples = eeg_BCT.shape
        stretches = samples // self.config.model.encoder.token
        return draw.uniform("mask", self.corpus.channels, stretches)[:, :channels]
