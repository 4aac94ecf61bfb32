"""Shuffled batches of EEG windows from disk: this project's reader and its peers on the same windows in one run.

    python benchmarks/loader.py                         # 2,048 windows, everything
    python benchmarks/loader.py --windows 512 --rounds 3 --only read,processes

Readers take turns within a round, so that a busy machine slows all of them; what counts are the ratios of each round,
and their median over the rounds. "Cold" reads after the kernel was told to drop its page cache. "First epoch" reads every window
once from a reader that was just opened, the page cache warm: ours checks a checksum of each. "Later epochs" read them all again in
another order from the same reader, as training does most of the time; the bars are judged there.
Peers come from `pip install --group bench`; those that are missing are left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from loader_peers import BARS, BATCH, PEERS, OursStream, Peer, make_corpus

import eegprep
from dreamdiff.pretraining.stream import WindowStream

# --- measuring ---------------------------------------------------------------------------------------------------


def drop_cache(folder: Path) -> None:
    """Ask the kernel to forget the files of a folder. Works without privileges, once their content is on the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def measure(peer: Peer, epochs: list[list[np.ndarray]]) -> list[tuple[float, float]]:
    """Read epochs of batches, summing a value of each window so that nothing stays unread behind a lazy mapping.

    Returns:
        For each epoch: windows a second, and processor time in us a window (all threads).
    """
    read, result = peer.open(), []
    for batches in epochs:
        start, used = time.perf_counter(), time.process_time()
        for indices in batches:
            read(indices)[:, 0, 0].sum().item()
        seconds, used = time.perf_counter() - start, time.process_time() - used
        n = sum(map(len, batches))
        result.append((n / seconds, used / n * 1e6))
    del read
    peer.close()
    return result


