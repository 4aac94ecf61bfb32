"""Holds Tables 1 and 2 of the paper and sets measured rows beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
from scipy.stats import spearmanr

from dreamdiff.metrics.measurement import bootstrap_interval

ORDERS = ("as in the paper", "open", "reversed")

ACCURACY = "50-way-top-1"  # the column of Table 2


# Table 1: metric, paper's Brain2Image, paper's DreamDiffusion, what is measured for it, in order of preference
TABLE1: tuple[tuple[str, float, float, tuple[str, ...]], ...] = (
    ("FID", 18.76, 3.61, ("fid", "lite0-frechet", "kid", "lite0-kernel")),
    ("IS", 5.06, 28.54, ("inception-score", "lite0-score")),
    ("PSNR", 12.8, 14.6, ("psnr",)),
    ("SSIM", 0.213, 0.267, ("ssim",)),
    ("LPIPS", 0.701, 0.644, ("lpips",)),
)


class RowResult(TypedDict):
    """`row.json`: a row of Table 2 that was run. measured: the shown measurements by name; values: their values trial by trial. groups: of those trials."""

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
    groups: NotRequired[list[list[int]]]
    first_line: str
    measurements: list[Mapping[str, Any]]


class Against(TypedDict):
    """A row against `full` by one metric: the mean difference over trials and its interval."""

    row: str
    full_minus_row: float
    low: float
    high: float
    order: str


class Without(TypedDict):
    """The rank correlation when one kind of row is left out."""

    left_out: str
    rows: int
    rank_correlation: float | None


class Effect(TypedDict):
    """What pre-training adds in two rows that differ in nothing else: mean difference over trials and its interval."""

    with_msm: str
    without_msm: str
    difference: float
    low: float
    high: float


class Order(TypedDict):
    """Whether the paper's order of rows holds by one metric, what that rests on, and what pre-training adds."""

    metric: str
    rank_correlation: float | None
    low: float | None
    high: float | None
    rows: int
    without: list[Without]
    driver: str
    pretraining: list[Effect]
    sentence: str
    against_full: list[Against]


KINDS: tuple[tuple[str, Callable[[RowResult], bool]], ...] = (
    ("rows with class labels", lambda row: row["row"].startswith("label")),
    ("rows without CLIP", lambda row: not row["clip"] and not row["row"].startswith("label")),
    ("rows without pre-training", lambda row: not row["msm"]),
    ("rows that do not train the encoder or the attention", lambda row: row["tuned"] != "E + A"),
    ("rows with another mask ratio", lambda row: row["mask"] not in (None, 0.75)),
    ("rows with a smaller or larger encoder", lambda row: row["params_paper"] != "297 M"),
)
"""Kinds of rows whose part in the rank correlation is looked at."""

MSM_PAIRS = (("full", "3"), ("13", "1"))  # rows that differ in pre-training alone


def table1_rows(systems: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, object]]:
    """One row per column of Table 1; `measured_as` says under which name, because it is not always the paper's metric."""
    result = []
    for metric, brain2image, dreamdiffusion, names in TABLE1:
        row: dict[str, object] = {"metric": metric, "paper Brain2Image": brain2image, "paper DreamDiffusion": dreamdiffusion}
        known = [{m["name"]: m for m in measurements} for measurements in systems.values()]
        name = next((n for n in names if all(n in k for k in known)), None)
        row["measured_as"] = name or "not measured"
        for system, measurements in zip(systems, known, strict=True):
            row[system] = None if name is None else measurements[name]
        result.append(row)
    return result


# reading the tables


