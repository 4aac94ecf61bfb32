"""The small model and the drawings that ship with the package: a stand-in for Stable Diffusion, CLIP and ImageNet pictures.

`--sd embedded --clip embedded` read them through the same code as the large models.  The 40 categories are those of
ImageNet-EEG (Spampinato et al. 2017, section 3.1); the pictures are 64-pixel drawings, not photographs, and everything made
with them is a demonstration.  Nothing here imports torch; `train.py` beside this file makes the weights again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eegprep.errors import ModelError, UsageError
from eegprep.settings import suggest

Split = Literal["train", "held-out"]
HERE = Path(__file__).parent
SIZE = 64


@dataclass(frozen=True)
class Paths:
    """Where the parts of the embedded model lie.

    sd: a diffusers folder.  clip: an open_clip folder.  adapter: image vectors to what the U-Net reads.  images: sheets of drawings with index.json and licences.
    """

    sd: Path
    clip: Path
    adapter: Path
    images: Path


@dataclass(frozen=True)
class Drawings:
    """Drawings of one split, in a fixed order.

    images_NHWC: uint8 RGB on white.  labels_N: position in `categories()`.  records: per drawing its category, split, role
    ("generator" when the generator saw it), source set, name, creator and licence.
    """

    images_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    records: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def categories(self) -> list[str]:
        """Name of the category of each drawing."""
        return [record["category"] for record in self.records]


def paths() -> Paths:
    """Folders of the embedded model inside this installation."""
    return Paths(HERE / "sd", HERE / "clip", HERE / "adapter", HERE / "images")


@cache
def _index() -> Mapping[str, Any]:
    try:
        return dict(json.loads((HERE / "images" / "index.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise ModelError("the embedded drawings are not in this installation", "install the package again") from None


def categories() -> list[str]:
    """The 40 names, in the order of the labels."""
    return [entry["name"] for entry in _index()["categories"]]


def synsets() -> list[str]:
    """WordNet identifiers of the 40 categories, as in ImageNet-EEG's file names."""
    return [entry["synset"] for entry in _index()["categories"]]


def imagenet_indices() -> list[int]:
    """Positions of the 40 categories in the 1000 classes of ImageNet-1k."""
    return [int(entry["imagenet_index"]) for entry in _index()["categories"]]


def captions(category: str | None = None) -> list[str]:
    """Captions that the small CLIP was trained with: of one category, or the plain one of each of the 40."""
    if category is None:
        return [fill_caption(PLAIN_CAPTION, name) for name in categories()]
    if category not in categories():
        raise UsageError(
            f"there is no category {category!r}{suggest(category, categories())}", "see dreamdiff.embedded.categories()"
        )
    return [category.lower(), *(fill_caption(template, category) for template in TEMPLATES)]


PLAIN_CAPTION = "a drawing of {a} {name}"
TEMPLATES = (
    PLAIN_CAPTION,
    "a picture of {a} {name}",
    "an icon of {a} {name}",
    "{a} {name}",
    "a small drawing of {a} {name}",
)


def fill_caption(template: str, name: str) -> str:
    """A caption from a template with `{a}` and `{name}`: the article goes by the first letter, the name is in lower case."""
    return template.format(a="an" if name[:1].lower() in "aeiou" else "a", name=name.lower())


def load_images(split: Split = "train") -> Drawings:
    """Drawings of one split.

    Args:
        split: "train", or "held-out": drawings that no part of the embedded model was trained on.

    Raises:
        UsageError: another name.
        ModelError: the drawings are missing or do not fit their index.
    """
    if split not in get_args(Split):
        raise UsageError(
            f"there is no split {split!r}{suggest(split, get_args(Split))}", f"use one of {', '.join(get_args(Split))}"
        )
    records = tuple(record for record in _index()["drawings"] if record["split"] == split)
    sheet = HERE / "images" / f"{split}.png"
    try:
        with Image.open(sheet) as image:
            pixels = np.asarray(image.convert("RGB"))
    except OSError:
        raise ModelError(f"{sheet.name}: the embedded drawings are not readable", "install the package again") from None
    rows, columns = pixels.shape[0] // SIZE, pixels.shape[1] // SIZE
    if rows * columns < len(records):
        raise ModelError(
            f"{sheet.name} has room for {rows * columns} drawings, its index lists {len(records)}", "install the package again"
        )
    tiles = pixels.reshape(rows, SIZE, columns, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)
    names = categories()
    labels = np.array([names.index(record["category"]) for record in records], dtype=np.int64)
    return Drawings(np.ascontiguousarray(tiles[: len(records)]), labels, records)


def licences() -> dict[str, str]:
    """Source of drawings -> SPDX identifier of its licence."""
    return {str(name): str(entry["licence"]) for name, entry in _index()["sources"].items()}
