"""Pre-training on a corpus: what is held out, what is scaled, what comes out, and continuation after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from several_processes import exit_code

import eegprep
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, Augmentation, PretrainConfig, PretrainData
from dreamdiff.pretraining.pretrain import Pretraining, augment, has_learned, pretrain, recording_scales, split_corpus
from dreamdiff.pretraining.reconstruction import Score, hidden_error, hidden_samples, interpolation, visible_mean
from dreamdiff.spectra import band_pass
from dreamdiff.training.history import read_history
from dreamdiff.training.task import Draw
from eegprep import settings
from eegprep.errors import CheckpointError, DataError, ModelError

CHANNELS, SAMPLES, RATE = 4, 64, 64.0

CONFIG = {
    "model": {
        "encoder": {"channels": CHANNELS, "window": SAMPLES, "width": 16, "depth": 1, "heads": 2},
        "decoder": {"width": 8, "depth": 1, "heads": 2},
    },
    "data": {"batch_size": 4},
    "optim": {"lr": 1e-2, "warmup_epochs": 1},
    "loop": {"epochs": 3, "tracker": "none", "device": "cpu", "checkpoint_steps": 2},
}


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in the same order in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def corpus_of(folder, people: int = 3, runs: int = 2):
    """Sines of each person's own amplitude: 1, 10, 100 uV."""
    rng = np.random.default_rng(0)
    time_T = np.arange(SAMPLES) / RATE
    entries = []
    for person in range(people):
        for run in range(runs):
            phase_NC = rng.uniform(0, 2 * np.pi, (6, CHANNELS))
            windows = 10.0**person * np.sin(2 * np.pi * 6 * time_T + phase_NC[:, :, None])
            names = {"subject": f"{person}-{run}", "person": f"p{person}", "run": str(run)}
            entries.append({"windows": windows.astype(np.float32), **names})
    return eegprep.from_arrays(folder, entries, sfreq=RATE, pad_to=CHANNELS, channels=["Fz", "Cz", "Pz", "Oz"])


def config_of(**changes) -> PretrainConfig:
    merged = {name: {**CONFIG[name], **changes.get(name, {})} for name in CONFIG} | {
        name: value for name, value in changes.items() if name not in CONFIG
    }
    return settings.validated(PretrainConfig, merged)


def test_a_run_ends_with_a_model_pictures_and_scores_on_people_it_never_saw(tmp_path) -> None:
    """Everything a person needs to judge it is in the run folder."""
    corpus_of(tmp_path / "c.zarr")

    result = pretrain(tmp_path / "c.zarr", tmp_path / "run", config_of())

    assert (
        result.finished and {"loss", "loss_visible_mean", "loss_interpolation", "correlation_theta"} <= result.validation.keys()
    )
    model = MaskedSignalModel.from_pretrained(tmp_path / "run")
    assert model.config.encoder.scaling == "robust"
    assert EEGEncoder.from_pretrained(tmp_path / "run")(torch.zeros(1, CHANNELS, SAMPLES)).shape == (1, SAMPLES // 4, 16)
    for picture in ("loss.png", "reconstruction.png", "correlation.png"):
        assert (tmp_path / "run" / picture).read_bytes()[:4] == b"\x89PNG"
    validation = json.loads((tmp_path / "run/validation.json").read_text())
    assert validation["split"]["held_out"] == "person" and len(validation["split"]["names"]) == 1
    assert validation["channels"]["all"].keys() == {"Fz", "Cz", "Pz", "Oz"}
    assert EEGEncoder.from_pretrained(tmp_path / "run/checkpoints/step-00000018").config == model.config.encoder


def pretrain_and_die(corpus: Path, folder: Path) -> None:
    """Kills its own process in step 8."""
    torch.set_num_threads(1)
    step, calls = Pretraining.step, []

    def dying(self, batch, draw):
        calls.append(0)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, draw)

    Pretraining.step = dying
    pretrain(corpus, folder, config_of())