def order_of(table: Sequence[RowResult], metric: str = ACCURACY) -> Order:
    """Whether the paper's order holds: rank correlation and what drives it, what pre-training adds, and each row against `full`.

    Differences of two rows are taken over the same trials, with a bootstrap interval; "open" means the interval holds 0.
    """
    rows = [row for row in table if row["paper"] is not None and metric in row["measured"]]
    named = {row["row"]: row for row in rows}
    rank, (low, high) = _rank(rows, metric), _rank_interval(rows, metric)
    without = [
        Without(left_out=kind, rows=len(rest), rank_correlation=_rank(rest, metric))
        for kind, is_of in KINDS
        if 3 <= len(rest := [row for row in rows if not is_of(row)]) < len(rows)
    ]
    known = [(value["rank_correlation"], value["left_out"]) for value in without if value["rank_correlation"] is not None]
    driver = min(known)[1] if known and rank is not None and min(known)[0] < rank else ""
    effects: list[Effect] = []
    for first, second in MSM_PAIRS:
        if first in named and second in named:
            mean, ends = _difference(named[first], named[second], metric)
            effects.append({"with_msm": first, "without_msm": second, "difference": mean, "low": ends[0], "high": ends[1]})
    against: list[Against] = []
    full = named.get("full")
    for row in rows:
        if full is None or row is full:
            continue
        mean, (bottom, top) = _difference(full, row, metric)
        printed = cast(float, full["paper"]) > cast(float, row["paper"])
        says = "open" if bottom <= 0 <= top else "as in the paper" if (mean > 0) == printed else "reversed"
        against.append({"row": row["row"], "full_minus_row": mean, "low": bottom, "high": top, "order": says})
    return {
        "metric": metric, "rank_correlation": rank, "low": low, "high": high, "rows": len(rows), "without": without, "driver": driver,
        "pretraining": effects, "sentence": _sentence(rank, low, high, len(rows), without, driver, effects), "against_full": against,
    }  # fmt: skip


def _rank(rows: Sequence[RowResult], metric: str) -> float | None:
    measured = [row["measured"][metric]["value"] for row in rows]
    return _spearman([row["paper"] for row in rows], measured)


def _spearman(printed: Sequence[float | None], measured: Sequence[float] | np.ndarray) -> float | None:
    if len(printed) < 3 or len(set(printed)) < 2 or len(set(np.asarray(measured).tolist())) < 2:
        return None
    return float(spearmanr(printed, measured).statistic)


def _rank_interval(rows: Sequence[RowResult], metric: str, resamples: int = 1000) -> tuple[float | None, float | None]:
    """95 % percentile interval over trials, the same ones for every row; None where rows have other trials or single ones."""
    values = [row["values"][metric] for row in rows]
    if len(rows) < 3 or len({len(v) for v in values}) > 1 or len(values[0]) < 2:
        return None, None
    table_RN = np.asarray(values, float)
    rng = np.random.default_rng(0)
    drawn = [table_RN[:, rng.integers(table_RN.shape[1], size=table_RN.shape[1])].mean(1) for _ in range(resamples)]
    printed = [row["paper"] for row in rows]
    correlations = [r for means in drawn if (r := _spearman(printed, means)) is not None]
    if len(correlations) < resamples // 2:
        return None, None
    low, high = np.quantile(correlations, [0.025, 0.975])
    return float(low), float(high)


def _difference(first: RowResult, second: RowResult, metric: str) -> tuple[float, tuple[float, float]]:
    difference = np.asarray(first["values"][metric]) - np.asarray(second["values"][metric])
    groups = first.get("groups")
    return float(difference.mean()), bootstrap_interval(difference, 0, groups_N=None if groups is None else np.asarray(groups))


def _sentence(
    rank: float | None, low: float | None, high: float | None, rows: int, without: Sequence[Without], driver: str,
    effects: Sequence[Effect],
) -> str:  # fmt: skip
    """The rank correlation with what drives it, and whether pre-training did anything."""
    parts = []
    if rank is not None:
        interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        text = f"Rank correlation with the paper's column over {rows} rows: {rank:.2f}{interval}"
        if driver:
            left = next(value for value in without if value["left_out"] == driver)
            text += f"; {driver} drive it: without them it is {left['rank_correlation']:.2f} over {left['rows']} rows"
        parts.append(text + ".")
    for one in effects:
        figure = f"{100 * one['difference']:+.1f} points [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
        says = "showed no effect" if one["low"] <= 0 <= one["high"] else "helped" if one["difference"] > 0 else "did harm"
        parts.append(f"Pre-training {says}: row {one['with_msm']} minus row {one['without_msm']} is {figure}.")
    return " ".join(parts)


