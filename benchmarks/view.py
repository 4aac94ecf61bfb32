"""Training without a corpus: filtered windows a second of a view, against a built corpus and against what is usually written.

    python benchmarks/view.py                             # the recordings that ship with the package
    python benchmarks/view.py --recordings FOLDER         # any folder of EDF files
    python benchmarks/view.py --rounds 3 --json FILE

In one run and in turn, on two threads: (a) a fresh `WindowStream` over the view, one epoch in random order; (b) the same over the corpus;
(c) the plain way: each window with its margin by MNE-Python's EDF reader, filtered with the same taps by SciPy in float64. Beside them what
`build` costs before the first batch of (b), and the limit of (a): the two Fourier transforms that a window needs, alone. Files are in the
page cache. Windows of (a) are compared with those of (b) first. Bar: 4,000 windows/s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mne
import numpy as np
import scipy.fft
import scipy.signal

import eegprep
from dreamdiff import WindowStream
from eegprep.catalogue.manifests import shipped_folder
from eegprep.signals.filters import PieceFilter, design_band_pass

mne.set_log_level("error")
THREADS, BAR = 2, 4000.0


def measure(work: Callable[[], int]) -> tuple[float, float]:
    """Of one pass: windows a second, and processor time of a window, us (all threads), which a busy machine changes little."""
    start, processor = time.perf_counter(), time.process_time()
    windows = work()
    return windows / (time.perf_counter() - start), 1e6 * (time.process_time() - processor) / windows


def streamed(store: Path, epochs: int, seed: int) -> int:
    """Epochs of a stream that was just opened; a value of each window is touched."""
    stream = WindowStream(store, batch_size=64, seed=seed, threads=THREADS)
    windows = 0
    for _ in range(epochs):
        for batch in stream:
            batch["eeg"][:, 0, 0].sum()
            windows += len(batch["eeg"])
    return windows


class PlainReader:
    """Windows by MNE-Python and SciPy: a file is opened once, a stretch of it read and filtered for each window."""

    def __init__(self, corpus: eegprep.Corpus, folder: Path) -> None:
        self.starts, self.samples = corpus.column("start"), corpus.samples
        records = [corpus.record(index) for index in range(len(corpus))]
        self.rows = [np.asarray(record["pad_map"]) for record in records]
        paths = [next(folder.rglob(Path(record["sources"][0]["name"]).name)) for record in records]
        self.raws = {path: mne.io.read_raw_edf(path) for path in set(paths)}
        self.of_window = [self.raws[path] for path in paths]
        self.taps = [design_band_pass(record["sfreq"], record["filter"]["low"], record["filter"]["high"]) for record in records]

    def window(self, index: int) -> np.ndarray:
        raw, taps, start = self.of_window[index], self.taps[index], int(self.starts[index])
        half = len(taps) // 2
        first, last = max(0, start - half), min(raw.n_times, start + self.samples + half)
        piece = raw.get_data(start=first, stop=last) * 1e6
        piece = np.pad(
            piece, ((0, 0), (half - (start - first), start + self.samples + half - last)), "reflect", reflect_type="odd"
        )
        filtered: np.ndarray = scipy.signal.fftconvolve(piece, taps[None], mode="valid", axes=1).astype(np.float32)
        return filtered[self.rows[index]]

    def pass_over(self, order: np.ndarray) -> int:
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(1 for _ in pool.map(self.window, order.tolist(), chunksize=16))


def transforms(corpus: eegprep.Corpus) -> tuple[float, float]:
    """The two transforms alone, averaged over the recordings: windows a second on `THREADS` threads, us of processor time each."""
    records = corpus.recordings
    kinds = records.groupby(["sfreq", "n_channels"])["windows"].sum()
    band = corpus.record(0)["filter"]

    def work(shape: tuple[int, int]) -> None:
        piece = np.zeros(shape, np.float32)
        for _ in range(40):
            scipy.fft.irfft(scipy.fft.rfft(piece, axis=1), shape[1], axis=1, overwrite_x=True)

    seconds = processor = 0.0
    for (sfreq, channels), windows in kinds.items():
        n_fft = PieceFilter(float(sfreq), band["low"], min(band["high"], 0.45 * float(sfreq)), corpus.samples)._n_fft
        start, used = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, [(int(channels), n_fft)] * THREADS))
        seconds += windows * (time.perf_counter() - start) / (40 * THREADS)
        processor += windows * (time.process_time() - used) / (40 * THREADS)
    return len(corpus) / seconds, 1e6 * processor / len(corpus)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, default=shipped_folder() / "sample", help="folder of EDF files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a stream in a round; nothing is kept between them")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    source = f"files:{options.recordings}/**/*.edf"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start = time.perf_counter()
        eegprep.index(source, folder / "view.zarr")
        indexed = time.perf_counter() - start
        start = time.perf_counter()
        eegprep.build(source, folder / "corpus.zarr")
        built = time.perf_counter() - start
        view, corpus = (eegprep.Corpus.open(folder / f"{name}.zarr") for name in ("view", "corpus"))
        left, right = view[:], corpus[:]
        gap = float((np.abs(left - right).max(axis=(1, 2)) / right.std(axis=(1, 2))).max())
        plain = PlainReader(corpus, options.recordings)
        apart = max(float(np.abs(plain.window(i) - right[i]).max() / right[i].std()) for i in range(0, len(corpus), 7))
        passes: dict[str, list[tuple[float, float]]] = {"view": [], "corpus": [], "plain": []}
        for number in range(options.rounds):
            passes["view"].append(measure(lambda: streamed(folder / "view.zarr", options.epochs, number)))  # noqa: B023
            passes["corpus"].append(measure(lambda: streamed(folder / "corpus.zarr", options.epochs, number)))  # noqa: B023
            order = np.random.default_rng(number).permutation(len(corpus))
            passes["plain"].append(measure(lambda: plain.pass_over(order)))  # noqa: B023
        limit, limit_us = transforms(corpus)
        stored = sum(path.stat().st_size for path in (folder / "corpus.zarr").rglob("*") if path.is_file())
        kept = sum(path.stat().st_size for path in (folder / "view.zarr").rglob("*") if path.is_file())
    rates = {name: [rate for rate, _ in values] for name, values in passes.items()}
    middle = {name: statistics.median(values) for name, values in rates.items()}
    cost = {name: statistics.median(us for _, us in values) for name, values in passes.items()}
    against_plain = statistics.median(a / b for a, b in zip(rates["view"], rates["plain"], strict=True))
    print(
        f"{len(corpus)} windows of {len(corpus.recordings)} recordings, {THREADS} threads, {options.rounds} rounds, files in the page cache"
    )
    for name, what in (
        ("view", "WindowStream over a view"),
        ("corpus", "WindowStream over the corpus"),
        ("plain", "MNE-Python's reader and SciPy"),
    ):
        print(
            f"  {what:30s} {middle[name]:8,.0f} windows/s ({min(rates[name]):,.0f} to {max(rates[name]):,.0f}), {cost[name]:6.0f} us of processor time each"
        )
    print(
        f"view: {against_plain:.1f}x the plain way ({cost['plain'] / cost['view']:.1f}x in processor time), {middle['view'] / middle['corpus']:.2f}x a corpus, {middle['view'] / limit:.0%} of the limit "
        f"(two transforms a window alone: {limit:,.0f} windows/s, {limit_us:.0f} us); bar {BAR:,.0f}: {'met' if middle['view'] >= BAR else 'missed'}"
    )
    one = len(corpus)
    print(
        f"first pass over all windows, from nothing: index {indexed:.1f} s + view {one / middle['view']:.2f} s; build {built:.1f} s + corpus "
        f"{one / middle['corpus']:.2f} s; on disk {kept / 1e6:.1f} and {stored / 1e6:.1f} MB"
    )
    print(f"largest difference from `build`, in standard deviations of the window: view {gap:.1e} (bar 1e-5), plain {apart:.1e}")
    if options.json:
        content = {
            "rates": rates,
            "us": cost,
            "limit": limit,
            "index_s": indexed,
            "build_s": built,
            "difference": gap,
            "view_bytes": kept,
            "corpus_bytes": stored,
        }
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
