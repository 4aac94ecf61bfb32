"""Pairs as a view of a corpus: trials are windows of it, bound to images; no EEG is copied.

A view has the root attribute `corpus` (url, relative to the folder of the view where it is local; identity; windows, channels, samples),
and for each trial, in place of `eeg`:

    window int64   window of the corpus in which the trial begins
    offset int32   sample of that window with which it begins; 0 for a whole window
    second int64   window that goes on where the first one ends, -1 where none is needed
    resume int32   sample of the second window that follows on the last one of the first

Windows are cut from one filtered signal, so that two of them that follow each other hold every stretch in between, to the bit: trials of a
corpus of sliding windows lie across two. The corpus is compared with `identity`, the digest of its windows' bytes in its commit records,
when the view is opened, and each window with its checksum when it is read.

Shapes: N trials, C channels, T samples.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from dreamdiff.pairs.checks import AGAIN, read_column
from dreamdiff.pairs.format import REFERENCES, plain_attributes
from eegprep.corpus.reader import Corpus
from eegprep.errors import StoreError
from eegprep.provenance import sha256_array
from eegprep.store.commit import Commit

AGAIN_VIEW = "bring that corpus back, or run `dreamdiff pairs import --kind corpus` again, which copies no EEG"


class CorpusEEG:
    """The EEG of a view. Streams: nothing is kept in memory beyond a batch."""

    held = False

    def __init__(self, corpus: Corpus, references: Mapping[str, np.ndarray]) -> None:
        self.corpus, self._references = corpus, references
        self.shape = corpus.channels, corpus.samples

    @classmethod
    def open(cls, path: Path, root: zarr.Group, attributes: Mapping[str, Any], commit: Commit | None) -> CorpusEEG:
        """Open the corpus of a view and compare it.

        Raises:
            StoreError: it is not there, or not the one that the view was made of; references that lead out of it.
        """
        facts = attributes["corpus"]
        url = corpus_url(path, str(facts["url"]))
        try:
            corpus = Corpus.open(url)
        except StoreError as error:
            raise StoreError(f"{path}: the corpus that it is a view of cannot be opened ({error.problem})", AGAIN_VIEW) from None
        if corpus.identity != facts["identity"]:
            raise StoreError(
                f"{path}: {url} is not the corpus that it was made of (content {corpus.identity[:12]}, it was "
                f"{str(facts['identity'])[:12]})",
                AGAIN_VIEW,
            )
        counts = {name: int(plain_attributes(root[name])["n"]) for name in attributes["subjects"]}
        columns = {
            column: np.concatenate(
                [read_column(path, root, commit, f"{name}/{column}", n, stored) for name, n in counts.items()]
            )
            for column, stored in REFERENCES.items()
        }  # fmt: skip
        limits = {
            "window": (0, len(corpus)),
            "second": (-1, len(corpus)),
            "offset": (0, corpus.samples),
            "resume": (0, corpus.samples),
        }
        for name, (low, high) in limits.items():
            if len(columns[name]) and (columns[name].min() < low or columns[name].max() >= high):
                raise StoreError(f"{path}: column {name!r} leads out of its corpus ({low}..{high - 1})", AGAIN)
        return cls(corpus, columns)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """(N, C, T) float32, by the reader of the corpus.

        Raises:
            StoreError: a window is missing or damaged.
        """
        window_N, offset_N, second_N, resume_N = (self._references[name][numbers] for name in REFERENCES)
        out = self.corpus.read(window_N)
        across = np.flatnonzero(second_N >= 0)
        if not len(across):
            return out
        more = self.corpus.read(second_N[across])
        samples = self.shape[1]
        for row, next_CT in zip(across.tolist(), more, strict=True):
            offset, resume = int(offset_N[row]), int(resume_N[row])
            out[row] = np.concatenate([out[row, :, offset:], next_CT[:, resume : resume + offset]], axis=1)[:, :samples]
        return out

    def digest(self) -> object:
        """The corpus and where the trials lie in it."""
        return {"corpus": self.corpus.identity, **{name: sha256_array(values) for name, values in self._references.items()}}


def corpus_url(path: Path, url: str) -> str:
    """Where the corpus of the view at `path` is."""
    return url if "://" in url else os.path.normpath(path.resolve().parent / url)


def relative_url(path: Path, url: str) -> str:
    """How the view at `path` names the corpus at `url`: never by a path of this machine."""
    return url if "://" in url else Path(os.path.relpath(Path(url).resolve(), path.resolve().parent)).as_posix()


@dataclass(frozen=True)
class RecordingWindows:
    """The windows of one recording of a corpus, in the order of time.

    windows: numbers in the corpus. starts: first samples in the recording. samples: of a window. segments: stretches between seams.
    """

    windows: np.ndarray
    starts: np.ndarray
    samples: int
    segments: Sequence[tuple[int, int]]

    def find(self, start: int) -> tuple[int, int, int, int] | None:
        """The references of the stretch of `samples` from sample `start`; None where the windows do not hold all of it."""
        at = int(np.searchsorted(self.starts, start, side="right")) - 1
        if at < 0:
            return None
        first = int(self.starts[at])
        offset = start - first
        if offset == 0:
            return int(self.windows[at]), 0, -1, 0
        if at + 1 >= len(self.starts) or offset >= self.samples:
            return None
        following = int(self.starts[at + 1])
        resume = first + self.samples - following
        if resume < 0 or self._segment(first) != self._segment(following):
            return None
        return int(self.windows[at]), offset, int(self.windows[at + 1]), resume

    def _segment(self, sample: int) -> int:
        return next((number for number, (first, last) in enumerate(self.segments) if first <= sample < last), -1)
