"""Parts of `ingest.py`: what other tools do with the same files, where our time goes, and what bounds it.

A module to import; as a script it does nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import google_crc32c
import mne
import numpy as np
import zarr

import eegprep

# --- others ------------------------------------------------------------------------------------------------------


def _windows(raw: mne.io.BaseRaw) -> np.ndarray:
    """(N, 128, 512) float32 uV of a recording that was filtered."""
    signal = raw.get_data() * 1e6
    crops = [signal[:, start : start + 512] for start in range(0, signal.shape[1] - 511, 512)]
    return np.stack([np.tile(crop, (-(-128 // len(signal)), 1))[:128] for crop in crops]).astype("float32")


def _one_file(file: Path, out: Path) -> None:
    raw = mne.io.read_raw(file, preload=True, verbose="error")
    raw.filter(5.0, min(95.0, 0.45 * raw.info["sfreq"]), verbose="error")
    np.save(out / f"{file.parent.name}-{file.stem}.npy", _windows(raw))


def mne_joblib(files: list[Path], out: Path) -> None:
    """MNE-Python in two processes of joblib, an array a file."""
    from joblib import Parallel, delayed

    Parallel(n_jobs=2)(delayed(_one_file)(file, out) for file in files)


def braindecode_zarr(files: list[Path], out: Path) -> None:
    """braindecode's `preprocess` and fixed windows, then one zarr array with its default codecs, in shards."""
    from braindecode.datasets import BaseConcatDataset, RawDataset
    from braindecode.preprocessing import Preprocessor, create_fixed_length_windows, preprocess

    raws = [mne.io.read_raw(file, preload=True, verbose="error") for file in files]
    sets = BaseConcatDataset([RawDataset(raw) for raw in raws])
    high = min(95.0, 0.45 * min(raw.info["sfreq"] for raw in raws))
    preprocess(sets, [Preprocessor("filter", l_freq=5.0, h_freq=high, verbose="error")])
    cut = create_fixed_length_windows(sets, window_size_samples=512, window_stride_samples=512, drop_last_window=True)
    array = zarr.create_array(str(out), shape=(len(cut), 128, 512), chunks=(1, 128, 512), shards=(256, 128, 512), dtype="f4")
    rows = None
    for first in range(0, len(cut), 256):
        batch = np.stack([cut[index][0] for index in range(first, min(first + 256, len(cut)))])
        rows = np.arange(128) % batch.shape[1]
        array[first : first + len(batch)] = (batch[:, rows] * 1e6).astype("float32")


# --- where the time goes -----------------------------------------------------------------------------------------

# module, name (of a class: "Class.method"), stage; time counts for the innermost stage
STAGES = [
    ("eegprep.signals.filters", "_apply", "FFTs of the filter"),
    ("eegprep.signals.filters", "band_pass", "rest of the filter"),
    ("eegprep.signals.process", "summarise", "spectra and deviations"),
    ("eegprep.signals.gates", "gate_raw", "gates"),
    ("eegprep.download.fetch", "check", "SHA-256 of the sources"),
    ("eegprep.sources.reading", "open_content", "EDF: header, annotations"),
    ("eegprep.readers.edf", "_signal", "EDF: samples"),
    ("eegprep.signals.windows", "make_windows", "windows: cut and padded"),
    ("eegprep.store.writer", "SubjectWriter._check", "windows: all finite?"),
    ("eegprep.store.group", "WindowsWriter.append", "windows: zstd frame, crc32c"),
    ("eegprep.store.group", "_ShardFile._put", "windows: SHA-256, write"),
    ("eegprep.store.writer", "SubjectWriter.commit", "metadata of subjects, publishing"),
    ("eegprep.steps.target", "CorpusTarget.finish", "metadata of the store"),
]


