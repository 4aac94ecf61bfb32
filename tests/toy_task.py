"""The smallest task for the loop: a linear map from 3 numbers to 1, with noise drawn per sample. Also a script that trains it and
can kill itself, for the tests of continuation."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from dreamdiff.training.config import LoopConfig, OptimConfig
from dreamdiff.training.loop import fit
from dreamdiff.training.task import Task

SAMPLES = 22


class ToyStream:
    """Batches of indices in an order that depends on the epoch only."""

    def __init__(self, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        return math.ceil(SAMPLES / (self.batch_size * self.world_size))

    def __iter__(self):
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(self.epoch))
        size = self.batch_size * self.world_size
        while self.position < SAMPLES:
            index = order[self.position : self.position + size][self.rank :: self.world_size]
            self.position += size
            inputs = torch.stack([torch.tensor([i, i % 5, i % 7], dtype=torch.float32) for i in index.tolist()]) / 10
            yield {"x": inputs, "index": index}
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


class Toy(Task):
    name = "toy"

    def __init__(self, batch_size: int = 4, note: str = "", die_at: int | None = None, dropout: float = 0.1) -> None:
        torch.manual_seed(0)
        self.module = nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 8), nn.Dropout(dropout), nn.Linear(8, 1))})
        self.module["frozen"] = nn.Linear(2, 2).requires_grad_(False)
        self.batch_size, self.note, self.die_at = batch_size, note, die_at
        self.steps = 0
        self.seen: list[list[int]] = []

    def identity(self):
        return {"note": self.note, "batch_size": self.batch_size}

    def stream(self, rank, world_size):
        return ToyStream(self.batch_size, rank, world_size)

    def step(self, batch, draw):
        self.steps += 1
        if self.steps == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(batch["index"].tolist())
        target = batch["x"].sum(1, keepdim=True) + 0.1 * draw.normal("noise", 1)
        return {"loss": (self.module["body"](batch["x"]) - target).square().mean()}

    def validate(self, device):
        with torch.no_grad():
            return {"loss": float(self.module["body"](torch.ones(1, 3, device=device)).square())}

    def export(self, run_dir: Path) -> None:
        weights = {name: tensor.tolist() for name, tensor in self.module.state_dict().items()}
        (run_dir / "final.json").write_text(json.dumps(weights))


def settings(**changes) -> LoopConfig:
    return LoopConfig(**{"epochs": 4, "tracker": "none", "device": "cpu", "checkpoint_steps": 3, **changes})


OPTIM = OptimConfig(lr=0.05, warmup_epochs=1)


def run(folder: Path, batch_size: int = 4, die_at: int | None = None, dropout: float = 0.1, **loop) -> None:
    """A training in a process of its own; die_at: step in which it kills itself."""
    torch.set_num_threads(1)
    fit(Toy(batch_size, die_at=die_at, dropout=dropout), settings(**loop), OPTIM, folder)


if __name__ == "__main__":
    run(Path(sys.argv[1]), **json.loads(sys.argv[2]))
