"""Draws the order of windows in an epoch, and the windows that are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eegprep.corpus.reader import Corpus
from eegprep.errors import DataError, UsageError
from eegprep.provenance import sha256
from eegprep.settings import suggest


@dataclass(frozen=True)
class Share:
    """The part [first, last) of an epoch's order that one rank takes in one step, and where all ranks stand afterwards."""

    first: int
    last: int
    after: int


class EpochDraws:
    """Which windows an epoch draws, and in which order."""

    def __init__(self, corpus: Corpus, chosen: np.ndarray, weights: Mapping[str, float], seed: int) -> None:
        self.seed = seed
        self._parts = _weighted_parts(corpus, chosen, weights)  # (indices, draws an epoch)
        self.total = sum(draws for _, draws in self._parts)
        self._base = self._parts[0][0] if len(self._parts) == 1 and len(self._parts[0][0]) == self.total else None
        # in pieces: the indices of a large corpus need not be copied together
        content = hashlib.sha256(corpus.identity.encode())
        for indices, draws in self._parts:
            content.update(np.int64(draws).tobytes())
            content.update(indices.tobytes())
        self.digest = content.hexdigest()

    def order(self, epoch: int, shuffle: bool) -> np.ndarray:
        """Indices into the corpus, in the order of the epoch."""
        drawn = self._base if self._base is not None else np.concatenate([self._drawn(i, epoch) for i in range(len(self._parts))])
        if not shuffle:
            return np.sort(drawn)
        return drawn[shuffled(len(drawn), self.seed, epoch)]

    def _drawn(self, part: int, epoch: int) -> np.ndarray:
        """The windows of one part in one epoch: it goes round them in a fixed order and takes up where it stopped."""
        indices, draws = self._parts[part]
        if draws == 0:
            return indices[:0]
        # numbers below 0 are no epochs: this order is another than that of any epoch
        turn = shuffled(len(indices), self.seed, -1 - part)
        return indices[turn[(epoch * draws + np.arange(draws)) % len(indices)]]


def shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers 0..n-1 in an order that depends on (seed, epoch) alone, on every machine and with every numpy.

    Each number gets a 64-bit key from SplitMix64 (Steele, Lea and Flood 2014); the keys are sorted.
    """
    start = _mix(np.array([seed % 2**64], np.uint64)) ^ np.uint64((epoch * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) % 2**64)
    keys = _mix(_mix(start) + np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return np.argsort(keys, kind="stable")


def held_out(people: list[str], fraction: float, seed: int) -> list[str]:
    """The people of the validation set: those whose hashed name comes first; at least one, at most all but one."""
    names = sorted(set(people), key=lambda name: sha256(f"{seed}/{name}"))
    if len(names) < 2:
        raise DataError(f"{len(names)} person cannot be split by person (at least 2)", "add people, or set split to none")
    return names[: min(len(names) - 1, max(1, round(fraction * len(names))))]


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def chosen_windows(corpus: Corpus, split: str | None, fraction: float, seed: int) -> np.ndarray:
    """Indices of the windows of a split."""
    if split is None:
        return np.arange(len(corpus))
    if split not in {"train", "validation"}:
        raise UsageError(f"split {split!r} is unknown", "use 'train', 'validation' or None")
    if not 0 < fraction < 1:
        raise UsageError(f"fraction {fraction} is not between 0 and 1", "give the share of people to hold out, for instance 0.1")
    people = corpus.subjects["person"].tolist()
    out = set(held_out(people, fraction, seed))
    chosen = sorted(out if split == "validation" else set(people) - out)
    return corpus.positions(corpus.select(person=chosen))


def _weighted_parts(corpus: Corpus, chosen: np.ndarray, weights: Mapping[str, float]) -> list[tuple[np.ndarray, int]]:
    if not weights:
        return [(chosen, len(chosen))]
    group_N = corpus.group_of(chosen)
    known = {key for group in corpus.keys for key in (group, group.split("/")[0])}
    for name, weight in weights.items():
        if name not in known:
            raise UsageError(
                f"weights: there is no {name!r} in {corpus.url}{suggest(name, known)}", "name a data set, or dataset/subject"
            )
        if not 0 <= weight < float("inf"):
            raise UsageError(f"weights: {name!r} has weight {weight}", "give 0 or a positive number")
    of_group = [weights.get(key, weights.get(key.split("/")[0], 1.0)) for key in corpus.keys]
    parts = []
    for weight in sorted(set(of_group)):
        indices = chosen[np.asarray(of_group)[group_N] == weight]
        parts.append((indices, round(weight * len(indices))))
    return parts
