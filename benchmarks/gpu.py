"""Everything that only a GPU can say, in one command: at most 9 minutes on one H100, random weights, no data beyond the package.

    python benchmarks/gpu.py [--device cuda] [--json gpu.json] [--only msm,loader] [--minutes 9]
    python benchmarks/gpu.py --tiny            # a dry run on two CPU cores: small sizes, the same code

Prints a table with the card's name and writes JSON. A goal that is missed says MISSED; figures of a dry run are no measurements of speed.
Exit status 1: a check failed, or a goal of correctness was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # products that are the same in every run, for exact continuation
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own messages

import diffusers
import torch
from gpu_bench.bench import CORRECTNESS, Bench
from gpu_bench.soundness import check_equal, check_halts, check_memory, check_resume
from gpu_bench.speed import check_align, check_finetune, check_generate, check_loader, check_msm, check_turbo

from dreamdiff.devices import choose_device, used

CHECKS: dict[str, Callable[[Bench], None]] = {
    "msm": check_msm,
    "loader": check_loader,
    "align": check_align,
    "finetune": check_finetune,
    "generate": check_generate,
    "turbo": check_turbo,
    "equal": check_equal,
    "resume": check_resume,
    "halts": check_halts,
    "memory": check_memory,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes on the CPU: a dry run")
    parser.add_argument("--only", help=f"some of {', '.join(CHECKS)}")
    parser.add_argument("--minutes", type=float, default=9.0, help="no check begins after so long")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()  # it warns about precisions that are asked for here
    device = choose_device("cpu" if options.tiny else options.device)
    started, failed, skipped, seconds = time.monotonic(), {}, [], {}
    facts = used(device, "bf16" if device.type == "cuda" else "fp32")
    dry = ", DRY RUN at small sizes: no measurement of speed" if options.tiny else ""
    print(f"{facts.get('device_name', device)}, PyTorch {torch.__version__}{dry}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, options.tiny, Path(folder))
        for name in options.only.split(",") if options.only else CHECKS:
            if time.monotonic() - started > 60 * options.minutes:
                skipped.append(name)
                continue
            begun = time.monotonic(), time.process_time()
            try:
                CHECKS[name](bench)
            except Exception as error:  # a check that fails must not cost the others their turn on a lent card
                failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
                print(f"{name}: FAILED, {failed[name]}")
            seconds[name] = {"wall": round(time.monotonic() - begun[0], 2), "cpu": round(time.process_time() - begun[1], 2)}
            if device.type == "cuda":
                torch.cuda.empty_cache()
    missed = [row for row in bench.rows if row["met"] is False]
    content = {
        "dry_run": options.tiny,
        "computed": facts,
        "torch": torch.__version__,
        "rows": bench.rows,
        "seconds": seconds,
        "failed": failed,
        "skipped": skipped,
    }
    options.json.write_text(json.dumps(content, indent=2))
    spent = ", ".join(f"{name} {of['wall']:g} / {of['cpu']:g}" for name, of in seconds.items())
    print(f"seconds of wall and processor: {spent}")
    print(f"{len(bench.rows)} rows, {len(missed)} goals missed, {len(failed)} checks failed, {len(skipped)} left out for time")
    print(f"written to {options.json}")
    return 1 if failed or any(row["unit"] in CORRECTNESS for row in missed) else 0


if __name__ == "__main__":
    raise SystemExit(main())
