"""The training loop: continuation to the bit, and what it refuses."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
import toy_task
from several_processes import exit_code
from toy_task import OPTIM, Toy, settings

from dreamdiff.training import checkpoint
from dreamdiff.training.config import LoopConfig, OptimConfig
from dreamdiff.training.history import read_history
from dreamdiff.training.loop import fit
from dreamdiff.training.machine import precision_for
from dreamdiff.training.task import Draw, FitResult
from eegprep.errors import CheckpointError, DataError, ModelError, UsageError

SCRIPT = Path(__file__).parents[1] / "toy_task.py"


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in the same order in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(folder: Path, task: Toy | None = None, **changes) -> FitResult:
    return fit(task or Toy(), settings(**changes), OPTIM, folder)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_history(folder) if "loss" in line]


def weights(folder: Path) -> dict:
    return json.loads((folder / "final.json").read_text())


@pytest.mark.parametrize("changes", [{}, {"accumulation": 2}, {"ema": 0.9}])
def test_a_run_killed_in_mid_step_goes_on_to_the_same_losses_and_weights_bit_for_bit(tmp_path, changes) -> None:
    """kill -9 at step 11 of 24, between two checkpoints, in the middle of an epoch; dropout and noise are on."""
    train(tmp_path / "whole", **changes)

    assert exit_code(toy_task.run, folder=tmp_path / "killed", die_at=11, **changes) == -signal.SIGKILL
    assert len(losses(tmp_path / "killed")) < len(losses(tmp_path / "whole"))
    result = train(tmp_path / "killed", **changes)

    assert result.resumed_from and result.finished
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path) -> None:
    """Nothing of the dead attempt is left in the history."""
    train(tmp_path / "whole")
    assert exit_code(toy_task.run, folder=tmp_path / "killed", die_at=2) == -signal.SIGKILL

    result = train(tmp_path / "killed")

    assert result.resumed_from is None
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_sigterm_ends_with_a_checkpoint_and_the_next_call_finishes_the_same_run(tmp_path) -> None:
    """Clusters announce the end of a job this way."""

    class Noticed(Toy):
        def step(self, batch, draw):
            if self.steps == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step(batch, draw)

    train(tmp_path / "whole")

    first = train(tmp_path / "told", Noticed())
    second = train(tmp_path / "told")

    assert (first.finished, first.step) == (False, 7)
    assert second.resumed_from == 7
    assert weights(tmp_path / "told") == weights(tmp_path / "whole")


def test_a_finished_run_is_not_trained_again(tmp_path) -> None:
    """Running the same command twice is safe."""
    first = train(tmp_path)
    task = Toy()

    second = train(tmp_path, task)

    assert task.steps == 0
    assert (second.step, second.loss, second.validation) == (first.step, first.loss, first.validation)


def test_every_sample_comes_once_per_epoch_in_a_new_order(tmp_path) -> None:
    """22 samples in batches of 4."""
    task = Toy()

    train(tmp_path, task, epochs=2)

    assert sorted(chain(*task.seen[:6])) == sorted(chain(*task.seen[6:12])) == list(range(22))
    assert task.seen[:6] != task.seen[6:12]


def test_two_batches_accumulated_give_the_step_of_one_batch_twice_as_large(tmp_path) -> None:
    """Noise depends on the sample, not on the batch it comes in; 20 of 22 samples fit both."""
    one, two = Toy(batch_size=4, dropout=0), Toy(batch_size=2, dropout=0)

    train(tmp_path / "one", one, max_steps=5)
    train(tmp_path / "two", two, max_steps=5, accumulation=2)

    # the schedule differs (epochs have another number of steps), so compare first losses, before any weight moved
    assert losses(tmp_path / "two")[0] == pytest.approx(losses(tmp_path / "one")[0], rel=1e-6)
    assert list(chain(*two.seen[:2])) == one.seen[0]


@pytest.mark.slow
def test_two_processes_learn_what_one_process_with_the_whole_batch_learns(tmp_path) -> None:
    """Gradients averaged over gloo; equal up to the order of summation."""
    options = {"dropout": 0, "max_steps": 10}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone"]
    subprocess.run(
        [*launch, str(SCRIPT), str(tmp_path / "two"), json.dumps({**options, "batch_size": 2})],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip

    train(tmp_path / "one", Toy(batch_size=4, dropout=0), max_steps=10)

    assert json.loads((tmp_path / "two/run.json").read_text())["processes"] == 2
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    for name, values in weights(tmp_path / "one").items():
        torch.testing.assert_close(torch.tensor(weights(tmp_path / "two")[name]), torch.tensor(values), atol=1e-6, rtol=1e-5)


def test_another_configuration_or_store_is_refused_with_the_difference(tmp_path) -> None:
    """A run never changes its mind silently; what doesn't change the result may change."""
    train(tmp_path, max_steps=3)

    with pytest.raises(
        CheckpointError, match=r"loop.max_steps: 3 there, 4 here; loop.seed: 2022 there, 7 here; note: \"\" there, \"b\""
    ):
        train(tmp_path, Toy(note="b"), max_steps=4, seed=7)
    assert train(tmp_path, max_steps=3, keep_checkpoints=1, validate_steps=5).finished


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path) -> None:
    """--out HOME must not scatter files there."""
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(CheckpointError, match=r"not empty and holds no run"):
        train(tmp_path)

    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["thesis.tex"]


