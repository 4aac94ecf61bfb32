"""Fine-tuning with caches and frozen weights against the authors' way, at equal loss, time and memory.

    python benchmarks/finetune.py [--size tiny|sd15] [--steps 6]

The peer: images go through VAE and CLIP at every step, and gradients are left on in the whole U-Net and in the CLIP tower, as in the
published code; its optimiser holds the same parameters as ours. Each side runs in a process of its own, on the same batches, noise and
steps, so that losses can be compared and peak memory belongs to it alone. Aims: 1.5 times the step rate, 60 % of the memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dreamdiff.diffusion.clip import load_clip
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.data import image_moments
from dreamdiff.finetuning.prepare import prepare
from dreamdiff.finetuning.task import FinetuneTask
from dreamdiff.pairs.writer import PairsWriter
from dreamdiff.training.task import Draw
from eegprep.settings import resolve


def write_inputs(work: Path, size: str) -> None:
    """Models with random weights and pairs of noise."""
    if size == "tiny":
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from tiny_models import tiny_clip, tiny_stable_diffusion

        tiny_stable_diffusion(work / "sd")
        tiny_clip(work / "clip")
    else:
        from full_size import write_clip, write_stable_diffusion

        write_stable_diffusion(work / "sd")
        write_clip(work / "clip")
    rng = np.random.default_rng(0)
    pixels = 32 if size == "tiny" else 256
    with PairsWriter(
        work / "pairs.zarr", recipe={"size": size}, classes=["noise"], provenance="simulated", licence="CC0-1.0"
    ) as writer:
        writer.set_images(rng.integers(0, 256, (16, pixels, pixels, 3), dtype=np.uint8), [str(k) for k in range(16)])
        with writer.subject("s", "k", {"sfreq": 512.0, "t0": 0.0}) as target:
            target.add((10 * rng.normal(size=(16, 128, 512))).astype(np.float32), image=np.arange(16), label=np.zeros(16, int))
        writer.finish({"train": list(range(15)), "val": [15], "test": []})


def make_task(work: Path, size: str) -> FinetuneTask:
    """The same task for both sides."""
    batch, encoder = (8, "random:tiny") if size == "tiny" else (1, "random:released")
    config = resolve(
        FinetuneConfig, presets=FINETUNE_PRESETS, preset="paper",
        assignments=[f"batch_size={batch}", f"image_size={32 if size == 'tiny' else 256}", "context_std=1.0"],
    )  # fmt: skip
    return prepare(work / "pairs.zarr", encoder, str(work / "sd"), str(work / "clip"), work / "run", config, offline=True)


def side(name: str, work: Path, size: str, steps: int) -> dict[str, object]:
    """Run one side; losses, median CPU seconds a step, peak memory in GB."""
    task = make_task(work, size)
    task.module.train()
    groups = task.parameter_groups(0.01)
    optimiser = torch.optim.AdamW(groups, lr=1e-5, fused=True)
    clip = None
    if name == "authors":
        clip = load_clip(str(work / "clip"))
        clip.model.requires_grad_(True)
        task.module.unet.requires_grad_(True)
    losses, times = [], []
    for number in range(steps):
        positions = task.data.parts["train"][(number * task.config.data.batch_size + np.arange(task.config.data.batch_size)) % 15]
        started = time.process_time()
        batch = task.data.batch(positions)
        if clip is not None:
            images = task.data.pairs.images(positions, size=task.image_size)
            with torch.no_grad():
                batch["moments"] = image_moments(task.model.vae, images)
            batch["clip"] = with_gradients(clip, images)
        loss = task.step(batch, Draw(0, number, batch["index"]))["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 0.5)
        optimiser.step()
        if clip is None:
            optimiser.zero_grad(set_to_none=True)
        else:  # their optimiser clears only what it holds; the other gradients stay and grow
            optimiser.zero_grad(set_to_none=False)
        times.append(time.process_time() - started)
        losses.append(float(loss.detach()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"losses": losses, "seconds": statistics.median(times[1:]), "peak_gb": peak}


def with_gradients(clip: object, images: np.ndarray) -> torch.Tensor:
    """Image vectors through a tower that is not under no_grad."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    transform = image_transform_v2(PreprocessCfg(**clip.preprocess), is_train=False)
    return torch.nn.functional.normalize(
        clip.model.encode_image(torch.stack([transform(Image.fromarray(i)) for i in images])), dim=-1
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["tiny", "sd15"], default="tiny")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--side", choices=["ours", "authors"])
    options = parser.parse_args()
    if options.side:
        print(json.dumps(side(options.side, options.work, options.size, options.steps)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        if not (work / "sd").exists():
            write_inputs(work, options.size)
        make_task(work, options.size)  # fills the caches, as a first epoch would
        result = {}
        for name in ("ours", "authors"):
            command = [
                sys.executable,
                __file__,
                "--side",
                name,
                "--work",
                str(work),
                "--size",
                options.size,
                "--steps",
                str(options.steps),
            ]
            result[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    ours, authors = result["ours"], result["authors"]
    apart = max(abs(a - b) for a, b in zip(ours["losses"], authors["losses"], strict=True))
    print(f"{options.size}: CPU seconds a step: ours {ours['seconds']:.3f}, authors' way {authors['seconds']:.3f}, "
          f"{authors['seconds'] / ours['seconds']:.2f} times the rate (aim 1.5)")  # fmt: skip
    print(
        f"peak memory: {ours['peak_gb']:.2f} GB against {authors['peak_gb']:.2f} GB, {ours['peak_gb'] / authors['peak_gb']:.0%} (aim 60 %)"
    )
    print(f"losses differ by at most {apart:.2g} over {options.steps} steps")


if __name__ == "__main__":
    main()
