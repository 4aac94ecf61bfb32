"""Splits of EEG-image trials, and what they leak.

Whether a decoding result means anything depends on what training and test share. Li et al. (TPAMI 2021, 43(1), doi
10.1109/TPAMI.2020.2973153) showed that with one block per class anything stable over a block (drift, impedance, muscle
tone) names the class; arXiv 2406.16902 and 2508.00531 that repeated images do the same. So a split here holds whole
persons, sessions, blocks, images or concepts apart, and `audit` counts, for every test trial, what training holds too.

Trials are plain arrays (`Trials`), -1 or NaN where a fact is unknown; unknown is reported as unknown, never as clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dreamdiff.pairs.splits import FACTORS, Exchange, Indices, Trials, clustering, dense_codes, exchange_units, joint_codes
from eegprep.errors import DataError

_PERMUTATIONS = 999  # the smallest p value that can come out is 0.001

_ENOUGH = 20  # permutations that reach the score; then p cannot become small any more (Besag and Clifford 1991)


# -------------------------------------------------------------------------------------------------------- the audit


@dataclass(frozen=True)
class Shared:
    """How many test trials have something in common with training. `n_unknown` trials cannot be judged."""

    factor: str
    n_test: int
    n_shared: int
    n_unknown: int

    @property
    def share(self) -> float | None:
        """Of the test trials that can be judged; None when none can."""
        known = self.n_test - self.n_unknown
        return self.n_shared / known if known else None


@dataclass(frozen=True)
class Shortcut:
    """Accuracy of a guesser that sees no EEG, only where or when a test trial was recorded.

    It names the commonest class of the training trials in the same block, session or person, or the class of the
    training trial nearest in time. `chance` is the mean of the same guesser with classes permuted within each person and part,
    and `p` the share of permutations that reach it.
    """

    knows: str
    accuracy: float
    chance: float
    p: float
    n: int

    @property
    def works(self) -> bool:
        """Better than all permutations, and by enough to matter: half as good again as chance."""
        return self.p <= 1 / (_PERMUTATIONS + 1) and self.accuracy >= 1.5 * self.chance


@dataclass(frozen=True)
class Audit:
    """What a split leaks. `verdict` is "clean", "leaks" or "unknown" (something needed to tell is not recorded)."""

    split: str
    n_train: int
    n_test: int
    n_classes: int
    shared: tuple[Shared, ...]
    shortcuts: tuple[Shortcut, ...]
    block_design: str  # "class blocks", "mixed blocks", "unknown"
    blocks_per_class: float | None  # mean number of blocks, per person, in which a class occurs
    leaks: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    unrepairable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    per_trial: Mapping[str, np.ndarray] = field(
        default_factory=dict, repr=False
    )  # factor -> (n_test,) 1 shared, 0 not, -1 unknown

    @property
    def verdict(self) -> str:
        return "leaks" if self.leaks else "unknown" if self.unknown else "clean"

    def to_dict(self, *, per_trial: bool = False) -> dict[str, object]:
        """Plain JSON values; the flags of each test trial only on request."""
        content = {name: value for name, value in asdict(self).items() if name != "per_trial"}
        for row, item in zip(content["shared"], self.shared, strict=True):
            row["share"] = item.share
        for row, shortcut in zip(content["shortcuts"], self.shortcuts, strict=True):
            row["works"] = shortcut.works
        content = {"verdict": self.verdict, **content}
        if per_trial:
            content["per_trial"] = {name: flags.tolist() for name, flags in self.per_trial.items()}
        return content

    def lines(self) -> list[str]:
        """The audit as sentences, the verdict first."""
        text = {
            "leaks": "LEAKS: accuracy on this split can come from what training and test share",
            "unknown": "UNKNOWN: what is needed to judge this split is not recorded",
            "clean": "clean: none of the leaks looked for was found",
        }[self.verdict]
        head = f"split {self.split}: {text} ({self.n_train} training trials, {self.n_test} test trials, {self.n_classes} classes)"
        parts = {"leak": self.leaks, "unknown": self.unknown, "no split can repair": self.unrepairable, "note": self.notes}
        return [head, *(f"{kind}: {sentence}" for kind, sentences in parts.items() for sentence in sentences)]


def audit(
    trials: Trials, train: Sequence[int] | np.ndarray, test: Sequence[int] | np.ndarray, *, split: str, seed: int = 0
) -> Audit:
    """Count what test trials share with training, and measure what a guesser without EEG makes of it.

    Args:
        trials: the table of the whole data set.
        train, test: indices into it.
        split: its name; factors named in it ("person", "person+stimulus", ...) must not be shared, else it leaks.
        seed: of the permutations.

    A split leaks when (a) a factor that it promises to hold apart is shared, (b) test images were seen in training,
    (c) the block, session or moment of a test trial predicts its class, or (d) the EEG of a test trial is in training, too.

    Raises:
        DataError: no training or no test trials, or indices outside the table.
    """
    train, test = _checked(trials, train, "train"), _checked(trials, test, "test")
    flags = {factor: _shared_flags(trials.groups(factor), train, test) for factor in FACTORS}
    shared = tuple(Shared(name, len(test), int((f == 1).sum()), int((f < 0).sum())) for name, f in flags.items())
    shortcuts = tuple(_shortcuts(trials, train, test, np.random.default_rng(seed)))
    design, blocks_per_class, unrepairable = _design(trials)
    leaks, unknown, notes = _judge(split, trials, {s.factor: s for s in shared}, shortcuts, design)
    leaks = (*_copies(trials, train, test), *leaks)
    return Audit(
        split=split, n_train=len(train), n_test=len(test), n_classes=len(np.unique(trials.concept[trials.concept >= 0])),
        shared=shared, shortcuts=shortcuts, block_design=design, blocks_per_class=blocks_per_class,
        leaks=leaks, unknown=unknown, unrepairable=unrepairable, notes=notes, per_trial=flags,
    )  # fmt: skip


def _copies(trials: Trials, train: np.ndarray, test: np.ndarray) -> tuple[str, ...]:
    """Test trials whose EEG training holds as well: a recording that lies in two folders, whatever its names say."""
    if trials.content is None:
        return ()
    copied = np.isin(trials.content[test], trials.content[train])
    if not copied.any():
        return ()
    return (
        f"the EEG of {int(copied.sum())} of {len(test)} test trials is in training, sample for sample: "
        "one recording lies under two names",
    )


def _checked(trials: Trials, indices: Indices, name: str) -> np.ndarray:
    array = np.asarray(indices, dtype=np.int64).reshape(-1)
    if len(array) == 0:
        raise DataError(f"the {name} part holds no trial (of {len(trials)})", "choose another split")
    if array.min() < 0 or array.max() >= len(trials):
        raise DataError(
            f"the {name} part names trial {int(array.max() if array.max() >= len(trials) else array.min())}, "
            f"there are {len(trials)} (0..{len(trials) - 1})",
            "make the split again for this store",
        )
    return array


def _shared_flags(groups: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    flags = np.isin(groups[test], groups[train]).astype(np.int8)
    unknown_in_training = bool((groups[train] < 0).any())
    flags[groups[test] < 0] = -1
    if unknown_in_training:
        flags[flags == 0] = -1  # a training trial of unknown group may be of this one
    return flags


def _shortcuts(trials: Trials, train: np.ndarray, test: np.ndarray, rng: np.random.Generator) -> list[Shortcut]:
    result = []
    for factor in ("block", "session", "person"):
        groups = trials.groups(factor)
        if (groups[train] >= 0).all() and (groups[test] >= 0).all() and np.isin(groups[test], groups[train]).any():
            result.append(_permuted(trials, train, test, rng, knows=factor, guess=_GroupGuesser(groups[train], groups[test])))
    nearest = _nearest_in_time(trials, train, test)
    if nearest is not None:
        result.append(
            _permuted(trials, train, test[nearest >= 0], rng, knows="time", guess=_NeighbourGuesser(nearest[nearest >= 0]))
        )
    return result


class _GroupGuesser:
    """Commonest training class of the group of each test trial; of all training trials when the group is new."""

    def __init__(self, groups_train: np.ndarray, groups_test: np.ndarray) -> None:
        self.names, self.train = np.unique(groups_train, return_inverse=True)
        place = np.minimum(np.searchsorted(self.names, groups_test), len(self.names) - 1)
        self.test = np.where(self.names[place] == groups_test, place, -1)

    def __call__(self, concept_train: np.ndarray) -> np.ndarray:
        n_classes = int(concept_train.max()) + 1
        pairs, counts = np.unique(self.train * n_classes + concept_train, return_counts=True)
        order = np.lexsort((-counts, pairs // n_classes))  # by group, the commonest class first
        first = np.unique(pairs[order] // n_classes, return_index=True)[1]
        best = pairs[order][first] % n_classes
        overall = np.bincount(concept_train).argmax()
        return np.where(self.test >= 0, best[self.test], overall)


class _NeighbourGuesser:
    """Class of the training trial nearest in time."""

    def __init__(self, nearest: np.ndarray) -> None:
        self.nearest = nearest

    def __call__(self, concept_train: np.ndarray) -> np.ndarray:
        return concept_train[self.nearest]


def _permuted(
    trials: Trials, train: np.ndarray, test: np.ndarray, rng: np.random.Generator, *, knows: str, guess: Any
) -> Shortcut:
    """Score a guesser, and the same guesser after permuting classes among the training trials and among the test trials.

    Permutations stay within persons, so that only what happened inside an experiment is judged; what the person alone gives away
    is judged against permutations over all persons. Both parts keep their numbers of trials per class, because splits are
    balanced by class and a guesser of the commonest class would look good against anything less. Blocks of one class are exchanged
    as wholes (`exchange_units`): single trials would make a fluke of three blocks look like one of three hundred trials.
    """
    both = np.concatenate([train, test])
    concept = np.unique(trials.concept[both], return_inverse=True)[1]
    unit = exchange_units(trials)[both]
    n = len(train)
    person = np.zeros(len(both), dtype=np.int64) if knows == "person" else dense_codes(trials.person[both])
    exchange = Exchange(unit, 2 * person + (np.arange(len(both)) >= n))
    score = float((guess(concept[:n]) == concept[n:]).mean())
    permuted: list[float] = []
    reached = 0
    while len(permuted) < _PERMUTATIONS and reached < _ENOUGH:
        shuffled = exchange(concept, rng)
        permuted.append(float((guess(shuffled[:n]) == shuffled[n:]).mean()))
        reached += permuted[-1] >= score
    # the p value of a sequential test: exact also when it stops early
    p = reached / len(permuted) if reached == _ENOUGH else (1 + reached) / (len(permuted) + 1)
    return Shortcut(knows, score, float(np.mean(permuted)), p, len(test))


def _nearest_in_time(trials: Trials, train: np.ndarray, test: np.ndarray) -> np.ndarray | None:
    """Position in `train` of the training trial nearest in time in the same session, -1 for none; None if time is unknown."""
    if np.isnan(trials.time[train]).any() or np.isnan(trials.time[test]).any():
        return None
    session = joint_codes(trials.person, np.maximum(trials.session, -1) + 1)
    nearest = np.full(len(test), -1, dtype=np.int64)
    for number in np.unique(session[test]):
        here = np.flatnonzero(session[train] == number)
        if len(here) == 0:
            continue
        here = here[np.argsort(trials.time[train[here]], kind="stable")]
        times = trials.time[train[here]]
        expected = np.flatnonzero(session[test] == number)
        right = np.clip(np.searchsorted(times, trials.time[test[expected]]), 1, max(len(times) - 1, 1))
        right = np.minimum(right, len(times) - 1)
        left = np.maximum(right - 1, 0)
        moment = trials.time[test[expected]]
        closer = np.where(np.abs(times[right] - moment) < np.abs(times[left] - moment), right, left)
        nearest[expected] = here[closer]
    return nearest if (nearest >= 0).any() else None


def _design(trials: Trials) -> tuple[str, float | None, tuple[str, ...]]:
    """Whether blocks are pure in class, in how many blocks of a person a class occurs, and what follows for every split."""
    blocks, known = trials.groups("block"), trials.concept >= 0
    if not known.any():
        return "unknown", None, ()
    recorded = bool((blocks >= 0).all())
    if not recorded:
        runs = _runs(trials)
        if runs is None:
            return "unknown", None, ()
        blocks, same = runs
        if same < 0.5:
            return "mixed blocks", None, ()
    pairs = np.unique(np.stack([trials.person, trials.concept, blocks], axis=1)[known], axis=0)
    blocks_per_class = len(pairs) / len(np.unique(pairs[:, :2], axis=0))
    if recorded and clustering(blocks[known], trials.concept[known]) < 0.5:
        return "mixed blocks", blocks_per_class, ()
    sentences = []
    if blocks_per_class <= 1.0:
        sentences.append(
            "every class was shown in one block per person: within a person class and block are the same thing, "
            "and holding blocks out leaves classes without training trials"
        )
        sentences.append(_across_people(trials, blocks))
    return "class blocks", blocks_per_class, tuple(filter(None, sentences))


def _runs(trials: Trials) -> tuple[np.ndarray, float] | None:
    """Runs of one class in time, and how much more often than by chance (0 to 1) a trial has the class of the one before it.

    None where times or sessions are not known, or no session holds two trials.
    """
    session = trials.groups("session")
    if np.isnan(trials.time).any() or (session < 0).any() or len(trials) < 2:
        return None
    order = np.lexsort((trials.time, session))
    here, concept = session[order], trials.concept[order]
    follows = here[1:] == here[:-1]
    if not follows.any():
        return None
    equal = concept[1:] == concept[:-1]
    shares = np.unique(concept, return_counts=True)[1] / len(concept)
    chance = float((shares**2).sum())
    blocks = np.empty(len(order), np.int64)
    blocks[order] = np.concatenate([[0], np.cumsum(~(follows & equal))])
    return blocks, 0.0 if chance == 1 else (float(equal[follows].mean()) - chance) / (1 - chance)


def _across_people(trials: Trials, blocks: np.ndarray) -> str:
    """What holding out persons can do in a design with one block per class."""
    if len(np.unique(trials.person)) < 2:
        return "there is one person, so holding out persons is impossible"
    if np.isnan(trials.time).any():
        return "holding out persons helps only if the order of classes differed between persons, which is not recorded here"
    session = trials.groups("session")
    orders = set()
    for person in np.unique(trials.person):
        mine = np.flatnonzero(trials.person == person)
        mine = mine[np.lexsort((trials.time[mine], session[mine]))]
        first = np.sort(np.unique(blocks[mine], return_index=True)[1])
        orders.add(tuple(trials.concept[mine][first].tolist()))
    if len(orders) == 1:
        return "all persons saw the classes in the same order, so that even holding out persons leaves class and time together"
    return ""  # different orders: holding out persons separates class and time


def _judge(
    name: str, trials: Trials, shared: Mapping[str, Shared], shortcuts: Sequence[Shortcut], design: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    promised = [factor for factor in name.split("+") if factor in FACTORS]
    leaks, unknown, notes = [], [], []
    for factor in dict.fromkeys([*promised, "trial", "stimulus"]):
        row = shared[factor]
        what = {"trial": "trial itself", "stimulus": "image"}.get(factor, factor)
        if row.n_shared:
            leaks.append(f"{row.n_shared} of {row.n_test} test trials have their {what} in training")
        if row.n_unknown:
            unknown.append(f"the {what} of {row.n_unknown} of {row.n_test} test trials cannot be compared with training")
    for shortcut in shortcuts:
        if shortcut.works:
            how = {"time": "the training trial nearest in time"}.get(shortcut.knows, f"the {shortcut.knows}")
            leaks.append(
                f"{how} alone, without any EEG, names the class of {shortcut.accuracy:.1%} of {shortcut.n} test trials "
                f"(chance {shortcut.chance:.1%})"
            )
    if design == "class blocks":
        if shared["block"].n_shared and not any(shortcut.works and shortcut.knows == "block" for shortcut in shortcuts):
            leaks.append(
                f"{shared['block'].n_shared} of {shared['block'].n_test} test trials come from a block that training saw, and a block "
                "holds one class"
            )
        notes.append("class blocks: most blocks hold trials of one class, so that drift from block to block names the class")
        if "person" not in promised:
            notes.append("where the order of classes differs between persons, holding out persons parts class and time")
    if design != "unknown" and (trials.groups("block") < 0).any():
        notes.append("blocks are not recorded: they follow from the times of the trials, as runs of one class")
    if design == "unknown":
        notes.append("the block structure is unknown: whether blocks were pure in class is not recorded")
        if not any(shortcut.knows == "time" for shortcut in shortcuts):
            unknown.append("neither blocks nor times of the trials are recorded, so that class blocks cannot be ruled out")
    for factor in ("block", "session", "person", "concept"):
        row = shared[factor]
        if factor not in promised and row.n_shared:
            notes.append(f"{row.n_shared} of {row.n_test} test trials have their {factor} in training (allowed by this split)")
    new = shared["concept"].n_test - shared["concept"].n_shared - shared["concept"].n_unknown
    if new and "concept" not in promised:
        notes.append(f"{new} of {shared['concept'].n_test} test trials are of a class that training never shows")
    return tuple(leaks), tuple(unknown), tuple(notes)