def test_two_processes_do_not_train_in_one_folder(tmp_path) -> None:
    """They would overwrite each other's checkpoints."""

    class Second(Toy):
        def step(self, batch, draw):
            with pytest.raises(CheckpointError, match="another process is training in it"):
                train(tmp_path)
            return super().step(batch, draw)

    train(tmp_path, Second(), max_steps=1)


def test_a_loss_that_is_not_a_number_ends_the_run_before_it_is_saved(tmp_path) -> None:
    """The last checkpoint still holds finite weights."""

    class Broken(Toy):
        def step(self, batch, draw):
            values = super().step(batch, draw)
            return {"loss": values["loss"] * (math.nan if self.steps == 5 else 1)}

    with pytest.raises(ModelError, match="step 5: the loss is nan"):
        train(tmp_path, Broken())

    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_a_stream_without_batches_is_an_error_and_not_an_endless_loop(tmp_path) -> None:
    """A batch larger than the data with drop_last, say."""

    class Empty(Toy):
        def stream(self, rank, world_size):
            stream = super().stream(rank, world_size)
            stream.__class__ = type("Nothing", (type(stream),), {"__iter__": lambda self: iter(())})
            return stream

    with pytest.raises(DataError, match="gives no batch"):
        train(tmp_path, Empty())


def test_a_module_without_trainable_parameters_is_refused(tmp_path) -> None:
    """Everything frozen is a mistake in the configuration."""
    task = Toy()
    task.module.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing is to be trained"):
        train(tmp_path, task)


def test_frozen_weights_are_not_in_checkpoints(tmp_path) -> None:
    """Stable Diffusion's gigabyte stays where it came from."""
    from safetensors.torch import load_file

    train(tmp_path, max_steps=1)

    names = load_file(tmp_path / "checkpoints/step-00000001/model.safetensors").keys()
    assert names == {"body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"}


def test_random_numbers_belong_to_the_sample_and_not_to_the_batch() -> None:
    """Same seed, epoch, sample and purpose: same numbers, in any company and order."""
    together = Draw(1, 2, torch.tensor([5, 9, 7])).normal("mask", 4)

    assert Draw(1, 2, torch.tensor([7])).normal("mask", 4)[0].equal(together[2])
    for other in (Draw(2, 2, torch.tensor([7])), Draw(1, 3, torch.tensor([7]))):
        assert not other.normal("mask", 4)[0].equal(together[2])
    assert not Draw(1, 2, torch.tensor([7])).normal("noise", 4)[0].equal(together[2])
    uniform = Draw(1, 2, torch.arange(400)).uniform("u", 10)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.02)
    assert set(Draw(1, 2, torch.arange(100)).integers("i", 3).tolist()) == {0, 1, 2}


