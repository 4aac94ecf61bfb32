"""The page of `dreamdiff retrieve`: the part that earns the accuracy first, then numbers, the certificate, and what was found beside what
was shown.

Shapes: R groups of repetitions, G gallery pictures, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.records import Certificate
from dreamdiff.estimators.carriers import Carriers
from dreamdiff.estimators.carriers_figure import CAPTION, carriers_figure
from dreamdiff.metrics.measurement import Measurement
from dreamdiff.pairs.audit import Audit
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.frame import report_page
from eegprep.errors import ToolkitError
from eegprep.inspection.page import Page
from eegprep.signals.spectra import spread

SHOWN, NEAREST, SIDE = 12, 5, 92  # groups on the page, pictures beside each, pixels


@dataclass(frozen=True)
class Found:
    """What the EEG of groups of repetitions was nearest to.

    shown_R: place of the right picture in the gallery. nearest_RK: the nearest ones, nearest first. rank_R: place of the right one
    among all, from 1. trials: how many were averaged. trial_R: the first trial of each group in the store.
    """

    shown_R: Ints
    nearest_RK: Ints
    rank_R: Ints
    trials: Sequence[int]
    trial_R: Ints

    @classmethod
    def of(cls, mean_RD: Array, gallery_GD: Array, shown_R: Ints, trials: Sequence[int], trial_R: Ints) -> Found:
        """Order the gallery for each mean direction."""
        nearness_RG = mean_RD @ gallery_GD.T
        own_R = nearness_RG[np.arange(len(shown_R)), shown_R]
        rank_R = 1 + (nearness_RG > own_R[:, None]).sum(axis=1)
        return cls(shown_R, np.argsort(-nearness_RG, axis=1, kind="stable")[:, :NEAREST], rank_R, trials, trial_R)

    def chosen(self, count: int = SHOWN) -> Ints:
        """Groups at equal distances in the order of their rank, so that neither the best nor the worst are picked."""
        return np.argsort(self.rank_R, kind="stable")[spread(len(self.rank_R), count)]


def write_page(
    file: Path, *, first_line: str, identity: Mapping[str, Any], measurements: Sequence[Measurement], certificate: Certificate,
    audit: Audit, store: Pairs, gallery: Ints, neighbours: Found | None, carried: Carriers | None = None,
) -> None:  # fmt: skip
    """Write the page; pictures are inside it.

    Args:
        gallery: numbers of the gallery's pictures in the store; places of the gallery beyond them have a vector and no picture.
        carried: what a light decoder reaches with parts of the trials.
    """
    page = report_page(
        "Finding the picture that was seen",
        first_line,
        store.provenance,
        audit,
        identity["split"]["name"],
        identity["origin"]["sentence"],
    )
    page.heading("Which part earns it")
    page.text(
        "All rows are measured on the same trials, in the same way. If the accuracy stays when a part is taken out, that part did not earn it. "
        "In brackets: 95 % intervals, whole pictures resampled."
    )
    page.table(certificate_table(certificate))
    page.heading("How often the right picture is found")
    page.text(
        "Top 1: it is the nearest of the gallery. Top 5: it is among the nearest five. The category: the mean direction of its training pictures is the "
        "nearest. Repetitions of a picture in one person are averaged as vectors; the name of each number says how many, and what was compared."
    )
    curve = repetition_curve(measurements)
    if curve is not None:
        page.figure(curve, "Share found against the number of averaged repetitions, with 95 % intervals. Dotted: chance.")
    page.table([measurement_row(m) for m in measurements])
    if neighbours is not None:
        _pictures(page, store, gallery, neighbours)
    figure = None if carried is None else carriers_figure(carried.to_json())
    if figure is not None:
        page.heading("When, where, and in which band")
        page.figure(figure, CAPTION, "accuracy of a light decoder against time, electrodes and band")
    page.heading("What was measured")
    model, pairs, split = identity["model"], identity["pairs"], identity["split"]
    page.table(
        [
            {"what": "model", "is": f"{model['path']}, encoder {model['encoder']}, target {model['target']}", "SHA-256": model["sha256"][:16]},
            {"what": "pairs", "is": f"{pairs['path']} ({pairs['provenance']})", "SHA-256": pairs["fingerprint"][:16]},
            {"what": "split", "is": f"{split['name']}: {split['n_evaluated']} trials judged, {split['n_train']} trained on", "SHA-256": ""},
        ]
    )  # fmt: skip
    page.text(
        "Every accuracy follows from predictions.npz beside this page; this computes all of them again and compares the digests:"
    )
    page.code(f"dreamdiff evaluate --check {file.resolve().parent.name}")
    page.write(file)


def certificate_table(certificate: Certificate) -> list[dict[str, object]]:
    """Rows of a certificate for a page: what was done, and every measure with its interval and its share of the oracle."""
    rows = []
    for row in certificate.to_json()["rows"]:
        cells: dict[str, object] = {"row": row["name"], "what": row["description"]}
        for measure, floor in certificate.floors.items():
            figure = row["accuracy"].get(measure)
            cells[f"{measure} (chance {floor:.1%})"] = _cell(figure) if figure else row.get("missing", "")
        rows.append(cells)
    return rows


def _cell(figure: Mapping[str, Any]) -> str:
    between = "" if figure["low"] is None else f" [{figure['low']:.1%}, {figure['high']:.1%}]"
    share = "" if figure["share_of_oracle"] is None else f", {figure['share_of_oracle']:.0%} of the oracle"
    return f"{figure['value']:.1%}{between} of {figure['n']}{share}"


def measurement_row(m: Measurement) -> dict[str, object]:
    """A measurement as a row of a page's table."""
    return {
        "measurement": m.name, "value": f"{m.value:.1%}", "interval": m.between(".1%"), "chance": "" if m.floor is None else f"{m.floor:.1%}", "n": m.n,
    }  # fmt: skip


