"""Holds Tables 1 and 2 of the paper and sets measured rows beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from scipy.stats import spearmanr

from dreamdiff.metrics.measurement import bootstrap_interval

Size = Literal["458", "297", "162", "74", "18.3"]

ORDERS = ("as in the paper", "open", "reversed")

ACCURACY = "50-way-top-1"  # the column of Table 2


@dataclass(frozen=True)
class Row:
    """One row of Table 2. size: millions of parameters as printed. mask: None without pre-training. tuned: E encoder, A attention."""

    name: str
    mask: float | None
    clip: bool
    size: Size
    tuned: Literal["E + A", "E only", "A only"]
    paper: float | None
    shallow: bool = False
    labels: bool = False
    label_input: bool = False


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("full", 0.75, True, "297", "E + A", 45.8),
        Row("1", None, False, "297", "E + A", 4.2),
        Row("2", None, False, "18.3", "E + A", 3.7, shallow=True),
        Row("3", None, True, "297", "E + A", 32.3),
        Row("4", None, True, "18.3", "E + A", 24.5, shallow=True),
        Row("5", 0.25, True, "297", "E + A", 19.7),
        Row("6", 0.5, True, "297", "E + A", 38.3),
        Row("7", 0.85, True, "297", "E + A", 33.4),
        Row("8", 0.75, True, "458", "E + A", 38.5),
        Row("9", 0.75, True, "162", "E + A", 36.6),
        Row("10", 0.75, True, "74", "E + A", 29.8),
        Row("11", 0.75, True, "18.3", "E + A", 28.7),
        Row("12", 0.75, True, "297", "E only", 22.4),
        Row("13", 0.75, False, "297", "E + A", 28.3),
        Row("14", 0.75, False, "297", "A only", 20.9),
        # section 4.4: class labels in place of CLIP vectors, and class labels in place of EEG
        Row("labels", 0.75, False, "297", "E + A", 86.7, labels=True),
        Row("label-input", None, False, "297", "E + A", 97.2, label_input=True),
    )
}

TABLE2 = tuple(name for name in ROWS if not name.startswith("label"))


# Table 1: metric, paper's Brain2Image, paper's DreamDiffusion, what is measured for it, in order of preference
TABLE1: tuple[tuple[str, float, float, tuple[str, ...]], ...] = (
    ("FID", 18.76, 3.61, ("fid", "lite0-frechet", "kid", "lite0-kernel")),
    ("IS", 5.06, 28.54, ("inception-score", "lite0-score")),
    ("PSNR", 12.8, 14.6, ("psnr",)),
    ("SSIM", 0.213, 0.267, ("ssim",)),
    ("LPIPS", 0.701, 0.644, ("lpips",)),
)


class RowResult(TypedDict):
    """`row.json`: a row of Table 2 that was run. measured: the shown measurements by name; values: their values trial by trial."""

    row: str
    msm: bool
    clip: bool
    mask: float | None
    tuned: str
    params_paper: str
    params: int
    paper: float | None
    fingerprint: str
    measured: dict[str, Mapping[str, Any]]
    values: dict[str, list[float]]
    first_line: str
    measurements: list[Mapping[str, Any]]


class Against(TypedDict):
    """A row against `full` by one metric: the mean difference over trials and its interval."""

    row: str
    full_minus_row: float
    low: float
    high: float
    order: str


class Order(TypedDict):
    """Whether the paper's order of rows holds by one metric."""

    metric: str
    rank_correlation: float | None
    against_full: list[Against]


def table1_rows(systems: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, object]]:
    """One row per column of Table 1; `measured_as` says under which name, because it is not always the paper's metric."""
    found = []
    for metric, brain2image, dreamdiffusion, names in TABLE1:
        row: dict[str, object] = {"metric": metric, "paper Brain2Image": brain2image, "paper DreamDiffusion": dreamdiffusion}
        known = [{m["name"]: m for m in measurements} for measurements in systems.values()]
        name = next((n for n in names if all(n in k for k in known)), None)
        row["measured_as"] = name or "not measured"
        for system, measurements in zip(systems, known, strict=True):
            row[system] = None if name is None else measurements[name]
        found.append(row)
    return found


