"""One picture under several names is one stimulus; two pictures are two, however alike they are."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamdiff import embedded
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from dreamdiff.sameness.copies import find_copies, sketch, stimulus_numbers


def smooth(rng: np.random.Generator, size: int = 96) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype("u1")).resize((size, size), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda image: image,
    "quality 90": lambda image: recompressed(image, 90),
    "quality 60": lambda image: recompressed(image, 60),
    "half": lambda image: image.resize((48, 48), Image.Resampling.LANCZOS),
    "threefold": lambda image: image.resize((288, 288)),
    "without its left column": lambda image: image.crop((1, 0, image.width, image.height)),
    "without its edges": lambda image: image.crop((1, 1, image.width - 1, image.height - 1)),
    "without a corner, at quality 80": lambda image: recompressed(image.crop((1, 1, image.width, image.height)), 80),
}
OF_EACH = 4
PLANTED = OF_EACH * len(WAYS)


def test_every_planted_copy_is_found_and_nothing_else():
    """Copies in every way among 60 photographs and all drawings of the package, which are alike in many ways: nine moons, four faces of one clock."""
    assert PLANTED >= 20
    rng = np.random.default_rng(0)
    pictures = [smooth(rng) for _ in range(60)]
    drawings = [image for part in ("train", "held-out") for image in embedded.load_images(part).images_NHWC]
    copies = [WAYS[way](pictures[OF_EACH * number + k]) for number, way in enumerate(WAYS) for k in range(OF_EACH)]

    found = find_copies([sketch(np.asarray(image)) for image in [*pictures, *drawings, *copies]])

    start = len(pictures) + len(drawings)
    assert {(one.first, one.second) for one in found} == {(k, start + k) for k in range(PLANTED)}
    assert {one.second - start for one in found if one.how == "equal pixels"} == set(range(OF_EACH))


def test_a_drawing_in_another_colour_is_another_picture():
    """Shape alone would make one stimulus of a red and a green apple."""
    picture = np.asarray(smooth(np.random.default_rng(1)))
    assert not find_copies([sketch(picture), sketch(picture[:, :, [2, 1, 0]])])
    assert not find_copies([sketch(np.full((8, 8, 3), grey, np.uint8)) for grey in (100, 101)])


def test_drawings_that_lost_their_edges_are_found_and_their_likes_are_not():
    """The hardest pictures: 64 pixels, sharp edges. Of those that are cropped nearly all are found, and no drawing is taken for another one."""
    drawings = embedded.load_images("held-out").images_NHWC
    sketches = [sketch(drawing) for drawing in drawings]
    cropped = [sketch(drawing[1:-1, 1:-1]) for drawing in drawings]

    assert not find_copies(sketches)
    count = len(drawings)
    found = {(one.first, one.second - count) for one in find_copies([*sketches, *cropped]) if one.second >= count > one.first}
    assert all(first == second for first, second in found)
    assert len(found) >= 0.95 * count


def test_copies_of_copies_are_one_stimulus():
    """The first of them gives the number."""
    rng = np.random.default_rng(2)
    image = np.asarray(smooth(rng))
    sketches = [
        sketch(np.asarray(smooth(rng))),
        sketch(image),
        sketch(image),
        sketch(np.asarray(Image.fromarray(image).resize((48, 48)))),
    ]
    assert stimulus_numbers(4, find_copies(sketches)).tolist() == [0, 1, 1, 1]


def copied_store(folder: Path, way: str) -> tuple[Path, list[str]]:
    """Eight pictures for training; the test part shows a copy of each under another name."""
    rng = np.random.default_rng(3)
    for k in range(8):
        image = smooth(rng)
        image.save(folder / f"train{k}.png")
        if way == "the same":
            shutil.copy(folder / f"train{k}.png", folder / f"test{k}.png")
        else:
            WAYS[way](image).save(folder / f"test{k}.bmp")
    names = sorted(p.name for p in folder.glob("t*"))
    writer = PairsWriter(
        folder / "p.zarr", recipe={}, classes=["x", "y"], provenance="recorded", licence="CC0", channels=2, samples=8
    )
    writer.set_image_files(folder, names)
    with writer.subject("a", "k", {"sfreq": 100.0}) as target:
        columns = {"block": np.arange(16) % 4, "session": np.zeros(16, int), "onset": np.arange(16.0)}
        target.add(rng.normal(size=(16, 2, 8)).astype("f4"), image=np.arange(16), label=np.arange(16) % 2, **columns)
    part = {side: [k for k, name in enumerate(names) if side in name] for side in ("train", "test")}
    writer.finish({**part, "val": []})
    return folder / "p.zarr", names


@pytest.mark.parametrize("way", ["the same", "quality 90", "half", "without its edges"])
def test_audit_calls_copies_shared_and_names_them_and_splits_keep_them_together(tmp_path, way):
    """Files are renamed and resized on the way from the laboratory to the training folder."""
    path, names = copied_store(tmp_path, way)
    pairs = Pairs.open(path)

    report = pairs.audit()

    shared = {row.factor: row.n_shared for row in report.shared}
    assert shared["stimulus"] == 8 and report.verdict == "leaks"
    assert any("training and test show copies of one picture" in note and "train0.png" in note for note in report.notes)
    parts = pairs.split("stimulus")
    where: dict[str, set[str]] = {}
    for name, rows in parts.items():
        for row in rows:
            where.setdefault(names[row].split(".")[0][-1], set()).add(name)
    assert all(len(found) == 1 for found in where.values())


def test_stores_without_the_comparison_are_compared_when_they_are_read(tmp_path):
    """0.1.0 wrote none."""
    path, _ = copied_store(tmp_path, "half")
    before = Pairs.open(path)._images.stimulus.tolist()
    store = Pairs.open(path)
    store._images._attributes = {
        key: value for key, value in store._images._attributes.items() if key not in ("copies", "stimulus")
    }
    assert store._images.stimulus.tolist() == before and len(set(before)) == 8
    assert json.loads((path / "images" / "zarr.json").read_text())["attributes"]["copies"]
