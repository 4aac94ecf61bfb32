"""An evaluation as one self-contained HTML page: the verdict first, then pictures, numbers, controls, and what made them.

Legend: N trials, S samples per trial, C categories, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from dreamdiff.arrays import Array, Ints
from dreamdiff.estimators.carriers_figure import CAPTION, carriers_figure
from dreamdiff.evaluation.decoding_controls import DecodingControls
from dreamdiff.evaluation.failures import Failure, count_failures, failures, pick_failures
from dreamdiff.evaluation.result import Evaluation, Material
from dreamdiff.metrics.measurement import Measurement
from eegprep import atomic
from eegprep.inspection.page import data_uri, document
from eegprep.inspection.pictures import figure_png, image_png
from eegprep.signals.spectra import spread

TEMPLATES = Path(__file__).parent / "templates"

CELL = 96  # pixels of an image on the page

# cards of pictures and the colours of a verdict, which no other page has
STYLE = """
:root { --good: #eaf5ec; --bad: #fbeae9; --unsure: #fdf4e3; --green: #2f7d3b; --red: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --good: #16281a; --bad: #351b1a; --unsure: #2f2615; --green: #7cc98a; --red: #f0877f; } }
h3 { font-size: 1em; margin: 1.2em 0 .4em; } .soft { color: var(--soft); }
p.good { background: var(--good); border-color: #2f7d3b; } p.bad { background: var(--bad); border-color: #b3261e; } p.unsure { background: var(--unsure); border-color: #b77a12; }
p.verdict { font-weight: 600; } td.n { white-space: nowrap; } td:first-child { min-width: 150px; }
.above { color: var(--green); font-weight: 600; } .at { color: var(--red); }
.row { display: flex; flex-wrap: wrap; gap: 14px; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: 8px; font-size: 12.5px; }
.card img { width: 84px; height: 84px; display: inline-block; border-radius: 3px; border: 1px solid var(--line); }
.card img.truth { outline: 3px solid var(--mark); outline-offset: -1px; margin-right: 8px; }
.found img.hit { outline: 3px solid #2f7d3b; outline-offset: -1px; }
"""

SHOWN = 6  # trials in each of best, median and worst

BLUE, ORANGE, GREY, RED = "#1f5fa8", "#d9772b", "#8a8a8a", "#b3261e"


def chosen_trials(material: Material) -> dict[str, Ints]:
    """Trials to show: the ends and the middle of the order by quality, so that nobody can pick."""
    order = np.argsort(-material.quality_N, kind="stable")
    n = len(order)
    count = max(1, min(SHOWN, n // 3))
    middle = n // 2 - count // 2
    return {"best": order[:count], "median": order[middle : middle + count], "worst": order[n - count :]}


def write_report(evaluation: Evaluation, file: Path) -> None:
    """Write the page; pictures are inside it."""
    material = evaluation.material
    wrong = failures(material)
    body = _environment().get_template("evaluate.html").render(
        evaluation=evaluation,
        report=evaluation.to_json(),
        tone={"NOT": "bad", "UNK": "unsure"}.get(evaluation.first_line[:3], "good"),
        measurements=[_row(m) for m in evaluation.measurements],
        groups={name: [_trial(material, int(row)) for row in rows] for name, rows in chosen_trials(material).items()},
        failures=[_failure(material, one) for one in pick_failures(wrong)],
        failure_counts=count_failures(wrong, material),
        retrieval=_retrieval(material),
        baselines=_baselines(evaluation),
        confusion=None if evaluation.confusion is None else _png(confusion_figure(evaluation.confusion, material.classes)),
        controls=None if evaluation.controls is None else _png(controls_figure(evaluation.controls)),
        carriers=_carriers(evaluation),
        carriers_caption=CAPTION,
        distances=None if evaluation.controls is None or not evaluation.controls.distances else _png(distance_figure(evaluation.controls)),
    )  # fmt: skip
    title = f"Evaluation of {evaluation.identity['model']['path']} on {evaluation.identity['pairs']['path']}"
    atomic.write_text(file, document(title, body, STYLE))


def _carriers(evaluation: Evaluation) -> str | None:
    figure = None if evaluation.carriers is None else carriers_figure(evaluation.carriers.to_json())
    return None if figure is None else _png(figure)


# figures


def controls_figure(controls: DecodingControls) -> Figure:
    """One bar per decoder, its interval, and chance."""
    rows = controls.controls
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(7.2, 0.36 * len(rows) + 1.0), layout="constrained")
        axes = figure.subplots()
        for y, control in enumerate(reversed(rows)):
            m = control.measurement
            above = control.above_chance(max(len(rows) - 1, 1))
            colour = BLUE if control.kind == "result" else RED if above else GREY
            axes.barh(y, m.value, color=colour, height=0.62)
            axes.plot([m.low, m.high], [y, y], color="black", lw=1.2)
            axes.plot(2 * [m.floor or 0.0], [y - 0.4, y + 0.4], color=ORANGE, lw=2)
        axes.set_yticks(range(len(rows)), [c.name for c in reversed(rows)])
        axes.set_xlim(0, 1)
        axes.set_xlabel("balanced accuracy of a light decoder (orange: chance; line: 95 % interval)")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def distance_figure(controls: DecodingControls) -> Figure:
    """Accuracy against the time to the nearest training trial."""
    bins = controls.distances
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        axes = figure.subplots()
        x = np.arange(len(bins))
        y = np.array([b.measurement.value for b in bins])
        low, high = np.array([b.measurement.low for b in bins]), np.array([b.measurement.high for b in bins])
        axes.errorbar(x, y, [np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="o-", color=BLUE, capsize=3)
        axes.set_xticks(x, [f"{b.near:.3g}-{b.far:.3g}" for b in bins])
        axes.set_ylim(0, 1)
        axes.set_xlabel("s to the nearest training trial")
        axes.set_ylabel("accuracy")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_figure(rows_CC: Array, classes: list[str]) -> Figure:
    """Shown category (rows) against what the judge calls the generated image (columns)."""
    size = min(9.5, 2.2 + 0.19 * len(classes))
    with mpl.rc_context({"font.size": 7 if len(classes) > 15 else 9}):
        figure = Figure(figsize=(size, size * 0.95), layout="constrained")
        axes = figure.subplots()
        picture = axes.imshow(rows_CC, cmap="Blues", vmin=0, vmax=max(float(rows_CC.max()), 1e-9))
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("called")
        axes.set_ylabel("shown")
        figure.colorbar(picture, ax=axes, shrink=0.6, label="share of samples")
    return figure


# what the template needs


def _row(m: Measurement) -> dict[str, object]:
    """A row of the table of numbers: shares in per cent."""
    percent = m.unit == "share"
    show = (lambda x: f"{100 * x:.1f} %") if percent else (lambda x: f"{x:.3g}" if abs(x) < 100 else f"{x:.0f}")
    return {
        "name": m.name, "protocol": m.protocol, "value": show(m.value), "interval": f"{show(m.low)} to {show(m.high)}" if m.between() else "too few trials",
        "floor": "" if m.floor is None else show(m.floor), "n": m.n, "seed": m.seed,
        "note": "; ".join(filter(None, (m.note, m.resampled and f"interval over {m.resampled}"))), "better": m.better,
        "unit": "" if percent else m.unit, "above": m.above_floor,
    }  # fmt: skip


def _baselines(evaluation: Evaluation) -> dict[str, object] | None:
    """The model and each baseline in a few columns."""
    if not evaluation.baselines:
        return None
    expected = ("-way-top-1", "-shown-top-1", "-centroid-top-1", "Lite0-similarity", "CLIP-similarity", "psnr", "ssim")
    columns = [m.name for m in evaluation.measurements if m.name.endswith(expected) and not m.name.startswith("retrieval")]
    systems = [("the model", "", evaluation.measurements), *[(b.name, b.told, b.measurements) for b in evaluation.baselines]]
    rows = []
    for name, description, measurements in systems:
        known = {m.name: _row(m) for m in measurements}
        rows.append({"name": name, "told": description, "cells": [known.get(c, {"value": "", "interval": ""}) for c in columns]})
    return {"columns": columns, "rows": rows}


def _trial(material: Material, row: int) -> dict[str, object]:
    called = ""
    if material.judged_NSC is not None:
        calls = material.judged_NSC[row].argmax(1)
        called = ", ".join(material.classes[c] for c in dict.fromkeys(calls.tolist()))
    return {
        "truth": _picture(material.truth_NHWC[row]), "samples": [_picture(image) for image in material.images_NSHWC[row]],
        "label": material.classes[material.labels_N[row]], "called": called, "name": material.names_N[row],
        "quality": f"{material.quality_N[row]:.3f}",
    }  # fmt: skip


def _failure(material: Material, one: Failure) -> dict[str, object]:
    return {
        "truth": _picture(material.truth_NHWC[one.trial]), "made": _picture(material.images_NSHWC[one.trial, one.sample]),
        "true": material.classes[one.true], "called": material.classes[one.called], "kind": one.kind,
    }  # fmt: skip


def _retrieval(material: Material, count: int = 6) -> list[dict[str, object]]:
    """Trials at equal distances in the order of quality, with the five images that their EEG is nearest to."""
    if material.neighbours_NK is None:
        return []
    order = np.argsort(-material.quality_N, kind="stable")
    rows = order[spread(len(order), count)]
    gallery = material.gallery_GHWC
    return [
        {
            "truth": _picture(material.truth_NHWC[row]), "label": material.classes[material.labels_N[row]],
            "found": [{"image": _picture(gallery[g]), "hit": bool(g == material.image_N[row])} for g in material.neighbours_NK[row]],
        }
        for row in rows
    ]  # fmt: skip


def _picture(image_HWC: Array) -> str:
    side = max(image_HWC.shape[:2])
    method = Image.Resampling.NEAREST if side < CELL else Image.Resampling.LANCZOS
    return data_uri(image_png(np.asarray(Image.fromarray(image_HWC).resize((CELL, CELL), method))))


def _png(figure: Figure) -> str:
    return data_uri(figure_png(figure, dpi=140))


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
