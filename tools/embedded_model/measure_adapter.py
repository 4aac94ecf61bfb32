"""How good the embedded adapter is: pictures made from the image vectors of held-out drawings, judged and compared with those drawings.

`python -m tools.embedded_model.measure_adapter --out FOLDER` writes a JSON with the rates and a sheet: drawing, picture, two a category.

right: the nearest centroid of training drawings in EfficientNet-Lite0's features is the drawing's own category.
right where the vector is: the same among pictures whose vector lies nearest to its own category's direction.
follows: pairs (i, j) of drawings of one category whose vectors are right, s_ii + s_jj > s_ij + s_ji; chance 50 %. s_ij compares picture i with
    drawing j: minus the distance of the mean ink colours, or the correlation of the pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dreamdiff.diffusion.adapters import load_adapter
from dreamdiff.diffusion.prior import Prior
from dreamdiff.diffusion.vector_generator import load_vector_generator
from dreamdiff.embedded import categories, load_images, paths
from dreamdiff.metrics.judges import load_classifier
from dreamdiff.metrics.measurement import bootstrap_interval
from eegprep.atomic import open_atomic, write_json
from tools.embedded_model.adapter import Space, vectors
from tools.embedded_model.clip import load_clip
from tools.embedded_model.measure import GUIDANCE, STEPS, centroids, nearest_category
from tools.embedded_model.pictures import to_signed

Images = NDArray[np.uint8]


def ink_colour(images_NHWC: Images) -> NDArray[np.float64]:
    """(N, 3) mean colour of what is not white paper, as distance from white."""
    ink = 255.0 - images_NHWC.astype(float)
    mask = ink.max(3, keepdims=True) > 25
    return np.asarray((ink * mask).sum((1, 2)) / np.maximum(mask.sum((1, 2)), 1))


def standard(images_NHWC: Images) -> NDArray[np.float64]:
    """(N, pixels) centred, length 1: products are correlations."""
    flat = images_NHWC.reshape(len(images_NHWC), -1).astype(float)
    flat -= flat.mean(1, keepdims=True)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))


def follows(likeness_NN: NDArray[np.float64], labels_N: NDArray[np.int64]) -> tuple[float, int]:
    """Share of pairs within a category in which each picture goes with its own drawing, and the number of pairs."""
    s = likeness_NN
    pairs = [(i, j) for i in range(len(s)) for j in range(i) if labels_N[i] == labels_N[j]]
    return float(np.mean([s[i, i] + s[j, j] > s[i, j] + s[j, i] for i, j in pairs])), len(pairs)


def main(arguments: list[str] | None = None) -> None:
    """Generate, judge, write."""
    parser = argparse.ArgumentParser(prog="python -m tools.embedded_model.measure_adapter")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4, help="pictures of each category")
    parser.add_argument("--prior", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0, help="of the attention of the adapter as it was written")
    given = parser.parse_args(arguments)
    clip, held = load_clip(paths().clip), load_images("held-out")
    space, adapter = Space(clip), load_adapter("embedded")
    seen = vectors(clip, to_signed(held.images_NHWC))
    own = np.concatenate([np.resize(np.flatnonzero(held.labels_N == label), given.images) for label in range(len(categories()))])
    truth = held.labels_N[own]
    known = (space.direction(seen) @ space.words.keys_KD.T).argmax(1).numpy()[own] == truth
    make: Any = load_vector_generator("embedded", scheduler="dpm-solver++", adapter_scale=given.scale)
    read = seen[own] if not given.prior else Prior(adapter.bank_ND)(seen[own])  # type: ignore[arg-type]
    dice = [torch.Generator().manual_seed(seed) for seed in range(len(own))]
    made = np.concatenate(
        [make(read[i : i + 40], dice[i : i + 40], steps=STEPS, guidance=GUIDANCE) for i in range(0, len(own), 40)]
    )
    judge = load_classifier()
    right = nearest_category(made, centroids("train", judge), judge) == truth
    first = np.unique(own, return_index=True)[1]
    first = first[known[first]]
    drawings = held.images_NHWC[own[first]]
    distance = -np.linalg.norm(ink_colour(made[first])[:, None] - ink_colour(drawings)[None], axis=2)
    colour, pairs = follows(distance, truth[first])
    pixels, _ = follows(standard(made[first]) @ standard(drawings).T, truth[first])
    low, high = bootstrap_interval(right.astype(float), 0, groups_N=truth)
    result = {
        "images": len(own), "prior": given.prior, "scale": given.scale, "right": float(right.mean()), "interval": [low, high], "vectors_right": float(known.mean()),
        "right_where_vector_is": float(right[known].mean()), "pairs": pairs, "follows_colour": colour, "follows_pixels": pixels,
        "missed": {name: int(n) for label, name in enumerate(categories()) if (n := (~right & (truth == label)).sum())},
    }  # fmt: skip
    write_json(given.out / "measure.json", result)
    print(result)
    rows = [np.concatenate([held.images_NHWC[own[i]], made[i]], 1) for i in range(len(made)) if i % given.images < 2]
    sheet = np.concatenate([np.concatenate(rows[i : i + 10], 0) for i in range(0, len(rows), 10)], 1)
    with open_atomic(given.out / "sheet.png") as file:
        Image.fromarray(sheet).save(file, "PNG")


if __name__ == "__main__":
    main()
