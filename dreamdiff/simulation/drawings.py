"""Drawings of hundreds of concepts from icon sets: what simulated people see in a twin of THINGS-EEG2.

The sets are npm packages of Iconify, which ship one `icons.json` and say their licence in `info.json`:

    npm install --prefix icons @iconify-json/noto @iconify-json/noto-v1 @iconify-json/twemoji @iconify-json/fluent-emoji-flat @iconify-json/fxemoji

No picture is in training and test: training and validation concepts are shown as the other sets draw them, test concepts as `test_set` draws them,
so that a test picture shows a concept and a hand that training never saw. Concepts are animals, food, objects, places and activities, and count by
their name without hyphens; people, faces, flags, symbols and skin tones are left out, as is
what only one set knows by that name. These five sets reach 826 concepts, 813 of them in `fluent-emoji-flat` and in another set.
Shapes: M pictures, H W pixels.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamdiff.metrics.judges import load_classifier
from dreamdiff.sameness.copies import find_copies, sketch
from dreamdiff.simulation.images import DRIVER, ImageSet
from eegprep.errors import DataError, ModelError, UsageError
from eegprep.provenance import sha256_json
from eegprep.recording import ProgressCallback
from eegprep.settings import suggest

SIZE = 64  # pixels of a drawing
DRAWN = 256  # pixels at which it is drawn before it is made smaller
DEPICTABLE = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places", "Nature", "Places")
LEFT_OUT = re.compile(r"skin-tone|^flag|-flag$|button|hand|person|man-|woman|keycap|clock-|oclock|thirty")
TEST_SETS = (
    "fluent-emoji-flat",
    "twemoji",
    "fxemoji",
    "noto-v1",
    "noto",
)  # the first of these that is there draws the test pictures
VALIDATION = 0.05  # share of the concepts that are not tested
INSTALL = "npm install --prefix icons @iconify-json/noto @iconify-json/noto-v1 @iconify-json/twemoji @iconify-json/fluent-emoji-flat @iconify-json/fxemoji"


@dataclass(frozen=True)
class IconSet:
    """One set: concept -> (icon's name, body of the SVG), its view box, licence and creator."""

    name: str
    icons: Mapping[str, tuple[str, str]]
    width: int
    height: int
    licence: str
    creator: str

    def svg(self, concept: str) -> str:
        """The drawing of a concept."""
        view = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {view}>{self.icons[concept][1]}</svg>'


def find_sets(folder: Path) -> list[IconSet]:
    """The icon sets below a folder, by name.

    Raises:
        DataError: none is there, or one is damaged.
    """
    files = sorted(path for path in folder.rglob("icons.json") if (path.parent / "info.json").is_file())
    if not files:
        raise DataError(f"{folder}: there are no icon sets in it (icons.json beside info.json)", INSTALL)
    sets = {one.name: one for one in map(_read_set, files)}
    return [sets[name] for name in sorted(sets)]


def _read_set(file: Path) -> IconSet:
    try:
        content, info = (json.loads((file.parent / name).read_text(encoding="utf-8")) for name in ("icons.json", "info.json"))
        description = file.parent / "metadata.json"
        groups = json.loads(description.read_text(encoding="utf-8")).get("categories", {}) if description.is_file() else {}
        depictable = {name for group in DEPICTABLE for name in groups.get(group, ())}
        icons: dict[str, tuple[str, str]] = {}
        for name, icon in content["icons"].items():
            if (depictable and name not in depictable) or LEFT_OUT.search(name):
                continue
            icons.setdefault(name.replace("-", ""), (name, str(icon["body"])))
        licence, author = info.get("license", {}), info.get("author", {})
        size = int(content.get("width", 16)), int(content.get("height", 16))
        return IconSet(
            str(content["prefix"]),
            icons,
            *size,
            str(licence.get("spdx") or licence.get("title") or "unknown"),
            str(author.get("name", "unknown")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file.parent}: not an Iconify icon set ({type(error).__name__}: {error})", INSTALL) from None


@dataclass(frozen=True)
class Choice:
    """Which concepts are shown: names, and the sets that draw the training pictures and the test pictures."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    taught_by: tuple[IconSet, ...]
    tested_by: IconSet


def choose(sets: Sequence[IconSet], concepts: int, test_concepts: int, *, test_set: str | None = None, seed: int = 0) -> Choice:
    """Part `concepts` into test concepts and others, those that most sets draw first.

    Raises:
        UsageError: there is no such set, or one set only. DataError: fewer concepts than are asked for.
    """
    names = [one.name for one in sets]
    expected = test_set or next((name for name in TEST_SETS if name in names), names[-1])
    if expected not in names or len(sets) < 2:
        raise UsageError(
            f"test drawings come from {expected!r}, and there {'is' if len(sets) == 1 else 'are'} {', '.join(names)}{suggest(expected, names)}",
            f"give two sets or more: {INSTALL}",
        )
    tested = sets[names.index(expected)]
    taught = tuple(one for one in sets if one is not tested)
    drawn = {concept: sum(concept in one.icons for one in taught) for one in taught for concept in one.icons}
    # what one set alone calls so may be another name of something else (`aubergine`, `eggplant`)
    drawn = {concept: count for concept, count in drawn.items() if count > 1 or concept in tested.icons}
    testable = [concept for concept in tested.icons if concept in drawn]
    reach = len(set(drawn) | set(testable))
    if concepts > reach or test_concepts > len(testable) or not 1 <= test_concepts < concepts:
        raise DataError(
            f"{concepts} concepts with {test_concepts} for the test were asked for; these sets draw {reach}, {len(testable)} of them in {expected} and in "
            "another set",
            f"give at most --concepts {reach} --test-concepts {min(len(testable), reach - 1)}, or install more sets",
        )
    rng = np.random.default_rng([seed, 11])
    order = sorted(drawn, key=lambda concept: (-drawn[concept], concept))
    test = sorted(
        rng.permutation(sorted(testable, key=lambda c: (-drawn[c], c))[: max(concepts, test_concepts)])[:test_concepts].tolist()
    )
    others = [concept for concept in order if concept not in set(test)][: concepts - test_concepts]
    held = max(1, round(VALIDATION * len(others))) if len(others) > 2 else 0
    validation = sorted(rng.permutation(others)[:held].tolist())
    return Choice(tuple(sorted(set(others) - set(validation))), tuple(validation), tuple(test), taught, tested)


def drawn_images(
    folder: Path, concepts: int, test_concepts: int, *, test_set: str | None = None, seed: int = 0,
    features: Callable[[np.ndarray], np.ndarray] | None = None, progress: ProgressCallback | None = None,
) -> ImageSet:  # fmt: skip
    """Pictures of concepts, with the part of the default split that each belongs to, and features of the network that drives simulated sources.

    A test drawing that is a copy of a training drawing under another name (`sameness.copies`) is an error, not a leak.

    Raises:
        ModelError: what draws SVG is not installed. UsageError, DataError: see `choose`.
    """
    choice = choose(find_sets(folder), concepts, test_concepts, test_set=test_set, seed=seed)
    classes = [*choice.train, *choice.validation, *choice.test]
    jobs = [(concept, 0, one) for concept in choice.train for one in choice.taught_by if concept in one.icons]
    jobs += [(concept, 1, one) for concept in choice.validation for one in choice.taught_by if concept in one.icons]
    jobs += [(concept, 2, choice.tested_by) for concept in choice.test]
    pictures = []
    for number, (concept, _, one) in enumerate(jobs):
        pictures.append(draw(one.svg(concept), f"{one.name}/{one.icons[concept][0]}"))
        if progress and number % 100 == 0:
            progress(number, len(jobs), "drawing")
    images = np.stack(pictures)
    part = np.array([part for _, part, _ in jobs])
    names = [f"{one.name}/{one.icons[concept][0]}.svg" for concept, _, one in jobs]
    twice = [c for c in find_copies([sketch(image) for image in images]) if (part[c.first] == 2) != (part[c.second] == 2)]
    if twice:
        raise DataError(
            f"{len(twice)} test drawings are copies of training drawings, as {names[twice[0].second]} is of {names[twice[0].first]}",
            "choose another --test-set",
        )
    if features is None:
        reader = load_classifier(DRIVER)
        origin = f"{DRIVER} {sha256_json(sorted(reader.files.values()))[:16]}"
        vectors = np.concatenate([reader.read(images[k : k + 64]).features_ND for k in range(0, len(images), 64)])
    else:
        origin, vectors = "given", features(images)
    licence = "; ".join(f"{one.name} ({one.licence}, {one.creator})" for one in (*choice.taught_by, choice.tested_by))
    return ImageSet(
        images, np.array([classes.index(concept) for concept, _, _ in jobs]), tuple(names), part == 2, tuple(classes), np.asarray(vectors), origin,
        licence, None, part,
    )  # fmt: skip


def draw(svg: str, name: str) -> np.ndarray:
    """(64, 64, 3) uint8 on white.

    Raises:
        ModelError: no renderer. DataError: not a drawing.
    """
    try:
        import resvg_py
    except ImportError:
        raise ModelError(
            "drawings of icon sets need resvg_py, which is not installed", 'pip install "eeg-dreamdiff[drawings]"'
        ) from None
    render: Any = resvg_py.svg_to_bytes
    try:
        content = bytes(render(svg_string=svg, width=DRAWN, height=DRAWN))
        with Image.open(io.BytesIO(content)) as drawn:
            picture = drawn.convert("RGBA")
    except (ValueError, OSError) as error:
        raise DataError(f"{name}: cannot be drawn ({error})", "install the icon set again") from None
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    white.alpha_composite(picture)
    square = Image.new("RGB", (max(picture.size),) * 2, (255, 255, 255))
    square.paste(white.convert("RGB"), ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
