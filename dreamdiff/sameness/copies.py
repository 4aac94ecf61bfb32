"""Which pictures are one picture under several names: the same pixels in another file, another size, another compression.

A picture in training and its copy in the test part are one stimulus, whatever the files are called. Equal pixels are found by their SHA-256, near
copies by a perceptual hash: the slow part of the cosine transform of the brightness (Zauner 2010, "pHash"; kept as numbers, where signs alone
are noise in drawings), and the colours of a 4 x 4 version, which tell apart two drawings that differ in colour alone. A picture that lost a pixel
or two at its edges is shifted and stretched, which the hash does not forgive: pairs that are near are laid over each other first (Lucas and Kanade 1981).
Shapes: M pictures, H W pixels, S pixels of the small version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import affine_transform

from eegprep.provenance import sha256_array

SIDE, SLOW, COLOURS = 32, 12, 4  # pixels of the small version, cosines in either direction, pixels of the version for colours
BRIGHTNESS = np.array([0.299, 0.587, 0.114])  # Rec. 601
# Limits, measured on photographs, noise and 257 drawings of 64 pixels. Copies by JPEG of quality 50 and more, half, third and threefold size stay
# below; the nearest two different drawings are above one of the two.
SAME_SHAPE = 1.8e-3  # one minus the correlation of slow cosines
SAME_COLOUR = 13.0  # grey levels, the largest difference in any channel
# Pairs within the first two limits are laid over each other; those within the others are copies. 98 of 100 drawings of 64 pixels that lost a pixel at one or at all
# edges are; of the 81 nearest pairs of different drawings, of 1,176 by five hands, none is within half as much again.
NEAR_SHAPE, NEAR_COLOUR = 0.06, 26.0
MOST_MOVED = 2.0  # pixels of the small version, shift or stretch over the whole picture
LAID_SHAPE, LAID_COLOUR = 3e-3, 6.0


@dataclass(frozen=True)
class Sketch:
    """What is kept of a picture to compare it: SHA-256 of shape and pixels, the small version, (SLOW^2 - 1,) unit vector of cosines, (48,) colours."""

    pixels: str
    small_SSC: np.ndarray
    cosines: np.ndarray
    colours: np.ndarray


@dataclass(frozen=True)
class Copy:
    """Two pictures that are one. distance: one minus the correlation of the perceptual hashes; 0 for equal pixels."""

    first: int
    second: int
    how: str
    distance: float


def sketch(pixels_HWC: np.ndarray) -> Sketch:
    """Of a picture, (h, w, 3) uint8."""
    small = np.asarray(Image.fromarray(np.ascontiguousarray(pixels_HWC)).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return Sketch(sha256_array(pixels_HWC), small, *_hashes(small.astype(float)))


def _hashes(small_SSC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and colours; a picture without any shape has cosines of zero and is a copy of nothing but equal pixels."""
    slow = dctn(small_SSC @ BRIGHTNESS, norm="ortho")[:SLOW, :SLOW].reshape(-1)[1:]
    length = float(np.linalg.norm(slow))
    part = SIDE // COLOURS
    colours = small_SSC.reshape(COLOURS, part, COLOURS, part, 3).mean((1, 3)).reshape(-1)
    return (slow / length if length > 1 else 0 * slow).astype(np.float32), colours.astype(np.float32)


def find_copies(sketches: Sequence[Sketch]) -> list[Copy]:
    """All pairs of copies, the earlier picture first; of several with equal pixels each is named beside the first one."""
    result: list[Copy] = []
    first: dict[str, int] = {}
    for number, one in enumerate(sketches):
        if one.pixels in first:
            result.append(Copy(first[one.pixels], number, "equal pixels", 0.0))
        first.setdefault(one.pixels, number)
    kept = sorted(first.values())
    if len(kept) < 2:
        return result
    cosines = np.stack([sketches[k].cosines for k in kept])
    for start in range(0, len(kept), 512):
        distance = 1 - cosines[start : start + 512] @ cosines.T
        for row, column in np.argwhere(distance <= NEAR_SHAPE):
            a, b = kept[start + int(row)], kept[int(column)]
            colour = np.abs(sketches[a].colours - sketches[b].colours).max()
            if a >= b or colour > NEAR_COLOUR:
                continue
            how, apart = "resized or compressed", float(distance[row, column])
            if apart > SAME_SHAPE or colour > SAME_COLOUR:
                how, apart = "cropped", _apart_when_laid_over(sketches[a], sketches[b])
            if apart <= LAID_SHAPE:
                result.append(Copy(a, b, how, max(0.0, round(apart, 6))))
    return result


def _apart_when_laid_over(one: Sketch, other: Sketch, steps: int = 3) -> float:
    """Distance of the cosines after the shift and stretch, along both axes, that bring the first picture onto the second; infinite where that takes
    more than a crop moves, or leaves other colours."""
    first_SSC, second_SSC = one.small_SSC.astype(float), other.small_SSC.astype(float)
    middle, inner = (SIDE - 1) / 2, slice(2, -2)  # what a crop cut off is missing at the edges
    place = (np.arange(SIDE) - middle) / SIDE
    shift, stretch = np.zeros(2), np.zeros(2)  # pixels of the small version
    moved_SSC = first_SSC
    for _ in range(steps):
        down, right = np.gradient(moved_SSC, axis=(0, 1))
        slopes = (down, right, down * place[:, None, None], right * place[None, :, None])
        slopes_N4 = np.stack([slope[inner, inner].reshape(-1) for slope in slopes], axis=1)
        step = np.linalg.lstsq(slopes_N4, (second_SSC - moved_SSC)[inner, inner].reshape(-1), rcond=None)[0]
        shift, stretch = shift + step[:2], stretch + step[2:]
        if max(np.abs(shift).max(), np.abs(stretch).max()) > MOST_MOVED:
            return float("inf")
        scale = 1 + stretch / SIDE
        moved = [affine_transform(first_SSC[..., k], scale, middle * (1 - scale) + shift, mode="nearest") for k in range(3)]
        moved_SSC = np.stack(moved, axis=-1)
    cosines, colours = _hashes(moved_SSC)
    if np.abs(colours - _hashes(second_SSC)[1]).max() > LAID_COLOUR:
        return float("inf")
    return 1 - float(cosines @ other.cosines)


def stimulus_numbers(count: int, copies: Iterable[Copy]) -> np.ndarray:
    """(M,) picture -> the first picture that it is a copy of; its own number for all others."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for one in copies:
        a, b = sorted((root(one.first), root(one.second)))
        parent[b] = a
    return np.array([root(number) for number in range(count)], np.int64)


def copy_notes(
    copies: Sequence[Copy], names: Sequence[str], train_images: np.ndarray, test_images: np.ndarray, *, compared: bool = True
) -> list[str]:
    """A sentence on pictures that stand under several names, those between training and test first; none where there are none.

    Args:
        train_images, test_images: images of training and of test trials. compared: whether copies could be looked for.
    """
    if not compared:
        return ["the image files are not here: copies of a picture under other names were not looked for"]
    sides = [set(np.unique(numbers).tolist()) for numbers in (train_images, test_images)]
    between = [one for one in copies if all({one.first, one.second} & side for side in sides)]
    chosen = between or copies
    if not chosen:
        return []
    named = [f"{names[one.second]} is {names[one.first]} ({one.how}, distance {one.distance:.2g})" for one in chosen[:3]]
    where = "training and test show copies of one picture" if between else "some pictures are stored under several names"
    more = f", and {len(chosen) - 3} more" if len(chosen) > 3 else ""
    return [f"{where}: {', '.join(named)}{more}"]
