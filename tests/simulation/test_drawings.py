"""Concepts from icon sets: test concepts and the hand that draws them are new, copies are refused, licences are carried along."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dreamdiff.simulation import drawings
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.simulate import simulate
from eegprep.errors import DataError, ModelError, UsageError


def icon_set(folder: Path, name: str, concepts: list[str], licence: str, colour: str) -> None:
    """A folder as npm unpacks it."""
    place = folder / "node_modules" / "@iconify-json" / name
    place.mkdir(parents=True)
    icons = {concept: {"body": f"{name}|{concept}|{colour}"} for concept in concepts}
    (place / "icons.json").write_text(json.dumps({"prefix": name, "icons": icons, "width": 32, "height": 32}))
    (place / "info.json").write_text(json.dumps({"license": {"spdx": licence}, "author": {"name": f"maker of {name}"}}))
    (place / "metadata.json").write_text(
        json.dumps({"categories": {"Objects": [c for c in concepts if c != "frown"], "Smileys & Emotion": ["frown"]}})
    )


@pytest.fixture
def icons(tmp_path, monkeypatch) -> Path:
    """Three sets of 12 objects; a renderer that makes a picture of its own of every body."""
    objects = [f"thing-{k}" for k in range(12)]
    icon_set(tmp_path, "noto", [*objects, "frown", "red-flag"], "Apache-2.0", "a")
    icon_set(tmp_path, "twemoji", objects, "CC-BY-4.0", "b")
    icon_set(tmp_path, "fxemoji", [name.replace("-", "") for name in objects[:9]], "Apache-2.0", "c")

    def svg_to_bytes(svg_string: str, width: int, height: int) -> bytes:
        rng = np.random.default_rng(list(svg_string.encode()))
        file = Path(tmp_path / "one.png")
        Image.fromarray(rng.integers(0, 256, (5, 5, 3)).astype("u1")).resize((width, height), Image.Resampling.BICUBIC).save(file)
        return file.read_bytes()

    monkeypatch.setitem(sys.modules, "resvg_py", SimpleNamespace(svg_to_bytes=svg_to_bytes))
    return tmp_path


def features(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)[:, ::97].astype(float)


def test_no_concept_and_no_hand_is_in_training_and_in_test(icons):
    """What 200 unseen concepts of THINGS-EEG2 are for."""
    images = drawings.drawn_images(icons, 12, 4, features=features)
    hands = np.array([name.split("/")[0] for name in images.names])
    assert set(hands[images.part_N == 2]) == {"twemoji"} and set(hands[images.part_N != 2]) == {"noto", "fxemoji"}
    concepts = [set(images.labels_N[images.part_N == part].tolist()) for part in range(3)]
    assert not concepts[0] & concepts[2] and not concepts[1] & concepts[2] and not concepts[0] & concepts[1]
    assert len(concepts[2]) == 4 == (images.part_N == 2).sum() and sum(map(len, concepts)) == 12 == len(images.classes)
    assert "twemoji (CC-BY-4.0, maker of twemoji)" in images.licence and "frown" not in images.classes


def test_what_the_sets_reach_is_named(icons):
    """A thousand concepts were asked for, and there are twelve."""
    with pytest.raises(DataError, match="these sets draw 12, 12 of them in twemoji"):
        drawings.drawn_images(icons, 1000, 200, features=features)
    with pytest.raises(UsageError, match="test drawings come from 'notto'"):
        drawings.drawn_images(icons, 12, 4, test_set="notto", features=features)
    with pytest.raises(DataError, match="no icon sets"):
        drawings.find_sets(icons / "nothing")


def test_a_test_drawing_that_is_a_copy_is_refused(icons, monkeypatch):
    """Two sets that share a drawing would put a training picture into the test part."""
    same = drawings.draw
    monkeypatch.setattr(drawings, "draw", lambda svg, name: same("one and the same", name))
    with pytest.raises(DataError, match="copies of training drawings"):
        drawings.drawn_images(icons, 12, 4, test_set="noto", features=features)


def test_without_a_renderer_the_fix_names_the_extra(icons, monkeypatch):
    """`pip install` of what is missing."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ModelError, match="resvg_py"):
        drawings.draw("<svg/>", "x")


def test_people_see_each_drawing_as_often_as_its_part_is_shown(icons, tmp_path):
    """Training drawings once, test drawings as often as they are averaged; the audit finds nothing shared."""
    images = drawings.drawn_images(icons, 12, 4, features=features)
    config = SimulateConfig(
        concepts=12, test_concepts=4, repetitions=2, test_repetitions=5, people=2, background="pink", sfreq=128, length=0.8
    )
    pairs = simulate(tmp_path / "twin.zarr", config, images=images)
    parts = pairs.split()
    counts = {part: np.unique(pairs.image[rows][pairs.person[rows] == 0], return_counts=True)[1] for part, rows in parts.items()}
    assert set(counts["train"]) == {2} and set(counts["val"]) == {2} and counts["test"].tolist() == [5, 5, 5, 5]
    report = pairs.audit()
    shared = {row.factor: row.n_shared for row in report.shared}
    assert shared["stimulus"] == shared["concept"] == shared["trial"] == 0 and pairs.provenance == "simulated"
    assert "concepts" not in SimulateConfig().recipe() and SimulateConfig(concepts=12).recipe()["concepts"] == 12
    with pytest.raises(UsageError, match="needs drawings"):
        simulate(tmp_path / "none.zarr", config)
