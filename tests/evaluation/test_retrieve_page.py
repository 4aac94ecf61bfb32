"""The page of `dreamdiff retrieve`: certificate rows and neighbours are on it, and they are those of the report."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "alignment"))
from tiny_alignment import make_pairs, small_config

from dreamdiff.alignment.prepare import align
from dreamdiff.evaluation.retrieve import retrieve
from dreamdiff.evaluation.retrieve_page import Found
from dreamdiff.protocols.config import RetrieveConfig


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    pairs, target = make_pairs(folder, per_class=24)
    align(pairs, folder / "run", small_config("loop.epochs=4"), targets=[target])
    found = retrieve(folder / "run", pairs, folder / "report", RetrieveConfig(repetitions=("1", "2"), device="cpu"))
    return found, (folder / "report" / "report.html").read_text(encoding="utf-8"), str(folder)


def test_every_row_of_the_certificate_is_on_the_page_with_its_interval(report):
    found, page, _ = report
    text = re.sub(r"<[^>]+>", "|", page).replace("&#x27;", "'")
    for row in found.certificate.to_json()["rows"]:
        figure = row["accuracy"]["category"]
        assert f"{row['name']}|" in text and row["description"] in text
        assert f"{figure['value']:.1%} [{figure['low']:.1%}, {figure['high']:.1%}] of {figure['n']}" in text
    assert text.index(found.certificate.sentence) < text.index("Which part earns it")
    for m in found.measurements:
        assert m.name in text
    assert "The EEG is simulated" in text
    assert "dreamdiff evaluate --check" in text


def test_report_and_page_say_where_the_numbers_come_from_and_name_no_folder(report):
    """They are passed on like pictures: recorded or simulated, model, licences, and nothing of this machine."""
    found, page, folder = report
    origin = found.identity["origin"]

    assert (origin["eeg"], origin["training"], origin["model"]) == ("simulated", "simulated", "run")
    assert set(origin["licences"]) == {"EEG", "training pairs"} and origin["sentence"].startswith("simulated EEG; model run")
    assert origin["sentence"][1:] in page
    assert folder not in page and folder not in json.dumps(found.to_json())


def test_pictures_of_a_trial_stay_on_one_line_and_nothing_is_loaded_from_elsewhere(report):
    _, page, _ = report
    sets = re.findall(r'<div class="set">(.*?)</div>', page)
    assert sets and all(one.count("<img") == 6 for one in sets)
    assert "flex-wrap: nowrap" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_neighbours_are_ordered_by_nearness_and_not_picked_by_success():
    """Rank 1 is the nearest; of many groups, those shown lie at equal distances from the best to the worst."""
    gallery = np.eye(6)
    mean = np.array([[0.0, 1, 0.5, 0, 0, 0], [1, 0.9, 0.8, 0.7, 0.6, 0.1]])
    found = Found.of(mean, gallery, np.array([1, 5]), [1, 1], np.array([0, 1]))
    assert found.rank_R.tolist() == [1, 6]
    assert found.nearest_RK[0, :2].tolist() == [1, 2] and found.nearest_RK[1].tolist() == [0, 1, 2, 3, 4]

    rank = np.random.default_rng(0).permutation(100) + 1
    many = Found(np.zeros(100, int), np.zeros((100, 5), int), rank, [1] * 100, np.arange(100))
    shown = rank[many.chosen(5)]
    assert shown[0] <= 20 and shown[-1] >= 80 and np.ptp(np.diff(shown)) <= 1
