"""What this machine has, and whether the loader works on it: the facts a bug report needs."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from dreamdiff.pretraining.stream import WindowStream
from eegprep.folders import free_bytes
from eegprep.inspection.loader_check import START_METHODS, Check, check_reader, small_corpus
from eegprep.provenance import installed_version

PACKAGES = (
    *("eeg-dreamdiff", "torch", "diffusers", "transformers", "accelerate", "open_clip_torch", "torchmetrics", "safetensors"),
    *("mne", "moabb", "zarr", "numcodecs", "numpy", "scipy", "obstore", "peft", "gradio", "braindecode"),
)

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "TORCH_HOME", "MNE_DATA")


def examine(*, timeout: float = 60.0, folder: Path | None = None) -> dict[str, object]:
    """Versions, devices, offline state, and a self-test of the loader.

    Args:
        timeout: s for each part of the self-test.
        folder: where the free disk space is looked up; default the working folder.

    Returns:
        JSON values; `checks` holds one entry a test, `ok` whether all passed.
    """
    checks = [*check_reader(timeout), *check_stream(timeout)]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": versions(),
        "devices": devices(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "disk_free_gb": round(free_bytes(folder or Path.cwd()) / 1e9, 1),
        "offline": {name: os.environ.get(name) for name in OFFLINE},
        "checks": [asdict(check) for check in checks],
        "ok": all(check.ok for check in checks),
    }


def versions() -> dict[str, str | None]:
    """Installed versions; None for what is not installed."""
    return {name: installed_version(name) for name in PACKAGES}


def devices() -> list[dict[str, object]]:
    """What torch can compute on."""
    rows: list[dict[str, object]] = [
        {"device": "cpu", "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
         "bf16": cpu_multiplies_bf16()}
    ]  # fmt: skip
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        rows.append(
            {"device": f"cuda:{number}", "name": facts.name, "memory_gb": round(facts.total_memory / 1e9, 1),
             "bf16": torch.cuda.is_bf16_supported()}
        )  # fmt: skip
    if torch.backends.mps.is_available():
        rows.append({"device": "mps", "name": "Apple GPU"})
    return rows


def cpu_multiplies_bf16() -> bool:
    """Whether the processor has bf16 products (AVX512-BF16 or AMX): then `loop.precision=bf16` pays for wide encoders."""
    facts = Path("/proc/cpuinfo")
    return facts.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(facts.read_text(encoding="utf-8").split()))


def check_stream(timeout: float = 60.0) -> list[Check]:
    """The same batches from threads and from worker processes of every kind; a worker that hangs is reported."""
    with small_corpus() as path:
        stream = WindowStream(path, 8, pin_memory=False)
        expected = torch.cat([batch["index"] for batch in stream])
        complete = expected.sort().values.equal(torch.arange(len(stream.corpus)))
        checks = [Check("stream, threads", complete, "every window once" if complete else "windows are missing or repeated")]
        methods = START_METHODS if sys.platform != "win32" else ("spawn",)
        checks += [_check_workers(stream, expected, method, timeout) for method in methods]
    return checks


def _check_workers(stream: WindowStream, expected: torch.Tensor, method: str, timeout: float) -> Check:
    stream.set_epoch(0)
    try:
        order = torch.cat([batch["index"] for batch in stream.loader(2, context=method, timeout=timeout)])
    except Exception as error:  # whatever happens is a finding
        return Check(f"stream, 2 workers by {method}", False, f"{type(error).__name__}: {str(error).splitlines()[0]}")
    same = order.equal(expected)
    return Check(f"stream, 2 workers by {method}", same, "same batches" if same else "other batches than threads give")
