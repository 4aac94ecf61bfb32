"""Events out of trigger channels: sampled lines whose value says what happens. Shapes: T samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eegprep.recording import Event

# ours: a line whose value changes at more than this share of its samples is no trigger channel
_MOST_CHANGES = 0.25

# ours: a line that never returns to 0 rests at the value that it has for more than this share of the recording
_REST_SHARE = 0.75


def onsets(values_T: np.ndarray) -> np.ndarray:
    """Samples where a stimulus channel takes a new value other than 0; the first sample counts."""
    before = np.concatenate([[0], values_T[:-1]])
    return np.flatnonzero((values_T != before) & (values_T != 0))


def trigger_events(values_T: np.ndarray, sfreq: float) -> list[Event]:
    """New values of a trigger channel as events; the label is the value above the one at which the line rests.

    Bits that are set all the time carry nothing (BioSemi: 0xFF00 with nothing plugged in) and are taken off. Where the line never
    returns to 0, the value that it has nearly always is its resting value, which is no event.

    Args:
        values_T: whole numbers.
        sfreq: Hz.
    """
    if not len(values_T):
        return []
    values_T = values_T.astype(np.int64)
    if values_T.min() >= 0:
        values_T = values_T - np.bitwise_and.reduce(values_T)
    starts_N = np.flatnonzero(np.concatenate([[True], values_T[1:] != values_T[:-1]]))
    codes_N = values_T[starts_N]
    # a few changes are allowed to any line, so that a short recording keeps its events
    if len(starts_N) > max(8, _MOST_CHANGES * len(values_T)):
        return []
    rest = 0
    if not (codes_N == 0).any():
        lengths_N = np.diff(np.concatenate([starts_N, [len(values_T)]]))
        totals = {int(code): int(lengths_N[codes_N == code].sum()) for code in np.unique(codes_N)}
        longest = max(totals, key=lambda code: totals[code])
        if totals[longest] > _REST_SHARE * len(values_T):
            rest = longest
    return [
        Event(round(int(start) / sfreq, 9), 0.0, str(int(code)))
        for start, code in zip(starts_N, codes_N, strict=True)
        if code != rest
    ]


def merge_lines(lines: Sequence[tuple[str, Sequence[Event]]], tolerance: float) -> list[Event]:
    """Events of several trigger channels, each told once.

    A channel that has an onset wherever another one has is their sum (STI 014 beside STI 001 ...): the other one says nothing new.
    What is left of several independent lines is labelled with the line's name, as their values alone would be confused.

    Args:
        lines: name and events of each channel.
        tolerance: s within which two onsets are the same.
    """
    used = [(name, events) for name, events in lines if events]
    kept: list[tuple[str, Sequence[Event]]] = []
    # the channel with most values first, so that a sum is met before its parts
    for name, events in sorted(used, key=lambda line: (-len(line[1]), -len({e.label for e in line[1]}))):
        times = np.array([event.onset for event in events])
        if not any(_all_near(times, np.array([e.onset for e in others]), tolerance) for _, others in kept):
            kept.append((name, events))
    several = len(kept) > 1
    merged = [
        Event(event.onset, event.duration, f"{name}/{event.label}" if several else event.label)
        for name, events in kept
        for event in events
    ]
    return sorted(merged, key=lambda event: (event.onset, event.label))


def _all_near(times: np.ndarray, others: np.ndarray, tolerance: float) -> bool:
    """Whether every time has another one within `tolerance` s."""
    return bool(near(times, np.sort(others), tolerance).all())


def near(times: np.ndarray, others: np.ndarray, tolerance: float) -> np.ndarray:
    """Which times have another one within `tolerance` s; `others` sorted."""
    if not len(others):
        return np.zeros(len(times), bool)
    place = np.searchsorted(others, times).clip(0, len(others) - 1)
    before = (place - 1).clip(0)
    return np.minimum(np.abs(others[place] - times), np.abs(others[before] - times)) <= tolerance


def new_epochs(codes_T: np.ndarray, sfreq: float) -> list[tuple[float, float]]:
    """Where bit 16 of a BioSemi status channel rises, in s: the recording was paused before that sample."""
    bit_T = (codes_T.astype(np.int64) >> 16) & 1
    rises = np.flatnonzero((bit_T[1:] == 1) & (bit_T[:-1] == 0)) + 1
    return [(sample / sfreq, sample / sfreq) for sample in rises.tolist()]
