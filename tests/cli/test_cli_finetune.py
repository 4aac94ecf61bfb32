"""`dreamdiff train finetune` as a person types it."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_models import tiny_clip, tiny_stable_diffusion
from tiny_pairs import CHANNELS, SAMPLES, tiny_pairs

from cli.main import dreamdiff_app, run
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    tiny_stable_diffusion(folder / "sd")
    tiny_clip(folder / "clip")
    tiny_pairs(folder / "pairs.zarr")
    torch.manual_seed(0)
    EEGEncoder(EncoderConfig(channels=CHANNELS, window=SAMPLES, width=16, depth=1, heads=2)).save_pretrained(folder / "encoder")
    return [
        "train", "finetune", "--pairs", str(folder / "pairs.zarr"), "--encoder", str(folder / "encoder"), "--sd", str(folder / "sd"),
        "--clip", str(folder / "clip"), "--preset", "tiny", "--set", "preview_trials=0", "--set", "loop.epochs=1", "--offline",
    ]  # fmt: skip


def call(capsys, arguments):
    code = run(dreamdiff_app, "dreamdiff", arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_run_prints_what_trains_and_the_checksums_and_leaves_a_pipeline(arguments, tmp_path, capsys):
    """The table on stdout, SHA-256 of the weights and the preprocessing of CLIP among the messages."""
    code, out, err = call(capsys, [*arguments, "--out", str(tmp_path / "run")])

    assert code == 0
    assert "EEG encoder" in out
    assert "U-Net, rest\t" in out
    assert "SHA-256" in err
    assert "CLIP preprocessing (stated with the weights)" in err
    assert (tmp_path / "run" / "pipeline" / "model_index.json").is_file()


def test_a_dry_run_trains_nothing(arguments, tmp_path, capsys):
    """Everything is loaded and checked; no run is started."""
    code, out, _ = call(capsys, [*arguments, "--out", str(tmp_path / "run"), "--dry-run", "--json"])

    content = json.loads(out)
    assert code == 0
    assert content["result"] is None
    assert {row["part"] for row in content["trained"]} >= {"EEG encoder", "tau", "CLIP head h", "U-Net, cross-attention"}
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_mistake_is_one_line_and_a_fix(arguments, tmp_path, capsys):
    """Exit 1, no traceback; exit 2 for a wrong setting."""
    wrong = [text if text != arguments[arguments.index("--sd") + 1] else str(tmp_path / "nothing") for text in arguments]
    code, _, err = call(capsys, [*wrong, "--out", str(tmp_path / "run")])
    assert code == 1
    assert "error: " in err
    assert "\n  fix: " in err
    assert "Traceback" not in err

    code, _, err = call(capsys, [*arguments, "--out", str(tmp_path / "run"), "--set", "trains=atention"])
    assert code == 2
    assert "trains" in err
