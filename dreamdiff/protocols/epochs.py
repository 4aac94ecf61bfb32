"""Three ways to choose an epoch, and what the dishonest one is worth.

The last epoch of a fixed number, the one that did best on validation trials, and the one that does best on the test trials themselves. The
last is no result: choosing on test concepts adds about 2.8 points to 89 on THINGS-EEG2 (five seeds, one audit of published code). Published numbers
that do not say how the epoch was chosen may be of that kind, so the difference is measured here, on the same run.

`dreamdiff train align` keeps the trained weights of every validation in `RUN/epochs/`.
Shapes: N trials, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from dreamdiff.alignment.data import front_end_of, hold, person_numbers, pieces
from dreamdiff.alignment.epochs import epoch_files
from dreamdiff.alignment.model import AlignedEncoder, Head
from dreamdiff.arrays import Array, Ints
from dreamdiff.metrics.measurement import bootstrap_interval
from dreamdiff.pairs.reader import Pairs
from dreamdiff.training.best import load_shared
from dreamdiff.untrusted.tensors import read_metadata

LAST, VALIDATION, BEST_TEST = "last epoch", "validation-selected epoch", "best test epoch (not a result)"


@dataclass(frozen=True)
class Chosen:
    """One way to choose: the step that it chose, and the value of every judged trial there."""

    how: str
    step: int
    values_N: Array

    @property
    def value(self) -> float:
        """Mean over trials."""
        return float(np.mean(self.values_N))


@dataclass(frozen=True)
class Optimism:
    """best test epoch minus the validation-selected one (the last where there was no validation), with its interval over the same units."""

    choices: tuple[Chosen, ...]
    epochs: int
    points: float
    low: float
    high: float
    against: str

    @property
    def sentence(self) -> str:
        """The optimism as a printed number."""
        named = ", ".join(f"{one.how} {one.value:.1%} (step {one.step})" for one in self.choices)
        return (
            f"choosing among {self.epochs} epochs on the judged trials would add {100 * self.points:+.1f} points "
            f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}] to the {self.against}: {named}"
        )

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "sentence": self.sentence, "epochs": self.epochs, "optimism": self.points, "low": self.low, "high": self.high, "against": self.against,
            "choices": [{"how": one.how, "step": one.step, "value": one.value} for one in self.choices],
        }  # fmt: skip


@torch.no_grad()
def vectors_by(model: AlignedEncoder, pairs: Pairs, test: Ints, target: int) -> Callable[[AlignedEncoder], Array]:
    """A function from weights of this model to the vectors (N, D) of some trials; what no weight changes is computed once."""
    person = person_numbers(pairs, model.front.people)
    held, row = hold(pairs, test, model.front, person)
    device = next(model.parameters()).device

    @torch.no_grad()
    def vectors(weights: AlignedEncoder) -> Array:
        head = cast(Head, weights.eval().heads[target])
        result = []
        for part in pieces(test):
            x_BCW = (
                held[torch.from_numpy(row[part])].to(device)
                if held is not None
                else front_end_of(pairs, part, weights.front, person)
            )
            tokens = weights.tokens(x_BCW.to(device), torch.from_numpy(person[part]).to(device))
            result.append(head.restore(head(tokens)).float().cpu().numpy())
        return np.concatenate(result)

    return vectors


def optimism(
    run: Path, model: AlignedEncoder, judge: Callable[[AlignedEncoder], Array], groups_N: Array, *, seed: int = 0
) -> Optimism | None:
    """Judge every kept epoch of a run; None where fewer than two were kept.

    Args:
        model: of that run, as it was trained; weights are put back at the end.
        judge: model -> (N,) values of the judged trials. groups_N: what the interval draws again.
    """
    files = epoch_files(run)
    if len(files) < 2:
        return None
    kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    scores: list[tuple[int, float, Array]] = []
    try:
        for file in files:
            load_shared(model, file)
            description = read_metadata(file)
            scores.append((int(description["step"]), float(description.get("score", "nan")), np.asarray(judge(model), float)))
    finally:
        model.load_state_dict(kept)
    return _compared(scores, groups_N, seed)


def _compared(scores: Sequence[tuple[int, float, Array]], groups_N: Array, seed: int) -> Optimism:
    last = max(scores, key=lambda one: one[0])
    best = max(scores, key=lambda one: (one[2].mean(), one[0]))
    choices = [Chosen(LAST, last[0], last[2])]
    scored = [one for one in scores if np.isfinite(one[1])]
    if scored:
        chosen = min(scored, key=lambda one: one[1])  # the score of `best/`: lower is better
        choices.append(Chosen(VALIDATION, chosen[0], chosen[2]))
    choices.append(Chosen(BEST_TEST, best[0], best[2]))
    honest = choices[-2]
    difference = choices[-1].values_N - honest.values_N
    low, high = bootstrap_interval(difference, seed, groups_N=groups_N)
    return Optimism(tuple(choices), len(scores), float(difference.mean()), low, high, honest.how)
