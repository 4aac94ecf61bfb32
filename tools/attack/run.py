"""Attack every command, store and reader, and print the table of outcomes: `make attack`.

    .venv/bin/python tools/attack/run.py [--quick] [--seed 0] [--only kills,flips] [--names build,corpus] [--write docs/reliability.md]

A full run takes about an hour on two cores: at least 500 kills, 200 injected errors, 500 flipped bits and 200 hostile files. `--quick`
takes less than two minutes and is part of the tests. Exit 0 when nothing was lost, silently wrong, crashed, written outside or over its limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import campaign  # noqa: E402
import targets_dreamdiff  # noqa: E402
import targets_eegprep  # noqa: E402

FULL = {"kills": 520, "errors": 240, "flips": 560}
QUICK = {"kills": 12, "errors": 24, "flips": 40}
BEGIN, END = "<!-- outcomes: written by tools/attack/run.py -->", "<!-- end of outcomes -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less than two minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(campaign.KINDS), help="kinds of attack")
    parser.add_argument("--names", default="", help="only what has one of these words in its name")
    parser.add_argument("--seconds", type=float, help="begin no new attack after this; default 100 with --quick, else 5400")
    parser.add_argument("--write", type=Path, help="put the table into this document")
    given = parser.parse_args()
    limit = given.seconds or (100.0 if given.quick else 5400.0)
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        tally = attack(Path(folder), given, limit)
    print(tally.table())
    for line in tally.bad:
        print(f"BAD {line}")
    if given.write:
        _write(given.write, tally, given.seed)
    return 1 if tally.bad else 0


def attack(work: Path, given: argparse.Namespace, limit: float) -> campaign.Tally:
    """All attacks that were asked for, each kind with an equal part of the time that is left."""
    os.environ.update(HOME=str(work), XDG_CACHE_HOME=str(work / "cache"), HF_HUB_OFFLINE="1", MNE_LOGGING_LEVEL="ERROR")
    counts, words = QUICK if given.quick else FULL, [word for word in given.names.split(",") if word]
    kinds = [kind for kind in campaign.KINDS if kind in given.only.split(",")]
    tally, end = campaign.Tally(), time.monotonic() + limit

    def chosen(what: str) -> list:  # type: ignore[type-arg]
        everything = [*getattr(targets_eegprep, what), *getattr(targets_dreamdiff, what)]
        return [item for item in everything if not words or any(word in item.name for word in words)]

    for number, kind in enumerate(kinds):
        deadline = time.monotonic() + (end - time.monotonic()) / (len(kinds) - number)
        items = chosen({"kills": "COMMANDS", "errors": "COMMANDS", "flips": "STORES", "files": "HOSTILE"}[kind])
        if given.quick:  # some of everything, others with another seed
            step = max(1, len(items) // (24 if kind == "files" else 2))
            items = items[given.seed % step :: step]
        for place, item in enumerate(items):
            seconds = (deadline - time.monotonic()) / (len(items) - place)
            if seconds <= 0 and kind == "files" and place:
                break
            one = campaign.Campaign(work, given.seed, seconds, tally)
            print(f"{kind}: {item.name}", file=sys.stderr, flush=True)
            if kind == "files":
                one.files(item)
            else:
                getattr(one, kind)(item, -(-counts[kind] // len(items)))
    return tally


def _write(path: Path, tally: campaign.Tally, seed: int) -> None:
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    sums = (
        f"{tally.signals} kills and interrupts in {tally.total('kills')} rounds, {tally.total('errors')} injected errors, "
        f"{tally.total('flips')} flipped bits and damaged files, {tally.total('files')} hostile files"
    )
    day = datetime.now(UTC).date().isoformat()
    path.write_text(f"{before}{BEGIN}\n{day}, seed {seed}: {sums}.\n\n{tally.table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
