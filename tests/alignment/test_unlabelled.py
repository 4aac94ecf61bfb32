"""Masked pre-training on the trials of pairs, as alignment will read them."""

from __future__ import annotations

import numpy as np
import torch
from tiny_alignment import make_pairs, small_config

import dreamdiff
from dreamdiff.alignment.config import FrontChoice
from dreamdiff.alignment.prepare import align
from dreamdiff.alignment.unlabelled import windows_of_pairs
from dreamdiff.encoders.frontend import trial_covariance
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.pretraining.pretrain import pretrain
from eegprep.corpus.reader import Corpus
from eegprep.settings import resolve


def test_pre_training_reads_whitened_training_trials_and_alignment_starts_from_it(tmp_path):
    pairs, target = make_pairs(tmp_path)
    store = dreamdiff.Pairs.open(pairs)
    config = resolve(
        PretrainConfig, presets=PRETRAIN_PRESETS, preset="trials",
        assignments=["loop.max_steps=4", "optim.warmup_epochs=1", "loop.device=cpu", "data.batch_size=8"],
    )  # fmt: skip

    windows, fitted = windows_of_pairs(pairs, tmp_path / "msm", config, choice=FrontChoice(seconds=0.4))
    result = pretrain(windows, tmp_path / "msm", fitted)

    corpus = Corpus.open(str(windows))
    assert result.finished
    assert len(corpus) == len(store.split()["train"])  # nothing of validation or test
    of_a = [i for i in range(len(corpus)) if corpus.keys[corpus.group_of(np.array([i]))[0]].endswith("/a")]
    covariance = trial_covariance(torch.from_numpy(corpus.read(of_a)))
    assert torch.allclose(covariance.float().diagonal(), torch.ones(6), atol=0.05)
    assert all(label is None for label in corpus.labels)

    align(pairs, tmp_path / "run", small_config("loop.epochs=1"), encoder=f"msm:{tmp_path / 'msm'}", targets=[target])
    assert dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "run").config.encoder["width"] == 64
