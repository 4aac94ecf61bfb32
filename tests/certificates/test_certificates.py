"""Certificates: which part earns an accuracy, and whether a report can be believed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "alignment"))
from tiny_alignment import make_pairs, small_config

from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.prepare import align
from dreamdiff.certificates.check import check_report
from dreamdiff.certificates.judging import VectorJudge
from dreamdiff.certificates.records import REQUIRED, Certificate, Row, path_row
from dreamdiff.evaluation.retrieve import groups_of, retrieve
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.config import RetrieveConfig
from eegprep.errors import DataError, ModelError, UsageError


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """An aligned model, its pairs, and a report on them."""
    folder = tmp_path_factory.mktemp("certificate")
    pairs, target = make_pairs(folder, per_class=48)
    align(pairs, folder / "run", small_config("loop.epochs=12"), targets=[target])
    return folder, retrieve(folder / "run", pairs, folder / "report", RetrieveConfig(device="cpu"))


def test_the_learned_encoder_earns_it_and_nothing_does_without_it(report):
    _, found = report
    certificate = found.certificate

    whole, zeroed, others = (certificate.accuracy(name) for name in ("as it is", "encoder zeroed", "encoder of other trials"))
    assert whole.low > 0.5
    assert zeroed.value <= 0.35  # one answer for all: the share of one class of four
    assert others.low <= 0.25 + 0.1
    assert certificate.difference("as it is", "encoder zeroed")[0] > 0
    assert certificate.sentence.startswith("The learned encoder earns it: category")
    assert found.first_line.startswith("NOT EVIDENCE OF DECODING: 48 of 48 test trials have their image in training")
    assert certificate.accuracy("oracle").value == 1.0
    assert {row.name for row in certificate.rows} == {*REQUIRED, path_row("encoder")}


def test_the_report_says_which_part_of_the_trial_carries_the_category(report):
    """The tiny pairs hold the class from the first sample to the last; their channels have no names that say where they are."""
    folder, found = report
    content = json.loads((folder / "report" / "report.json").read_text())["carriers"]

    assert content["rows"][0]["name"] == "everything" and found.carriers["everything"].above_chance
    assert found.carriers.left_out["before the event"] == "there are 0 samples before the event (8 are needed)"
    assert found.carriers.left_out["frontal electrodes"].startswith("0 of ")
    assert content["trials"] == 48


def test_every_number_names_its_protocol(report):
    _, found = report
    names = [m.name for m in found.measurements]

    assert "retrieval/split=default-test/gallery=test-8/repetitions=1/selection=last/person=seen/top-1" in names
    assert all("split=" in name and "repetitions=" in name and "person=" in name for name in names)


def test_averaging_repetitions_helps_and_shares_no_trial(report):
    folder, found = report
    store = Pairs.open(folder / "pairs.zarr")
    groups = groups_of(store, store.split()["test"], "2", seed=0)

    assert len(np.unique(np.concatenate(groups))) == 2 * len(groups)
    by_name = {m.name: m.value for m in found.measurements}
    one, every = (
        by_name[f"category/split=default-test/gallery=test-8/repetitions={r}/selection=last/person=seen/top-1"]
        for r in ("1", "all")
    )
    assert every >= one


def test_a_whole_report_is_verified(report):
    folder, found = report

    checked = check_report(folder / "report")

    assert checked.hashes == ("model", "pairs", "images")
    assert checked.accuracies == 2 * (len(REQUIRED) + 1) + len(found.measurements)
    assert checked.sentence == found.certificate.sentence


def edited(folder: Path, to: Path, change) -> Path:
    """A copy of the report with report.json changed, beside the report, whose paths begin there."""
    to = folder / to.parent.name
    to.mkdir()
    content = json.loads((folder / "report" / "report.json").read_text())
    change(content)
    (to / "report.json").write_text(json.dumps(content))
    (to / "predictions.npz").write_bytes((folder / "report" / "predictions.npz").read_bytes())
    return to


def drop_row(content):
    content["certificate"]["rows"] = [row for row in content["certificate"]["rows"] if row["name"] != "encoder zeroed"]


def raise_accuracy(content):
    content["certificate"]["rows"][0]["accuracy"]["category"]["value"] += 0.01


def raise_measurement(content):
    content["measurements"][0]["value"] = 0.99


def narrow_interval(content):
    content["certificate"]["rows"][0]["accuracy"]["category"]["low"] += 0.02


def empty_row(content):
    content["certificate"]["rows"][1]["accuracy"] = {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_row, "no row 'encoder zeroed'"),
        (raise_accuracy, "the predictions give"),
        (raise_measurement, "the predictions give"),
        (narrow_interval, "low is"),
        (empty_row, "neither a figure nor a reason"),
        (lambda c: c.pop("certificate"), "without a certificate"),
        (lambda c: c["identity"]["model"].update(sha256="0"), "other weights"),
        (lambda c: c["identity"]["pairs"].update(fingerprint="0"), "not those of the report"),
        (lambda c: c["identity"]["pairs"].update(images_sha256="0"), "pictures of the judged trials"),
        (lambda c: c["predictions"].update(sha256="0"), "SHA-256 differs"),
    ],
)
def test_a_report_that_was_touched_is_refused(report, tmp_path, change, words):
    folder, _ = report

    with pytest.raises(DataError, match=words):
        check_report(edited(folder, tmp_path / "copy", change))


def test_predictions_that_were_touched_are_refused(report, tmp_path):
    folder, _ = report
    copy = edited(folder, tmp_path / "copy", lambda content: None)
    with np.load(copy / "predictions.npz") as content:
        arrays = {name: content[name] for name in content.files}
    arrays["row/as it is/category"] = np.zeros_like(arrays["truth/category"])
    np.savez(copy / "predictions.npz", **arrays)

    with pytest.raises(DataError, match=r"SHA-256 differs.*the predictions give"):
        check_report(copy)
    (copy / "predictions.npz").unlink()
    with pytest.raises(DataError, match="missing"):
        check_report(copy)


def certificate_of(rows: dict[str, np.ndarray], truth: np.ndarray, paths=("encoder",)) -> Certificate:
    named = tuple(Row(name, "system", "", {"category": values}) for name, values in rows.items())
    return Certificate(
        named, {"category": truth}, {"category": 0.1}, {"category": ""}, {"category": np.arange(len(truth))}, paths
    )


def test_an_encoder_that_does_nothing_is_called_that():
    """The closed form carries all of it: silencing the encoder changes no more than chance does."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, 200)
    right = np.where(rng.random(200) < 0.65, truth, 99)

    found = certificate_of(
        {"as it is": right, "encoder zeroed": right, "oracle": truth}, truth, ("encoder", "closed form")
    ).sentence
    nothing = certificate_of({"as it is": rng.integers(0, 10, 200), "encoder zeroed": truth * 0, "oracle": truth}, truth).sentence

    assert found.startswith("THE LEARNED ENCODER CONTRIBUTES NOTHING, the closed form earns it")
    assert nothing.startswith("NOTHING IS DECODED")


