"""A study with raters: what goes out holds no answers, and what comes back is measured with an interval."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from tiny_evaluation import tiny_pairs

from cli.main import dreamdiff_app, run
from dreamdiff.pairs.reader import Pairs
from dreamdiff.study.answers import read_study, write_study
from eegprep.errors import DataError, UsageError

CHOICES = 4


@pytest.fixture
def study(tmp_path):
    """Reconstructions that are the shown pictures, and the study of them."""
    store = Pairs.open(tiny_pairs())
    test = store.split()["test"]
    made = tmp_path / "made"
    made.mkdir()
    for position, picture in zip(test, store.images(test, size=32), strict=True):
        Image.fromarray(picture).save(made / f"trial-{int(store.indices[position]):06d}_seed-0.png")
    counts = write_study(made, store.path, tmp_path / "study", choices=CHOICES)
    assert counts == {"question": len(test), "attention": 2, "swap": 2}
    return tmp_path / "study"


def key(study):
    return json.loads((study / "key.json").read_text())


def answers(study, rater, choose, name="answers.csv"):
    content = key(study)
    rows = [f"{content['study']},{rater},{row['question']},{choose(row)},1,2.5" for row in content["questions"]]
    (study / name).write_text("study,rater,question,choice,place,seconds\n" + "\n".join(rows) + "\n")
    return study / name


def test_the_page_holds_no_answers_and_needs_no_network(study):
    """Identifiers and pictures alone; where the right one stands differs from question to question."""
    page = (study / "study.html").read_text()
    content = json.loads(re.search(r'id="questions">(.*?)</script>', page, re.DOTALL)[1].replace("<\\/", "</"))

    assert {name for one in content["questions"] for name in one} == {"name", "target", "pictures"}
    assert "attention" not in page and "right" not in page.replace("border-right", "")
    assert not re.search(r"https?://", page) and "simulated" in page
    right = [row["right"] for row in key(study)["questions"]]
    assert set(right) <= set(range(1, CHOICES + 1)) and len(set(right)) > 1
    assert all(len(one["pictures"]) == CHOICES for one in content["questions"])


def test_raters_who_see_are_right_and_raters_who_guess_are_at_chance(study, tmp_path):
    """Swapped reconstructions are at chance for those who see; who misses the attention questions does not count."""
    rng = np.random.default_rng(0)
    seeing = [
        answers(
            study, f"see{k}", lambda row: row["right"] if row["kind"] != "swap" else rng.integers(1, CHOICES + 1), f"see{k}.csv"
        )
        for k in range(6)
    ]
    guessing = answers(
        study,
        "guess",
        lambda row: row["right"] % CHOICES + 1 if row["kind"] == "attention" else rng.integers(1, CHOICES + 1),
        "guess.csv",
    )

    found = read_study(study, [*seeing, guessing], tmp_path / "out")

    question, swap = found.measurements
    assert question.value == 1 and question.above_floor and question.floor == 1 / CHOICES
    assert swap.low <= 1 / CHOICES <= swap.high
    assert list(found.excluded) == ["guess"] and "attention" in found.excluded["guess"]
    assert f"k={CHOICES}" in question.name and "raters=6" in question.name
    assert "guess" in (tmp_path / "out/report.html").read_text()


def test_answers_that_do_not_fit_are_refused(study, tmp_path):
    """Another study's, a question twice, a choice that was not offered, a question that was not asked."""
    good = answers(study, "anna", lambda row: row["right"])
    with pytest.raises(DataError, match="anna answered q001 twice"):
        read_study(study, [good, good], tmp_path / "out")
    for before, after, message in (
        (key(study)["study"], "0123456789ab", "answers of study '0123456789ab'"), ("q001", "q999", "no question 'q999'"),
        (r"(q002),\d", r"\1,9", r"choice '9' of q002 is outside 1\.\.4"),
    ):  # fmt: skip
        bad = study / "bad.csv"
        bad.write_text(re.sub(before, after, good.read_text()))
        with pytest.raises(DataError, match=message):
            read_study(study, [bad], tmp_path / "out")
    with pytest.raises(DataError, match=r"holds no key\.json"):
        read_study(tmp_path, [good], tmp_path / "out")


def test_both_ways_by_command_line(study, tmp_path, capsys):
    """The page is written again to the byte, and the answers become a table."""
    made = study.parent / "made"
    line = [
        "evaluate",
        "--reconstructions",
        str(made),
        "--pairs",
        str(tiny_pairs()),
        "--study-out",
        str(tmp_path / "again"),
        "--study-choices",
        str(CHOICES),
    ]
    assert run(dreamdiff_app, "dreamdiff", line) == 0
    assert (tmp_path / "again/study.html").read_bytes() == (study / "study.html").read_bytes()
    good = answers(study, "anna", lambda row: row["right"])
    assert (
        run(
            dreamdiff_app,
            "dreamdiff",
            ["evaluate", "--study-out", str(study), "--study-answers", str(good), "--out", str(tmp_path / "o"), "--json"],
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("{") :])["measurements"][0]["value"] == 1
    with pytest.raises(UsageError, match="99 choices do not fit"):
        write_study(made, tiny_pairs(), tmp_path / "x", choices=99)
