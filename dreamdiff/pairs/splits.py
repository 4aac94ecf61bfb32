"""Splits trials into training, validation and test parts by a factor such as block, session or person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eegprep.errors import DataError, UsageError
from eegprep.settings import suggest

FACTORS = ("trial", "block", "session", "person", "stimulus", "concept")

PARTS = ("train", "val", "test")

Indices = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Trials:
    """What is known about each of N trials. Integers are identities, -1 is unknown; `time` is s in the session, NaN is unknown.

    A block number counts within its person and session, a session number within its person. `content`: trials with equal numbers
    hold the same EEG, sample for sample; None when nobody looked.
    """

    person: np.ndarray
    session: np.ndarray
    block: np.ndarray
    stimulus: np.ndarray
    concept: np.ndarray
    time: np.ndarray
    content: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("person", "session", "block", "stimulus", "concept", "time")}
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"the columns of the trial table differ in length: {lengths}", "give every column one value per trial"
            )

    def __len__(self) -> int:
        return len(self.person)

    def groups(self, factor: str) -> np.ndarray:
        """One number per trial for `factor`, unique over the whole table; -1 where unknown."""
        if factor == "trial":
            return np.arange(len(self))
        if factor == "session":
            return joint_codes(self.person, self.session)
        if factor == "block":
            # a block belongs to a session; where sessions are unknown, block numbers count within the person
            return joint_codes(self.person, np.where(self.block < 0, -1, np.maximum(self.session, -1) + 1), self.block)
        if factor in ("person", "stimulus", "concept"):
            return np.asarray(getattr(self, factor))
        raise UsageError(f"there is no factor {factor!r}{suggest(factor, FACTORS)}", f"use one of: {', '.join(FACTORS)}")

    def take(self, indices: np.ndarray) -> Trials:
        """The table of some trials."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        taken: dict[str, Any] = {
            name: None if values is None else np.asarray(values)[indices] for name, values in columns.items()
        }
        return Trials(**taken)


def exchange_units(trials: Trials) -> np.ndarray:
    """(N,) number of the smallest thing whose class was decided by itself when the experiment was made: a trial, or a block of one class.

    Permutations that exchange the classes of single trials take a hundred trials of one block for a hundred coincidences. Blocks count where most
    hold one class; where they are not recorded, stretches of trials of one class do, if classes follow each other that way.
    """
    singles = np.arange(len(trials))
    blocks = trials.groups("block")
    if (blocks >= 0).all():
        return dense_codes(joint_codes(blocks, trials.concept)) if clustering(blocks, trials.concept) >= 0.5 else singles
    if np.isnan(trials.time).any() or len(trials) < 2:
        return singles
    session = joint_codes(trials.person, np.maximum(trials.session, -1) + 1)
    order = np.lexsort((trials.time, session))
    new = (np.diff(session[order]) != 0) | (np.diff(trials.concept[order]) != 0)
    stretch = np.empty(len(trials), np.int64)
    stretch[order] = np.concatenate([[0], np.cumsum(new)])
    same = 1 - new.mean()
    counts = np.unique(trials.concept, return_counts=True)[1] / len(trials)
    anywhere = float((counts**2).sum())
    return stretch if anywhere < 1 and (same - anywhere) / (1 - anywhere) >= 0.5 else singles


def clustering(blocks: np.ndarray, concept: np.ndarray) -> float:
    """How pure blocks are in class, like Cohen's kappa: 0 for random order, 1 for blocks of one class, whatever their sizes."""
    inside, anywhere, several = same_class_pairs(blocks, concept)
    return 0.0 if several < 2 or anywhere == 1 else (inside - anywhere) / (1 - anywhere)