def test_classes_that_were_never_taught_are_left_out_of_the_category():
    taught = np.random.default_rng(0).normal(size=(6, 4))
    judge = VectorJudge.of(taught, np.array([0, 0, 1, 1, 2, 2]), 4, taught[:3], "here")

    truth = judge.truth(np.array([0, 3, 1]), np.array([0, 1, 2]))

    assert truth["category"].tolist() == [0, -1, 1]
    assert judge.predict(np.repeat(judge.mean_D[None], 2, 0))["category"].tolist() == [-1, -1]  # no direction, no answer


def test_pairs_of_another_kind_are_refused(report, tmp_path):
    folder, _ = report
    make_pairs(tmp_path, unit="mV")

    with pytest.raises(ModelError, match="mV as unit"):
        retrieve(folder / "run", tmp_path / "pairs.zarr", tmp_path / "report")
    with pytest.raises(UsageError, match="'two'"):
        retrieve(folder / "run", folder / "pairs.zarr", tmp_path / "report", RetrieveConfig(repetitions=("two",)))


def test_the_controls_see_the_encoder_that_is_there(report, monkeypatch):
    """A certificate of an encoder whose weights are drawn anew must say that nothing is decoded."""
    folder, _ = report
    model = AlignedEncoder.from_pretrained(folder / "run")
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    model.save_pretrained(folder / "untrained")

    found = retrieve(folder / "untrained", folder / "pairs.zarr", folder / "untrained-report", RetrieveConfig(device="cpu"))

    assert found.certificate.accuracy("as it is").value < 0.6
    assert found.certificate.accuracy("ridge, whitened").value > 0.7
