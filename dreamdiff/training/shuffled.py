"""Batches of samples that are read by position: every process takes its share of each epoch's permutation (see `task.Stream`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamdiff.training.task import Batch, mix
from eegprep.errors import DataError


class EpochBatches:
    """Batches of one epoch after another, resumable at any of them.

    Args:
        batches: number of an epoch -> rows of each of its batches; as many in every epoch.
        read: rows -> a batch.
        prefetch: batches that are read ahead in a thread; 0 reads when asked.
    """

    def __init__(
        self, batches: Callable[[int], Sequence[np.ndarray]], read: Callable[[np.ndarray], Batch], prefetch: int = 0
    ) -> None:
        self.batches, self.read, self.prefetch = batches, read, prefetch
        self.epoch, self.done = 0, 0

    def __len__(self) -> int:
        return len(self.batches(0))

    def __iter__(self) -> Iterator[Batch]:
        left = self.batches(self.epoch)[self.done :]
        for batch in self._read_ahead(left) if self.prefetch else map(self._pinned, left):
            self.done += 1
            yield batch
        self.epoch, self.done = self.epoch + 1, 0

    def _read_ahead(self, left: Sequence[np.ndarray]) -> Iterator[Batch]:
        """`prefetch` batches are in work while one is used; an error comes out where its batch would have."""
        pool, jobs = ThreadPoolExecutor(1, thread_name_prefix="trials"), iter(left)
        waiting = deque(pool.submit(self._pinned, rows) for rows in islice(jobs, self.prefetch))
        try:
            while waiting:
                ready = waiting.popleft().result()
                waiting.extend(pool.submit(self._pinned, rows) for rows in islice(jobs, 1))
                yield ready
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pinned(self, chosen: np.ndarray) -> Batch:
        """A batch in memory that a GPU copies from without a halt."""
        batch = self.read(chosen)
        if not torch.cuda.is_available():
            return batch
        return {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}

    def state_dict(self) -> Mapping[str, Any]:
        """Epoch and batches handed out in it."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the very next batch."""
        self.epoch, self.done = int(state["epoch"]), int(state["done"])


class ShuffledBatches(EpochBatches):
    """Shuffled batches of `positions`.

    Args:
        positions: what an epoch goes through. read: rows of `positions` -> a batch.
        seed: of the order; equal in all processes.
        prefetch: batches that a thread reads ahead; 0 reads when asked. The order, and where the stream stands, are the same.
    """

    def __init__(
        self, positions: np.ndarray, read: Callable[[np.ndarray], Batch], batch_size: int, seed: int, rank: int = 0,
        world_size: int = 1, prefetch: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(self.batches_of, read, prefetch)
        self.positions, self.batch_size, self.seed = positions, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.share = len(positions) // world_size
        if self.share == 0:
            raise DataError(
                f"{len(positions)} training trials for {world_size} processes", "use fewer processes, or another split"
            )

    def __len__(self) -> int:
        return (self.share + self.batch_size - 1) // self.batch_size

    def batches_of(self, epoch: int) -> list[np.ndarray]:
        """This process's share of an epoch's permutation, in batches."""
        order = np.random.default_rng(mix(self.seed, epoch, "pairs")).permutation(len(self.positions))
        of_rank = order[self.rank :: self.world_size][: self.share]
        return [of_rank[first : first + self.batch_size] for first in range(0, len(of_rank), self.batch_size)]
