"""What a pairs store recorded, and what such a design can show: sentences for the end of an import."""

from __future__ import annotations

import math

import numpy as np

from dreamdiff.pairs.reader import Pairs
from eegprep.words import count

SHORTEST_MS, LONGEST_MS = 400.0, 2000.0  # outside of this a window misses most of a visual response, or holds several
USUAL_MS = 1000.0


def describe_design(pairs: Pairs) -> list[str]:
    """Sentences: what was recorded, warnings, which splits are possible, how wide an interval the test part gives."""
    facts = pairs.attributes[pairs.subjects[0]]
    sfreq, samples = float(facts.get("sfreq") or 0.0), pairs.eeg_shape[1]
    n, people, pictures = len(pairs), len(pairs.subjects), len(np.unique(pairs.image))
    categories = len(np.unique(pairs.labels))
    _, counts = np.unique(np.stack([pairs.person, pairs.image]), axis=1, return_counts=True)
    often = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    shown = "once" if often == "1" else f"{often} times"
    recorded = (
        f"recorded: {n} trials of {count(people, 'person')}, {count(pictures, 'picture')} of {count(categories, 'category')}"
    )
    lines = [f"{recorded}, each picture {shown} a person"]
    if sfreq:
        length = 1000 * samples / sfreq
        start = 1000 * float(facts.get("t0") or 0.0)
        lines.append(
            f"windows: {length:.0f} ms ({samples} samples at {sfreq:g} Hz) from {start:+.0f} ms after the onset of the picture"
        )
        if not SHORTEST_MS <= length <= LONGEST_MS:
            usual = round(1000 * samples / USUAL_MS)
            lines.append(
                f"warning: {length:.0f} ms is outside {SHORTEST_MS:.0f} to {LONGEST_MS:.0f} ms; --resample {usual} makes windows of {USUAL_MS:.0f} ms"
            )
    lines.append(_splits(pairs, categories))
    lines += _interval(pairs, categories)
    lines.append("pictures that are not square: models, judges and pages see the middle square; the files stay as they are")
    return lines


def _splits(pairs: Pairs, categories: int) -> str:
    """Which parts can be held out without sharing what they are named after."""
    own = [len(np.unique(pairs.image[pairs.labels == label])) for label in np.unique(pairs.labels)]
    sessions = [len(np.unique(pairs.trials.session[pairs.person == person])) for person in np.unique(pairs.person)]
    blocks = int(pairs.trials.block.max()) + 1 if len(pairs) else 0
    possible = {
        "trial": (True, "the same pictures in both parts"),
        "stimulus": (min(own) >= 3, f"{count(min(own), 'picture')} in the smallest category (least 3)"),
        "concept": (categories >= 3, f"{count(categories, 'category')} (least 3)"),
        "person": (len(pairs.subjects) >= 2, f"{count(len(pairs.subjects), 'person')} (least 2)"),
        "session": (min(sessions) >= 2, f"{count(min(sessions), 'session')} a person (least 2)"),
        "block": (blocks >= 2, "blocks are not recorded" if blocks == 0 else f"{blocks} blocks (least 2)"),
    }
    able = [name for name, (yes, _) in possible.items() if yes]
    unable = [f"{name} ({why})" for name, (yes, why) in possible.items() if not yes]
    text = f"splits that this design allows: {', '.join(able)}"
    return text + (f"; not {', '.join(unable)}" if unable else "")


def _interval(pairs: Pairs, categories: int) -> list[str]:
    """How wide the interval of an accuracy at chance is, with the pictures of the test part as the unit where they are repeated."""
    test = pairs.splits.get("test")
    if test is None or len(test) == 0 or categories < 2:
        return []
    n, pictures, chance = len(test), len(np.unique(pairs.image[test])), 1 / categories
    z2 = 1.96**2
    half = 1.96 / (1 + z2 / pictures) * math.sqrt(chance * (1 - chance) / pictures + z2 / (4 * pictures**2))
    centre = (chance + z2 / (2 * pictures)) / (1 + z2 / pictures)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return [
        f"test part: {n} trials of {pictures} pictures; an accuracy at chance ({chance:.1%}) would have the interval [{low:.1%}, {high:.1%}] "
        "with a picture as the unit"
    ]
