"""Ingestion against the script that a lab would write, and against other tools: the same recordings, the same filter, in one run.

    python benchmarks/ingest.py                              # the recordings that ship with the package
    python benchmarks/ingest.py --recordings FOLDER          # any folder of EDF files, as one person
    python benchmarks/ingest.py --people FOLDER              # a folder of folders of EDF files, one a person, e.g. all of eegmmidb
    python benchmarks/ingest.py --part chain --rounds 5      # one part only: filter, chain, peers, workers, bound, profile
    python benchmarks/ingest.py --large --scale              # also 128 channels x 1 kHz x 10 min, and 4 to 400 subjects

Everything runs on one thread of arithmetic (`workers` and MNE with joblib: on two processes). Rounds alternate between the competitors, so that a busy neighbour disturbs both alike; the
ratios are those of the medians over rounds, and those of the best rounds stand beside them (the best round of a script that writes
twice the bytes is one in which the system did not have to write them yet). What an earlier round left is removed before the clock starts.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import h5py
import mne
import numpy as np
import scipy.fft
from ingest_parts import bound, braindecode_zarr, mne_joblib, profile

import eegprep
from eegprep.catalogue.manifests import shipped_folder

mne.set_log_level("error")
ROUNDS = 7


def lab_script(files: list[Path], out: Path, low: float = 5.0, high: float = 95.0) -> None:
    """What is usually written: read, filter, slice, repeat channels, one HDF5 file."""
    with h5py.File(out, "w") as store:
        for file in files:
            raw = mne.io.read_raw(file, preload=True)
            raw.filter(low, min(high, 0.45 * raw.info["sfreq"]))
            signal = raw.get_data() * 1e6
            crops = [signal[:, start : start + 512] for start in range(0, signal.shape[1] - 511, 512)]
            repeats = -(-128 // len(signal))
            windows = np.stack([np.tile(crop, (repeats, 1))[:128] for crop in crops]).astype("float32")
            store.create_dataset(f"{file.parent.name}/{file.stem}", data=windows)


def cpu_seconds() -> float:
    """Of this process and of all that it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(work: Callable[[], None]) -> tuple[float, float]:
    """(wall-clock, CPU) seconds of one call."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - wall, cpu_seconds() - cpu


@dataclass(frozen=True)
class Times:
    """Seconds of all rounds of one competitor."""

    wall: list[float]
    cpu: list[float]


def in_turn(
    competitors: dict[str, Callable[[], None]], rounds: int = ROUNDS, clear: Callable[[], None] = lambda: None
) -> dict[str, Times]:
    """Times of each competitor, in alternating rounds; `clear` removes what the round before left."""
    result = {name: Times([], []) for name in competitors}
    for _ in range(rounds):
        for name, work in competitors.items():
            clear()
            wall, cpu = measure(work)
            result[name].wall.append(wall)
            result[name].cpu.append(cpu)
    return result


def show(title: str, times: dict[str, Times], base: str, *, processor: bool = True) -> None:
    """A table with ratios to `base`: above 1 is faster. processor: also of processor time, where all processes end with the work."""
    print(f"\n{title}; median seconds of {len(times[base].wall)} rounds, ratio of the medians (of the best rounds)")
    for name, result in times.items():
        cells = []
        units = [("wall", result.wall, times[base].wall), ("CPU", result.cpu, times[base].cpu)]
        for unit, own, theirs in units if processor else units[:1]:
            ratio, best = median(theirs) / median(own), min(theirs) / min(own)
            cells.append(f"{median(own):8.3f} s {unit} x{ratio:5.2f} (x{best:5.2f})")
        print(f"  {name:42s} {'   '.join(cells)}")


def filters(n_channels: int, sfreq: float, seconds: float) -> None:
    """The filter alone, one thread, equal output; and the floor of one forward and one inverse FFT."""
    signal = np.random.default_rng(0).standard_normal((n_channels, int(sfreq * seconds))).astype("float32") * 20
    double = signal.astype("float64")

    def floor() -> None:
        scipy.fft.irfft(scipy.fft.rfft(signal, axis=1), signal.shape[1], axis=1)

    times = in_turn(
        {
            "mne.filter.filter_data": lambda: _drop(mne.filter.filter_data(double, sfreq, 5.0, 95.0)),
            "eegprep.band_pass": lambda: _drop(eegprep.band_pass(signal, sfreq, 5.0, 95.0)),
            "floor: float32 FFT and back": floor,
        }
    )
    show(f"filter, {n_channels} channels x {sfreq:g} Hz x {seconds:g} s", times, "mne.filter.filter_data")
    share = median(times["eegprep.band_pass"].wall) / median(times["floor: float32 FFT and back"].wall)
    print(f"  eegprep takes {share:.2f} x the floor (bar: 3)")
    theirs, ours = mne.filter.filter_data(double, sfreq, 5.0, 95.0), eegprep.band_pass(signal, sfreq, 5.0, 95.0)
    error = (np.abs(ours - theirs).max(axis=1) / theirs.std(axis=1)).max()
    print(f"  largest difference {error:.1e} of a channel's deviation from MNE in float64 (bar: 1e-5)")


def _drop(value: object) -> None:
    del value


def chain(files: list[Path], pattern: str, title: str, rounds: int = ROUNDS) -> None:
    """Files to windows on disk."""
    with tempfile.TemporaryDirectory() as folder:
        h5, zarr = Path(folder) / "a.h5", Path(folder) / "a.zarr"

        def ours() -> None:
            eegprep.build(f"files:{pattern}", zarr)

        def clear() -> None:
            shutil.rmtree(zarr, ignore_errors=True)
            h5.unlink(missing_ok=True)

        ours()  # hashes the files, which is remembered
        show(
            title,
            in_turn({"lab script": lambda: lab_script(files, h5), "eegprep.build": ours}, rounds, clear),
            "lab script",
        )
        stored = sum(path.stat().st_size for path in zarr.rglob("*") if path.is_file())
        corpus = eegprep.Corpus.open(zarr)
        print(f"  store: {stored / (len(corpus) * 128 * 512 * 4):.3f} x the raw bytes of {len(corpus)} windows (bar: 0.6)")


def peers(files: list[Path], pattern: str, title: str, rounds: int) -> None:
    """The same windows by other tools, each as its documentation has it."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out"

        def clear() -> None:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()

        competitors = {
            "MNE + joblib, two processes": lambda: mne_joblib(files, target),
            "braindecode preprocess + zarr": lambda: braindecode_zarr(files, target / "b.zarr"),
            "eegprep.build, one worker": lambda: _drop(eegprep.build(f"files:{pattern}", target / "a.zarr")),
            "eegprep.build, two workers": lambda: _drop(eegprep.build(f"files:{pattern}", target / "a.zarr", workers=2)),
        }
        for work in competitors.values():  # imports, hashes and joblib's processes are there from then on
            clear()
            work()
        times = in_turn(competitors, rounds, clear)
        for base in ("MNE + joblib, two processes", "braindecode preprocess + zarr"):
            show(title, times, base, processor=False)


