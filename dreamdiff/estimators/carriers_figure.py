"""What carries an accuracy, as a picture: when, where, and in which band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, GREY = "#1f5fa8", "#8a8a8a"
CAPTION = (
    "What am I looking at? The same light decoder, given only a part of each trial. Left: a stretch of time (0 is the picture's onset). Middle: a group of "
    "electrodes. Right: a band of frequencies. Dots and bars: accuracy and its 95 % interval. Grey: where 95 % of scores lie with shuffled labels. The dashed line is "
    "the decoder with everything. A part that reaches it alone explains the result."
)


def carriers_figure(content: Mapping[str, Any]) -> Figure | None:
    """Accuracy against time, electrodes and band; None where there is nothing to draw.

    Args:
        content: `Carriers.to_json()`, or the section `carriers` of a report.
    """
    rows: Sequence[Mapping[str, Any]] = content.get("rows", ())
    whole = next((row for row in rows if row["kind"] == "whole"), None)
    if whole is None:
        return None
    times = [row for row in rows if row["kind"] in ("before", "window")]
    others = [[row for row in rows if row["kind"] == kind] for kind in ("electrodes", "band")]
    if not times and not any(others):
        return None
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    _times(axes[0], times)
    for axis, parts, title in zip(axes[1:], others, ("where", "in which band"), strict=True):
        _parts(axis, parts, title)
    for axis in axes:
        axis.axhline(whole["accuracy"], color=BLUE, linestyle="--", linewidth=1)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("balanced accuracy")
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


def _times(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    axis.set_title("when", fontsize=10)
    axis.set_xlabel("s after the picture appeared", fontsize=9)
    for row in rows:
        axis.fill_between([row["first"], row["last"]], row["chance_low"], row["chance_high"], color=GREY, alpha=0.25, linewidth=0)
        middle = (row["first"] + row["last"]) / 2
        axis.plot([row["first"], row["last"]], [row["accuracy"]] * 2, color=BLUE, linewidth=2)
        axis.plot([middle] * 2, [row["low"], row["high"]], color=BLUE, linewidth=1)
    if rows and min(row["first"] for row in rows) < 0:
        axis.axvline(0, color=GREY, linewidth=1)
    if not rows:
        axis.text(0.5, 0.5, "not known", transform=axis.transAxes, ha="center", color=GREY)


def _parts(axis: Axes, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    axis.set_title(title, fontsize=10)
    for place, row in enumerate(rows):
        axis.fill_between([place - 0.4, place + 0.4], row["chance_low"], row["chance_high"], color=GREY, alpha=0.25, linewidth=0)
        below, above = max(0.0, row["accuracy"] - row["low"]), max(0.0, row["high"] - row["accuracy"])
        axis.errorbar([place], [row["accuracy"]], yerr=[[below], [above]], fmt="o", color=BLUE)
    axis.set_xticks(range(len(rows)), [_short(str(row["name"])) for row in rows], fontsize=8)
    if not rows:
        axis.text(0.5, 0.5, "not known", transform=axis.transAxes, ha="center", color=GREY)


def _short(name: str) -> str:
    """`20 central electrodes` as two lines, `alpha, 8 to 13 Hz` likewise."""
    if name.endswith(" electrodes"):
        count, group = name.removesuffix(" electrodes").split(" ", 1)
        return f"{group}\n({count})"
    band, _, edges = name.partition(", ")
    return f"{band}\n{edges.replace(' to ', '-')}"