def bench_read(folder: Path, windows_NCT: np.ndarray, rounds: int) -> dict[str, object]:
    peers = {}
    for name, kind in PEERS.items():
        missing = [package for package in kind.needs if importlib.util.find_spec(package) is None]
        if missing:
            print(f"left out: {name} (install {', '.join(missing)})")
            continue
        peers[name] = kind(folder / kind.__name__, folder / "corpus.zarr")
        peers[name].write(windows_NCT)
    sizes = {name: size_of(peer.files) / windows_NCT.nbytes for name, peer in peers.items()}
    check_equal(peers, windows_NCT)
    rng, results = np.random.default_rng(1), {}
    for names in (("first epoch", "later epochs"), ("cold",)):
        speeds: dict[str, dict[str, list[float]]] = {name: {peer: [] for peer in peers} for name in names}
        used: dict[str, dict[str, list[float]]] = {name: {peer: [] for peer in peers} for name in names}
        for _ in range(max(3, rounds // 2) if names == ("cold",) else rounds):
            epochs = []
            for _ in names:
                order = rng.permutation(len(windows_NCT))
                epochs.append([order[i : i + BATCH] for i in range(0, len(order), BATCH)])
            for peer, reader in peers.items():
                if names == ("cold",):
                    drop_cache(reader.files)
                for name, (speed, processor) in zip(names, measure(reader, epochs), strict=True):
                    speeds[name][peer].append(speed)
                    used[name][peer].append(processor)
        for name in names:
            results[name] = {"windows_per_second": speeds[name], "processor_us": used[name]}
            print_speeds(name, speeds[name], used[name], sizes)
    bars = judge(results["later epochs"]["windows_per_second"], sizes)
    return {"sizes": sizes, "speeds": results, "bars": bars}


def check_equal(peers: dict[str, Peer], windows_NCT: np.ndarray) -> None:
    """Every reader that takes indices returns the same bits."""
    indices = np.random.default_rng(2).permutation(len(windows_NCT))[:BATCH]
    for name, peer in peers.items():
        if name not in {"ours: WindowStream", "litdata"}:
            assert np.array_equal(peer.open()(indices).numpy(), windows_NCT[indices]), name
            peer.close()


def print_speeds(title: str, speeds: dict[str, list[float]], used: dict[str, list[float]], sizes: dict[str, float]) -> None:
    ours = speeds["ours: WindowStream"]
    print(f"\n{title}, {len(ours)} rounds: windows/s median (least, most) | WindowStream over it | processor us a window | size")
    for name, values in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(ours, values, strict=True))
        span = f"({min(values):7,.0f} {max(values):7,.0f})"
        print(f"  {name:30s} {statistics.median(values):9,.0f} {span} {ratio:7.2f}x {min(used[name]):8.0f} {sizes[name]:6.2f}")


def judge(speeds: dict[str, list[float]], sizes: dict[str, float]) -> list[dict[str, object]]:
    bars: list[dict[str, object]] = []
    for name, peer, least in BARS:
        if peer in speeds:
            ratios = [a / b for a, b in zip(speeds["ours: WindowStream"], speeds[peer], strict=True)]
            bars.append(
                {"bar": name, "least": least, "ratio": statistics.median(ratios), "met": statistics.median(ratios) >= least}
            )
    size = sizes["ours: WindowStream"]
    bars.append({"bar": "size at most 0.6x raw", "least": 0.6, "ratio": size, "met": size <= 0.6})
    print("\nbars (later epochs)")
    for bar in bars:
        print(f"  {bar['bar']:24s} {bar['ratio']:6.2f}  {'met' if bar['met'] else 'MISSED'}")
    return bars


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- two processes, memory, training -----------------------------------------------------------------------------


def _read_for(path: Path, seconds: float, start: object, result: object) -> None:
    corpus = eegprep.Corpus.open(path)
    rng, count = np.random.default_rng(os.getpid()), 0
    out = np.empty((BATCH, corpus.channels, corpus.samples), np.float32)
    corpus.read(rng.integers(len(corpus), size=BATCH), out=out, threads=1)
    start.wait()  # type: ignore[attr-defined]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        corpus.read(rng.integers(len(corpus), size=BATCH), out=out, threads=1)
        count += BATCH
    result.put(count / seconds)  # type: ignore[attr-defined]


def bench_processes(folder: Path, rounds: int) -> dict[str, object]:
    """One reader process against two at the same time, in turns."""
    context = multiprocessing.get_context("spawn")
    ratios, speeds = [], []
    for _ in range(rounds):
        pair = []
        for count in (1, 2):
            start, result = context.Barrier(count), context.Queue()
            processes = [
                context.Process(target=_read_for, args=(folder / "corpus.zarr", 1.5, start, result)) for _ in range(count)
            ]
            for process in processes:
                process.start()
            pair.append(sum(result.get(timeout=120) for _ in processes))
            for process in processes:
                process.join()
        speeds.append(pair)
        ratios.append(pair[1] / pair[0])
    print(f"\ntwo processes over one: median {statistics.median(ratios):.2f}x, best {max(ratios):.2f}x (bar 1.7x); "
          f"windows/s one {statistics.median(s[0] for s in speeds):,.0f}, two {statistics.median(s[1] for s in speeds):,.0f}; "
          f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    return {"ratios": ratios, "speeds": speeds}


def many_times(corpus: Path, target: Path, times: int) -> None:
    """The same corpus `times` over, its shards linked and not copied."""
    from eegprep.store.root import finish_corpus

    target.mkdir()
    shutil.copy(corpus / "zarr.json", target / "zarr.json")
    for copy in range(times):
        for subject in sorted((corpus / "arrays").iterdir()):
            if subject.is_dir():
                shutil.copytree(subject, target / f"copy{copy}" / subject.name, copy_function=os.link)
        shutil.copy(corpus / "arrays/zarr.json", target / f"copy{copy}/zarr.json")
    finish_corpus(target)


# VmHWM and not getrusage: the latter still counts what the parent had before it started this process
_MEMORY = """
import sys
from dreamdiff.pretraining.stream import WindowStream
from loader_peers import BARS, BATCH, OursStream, PEERS, Peer, make_corpus
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
stream = WindowStream(sys.argv[1], 64)
for batch in stream:
    batch["eeg"].sum()
print(len(stream.corpus), before, peak())
"""


def bench_memory(folder: Path) -> dict[str, object]:
    """Peak memory of a process that streams one epoch, and of one with ten times the corpus."""
    many_times(folder / "corpus.zarr", folder / "ten.zarr", 10)
    result = {}
    print("\nmemory of a streaming process (MB)")
    for name in ("corpus.zarr", "ten.zarr"):
        answer = subprocess.run([sys.executable, "-c", _MEMORY, str(folder / name)], capture_output=True, text=True, check=True)
        windows, before, peak = (int(value) for value in answer.stdout.split())
        result[name] = {"windows": windows, "imports_mb": before / 1024, "peak_mb": peak / 1024}
        print(f"  {windows:7,d} windows: peak {peak / 1024:.0f}, of which imports {before / 1024:.0f}")
    return result


def bench_open(folder: Path) -> dict[str, float]:
    """Opening 400 subjects of 12 recordings with 64 channels each."""
    from eegprep.store.root import create_corpus, finish_corpus
    from eegprep.store.writer import SubjectWriter

    root, window = folder / "many.zarr", np.zeros((12, 8, 16), np.float32)
    create_corpus(root, {}, "bench", channels=8, samples=16)
    record = {"session": "0", "sfreq": 160.0, "n_channels": 64, "channels": [f"EEG{i:03d}" for i in range(64)],
              "pad_map": [i % 64 for i in range(128)], "licence": "CC0", "sources": [{"name": "a.edf", "bytes": 1, "sha256": "0" * 64}]}  # fmt: skip
    for subject in range(400):
        with SubjectWriter(root, "many", f"{subject:03d}", channels=8, samples=16) as writer:
            for run in range(12):
                recording = writer.add_recording({**record, "run": str(run)})
                writer.add(window[run : run + 1], recording, [0], [None])
            writer.commit("bench", {})
    times: dict[str, float] = {}

    def timed(name: str, action: Callable[[], object]) -> None:
        values = []
        for _ in range(5):
            start = time.perf_counter()
            action()
            values.append(time.perf_counter() - start)
        times[name] = statistics.median(values)

    timed("open, not consolidated", lambda: eegprep.Corpus.open(root))
    finish_corpus(root)
    timed("open", lambda: eegprep.Corpus.open(root))
    timed("open and tables", lambda: (c := eegprep.Corpus.open(root)).recordings is not c.subjects)
    timed("open and stream", lambda: WindowStream(root, split="train"))
    print("\n400 subjects, 4,800 recordings (s): " + ", ".join(f"{name} {value:.2f}" for name, value in times.items()))
    return times


def bench_train(folder: Path, rounds: int, steps: int = 6) -> dict[str, object]:
    """Steps of the smallest preset on fresh batches against steps on one cached batch, in turns."""
    from dreamdiff.encoders.mae import MaskedSignalModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = MaskedSignalModel.from_preset("tiny").to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    stream = WindowStream(folder / "corpus.zarr", BATCH, device=device)
    batches = OursStream._for_ever(stream)
    cached = next(batches)["eeg"]

    def step(eeg_BCT: torch.Tensor) -> None:
        optimiser.zero_grad()
        model(eeg_BCT).loss.backward()
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    step(cached)
    kept, streamed, waited = [], [], []
    for _ in range(rounds * steps):  # in turns, so that a busy machine slows both
        start = time.perf_counter()
        step(cached)
        middle = time.perf_counter()
        eeg_BCT = next(batches)["eeg"]
        arrived = time.perf_counter()
        step(eeg_BCT)
        kept.append(middle - start)
        waited.append(arrived - middle)
        streamed.append(time.perf_counter() - middle)
    lost = statistics.median(streamed) / statistics.median(kept) - 1
    share = statistics.median(w / s for w, s in zip(waited, streamed, strict=True))
    print(
        f"\ntraining, preset tiny, batches of {BATCH} on {device}: step on a cached batch {statistics.median(kept) * 1e3:.0f} ms; "
        f"with the stream {lost * 100:+.1f} % (medians of {len(kept)}), of which waiting for the batch {share * 100:.2f} %; bar 2 %"
    )
    return {"cached_s": kept, "streamed_s": streamed, "waited_s": waited, "lost": lost, "waiting": share, "device": device}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=2048, help="windows in the corpus (a multiple of 8)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="read,processes,memory,open,train")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    expected, result = set(args.only.split(",")), {"machine": platform.processor(), "processors": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        corpus = make_corpus(folder / "corpus.zarr", args.windows)
        print(f"{corpus}; {result['processors']} processors, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
        if "read" in expected:
            result["read"] = bench_read(folder, corpus.read(np.arange(len(corpus))), args.rounds)
        if "processes" in expected:
            result["processes"] = bench_processes(folder, args.rounds)
        if "memory" in expected:
            result["memory"] = bench_memory(folder)
        if "open" in expected:
            result["open"] = bench_open(folder)
        if "train" in expected:
            result["train"] = bench_train(folder, args.rounds)
    result["own_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
