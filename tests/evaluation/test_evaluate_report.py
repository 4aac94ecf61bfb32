"""The page: verdict first, nothing cherry-picked, failures sorted by what they share, one file."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from tiny_evaluation import CLASSES, tiny_pairs, tiny_parts, tiny_pipeline

from dreamdiff.evaluation import evaluate as e
from dreamdiff.evaluation import failures as r_failures
from dreamdiff.evaluation import report as r
from dreamdiff.evaluation import result as r_result
from dreamdiff.evaluation import scorer as e_scorer
from dreamdiff.metrics.measurement import Measurement


def material(
    images: np.ndarray, truth: np.ndarray, labels: np.ndarray, judged: np.ndarray | None, quality: np.ndarray | None = None
):
    n = len(truth)
    return r_result.Material(
        truth, images, labels, list(CLASSES), [f"trial {i}" for i in range(n)], np.arange(n) if quality is None else quality, judged,
        None, truth, np.arange(n), np.zeros(n, int),
    )  # fmt: skip


def disc(colour: tuple[int, int, int], radius: int = 20, at: tuple[int, int] = (32, 32)) -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[(y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2] = colour
    return picture


def bar(colour: tuple[int, int, int]) -> np.ndarray:
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[28:36, 4:60] = colour
    return picture


def test_failures_are_sorted_by_shape_and_colour():
    """Fig. 6 of the paper: what is confused is alike in one or the other. Here it is known which."""
    red, blue, green = (220, 30, 30), (30, 30, 220), (30, 200, 30)
    corner = disc(green, 8, (12, 12))
    truth = np.stack([disc(red), disc(red), bar(blue), corner] + [corner] * 20)
    made = np.stack([disc(blue), bar(red), bar(blue), bar(red)] + [corner] * 20)
    labels = np.array([0, 0, 1, 2] + [2] * 20)
    judged = np.zeros((24, 1, 6))
    judged[np.arange(24), 0, [1, 1, 0, 0] + [2] * 20] = 1

    found = {f.trial: f.kind for f in r_failures.failures(material(made[:, None], truth, labels, judged))}

    assert found == {0: "shape", 1: "colour", 2: "shape and colour", 3: "neither"}


def test_likeness_by_hand():
    """The same picture is alike in full; another colour keeps the shape, another shape keeps the colour."""
    a = np.stack([disc((220, 30, 30)), disc((30, 30, 220)), bar((220, 30, 30))])

    colour, shape = r_failures.histogram_overlap(a, a), r_failures.edge_correlation(a, a)

    np.testing.assert_allclose([colour[0, 0], shape[0, 0]], 1)
    assert shape[0, 1] > 0.95 and shape[0, 2] < 0.5
    assert colour[0, 2] > colour[0, 1]


def test_no_judge_no_failures_and_one_class_none_either():
    """Without an opinion nothing is wrong; without other classes there is nothing to compare likeness with."""
    truth = np.zeros((3, 64, 64, 3), np.uint8)
    assert r_failures.failures(material(truth[:, None], truth, np.zeros(3, int), None)) == []
    assert r_failures.failures(material(truth[:, None], truth, np.zeros(3, int), np.ones((3, 1, 6)))) == []


def test_shown_trials_are_ends_and_middle_of_the_order():
    """Nobody chooses: best, median and worst follow from the quality alone, and do not overlap."""
    truth = np.zeros((30, 4, 4, 3), np.uint8)
    quality = np.random.default_rng(0).permutation(30)
    chosen = r.chosen_trials(material(truth[:, None], truth, np.zeros(30, int), None, quality))

    assert quality[chosen["best"]].tolist() == [29, 28, 27, 26, 25, 24]
    assert quality[chosen["worst"]].tolist() == [5, 4, 3, 2, 1, 0]
    assert quality[chosen["median"]].tolist() == [17, 16, 15, 14, 13, 12]


def test_failures_shown_are_of_different_trials_and_kinds():
    """Twelve samples of one trial would say one thing twelve times."""
    wrong = [r_failures.Failure(t, s, 0, 1, kind, 0.5, 0.1 * t) for t in range(10) for s, kind in enumerate(("shape", "colour"))]
    picked = r_failures.pick_failures(wrong)

    assert len({f.trial for f in picked}) == len(picked) == 10
    assert (
        sum(
            r_failures.count_failures(
                wrong, material(np.zeros((10, 2, 4, 4, 3), np.uint8), np.zeros((10, 4, 4, 3)), np.zeros(10), None)
            ).values()
        )
        == 1
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    config = e_scorer.EvaluateConfig(
        samples=2, steps=1, clip=str(tiny_parts()[1]), controls=True, control_trials=6, trials=6, baselines=("nearest",)
    )
    found = e.evaluate(tiny_pipeline(), tiny_pairs(), out, config)
    r.write_report(found, out / "report.html")
    return found, (out / "report.html").read_text()


def test_page_opens_with_the_verdict_and_is_one_file(page):
    """What a reader must know stands before any picture, and the page can be mailed."""
    found, html = page

    assert html.index(found.first_line.replace("'", "&#39;")) < html.index("<img")
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert all(f"<td>{m.name}" in html for m in found.measurements)
    for heading in (
        "best",
        "median",
        "worst",
        "Controls",
        "Images from altered EEG",
        "Audit of the split",
        "Confusion",
        "Retrieval from EEG",
    ):
        assert f"{heading}</h" in html, heading
    assert found.identity["model"]["fingerprint"] in html


def test_page_without_controls_says_that_they_are_missing(tmp_path):
    """Silence reads like approval."""
    found = e.evaluate(
        tiny_pipeline(), tiny_pairs(), tmp_path, e_scorer.EvaluateConfig(samples=1, steps=1, trials=3, clip="none")
    )
    r.write_report(found, tmp_path / "report.html")

    html = (tmp_path / "report.html").read_text()
    assert "Controls were not run" in html and "Retrieval from EEG" not in html


def test_names_from_data_cannot_become_markup(tmp_path):
    """Class names come from other people's files."""
    found = e.evaluate(
        tiny_pipeline(), tiny_pairs(), tmp_path, e_scorer.EvaluateConfig(samples=1, steps=1, trials=3, clip="none")
    )
    found.material.classes[:] = ["<script>x</script>"] * len(CLASSES)
    r.write_report(found, tmp_path / "report.html")

    assert "<script>x" not in (tmp_path / "report.html").read_text()


def test_the_accuracy_that_stands_first_is_the_lowest_in_whatever_order_they_come():
    """28.1, 49.8 and 65.6 % once stood in one report, and the line said the last of them."""
    rows = [
        Measurement(name, "p", value, value - 0.05, value + 0.05, 160, 0, 0.025)
        for name, value in (
            ("50-way-top-1", 0.656),
            ("40-way-shown-top-1", 0.281),
            ("40-way-centroid-top-1", 0.498),
            ("40-way-centroid-top-5", 0.2),
        )
    ]
    for order in itertools.permutations(rows):
        found = r_result.Evaluation({}, order, {}, None, None, (), None, None)
        assert "28.1%" in found.second_line
