"""Finds EEG again under another name: a recording that was exported to another format, or a person with a second number.

Unrelated EEG has no correlation over a second and many channels; a copy keeps nearly all of it through another gain, resolution, file format or
reference code. So trials are compared as signals, channel by channel, and nothing is asked of names.
Shapes: N trials, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from eegprep.corpus.reader import Corpus
from eegprep.signals.spectra import spread

SAME = 0.9  # correlation: copies have 0.99 and more after the same filter; neighbouring trials of one person stay below 0.6
HEARD = 0.75  # the same for a corpus, whose filter may be another
TRIALS = 4  # of a person that are looked for in a corpus
LEAST_OVERLAP = 0.4  # s of a window and a trial
READS = 4096  # trials that a comparison of people reads at most, about
STEPS = 64  # samples of a trial that are compared


class HasTrials(Protocol):
    """What is needed of pairs."""

    subjects: list[str]
    attributes: dict[str, Mapping[str, Any]]

    @property
    def person(self) -> np.ndarray:
        """(n,) index into `subjects`."""
        ...

    @property
    def onset(self) -> np.ndarray:
        """(n,) s, NaN where unknown."""
        ...

    def eeg(self, indices: np.ndarray) -> np.ndarray:
        """(n, C, T) of these trials."""
        ...


def people_twice(pairs: HasTrials, train: np.ndarray, test: np.ndarray) -> list[str]:
    """Sentences on people of the test part whose trials stand in training under another name.

    A copy of a recording has its trials at the same moments, so those are compared; where moments are not recorded, trials spread over everybody.
    """
    result = []
    judged = np.unique(pairs.person[test])
    taught = np.unique(pairs.person[train])
    each = int(np.clip(READS // max(len(judged) * len(taught), 1), 3, 32))
    for number in judged:
        others = train[pairs.person[train] != number]
        if len(others) == 0:
            continue
        mine = test[pairs.person[test] == number]
        mine = mine[spread(len(mine), each)]
        if np.isfinite(pairs.onset[mine]).all():
            chosen = _at_the_same_time(pairs, mine, others)
        else:
            chosen = others[spread(len(others), max(READS // (4 * len(judged)), 64))]
        if len(chosen) == 0:
            continue
        likeness = _unit(pairs, mine) @ _unit(pairs, chosen).T
        rows, columns = np.nonzero(likeness > SAME)
        for other in np.unique(pairs.person[chosen[columns]]):
            hits = pairs.person[chosen[columns]] == other
            if len(np.unique(rows[hits])) >= min(2, len(mine)):
                result.append(
                    f"{pairs.subjects[int(number)]} in test and {pairs.subjects[int(other)]} in training are one recording under two names "
                    f"({len(np.unique(rows[hits]))} of {len(mine)} compared trials, correlation {likeness[rows[hits], columns[hits]].max():.3f})"
                )
    return result


def _at_the_same_time(pairs: HasTrials, positions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Those of `others` that began within a few milliseconds of one of `positions`."""
    order = others[np.argsort(pairs.onset[others], kind="stable")]
    times = pairs.onset[order]
    low, high = (np.searchsorted(times, pairs.onset[positions] + shift) for shift in (-0.004, 0.004))
    matches = [order[first:last] for first, last in zip(low, high, strict=True)]
    return np.unique(np.concatenate(matches)) if matches else others[:0]


