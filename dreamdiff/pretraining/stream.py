"""A shuffled, resumable, rank-aware stream of windows from a corpus.

The order of an epoch is a function of (seed, epoch) alone. Step s of an epoch takes the next `world_size * batch_size`
windows of that order and every rank its share of them; worker w of W prepares the steps s = w, w + W, ... So where a
stream stands is one number, the windows that all ranks have taken, and neither workers nor threads change what comes.

Legend: B batch, C channels, T samples, N windows of an epoch.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dreamdiff.pretraining.electrodes import TrueChannels
from dreamdiff.pretraining.order import EpochDraws, Share, chosen_windows
from eegprep.corpus.reader import Corpus
from eegprep.errors import DataError, UsageError
from eegprep.pool import free_processors

Batch = dict[str, torch.Tensor]

STATE_VERSION = 1


class WindowStream(IterableDataset[Batch]):
    """Batches of windows, every window of an epoch exactly once over all ranks and workers.

    Iterating yields the rest of the current epoch; iterating again, the next one. A batch has `eeg` (B, C, T) float32 uV
    and `index` (B,), so that `corpus.read(batch["index"])` is `batch["eeg"]`.

    Args:
        corpus: where it is, or an open corpus or selection.
        batch_size: windows a rank and step. The last step of an epoch is shared evenly: all ranks have the same number
            of batches, which differ by at most one window.
        seed: of the order; equal on all ranks.
        rank, world_size: which share is ours; default from torch.distributed or the launcher's RANK and WORLD_SIZE.
        shuffle: False gives the order of the corpus.
        drop_last: leave out the windows that do not fill a step of all ranks.
        split: "train" or "validation", by person, never by window.
        fraction: share of the people that is held out for validation.
        split_seed: of who is held out.
        weights: of data sets or `dataset/subject`: how often their windows come in an epoch. 2 is twice; 0.25 is a quarter
            of the windows, another quarter in the next epoch.
        prefetch: batches read ahead by threads; 0 reads when asked.
        threads: that read ahead; default up to 4, as many as there are processors.
        device: where the tensors go; a copy to CUDA does not block.
        pin_memory: default when CUDA is there (never in worker processes).
        channels: "stored" gives the rows of the store. "true" gives each window's own channels without padding: `eeg` is filled up
            with zeros to the batch's widest cap, `channel_mask` (B, C) says which are real and `positions` (B, C, 3) m where they are;
            windows without known positions are refused.

    Example:
        >>> import dreamdiff
        >>> stream = dreamdiff.WindowStream("corpus.zarr", batch_size=16, seed=0)
        >>> stream
        WindowStream('corpus.zarr': 148 windows, batches of 16, epoch 0, rank 0 of 1)
        >>> next(iter(stream))["eeg"].shape
        torch.Size([16, 128, 512])
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] | Corpus,
        batch_size: int = 64,
        *,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        split: Literal["train", "validation"] | None = None,
        fraction: float = 0.1,
        split_seed: int = 0,
        weights: Mapping[str, float] | None = None,
        prefetch: int = 4,
        threads: int | None = None,
        device: str | torch.device | None = None,
        pin_memory: bool | None = None,
        channels: Literal["stored", "true"] = "stored",
    ) -> None:
        self.corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
        self.rank, self.world_size = _ranks(rank, world_size)
        if batch_size < 1 or prefetch < 0:
            raise UsageError(f"batch_size {batch_size} and prefetch {prefetch} (at least 1 and 0)", "give larger numbers")
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.prefetch = prefetch
        self.threads = free_processors(4) if threads is None else threads
        self.device = None if device is None else torch.device(device)
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._draws = EpochDraws(self.corpus, chosen_windows(self.corpus, split, fraction, split_seed), weights or {}, seed)
        if self._draws.total < self.world_size:
            raise DataError(
                f"{self.corpus.url}: {self._draws.total} windows for {self.world_size} ranks", "use fewer ranks or more data"
            )
        self._epoch, self._position = 0, 0
        self._buffers = _Buffers()
        if channels not in ("stored", "true"):
            raise UsageError(f"channels {channels!r}", "choose stored or true")
        self._true = TrueChannels(self.corpus) if channels == "true" else None

    def __repr__(self) -> str:
        return (
            f"WindowStream({self.corpus.url!r}: {self.windows} windows, batches of {self.batch_size}, "
            f"epoch {self.epoch}, rank {self.rank} of {self.world_size})"
        )

    def __len__(self) -> int:
        """Batches that a rank gets in a whole epoch."""
        return self._steps(0)

    @property
    def windows(self) -> int:
        """Windows of an epoch, over all ranks."""
        return self._draws.total

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to, from 0."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the first window of an epoch."""
        self._epoch, self._position = epoch, 0

    def state_dict(self, batches: int | None = None) -> Mapping[str, Any]:
        """Where the stream stands: after the last batch that was handed over.

        Args:
            batches: only for a DataLoader of one's own, whose workers iterate copies: how many batches it has handed over
                since this stream's state was last set. `loader` counts by itself.
        """
        position = self._position if not batches else self._share(self._position, batches - 1, self.rank).after
        over = position > 0 and self._steps(position) == 0  # the end of an epoch is the start of the next
        return {
            "version": STATE_VERSION,
            "epoch": self._epoch + over,
            "position": 0 if over else position,
            "windows": self._draws.total,
            "seed": self.seed,
            "content": self._draws.digest,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the window after the last one of `state`; batch size, ranks and workers may be others.

        Raises:
            DataError: the state belongs to other windows, weights or another seed.
        """
        if state.get("version") != STATE_VERSION:
            raise DataError(
                f"stream state of version {state.get('version')} (known: {STATE_VERSION})", "use the software that saved it"
            )
        own = self.state_dict()
        for key, what in (("seed", "seed"), ("windows", "number of windows"), ("content", "corpus, selection or weights")):
            if state.get(key) != own[key]:
                raise DataError(
                    f"the saved stream has another {what}: {state.get(key)!r}, here {own[key]!r}",
                    "open the same corpus with the same selection, split, weights and seed, or start a new run",
                )
        left = self._draws.total - int(state["position"])
        if left < self.world_size and not self.drop_last:
            raise DataError(
                f"{left} windows are left of epoch {state['epoch']} for {self.world_size} ranks, so some would have no batch",
                "continue with the number of ranks that saved the state, or start the next epoch with set_epoch",
            )
        self._epoch, self._position = int(state["epoch"]), int(state["position"])

    def __iter__(self) -> Iterator[Batch]:
        for batch, position in self._batches():
            self._position = position
            yield batch
        self._epoch, self._position = self._epoch + 1, 0

    def loader(self, workers: int = 2, *, context: str | None = None, prefetch: int = 2, timeout: float = 0) -> _Loader:
        """The same batches prepared by `workers` processes; this stream's state follows what the loader hands over.

        Threads are enough for local disks: this is for slow file systems and for transforms that hold Python's lock.

        Args:
            workers: processes.
            context: "fork", "spawn" or "forkserver"; default is torch's, but "spawn" for object stores.
            prefetch: batches that each keeps ready.
            timeout: s to wait for a batch before giving up; 0 waits for ever.
        """
        if context is None and not self.corpus.survives_fork:
            context = "spawn"
        return _Loader(self, workers, context, prefetch, timeout)

    def _batches(self) -> Iterator[tuple[Batch, int]]:
        """Batches of the rest of the epoch for this rank and worker, each with where all ranks stand after it."""
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        order = self._draws.order(self._epoch, self.shuffle)
        start = self._position
        shares = (self._share(start, step, self.rank) for step in range(number, self._steps(start), count))
        jobs = ((order[share.first : share.last], share.after) for share in shares if share.last > share.first)
        # a worker process that touches CUDA would start a context of its own
        pin = self.pin_memory and worker is None
        if self.prefetch == 0:
            for index_B, after in jobs:
                yield self._finish(self._load(index_B, pin)), after
            return
        yield from self._read_ahead(jobs, pin)

    def _read_ahead(self, jobs: Iterator[tuple[np.ndarray, int]], pin: bool) -> Iterator[tuple[Batch, int]]:
        """Keep `prefetch` batches in work. After a fork the threads are gone: the child starts its own and asks again."""
        pool, owner = self._pool(), os.getpid()
        waiting: deque[tuple[np.ndarray, int, Future[Batch]]] = deque()
        try:
            for index_B, after in jobs:
                waiting.append((index_B, after, pool.submit(self._load, index_B, pin)))
                if len(waiting) > self.prefetch:
                    if owner != os.getpid():
                        pool, owner = self._pool(), os.getpid()
                        waiting = deque((i, a, pool.submit(self._load, i, pin)) for i, a, _ in waiting)
                    _, done, future = waiting.popleft()
                    yield self._finish(future.result()), done
            while waiting:
                if owner != os.getpid():
                    pool, owner = self._pool(), os.getpid()
                    waiting = deque((i, a, pool.submit(self._load, i, pin)) for i, a, _ in waiting)
                _, done, future = waiting.popleft()
                yield self._finish(future.result()), done
        finally:
            # in a forked child the threads are the parent's: waiting for them would never end
            if owner == os.getpid():
                pool.shutdown(wait=False, cancel_futures=True)

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="window-stream")

    def _load(self, index_B: np.ndarray, pin: bool) -> Batch:
        shape = (len(index_B), self.corpus.channels, self.corpus.samples)
        if pin:
            eeg_BCT = torch.empty(shape, dtype=torch.float32, pin_memory=True)
            self.corpus.read(index_B, out=eeg_BCT.numpy(), threads=1)
        else:
            buffer = self._buffers.take(shape)
            self.corpus.read(index_B, out=buffer, threads=1)
            eeg_BCT = torch.from_numpy(buffer)
        batch = {"eeg": eeg_BCT, "index": torch.from_numpy(index_B.astype(np.int64))}
        return batch if self._true is None else {**batch, **self._true.take(index_B, eeg_BCT)}

    def _finish(self, batch: Batch) -> Batch:
        if self.device is None:
            return batch
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def _steps(self, start: int) -> int:
        """Steps that are left of an epoch from position `start`."""
        full, rest = divmod(self._draws.total - start, self.world_size * self.batch_size)
        if self.drop_last or rest == 0:
            return full
        # fewer windows than ranks are left over: the last full step takes them in, so that no rank is without a batch
        return full if rest < self.world_size and full else full + 1

    def _share(self, start: int, step: int, rank: int) -> Share:
        """What `rank` takes in step `step`, counted from position `start`."""
        size = self.world_size * self.batch_size
        first = start + step * size
        last_step = step == self._steps(start) - 1 and not self.drop_last
        after = self._draws.total if last_step else first + size
        n = after - first
        return Share(first + rank * n // self.world_size, first + (rank + 1) * n // self.world_size, after)

    def __getstate__(self) -> dict[str, object]:
        # a process that gets the stream makes its own memory
        return {**self.__dict__, "_buffers": None}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__dict__.update(state)
        self._buffers = _Buffers()


class _Loader:
    """A DataLoader around a stream that keeps the stream's own state up to date."""

    def __init__(self, stream: WindowStream, workers: int, context: str | None, prefetch: int, timeout: float) -> None:
        self.stream = stream
        self._loader: DataLoader[tuple[Batch, int]] = DataLoader(
            _WithPosition(stream),
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=context if workers else None,
            prefetch_factor=prefetch if workers else None,
            pin_memory=stream.pin_memory and workers > 0,
            timeout=timeout,
        )

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Batch]:
        for batch, position in self._loader:
            self.stream._position = position
            yield self.stream._finish(batch)
        self.stream.set_epoch(self.stream.epoch + 1)


class _WithPosition(IterableDataset[tuple[Batch, int]]):
    def __init__(self, stream: WindowStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[tuple[Batch, int]]:
        return self.stream._batches()


class _Buffers:
    """Arrays for batches, used again once no tensor shares their memory: fresh memory costs as much as decoding into it.

    `torch.from_numpy` keeps a reference to the array as long as any tensor, view or array uses the memory, so an array
    that only this list refers to is free.
    """

    LIMIT = 16

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock, self._pid = threading.Lock(), os.getpid()

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        if self._pid != os.getpid():  # after a fork: the lock may be held by a thread that is gone
            self.__init__()  # type: ignore[misc]
        with self._lock:
            for array in self._arrays:
                if array.shape == shape and sys.getrefcount(array) == 3:  # the list, `array`, and the argument
                    return array
            array = np.empty(shape, np.float32)
            if len(self._arrays) < self.LIMIT:
                self._arrays.append(array)
            return array


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is None and world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    rank, world_size = rank or 0, world_size or 1
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} of {world_size} does not exist", "give rank from 0 to world_size - 1")
    return rank, world_size
