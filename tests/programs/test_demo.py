"""The demo at the smallest size: every stage on the page, simulated said to be simulated, and taken up where it stopped."""

from __future__ import annotations

import json

import pytest

from dreamdiff.pairs.reader import Pairs
from dreamdiff.programs.demo import MARKER, run, shown_trials
from dreamdiff.programs.demo_page import DemoConfig, Folders
from eegprep.errors import StoreError

SMALL = DemoConfig(
    people=1, trials=6, pretrain=("loop.max_steps=2", "loop.tracker=none"), finetune=("loop.max_steps=2", "loop.tracker=none"),
    shown=4, samples=1, evaluated=8, controlled=4, steps=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    run(out, SMALL)
    return out


@pytest.mark.slow
def test_the_page_holds_pictures_of_every_stage_and_says_simulated(demo):
    """The page is what a person sees of the whole project first."""
    page = (demo / "index.html").read_text()

    for number, part in enumerate(
        (
            "Genuine recordings",
            "The corpus",
            "Masked signal modelling",
            "Simulated EEG-image pairs",
            "Fine-tuning",
            "Images for",
            "Accuracy",
        ),
        1,
    ):
        assert f"<h2>{number}. {part}" in page
    assert page.count("data:image/png;base64,") >= 6 + 2 * SMALL.shown
    assert page.lower().count("simulated") >= 3
    assert "http-equiv" not in page
    assert 'src="http' not in page  # nothing is loaded from elsewhere


@pytest.mark.slow
def test_accuracy_stands_beside_floor_interval_and_controls(demo):
    """A number without its controls is what this project is against."""
    report = json.loads((demo / "evaluation" / "report.json").read_text())

    assert {g["name"] for g in report["generation_controls"]} >= {"noise", "across classes"}
    assert all(m["low"] <= m["value"] <= m["high"] for m in report["measurements"])
    assert "floor" in (demo / "index.html").read_text()


@pytest.mark.slow
def test_a_second_run_repeats_nothing(demo):
    """Run again after a kill, the demo must not train again what is trained."""
    folders = Folders(demo)
    kept = [
        folders.pretrained / "history.jsonl",
        folders.finetuned / "history.jsonl",
        folders.finetuned / "pipeline" / "encoder" / "model.safetensors",
        folders.evaluation / "report.json",
    ]
    before = [file.read_bytes() for file in kept]

    run(demo, SMALL)

    assert [file.read_bytes() for file in kept] == before


@pytest.mark.slow
def test_shown_trials_are_held_out_and_one_of_each_category_first(demo):
    """Nothing on the page is chosen by how good it looks."""
    pairs = Pairs.open(Folders(demo).pairs)
    chosen = shown_trials(pairs, 40)

    assert set(chosen.tolist()) <= set(pairs.splits["test"].tolist())
    assert sorted(pairs.labels[chosen].tolist()) == list(range(40))


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    """The demo must not write between somebody's files."""
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(StoreError, match="holds something else than a demo"):
        run(tmp_path, SMALL)

    assert not (tmp_path / MARKER).exists()