def measured_names(table: Sequence[RowResult]) -> list[str]:
    """Metrics that were measured for the rows, in order."""
    return list(dict.fromkeys(name for row in table for name in row["measured"]))


def table2_cells(table: Sequence[RowResult]) -> list[dict[str, str]]:
    """Table 2 for a reader, the paper's column beside the measured ones."""
    names = measured_names(table)
    return [
        {
            "row": row["row"], "MSM": "yes" if row["msm"] else "no", "CLIP": "yes" if row["clip"] else "no",
            "mask": "-" if row["mask"] is None else f"{row['mask']:g}", "tuned": row["tuned"], "params (paper)": row["params_paper"],
            "params (here)": f"{row['params'] / 1e6:.2f} M", "paper acc %": "" if row["paper"] is None else f"{row['paper']:.1f}",
            **{f"{name} %": _cell(row["measured"].get(name)) for name in names},
        }
        for row in table
    ]  # fmt: skip


def table1_cells(table: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Table 1 for a reader."""
    printed = ("metric", "paper Brain2Image", "paper DreamDiffusion", "measured_as")
    return [
        {
            "metric": row["metric"], **{name: f"{row[name]:g}" for name in printed[1:3]}, "measured as": row["measured_as"],
            **{system: _plain_cell(figure) for system, figure in row.items() if system not in printed},
        }
        for row in table
    ]  # fmt: skip


def figures_of(table: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Every figure that rows of either table show."""
    in_rows = [figure for row in table for figure in row.get("measured", {}).values()]
    return in_rows + [figure for row in table for figure in row.values() if isinstance(figure, Mapping) and "protocol" in figure]


def _markdown(cells: Sequence[Mapping[str, str]]) -> list[str]:
    lines = ["| " + " | ".join(cells[0]) + " |", "|" + "---|" * len(cells[0])] if cells else []
    return lines + ["| " + " | ".join(row.values()) + " |" for row in cells]


def table2_text(table: Sequence[RowResult]) -> str:
    """The table as Markdown."""
    return "\n".join([*_markdown(table2_cells(table)), "", *table2_sentences(table)]) + "\n"


def table2_sentences(table: Sequence[RowResult]) -> list[str]:
    """Floors, protocols, and what the order of the rows rests on."""
    floors = {n: row["measured"][n]["floor"] for row in table for n in row["measured"]}
    lines = [
        f"Floor of {name} (a guesser who knows the class frequencies): {100 * floor:.1f} %" for name, floor in floors.items()
    ]
    lines += protocols(figures_of(table))
    for name in measured_names(table):
        order = order_of(table, name)
        if order["sentence"]:
            lines.append(f"{name}: {order['sentence']}")
        if order["against_full"]:
            counts = {word: sum(a["order"] == word for a in order["against_full"]) for word in ORDERS}
            lines.append(
                f"Rows against full by {name}, trial by trial: " + ", ".join(f"{n} {word}" for word, n in counts.items())
            )
    return lines


def table1_text(table: Sequence[Mapping[str, Any]]) -> str:
    """Table 1 as Markdown."""
    return "\n".join([*_markdown(table1_cells(table)), "", *protocols(figures_of(table))]) + "\n"


def protocols(figures: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each protocol, n and seed that figures of a table have; what an interval draws again is part of it."""
    lines = []
    for m in figures:
        over = f", interval over {m['resampled']}" if m.get("resampled") else ""
        if "protocol" in m:
            lines.append(f"{m['name']}: {m['protocol']}; n = {m['n']}, seed {m['seed']}, 95 % intervals{over}")
    return list(dict.fromkeys(lines))


def _cell(m: Mapping[str, Any] | None) -> str:
    return "" if m is None else f"{100 * m['value']:.1f} [{100 * m['low']:.1f}, {100 * m['high']:.1f}]"


def _plain_cell(m: Mapping[str, Any] | None) -> str:
    return "" if m is None else f"{m['value']:.3g} [{m['low']:.3g}, {m['high']:.3g}]"
