"""Reads, decodes and hashes the images of a pairs store."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import zarr
from PIL import Image

from dreamdiff.pairs.decoding import decode_image
from dreamdiff.pairs.format import plain_attributes
from dreamdiff.sameness.copies import Copy, find_copies, sketch, stimulus_numbers
from eegprep.errors import DataError
from eegprep.provenance import sha256, sha256_array

# how `middle_square` makes a picture square; part of the key of whatever is cached of such a picture
SQUARE = "middle-square, bicubic"


def read_image_file(folder: Path, name: str) -> bytes:
    file = folder / name
    if not file.is_file():
        raise DataError(f"image {name!r} is missing from {folder}", "put it there, or name the folder that holds the images")
    return file.read_bytes()


def image_count(root: zarr.Group) -> int:
    return len(plain_attributes(root["images"])["names"])


def middle_square(pixels_HWC: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the middle square of an image, as CLIP's preprocessing takes it, so that a circle stays one."""
    height, width = pixels_HWC.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels_HWC[top : top + side, left : left + side])
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


class StoredImages:
    """The images of a store, checked against their SHA-256 when they are read."""

    def __init__(self, path: Path, root: zarr.Group, folder: str | os.PathLike[str] | None) -> None:
        node = root["images"]
        self.path = path
        self.compared = True  # whether copies of a picture under other names could be looked for
        self._attributes = plain_attributes(node)
        self.names: list[str] = self._attributes["names"]
        self.sha256: list[str] = plain_attributes(node)["sha256"]
        self._array = node if isinstance(node, zarr.Array) else None
        self._folder: Path | None = None
        if self._array is None:
            self._folder = Path(folder) if folder else path.resolve().parent / str(plain_attributes(node)["folder"])

    @property
    def paths(self) -> list[Path] | None:
        return None if self._folder is None else [self._folder / name for name in self.names]

    @cached_property
    def copies(self) -> list[Copy]:
        """Pairs of images that are one picture; compared now in stores that were made before this was written into them."""
        known = self._attributes.get("copies")
        if isinstance(known, list):
            try:
                result = [Copy(int(first), int(second), str(how), float(distance)) for first, second, how, distance in known]
            except (TypeError, ValueError):
                result = [Copy(-1, -1, "", 0.0)]
            if any(not 0 <= one.first < one.second < len(self.names) for one in result):
                raise DataError(f"{self.path}: what it says of copies of images does not fit its images", "make the store again")
            return result
        try:
            return find_copies([sketch(self.read(number, None)) for number in range(len(self.names))])
        except DataError:  # files of an older store that are not here; names still tell pictures apart
            self.compared = False
            return []

    @cached_property
    def stimulus(self) -> np.ndarray:
        """(m,) number of the first image that shows the same picture."""
        return stimulus_numbers(len(self.names), self.copies)

    def read(self, number: int, size: int | None) -> np.ndarray:
        if not 0 <= number < len(self.names):
            raise DataError(f"{self.path}: image {number} is outside 0..{len(self.names) - 1}", "ask for an image that is there")
        name = self.names[number]
        if self._array is not None:
            try:
                pixels = np.asarray(self._array[number])
            except (RuntimeError, ValueError, OSError) as error:
                raise DataError(f"{self.path}: image {name!r} is damaged ({error})", "make the store again") from error
            self._compare(name, sha256_array(pixels), self.sha256[number])
        else:
            assert self._folder is not None
            content = read_image_file(self._folder, name)
            self._compare(name, sha256(content), self.sha256[number])
            pixels = decode_image(content, name)
        if size is None or pixels.shape[:2] == (size, size):
            return pixels
        return middle_square(pixels, size)

    def _compare(self, name: str, digest: str, expected: str) -> None:
        if digest != expected:
            raise DataError(
                f"image {name!r} is not the one the store was made with (SHA-256 {digest[:12]}, expected {expected[:12]})",
                "restore the original image, or make the store again",
            )
