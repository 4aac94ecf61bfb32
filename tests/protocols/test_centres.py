"""Class centres for concepts that training never shows: other pictures of a concept, never the shown one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dreamdiff.certificates.judging import VectorJudge
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from dreamdiff.protocols.centres import centre_measurements, concept_centres
from eegprep.errors import DataError

CLASSES = ("red cup", "blue car", "green hat", "grey cat", "pink pig")


def picture(label, number):
    """Blocks of one's own; the brightest channel names the class."""
    blocks = np.random.default_rng([label, number]).integers(0, 90, (4, 4, 3), np.uint8)
    blocks[..., 0] += np.uint8(30 * label)
    return blocks.repeat(8, 0).repeat(8, 1)


@pytest.fixture
def store(tmp_path):
    """Two training concepts of three pictures; three test concepts with one shown picture each, two of which have another one that nobody saw."""
    writer = PairsWriter(
        tmp_path / "pairs.zarr", recipe={}, classes=CLASSES, provenance="simulated", licence="CC0", channels=2, samples=8
    )
    pictures = [(label, number) for label in range(2) for number in range(3)] + [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0)]
    writer.set_images(np.stack([picture(*one) for one in pictures]), [f"{label}-{number}" for label, number in pictures])
    image = np.array([0, 1, 2, 3, 4, 5, 6, 8, 10, 7, 9])
    label = np.array([pictures[k][0] for k in image])
    with writer.subject("a", "k", {"sfreq": 100.0}) as trials:
        trials.add(np.ones((11, 2, 8), np.float32), image=image, label=label)
    writer.finish({"train": np.arange(6), "val": np.array([9, 10]), "test": np.array([6, 7, 8])})
    return Pairs.open(tmp_path / "pairs.zarr")


TARGET = SimpleNamespace(
    compute=lambda images, _: np.stack([np.asarray(one, float).reshape(-1, 3)[:64].reshape(-1) for one in images])
)


def judge(store):
    taught = np.asarray(TARGET.compute([store.load_images([k])[0] for k in range(6)], []))
    return VectorJudge.of(taught, np.repeat([0, 1], 3), len(CLASSES), taught[:2], "pixels")


def test_a_concept_without_another_picture_is_named_and_never_stands_for_itself(store):
    """One of the three has only the picture that was shown."""
    parts = store.split()
    with pytest.raises(
        DataError, match=r"1 of 3 concepts have no pictures but the shown ones in the store \(the first is pink pig\)"
    ):
        concept_centres(store, TARGET, judge(store), parts["train"], parts["test"], None)


def test_centres_come_from_a_folder_without_copies_of_the_shown_picture(store, tmp_path):
    """The shown picture under another name and size is no further picture of its concept; folders may carry THINGS' numbers."""
    for number, label in enumerate((2, 3, 4)):
        folder = tmp_path / "more" / f"{number:05d}_{CLASSES[label].replace(' ', '_')}"
        folder.mkdir(parents=True)
        Image.fromarray(picture(label, 7)).save(folder / "other.png")
        Image.fromarray(picture(label, 0)).resize((64, 64)).save(folder / "copy.png")
    parts = store.split()

    held, centres, made_of = concept_centres(store, TARGET, judge(store), parts["train"], parts["test"], tmp_path / "more")

    assert held.tolist() == [2, 3, 4] and centres.shape == (3, 192)
    assert made_of.startswith("1 to 1 pictures each")
    own = judge(store).directions(TARGET.compute([picture(label, 7) for label in (2, 3, 4)], []))
    found = centre_measurements("x", own, np.array([2, 3, 4]), held, centres, made_of, np.arange(3), "pixels", 0)
    assert found[0].value == 1 and found[0].floor == pytest.approx(1 / 3) and found[0].name == "concept-centres/x/top-1"
