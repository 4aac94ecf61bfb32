"""Draws EEG, traces of a window and a value per channel over the head, and turns figures and images into PNG.

Shapes: C channels, T samples.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from eegprep.signals.spectra import spread
from eegprep.signals.sphere import fit_centre

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD_RADIUS = 1.0  # of the drawn circle, at the level of Fpz, T7, Oz, T8


def figure_png(figure: Figure, dpi: int = 110) -> bytes:
    """A matplotlib figure as the bytes of a PNG, without the version of matplotlib in them; the figure is not closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def image_png(image_HWC: np.ndarray) -> bytes:
    """An image, (h, w, 3) uint8, as the bytes of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG")
    return buffer.getvalue()


def traces(
    axes: Any, signal_CT: np.ndarray, sfreq: float, channels: Sequence[str], *, start: float = 0.0, most: int = 24
) -> None:
    """Draw channels below each other, at one scale that is written beside them.

    Args:
        axes: matplotlib axes.
        signal_CT: uV.
        sfreq: Hz.
        channels: names, one per row.
        start: time of the first sample, s.
        most: when there are more channels, this many are drawn, evenly chosen.
    """
    chosen = spread(len(signal_CT), most)
    time_T = start + np.arange(signal_CT.shape[1]) / sfreq
    step = 6 * float(np.median(np.std(signal_CT[chosen], axis=1))) or 1.0
    for row, channel in enumerate(chosen):
        axes.plot(time_T, signal_CT[channel] - row * step, lw=0.7, color="#1d2430")
    axes.set_yticks(-step * np.arange(len(chosen)), [channels[c] for c in chosen], fontsize=7)
    axes.set_xlim(time_T[0], time_T[-1])
    axes.set_ylim(-(len(chosen)) * step, step)
    axes.set_xlabel("time (s)")
    axes.set_title(f"{step:.3g} µV between lines", fontsize=8, loc="right", color="#5b6575")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def head_map(axes: Any, values_C: ArrayLike, positions_C3: np.ndarray, *, label: str = "", cmap: str = "RdBu_r") -> bool:
    """Draw a value per channel over the head, seen from above, nose up.

    Args:
        axes: matplotlib axes.
        values_C: one value per channel.
        positions_C3: m, head coordinates (x right, y front, z up); channels with NaN are left out.
        label: unit and meaning, written at the colour bar.

    Returns:
        False, and nothing drawn but a note, when fewer than four channels have a position.
    """
    from matplotlib.patches import Circle
    from scipy.interpolate import RBFInterpolator

    values = np.asarray(values_C, dtype=float)
    known = np.isfinite(positions_C3).all(axis=1) & np.isfinite(values)
    axes.set_aspect("equal")
    axes.axis("off")
    if known.sum() < 4:
        axes.text(0.5, 0.5, "electrode positions are not known", ha="center", transform=axes.transAxes, color="#5b6575")
        return False
    points_C2 = project(positions_C3[known])
    points_C2, first = np.unique(points_C2.round(6), axis=0, return_index=True)  # padded channels repeat positions
    grid = np.linspace(-1.15, 1.15, 120)
    x, y = np.meshgrid(grid, grid)
    spline = RBFInterpolator(points_C2, values[known][first], kernel="thin_plate_spline", smoothing=1e-3)
    drawn = spline(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape)
    shown = values[known]
    limit = float(np.abs(shown).max()) or 1.0
    low = -limit if (shown < 0).any() else float(shown.min())
    picture = axes.pcolormesh(x, y, drawn, cmap=cmap, vmin=low, vmax=limit, shading="gouraud", rasterized=True)
    picture.set_clip_path(Circle((0, 0), 1.13, transform=axes.transData))
    axes.plot(points_C2[:, 0], points_C2[:, 1], ".", ms=2, color="#1d2430")
    axes.add_patch(Circle((0, 0), HEAD_RADIUS, fill=False, lw=1.2, color="#1d2430"))
    axes.plot([-0.12, 0, 0.12], [0.99, 1.16, 0.99], lw=1.2, color="#1d2430")
    axes.set_xlim(-1.25, 1.25)
    axes.set_ylim(-1.25, 1.25)
    bar = axes.figure.colorbar(picture, ax=axes, shrink=0.6)
    bar.set_label(label)
    return True


def project(positions_C3: np.ndarray) -> np.ndarray:
    """(C, 2) azimuthal equidistant view from above: angle from the vertex becomes distance, 90 degrees is the head circle.

    The centre of the head is taken as the centre of the best-fitting sphere.
    """
    # fewer electrodes may lie on one side of the head, where the fitted sphere can be anywhere
    centred = positions_C3 - fit_centre(positions_C3) if len(positions_C3) >= 8 else positions_C3
    azimuth = np.arctan2(centred[:, 1], centred[:, 0])
    angle = np.arccos(np.clip(centred[:, 2] / np.linalg.norm(centred, axis=1), -1, 1))
    return np.column_stack([np.cos(azimuth), np.sin(azimuth)]) * (angle / (np.pi / 2) * HEAD_RADIUS)[:, None]
