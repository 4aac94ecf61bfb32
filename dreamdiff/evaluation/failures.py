"""Picks failures in which shape or colour, but not the category, was right (paper, Figure 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from dreamdiff.arrays import Array
from dreamdiff.evaluation.result import Material

FAILURES = 12

NEAR = 0.9  # a likeness counts when it exceeds that of 90 % of unrelated pairs


@dataclass(frozen=True)
class Failure:
    """A sample that the judge calls something else, and what it has in common with the shown image.

    kind: "shape and colour", "shape", "colour" or "neither", as in the paper's Fig. 6.
    """

    trial: int
    sample: int
    true: int
    called: int
    kind: str
    shape: float
    colour: float


def failures(material: Material) -> list[Failure]:
    """All wrong samples, by what they share with the shown image.

    Colour: overlap of histograms of 4 x 4 x 4 colours, white left out. Shape: correlation of 16 x 16 edge maps. A likeness counts when it is
    beyond the 90th percentile of the same measure between generated images and images of other trials (ours; the paper
    sorts its examples by eye).
    """
    if material.judged_NSC is None:
        return []
    called_NS = material.judged_NSC.argmax(2)
    n, s = called_NS.shape
    flat = material.images_NSHWC.reshape(n * s, *material.images_NSHWC.shape[2:])
    colour = histogram_overlap(flat, material.truth_NHWC).reshape(n, s, n)
    shape = edge_correlation(flat, material.truth_NHWC).reshape(n, s, n)
    # unrelated: pictures of another category
    other = (material.labels_N[:, None] != material.labels_N[None])[:, None, :].repeat(s, 1)
    if not other.any():
        return []
    limit_colour, limit_shape = np.quantile(colour[other], NEAR), np.quantile(shape[other], NEAR)
    failed = []
    for i, j in zip(*np.nonzero(called_NS != material.labels_N[:, None]), strict=True):
        alike = [
            name
            for name, value, limit in (("shape", shape[i, j, i], limit_shape), ("colour", colour[i, j, i], limit_colour))
            if value > limit
        ]
        kind = " and ".join(alike) or "neither"
        failed.append(
            Failure(
                int(i),
                int(j),
                int(material.labels_N[i]),
                int(called_NS[i, j]),
                kind,
                float(shape[i, j, i]),
                float(colour[i, j, i]),
            )
        )
    return failed


def histogram_overlap(a_MHWC: Array, b_NHWC: Array) -> Array:
    """(M, N): shared share of colour histograms, 1 for the same colours in the same amounts."""
    a, b = (np.stack([_colours(image) for image in images]) for images in (a_MHWC, b_NHWC))
    return np.minimum(a[:, None], b[None]).sum(2)


def _colours(image_HWC: Array) -> Array:
    """Shares of 64 colours among pixels that are not white paper, which drawings share whatever they show."""
    coarse = image_HWC.reshape(-1, 3).astype(int) // 64
    inked = coarse[(coarse < 3).any(1)]
    codes = (inked if len(inked) else coarse) @ np.array([16, 4, 1])
    return np.bincount(codes, minlength=64) / len(codes)


def edge_correlation(a_MHWC: Array, b_NHWC: Array) -> Array:
    """(M, N): correlation of edge strength on a 16 x 16 grid."""
    a, b = (np.stack([_edges(image) for image in images]) for images in (a_MHWC, b_NHWC))
    return np.asarray(a @ b.T)


def _edges(image_HWC: Array) -> Array:
    grey = np.asarray(Image.fromarray(image_HWC).convert("L").resize((64, 64), Image.Resampling.BOX), float)
    down, across = np.gradient(grey)
    # strength of the edges, not their direction, on a grid that forgives small shifts
    cells = np.hypot(down, across).reshape(16, 4, 16, 4).mean((1, 3)).reshape(-1)
    cells = cells - cells.mean()
    return np.asarray(cells / max(float(np.linalg.norm(cells)), 1e-9))


def pick_failures(wrong: list[Failure]) -> list[Failure]:
    """A few of each kind, by turns, the likeliest first; at most one sample of a trial."""
    by_kind: dict[str, list[Failure]] = {}
    for one in sorted(wrong, key=lambda f: -(f.shape + f.colour)):
        same_kind = by_kind.setdefault(one.kind, [])
        if all(one.trial != other.trial for kind in by_kind.values() for other in kind):
            same_kind.append(one)
    picked: list[Failure] = []
    for turn in range(FAILURES):
        picked += [kind[turn] for kind in by_kind.values() if turn < len(kind)]
    return picked[:FAILURES]


def count_failures(wrong: list[Failure], material: Material) -> dict[str, float]:
    """Share of all samples that fail, by kind."""
    total = max(1, material.images_NSHWC.shape[0] * material.images_NSHWC.shape[1])
    kinds = ("shape and colour", "shape", "colour", "neither")
    return {kind: sum(one.kind == kind for one in wrong) / total for kind in kinds}
