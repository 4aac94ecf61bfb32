"""Alignment, pre-training and fine-tuning by two and four processes over gloo: what one process with the whole batch learns.

Tolerances: losses of every step within 1e-4 of their size; weights within one percent of the distance that training moved them.
Gradients are added up in another order, and AdamW makes much of a gradient that is almost nothing.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from several_processes import in_processes
from tiny_models import tiny_clip, tiny_stable_diffusion
from tiny_pairs import CHANNELS, SAMPLES, tiny_pairs

import eegprep
from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
from dreamdiff.alignment.prepare import align
from dreamdiff.encoders.encoder import EEGEncoder, EncoderConfig
from dreamdiff.finetuning import prepare as finetuning
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pretraining.config import PretrainConfig
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.training.history import read_history
from eegprep import settings
from eegprep.recording import ProgressCallback

WHOLE = 8  # samples of a step, over all processes
ALWAYS = ["loop.device=cpu", "loop.tracker=none", "loop.max_steps=4", "loop.checkpoint_steps=1", "loop.keep_checkpoints=9"]
SIZE = {"channels": CHANNELS, "window": SAMPLES, "width": 16, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """Folder with sd/, clip/, encoder/, pairs.zarr (32 training trials), vectors.npz and corpus.zarr (32 windows)."""
    folder = tmp_path_factory.mktemp("parts")
    tiny_stable_diffusion(folder / "sd")
    tiny_clip(folder / "clip")
    digests = Pairs.open(tiny_pairs(folder / "pairs.zarr")).image_sha256
    vectors = 5 + np.random.default_rng(0).normal(size=(len(digests), 12))
    np.savez(folder / "vectors.npz", sha256=np.array(digests), vectors=vectors.astype(np.float32))
    torch.manual_seed(0)
    EEGEncoder(EncoderConfig(**SIZE)).save_pretrained(folder / "encoder")
    windows = np.random.default_rng(0).normal(0, 10, (32, CHANNELS, SAMPLES)).astype(np.float32)
    names = ["Fz", "Cz", "Pz", "Oz", "C3", "C4"]
    eegprep.from_arrays(folder / "corpus.zarr", windows, sfreq=64.0, licence="CC0-1.0", pad_to=CHANNELS, channels=names)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train_align(parts: Path, out: Path, batch: int, more: list[str], progress: ProgressCallback | None = None) -> None:
    """A transformer and the loss that is a mean over samples: batch norm, dropout and contrastive losses look at a whole batch."""
    own = ["front.seconds=0.4", "dropout=0", f"batch_size={batch}", "loss.contrastive=0"]
    config = settings.resolve(AlignConfig, presets=ALIGN_PRESETS, preset="tiny", assignments=[*own, *ALWAYS, *more])
    target = f"vectors:{parts / 'vectors.npz'}"
    align(parts / "pairs.zarr", out, config, encoder=f"msm:{parts / 'encoder'}", targets=[target], progress=progress)


def train_msm(parts: Path, out: Path, batch: int, more: list[str], progress: ProgressCallback | None = None) -> None:
    own = [f"model.encoder.{name}={value}" for name, value in SIZE.items()]
    own += [
        "model.decoder.width=8",
        "model.decoder.depth=1",
        "model.decoder.heads=2",
        "data.validation=none",
        "optim.warmup_epochs=1",
    ]
    config = settings.resolve(PretrainConfig, assignments=[*own, f"data.batch_size={batch}", *ALWAYS, *more])
    pretrain(parts / "corpus.zarr", out, config, progress=progress)


def train_finetune(parts: Path, out: Path, batch: int, more: list[str], progress: ProgressCallback | None = None) -> None:
    own = ["preview_trials=0", f"data.batch_size={batch}", f"cache={parts / 'cache'}"]
    config = settings.resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset="tiny", assignments=[*own, *ALWAYS, *more])
    sources = {name: str(parts / name) for name in ("encoder", "sd", "clip")}
    finetuning.fit_task(
        finetuning.prepare(parts / "pairs.zarr", **sources, out=out, config=config), progress=progress  # type: ignore[arg-type]
    )  # fmt: skip


TASKS = {"align": train_align, "msm": train_msm, "finetune": train_finetune}


def train(task: str, parts: Path, out: Path, batch: int, more: list[str], stop_at: int | None = None) -> None:
    """One of them. stop_at: the step at which the last process of the group is asked to end."""

    def progress(done: int, total: int, message: str) -> None:
        last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
        if done == stop_at and "loss" in message and last:
            os.kill(os.getpid(), signal.SIGTERM)

    TASKS[task](parts, out, batch, more, progress)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_history(run) if "loss" in line]


def checkpoint(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return sum(float((first[name].double() - second[name].double()).square().sum()) for name in first) ** 0.5


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("task", list(TASKS))
def test_several_processes_learn_what_one_learns(parts, tmp_path, task, count) -> None:
    """Also with AdamW's moments spread over the processes: each of two runs then stores those of all."""
    train(task, parts, tmp_path / "one", WHOLE, [])

    for name, more in (("several", []), ("sharded", ["loop.shard_optimizer=true"])):
        run = tmp_path / name
        in_processes(count, tmp_path, train, task=task, parts=parts, out=run, batch=WHOLE // count, more=more)

        assert json.loads((run / "run.json").read_text())["processes"] == count
        assert losses(run) == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
        moved = distance(checkpoint(tmp_path / "one", 4), checkpoint(tmp_path / "one", 1))
        assert moved > 0 and distance(checkpoint(run, 4), checkpoint(tmp_path / "one", 4)) < 0.01 * moved
        moments = [load_file(tmp_path / of / "checkpoints/step-00000004/optimizer.safetensors").keys() for of in ("one", name)]
        assert moments[0] == moments[1]


@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("task", list(TASKS))
def test_processes_that_are_asked_to_end_continue_where_they_stood(parts, tmp_path, task, sharded) -> None:
    """SIGTERM reaches one of them; all end at the same step, and the run that continues ends with the weights of one that never stopped."""
    more = ["loop.max_steps=12", "loop.epochs=9", f"loop.shard_optimizer={str(sharded).lower()}"]
    given = {"task": task, "parts": parts, "batch": WHOLE // 2, "more": more}
    in_processes(2, tmp_path, train, **given, out=tmp_path / "whole")

    in_processes(2, tmp_path, train, **given, out=tmp_path / "stopped", stop_at=4)
    stopped = max(path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir() if path.name.startswith("step-"))
    in_processes(2, tmp_path, train, **given, out=tmp_path / "stopped")

    assert stopped == "step-00000010"  # they ask each other every tenth step
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    whole, after = checkpoint(tmp_path / "whole", 12), checkpoint(tmp_path / "stopped", 12)
    assert all(torch.equal(tensor, after[name]) for name, tensor in whole.items())