def test_killed_pre_training_goes_on_bit_for_bit(tmp_path) -> None:
    """kill -9 of the process that streams from a corpus, and the same call again."""
    corpus_of(tmp_path / "c.zarr")
    assert exit_code(pretrain_and_die, corpus=tmp_path / "c.zarr", folder=tmp_path / "killed") == -signal.SIGKILL

    resumed = pretrain(tmp_path / "c.zarr", tmp_path / "killed", config_of())
    pretrain(tmp_path / "c.zarr", tmp_path / "whole", config_of())

    assert resumed.resumed_from == 6
    losses = [[line["loss"] for line in read_history(tmp_path / run) if "loss" in line] for run in ("killed", "whole")]
    assert losses[0] == losses[1]
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("killed", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled_training_gives_the_same_losses(tmp_path) -> None:
    """`loop.compile` changes the speed and the last digits."""
    corpus_of(tmp_path / "c.zarr")
    for name, on in (("plain", False), ("compiled", True)):
        pretrain(tmp_path / "c.zarr", tmp_path / name, config_of(loop={"compile": on, "max_steps": 6}))
    plain, compiled = ([line["loss"] for line in read_history(tmp_path / run) if "loss" in line] for run in ("plain", "compiled"))
    assert compiled == pytest.approx(plain, rel=1e-4)
    MaskedSignalModel.from_pretrained(tmp_path / "compiled")


def test_another_corpus_or_architecture_is_refused_with_the_difference(tmp_path) -> None:
    """A run belongs to its windows."""
    corpus_of(tmp_path / "c.zarr")
    corpus_of(tmp_path / "d.zarr", people=2)
    pretrain(tmp_path / "c.zarr", tmp_path / "run", config_of(loop={"max_steps": 1}))

    with pytest.raises(CheckpointError, match=r"store.content: .*store.windows: 36 there, 24 here"):
        pretrain(tmp_path / "d.zarr", tmp_path / "run", config_of(loop={"max_steps": 1}))
    with pytest.raises(CheckpointError, match=r"model.mask_ratio: 0.75 there, 0.5 here"):
        changed = config_of(loop={"max_steps": 1}, model={"mask_ratio": 0.5})
        pretrain(tmp_path / "c.zarr", tmp_path / "run", changed)
    with pytest.raises(ModelError, match=r"\(4, 64\), the model takes \(128, 512\)"):
        pretrain(tmp_path / "c.zarr", tmp_path / "other", PretrainConfig())


def test_held_out_people_and_recordings_share_nothing_with_training(tmp_path) -> None:
    """By person when there are several, else by recording, else nothing."""
    corpus = corpus_of(tmp_path / "c.zarr")
    person_N = np.repeat(["p0", "p1", "p2"], 12)
    train, held, split = split_corpus(corpus, PretrainData())
    assert split["held_out"] == "person" and set(person_N[held]) == set(split["names"])
    assert not set(person_N[train]) & set(person_N[held])

    train, held, split = split_corpus(corpus, PretrainData(validation="recording"))
    assert split["held_out"] == "recording" and len(held) == 6 and len(train) == 30
    assert len(set(held // 6)) == 1  # six windows a recording: all of one, none of another

    alone = corpus_of(tmp_path / "one.zarr", people=1, runs=1)
    assert split_corpus(alone, PretrainData())[2] == {"held_out": "nothing"}
    with pytest.raises(DataError, match="one person cannot be split"):
        split_corpus(alone, PretrainData(validation="person"))


def test_the_scale_of_a_recording_is_its_own_robust_standard_deviation(tmp_path) -> None:
    """A sine of amplitude a has median |x| = a / sqrt(2), and 1.4826 of that is the scale."""
    corpus = corpus_of(tmp_path / "c.zarr")

    scale_N = recording_scales(corpus).numpy()

    np.testing.assert_allclose(scale_N[::12], 1.4826 / np.sqrt(2) * np.array([1, 10, 100]), rtol=0.05)
    assert len(set(scale_N[:6])) == 1


def test_augmentation_is_off_by_default_and_does_what_it_says_when_on() -> None:
    """Shift keeps the samples, reverse turns time round, gain scales whole windows."""
    eeg_BCT = torch.arange(2 * 3 * 8.0).reshape(2, 3, 8)
    draw = Draw(0, 0, torch.arange(2))
    assert augment(eeg_BCT, Augmentation(), draw) is eeg_BCT
    torch.testing.assert_close(augment(eeg_BCT, Augmentation(reverse=1.0), draw), eeg_BCT.flip(-1))
    shifted = augment(eeg_BCT, Augmentation(shift=7), draw)
    torch.testing.assert_close(shifted.sort(-1).values, eeg_BCT.sort(-1).values)
    ratio = (augment(eeg_BCT, Augmentation(gain=0.3), draw) / eeg_BCT)[:, :, 1:]
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))
    assert ratio[0, 0, 0] != ratio[1, 0, 0]


def test_presets_are_valid_and_differ_as_their_sources_do() -> None:
    """The paper hides 75 %; the authors' code 10 %, and divides by 10."""
    configs = {name: settings.resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset=name) for name in PRETRAIN_PRESETS}
    paper, released = configs["paper"], configs["released"]
    assert (paper.model.mask_ratio, paper.model.encoder.mlp_ratio, paper.loop.epochs, paper.data.batch_size) == (
        0.75,
        4.0,
        500,
        100,
    )
    assert (released.model.mask_ratio, released.model.encoder.scaling) == (0.1, "divide-by-10")
    assert (paper.optim.lr, paper.optim.betas, paper.optim.clip, paper.optim.weight_decay) == (2.5e-4, (0.9, 0.95), 0.8, 0.05)


