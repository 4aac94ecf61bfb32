"""How well hidden tokens are rebuilt: against the two simplest guesses, and as correlation per channel and frequency band.

Everything is judged at hidden samples only, in the model's scaled units.
Shapes: B windows, C channels, T samples, L tokens, F bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dreamdiff.spectra import CORPUS_BANDS, band_pass
from dreamdiff.training.history import HIDDEN, ORIGINAL, REBUILT, save


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


def hidden_samples(mask_BL: np.ndarray, samples: int) -> np.ndarray:
    """(B, L) tokens -> (B, T) booleans."""
    return np.repeat(mask_BL.astype(bool), samples // mask_BL.shape[1], axis=1)


def visible_mean(target_BCT: np.ndarray, hidden_BT: np.ndarray) -> np.ndarray:
    """Guess each channel's mean over its visible samples."""
    seen_BT = ~hidden_BT
    counts_B = np.maximum(seen_BT.sum(axis=1), 1)
    mean_BC = np.einsum("bct,bt->bc", target_BCT, seen_BT.astype(target_BCT.dtype)) / counts_B[:, None]
    return np.broadcast_to(mean_BC[:, :, None], target_BCT.shape)


def interpolation(target_BCT: np.ndarray, hidden_BT: np.ndarray) -> np.ndarray:
    """Guess straight lines between visible samples, constant before the first and after the last."""
    guess_BCT = np.array(target_BCT)
    samples = np.arange(target_BCT.shape[-1])
    for window_CT, hidden_T, guess_CT in zip(target_BCT, hidden_BT, guess_BCT, strict=True):
        seen = np.flatnonzero(~hidden_T)
        if len(seen) == 0:
            guess_CT[:] = 0
            continue
        right = np.minimum(np.searchsorted(seen, samples), len(seen) - 1)
        left = np.maximum(np.searchsorted(seen, samples, side="right") - 1, 0)
        gap = np.maximum(seen[right] - seen[left], 1)
        weight_T = np.clip((samples - seen[left]) / gap, 0, 1).astype(guess_CT.dtype)
        guess_CT[:] = window_CT[:, seen[left]] * (1 - weight_T) + window_CT[:, seen[right]] * weight_T
    return guess_BCT


def hidden_error(prediction_BCT: np.ndarray, target_BCT: np.ndarray, hidden_BT: np.ndarray) -> float:
    """Mean squared error over hidden samples and all channels: the training loss when every window hides as many tokens."""
    error_BT = np.square(prediction_BCT - target_BCT, dtype=np.float64).mean(axis=1)
    return float(error_BT[hidden_BT].mean()) if hidden_BT.any() else 0.0


@dataclass
class Moments:
    """Sums from which the correlation of two signals per channel follows, added up window by window."""

    n: int
    sums_5C: np.ndarray

    @classmethod
    def of(cls, a_BCT: np.ndarray, b_BCT: np.ndarray, where_BT: np.ndarray) -> Moments:
        w = where_BT.astype(np.float64)
        products = (a_BCT, b_BCT, a_BCT * b_BCT, a_BCT**2, b_BCT**2)
        return cls(int(where_BT.sum()), np.stack([np.einsum("bct,bt->c", p, w) for p in products]))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.sums_5C + other.sums_5C)

    def correlation(self) -> np.ndarray:
        """Pearson correlation per channel; NaN for a channel without variance."""
        a, b, ab, aa, bb = self.sums_5C / max(self.n, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (ab - a * b) / np.sqrt((aa - a * a) * (bb - b * b))


@dataclass
class Score:
    """Running totals over batches of held-out windows."""

    windows: int = 0
    error: float = 0.0
    error_mean: float = 0.0
    error_interpolation: float = 0.0
    moments: dict[str, Moments] | None = None

    def add(self, prediction_BCT: np.ndarray, target_BCT: np.ndarray, mask_BL: np.ndarray, sfreq_B: np.ndarray) -> None:
        """Take a batch in.

        For bands, visible samples of the rebuilt window are the true ones, both windows are filtered, hidden samples compared.
        """
        hidden_BT = hidden_samples(mask_BL, target_BCT.shape[-1])
        n = len(target_BCT)
        self.windows += n
        self.error += n * hidden_error(prediction_BCT, target_BCT, hidden_BT)
        self.error_mean += n * hidden_error(visible_mean(target_BCT, hidden_BT), target_BCT, hidden_BT)
        self.error_interpolation += n * hidden_error(interpolation(target_BCT, hidden_BT), target_BCT, hidden_BT)
        # filters reach across the edges of hidden tokens: with foreign samples there, both signals would differ for that alone
        rebuilt_BCT = np.where(hidden_BT[:, None, :], prediction_BCT, target_BCT)
        moments = {"all": Moments.of(prediction_BCT, target_BCT, hidden_BT)}
        for band, (low, high) in CORPUS_BANDS.items():
            rebuilt, true = (band_pass(signal, sfreq_B, low, high) for signal in (rebuilt_BCT, target_BCT))
            moments[band] = Moments.of(rebuilt, true, hidden_BT)
        self.moments = moments if self.moments is None else {band: self.moments[band] + moments[band] for band in moments}

    def summary(self) -> dict[str, float]:
        """Losses, and correlations averaged over channels."""
        n = max(self.windows, 1)
        errors = {
            "loss": self.error / n,
            "loss_visible_mean": self.error_mean / n,
            "loss_interpolation": self.error_interpolation / n,
        }
        names = {"all": "correlation"} | {band: f"correlation_{band}" for band in CORPUS_BANDS}
        return errors | {names[band]: _mean(values) for band, values in self.correlations().items()}

    def correlations(self) -> dict[str, np.ndarray]:
        """Band -> (C,)."""
        return {band: moments.correlation() for band, moments in (self.moments or {}).items()}


def _mean(values: np.ndarray) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else float("nan")