def workers(pattern: str, title: str, rounds: int) -> None:
    """One process against two."""
    with tempfile.TemporaryDirectory() as folder:
        zarr = Path(folder) / "a.zarr"

        def build(count: int) -> None:
            eegprep.build(f"files:{pattern}", zarr, workers=count)

        build(1)  # hashes the files, which is remembered
        times = in_turn(
            {"one worker": lambda: build(1), "two workers": lambda: build(2)},
            rounds,
            lambda: shutil.rmtree(zarr, ignore_errors=True),
        )
        show(title, times, "one worker")
        share = median(times["one worker"].cpu) / median(times["two workers"].cpu)
        print(f"  two workers on two free cores: at most x{2 * share:.2f}, from the CPU seconds of all processes (bar: 1.85)")


def large_recording(folder: Path, n_channels: int = 128, sfreq: int = 1000, minutes: int = 10) -> Path:
    """One recording of 128 channels, 1 kHz, 10 minutes, as EDF."""
    from edfio import Edf, EdfSignal

    rng = np.random.default_rng(0)
    n_samples = sfreq * 60 * minutes
    signals = [
        EdfSignal(np.clip(20 * rng.standard_normal(n_samples), -3000, 3000), sfreq, label=f"X{i}", physical_dimension="uV",
                  physical_range=(-3276.8, 3276.7))
        for i in range(n_channels)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    Edf(signals).write(folder / "sub-1_run-1.edf")
    return folder / "sub-1_run-1.edf"


def peak_memory(pattern: str) -> None:
    """Peak resident memory of a process that builds, above one that only has its libraries, against float64 size."""
    # VmHWM and not getrusage, which still counts what the parent had before it started this process
    code = (
        "import sys, eegprep, mne; mne.io.read_raw_edf; import mne.io.edf.edf\n"
        "peak = lambda: next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        "eegprep.steps.build(sys.argv[1], sys.argv[2])\n"
        "print(before * 1024, peak() * 1024)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, f"files:{pattern}", f"{folder}/c.zarr"]
        before, peak = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    raw = mne.io.read_raw(next(iter(sorted(Path(pattern).parent.glob(Path(pattern).name)))))
    size = len(raw.ch_names) * raw.n_times * 8
    print(f"  peak {(peak - before) / 1e6:,.0f} MB above the {before / 1e6:,.0f} MB of interpreter and libraries: "
          f"{(peak - before) / size:.2f} x the recording in float64 (bar: 2.5)")  # fmt: skip


def scaling(counts: tuple[int, ...] = (4, 40, 400)) -> None:
    """Synthetic recordings of more and more people: seconds a subject must not grow; and a re-run with nothing to do."""
    from edfio import Edf, EdfSignal

    print("\nscaling, 8 channels x 200 Hz x 30 s a subject")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for subject in range(max(counts)):
            signals = [
                EdfSignal(20 * rng.standard_normal(6000), 200, label=f"X{i}", physical_dimension="uV", physical_range=(-500, 500))
                for i in range(8)
            ]
            Edf(signals).write(root / f"sub-{subject:04d}.edf")
        for count in counts:
            names = ",".join(f"{subject:04d}" for subject in range(count))
            out = root / f"{count}.zarr"
            first, _ = measure(lambda names=names, out=out: _drop(eegprep.build(f"files:{root}/*.edf", out, subjects=names)))
            again, _ = measure(lambda names=names, out=out: _drop(eegprep.build(f"files:{root}/*.edf", out, subjects=names)))
            print(
                f"  {count:4d} subjects: {first:7.2f} s, {1000 * first / count:6.1f} ms each; again with nothing to do {again:.2f} s"
            )
    print(f"  peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


PARTS = ("filter", "chain", "peers", "workers", "bound", "profile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, default=shipped_folder() / "sample", help="folder of EDF files of one person")
    parser.add_argument("--people", type=Path, help="folder with a folder of EDF files for each person, instead")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--large", action="store_true", help="also one recording of 128 channels, 1 kHz, 10 minutes")
    parser.add_argument("--scale", action="store_true", help="also 4, 40 and 400 subjects")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    parts = options.part or PARTS

    if "filter" in parts:
        filters(64, 512.0, 120.0)
        filters(128, 1000.0, 120.0)
    with tempfile.TemporaryDirectory() as folder:
        files, pattern, each, many = _recordings(Path(folder), options.recordings, options.people)
        title = f"{len(files)} genuine EDF files"
        if "chain" in parts:
            chain(files, pattern, title, options.rounds)
        if "peers" in parts:
            peers(*each, f"{title}, a person each", options.rounds)
        if "workers" in parts:
            workers(many, "one and two workers, many people", options.rounds)
        if "bound" in parts:
            bound(files, pattern)
        if "profile" in parts:
            profile(pattern)
        if options.large:
            large = large_recording(Path(folder) / "large")
            chain([large], f"{large.parent}/*.edf", "one recording of 128 channels x 1 kHz x 10 min", 2)
            peak_memory(f"{large.parent}/*.edf")
    if options.scale:
        scaling()


def _recordings(folder: Path, recordings: Path, people: Path | None) -> tuple[list[Path], str, tuple[list[Path], str], str]:
    """Files of one person with their pattern; the same as one person each; and a pattern that finds thirteen times as many people."""
    if people is not None:
        files, pattern = sorted(people.rglob("*.edf")), f"{people}/**/*.edf"
        return files, pattern, (files, pattern), pattern
    files = sorted(recordings.rglob("*.edf"))
    one, each, many = folder / "one", folder / "each", folder / "many"
    for number in range(len(files) * 13):
        targets = [many / f"sub-{number:03d}.edf"]
        if number < len(files):
            targets += [one / f"sub-1_run-{number}.edf", each / f"sub-{number:03d}.edf"]
        for target in targets:
            target.parent.mkdir(exist_ok=True)
            # with its time of change: hashes of files that changed just now are not remembered
            shutil.copy2(files[number % len(files)], target)
    return sorted(one.glob("*.edf")), f"{one}/*.edf", (sorted(each.glob("*.edf")), f"{each}/*.edf"), f"{many}/*.edf"


if __name__ == "__main__":
    main()