def repetition_curve(measurements: Sequence[Measurement]) -> Figure | None:
    """Share found against repetitions, one line a kind of measurement; None where only one size was measured."""
    lines: dict[str, list[tuple[str, Measurement]]] = {}
    for m in measurements:
        if "/averaged=people" in m.name or "transductive" in m.name:
            continue
        size = next((part.removeprefix("repetitions=") for part in m.name.split("/") if part.startswith("repetitions=")), "")
        lines.setdefault(f"{m.name.split('/')[0]}, {m.name.rsplit('/', 1)[-1]}", []).append((size, m))
    sizes = list(dict.fromkeys(size for line in lines.values() for size, _ in line))
    if len(sizes) < 2:
        return None
    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axes = figure.subplots()
    for colour, (name, line) in zip(("#0b6bcb", "#9a5b00", "#1d7a3e", "#5b6575"), lines.items(), strict=False):
        x = [sizes.index(size) for size, _ in line]
        axes.plot(x, [100 * m.value for _, m in line], marker="o", color=colour, label=name)
        axes.fill_between(x, [100 * m.low for _, m in line], [100 * m.high for _, m in line], color=colour, alpha=0.12)
        if line[0][1].floor is not None:
            axes.axhline(100 * line[0][1].floor, color=colour, lw=1, ls=":")
    axes.set_xticks(range(len(sizes)), sizes)
    axes.set_xlabel("repetitions that are averaged")
    axes.set_ylabel("found, %")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))  # beside the bands, which would run through it
    return figure


def _pictures(page: Page, store: Pairs, gallery: Ints, neighbours: Found) -> None:
    page.heading("What was shown, and what the EEG was nearest to")
    chosen = neighbours.chosen()
    places = np.unique(np.concatenate([neighbours.shown_R[chosen], neighbours.nearest_RK[chosen].ravel()]))
    try:
        images = {place: store.load_images([gallery[place]], size=SIDE)[0] for place in places[places < len(gallery)]}
    except ToolkitError as error:
        page.text(f"The pictures cannot be shown: {error.problem}")
        return
    page.text(
        f"{len(chosen)} of {len(neighbours.rank_R)} pictures, at equal distances in the order of success: the first is among the best, the last among the "
        "worst. Left what was shown, then the nearest pictures of the gallery, nearest first."
    )
    blank = np.full((SIDE, SIDE, 3), 238, np.uint8)
    page.sets(
        [
            (images[neighbours.shown_R[r]], f"shown: {store.classes[store.labels[neighbours.trial_R[r]]]} ({neighbours.trials[r]} averaged), rank {neighbours.rank_R[r]}"),
            *[
                (images.get(place, blank), "found" if place == neighbours.shown_R[r] else "" if place in images else "from the further gallery")
                for place in neighbours.nearest_RK[r]
            ],
        ]
        for r in chosen
    )  # fmt: skip
