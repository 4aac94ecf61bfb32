"""Images through a frozen network before training: each process encodes its share, and files are read by several threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import accelerate
import numpy as np

from dreamdiff.devices import choose_device
from dreamdiff.pairs.image_cache import CachedRows, Compute, cached_rows
from dreamdiff.pairs.reader import Pairs
from eegprep.pool import free_processors
from eegprep.recording import ProgressCallback


def read_each(pairs: Pairs, numbers: Sequence[int]) -> list[np.ndarray]:
    """Images of a store at the sizes they have, decoded by up to 8 threads."""
    with ThreadPoolExecutor(free_processors(8)) as pool:
        return list(pool.map(lambda number: pairs.load_images([number])[0], numbers))


def shared_rows(
    root: Path, kind: str, key: str, digests: Sequence[str], compute: Compute, *, batch: int,
    progress: ProgressCallback | None = None, also: Path | None = None,
) -> CachedRows:  # fmt: skip
    """`cached_rows`, whose work the processes of a launcher share: each encodes every n-th image, then all read everything."""
    rank, processes = ranks()
    if processes > 1:
        mine = sorted(set(digests))[rank::processes]
        place = {digest: index for index, digest in enumerate(digests)}
        if mine:
            cached_rows(
                root, kind, key, mine, lambda chosen: compute([place[mine[index]] for index in chosen]), batch=batch,
                progress=progress if rank == 0 else None, also=also, part=f"share-{rank}-of-{processes}",
            )  # fmt: skip
        accelerate.PartialState().wait_for_everyone()
    return cached_rows(root, kind, key, digests, compute, batch=batch, progress=progress, also=also)


def ranks() -> tuple[int, int]:
    """Number of this process, and of processes; one for commands that no launcher has started."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    state = accelerate.PartialState(cpu=choose_device("auto").type == "cpu")
    return state.process_index, state.num_processes
