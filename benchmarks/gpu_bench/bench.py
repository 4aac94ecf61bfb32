"""The table of `benchmarks/gpu.py`: rows with goals, times, and blocks in which a hidden synchronisation is an error."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamdiff.devices import mixed
from dreamdiff.memory import HostReads

CORRECTNESS = ("yes", "rel.")  # units of rows whose goals hold on every device


@dataclass
class Bench:
    """device: measured. tiny: a dry run. rows: of the table."""

    device: torch.device
    tiny: bool
    work: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def precision(self) -> str:
        return "bf16" if self.device.type == "cuda" else "fp32"

    def row(self, what: str, value: float, unit: str, goal: float | None = None, better: str = "at least") -> None:
        """Add a row. A goal of speed is judged on a GPU only."""
        met = None
        if goal is not None and (self.device.type == "cuda" or unit in CORRECTNESS):
            met = value >= goal if better == "at least" else value <= goal
        self.rows.append({"what": what, "value": value, "unit": unit, "goal": goal, "better": better, "met": met})
        verdict = "" if goal is None else f"   goal: {better} {goal:g} {'' if met is None else 'met' if met else 'MISSED'}"
        print(f"{what:<66} {value:>11.4g} {unit:<10}{verdict}".rstrip(), flush=True)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object], rounds: int = 10, before: int = 3) -> float:
        """Median of a call."""
        return self.compared(run, rounds=rounds, before=before)[0]

    def compared(self, *runs: Callable[[], object], rounds: int = 10, before: int = 3) -> list[float]:
        """Medians of several calls that take turns, so that what else the machine does falls on all of them."""
        rounds, before = (3, 1) if self.tiny else (rounds, before)
        times: list[list[float]] = [[] for _ in runs]
        for number in range(before + rounds):
            for run, taken in zip(runs, times, strict=True):
                self.wait()
                started = time.perf_counter()
                run()
                self.wait()
                if number >= before:
                    taken.append(time.perf_counter() - started)
        return [statistics.median(taken) for taken in times]

    def peak_rate(self) -> float:
        """Operations a second of a plain matrix product in this precision: what the device gives at best."""
        n, dtype = (256, torch.float32) if self.tiny else (8192, torch.bfloat16)
        a, b = (torch.randn(n, n, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * n**3 / self.seconds(lambda: a @ b)


@contextlib.contextmanager
def no_halts(bench: Bench) -> Iterator[HostReads]:
    """A block in which a hidden synchronisation is an error (GPU) or counted (CPU)."""
    counted = HostReads()
    if bench.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        with counted if bench.device.type == "cpu" else contextlib.nullcontext():
            yield counted
    finally:
        if bench.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def training_step(module: nn.Module, loss: Callable[[], Tensor], precision: str, device: torch.device) -> Callable[[], Tensor]:
    """Forward, backward, clipping and AdamW of one batch, as the loop has them."""
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def step() -> Tensor:
        with mixed(precision, device):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    return step
