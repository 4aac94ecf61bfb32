"""Somebody new, by what is known of them: four named rows on the same trials, and a control at chance."""

from __future__ import annotations

import json

import pytest
from world import make_world

from cli.main import dreamdiff_app, run
from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
from dreamdiff.alignment.prepare import align
from dreamdiff.evaluation.new_person import NOTHING, PERMUTED, RECOVERY, new_person
from dreamdiff.protocols.config import RetrieveConfig
from eegprep.errors import DataError
from eegprep.settings import resolve

SMALL = ["front.rate=64", "front.seconds=0.625", "loop.device=cpu", "optim.warmup_epochs=0.5"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model of two people, and a third."""
    folder = tmp_path_factory.mktemp("new")
    (folder / "third").mkdir()
    pairs, target = make_world(folder, people=2, trials=12)
    align(
        pairs,
        folder / "run",
        resolve(AlignConfig, presets=ALIGN_PRESETS, preset="tiny", assignments=[*SMALL, "loop.epochs=10"]),
        targets=[target],
    )
    third, _ = make_world(folder / "third", people=1, trials=12, first_person=2)
    return folder, pairs, third


def test_four_rows_and_a_control_on_the_same_trials(world, tmp_path):
    """Whitening by the person's own trials beats nothing, labels are at least as good as nothing, permuted pictures are at chance."""
    folder, _, third = world
    tuning = resolve(AlignConfig, presets=ALIGN_PRESETS, preset="adapt", assignments=[*SMALL, "loop.epochs=3"])

    found = new_person(folder / "run", third, tmp_path, RetrieveConfig(device="cpu"), unlabelled=60, minutes=3.0, tuning=tuning)

    assert list(found.rows) == [NOTHING, "whitening-60-unlabelled", RECOVERY, "labels-3-minutes", PERMUTED]
    first = {name: measurements[0] for name, measurements in found.rows.items()}
    assert len({m.n for m in first.values()}) == 1
    assert first["whitening-60-unlabelled"].value > first[NOTHING].value
    assert first["labels-3-minutes"].value >= first[NOTHING].value
    control = first[PERMUTED]
    assert control.low <= control.floor <= control.high
    assert (
        found.told["whitening-60-unlabelled"].startswith("60 training trials")
        and "without labels" in found.told["whitening-60-unlabelled"]
    )
    assert "transductive" in first[RECOVERY].name
    page = (tmp_path / "report.html").read_text()
    assert "simulated" in page and "transductive" in page
    assert json.loads((tmp_path / "report.json").read_text())["rows"][NOTHING]["told"] == "no trial of the person"


def test_a_person_that_the_model_knows_is_no_new_person(world, tmp_path):
    """Their number would be called something that it is not."""
    folder, pairs, _ = world

    with pytest.raises(DataError, match="the model knows p0"):
        new_person(folder / "run", pairs, tmp_path, RetrieveConfig(device="cpu"))


def test_one_command_prints_the_rows(world, tmp_path, capsys):
    """Rows that need minutes are left out by name where there is too little recording."""
    folder, _, third = world
    line = [
        "retrieve",
        "--model",
        str(folder / "run"),
        "--pairs",
        str(third),
        "--out",
        str(tmp_path / "o"),
        "--new-person",
        "--unlabelled",
        "20",
        "--minutes",
        "0.01",
        "--device",
        "cpu",
    ]

    assert run(dreamdiff_app, "dreamdiff", line) == 0

    out = capsys.readouterr()
    assert "whitening-20-unlabelled" in out.out and "orthogonal-recovery-transductive" in out.out
    assert "not computed: labels-0.01-minutes" in out.err