def test_precision_follows_the_device(monkeypatch) -> None:
    """fp32 on a CPU; bf16 on a GPU that has it, else fp16."""
    auto = LoopConfig()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision_for(auto) == "no"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert precision_for(auto) == "bf16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert precision_for(auto) == "fp16"
    assert precision_for(LoopConfig(device="cpu")) == "no"
    assert precision_for(LoopConfig(precision="fp32")) == "no"


def test_what_this_machine_cannot_do_is_said_at_once(tmp_path, monkeypatch) -> None:
    """Not after an hour of loading."""
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        train(tmp_path / "a", precision="fp16")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="wandb is not installed"):
        train(tmp_path / "b", tracker="wandb")
    monkeypatch.undo()
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler"):
        train(tmp_path / "c", compile=True)


def test_bf16_trains_and_the_weights_stay_fp32(tmp_path) -> None:
    """Autocast wraps the step; the optimiser never sees rounded weights."""
    task = Toy()
    result = train(tmp_path, task, precision="bf16", max_steps=2)
    assert result.finished
    assert {parameter.dtype for parameter in task.module.parameters()} == {torch.float32}


def test_progress_tells_loss_rate_and_waiting(tmp_path) -> None:
    """What a person wants to know while it runs, and a TensorBoard log by default."""
    messages = []
    fit(Toy(), settings(max_steps=2, tracker="tensorboard"), OPTIM, tmp_path, progress=lambda *args: messages.append(args))

    assert messages[-1][:2] == (2, 2)
    assert all(word in messages[-1][2] for word in ("loss", "/s", "waiting for data"))
    assert list((tmp_path / "logs").rglob("events.out.*"))
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("batch", "parts"), [(4, 2), (2, 4), (6, 2), (3, 3)])
def test_accumulated_parts_weigh_by_their_samples_and_stay_in_their_epoch(tmp_path, batch, parts) -> None:
    """22 samples: a smaller last batch counted as much as a whole one, and a step took from two epochs."""
    whole, small = Toy(batch_size=batch * parts, dropout=0.0), Toy(batch_size=batch, dropout=0.0)
    train(tmp_path / "whole", whole, epochs=2)
    train(tmp_path / "parts", small, epochs=2, accumulation=parts)

    a, b = (read_history(tmp_path / name) for name in ("whole", "parts"))
    first, second = ([line["loss"] for line in lines if "loss" in line] for lines in (a, b))
    assert len(first) == len(second)
    assert second == pytest.approx(first, rel=1e-4)


def test_a_run_with_a_constant_rate_can_be_prolonged_and_others_say_why_not(tmp_path) -> None:
    """To the weights of a run that was longer from the start."""
    constant, bent = OptimConfig(schedule="constant"), OptimConfig(schedule="half-cosine")

    def fit_for(name, epochs, optim):
        loop = LoopConfig(epochs=epochs, tracker="none", device="cpu")
        return fit(Toy(), loop, optim, tmp_path / name)

    fit_for("long", 3, constant)
    fit_for("grown", 1, constant)
    assert fit_for("grown", 3, constant).resumed_from == 6
    assert fit_for("grown", 3, constant).finished
    assert (tmp_path / "grown" / "final.json").read_bytes() == (tmp_path / "long" / "final.json").read_bytes()
    fit_for("bent", 1, bent)
    with pytest.raises(CheckpointError, match="only a constant schedule can be prolonged"):
        fit_for("bent", 3, bent)


def test_a_full_disk_at_a_checkpoint_leaves_no_half_of_it(tmp_path, monkeypatch) -> None:
    """The half would keep the disk full; the checkpoint before stays."""
    checkpoint.save(tmp_path, 1, {"model": {"a": torch.ones(3)}}, {}, keep=3)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 2, {"model": {"a": torch.ones(3)}}, {}, keep=3, describe=full)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
