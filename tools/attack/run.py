"""Attack every command, store and reader, and print the table of outcomes: `make attack`.

    .venv/bin/python tools/attack/run.py [--quick] [--seed 0] [--only kills,flips] [--names build,corpus] [--workers 2]
                                         [--keep FOLDER] [--write docs/reliability.md]

A full run takes about an hour on two cores: at least 500 kills, 200 injected errors, 500 flipped bits and 200 hostile files. `--quick`
takes less than two minutes and is part of the tests. With `--keep` the outcomes stay in FOLDER: a campaign that was stopped goes on
there, and attacks that ended badly are tried again. Exit 0 when nothing was lost, silently wrong, crashed, written outside or over its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import os
import shutil
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parents[1] / "tests")]  # models and pairs of tiny size are those of the tests

import campaign  # noqa: E402
import journal  # noqa: E402

# in this order: beside PyTorch the workers of `eegprep` are started otherwise than a person's are
FULL = {  # a round of kills sends 1.75 signals on average
    "targets_eegprep": {"kills": 220, "errors": 160, "flips": 220},
    "targets_dreamdiff": {"kills": 100, "errors": 80, "flips": 340},
}
QUICK = {
    "targets_eegprep": {"kills": 8, "errors": 16, "flips": 20},
    "targets_dreamdiff": {"kills": 4, "errors": 8, "flips": 20},
}
LEAST = {"kills": 500, "errors": 200, "flips": 500, "files": 200}  # of a full campaign; a kill is a signal that was sent
FILE_WEIGHT = 0.05  # time of one hostile file, relative to all attacks of a kind on one target
BEGIN, END = "<!-- outcomes: written by tools/attack/run.py -->", "<!-- end of outcomes -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less than two minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(campaign.KINDS), help="kinds of attack")
    parser.add_argument("--names", default="", help="only what has one of these words in its name")
    parser.add_argument("--seconds", type=float, help="begin no new attack after this; default 100 with --quick, else 5400")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="make so many times as many attacks on each target, at least one"
    )
    parser.add_argument("--workers", type=int, default=2, help="targets that are attacked at the same time")
    parser.add_argument("--keep", type=Path, help="folder for the outcomes; a campaign that is in it goes on")
    parser.add_argument("--write", type=Path, help="put the table into this document")
    given = parser.parse_args()
    limit = given.seconds or (100.0 if given.quick else 5400.0)
    with tempfile.TemporaryDirectory(prefix="attack-", dir=_quick_disk()) as folder:
        keep = given.keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        book = journal.Journal(keep / f"outcomes-{given.seed}.jsonl")
        failed = attack(Path(folder), given, limit, book)
        book.clean()
        entries = book.entries()
    print(journal.table(entries))
    bad = [entry for entry in entries if entry.outcome in journal.BAD]
    for entry in bad:
        print(f"BAD {entry.kind}, {entry.name}, {entry.number}: {entry.outcome}: {entry.said}")
    for line in failed:
        print(f"NOT TRIED {line}")
    if given.write:
        _write(given.write, entries, given.seed)
    return 1 if bad or failed else 0


def _quick_disk() -> str | None:
    """A file system in memory where there is one: most of a small build is waiting for fsync, which no kill of a process can see."""
    shared = Path("/dev/shm")
    usable = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 4 << 30
    return str(shared) if usable else None


Job = tuple[Any, dict[str, int]]


def jobs_of(given: argparse.Namespace, module: str) -> list[Job]:
    """(target, how many attacks of which kind) of a module of targets; what is quick comes first."""
    targets = importlib.import_module(module)
    counts, words = (QUICK if given.quick else FULL)[module], [word for word in given.names.split(",") if word]
    found: dict[str, Job] = {}
    for kind in campaign.KINDS:
        if kind not in given.only.split(","):
            continue
        items = list(getattr(targets, {"kills": "COMMANDS", "errors": "COMMANDS", "flips": "STORES", "files": "HOSTILE"}[kind]))
        if given.quick:  # some of everything, others with another seed
            items = [item for item in items if kind == "files" or item.share >= 1]
            step = max(1, len(items) // (12 if kind == "files" else 2))
            items = items[given.seed % step :: step]
        each = given.scale * counts.get(kind, 0) / sum(getattr(item, "share", 1.0) for item in items)
        items = [item for item in items if not words or any(word in item.name for word in words)]
        if kind == "files" and given.scale < 1:
            items = items[:: round(1 / given.scale)]
        for item in items:
            job = found.setdefault(f"{type(item).__name__} {item.name}", (item, {}))
            job[1][kind] = max(1, math.ceil(each * getattr(item, "share", 1.0)))
    return sorted(found.values(), key=lambda job: -getattr(job[0], "share", 1.0))


def attack(work: Path, given: argparse.Namespace, limit: float, book: journal.Journal) -> list[str]:
    """Make all attacks that are still to be made, `workers` targets at a time; returns what could not be tried."""
    os.environ.update(HOME=str(work), XDG_CACHE_HOME=str(work / "cache"), HF_HUB_OFFLINE="1", MNE_LOGGING_LEVEL="ERROR")
    end, failed = time.monotonic() + limit, []
    for number, module in enumerate(FULL):
        until = time.monotonic() + (end - time.monotonic()) / (len(FULL) - number)
        failed += _all(work / module, given, jobs_of(given, module), until, book)
    return failed


def _all(work: Path, given: argparse.Namespace, jobs: list[Job], end: float, book: journal.Journal) -> list[str]:
    """These jobs, `workers` at a time; what there was no time for, or what ended by itself."""
    running: dict[int, str] = {}
    failed: list[str] = []

    def wait() -> None:
        pid, status = os.wait()
        if name := running.pop(pid, ""):
            failed.extend([name] if status else [])

    for number, (item, counts) in enumerate(jobs):
        while len(running) >= given.workers:
            wait()
        left = sum(FILE_WEIGHT if "files" in of else len(of) for _, of in jobs[number:])
        seconds = (end - time.monotonic()) * given.workers / left
        if seconds <= 0 and not given.quick:  # which makes one attack at least on everything that it has chosen
            failed.append(f"{item.name}: the time was over")
            continue
        print(f"{datetime.now(UTC):%H:%M:%S} {', '.join(counts)}: {item.name}", file=sys.stderr, flush=True)
        pid = os.fork()
        if pid == 0:
            _one(campaign.Campaign(work / f"{number:04d}", given.seed, seconds, book), item, counts)
        running[pid] = item.name
    while running:
        wait()
    return failed


def _one(one: campaign.Campaign, item: Any, counts: dict[str, int]) -> None:
    """A job, in a process of its own, which ends here."""
    code = 1
    try:
        one.work.mkdir(parents=True, exist_ok=True)
        for kind, count in counts.items():
            one.files(item) if kind == "files" else getattr(one, kind)(item, count)
        shutil.rmtree(one.work, ignore_errors=True)
        code = 0
    except BaseException as error:
        print(f"{item.name}: {error}", file=sys.stderr)
        if not isinstance(error, SystemExit):
            traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def _write(path: Path, entries: list[journal.Entry], seed: int) -> None:
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    counts = {"kills": sum(entry.signals for entry in entries)}
    counts |= {kind: journal.total(entries, kind) for kind in ("errors", "flips", "files")}
    sums = (
        f"{counts['kills']} kills and interrupts in {journal.total(entries, 'kills')} tries, {counts['errors']} injected errors, "
        f"{counts['flips']} flipped bits and damaged files, {counts['files']} hostile files"
    )
    if any(counts[kind] < least for kind, least in LEAST.items()):
        sums += ". This campaign was stopped before its end: a full one makes at least " + ", ".join(
            f"{least} {kind}" for kind, least in LEAST.items()
        )
    day = datetime.now(UTC).date().isoformat()
    path.write_text(f"{before}{BEGIN}\n{day}, seed {seed}: {sums}.\n\n{journal.table(entries)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
