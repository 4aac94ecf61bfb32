"""The demo at the smallest size: the result first, simulated said to be simulated, every row of the certificate, and taken up where it stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dreamdiff.certificates.check import check_report
from dreamdiff.pairs.reader import Pairs
from dreamdiff.programs.demo import run
from dreamdiff.programs.demo_config import MARKER, DemoConfig, Folders
from dreamdiff.programs.demo_pictures import SAYS, by_category
from eegprep.errors import DataError, StoreError

SMALL = DemoConfig(
    people=1, trials=6, test_share=0.4, pretrain=("loop.max_steps=2", "loop.tracker=none"), align=("loop.max_steps=2",),
    finetune=("loop.max_steps=2", "loop.tracker=none", "validation.preview_trials=0"), shown=4, judged=6, controlled=5, steps=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    lines: list[str] = []
    result = run(out, SMALL, tell=lines.append)
    return out, result, lines


@pytest.mark.slow
def test_the_page_opens_with_the_result_and_says_simulated(demo):
    """The page is what a person sees of the whole project first."""
    out, result, _ = demo
    page = (out / "index.html").read_text()

    assert result.page == out / "index.html"
    assert page.index("chance 2.5 %") < page.index("<h2>")
    for number in range(1, 8):
        assert f"<h2>{number}. " in page
    assert page.lower().count("simulated") >= 5
    assert page.count('<div class="set">') >= 2 * SMALL.shown
    assert 'src="http' not in page  # nothing is loaded from elsewhere


@pytest.mark.slow
def test_every_number_of_the_page_has_a_certificate_that_can_be_checked(demo):
    """A number without its controls is what this project is against: pictures, retrieval and the paper's route each have a report."""
    out, _, _ = demo
    folders = Folders(out)
    page = (out / "index.html").read_text()
    assert all(says.split(",")[0] in page for says in SAYS.values() if "'" not in says)
    for folder in (folders.pictures, folders.retrieval, folders.paper):
        assert folder.name in page
        checked = check_report(folder)
        assert checked.hashes == ("model", "pairs", "images") and checked.accuracies > 10
    report = json.loads((folders.pictures / "report.json").read_text())
    stated = {m["name"]: m for m in report["measurements"]}
    row = report["certificate"]["rows"][0]
    assert row["accuracy"]["category of the averaged vectors"]["value"] == stated["as it is, vectors"]["value"]
    zeroed = stated["encoder zeroed, pictures"]
    assert f"{100 * zeroed['value']:.0f} % [{100 * zeroed['low']:.0f}, {100 * zeroed['high']:.0f}] of {zeroed['n']}" in page

    report["measurements"][1]["low"] += 0.01
    (folders.pictures / "touched.json").write_text(json.dumps(report))
    with pytest.raises(DataError, match="low is"):
        check_report(folders.pictures / "touched.json")
    (folders.pictures / "touched.json").unlink()


@pytest.mark.slow
def test_each_step_leaves_one_numbered_line(demo):
    _, _, lines = demo
    assert [line.split("]")[0] for line in lines] == [f"[{n}/7" for n in range(1, 8)]
    assert "min left" in lines[0] and "min left" not in lines[-1]


@pytest.mark.slow
def test_a_second_run_repeats_no_training(demo):
    """Run again after a kill, the demo must not train again what is trained."""
    out, _, _ = demo
    folders = Folders(out)
    kept = [folders.pretrained / "history.jsonl", folders.aligned / "history.jsonl", folders.finetuned / "history.jsonl"]
    before = [file.read_bytes() for file in kept]

    run(out, SMALL)

    assert [file.read_bytes() for file in kept] == before


@pytest.mark.slow
def test_pairs_are_short_windows_of_test_drawings_that_training_never_shows(demo):
    out, _, _ = demo
    pairs = Pairs.open(Folders(out).pairs)
    assert pairs.eeg_shape == (128, 128)
    assert not set(pairs.image[pairs.splits["test"]]) & set(pairs.image[pairs.splits["train"]])


def test_the_page_shows_one_drawing_of_every_category_before_any_second_one():
    """Nothing on the page is chosen by how good it looks."""
    rng = np.random.default_rng(0)
    label, person = rng.permutation(np.repeat(np.arange(5), 4)), np.tile([0, 1], 10)
    order = by_category([np.array([row]) for row in rng.permutation(20)], label, person)
    assert sorted(label[[g[0] for g in order[:5]]]) == list(range(5))
    assert sorted(int(g[0]) for g in order) == list(range(20))


def test_pictures_that_belong_together_stay_on_one_line():
    """Four pictures of a trial are one element that does not wrap."""
    from eegprep.inspection.page import STYLE, Page

    page = Page("t")
    picture = np.zeros((4, 4, 3), np.uint8)
    page.sets([[(picture, "shown"), (picture, "made")], [(picture, "a <b>")]])
    html = page.html()
    assert html.count('<div class="set">') == 2
    assert html.index("shown") < html.index("made") < html.rindex('<div class="set">')
    assert ".sets .set { display: flex; flex-wrap: nowrap" in STYLE
    assert "a &lt;b&gt;" in html


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    """The demo must not write between somebody's files."""
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(StoreError, match="is not a demo folder"):
        run(tmp_path, SMALL)

    assert not (tmp_path / MARKER).exists()
