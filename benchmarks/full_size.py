"""Does the real size fit? Stable Diffusion 1.5 and CLIP ViT-L/14 with random weights: written to disk, imported, one step, one image.

    python benchmarks/full_size.py [--work FOLDER] [--size 256]

No weights can be had without a model hub, so they are random; shapes, memory and time are those of the real model. Needs about
12 GB of memory and 7 GB of disk; the folder is removed afterwards unless it is given. Prints seconds and resident memory by part.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from dreamdiff.diffusion.noise import load_scheduler
from dreamdiff.diffusion.stable_diffusion import SD15_CONFIG
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.prepare import prepare
from dreamdiff.pairs.writer import PairsWriter
from dreamdiff.training.task import Draw
from eegprep.settings import resolve


def resident_gb() -> float:
    """Resident memory now, GB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


@contextmanager
def part(name: str) -> Iterator[None]:
    """Print what a part took."""
    started = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name:<44} {time.perf_counter() - started:7.1f} s   resident {resident_gb():5.1f} GB   peak {peak:5.1f} GB", flush=True
    )


def fill(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights of a sensible size without the cost of the usual initialisation."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.uniform_(-1, 1).mul_(parameter[0].numel() ** -0.5)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return module


def write_stable_diffusion(folder: Path) -> None:
    """A diffusers folder in the shape of SD 1.5."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    for kind, model_class in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        with torch.device("meta"):
            model = model_class.from_config(json.loads((SD15_CONFIG / kind / "config.json").read_text()))
        fill(model).save_pretrained(folder / kind)
        del model
        gc.collect()
    load_scheduler(SD15_CONFIG / "scheduler").save_pretrained(folder / "scheduler")


def write_clip(folder: Path) -> None:
    """An open_clip folder in the shape of OpenAI's ViT-L/14."""
    import open_clip

    config = open_clip.factory.get_model_config("ViT-L-14-quickgelu")
    model = open_clip.model.CLIP(**config)  # buffers such as the attention mask are made by the constructor
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}})
    )


def write_pairs(path: Path) -> None:
    """Four trials of noise."""
    rng = np.random.default_rng(0)
    with PairsWriter(path, recipe={"full": 1}, classes=["noise"], provenance="simulated", licence="CC0-1.0") as writer:
        writer.set_images(rng.integers(0, 256, (3, 256, 256, 3), dtype=np.uint8), ["a", "b", "c"])
        with writer.subject("s", "k", {"sfreq": 512.0, "t0": 0.0}) as target:
            eeg = (10 * rng.normal(size=(3, 128, 512))).astype(np.float32)
            target.add(eeg, image=np.arange(3), label=np.zeros(3, int))
        writer.finish({"train": [0, 1], "val": [2], "test": []})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        if not (work / "clip").exists():
            with part("write U-Net and VAE (random)"):
                write_stable_diffusion(work / "sd")
            with part("write CLIP ViT-L/14 (random)"):
                write_clip(work / "clip")
            gc.collect()
            write_pairs(work / "pairs.zarr")
        config = resolve(
            FinetuneConfig, presets=FINETUNE_PRESETS, preset="paper",
            assignments=[f"image_size={options.size}", "batch_size=1", "gradient_checkpointing=true", "guidance_dropout=0.1"],
        )  # fmt: skip
        with part("import, check, cache latents and CLIP vectors"):
            task = prepare(
                work / "pairs.zarr", "random:released", str(work / "sd"), str(work / "clip"), work / "run", config, offline=True
            )  # fmt: skip
            gc.collect()
        for row in task.trainable_table():
            print(f"    {row['part']:<28} {row['parameters'] / 1e6:8.2f} M, trained {row['trained'] / 1e6:7.2f} M")
        task.module.train()
        optimiser = torch.optim.AdamW(task.parameter_groups(0.01), lr=5.3e-5, fused=True)
        with part(f"one fine-tuning step, batch 1, {options.size} px"):
            batch = task.data.batch(task.data.parts["train"][:1])
            loss = task.step(batch, Draw(0, 0, batch["index"]))["loss"]
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        del optimiser
        gc.collect()
        task.module.eval()
        pipe = task.pipeline()
        pipe.set_progress_bar_config(disable=True)
        with part(f"one image, 4 steps, {options.size} px"):
            image = pipe(task.data.pairs.eeg([2]), num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images[0]
        print(f"image of {image.size}, loss {float(loss.detach()):.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"in all {time.perf_counter() - started:.0f} s, peak memory {peak:.1f} GB (limits 900 s, 20 GB)")


if __name__ == "__main__":
    main()
