"""`dreamdiff evaluate --predictions FILE`: what can be said of somebody else's result from its predictions alone.

No model and no EEG are needed: accuracies with intervals over categories and people, the audit of the split, and controls that only look at which
answers were given to which trials. For reviewers, and for systems that are not built on this package.
Shapes: N trials, G options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamdiff.arrays import Array
from dreamdiff.metrics.accuracy import prior_floor
from dreamdiff.metrics.measurement import Measurement, mean_measurement, units
from dreamdiff.pairs.audit import Audit, audit
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.splits import Exchange, exchange_units
from dreamdiff.protocols.predictions import Predictions, read_predictions_of_others, with_pairs
from dreamdiff.protocols.ranking import chance_of_reciprocal_rank, hits_at, reciprocal_ranks
from eegprep import atomic
from eegprep.inspection.page import Page
from eegprep.provenance import sha256_file, software_versions

FORMAT, VERSION = "dreamdiff-review", 1
PERMUTATIONS = 2000
BEYOND_CHANCE = 0.05


@dataclass(frozen=True)
class Check:
    """One control: what was looked at, what it says, and whether it speaks against the result ("bad"), asks for a remark ("note") or not ("good")."""

    name: str
    says: str
    tone: str


@dataclass(frozen=True)
class Review:
    """What was found. p: share of permutations of the truth that reach the same accuracy."""

    identity: Mapping[str, object]
    measurements: tuple[Measurement, ...]
    people: tuple[Measurement, ...]
    p: float
    checks: tuple[Check, ...]
    audit: Audit | None

    @property
    def first_line(self) -> str:
        """What to know before any number."""
        m = self.measurements[0]
        figure = f"{m.value:.1%} {m.interval()} of {m.n} trials (chance {m.floor:.1%})"
        bad = [check for check in self.checks if check.tone == "bad"]
        if self.audit is not None and self.audit.leaks:
            return f"NOT EVIDENCE OF DECODING: {self.audit.leaks[0]}; {figure}"
        if bad:
            return f"NOT EVIDENCE OF DECODING: {bad[0].says}; {figure}"
        if self.p > BEYOND_CHANCE or m.above_floor is False:
            return f"NOT ABOVE CHANCE: {figure}, p = {self.p:.3g}"
        if self.audit is None or self.audit.verdict == "unknown":
            why = self.audit.unknown[0] if self.audit is not None and self.audit.unknown else "the training trials are not given"
            return f"UNKNOWN whether this is decoding: {why}; {figure}, p = {self.p:.3g}"
        return f"no leak found in what the file says: {figure}, p = {self.p:.3g}"

    def to_json(self) -> dict[str, object]:
        """The content of report.json."""
        return {
            "format": FORMAT, "version": VERSION, "first_line": self.first_line, "identity": dict(self.identity), "p": self.p,
            "measurements": [m.to_json() for m in self.measurements], "people": [m.to_json() for m in self.people],
            "checks": [vars(check) for check in self.checks], "audit": None if self.audit is None else self.audit.to_dict(),
        }  # fmt: skip


def review(
    file: Path, out: Path, *, pairs: Pairs | None = None, split: str = "default", protocol: str = "", seed: int = 0
) -> Review:
    """Judge predictions and write report.json and report.html into `out`.

    Args:
        pairs: where the trials are from, if the file numbers them (`trial`); then the audit reads the store, and training is its train part.
        protocol: what the authors say of it, as in "selection=last,person=new"; it becomes part of the numbers' names.
    """
    content = read_predictions_of_others(file)
    report: Audit | None = None
    if pairs is not None:
        train = pairs.split(split)["train"]
        content = with_pairs(content, pairs, train)
        place = {int(number): row for row, number in enumerate(pairs.indices)}
        test = np.array([place[int(number)] for number in content.trial_N if content.trial_N is not None], np.int64)  # type: ignore[union-attr]
        report = pairs.audit(split, parts=(train, test))
    elif len(content.trials) > content.judged:
        everything = np.arange(len(content.trials))
        report = audit(content.trials, everything[content.judged :], everything[: content.judged], split="as given", seed=seed)
    trials = content.trials.take(np.arange(content.judged))
    picture_N = np.where(trials.stimulus >= 0, trials.stimulus, content.truth_N)
    groups = units(content.truth_N, trials.person, picture_N)
    name = _protocol(content, protocol)
    measurements = tuple(_measurements(content, groups, name, seed))
    people = _by_person(content, trials.person, measurements[0], picture_N, seed)
    p = _permuted(content, exchange_units(trials), measurements[0], seed)
    identity = {
        "predictions": {"file": content.source, "sha256": sha256_file(file), "kind": content.kind, "trials": content.judged, "options": content.gallery},
        "pairs": None if pairs is None else {"path": str(pairs.path), "fingerprint": pairs.fingerprint},
        "protocol": name, "stated": protocol, "seed": seed, "software": software_versions(),
    }  # fmt: skip
    result = Review(identity, measurements, people, p, tuple(_checks(content, trials.groups("block"))), report)
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_json(out / "report.json", result.to_json())
    write_review_page(result, out / "report.html")
    return result


def _protocol(content: Predictions, stated: str) -> str:
    repetitions = "unstated"
    if content.repetitions_N is not None:
        sizes = np.unique(content.repetitions_N)
        repetitions = f"{sizes[0]:g}" if len(sizes) == 1 else f"{sizes[0]:g}-to-{sizes[-1]:g}"
    given = {"gallery": str(content.gallery), "repetitions": repetitions, "selection": "unstated", "person": "unstated"}
    for part in filter(None, (piece.strip() for piece in stated.split(","))):
        key, _, value = part.partition("=")
        given[key.strip()] = value.strip() or "yes"
    return "/".join(f"{key}={value}" for key, value in given.items())


def _measurements(content: Predictions, groups: Array, name: str, seed: int) -> list[Measurement]:
    scores, rank = content.scores_NG, content.rank_N
    tables: list[tuple[str, Array, float, str]] = []
    if scores is not None:
        for k in (1, 5):
            if k < content.gallery:
                tables.append(
                    (
                        f"top-{k}",
                        hits_at(scores, content.truth_N, k),
                        k / content.gallery,
                        f"among the first {k} of {content.gallery} options",
                    )
                )
        tables.append(
            (
                "mAP",
                reciprocal_ranks(scores, content.truth_N),
                chance_of_reciprocal_rank(content.gallery),
                "mean of 1 / rank of the one right option",
            )
        )
    elif rank is not None:
        for k in (1, 5):
            if k < content.gallery:
                tables.append(
                    (
                        f"top-{k}",
                        (rank <= k).astype(float),
                        k / content.gallery,
                        f"stated rank {k} or better of {content.gallery}",
                    )
                )
        tables.append(
            ("mAP", 1 / rank, chance_of_reciprocal_rank(content.gallery), "mean of 1 / stated rank of the one right option")
        )
    else:
        floor = prior_floor(content.truth_N, len(content.options))
        tables.append(
            (
                "top-1",
                (content.predicted_N == content.truth_N).astype(float),
                floor,
                f"one answer a trial among {len(content.options)} names",
            )
        )
    return [
        mean_measurement(f"{content.kind}/{name}/{what}", description, values[:, None], seed=seed, floor=floor, groups_N=groups)
        for what, values, floor, description in tables
    ]


def _by_person(content: Predictions, person_N: Array, whole: Measurement, picture_N: Array, seed: int) -> tuple[Measurement, ...]:
    out = []
    for number in np.unique(person_N[person_N >= 0]) if content.people else ():
        here = person_N == number
        name = content.people[int(number)]
        groups = units(content.truth_N[here], person_N[here], picture_N[here])
        out.append(
            mean_measurement(name, whole.protocol, whole.values_N[here][:, None], seed=seed, floor=whole.floor, groups_N=groups)
        )
    return tuple(out)


def _permuted(content: Predictions, unit_N: Array, whole: Measurement, seed: int) -> float:
    """Share of permutations of the truth that reach the accuracy; blocks of one class are permuted as wholes."""
    exchange = Exchange(unit_N, np.zeros(content.judged, np.int64))
    rng = np.random.default_rng(seed)
    reached = 0
    if content.rank_N is not None:  # the answers themselves are not known: a guesser's rank is anything
        for _ in range(PERMUTATIONS):
            reached += (rng.integers(1, content.gallery + 1, content.judged) <= 1).mean() >= whole.value - 1e-12
        return (1 + reached) / (1 + PERMUTATIONS)
    for _ in range(PERMUTATIONS):
        reached += (exchange(content.truth_N, rng) == content.predicted_N).mean() >= whole.value - 1e-12
    return (1 + reached) / (1 + PERMUTATIONS)


def _checks(content: Predictions, block_N: Array) -> list[Check]:
    """Controls that look at answers only."""
    checks = []
    n = content.judged
    answered, counts = np.unique(content.predicted_N, return_counts=True)
    answers = content.predicted_N.min(initial=0) >= 0
    if answers:
        commonest = content.options[int(answered[counts.argmax()])]
        share, chance = counts.max() / n, 1 / content.gallery
        checks.append(
            Check(
                "favourite answers",
                f"{len(answered)} of {content.gallery} options were ever named, {commonest!r} in {share:.1%} of the trials (evenly: {chance:.1%})",
                "note" if share > 5 * chance and share > 0.1 else "good",
            )
        )
        if n > 4 and len(answered) == n == content.gallery and len(np.unique(content.truth_N)) == n:
            checks.append(
                Check(
                    "one-to-one", f"each of {n} options was named exactly once: answers were assigned one to one, which uses all test trials together "
                    "and is not retrieval", "bad",
                )
            )  # fmt: skip
    if (block_N >= 0).all() and answers and len(np.unique(block_N)) < n:
        pure_truth, pure_answers = (_purity(block_N, values) for values in (content.truth_N, content.predicted_N))
        says = f"in {pure_answers:.0%} of the blocks all answers are the same; the truth is, in {pure_truth:.0%}"
        checks.append(Check("answers by block", says, "note" if pure_truth > 0.5 else "good"))
        if pure_truth > 0.9:
            checks.append(
                Check(
                    "class blocks", "blocks hold one class each, so that whatever is stable over a block names the class", "note"
                )
            )
    if content.scores_NG is not None:
        copies = n - len(np.unique(np.round(content.scores_NG, 12), axis=0))
        if copies:
            checks.append(Check("equal trials", f"{copies} of {n} trials have exactly the scores of another one", "note"))
    if content.repetitions_N is None:
        checks.append(
            Check(
                "repetitions",
                "how many presentations each row is the average of is not stated; 80 and 1 are different tasks",
                "note",
            )
        )
    return checks


def _purity(block_N: Array, values_N: Array) -> float:
    """Share of blocks of two trials or more with a single value."""
    names, counts = np.unique(block_N, return_counts=True)
    several = names[counts > 1]
    return float(np.mean([len(np.unique(values_N[block_N == name])) == 1 for name in several])) if len(several) else 0.0


def write_review_page(result: Review, file: Path) -> None:
    """One self-contained page."""
    page = Page("Predictions under review", str(result.identity["protocol"]))
    page.text(result.first_line, "verdict" if not result.first_line.startswith(("NOT", "UNKNOWN")) else "warning")
    page.heading("Accuracy")
    page.table(
        [
            {
                "number": m.name, "value": f"{m.value:.1%}", "95 % interval": m.between(".1%"), "over": m.resampled, "chance": "" if m.floor is None else f"{m.floor:.1%}",
                "n": m.n, "protocol": m.protocol,
            }
            for m in result.measurements
        ]
    )  # fmt: skip
    page.text(f"Share of {PERMUTATIONS:,} permutations of the truth that reach it: {result.p:.3g}.")
    if result.people:
        page.heading("By person")
        page.table(
            [{"person": m.name, "value": f"{m.value:.1%}", "95 % interval": m.between(".1%"), "n": m.n} for m in result.people]
        )
    page.heading("Controls that need no model")
    page.table(
        [
            {
                "control": check.name,
                "what it says": check.says,
                "": {"bad": "against the result", "note": "note"}.get(check.tone, ""),
            }
            for check in result.checks
        ]
    )
    page.heading("Audit of the split")
    if result.audit is None:
        page.text(
            "The file does not hold the trials that were trained on: whether test and training share people, blocks or pictures is unknown."
        )
    else:
        for line in result.audit.lines():
            page.text(line)
    page.write(file)
