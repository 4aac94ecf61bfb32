"""The yardstick's own split: no judged concept is in training, so that there is a right picture and no right category."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "alignment"))
from tiny_alignment import make_pairs, small_config

from dreamdiff.alignment.prepare import align
from dreamdiff.certificates.check import check_report
from dreamdiff.evaluation.retrieve import retrieve
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.config import RetrieveConfig


def test_pictures_of_unseen_concepts_are_judged_and_their_category_is_not(tmp_path):
    """Report, page and check work without a measure that has no truth; centres need pictures that nobody was shown, and say so."""
    (tmp_path / "labels").mkdir()
    label = np.asarray(Pairs.open(make_pairs(tmp_path / "labels")[0]).labels)
    splits = {"train": np.flatnonzero(label < 2), "val": np.zeros(0, np.int64), "test": np.flatnonzero(label >= 2)}
    pairs, target = make_pairs(tmp_path, splits=splits)
    align(pairs, tmp_path / "run", small_config("loop.epochs=2"), targets=[target])

    found = retrieve(tmp_path / "run", pairs, tmp_path / "report", RetrieveConfig(repetitions=("1", "all"), device="cpu"))

    assert list(found.certificate.truth) == ["picture"]
    assert all(set(row.predicted) <= {"picture"} for row in found.certificate.rows)
    assert any(m.name.endswith("/top-1") for m in found.measurements)
    assert "have no pictures but the shown ones" in found.left_out["concept-centres"]
    assert check_report(tmp_path / "report").accuracies > 0
