"""How good the embedded generator is: an independent classifier's features against held-out drawings, and a contact sheet.

The judge is EfficientNet-Lite0 (ImageNet weights of the package registry), which no part of the embedded model was trained with.
`python -m tools.embedded_model.measure --out FOLDER` writes the sheet and a JSON with the rates.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dreamdiff.embedded import Split, captions, categories, load_images, paths
from dreamdiff.metrics.judges import load_classifier
from dreamdiff.metrics.measurement import bootstrap_interval
from eegprep.atomic import open_atomic, write_json
from tools.embedded_model.clip import load_clip, text_states
from tools.embedded_model.vae import load_vae

STEPS, GUIDANCE = 20, 3.0

LABEL_HEIGHT = 12


@torch.no_grad()
def generate(
    texts: Sequence[str], seeds: Sequence[int], *, sd: Path | None = None, clip: Path | None = None, unet: Any = None,
    steps: int = STEPS, guidance: float = GUIDANCE, batch: int = 40, scheduler: str = "dpm-solver++",
) -> NDArray[np.uint8]:  # fmt: skip
    """One 64-pixel image per text, (N, 64, 64, 3); image k depends on its text and its seed alone.

    Args:
        unet: instead of the one in `sd`.
        guidance: 1 for none (Ho and Salimans 2021).
    """
    from diffusers import UNet2DConditionModel

    from dreamdiff.diffusion.noise import load_scheduler, make_scheduler
    from dreamdiff.diffusion.sampling import Condition, decode, guided_sample, start_noise, to_uint8

    sd, clip = sd or paths().sd, clip or paths().clip
    vae, tower = load_vae(sd), load_clip(clip)
    if unet is None:
        unet = UNet2DConditionModel.from_pretrained(sd / "unet", torch_dtype=torch.float32, local_files_only=True).eval()
    sampler = make_scheduler(scheduler, load_scheduler(sd / "scheduler").config)
    known = dict(zip(sorted(set(texts)), text_states(tower, sorted(set(texts))), strict=True))
    empty = text_states(tower, [""])
    out = []
    for start in range(0, len(texts), batch):
        part = slice(start, start + batch)
        asked = torch.stack([known[text] for text in texts[part]])
        dice = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
        latents = guided_sample(
            unet, sampler, start_noise((4, 16, 16), dice, len(asked)), Condition(asked), Condition(empty.expand_as(asked)),
            scale=guidance, steps=steps,
        )  # fmt: skip
        out.append(to_uint8(decode(vae, latents)))
    return np.concatenate(out)


def features(images_NHWC: NDArray[np.uint8], judge: Any = None) -> NDArray[np.float64]:
    """Unit feature vectors (N, D) of the judge."""
    found_ND = (judge or load_classifier()).read(images_NHWC).features_ND.astype(float)
    return np.asarray(found_ND / np.linalg.norm(found_ND, axis=1, keepdims=True))


def centroids(split: Split, judge: Any = None) -> NDArray[np.float64]:
    """(40, D): direction of the mean feature of each category's drawings."""
    drawings = load_images(split)
    found_ND = features(drawings.images_NHWC, judge)
    means = np.stack([found_ND[drawings.labels_N == label].mean(0) for label in range(len(categories()))])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def nearest_category(images_NHWC: NDArray[np.uint8], centroids_KD: NDArray[np.float64], judge: Any = None) -> NDArray[np.int64]:
    """Label of the centroid with the largest cosine to each image's feature."""
    return np.asarray((features(images_NHWC, judge) @ centroids_KD.T).argmax(1))


def contact_sheet(images_NHWC: NDArray[np.uint8], names: Sequence[str], rows: int, columns: int = 8) -> Image.Image:
    """`rows` images of each category under its name; images are ordered category by category."""
    size = images_NHWC.shape[1]
    blocks = -(-len(names) // columns)
    sheet = Image.new("RGB", (columns * (size + 6), blocks * (rows * size + LABEL_HEIGHT + 6)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, name in enumerate(names):
        x, y = number % columns * (size + 6), number // columns * (rows * size + LABEL_HEIGHT + 6)
        draw.text((x, y), name[:13], fill="black")
        for row in range(rows):
            sheet.paste(Image.fromarray(images_NHWC[number * rows + row]), (x, y + LABEL_HEIGHT + row * size))
    return sheet


def main(arguments: list[str] | None = None) -> None:
    """Generate, judge, write."""
    parser = argparse.ArgumentParser(prog="python -m tools.embedded_model.measure", description="Judge the embedded generator.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4, help="images of each category")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--against", choices=["train", "held-out"], default="held-out", help="choose settings on train, report held-out"
    )
    given = parser.parse_args(arguments)
    names = categories()
    texts = [text for text in captions() for _ in range(given.images)]
    truth = np.repeat(np.arange(len(names)), given.images)
    made = generate(texts, range(given.seed, given.seed + len(texts)), steps=given.steps, guidance=given.guidance)
    judge = load_classifier()
    right = nearest_category(made, centroids(given.against, judge), judge) == truth
    with open_atomic(given.out / "contact-sheet.png") as file:
        contact_sheet(made, names, given.images).save(file, "PNG")
    per_category = {name: float(right[truth == label].mean()) for label, name in enumerate(names)}
    settings = {key: getattr(given, key) for key in ("images", "steps", "guidance", "seed", "against")}
    low, high = bootstrap_interval(right.astype(float), 0, groups_N=truth)  # whole categories are drawn
    write_json(
        given.out / "measure.json",
        {**settings, "rate": float(right.mean()), "interval": [low, high], "count": len(right), "per_category": per_category},
    )


if __name__ == "__main__":
    main()
