"""Ranks of the shown picture in a gallery, and what is made of them: top-k, mean average precision, group sizes, who is new.

Shapes: N trials (or means of trials), G gallery pictures, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from dreamdiff.arrays import Array
from dreamdiff.metrics.measurement import Measurement, mean_measurement
from eegprep.errors import UsageError

DOUBLING = "..."


def reciprocal_ranks(scores_NG: Array, truth_N: Array) -> Array:
    """(N,) one over the rank of the true picture; ties are broken at random, which is averaged over."""
    scores = np.asarray(scores_NG, float)
    own_N1 = np.take_along_axis(scores, np.asarray(truth_N)[:, None], axis=1)
    higher_N = (scores > own_N1).sum(1)
    ties_N = (scores == own_N1).sum(1)
    table = 1.0 / np.arange(1, scores.shape[1] + 1)
    return np.array([table[h : h + t].mean() for h, t in zip(higher_N, ties_N, strict=True)])


def hits_at(scores_NG: Array, truth_N: Array, k: int) -> Array:
    """(N,) chance that the true picture is among the first k, ties broken at random."""
    scores = np.asarray(scores_NG, float)
    own_N1 = np.take_along_axis(scores, np.asarray(truth_N)[:, None], axis=1)
    higher_N, ties_N = (scores > own_N1).sum(1), (scores == own_N1).sum(1)
    return np.clip((k - higher_N) / ties_N, 0.0, 1.0)


def chance_of_reciprocal_rank(gallery: int) -> float:
    """What a guesser reaches: the mean of 1, 1/2, ... 1/G."""
    return float((1.0 / np.arange(1, gallery + 1)).mean())


def mean_average_precision(
    scores_NG: Array, truth_N: Array, *, name: str = "mAP", seed: int = 0, groups_N: Array | None = None, space: str = "the given"
) -> Measurement:
    """mAP with one right picture a trial, which is the mean of 1 / rank (mean reciprocal rank)."""
    gallery = np.shape(scores_NG)[1]
    return mean_measurement(
        name, f"mAP: one right picture in a gallery of {gallery}, so the mean of 1 / rank, in {space} space",
        reciprocal_ranks(scores_NG, truth_N)[:, None], seed=seed, floor=chance_of_reciprocal_rank(gallery), groups_N=groups_N,
    )  # fmt: skip


def group_sizes(asked: Sequence[str], most: int) -> list[str]:
    """`1,2,4,...,all` -> 1, 2, 4, 8 and so on up to `most`, then all.

    Raises:
        UsageError: something that is neither a number above 0, nor `all`, nor `...` after a number.
    """
    out: list[str] = []
    for text in asked:
        if text == DOUBLING:
            if not out or not out[-1].isdigit():
                raise UsageError(
                    f"--repetitions {','.join(asked)}: `...` does not follow a number", "give for instance 1,2,4,...,all"
                )
            size = 2 * int(out[-1])
            while size < most:
                out.append(str(size))
                size *= 2
        elif text == "all" or (text.isdigit() and int(text) > 0):
            out.append(text)
        else:
            raise UsageError(f"--repetitions {text!r} is not a number above 0 or `all`", "give for instance 1,2,4,...,all")
    return list(dict.fromkeys(out))


def person_states(training: Mapping[str, Any], people: Sequence[str], subjects: Sequence[str]) -> list[str]:
    """What a model has seen of each subject, as it stands in the name of a number.

    Args:
        training: of the aligned encoder. people: those that it knows. subjects: of the pairs that are judged.

    `seen`: in training. `minutes-12.5` or `trials-80`: adapted to, with labels. `unlabelled-200`: whitened from so many trials. `new`: nothing.
    """
    later: dict[str, str] = {}
    for step in cast("Sequence[Mapping[str, Any]]", training.get("adapted") or ()):
        spent = f"minutes-{step['minutes']:.3g}" if step.get("minutes") is not None else f"trials-{step.get('trials')}"
        state = spent if step.get("labelled") else f"unlabelled-{step.get('trials')}"
        later |= dict.fromkeys(step.get("people", ()), state)
    return [later.get(name, "seen") if name in people else "new" for name in subjects]
