"""`dreamdiff train msm`, `convert` and `probe` from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from timm_mae import TimmMAE
from typer.testing import CliRunner

import eegprep
from cli._app import dreamdiff_app
from cli.main import run
from dreamdiff.encoders.mae import MaskedSignalModel

RATE, CHANNELS, SAMPLES = 64.0, 4, 64
SETTINGS = [
    "model.encoder.channels=4", "model.encoder.window=64", "model.encoder.width=16", "model.encoder.heads=2", "data.batch_size=8",
    "loop.max_steps=3", "loop.tracker=none", "loop.device=cpu", "data.validation_windows=4",
]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """Two people, labelled windows."""
    rng = np.random.default_rng(0)
    entries = [
        {"windows": rng.standard_normal((12, CHANNELS, SAMPLES)).astype(np.float32), "labels": ["rest", "left"] * 6}
        for _ in range(3)
    ]
    eegprep.from_arrays(tmp_path / "c.zarr", entries, sfreq=RATE, pad_to=CHANNELS)
    return tmp_path / "c.zarr"


def call(*arguments: str):
    return CliRunner().invoke(dreamdiff_app, [str(a) for a in arguments])


def train(store, out, *extra: str):
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    return call("train", "msm", "--store", store, "--out", out, "--preset", "tiny", *options, *extra)


def test_training_says_where_it_ended_and_the_same_command_again_is_harmless(store, tmp_path) -> None:
    """Then `probe` reads the run."""
    first = train(store, tmp_path / "run")
    again = train(store, tmp_path / "run")

    assert first.exit_code == 0, first.output
    assert "done at step 3 of 3" in first.stdout and "loss_visible_mean=" in first.stdout
    assert again.stdout == first.stdout
    assert "knows no EEG yet\nfix: train longer" in first.stderr  # three steps on white noise
    probed = call("probe", "--model", tmp_path / "run", "--store", store, "--json")
    assert probed.exit_code == 0, probed.output
    report = json.loads(probed.stdout)
    assert report["labels"] == ["left", "rest"] and len(report["rows"]) == 6
    table = call("probe", "--model", tmp_path / "run", "--store", store, "--hold-out", "recording")
    assert "band power" in table.stdout and "chance 0.500" in table.stderr


def test_an_option_of_train_leads_to_its_command(capsys) -> None:
    """`dreamdiff train --store corpus.zarr` is how the first sentence about the project is read."""
    code = run(dreamdiff_app, "dreamdiff", ["train", "--store", "c.zarr", "--out", "my run"])

    said = capsys.readouterr().err
    assert code == 2 and "was not told what to train (msm, align, finetune)" in said
    assert "fix: dreamdiff train msm --store c.zarr --out 'my run', then dreamdiff train finetune --pairs" in said
    assert run(dreamdiff_app, "dreamdiff", ["train", "--pairs", "p.zarr"]) == 2
    assert "fix: dreamdiff train finetune --pairs p.zarr" in capsys.readouterr().err


def test_a_corpus_of_several_rates_is_said_kept_and_refused_when_strict(store, tmp_path) -> None:
    """The paper's corpus has many rates; the model keeps them, and its own is that of most windows."""
    rng = np.random.default_rng(1)
    more = [{"windows": rng.standard_normal((4, CHANNELS, SAMPLES)).astype(np.float32), "subject": "z"}]
    eegprep.from_arrays(tmp_path / "d.zarr", more, sfreq=2 * RATE, pad_to=CHANNELS, dataset="other")
    eegprep.merge([store, tmp_path / "d.zarr"], tmp_path / "both.zarr")
    recordings = ("--set", "data.validation=none")

    said = train(tmp_path / "both.zarr", tmp_path / "two", *recordings)
    refused = CliRunner().invoke(
        dreamdiff_app,
        [
            "train",
            "msm",
            "--store",
            str(tmp_path / "both.zarr"),
            "--out",
            str(tmp_path / "no"),
            "--preset",
            "tiny",
            "--strict-rate",
            *recordings,
            *[part for setting in SETTINGS for part in ("--set", setting)],
        ],
    )

    assert said.exit_code == 0, said.output
    assert "2 sampling rates: 64 Hz (36 windows), 128 Hz (4 windows)" in said.stderr and "own rate is 64 Hz" in said.stderr
    signal = json.loads((tmp_path / "two" / "config.json").read_text())["signal"]
    assert signal["sfreq"] == RATE and [(share["sfreq"], share["windows"]) for share in signal["rates"]] == [
        (64.0, 36),
        (128.0, 4),
    ]
    assert signal["window_ms"] == 1000.0
    assert refused.exception is not None and "--strict-rate" in str(refused.exception)


def test_a_mistyped_setting_costs_one_line_and_exit_code_2(store, tmp_path, capsys) -> None:
    """Before anything is written."""
    arguments = [
        "train",
        "msm",
        "--store",
        str(store),
        "--out",
        str(tmp_path / "run"),
        "--preset",
        "tiny",
        "--set",
        "optim.ler=1",
    ]

    code = run(dreamdiff_app, "dreamdiff", arguments)

    assert code == 2
    assert "did you mean 'optim.lr'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_settings_file_lies_between_preset_and_set(store, tmp_path) -> None:
    """defaults < --preset < --config < --set."""
    (tmp_path / "s.toml").write_text("[loop]\nmax_steps = 1\nseed = 5\n[optim]\nlr = 0.5\n")

    assert train(store, tmp_path / "run", "--config", str(tmp_path / "s.toml")).exit_code == 0

    written = json.loads((tmp_path / "run/run.json").read_text())
    assert (written["loop"]["max_steps"], written["loop"]["seed"], written["optim"]["lr"]) == (3, 5, 0.5)
    assert written["data"]["batch_size"] == 8


def test_convert_reads_the_authors_layout_and_writes_it(tmp_path) -> None:
    """There and back through the command."""
    theirs = TimmMAE(heads=16, decoder=(32, 1, 16))
    torch.save({"model": theirs.state_dict(), "epoch": 7}, tmp_path / "checkpoint.pth")

    there = call("convert", tmp_path / "checkpoint.pth", "--out", tmp_path / "ours", "--scaling", "none", "--json")
    back = call("convert", tmp_path / "ours", "--out", tmp_path / "back.pth")

    assert there.exit_code == 0, there.output
    found = json.loads(there.stdout)
    assert (found["kind"], found["unexpected"], found["input scaling"], found["epoch"]) == ("pre-training", [], "none", 7)
    assert MaskedSignalModel.from_pretrained(tmp_path / "ours").config.encoder.width == 64
    assert back.exit_code == 0, back.output
    assert torch.load(tmp_path / "back.pth", weights_only=False)["model"].keys() == theirs.state_dict().keys()
