"""Brings batches from a stream to the device, and says how long that was waited for.

On a GPU the next batch is fetched while the present one is computed, from pinned memory on a stream of its own. What a checkpoint
stores of the stream is where it stood after the batches that were handed over, not after those fetched ahead.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dreamdiff.devices import send
from dreamdiff.training.task import Batch, Stream
from eegprep.errors import DataError


class Feed:
    """Batches without end. Which epoch a batch belongs to follows from how many came before it, not from the stream's state.

    Args:
        stream: where batches come from. device: where they go.
        host: what is added to a batch before it goes there, see `Task.host`.
        ahead: fetch the next batch before it is asked for; default on a GPU.
    """

    def __init__(self, stream: Stream, device: torch.device, host: Callable[[Batch], Batch], ahead: bool | None = None) -> None:
        self.stream, self.device, self.host = stream, device, host
        self.length = max(len(stream), 1)
        self.ahead = device.type == "cuda" if ahead is None else ahead
        self.state: Mapping[str, Any] = stream.state_dict()
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._iterator: Iterator[Batch] | None = None
        self._waiting: tuple[Batch, Mapping[str, Any]] | None = None

    def next(self) -> Batch:
        """The next batch, on the device."""
        batch, self.state = self._waiting or self._fetch()
        self._waiting = None
        if self._copies is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._copies)
            for value in batch.values():
                if isinstance(value, Tensor) and value.is_cuda:
                    value.record_stream(current)  # made on the other stream: its memory is not given away before this one is done
        return batch

    def fetch_ahead(self) -> None:
        """Begin with the next batch; called when the kernels of the present one have been queued."""
        if self.ahead and self._waiting is None:
            self._waiting = self._fetch()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the batch after `state`."""
        self.stream.load_state_dict(state)
        self.state, self._waiting, self._iterator = self.stream.state_dict(), None, None

    def _fetch(self) -> tuple[Batch, Mapping[str, Any]]:
        batch = self.host(self._read())
        state = self.stream.state_dict()
        with contextlib.nullcontext() if self._copies is None else torch.cuda.stream(self._copies):
            return {name: send(v, self.device) if isinstance(v, Tensor) else v for name, v in batch.items()}, state

    def _read(self) -> Batch:
        for _ in range(2):  # a continued run may stand at the very end of an epoch
            if self._iterator is None:
                self._iterator = iter(self.stream)
            batch = next(self._iterator, None)
            if batch is not None:
                return batch
            self._iterator = None
        raise DataError("the training data gives no batch", "add data, or make data.batch_size smaller")


@dataclass
class Clock:
    """Where the time goes: waiting for data, and all of it, s, since the last report."""

    started: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    samples: int = 0
    answer: tuple[float, float] = (0.0, 0.0)

    def report(self) -> tuple[float, float]:
        """(samples per s, share of time spent waiting) over the last second or more."""
        elapsed = time.perf_counter() - self.started
        if elapsed > 1.0 or self.answer == (0.0, 0.0):
            self.answer = self.samples / max(elapsed, 1e-9), self.waited / max(elapsed, 1e-9)
            self.restart()
        return self.answer

    def restart(self) -> None:
        """Leave out what was not training: validation, checkpoints."""
        self.started, self.waited, self.samples = time.perf_counter(), 0.0, 0
