"""Finds recordings that are in a corpus twice under two names: a split by folder would have them in training and in test.

Shapes: N windows, C channels, T samples.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from eegprep.corpus.reader import Corpus


@dataclass(frozen=True)
class Double:
    """Recordings (`dataset/subject#number`) whose windows are equal, sample for sample."""

    recordings: tuple[str, ...]
    windows: int

    @property
    def sentence(self) -> str:
        """The fact, for people."""
        people = {name.rpartition("#")[0] for name in self.recordings}
        where = "of different subjects" if len(people) > 1 else "of one subject"
        return (
            f"{' and '.join(self.recordings)} {where} are the same recording, sample for sample ({self.windows} windows): "
            "a split by subject or recording would train on what it tests"
        )


def same_recordings(corpus: Corpus) -> list[Double]:
    """Recordings that are equal in the number of their windows, and in the samples of the first, the middle and the last one.

    Reads three windows of every recording that has as many windows as another one.
    """
    keys = np.array(corpus.keys, object)[corpus.group_of(np.arange(len(corpus)))]
    names = np.array([f"{key}#{number}" for key, number in zip(keys, corpus.column("recording"), strict=True)])
    groups: dict[tuple[int, str], list[str]] = {}
    names_R, member = np.unique(names, return_inverse=True)
    counts_R = np.bincount(member, minlength=len(names_R))
    twice = {int(count) for count, often in zip(*np.unique(counts_R, return_counts=True), strict=True) if often > 1}
    order = np.argsort(member, kind="stable")
    ends_R = np.cumsum(counts_R)
    for name, count, end in zip(names_R, counts_R.tolist(), ends_R.tolist(), strict=True):
        if count in twice:
            rows = order[[end - count, end - count + count // 2, end - 1]]
            digest = hashlib.sha256(corpus.read(rows, threads=1).tobytes()).hexdigest()
            groups.setdefault((count, digest), []).append(str(name))
    return [Double(tuple(same), count) for (count, _), same in groups.items() if len(same) > 1]
