"""`dreamdiff generate` as a person types it."""

from __future__ import annotations

import json

import pytest
from generation.test_generate import make_model
from tiny_models import tiny_stable_diffusion
from tiny_pairs import tiny_pairs

from cli.main import dreamdiff_app, run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, pairs, and the images of one call; (folder, exit code)."""
    folder = tmp_path_factory.mktemp("parts")
    tiny_stable_diffusion(folder / "sd")
    tiny_pairs(folder / "pairs.zarr", per_class=6)
    make_model(folder / "model", folder / "sd")
    code = run(dreamdiff_app, "dreamdiff", [
        "generate", "--model", str(folder / "model"), "--eeg", str(folder / "pairs.zarr"), "--out", str(folder / "out"),
        "--select", "test", "--samples", "2", "--steps", "2", "--seed", "5", "--scheduler", "pndm", "--batch-size", "4",
    ])  # fmt: skip
    return folder, code


def test_options_reach_the_sidecar(made):
    """What was typed is what is written beside each image."""
    folder, code = made
    sidecar = json.loads(sorted((folder / "out").glob("trial-*.json"))[0].read_text())

    assert code == 0
    assert (sidecar["seed"], sidecar["config"]["steps"], sidecar["config"]["scheduler"]) == (5, 2, "pndm")
    assert (folder / "out" / "contact-sheet.png").is_file()


def test_replay_says_that_the_image_is_the_same(made, capsys):
    """Exit 0 and a sentence."""
    sidecar = sorted((made[0] / "out").glob("trial-*.json"))[0]

    code = run(dreamdiff_app, "dreamdiff", ["generate", "--replay", str(sidecar)])

    assert code == 0
    assert "the same image, pixel for pixel" in capsys.readouterr().err
    assert sidecar.with_suffix(".replay.png").is_file()


def test_without_a_model_the_usage_is_wrong(capsys):
    """Exit 2, and what is needed."""
    code = run(dreamdiff_app, "dreamdiff", ["generate"])

    assert code == 2
    assert "--model, --eeg and --out are needed" in capsys.readouterr().err


def test_trials_that_are_not_numbers_are_wrong_usage(made, capsys):
    """--trials one."""
    arguments = ["generate", "--model", str(made[0] / "model"), "--eeg", str(made[0] / "pairs.zarr"), "--out", "x"]

    assert run(dreamdiff_app, "dreamdiff", [*arguments, "--trials", "one"]) == 2
    assert "not a list of numbers" in capsys.readouterr().err
