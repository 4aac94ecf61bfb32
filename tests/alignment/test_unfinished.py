"""Runs of `train align` that have not finished are models as well, whatever part of their encoder is frozen."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_alignment import make_pairs, small_config

import dreamdiff
from dreamdiff.alignment.model import fronted_encoder
from dreamdiff.alignment.prepare import align
from dreamdiff.encoders.encoder import EEGEncoder, EncoderConfig
from dreamdiff.encoders.frozen import FROZEN_FILE
from dreamdiff.pairs.reader import Pairs
from dreamdiff.run_folder import weights_folder
from dreamdiff.untrusted.tensors import save_tensors
from eegprep.errors import CheckpointError

WAYS = {
    "whole": ("msm", "tune=whole"),
    "frozen": ("msm", "tune=frozen"),
    "lora": ("msm", "tune=lora"),
    "random": ("random:tiny", "tune=whole"),
    "random and frozen": ("random:tiny", "tune=frozen"),
    "frozen convolution": ("conv", "tune=frozen"),
}


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unfinished")
    pairs, target = make_pairs(folder, per_class=8)
    torch.manual_seed(0)
    EEGEncoder(EncoderConfig(channels=6, window=64, width=16, depth=1, heads=2)).save_pretrained(folder / "msm")
    return pairs, target, folder / "msm"


def config(*assignments: str):
    return small_config("lora_rank=2", "loop.checkpoint_steps=2", "loop.max_steps=4", *assignments)


def killed_at(parts, run, way: str, step: int = 3) -> None:
    """A run whose process dies after `step` steps: its newest checkpoint is that of step 2."""
    pairs, target, msm = parts
    encoder, tune = WAYS[way]

    def stop(done, total, message):
        if done == step and "loss" in message:
            raise Killed

    with pytest.raises(Killed):
        align(pairs, run, config(tune), encoder=f"msm:{msm}" if encoder == "msm" else encoder, targets=[target], progress=stop)


@pytest.mark.parametrize("way", list(WAYS))
def test_the_newest_checkpoint_is_the_model_that_the_run_would_have_exported(parts, tmp_path, way):
    """The checkpoint of the last step of a finished run gives the numbers of the finished model; one of a killed run gives others."""
    pairs, target, msm = parts
    encoder, tune = WAYS[way]
    killed_at(parts, tmp_path / "run", way)
    eeg = Pairs.open(pairs).eeg([0, 1, 2])
    early = dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "run").encode(eeg)

    align(pairs, tmp_path / "run", config(tune), encoder=f"msm:{msm}" if encoder == "msm" else encoder, targets=[target])
    finished = dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "run")
    last = dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "run" / "checkpoints" / "step-00000004")

    assert last.state_dict().keys() == finished.state_dict().keys()
    assert all(torch.equal(tensor, finished.state_dict()[name]) for name, tensor in last.state_dict().items())
    assert not torch.equal(early, finished.encode(eeg))


def test_checkpoints_do_not_repeat_what_is_frozen(parts, tmp_path):
    killed_at(parts, tmp_path / "run", "frozen")
    folder = tmp_path / "run" / "checkpoints"

    trained, frozen = load_file(folder / "step-00000002" / "model.safetensors"), load_file(folder / FROZEN_FILE)

    assert "encoder.blocks.0.attn.qkv.weight" in frozen and not trained.keys() & frozen.keys()


@pytest.mark.parametrize("way", ["frozen", "lora"])
def test_an_unfinished_run_can_be_the_start_of_another(parts, tmp_path, way):
    pairs, target, _ = parts
    killed_at(parts, tmp_path / "run", way)

    model = dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "run")
    encoder = dreamdiff.EEGEncoder.from_pretrained(tmp_path / "run")
    result = align(pairs, tmp_path / "next", config(), encoder=f"msm:{tmp_path / 'run'}", targets=[target])

    assert all(torch.equal(tensor, model.encoder.state_dict()[name]) for name, tensor in encoder.state_dict().items())
    assert fronted_encoder(tmp_path / "run").tokens == encoder.tokens
    assert result.finished


@pytest.mark.parametrize("damage", ["missing", "other", "flipped"])
def test_frozen_weights_that_are_not_those_of_the_run_are_refused(parts, tmp_path, damage):
    killed_at(parts, tmp_path / "run", "frozen")
    file = tmp_path / "run" / "checkpoints" / FROZEN_FILE
    if damage == "missing":
        file.unlink()
    elif damage == "other":
        save_tensors(file, {name: tensor + 1 for name, tensor in load_file(file).items()})
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    with pytest.raises(CheckpointError, match=FROZEN_FILE):
        dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "run")


def test_a_run_is_not_continued_on_other_frozen_weights(parts, tmp_path):
    pairs, target, msm = parts
    killed_at(parts, tmp_path / "run", "frozen")
    file = tmp_path / "run" / "checkpoints" / FROZEN_FILE
    save_tensors(file, {name: tensor + 1 for name, tensor in load_file(file).items()})

    with pytest.raises(CheckpointError, match="not those that the run began with"):
        align(pairs, tmp_path / "run", config("tune=frozen"), encoder=f"msm:{msm}", targets=[target])


def test_a_checkpoint_of_an_earlier_release_says_how_to_go_on(parts, tmp_path):
    """It holds no frozen weights, and nothing says where they are."""
    killed_at(parts, tmp_path / "run", "whole")
    shutil.copytree(weights_folder(tmp_path / "run"), tmp_path / "old")
    (tmp_path / "old" / "frozen.json").unlink()

    with pytest.raises(CheckpointError, match="cls_token") as caught:
        dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "old")

    assert "until it has finished" in str(caught.value.fix)
