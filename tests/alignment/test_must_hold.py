"""The learned path on the 0.1 kind of simulation: as good as ridge, and pre-training worth something where labels are few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
from dreamdiff.alignment.prepare import align
from dreamdiff.alignment.unlabelled import pretrain_on_pairs
from dreamdiff.certificates.records import Certificate, paired_interval
from dreamdiff.evaluation.retrieve import retrieve
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.protocols.config import RetrieveConfig
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.simulate import simulate
from eegprep.settings import resolve


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> tuple[Path, Path]:
    """Pairs at -6 dB of two people, and the paper's encoder pre-trained on their training trials without labels."""
    folder = tmp_path_factory.mktemp("must-hold")
    pairs = simulate(folder / "pairs.zarr", SimulateConfig(sources="linear", snr=-6, people=2, trials=20))
    pretrain_on_pairs(pairs, folder / "msm")
    return folder / "pairs.zarr", folder / "msm"


def certified(pairs: Path, out: Path, encoder: str, *assignments: str, preset: str = "default") -> Certificate:
    config = resolve(AlignConfig, presets=ALIGN_PRESETS, preset=preset, assignments=["loop.device=cpu", *assignments])
    align(pairs, out, config, encoder=encoder)
    return retrieve(out, pairs, out.with_name(f"{out.name}-report"), RetrieveConfig(repetitions=("1",), device="cpu")).certificate


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conv", "msm"])
def test_single_trials_reach_nine_tenths_of_whitened_ridge(parts, tmp_path, kind):
    pairs, msm = parts

    found = certified(pairs, tmp_path / "run", "conv" if kind == "conv" else f"msm:{msm}")

    learned, ridge, silent = (found.accuracy(name) for name in ("as it is", "ridge, whitened", "encoder zeroed"))
    assert learned.value >= 0.9 * ridge.value
    assert learned.above_floor
    assert silent.low <= silent.floor <= silent.high
    assert found.difference("as it is", "encoder zeroed")[0] > 0


def gain_of_pre_training(pairs: Path, msm: Path, folder: Path) -> tuple[float, float]:
    """95 % interval of pre-trained minus from scratch at two labels a category: two draws of labels, paired over test trials, whole
    pictures resampled."""
    differences, groups = [], []
    for seed in (0, 1):
        few = ("labels=2", f"labels_seed={seed}")
        hits = []
        for encoder in (f"msm:{msm}", "random:tiny"):
            run = folder / f"{encoder[:3]}{seed}"
            found = certified(pairs, run, encoder, *few, preset="few-labels")
            hits.append((found["as it is"].predicted["category"] == found.truth["category"]).astype(float))
        differences.append(hits[0] - hits[1])
        groups.append(found.groups["category"])
    return paired_interval(np.concatenate(differences), np.concatenate(groups, axis=-1), 0)


@pytest.mark.slow
def test_pre_training_helps_where_there_are_two_labels_a_category(parts, tmp_path):
    low, _ = gain_of_pre_training(*parts, tmp_path)
    assert low > 0


@pytest.mark.slow
def test_the_gain_is_gone_when_pre_training_learns_nothing(parts, tmp_path):
    """The mutation of the claim above: the same run, stopped after its first step."""
    pairs, _ = parts
    stopped = resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset="trials", assignments=["loop.max_steps=1"])
    pretrain_on_pairs(pairs, tmp_path / "stopped", stopped)

    low, _ = gain_of_pre_training(pairs, tmp_path / "stopped", tmp_path)

    assert low <= 0
