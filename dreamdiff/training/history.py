"""Pictures of training: the loss curve, and original, hidden and rebuilt signal.

Shapes: N windows, C channels, T samples, L tokens.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eegprep import atomic
from eegprep.inspection.pictures import figure_png

TRAIN, VALID, HIDDEN, ORIGINAL, REBUILT = "#4C72B0", "#C44E52", "#E8E8EC", "#333333", "#D1495B"


def save(figure: Figure, file: Path, dpi: int = 110) -> None:
    """Write a figure as PNG, complete or not at all."""
    atomic.write_bytes(file, figure_png(figure, dpi))


def smooth(values: np.ndarray, share: float = 0.02) -> np.ndarray:
    """Running mean over a share of the points, shorter at the ends."""
    half = max(0, int(len(values) * share / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def loss_curve(history: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw loss against step, with the learning rate below, from the lines of history.jsonl."""
    steps = [line for line in history if "loss" in line]
    checks = [line for line in history if "loss" in line.get("validation", {})]
    if not steps:
        return
    figure = Figure(figsize=(7, 4.6))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    step_N, loss_N = np.array([line["step"] for line in steps]), np.array([line["loss"] for line in steps])
    top.plot(step_N, loss_N, color=TRAIN, alpha=0.25, linewidth=0.8)
    top.plot(step_N, smooth(loss_N), color=TRAIN, linewidth=1.6, label="training")
    if checks:
        valid_N = [line["validation"]["loss"] for line in checks]
        top.plot([line["step"] for line in checks], valid_N, "o-", color=VALID, markersize=3.5, label="held out")
    # a logarithm only where a linear axis would hide the end of the run
    if np.all(loss_N > 0) and loss_N.max() > 5 * loss_N.min():
        top.set_yscale("log")
    top.set_ylabel("loss")
    top.legend(frameon=False)
    bottom.plot(step_N, [line["lr"] for line in steps], color=ORIGINAL, linewidth=1)
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("optimiser step")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, file)


HISTORY_FILE = "history.jsonl"


def read_history(run_dir: Path) -> list[Mapping[str, Any]]:
    """The lines of history.jsonl; a last line that a kill cut short is left out."""
    file = run_dir / HISTORY_FILE
    if not file.is_file():
        return []
    lines: list[Mapping[str, Any]] = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            lines += [line] if isinstance(line, dict) else []
    return lines


def flush_to_disk(file: Path) -> None:
    """What was appended reaches the disk before the checkpoint that relies on it."""
    if file.exists():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
