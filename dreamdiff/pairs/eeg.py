"""Where the EEG of trials comes from: the store itself, or another rate of it. `Pairs` reads through one of these.

Shapes: N trials, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr

from dreamdiff.pairs.checks import trial_checksums
from dreamdiff.pairs.format import SHARD, plain_attributes
from dreamdiff.rates import RateChange
from dreamdiff.untrusted.tensors import sha256_once
from eegprep.corpus.files import LocalFiles, Shard
from eegprep.corpus.shards import Shards
from eegprep.errors import StoreError
from eegprep.store.commit import Commit


class TrialEEG(Protocol):
    """EEG by trial number of the store. shape: (channels, samples). held: whether small stores of it may be kept in memory."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def held(self) -> bool: ...

    def read(self, numbers: np.ndarray) -> np.ndarray: ...

    def digest(self) -> object: ...


class StoredEEG:
    """`/<subject>/eeg` of a store, read shard by shard with the fast reader of the corpus."""

    held = True

    def __init__(self, path: Path, root: zarr.Group, subjects: Sequence[str], commit: Commit | None) -> None:
        self._path, self._subjects = path, tuple(subjects)
        shape = root[f"{subjects[0]}/eeg"].shape  # type: ignore[union-attr]
        self.shape = int(shape[1]), int(shape[2])
        self._shards = _find_shards(path, root, subjects, commit)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """(N, C, T) float32.

        Raises:
            StoreError: a trial is missing or damaged.
        """
        out = np.empty((len(numbers), *self.shape), dtype=np.float32)
        try:
            if len(numbers):
                self._shards.read(numbers, out, np.arange(len(numbers)))
        except StoreError as error:
            raise StoreError(f"{self._path}: {error.problem}", "make the store again") from error
        return out

    def digest(self) -> object:
        """SHA-256 of every file, by subject."""
        return {
            name: [sha256_once(file) for file in sorted((self._path / name / "eeg" / "c").rglob("[!.]*")) if file.is_file()]
            for name in self._subjects
        }


class ResampledEEG:
    """The same trials at the rate of a model.

    changes: of each person, by number. person_N: person of every trial of the store.
    """

    def __init__(self, inner: TrialEEG, changes: Mapping[int, RateChange], person_N: np.ndarray, samples: int) -> None:
        self._inner, self._changes, self._person_N = inner, changes, person_N
        self.shape = inner.shape[0], samples
        self.held = inner.held

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """(N, C, samples) float32."""
        stored_NCT = self._inner.read(numbers)
        out = np.empty((len(numbers), *self.shape), np.float32)
        for person in np.unique(self._person_N[numbers]):
            mine = self._person_N[numbers] == person
            out[mine] = self._changes[int(person)].apply(stored_NCT[mine])
        return out

    def digest(self) -> object:
        """Of what is stored: what a model makes of it belongs to the model."""
        return self._inner.digest()


def with_rate(facts: Mapping[str, Any], change: RateChange) -> Mapping[str, Any]:
    """Attributes of a subject whose trials are read at another rate."""
    if change.to is None:
        return facts
    more = {"recordings": [{**one, "sfreq": change.to} for one in facts["recordings"]]} if facts.get("recordings") else {}
    return {**facts, **more, "sfreq": change.to, "stored_sfreq": change.sfreq}


def as_stored(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attributes of a subject as its store has them, whatever `with_rate` made of them."""
    return {**facts, "sfreq": facts["stored_sfreq"]} if "stored_sfreq" in facts else facts


def _find_shards(path: Path, root: zarr.Group, subjects: Sequence[str], commit: Commit | None) -> Shards:
    """The files that hold the EEG of all subjects, in order."""
    shards = []
    for name in subjects:
        n = int(plain_attributes(root[name])["n"])
        for number, first in enumerate(range(0, n, SHARD)):
            relative = f"{name}/eeg/c/{number}/0/0"
            try:
                size = (path / relative).stat().st_size
            except OSError:
                raise StoreError(
                    f"{path}: trials {first} and on of subject {name!r} are missing", "make the store again"
                ) from None
            size = size if commit is None else commit.file(relative, str(path)).size
            checksums = trial_checksums(commit, name, n, first)
            shards.append(Shard(relative, min(SHARD, n - first), SHARD, size, "", checksums))
    return Shards(shards, LocalFiles(path))
