"""Pictures of training: the loss curve, and original, hidden and rebuilt signal.

Shapes: N windows, C channels, T samples, L tokens.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eegprep import atomic

TRAIN, VALID, HIDDEN, ORIGINAL, REBUILT = "#4C72B0", "#C44E52", "#E8E8EC", "#333333", "#D1495B"


def save(figure: Figure, file: Path, dpi: int = 110) -> None:
    """Write a figure as PNG, complete or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    atomic.write_bytes(file, buffer.getvalue())


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


def reconstruction(
    original_CT: np.ndarray, rebuilt_CT: np.ndarray, mask_L: np.ndarray, names: Sequence[str], sfreq: float, file: Path
) -> None:
    """Draw some channels of one window: original in grey, rebuilt in red where it was hidden, hidden tokens shaded.

    Args:
        original_CT, rebuilt_CT: scaled units, the channels to show only.
        mask_L: 1 where a token was hidden.
        names: of the channels. sfreq: Hz.
    """
    channels, samples = original_CT.shape
    time_T = np.arange(samples) / sfreq
    token = samples // len(mask_L)
    hidden_T = np.repeat(mask_L.astype(bool), token)
    shown_CT = np.where(hidden_T, rebuilt_CT, np.nan)
    step = 6.0 * float(np.std(original_CT)) + 1e-6
    figure = Figure(figsize=(11, 1.1 * channels + 1.2))
    axes = figure.subplots()
    for first in np.flatnonzero(np.diff(np.concatenate([[0], mask_L.astype(int)])) == 1):
        length = int(np.argmin(np.concatenate([mask_L[first:], [0]])))
        axes.axvspan(first * token / sfreq, (first + length) * token / sfreq, color=HIDDEN, linewidth=0)
    for row, (name, truth_T, rebuilt_T) in enumerate(zip(names, original_CT, shown_CT, strict=True)):
        middle = -row * step
        axes.plot(time_T, truth_T + middle, color=ORIGINAL, linewidth=0.8, label="original" if row == 0 else None)
        axes.plot(time_T, rebuilt_T + middle, color=REBUILT, linewidth=1.3, label="rebuilt where hidden" if row == 0 else None)
        axes.text(-0.005 * time_T[-1], middle, name, ha="right", va="center", fontsize=9)
    axes.set_xlim(0, time_T[-1])
    axes.set_yticks([])
    axes.set_xlabel("s (hidden tokens shaded)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    save(figure, file)


def correlations(by_band: Mapping[str, np.ndarray], names: Sequence[str], file: Path) -> None:
    """Heat map of the correlation at hidden samples: one row a band, one column a channel."""
    bands = list(by_band)
    table = np.stack([by_band[band][: len(names)] for band in bands])
    figure = Figure(figsize=(max(6.0, 0.17 * len(names) + 2), 0.4 * len(bands) + 1.4))
    axes = figure.subplots()
    image = axes.imshow(table, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set_yticks(range(len(bands)), [f"{band}  {np.nanmean(row):.2f}" for band, row in zip(bands, table, strict=True)])
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.set_title("correlation of rebuilt and original signal at hidden samples", fontsize=10)
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    save(figure, file)
