"""The estimate that is printed before a run starts."""

from __future__ import annotations

import pytest

from dreamdiff.encoders.config import masked_signal_preset
from dreamdiff.encoders.encoder import parameter_count
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.pretraining.memory import pretrain_memory
from dreamdiff.pretraining.size import duration, has_gpu, parameters, run_size
from eegprep.settings import resolve


@pytest.mark.parametrize("preset", ["tiny", "small", "shallow2"])
def test_parameters_are_those_of_the_model(preset):
    """A closed form that is off by one norm would be off for every size."""
    config = masked_signal_preset(preset)

    assert parameters(config) == parameter_count(MaskedSignalModel(config))


def test_memory_of_the_paper_size_is_near_what_was_measured():
    """7.8 GB at batch 32 in float32 (docs/measurements.md)."""
    config = resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset="paper", assignments=["data.batch_size=32"])

    assert run_size(config, 120_000).memory == pytest.approx(7.8e9, rel=0.25)


@pytest.mark.parametrize("preset", ["released", "paper"])
@pytest.mark.parametrize("gpu", [False, True])
def test_memory_is_near_what_the_dry_run_counts(monkeypatch, preset, gpu):
    """The first line of a training and the line of `--dry-run` must not tell a person two things."""
    monkeypatch.setattr("dreamdiff.pretraining.size.has_gpu", lambda: gpu)
    config = resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset=preset, assignments=["data.batch_size=50"])

    counted = pretrain_memory(config, "bf16" if gpu else "fp32")

    assert run_size(config, 120_000).memory == pytest.approx(counted.total, rel=0.15)


def test_minutes_are_told_from_years(monkeypatch):
    """Nobody should wait a day to find out that it would take years."""
    monkeypatch.setattr("dreamdiff.pretraining.size.has_gpu", lambda: False)
    tiny, paper = (resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset=name) for name in ("tiny", "paper"))

    assert 10 < run_size(tiny, 148).seconds < 600
    assert "year" in run_size(paper, 120_000).line()
    assert run_size(paper, 120_000).steps == 600_000
    assert "M parameters" in run_size(paper, 148).line()


def test_hidden_devices_are_no_gpu():
    """CUDA_VISIBLE_DEVICES="" is how people ask for the CPU."""
    assert not has_gpu({"CUDA_VISIBLE_DEVICES": ""})
    assert not has_gpu({"CUDA_VISIBLE_DEVICES": "-1"})


@pytest.mark.parametrize(("seconds", "text"), [(20, "half a minute"), (100, "2 minutes"), (7300, "2 hours"), (4e5, "5 days")])
def test_durations_have_one_unit(seconds, text):
    """Two significant units would claim a precision that the estimate has not."""
    assert duration(seconds) == text
