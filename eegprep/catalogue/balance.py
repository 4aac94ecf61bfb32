"""Draws recordings so that no data set or group dominates."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from eegprep.errors import UsageError


def balanced_caps(available: Mapping[str, int], target: int, seed: int = 0) -> dict[str, int]:
    """How many windows to take from each person so that `target` are taken, as evenly as the data allow.

    Everybody gives all windows up to one common level (water-filling); the few left over by the division go to people drawn
    with `seed`. The sum is `min(target, all windows)`, and whoever gives fewer than somebody else minus one gives everything.

    Args:
        available: windows of each person.
        target: number of windows to choose in total.

    Returns:
        windows to take, for every key of `available`.
    """
    if target < 0 or any(count < 0 for count in available.values()):
        raise UsageError(f"a draw of {target} windows needs counts of 0 or more", "give a target and counts of at least 0")
    if sum(available.values()) <= target:
        return dict(available)
    level, rest = 0, target
    waiting = sorted(available.values(), reverse=True)  # smallest last
    while waiting and rest >= (waiting[-1] - level) * len(waiting):
        rest -= (waiting[-1] - level) * len(waiting)
        level = waiting.pop()
    if waiting:
        level, rest = level + rest // len(waiting), rest % len(waiting)
    caps = {key: min(count, level) for key, count in available.items()}
    # sorted: the draw must not depend on the order of a dictionary
    able = sorted(key for key, count in available.items() if count > level)
    for index in _generator(seed, "balanced_caps").permutation(len(able))[:rest]:
        caps[able[index]] += 1
    return caps


def caps_by_group(
    available: Mapping[tuple[str, str], int], people: Mapping[tuple[str, str], str], target: int, seed: int = 0
) -> dict[tuple[str, str], int]:
    """`balanced_caps` over people, then over the data sets that each of them appears in.

    Args:
        available: windows of each (dataset, subject).
        people: who that is, see `person`.
    """
    by_person: dict[str, dict[str, int]] = defaultdict(dict)
    keys = {f"{dataset}/{subject}": (dataset, subject) for dataset, subject in available}
    for name, key in keys.items():
        by_person[people[key]][name] = available[key]
    totals = balanced_caps({who: sum(groups.values()) for who, groups in by_person.items()}, target, seed)
    return {
        keys[name]: cap for who, groups in by_person.items() for name, cap in balanced_caps(groups, totals[who], seed).items()
    }


def draw(n: int, keep: int, seed: int, key: str) -> np.ndarray:
    """Which `keep` of `n` windows to take: sorted, the same for one (seed, key) in any process and any order of work.

    Args:
        key: whose windows they are, for instance "PhysionetMI/1".
    """
    if keep >= n:
        return np.arange(n)
    return np.sort(_generator(seed, key).permutation(n)[:keep])


def _generator(seed: int, key: str) -> np.random.Generator:
    """Random numbers that depend on (seed, key) alone."""
    # not `hash`, which is another one in every process
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