def profile(pattern: str, rounds: int = 7) -> None:
    """Shares of the processor time of one build, and how long it waits for the disk; medians over rounds."""
    spent: dict[str, list[float]] = defaultdict(list)
    inner: list[float] = [0.0]
    now: dict[str, float] = defaultdict(float)

    def timed(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            start = time.thread_time()
            inner.append(0.0)
            try:
                return function(*values, **named)
            finally:
                used = time.thread_time() - start
                now[stage] += used - inner.pop()
                inner[-1] += used

        return call

    undo: list[tuple[Any, str, Any]] = []
    for module, name, stage in STAGES:
        *inside, last = name.split(".")
        owner = importlib.import_module(module)
        for part in inside:
            owner = getattr(owner, part)
        undo.append((owner, last, getattr(owner, last)))
        setattr(owner, last, timed(getattr(owner, last), stage))
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(rounds + 1):
                shutil.rmtree(Path(folder) / "a.zarr", ignore_errors=True)
                now.clear()
                wall, cpu, process = time.perf_counter(), time.thread_time(), time.process_time()
                eegprep.build(f"files:{pattern}", Path(folder) / "a.zarr")
                wall, cpu, process = time.perf_counter() - wall, time.thread_time() - cpu, time.process_time() - process
                now["other: jobs, records, events"] = cpu - sum(now.values())
                now["threads that bring files to the disk"] = process - cpu
                if number:
                    for stage, seconds in {**now, "all": process, "wall": wall}.items():
                        spent[stage].append(seconds)
    finally:
        for owner, last, function in undo:
            setattr(owner, last, function)
    total, wall = median(spent.pop("all")), median(spent.pop("wall"))
    print(f"\nprofile: {total:.3f} s of processor time, {wall:.3f} s by the clock; medians of {rounds} builds")
    for stage, values in sorted(spent.items(), key=lambda item: -median(item[1])):
        print(f"  {stage:40s} {median(values) * 1e3:7.1f} ms {median(values) / total:6.1%}")


# --- what bounds it ----------------------------------------------------------------------------------------------


def _least(work: Callable[[], object], times: int = 9) -> float:
    values = []
    for _ in range(times):
        start = time.thread_time()
        work()
        values.append(time.thread_time() - start)
    return min(values)


def bound(files: list[Path], pattern: str) -> None:
    """The work that cannot be left out, each at the rate that this core reaches alone, against what a build takes."""
    from eegprep.readers import edf
    from eegprep.signals import filters

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.zarr"
        builds = []
        for _ in range(6):
            shutil.rmtree(out, ignore_errors=True)
            start = time.process_time()
            eegprep.build(f"files:{pattern}", out)
            builds.append(time.process_time() - start)
        stored = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        read = sum(file.stat().st_size for file in files)
        flops, transforms, samples = 0.0, 0.0, 0
        for file in files:
            header = edf.read_header(file)
            count, channels = header.records * max(header.samples), sum(each == max(header.samples) for each in header.samples)
            sfreq = max(header.samples) / header.seconds
            band = filters.effective_band(sfreq)
            taps = 1 if band is None else len(filters.design_band_pass(sfreq, band.low, band.high))
            n_fft, blocks = filters.block_length(count, taps)
            flops += channels * blocks * 2 * 2.5 * n_fft * np.log2(n_fft)
            samples += channels * count
            batch = np.ones((32, n_fft), np.float32)
            each = _least(lambda batch=batch: filters._apply(batch, np.ones(batch.shape[1] // 2 + 1, np.float32)), 5)
            transforms += each / 32 * channels * blocks
        block = np.random.default_rng(0).bytes(131_072)
        hashed = _least(lambda: [hashlib.sha256(block) for _ in range(64)]) / 64 / len(block)
        checked = _least(lambda: [google_crc32c.value(block) for _ in range(64)]) / 64 / len(block)
        target = Path(folder) / "w"
        written = _least(lambda: _write(target, block, 256), 5) / 256 / len(block)
        signal = np.empty((64, samples // 64), np.float32)
        integers = np.ones(signal.shape, np.int16)
        converted = _least(lambda: np.multiply(integers, np.float32(1), out=signal, casting="unsafe"), 5)
        parts = {
            f"FFTs, {flops / 1e9:.2f} GFlop": transforms,
            f"SHA-256 of {(read + stored) / 1e6:.0f} MB read and written": (read + stored) * hashed,
            f"writing {stored / 1e6:.0f} MB to the page cache": stored * written,
            f"crc32c of {stored / 1e6:.0f} MB": stored * checked,
            f"{samples / 1e6:.0f} M integers to float32": converted,
        }
        least = sum(parts.values())
        print(
            f"\nbound, processor time of one core: {least:.3f} s; a build takes {median(builds):.3f} s, {median(builds) / least:.2f} x the bound"
        )
        for name, seconds in parts.items():
            print(f"  {name:44s} {seconds:7.3f} s")


def _write(target: Path, block: bytes, count: int) -> None:
    with target.open("wb") as file:
        for _ in range(count):
            file.write(block)