def _unit(pairs: HasTrials, positions: np.ndarray) -> np.ndarray:
    """(N, C * STEPS) trials thinned in time, without their means, of length 1."""
    parts = []
    for part in np.array_split(positions, max(1, -(-len(positions) // 128))):
        eeg_NCT = pairs.eeg(part)
        eeg_NCT = eeg_NCT[:, :, spread(eeg_NCT.shape[2], STEPS)]
        eeg_NCT = eeg_NCT - eeg_NCT.mean(axis=2, keepdims=True)
        scale_C = np.sqrt(np.square(eeg_NCT).mean(axis=(0, 2), keepdims=True))
        parts.append((eeg_NCT / np.where(scale_C > 0, scale_C, 1)).reshape(len(part), -1))
    flat = np.concatenate(parts)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def recordings_heard(corpus: Corpus, pairs: HasTrials, test: np.ndarray) -> dict[str, list[str]]:
    """Person of the test part -> recordings of a corpus that hold the signal of their trials at the same moment."""
    everything = np.arange(len(corpus))
    group_N, recording_N, start_N = corpus.group_of(everything), corpus.column("recording"), corpus.column("start")
    cells = np.unique(np.stack([group_N, recording_N]), axis=1).T
    result: dict[str, list[str]] = {}
    for number in np.unique(pairs.person[test]):
        name = pairs.subjects[int(number)]
        facts = pairs.attributes[name]
        mine = test[(pairs.person[test] == number) & np.isfinite(pairs.onset[test])]
        rows = _rows_by_channel(facts)
        if len(mine) == 0 or len(rows) < 3 or not facts.get("sfreq"):
            continue
        mine = mine[spread(len(mine), TRIALS)]
        eeg_NCT = pairs.eeg(mine)
        first_N = pairs.onset[mine] + float(facts.get("t0") or 0.0)
        for group, recording in cells.tolist():
            here = np.flatnonzero((group_N == group) & (recording_N == recording))
            record = corpus.record(int(here[0]))
            likeness = [
                _heard(corpus, here, start_N[here], record, eeg_CT, first, float(facts["sfreq"]), rows)
                for eeg_CT, first in zip(eeg_NCT, first_N, strict=True)
            ]
            known = [value for value in likeness if value is not None]
            if known and float(np.median(known)) >= HEARD:
                key = corpus.keys[group]
                result.setdefault(name, []).append(f"{key} {record.get('session', '0')}.{record.get('run', '0')}")
    return result


def _heard(
    corpus: Corpus, here: np.ndarray, start_N: np.ndarray, record: Mapping[str, Any], eeg_CT: np.ndarray, first: float,
    sfreq: float, rows: dict[str, int],
) -> float | None:  # fmt: skip
    """Mean correlation over common channels of a trial with the window that overlaps it most; None where none does."""
    rate = float(record["sfreq"])
    length, span = eeg_CT.shape[1] / sfreq, corpus.samples / rate
    begin_N = start_N / rate
    shared_N = np.minimum(begin_N + span, first + length) - np.maximum(begin_N, first)
    best = int(np.argmax(shared_N))
    if shared_N[best] < min(LEAST_OVERLAP, 0.6 * length):
        return None
    theirs = _rows_by_channel(record)
    common = [channel for channel in rows if channel in theirs]
    if len(common) < 3:
        return None
    window_CT = corpus.read([int(here[best])])[0]
    times = max(begin_N[best], first) + np.arange(int(shared_N[best] * min(sfreq, rate))) / min(sfreq, rate)
    values = []
    for lag in (-2, -1, 0, 1, 2):  # onsets were rounded to samples
        one = np.stack([np.interp(times, first + (np.arange(eeg_CT.shape[1]) + lag) / sfreq, eeg_CT[rows[c]]) for c in common])
        two = np.stack([np.interp(times, begin_N[best] + np.arange(corpus.samples) / rate, window_CT[theirs[c]]) for c in common])
        one, two = (x - x.mean(axis=1, keepdims=True) for x in (one, two))
        scale = np.sqrt(np.square(one).sum(1) * np.square(two).sum(1))
        values.append(float(((one * two).sum(1) / np.where(scale > 0, scale, np.inf)).mean()))
    return max(values)


def _rows_by_channel(facts: Mapping[str, Any]) -> dict[str, int]:
    """Channel -> the first row that holds it, of a subject's pairs or of a recording of a corpus."""
    channels = list(facts.get("channels") or ())
    pad_map = list(facts.get("pad_map") or range(len(channels)))
    rows: dict[str, int] = {}
    for row, source in enumerate(pad_map):
        if 0 <= source < len(channels):
            rows.setdefault(str(channels[source]).rstrip(".").upper(), row)
    return rows
