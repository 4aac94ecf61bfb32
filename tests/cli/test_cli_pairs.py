"""`dreamdiff pairs ...` as people and scripts run it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from simulation.test_simulate import image_set

from cli import main
from cli._app import dreamdiff_app
from dreamdiff.pairs.reader import Pairs
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.images import ImageSet
from dreamdiff.simulation.simulate import simulate

SIMULATE = ["pairs", "simulate", "--people", "1", "--trials", "5", "--background", "pink"]


def run(*arguments: object) -> int:
    return main.run(dreamdiff_app, "dreamdiff", [str(argument) for argument in arguments])


@pytest.fixture
def few_images(monkeypatch) -> None:
    """Five categories of random pictures instead of the shipped drawings and the CLIP, to be quick."""
    monkeypatch.setattr(ImageSet, "shipped", classmethod(lambda cls, **_: image_set()))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    for order in ("random", "class"):
        config = SimulateConfig(sources="linear", people=2, trials=20, background="pink", block_order=order)
        simulate(folder / order, config, images=image_set())
    return {order: folder / order for order in ("random", "class")}


def test_simulate_writes_a_store_and_says_what_is_in_it(tmp_path: Path, few_images: None, capsys):
    """Every dial arrives."""
    dials = ["--snr", "-3", "--block-order", "class", "--drift", "0.2", "--seed", "7"]
    assert run(*SIMULATE, "--out", tmp_path / "p.zarr", *dials) == 0

    recipe = Pairs.open(tmp_path / "p.zarr").recipe
    wanted = {"snr": -3, "people": 1, "trials": 5, "block_order": "class", "drift": 0.2, "seed": 7, "background": "pink"}
    assert {name: recipe[name] for name in wanted} == wanted
    printed = capsys.readouterr()
    assert "25 simulated trials of 1 person and 5 categories" in printed.err and printed.out == ""


def test_simulate_again_does_nothing_and_other_dials_are_refused(tmp_path: Path, few_images: None, capsys):
    """A finished store is left alone; dials must not mix."""
    assert run(*SIMULATE, "--out", tmp_path / "p.zarr") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "p.zarr").rglob("*")}

    assert run(*SIMULATE, "--out", tmp_path / "p.zarr") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "p.zarr").rglob("*")} == before
    assert run(*SIMULATE, "--out", tmp_path / "p.zarr", "--seed", "1") == 1
    assert "was made with other settings" in capsys.readouterr().err


def test_audit_of_a_clean_split_is_exit_0(stores: dict[str, Path], capsys):
    """Scripts may go on."""
    for split in ("default", "stimulus", "test"):
        assert run("pairs", "audit", stores["random"], "--split", split) == 0
        assert f"split {split}: clean" in capsys.readouterr().out


def test_audit_of_a_leaking_split_is_exit_3_and_says_so_first(stores: dict[str, Path], capsys):
    """Class blocks, and images that training has seen."""
    assert run("pairs", "audit", stores["class"]) == 3
    printed = capsys.readouterr().out
    assert printed.startswith("split default: LEAKS") and "the block alone, without any EEG" in printed
    assert "no split can repair: every class was shown in one block per person" in printed

    assert run("pairs", "audit", stores["random"], "--split", "trial") == 3
    assert "have their image in training" in capsys.readouterr().out


def test_audit_as_json(stores: dict[str, Path], capsys):
    """One document on stdout, with the flags of each test trial on request."""
    assert run("pairs", "audit", stores["class"], "--split", "stimulus", "--json", "--per-trial") == 3
    content = json.loads(capsys.readouterr().out)

    assert content["verdict"] == "leaks" and content["block_design"] == "class blocks"
    assert content["per_trial"]["block"] == [1] * content["n_test"]
    assert {row["factor"] for row in content["shared"]} == {"trial", "block", "session", "person", "stimulus", "concept"}


def test_an_unknown_split_is_wrong_usage(stores: dict[str, Path], capsys):
    """With what there is."""
    assert run("pairs", "audit", stores["random"], "--split", "stimulsu") == 2
    assert "did you mean 'stimulus'" in capsys.readouterr().err


def test_import_of_a_table(tmp_path: Path, capsys):
    """The shortest way from one's own recording to pairs."""
    from pairs.test_pairs_import import write_image, write_recording

    write_recording(tmp_path / "me_raw.fif")
    lines = ["recording,onset,image,label"]
    for trial in range(8):
        write_image(tmp_path / f"{trial}.png", 30 * trial)
        lines.append(f"me_raw.fif,{2 + 3 * trial},{trial}.png,{'ab'[trial % 2]}")
    (tmp_path / "trials.csv").write_text("\n".join(lines))

    assert (
        run("pairs", "import", tmp_path / "trials.csv", "--kind", "table", "--out", tmp_path / "p.zarr", "--licence", "CC0-1.0")
        == 0
    )
    pairs = Pairs.open(tmp_path / "p.zarr")
    assert len(pairs) == 8 and pairs.licence == "CC0-1.0" and pairs.classes == ["a", "b"]
    assert np.isfinite(pairs.eeg()).all()
    assert "next: dreamdiff pairs audit" in capsys.readouterr().err


def test_import_that_fails_is_one_line_with_a_fix(tmp_path: Path, capsys):
    """And no store is left."""
    assert run("pairs", "import", tmp_path, "--kind", "imagenet-eeg", "--out", tmp_path / "p.zarr") == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and "fix:" in printed and "Traceback" not in printed
    assert not (tmp_path / "p.zarr").exists()
    assert run("pairs", "import", tmp_path, "--kind", "imagenet-eeg", "--out", tmp_path / "p.zarr", "--window", "a:b") == 2
