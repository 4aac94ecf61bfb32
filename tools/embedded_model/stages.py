"""One training stage of the embedded model: schedule, averaged weights, log, and resumption after a stop."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eegprep.atomic import open_atomic

SEED = 20260724


@dataclass(frozen=True)
class Plan:
    """How long and how fast one stage trains.

    The learning rate warms up over `warm_up` steps, stays, and falls linearly to zero over the last `cool_down` share.
    """

    steps: int
    batch: int
    rate: float
    weight_decay: float
    warm_up: int = 100
    cool_down: float = 0.3
    average: float = 0.0  # decay of the moving average of the weights; 0: none


PLANS = {
    "vae": Plan(steps=1600, batch=8, rate=1e-3, weight_decay=0.0, average=0.995),
    "clip": Plan(steps=1500, batch=40, rate=1e-3, weight_decay=0.1, average=0.995),
    "tower": Plan(steps=900, batch=40, rate=5e-4, weight_decay=0.1, warm_up=50, cool_down=0.4, average=0.99),
    "decoder": Plan(steps=3000, batch=8, rate=1e-3, weight_decay=0.0, average=0.995),
    "adapter": Plan(steps=1200, batch=16, rate=2e-3, weight_decay=0.01, warm_up=30, cool_down=0.4, average=0.99),
    "unet": Plan(steps=6000, batch=16, rate=8e-4, weight_decay=0.01, average=0.999),
}


class Stage:
    """Optimiser, moving average, log and resumption of one model; what a stage minimises is given to `run`."""

    def __init__(self, name: str, model: nn.Module, plan: Plan, work: Path, seed: int) -> None:
        self.name, self.model, self.plan, self.work, self.seed = name, model, plan, work, seed
        self.state_file, self.log_file = work / f"{name}.pt", work / f"{name}.jsonl"
        decay = [p for p in model.parameters() if p.ndim >= 2]
        plain = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": decay, "weight_decay": plan.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.99), fused=True)
        self.average = copy.deepcopy(model).eval().requires_grad_(False) if plan.average else model
        self.step, self.seconds = 0, 0.0
        if self.state_file.is_file():
            state = torch.load(self.state_file, weights_only=True)
            model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])

    def rate(self, step: int) -> float:
        """Learning rate of a step: warm-up, level, linear fall."""
        left = (self.plan.steps - step) / max(1, self.plan.steps * self.plan.cool_down)
        return self.plan.rate * min(1.0, (step + 1) / self.plan.warm_up, max(left, 0.0))

    def save(self) -> None:
        """Everything that the next run needs, in one atomic file."""
        state = {
            "model": self.model.state_dict(), "average": self.average.state_dict(), "optimiser": self.optimiser.state_dict(),
            "step": self.step, "seconds": self.seconds,
        }  # fmt: skip
        with open_atomic(self.state_file) as file:
            torch.save(state, file)

    def _follow(self) -> None:
        decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
            for old, fresh in zip(self.average.buffers(), self.model.buffers(), strict=True):
                old.copy_(fresh)

    def run(self, loss_of: Any, save_every: float = 150.0) -> Any:
        """Train to the plan's last step; returns the averaged model."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.model.train()
        saved = began = time.monotonic()
        before, values = self.seconds, []
        while self.step < self.plan.steps:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate(self.step)
            loss = loss_of(self.model, generator, self.plan.batch)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            if self.plan.average:
                self._follow()
            values.append(float(loss.detach()))
            self.seconds = before + time.monotonic() - began
            if self.step % 25 == 0 or self.step == self.plan.steps:
                line = {
                    "step": self.step,
                    "loss": round(sum(values) / len(values), 5),
                    "rate": self.rate(self.step),
                    "seconds": round(self.seconds),
                }
                with self.log_file.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                values = []
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()
        return self.average.eval()
