"""A dry run is dry, and says what the run would cost."""

from __future__ import annotations

import json

import pytest
from tiny_models import tiny_stable_diffusion
from tiny_pairs import CHANNELS, SAMPLES, tiny_pairs

from cli.main import dreamdiff_app, run
from dreamdiff.encoders.encoder import EEGEncoder, EncoderConfig


@pytest.fixture
def parts(tmp_path):
    tiny_stable_diffusion(tmp_path / "sd")
    tiny_pairs(tmp_path / "pairs.zarr", per_class=6)
    EEGEncoder(EncoderConfig(channels=CHANNELS, window=SAMPLES, width=16, depth=1, heads=2)).save_pretrained(tmp_path / "encoder")
    return tmp_path


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def arguments(parts, *more):
    sets = ["--set", "losses.w_clip=0", "--set", "loop.max_steps=3"]
    names = ["--pairs", parts / "pairs.zarr", "--encoder", parts / "encoder", "--sd", parts / "sd", "--out", parts / "run"]
    return [str(item) for item in ["train", "finetune", *names, "--preset", "tiny", *sets, *more]]


def test_a_dry_run_writes_nothing_and_counts_images(parts, capsys):
    """Images, bytes, memory and minutes, before anything is encoded."""
    before = listing(parts)

    code = run(dreamdiff_app, "dreamdiff", arguments(parts, "--dry-run", "--json"))

    plan = json.loads(capsys.readouterr().out)["plan"]
    assert code == 0
    assert listing(parts) == before
    assert plan["images"] > 0
    assert plan["cached"] == 0
    assert plan["steps"] == 3
    assert all(plan[name] > 0 for name in ("cache_bytes", "run_bytes", "memory_bytes", "encode_minutes", "train_minutes"))


def test_what_is_cached_is_not_counted_again(parts, capsys):
    """After a run nothing is left to encode."""
    assert run(dreamdiff_app, "dreamdiff", arguments(parts)) == 0
    capsys.readouterr()

    assert run(dreamdiff_app, "dreamdiff", arguments(parts, "--dry-run", "--json")) == 0

    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["images"] == 0
    assert plan["cached"] > 0
    assert plan["cache_bytes"] == 0