# reading the tables


def order_of(table: Sequence[RowResult], metric: str = ACCURACY) -> Order:
    """Whether the paper's order holds: rank correlation, and each row against `full`, trial by trial.

    The difference of two rows is taken over the same trials, with a bootstrap interval; "open" means the interval holds 0.
    """
    rows = [row for row in table if row["paper"] is not None and metric in row["measured"]]
    printed = {row["row"]: row["paper"] for row in rows if row["paper"] is not None}
    full = next((row for row in rows if row["row"] == "full"), None)
    rank = None
    if len(rows) > 2 and len({r["measured"][metric]["value"] for r in rows}) > 1:
        rank = float(spearmanr([r["paper"] for r in rows], [r["measured"][metric]["value"] for r in rows]).statistic)
    against: list[Against] = []
    for row in rows:
        if full is None or row is full:
            continue
        difference = np.asarray(full["values"][metric]) - np.asarray(row["values"][metric])
        low, high = bootstrap_interval(difference, 0)
        says = (
            "open"
            if low <= 0 <= high
            else "as in the paper"
            if (difference.mean() > 0) == (printed[full["row"]] > printed[row["row"]])
            else "reversed"
        )
        against.append({"row": row["row"], "full_minus_row": float(difference.mean()), "low": low, "high": high, "order": says})
    return {"metric": metric, "rank_correlation": None if rank is None or np.isnan(rank) else rank, "against_full": against}


def measured_names(table: Sequence[RowResult]) -> list[str]:
    """Metrics that were measured for the rows, in order."""
    return list(dict.fromkeys(name for row in table for name in row["measured"]))


def table2_text(table: Sequence[RowResult]) -> str:
    """The table as Markdown, the paper's column beside the measured ones."""
    names = measured_names(table)
    head = ["row", "MSM", "CLIP", "mask", "tuned", "params (paper)", "params (here)", "paper acc %", *(f"{n} %" for n in names)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in table:
        cells = [
            row["row"], "yes" if row["msm"] else "no", "yes" if row["clip"] else "no", "-" if row["mask"] is None else f"{row['mask']:g}",
            row["tuned"], row["params_paper"], f"{row['params'] / 1e6:.2f} M", "" if row["paper"] is None else f"{row['paper']:.1f}",
            *(_cell(row["measured"].get(name)) for name in names),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    floors = {n: row["measured"][n]["floor"] for row in table for n in row["measured"]}
    lines.append("")
    lines += [
        f"Floor of {name} (a guesser who knows the class frequencies): {100 * floor:.1f} %" for name, floor in floors.items()
    ]
    for name in names:
        order = order_of(table, name)
        if order["rank_correlation"] is not None:
            lines.append(f"Rank correlation of {name} with the paper's column: {order['rank_correlation']:.2f}")
        if order["against_full"]:
            counts = {word: sum(a["order"] == word for a in order["against_full"]) for word in ORDERS}
            lines.append(
                f"Rows against full by {name}, trial by trial: " + ", ".join(f"{n} {word}" for word, n in counts.items())
            )
    return "\n".join(lines) + "\n"


def table1_text(table: Sequence[Mapping[str, Any]]) -> str:
    """Table 1 as Markdown."""
    systems = [key for key in table[0] if key not in ("metric", "paper Brain2Image", "paper DreamDiffusion", "measured_as")]
    head = ["metric", "paper Brain2Image", "paper DreamDiffusion", "measured as", *systems]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in table:
        found = [_plain_cell(row[system]) for system in systems]
        lines.append(
            "| "
            + " | ".join(
                [row["metric"], f"{row['paper Brain2Image']:g}", f"{row['paper DreamDiffusion']:g}", row["measured_as"], *found]
            )
            + " |"
        )
    return "\n".join(lines) + "\n"


def _cell(m: Mapping[str, Any] | None) -> str:
    return "" if m is None else f"{100 * m['value']:.1f} [{100 * m['low']:.1f}, {100 * m['high']:.1f}]"


def _plain_cell(m: Mapping[str, Any] | None) -> str:
    return "" if m is None else f"{m['value']:.3g} [{m['low']:.3g}, {m['high']:.3g}]"