@pytest.mark.parametrize(("loss", "learned"), [(0.95, True), (1.235, False), (1.9, False)])
def test_a_loss_at_the_level_of_a_guess_is_nothing_learned(loss: float, learned: bool) -> None:
    """Collapsed training ends within thousandths of the mean's loss; interpolation can be worse or better than the mean."""
    assert has_learned({"loss": loss, "loss_visible_mean": 1.236, "loss_interpolation": 1.886}) is learned
    assert has_learned({"loss": loss, "loss_visible_mean": 1.886, "loss_interpolation": 1.236}) is learned
    assert has_learned({})


def test_the_simple_guesses_are_what_their_names_say() -> None:
    """By hand: samples 0, 3 visible of 0..4 with the signal 0, ?, ?, 6, ?."""
    target = np.array([[[0.0, 9.0, 9.0, 6.0, 9.0]]])
    hidden = np.array([[False, True, True, False, True]])

    assert visible_mean(target, hidden)[0, 0].tolist() == [3.0] * 5
    assert interpolation(target, hidden)[0, 0].tolist() == [0, 2, 4, 6, 6]
    assert hidden_error(interpolation(target, hidden), target, hidden) == pytest.approx((49 + 25 + 9) / 3)
    assert hidden_samples(np.array([[1, 0]]), 6).tolist() == [[True] * 3 + [False] * 3]
    assert interpolation(target, np.ones_like(hidden))[0, 0].tolist() == [0] * 5


def test_bands_separate_rhythms_and_a_perfect_prediction_correlates_fully() -> None:
    """6 Hz is theta, 20 Hz beta."""
    time_T = np.arange(512) / 256
    theta, beta = np.sin(2 * np.pi * 6 * time_T), np.sin(2 * np.pi * 20 * time_T)
    target = (theta + beta)[None, None].repeat(2, axis=1)
    rate = np.array([256.0])
    np.testing.assert_allclose(band_pass(target, rate, 5, 8)[0, 0], theta, atol=1e-9)

    score = Score()
    mask = np.repeat([1.0, 0.0], 64)[None]  # the first second is hidden
    score.add(np.stack([theta + beta, theta])[None], target, mask, rate)

    result = score.correlations()
    np.testing.assert_allclose(result["all"], [1.0, np.sqrt(0.5)], atol=0.02)
    assert result["theta"][1] > 0.9 and result["beta"][0] == pytest.approx(1.0)
    assert result["beta"][1] < result["beta"][0] - 0.1
    assert score.summary()["loss"] == pytest.approx(0.25, abs=0.02)
