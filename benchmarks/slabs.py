"""Neighbouring windows and whole recordings: `Corpus.read` against a memory map and zarr, on the same windows in one run.

    python benchmarks/slabs.py                       # 4,096 windows of 32 to 128 channels, 64 to 512 at a time
    python benchmarks/slabs.py --windows 1024 --rounds 3

Everything lies in the page cache. "First" reads windows that this process has not read before, and checks a crc32c of each; "later" reads them
again. The floor is a copy of as many bytes between two arrays of this process. Readers take turns within a round; figures are medians.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import zarr
from loader_peers import make_corpus

import eegprep

Read = Callable[[int, int], np.ndarray]


def ours(path: Path, threads: int) -> Read:
    """`Corpus.read` into memory that is used again."""
    corpus = eegprep.Corpus.open(path)
    out = np.empty((corpus.shape[0], corpus.channels, corpus.samples), np.float32)
    return lambda first, last: corpus.read(np.arange(first, last), out=out[: last - first], threads=threads)


def by_zarr(path: Path, pipeline: str | None) -> Read:
    """A slice of the array of each subject that the slab touches."""
    corpus = eegprep.Corpus.open(path)
    arrays = [zarr.open_group(path, mode="r")[f"{key}/windows"] for key in corpus.keys]
    ends = np.cumsum([array.shape[0] for array in arrays])

    def read(first: int, last: int) -> np.ndarray:
        parts = []
        for array, end in zip(arrays, ends.tolist(), strict=True):
            begin = end - array.shape[0]
            if begin < last and end > first:
                parts.append(array[max(first, begin) - begin : min(last, end) - begin])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def with_pipeline(first: int, last: int) -> np.ndarray:
        with zarr.config.set({"codec_pipeline.path": pipeline} if pipeline else {}):
            return read(first, last)

    return with_pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=4096, help="windows in the corpus (a multiple of 8)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "corpus.zarr"
        corpus = make_corpus(path, options.windows)
        everything = corpus.read(np.arange(len(corpus)))
        np.save(Path(name) / "raw.npy", everything)
        mapped = np.load(Path(name) / "raw.npy", mmap_mode="r")
        target = np.empty_like(everything)
        readers: dict[str, Callable[[], Read]] = {
            "eegprep, 2 threads": lambda: ours(path, 2),
            "eegprep, 1 thread": lambda: ours(path, 1),
            "numpy.memmap, copied": lambda: lambda first, last: np.copyto(target[: last - first], mapped[first:last]) or target,
            "zarr-python": lambda: by_zarr(path, None),
            "zarrs": lambda: by_zarr(path, "zarrs.ZarrsCodecPipeline"),
            "floor: a copy in memory": lambda: (
                lambda first, last: np.copyto(target[: last - first], everything[first:last]) or target
            ),
        }
        try:
            import zarrs  # noqa: F401
        except ImportError:
            del readers["zarrs"]
            print("left out: zarrs (install zarrs)")
        for count in (64, len(corpus) // 8):
            _table(readers, count, everything, options.rounds)


def _table(readers: dict[str, Callable[[], Read]], count: int, everything: np.ndarray, rounds: int) -> None:
    speeds: dict[str, dict[str, list[float]]] = {name: {"first": [], "later": []} for name in readers}
    starts = range(0, len(everything) - count + 1, count)
    for _ in range(rounds):
        for name, make in readers.items():
            read = make()
            for epoch in ("first", "later"):
                began = time.perf_counter()
                for start in starts:
                    read(start, start + count)
                speeds[name][epoch].append(len(starts) * count / (time.perf_counter() - began))
            np.testing.assert_array_equal(read(0, count)[:count], everything[:count])
    print(
        f"\n{count} neighbours at a time{', a whole subject' if count == len(everything) // 8 else ''}; windows/s first, later | MB/s later | ours over it, later"
    )
    best = speeds["eegprep, 2 threads"]["later"]
    for name, values in speeds.items():
        ratio = median(a / b for a, b in zip(best, values["later"], strict=True))
        rate = median(values["later"]) * everything[0].nbytes / 1e6
        print(f"  {name:26s} {median(values['first']):9,.0f} {median(values['later']):9,.0f} | {rate:7,.0f} | {ratio:6.2f}x")


if __name__ == "__main__":
    main()
