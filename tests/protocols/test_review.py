"""Somebody else's predictions: accuracies, intervals, audit and controls from a table or an npz file, without any model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from dreamdiff.protocols.review import review
from eegprep.errors import DataError


def npz(file: Path, **arrays: np.ndarray) -> Path:
    np.savez(file, **arrays)
    return file


def csv(file: Path, rows: list[dict]) -> Path:
    names = list(rows[0])
    file.write_text("\n".join([",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]) + "\n")
    return file


def test_top_k_and_mean_average_precision_follow_from_scores(tmp_path):
    """Three trials whose true picture is first, second and last of four."""
    scores = np.array([[4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1]], float)
    found = review(npz(tmp_path / "p.npz", truth=np.array([0, 1, 3]), scores=scores), tmp_path / "r")
    values = {m.name.rsplit("/", 1)[-1]: m for m in found.measurements}
    assert values["top-1"].value == pytest.approx(1 / 3) and values["top-1"].floor == 0.25
    assert values["mAP"].value == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert values["mAP"].floor == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert (tmp_path / "r" / "report.json").is_file() and "mAP" in (tmp_path / "r" / "report.html").read_text()


def test_vectors_are_judged_like_scores_and_the_protocol_is_in_the_name(tmp_path):
    """Cosine to the gallery; what authors state is kept beside what they do not."""
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(20, 16))
    truth = np.arange(20)
    file = npz(
        tmp_path / "p.npz",
        truth=truth,
        vectors=gallery + 0.3 * rng.normal(size=gallery.shape),
        gallery=gallery,
        repetitions=np.full(20, 80),
    )
    found = review(file, tmp_path / "r", protocol="selection=last, person=new")
    assert found.measurements[0].value > 0.9
    assert found.measurements[0].name == "vectors/gallery=20/repetitions=80/selection=last/person=new/top-1"


def test_permuted_labels_are_at_chance_and_said_to_be(tmp_path):
    """The first sentence of a review of noise."""
    rng = np.random.default_rng(1)
    rows = [
        {"truth": f"c{k % 10}", "predicted": f"c{rng.integers(10)}", "person": f"s{k % 4}", "image": f"i{k % 50}"}
        for k in range(400)
    ]
    found = review(csv(tmp_path / "p.csv", rows), tmp_path / "r")
    m = found.measurements[0]
    assert m.low <= m.floor <= m.high and m.resampled == "10 categories and 4 people"
    assert found.first_line.startswith("NOT ABOVE CHANCE") and found.p > 0.05
    assert [one.name for one in found.people] == ["s0", "s1", "s2", "s3"]


def test_shared_pictures_and_one_to_one_answers_speak_against_a_result(tmp_path):
    """The training rows tell what the test part shares; and assigning 20 answers to 20 pictures is not retrieval."""
    test = [{"truth": f"c{k % 5}", "predicted": f"c{k % 5}", "person": "a", "image": f"i{k}", "part": "test"} for k in range(20)]
    taught = [{**row, "predicted": "", "part": "train", "image": f"i{k + 15}"} for k, row in enumerate(test)]
    found = review(csv(tmp_path / "p.csv", test + taught), tmp_path / "r")
    assert found.first_line.startswith("NOT EVIDENCE OF DECODING: 5 of 20 test trials have their image in training")
    truth = np.arange(20)
    scores = np.eye(20)[np.roll(truth, 0)]
    scores[[0, 1]] = scores[[1, 0]]
    one = review(npz(tmp_path / "p.npz", truth=truth, scores=scores), tmp_path / "r2")
    assert "one to one" in one.first_line and one.first_line.startswith("NOT EVIDENCE")


def test_trials_of_a_store_are_audited_there_and_must_have_its_labels(tmp_path):
    """A reviewer with the data needs the trial numbers only."""
    rng = np.random.default_rng(2)
    writer = PairsWriter(
        tmp_path / "s.zarr", recipe={}, classes=["x", "y"], provenance="recorded", licence="CC0", channels=2, samples=8
    )
    writer.set_images(rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), [f"{k}.png" for k in range(12)])
    with writer.subject("a", "k", {"sfreq": 100.0}) as target:
        target.add(
            rng.normal(size=(24, 2, 8)).astype("f4"), image=np.arange(24) % 12, label=np.arange(24) % 2, block=np.arange(24) % 4
        )
    writer.finish({"train": np.arange(12), "val": [], "test": np.arange(12, 24)})
    rows = [{"trial": k, "truth": "xy"[k % 2], "predicted": "xy"[k % 2]} for k in range(12, 24)]
    found = review(csv(tmp_path / "p.csv", rows), tmp_path / "r", pairs=Pairs.open(tmp_path / "s.zarr"))
    assert "12 of 12 test trials have their image in training" in found.first_line
    rows[3]["truth"] = "xy"[(rows[3]["trial"] + 1) % 2]
    with pytest.raises(DataError, match="trial 15 has truth"):
        review(csv(tmp_path / "p.csv", rows), tmp_path / "r", pairs=Pairs.open(tmp_path / "s.zarr"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("truth\na\n", "needs the columns"),
        ("truth,predicted\na,\n", "row 1 has an empty cell"),
        ("truth,predicted,rank\na,b,0\n", "row 1 has the rank '0'"),
        ("truth,predicted,part\na,b,train\n", "0 rows with predictions"),
    ],
)
def test_bad_tables_are_refused_with_the_row(tmp_path, content, message):
    """Never a silent substitute."""
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        review(tmp_path / "p.csv", tmp_path / "r")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"truth": np.arange(3)}, "has no predictions"),
        ({"truth": np.arange(3), "scores": np.ones((2, 4))}, "for 3 trials"),
        ({"truth": np.array([0, 9]), "scores": np.ones((2, 4))}, "outside 0..3"),
        ({"truth": np.arange(2), "scores": np.array([[1, np.nan], [0, 1]])}, "not finite"),
        ({"truth": np.arange(2), "vectors": np.ones((2, 3)), "gallery": np.ones((4, 5))}, "gallery of shape"),
    ],
)
def test_bad_arrays_are_refused_with_both_numbers(tmp_path, arrays, message):
    """As for tables."""
    with pytest.raises(DataError, match=message):
        review(npz(tmp_path / "p.npz", **arrays), tmp_path / "r")
