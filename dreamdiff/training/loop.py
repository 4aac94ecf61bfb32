"""THE training loop, shared by both stages: batches in, losses down, checkpoints out. It knows nothing of EEG or images.

A stage subclasses `Task` and hands it to `fit`:

    class Pretraining(Task[MaskedSignalModel]):
        name = "msm"
        module = ...                                   # one root nn.Module; what requires grad is trained
        def identity(self): ...                        # what must not change between a run and its continuation
        def stream(self, rank, world_size): ...        # where batches come from
        def step(self, batch, draw): return {"loss": loss, "mse": ...}

    result = fit(task, config.loop, config.optim, run_dir, progress=progress)

Exact continuation: everything random comes from `Draw`, a function of (seed, epoch, sample index, purpose), and the global
generator is seeded anew at every step. So a killed run that is started again gives the same losses and weights as one that was
never killed: bit for bit on a CPU with the same number of threads. The same property makes results independent of the number of
processes and of gradient accumulation, up to the order of summation.

What a run folder holds: `run.json` (identity), `history.jsonl` (a line per step), `loss.png`, `checkpoints/step-00001000/`
(see `checkpoint.py`), what `Task.export` writes at the end, and `logs/` for the tracker.

Several processes: start the command with `accelerate launch` or `torchrun`; nothing else changes.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import Tensor, nn

from dreamdiff.training import checkpoint
from dreamdiff.training import history as plots
from dreamdiff.training.config import LoopConfig, OptimConfig
from dreamdiff.training.feed import Clock, Feed
from dreamdiff.training.history import HISTORY_FILE, flush_to_disk, read_history
from dreamdiff.training.machine import StopSignal, check_compiler, make_accelerator, only_one_process
from dreamdiff.training.optim import MovingAverage, adamw, learning_rate, own_part, set_learning_rate, sharded_adamw
from dreamdiff.training.task import Batch, Draw, FitResult, Task, mix
from eegprep import atomic
from eegprep.errors import CheckpointError, ModelError, UsageError
from eegprep.recording import ProgressCallback
from eegprep.settings import current_form

FREE_SETTINGS = {
    "checkpoint_minutes",
    "checkpoint_steps",
    "keep_checkpoints",
    "validate_steps",
    "tracker",
    "device",
    "shard_optimizer",
}

"""Settings that may change when a run is continued: none of them changes what is learned."""

SKIPPED = 24  # times that fp16 may halve the scale of the loss for one step; the first scale is 2^16


def fit(
    task: Task[Any],
    config: LoopConfig,
    optim: OptimConfig,
    run_dir: Path,
    *,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Train `task` until the configured end, continuing `run_dir` when it holds a run of the same identity.

    Args:
        task: the stage.
        config, optim: how long, how precise, how fast.
        run_dir: created if need be. Only one process group may work in it at a time.
        progress: called with (steps done, steps in all, message).

    A SIGTERM (a cluster's notice) ends the run with a checkpoint at the next step.

    Raises:
        CheckpointError: the folder holds a run with another identity (the differences are listed), is in use, or is damaged.
        ModelError: the loss is not a finite number.
    """
    accelerator = make_accelerator(config, run_dir, task.unused_parameters)
    with only_one_process(run_dir, accelerator), StopSignal() as stop:
        run = _Run(task, config, optim, run_dir, accelerator, progress or _quiet)
        try:
            return run.train(stop)
        finally:
            accelerator.end_training()
            accelerator.free_memory()