def same_class_pairs(blocks: np.ndarray, concept: np.ndarray) -> tuple[float, float, int]:
    """Share of pairs of trials of the same class among pairs within a block, among all pairs, and blocks with two trials."""

    def pairs(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        counts = np.unique(numbers, axis=0, return_counts=True)[1].astype(float)
        return float((counts * (counts - 1)).sum()), counts

    within, sizes = pairs(blocks)
    n = float(len(concept))
    inside = pairs(np.stack([blocks, concept], axis=1))[0] / within if within else 0.0
    anywhere = pairs(concept)[0] / (n * (n - 1)) if n > 1 else 1.0
    return inside, anywhere, int((sizes > 1).sum())


class Exchange:
    """Deals classes out again among the units of each stratum; all trials of a unit get one class.

    Where all units of a stratum are of one size, classes keep their numbers of trials.
    """

    def __init__(self, unit_N: np.ndarray, stratum_N: np.ndarray) -> None:
        codes = joint_codes(stratum_N, unit_N)
        _, self.first, self.member = np.unique(codes, return_index=True, return_inverse=True)
        self.member = self.member.reshape(-1)
        self.stratum = stratum_N[self.first]
        self.by_stratum = np.argsort(self.stratum, kind="stable")

    def __call__(self, concept_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N,) classes in a random order within each stratum."""
        of_unit = concept_N[self.first]
        order = rng.permutation(len(of_unit))
        dealt = of_unit.copy()
        dealt[self.by_stratum] = of_unit[order[np.argsort(self.stratum[order], kind="stable")]]
        return np.asarray(dealt[self.member])


def joint_codes(*columns: np.ndarray) -> np.ndarray:
    """Number the distinct rows of several integer columns; -1 where any of them is negative."""
    table = np.stack([np.asarray(column, dtype=np.int64) for column in columns], axis=1)
    if len(table) == 0:
        return np.zeros(0, dtype=np.int64)
    numbers = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return np.where((table < 0).any(axis=1), -1, numbers)


# ---------------------------------------------------------------------------------------------------- making splits


def split(
    trials: Trials, by: str, *, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> dict[str, np.ndarray]:
    """Part trials into train, val and test so that no group of `by` is in two of them.

    Args:
        trials: the table.
        by: "trial", "block", "session", "person", "stimulus", "concept", or several joined by "+", as in
            "person+stimulus": test trials are then new in both, and trials that are new in only one are left out.
        fractions: shares of the groups for train, val, test.
        seed: of the shuffle.

    Trials are dealt out within each concept, images within their concept, the others over the whole table. With only two
    groups there is no third one for validation: then validation is a tenth of the training trials of each concept.

    Returns:
        {"train", "val", "test"}: sorted indices; together all trials, but for joint splits.

    Raises:
        UsageError: unknown factor, fractions that do not add up.
        DataError: a group is unknown for some trial, or there are fewer than two groups.
    """
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0 or fractions[0] == 0 or fractions[2] == 0:
        raise UsageError(
            f"fractions {fractions} do not part the trials", "give three shares that add to 1, train and test above 0"
        )
    factors = by.split("+")
    parts = [_split_one(trials, factor, fractions, seed) for factor in factors]
    result = parts[0]
    for other in parts[1:]:
        result = {name: np.intersect1d(result[name], other[name]) for name in PARTS}
    for name in ("train", "test"):
        if len(result[name]) == 0:
            raise DataError(
                f"split by {by}: no trial is left for {name} (of {len(trials)})", "hold fewer factors apart, or give more data"
            )
    return result


def _split_one(trials: Trials, factor: str, fractions: tuple[float, float, float], seed: int) -> dict[str, np.ndarray]:
    groups = trials.groups(factor)
    unknown = int((groups < 0).sum())
    if unknown:
        raise DataError(
            f"split by {factor}: the {factor} is unknown for {unknown} of {len(groups)} trials",
            f"import the data with its {factor} column, or split by something that is known",
        )
    # each factor its own order: in a joint split, people and pictures are shuffled independently
    rng = np.random.default_rng([seed, FACTORS.index(factor)])
    part_of_group: dict[int, int] = {}
    if factor in ("trial", "stimulus"):
        for concept in np.unique(trials.concept):
            members = np.unique(groups[trials.concept == concept])
            # a picture may be shown under two concepts: it stays where the first one put it
            fresh = np.array([member for member in members if member not in part_of_group])
            _deal(fresh, fractions, rng, part_of_group)
    else:
        _deal(np.unique(groups), fractions, rng, part_of_group)
    part = np.array([part_of_group[group] for group in groups], dtype=np.int64).reshape(-1)
    if not (part == 2).any():
        many = len(part_of_group)
        where = f" in {len(np.unique(trials.concept))} concepts, one of them" if factor in ("trial", "stimulus") else ", it"
        raise DataError(f"split by {factor}: there is {many} {factor}{where} needs 2 or more", "split by something that varies")
    if fractions[1] and not (part == 1).any():
        part = _validation_from_training(trials.concept, part, rng)
    return {name: np.flatnonzero(part == number) for number, name in enumerate(PARTS)}


def _deal(members: np.ndarray, fractions: tuple[float, float, float], rng: np.random.Generator, out: dict[int, int]) -> None:
    """Give each member a part: at least one for test from two members on, one for validation from three on."""
    n = len(members)
    n_test = min(max(1, round(fractions[2] * n)), n - 1) if n > 1 else 0
    n_val = max(1, round(fractions[1] * n)) if n > 2 and fractions[1] > 0 else 0
    n_val = min(n_val, n - n_test - 1) if n > 1 else 0
    for rank, member in enumerate(members[rng.permutation(n)].tolist()):
        out[member] = 2 if rank < n_test else 1 if rank < n_test + n_val else 0


def _validation_from_training(concept: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    part = part.copy()
    for number in np.unique(concept):
        members = np.flatnonzero((concept == number) & (part == 0))
        count = round(0.1 * len(members)) or (1 if len(members) > 1 else 0)
        part[rng.permutation(members)[:count]] = 1
    return part


def dense_codes(numbers: np.ndarray) -> np.ndarray:
    return np.unique(numbers, return_inverse=True)[1].reshape(-1)
