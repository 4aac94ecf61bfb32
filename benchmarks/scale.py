"""What more people cost: opening, planning, doing nothing, memory and the quality of shuffling, at 100 to 10,000 people.

    python benchmarks/scale.py                                1,000 people and 100,000 windows (a few minutes)
    python benchmarks/scale.py --people 10000 --folder DIR    10,000 people and a million windows; DIR keeps them for the next call
    python benchmarks/scale.py --json FILE

Everything is simulated: tiny windows (4 channels, 32 samples) in true groups, and EDF files of eight seconds. What grows with people and windows
(metadata, tables, the plan, the permutation) is as large as with real recordings; what grows with bytes is measured by `loader.py` and
`ingest.py`. Times are processor time of this process and wall time. The figures in docs/scale.md come from here.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import eegprep
from eegprep.steps.build import plan

WINDOWS = 100  # of a person
_STREAM = """
import json, resource, sys, time
import numpy as np
from dreamdiff import WindowStream
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
before, began = peak(), time.process_time()
stream = WindowStream(sys.argv[1], batch_size=64, seed=0)
batches = iter(stream)
first = next(batches)
began = time.process_time() - began
people = [len(set((next(batches)["index"] // int(sys.argv[2])).tolist())) for _ in range(20)]
print(json.dumps({"first_batch_s": began, "before_mb": before, "peak_mb": peak(), "people_a_batch": float(np.mean(people))}))
"""


def timed(action: Callable[[], Any]) -> tuple[float, float]:
    """(processor seconds, wall seconds), the least of three."""
    best = (float("inf"), float("inf"))
    for _ in range(3):
        processor, wall = time.process_time(), time.perf_counter()
        action()
        best = min(best, (time.process_time() - processor, time.perf_counter() - wall))
    return best


def corpus_of(folder: Path, people: int) -> Path:
    """A corpus of that many people, made once."""
    out = folder / f"{people}.zarr"
    if not out.is_dir():
        draw = np.random.default_rng(0).standard_normal((WINDOWS, 4, 32)).astype(np.float32)

        def everybody() -> Iterator[dict[str, Any]]:
            for number in range(people):
                yield {"subject": f"{number:05d}", "windows": draw}

        eegprep.from_arrays(out, everybody(), sfreq=64.0, pad_to=4)
    return out


def opened(out: Path) -> dict[str, float]:
    """Opening, tables, and a look at the metadata on disk."""
    corpus = eegprep.Corpus.open(out)
    cpu, wall = timed(lambda: eegprep.Corpus.open(out))
    with_tables, _ = timed(lambda: len(eegprep.Corpus.open(out).recordings))
    return {
        "people": len(corpus.subjects), "windows": len(corpus), "open_s": cpu, "open_wall_s": wall, "open_and_tables_s": with_tables,
        "root_mb": (out / "zarr.json").stat().st_size / 1e6, "files_a_person": sum(len(f) for _, _, f in os.walk(out)) / len(corpus.subjects),
    }  # fmt: skip


def streamed(out: Path) -> dict[str, float]:
    """The first batch, memory and how many people a batch of 64 holds, in a process of its own."""
    command = [sys.executable, "-c", _STREAM, str(out), str(WINDOWS)]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    people = len(eegprep.Corpus.open(out).subjects)
    # 64 draws from that many people, all alike: how many different ones are expected
    return {**answer, "people_of_a_perfect_draw": people * (1 - (1 - 1 / people) ** 64)}


def planned(folder: Path, people: int) -> dict[str, float]:
    """Plan, build and the same build again, of one EDF file a person."""
    from edfio import Edf, EdfSignal

    root = folder / f"edf-{people}"
    root.mkdir(exist_ok=True)
    noise = 20 * np.random.default_rng(0).standard_normal((8, 1024))
    made = [
        EdfSignal(row, 128, label=f"X{n}", physical_dimension="uV", physical_range=(-500, 500)) for n, row in enumerate(noise)
    ]
    first = root / "sub-00000.edf"
    if not first.is_file():
        Edf(made).write(first)
    content = first.read_bytes()
    for number in range(1, people):
        path = root / f"sub-{number:05d}.edf"
        if not path.is_file():
            path.write_bytes(content)
    source, out = f"files:{root}/*.edf", folder / f"built-{people}.zarr"
    recipe = {"min_channels": 4}
    planning, _ = timed(lambda: plan(source, out, **recipe))
    processor, wall = time.process_time(), time.perf_counter()
    if not out.is_dir():
        eegprep.build(source, out, **recipe)
    built = (time.process_time() - processor, time.perf_counter() - wall)
    again, _ = timed(lambda: eegprep.build(source, out, **recipe))
    return {"people": people, "plan_s": planning, "build_ms_a_person": 1000 * built[0] / people, "nothing_to_do_s": again}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=1000, help="at most so many; powers of ten below it are measured as well")
    parser.add_argument("--folder", type=Path, help="keeps what was simulated; a temporary folder when left out")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    result: dict[str, list[dict[str, float]]] = {"corpora": [], "files": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        counts = [n for n in (100, 1000, 10_000) if n < options.people] + [options.people]
        print("people   windows  root MB  open s  with tables s  first batch s  peak MB (before)  people in 64 windows (perfect)")
        for people in counts:
            out = corpus_of(folder, people)
            row = opened(out) | streamed(out)
            result["corpora"].append(row)
            print(
                f"{people:6d} {row['windows']:9,.0f} {row['root_mb']:8.2f} {row['open_s']:7.2f} {row['open_and_tables_s']:14.2f} "
                f"{row['first_batch_s']:14.2f} {row['peak_mb']:8.0f} ({row['before_mb']:.0f}) "
                f"{row['people_a_batch']:14.1f} ({row['people_of_a_perfect_draw']:.1f})"
            )
        print("\npeople  plan s  build ms a person  again, nothing to do s")
        for people in counts:
            row = planned(folder, people)
            result["files"].append(row)
            print(f"{people:6d} {row['plan_s']:7.2f} {row['build_ms_a_person']:18.1f} {row['nothing_to_do_s']:23.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"\npeak memory of this process {peak:,.0f} MB; goals at 10,000 people: open 1 s, plan 10 s, nothing to do 5 s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