class _Stepper(nn.Module):
    """The task's step as a forward pass, so that DistributedDataParallel and autocast can wrap it."""

    def __init__(self, task: Task[Any]) -> None:
        super().__init__()
        self.module = task.module
        self._step = task.step

    def forward(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        return self._step(batch, draw)


class _Run:
    """One training run: built, continued where it stood, and driven to its end."""

    def __init__(
        self,
        task: Task[Any],
        config: LoopConfig,
        optim: OptimConfig,
        run_dir: Path,
        accelerator: accelerate.Accelerator,
        progress: ProgressCallback,
    ) -> None:
        self.task, self.config, self.optim, self.run_dir = task, config, optim, run_dir
        self.accelerator, self.progress = accelerator, progress
        self.device, self.main = accelerator.device, accelerator.is_main_process
        self.feed = Feed(task.stream(accelerator.process_index, accelerator.num_processes), self.device, task.host)
        self.steps_per_epoch = math.ceil(
            self.feed.length / config.accumulation
        )  # the last step of an epoch may have fewer batches
        self.total_steps = max(1, math.ceil(config.epochs * self.steps_per_epoch))
        if config.max_steps is not None:
            self.total_steps = min(self.total_steps, config.max_steps)
        self.step, self.resumed_from = 0, None
        self.validation: dict[str, float] = {}
        self.loss = math.nan
        self.pending: list[tuple[int, float, dict[str, Tensor]]] = []
        self._build()
        self._continue()

    def train(self, stop: StopSignal) -> FitResult:
        """Steps until the end, or until `stop` is asked for."""
        self._track()
        clock, saved_at, saved_step = Clock(), time.monotonic(), self.step
        every = self.config.validate_steps or max(math.ceil(self.steps_per_epoch), self.total_steps // 20)
        while self.step < self.total_steps and not self._agreed(stop.requested):
            self._one_step(clock)
            last = self.step == self.total_steps
            # reading a loss waits for a GPU; a CPU has computed it by now
            if last or self.device.type == "cpu" or len(self.pending) >= 20:
                self._report(clock)
            if last or self.step % every == 0:
                self._report(clock)
                self._validate()
                clock.restart()
            due = self.config.checkpoint_steps and self.step % self.config.checkpoint_steps == 0
            if last or due or self._overdue(saved_at):
                self._save(clock)
                clock.restart()
                saved_at, saved_step = time.monotonic(), self.step
        if saved_step != self.step:
            self._save(clock)
        finished = self.step >= self.total_steps
        if finished and self.main:
            with self._averaged():
                self.task.export(self.run_dir)
        self.accelerator.wait_for_everyone()
        return FitResult(
            self.run_dir, self.step, self.total_steps, finished, self.loss, self.validation, self.resumed_from
        )  # fmt: skip

    def _build(self) -> None:
        # whatever is still drawn before the first step is the same in every process
        torch.manual_seed(mix(self.config.seed, "start"))
        self.task.module.to(self.device)
        groups = self.task.parameter_groups(self.optim.weight_decay)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        if not self.parameters:
            raise UsageError("nothing is to be trained", "let some parameters require gradients")
        if self.config.compile:
            check_compiler(self.device)
            self.task.compile()
        self.average = MovingAverage(self.task.module, self.config.ema) if self.config.ema else None
        self.sharded = self.config.shard_optimizer and self.accelerator.num_processes > 1
        optimizer = sharded_adamw(groups, self.optim) if self.sharded else adamw(groups, self.optim, self.device)
        self.stepper, self.optimizer = self.accelerator.prepare(
            _Stepper(self.task), optimizer, device_placement=[True, not self.sharded]
        )
        self.task.module.train()

    def _one_step(self, clock: Clock) -> None:
        """One optimiser step over `accumulation` batches of one epoch, or what is left of it: the step of one batch of them all.

        Contrastive losses are the exception: they compare the samples of a batch, and of a larger one there are more to compare.
        """
        epoch = self.step / self.steps_per_epoch
        lr = learning_rate(epoch, self.total_steps / self.steps_per_epoch, self.optim)
        set_learning_rate(self.optimizer, lr)
        waiting = time.perf_counter()
        first = self.step % self.steps_per_epoch * self.config.accumulation
        batches = [self.feed.next() for _ in range(min(self.config.accumulation, self.feed.length - first))]
        clock.waited += time.perf_counter() - waiting
        clock.samples += sum(len(batch["index"]) for batch in batches) * self.accelerator.num_processes
        for _ in range(SKIPPED):
            logged = self._gradients(batches)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if not self.accelerator.optimizer_step_was_skipped:
                break  # else fp16 overflowed, the scale of the loss has been halved, and the same batch is tried again
        else:
            raise ModelError(
                f"step {self.step + 1}: the gradients are not finite in fp16 at any scale of the loss ({SKIPPED} tried)",
                "use --precision bf16 or fp32, or lower optim.lr",
            )
        if self.average:
            self.average.update(self.task.module)
        self.step += 1
        self.pending.append((self.step, lr, logged))
        waiting = time.perf_counter()
        self.feed.fetch_ahead()
        clock.waited += time.perf_counter() - waiting  # on a GPU an upper bound: it still computes the step before

    def _gradients(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Forward and backward pass of all batches of a step; the losses to log, on the device."""
        logged: dict[str, Tensor] = {}
        samples = sum(len(batch["index"]) for batch in batches)
        for part, batch in enumerate(batches):
            share = len(batch["index"]) / samples  # the mean over all samples of the step, as if they had come in one batch
            # for what does not go through `draw`, such as dropout: a function of the step, so that a continued run repeats it
            torch.manual_seed(mix(self.config.seed, self.step, part, self.accelerator.process_index))
            draw = Draw(self.config.seed, self.step // self.steps_per_epoch, batch["index"], self.device)
            last = part == len(batches) - 1
            # gradients travel between processes once a step, not once a batch
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.stepper):
                losses = self.stepper(batch, draw)
                self.accelerator.backward(losses["loss"] * share)
            for name, value in losses.items():
                logged[name] = logged.get(name, 0) + value.detach().float() * share
        # an infinite limit measures without clipping
        logged["gradient_norm"] = self.accelerator.clip_grad_norm_(self.parameters, self.optim.clip or math.inf)
        return logged

    def _report(self, clock: Clock) -> None:
        """Write pending steps to the history, and tell the person."""
        if not self.pending:
            return
        rate, waited = clock.report()
        names = list(self.pending[0][2])
        table = torch.stack(
            [torch.stack([logged[name].to(self.device).float() for name in names]) for _, _, logged in self.pending]
        )
        # one transfer for all pending steps and names
        rows = self.accelerator.reduce(table, "mean").tolist()
        lines = []
        for (step, lr, _), row in zip(self.pending, rows, strict=True):
            values = dict(zip(names, row, strict=True))
            epoch = step / self.steps_per_epoch
            lines.append({"step": step, "epoch": epoch, "lr": lr, **values, "per_second": rate, "wait_share": waited})
        self.pending = []
        self._append(lines)
        self.loss = lines[-1]["loss"]
        self.accelerator.log({k: v for k, v in lines[-1].items() if k != "step"}, step=self.step)
        bad = next((line for line in lines if not math.isfinite(line["loss"])), None)
        # after the history is written, so that the bad step can be looked at
        if bad is not None:
            raise ModelError(
                f"step {bad['step']}: the loss is {bad['loss']} (learning rate {bad['lr']:.3g})",
                f"lower optim.lr, or look at the data; the checkpoint before is in {self.run_dir / checkpoint.FOLDER}",
            )
        epochs = self.total_steps / self.steps_per_epoch
        message = f"epoch {lines[-1]['epoch']:.1f}/{epochs:.1f} loss {self.loss:.4g} {rate:.0f}/s, waiting for data {waited:.0%}"
        self.progress(self.step, self.total_steps, message)

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if self.main:
            with (self.run_dir / HISTORY_FILE).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)

    def _validate(self) -> None:
        if self.main:
            self.task.module.eval()
            self.task.steps_done = self.step
            with self._averaged(), torch.no_grad():
                with self.accelerator.autocast():
                    self.validation = self.task.validate(self.device)
                self.task.pictures(self.run_dir, self.device)
            self.task.module.train()
            if self.validation:
                self._append([{"step": self.step, "validation": self.validation}])
                self.accelerator.log({f"validation/{k}": v for k, v in self.validation.items()}, step=self.step)
            plots.loss_curve(read_history(self.run_dir), self.run_dir / "loss.png")
        self.accelerator.wait_for_everyone()

    def _save(self, clock: Clock) -> None:
        self._report(clock)
        moments = self._moments()
        if self.main:
            scaler = self.accelerator.scaler
            tensors = {
                "model": checkpoint.trained_state(self.task.module),
                "optimizer": moments,
            }
            if self.average:
                tensors["average"] = self.average.state_dict()
            state = {
                "stream": self.feed.state,
                "scaler": scaler.state_dict() if scaler is not None else {},
                "validation": self.validation,
                "loss": self.loss,
            }
            # a checkpoint promises that the lines before it are there
            flush_to_disk(self.run_dir / HISTORY_FILE)
            checkpoint.save(
                self.run_dir, self.step, tensors, state, keep=self.config.keep_checkpoints, describe=self.task.describe
            )  # fmt: skip
        self.accelerator.wait_for_everyone()

    def _moments(self) -> dict[str, Tensor]:
        """The optimiser's state for a checkpoint; of sharded ones, that of all processes, on the first."""
        own = checkpoint.optimizer_tensors(own_part(self.optimizer.optimizer), self.task.module)
        if not self.sharded:
            return own
        parts: list[Any] | None = [None] * self.accelerator.num_processes if self.main else None
        torch.distributed.gather_object({name: tensor.cpu() for name, tensor in own.items()}, parts)
        return {name: tensor for part in parts or () for name, tensor in part.items()}

    def _continue(self) -> None:
        """Pick up the newest good checkpoint, or write down what this run is."""
        dumped = {"loop": self.config.model_dump(mode="json", exclude=FREE_SETTINGS), "optim": self.optim.model_dump(mode="json")}
        identity = {**self.task.identity(), **dumped, "processes": self.accelerator.num_processes}
        known = self._same_run(identity)
        self.accelerator.wait_for_everyone()
        if not known:
            if self.main:
                checkpoint.write_identity(self.run_dir, identity)
                self.task.describe(self.run_dir)
            self.accelerator.wait_for_everyone()
            return
        result = checkpoint.latest(self.run_dir)
        self.accelerator.wait_for_everyone()
        if result is None:
            self._rewind_history(0)
            return
        folder, problems = result
        for problem in problems:
            self.progress(0, self.total_steps, f"damaged checkpoint passed over: {problem}")
        self._load(folder)
        self._rewind_history(self.step)
        self.progress(self.step, self.total_steps, f"continuing from step {self.step}")

    def _same_run(self, identity: dict[str, Any]) -> bool:
        """Whether the folder holds this run. One with a constant learning rate may become longer; its identity is then written anew."""
        lengths = ("epochs", "max_steps")

        def without_lengths(content: Mapping[str, Any]) -> dict[str, Any]:
            """Also in the stage's own configuration, which holds the loop's."""
            plain = {key: without_lengths(value) if key == "config" else value for key, value in content.items()}
            loop = plain.get("loop")
            if isinstance(loop, Mapping):
                plain["loop"] = {key: value for key, value in loop.items() if key not in lengths}
            return plain

        def current(stored: Mapping[str, Any]) -> Mapping[str, Any]:
            return without_lengths(self._current_identity(stored))

        if self.optim.schedule == "constant":
            known = checkpoint.same_run(self.run_dir, without_lengths(identity), current)
            if known and self.main:
                checkpoint.write_identity(self.run_dir, identity)
            return known
        try:
            return checkpoint.same_run(self.run_dir, identity, self._current_identity)
        except CheckpointError as error:
            if not any(f"loop.{name}: " in error.problem for name in lengths):
                raise
            raise CheckpointError(
                error.problem,
                f"start a new --out: with optim.schedule = {self.optim.schedule!r} the learning rate of every step depends on the length "
                "of the run; only a constant schedule can be prolonged",
            ) from None

    def _current_identity(self, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        """What `run.json` of an older version would say today: renamed settings moved, new ones at their defaults."""
        stored = self.task.current_identity(stored)
        loop = current_form(type(self.config), stored.get("loop", {}))
        return {
            **stored,
            "loop": {key: value for key, value in loop.items() if key not in FREE_SETTINGS},
            "optim": current_form(type(self.optim), stored.get("optim", {})),
        }

    def _load(self, folder: Path) -> None:
        state = checkpoint.read_state(folder)
        checkpoint.load_trained_state(self.task.module, checkpoint.read_tensors(folder, "model"), folder.name)
        checkpoint.load_optimizer_tensors(
            own_part(self.optimizer.optimizer), self.task.module, checkpoint.read_tensors(folder, "optimizer")
        )  # fmt: skip
        if self.average:
            self.average.load_state_dict(checkpoint.read_tensors(folder, "average"))
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.feed.load_state_dict(state["stream"])
        self.task.continued(folder)
        self.step = self.resumed_from = state["step"]
        self.validation, self.loss = state["validation"], state["loss"]

    def _rewind_history(self, step: int) -> None:
        """Forget what a killed run wrote after its last checkpoint."""
        if self.main:
            kept = [line for line in read_history(self.run_dir) if line["step"] <= step]
            atomic.write_text(self.run_dir / HISTORY_FILE, "".join(json.dumps(line) + "\n" for line in kept))
        self.accelerator.wait_for_everyone()

    def _overdue(self, saved_at: float) -> bool:
        """Whether it's time for a checkpoint; the first process decides for all."""
        overdue = time.monotonic() - saved_at > 60 * self.config.checkpoint_minutes
        return self._agreed(overdue and self.main)

    def _agreed(self, wish: bool) -> bool:
        """Whether any process wishes it; several ask each other every tenth step, because a GPU halts for the answer."""
        if self.accelerator.num_processes == 1:
            return wish
        if self.step % 10:
            return False
        flag = torch.tensor([float(wish)], device=self.device)
        return bool(self.accelerator.reduce(flag, "sum").item())

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """The moving average in place of the weights, for the length of a block."""
        return _swapped(self.average, self.task.module) if self.average else contextlib.nullcontext()

    def _track(self) -> None:
        if self.config.tracker != "none":
            self.accelerator.init_trackers(self.task.name)


@contextlib.contextmanager
def _swapped(average: MovingAverage, module: nn.Module) -> Iterator[None]:
    average.swap(module)
    try:
        yield
    finally:
        average.swap(module)


def _quiet(done: int, total: int, message: str) -> None:
    pass
