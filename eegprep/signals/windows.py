"""Crop and pad to (128, 512). Shapes: N windows, C channels, T samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eegprep.errors import SignalError
from eegprep.recording import Recording
from eegprep.signals.channels import canonical_order, directions, montage_directions, spread_channels
from eegprep.signals.recipe import Recipe
from eegprep.signals.sphere import spline_weights


def crop(signal_CT: np.ndarray, window: int = 512, stride: int | None = None) -> np.ndarray:
    """All windows of `window` samples, `stride` apart, that lie inside the signal.

    Args:
        signal_CT: (channels, samples).
        window, stride: samples; `stride` is `window` when left out.

    Returns:
        (N, C, T) view of `signal_CT`; N is 0 when the signal is shorter than a window.

    Example:
        >>> import eegprep, numpy
        >>> eegprep.crop(numpy.zeros((3, 2048), numpy.float32), 512, stride=256).shape
        (7, 3, 512)
    """
    stride = window if stride is None else stride
    if window < 1 or stride < 1:
        raise SignalError(f"a window of {window} samples, {stride} apart, does not exist (least 1)", "set --window and --stride")
    if signal_CT.shape[-1] < window:
        return np.empty((0, signal_CT.shape[0], window), signal_CT.dtype)
    return np.lib.stride_tricks.sliding_window_view(signal_CT, window, axis=1)[:, ::stride].swapaxes(0, 1)


def window_starts(segments: Sequence[tuple[int, int]], window: int, stride: int) -> np.ndarray:
    """First samples (int64) of all windows that lie inside one of the segments."""
    parts = [np.arange(first, last - window + 1, stride, dtype=np.int64) for first, last in segments]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def pad_map(n_channels: int, channels: int = 128) -> np.ndarray:
    """Which source channel each of the `channels` output rows shows: (channels,) int64.

    Replicated in order, `arange(channels) % n_channels`, as the paper's released code does. More source channels than rows: evenly
    spaced in channel order; recordings, whose electrodes are known, choose by place (`channels.spread_channels`).
    """
    if n_channels < 1:
        raise SignalError("a recording with 0 channels cannot be padded (least 1)", "leave the recording out")
    if n_channels <= channels:
        return np.arange(channels) % n_channels
    return np.round(np.linspace(0, n_channels - 1, channels)).astype(np.int64)


def pad_channels(windows: np.ndarray, channels: int = 128) -> np.ndarray:
    """Bring the channel axis (last but one) to `channels` rows by replication.

    Args:
        windows: (..., C, T).

    Returns:
        (..., channels, T), the dtype of `windows`.

    Example:
        >>> import eegprep, numpy
        >>> eegprep.pad_channels(numpy.zeros((7, 3, 512), numpy.float32), 128).shape
        (7, 128, 512)
    """
    return np.take(windows, pad_map(windows.shape[-2], channels), axis=-2)


@dataclass(frozen=True)
class Cut:
    """Where the windows of a recording lie. N windows.

    starts_N, lengths_N: first sample and samples taken; a length other than the window's means stretched.
    labels_N: what happened during the whole window, or None.
    """

    starts_N: np.ndarray
    lengths_N: np.ndarray
    labels_N: tuple[str | None, ...]

    def take(self, chosen: np.ndarray) -> Cut:
        """The windows with these indices."""
        return Cut(self.starts_N[chosen], self.lengths_N[chosen], tuple(self.labels_N[i] for i in chosen.tolist()))

    def __len__(self) -> int:
        return len(self.starts_N)


def plan_cut(recording: Recording, recipe: Recipe) -> Cut:
    """Windows of a recording: sliding, or one per trial; never across a seam."""
    window = recipe.window
    segments = recording.segments
    trials = _trials(recording)
    if recipe.windows == "trials":
        return _cut_trials(trials, segments, recipe)
    starts_N = window_starts(segments, window, recipe.stride)
    lengths_N = np.full(len(starts_N), window, np.int64)
    if recipe.short == "stretch":
        # a segment that holds a window is not stretched as well; one sample cannot be
        short = [(first, last - first) for first, last in segments if 2 <= last - first < window]
        starts_N = np.concatenate([starts_N, np.array([first for first, _ in short], np.int64)])
        lengths_N = np.concatenate([lengths_N, np.array([length for _, length in short], np.int64)])
        order = np.argsort(starts_N, kind="stable")
        starts_N, lengths_N = starts_N[order], lengths_N[order]
    return Cut(starts_N, lengths_N, labels_inside(starts_N, lengths_N, trials))


def labels_inside(starts_N: np.ndarray, lengths_N: np.ndarray, trials: Sequence[tuple[int, int, str]]) -> tuple[str | None, ...]:
    """The label of the trial that each window lies wholly inside; the latest that began, where trials overlap."""
    labels: list[str | None] = [None] * len(starts_N)
    if not trials or not len(starts_N):
        return tuple(labels)
    ends_N = starts_N + lengths_N
    firsts, lasts = np.array([trial[0] for trial in trials]), np.array([trial[1] for trial in trials])
    # windows in order: those of a trial are neighbours, and a trial shorter than any window has none
    low_M, high_M = np.searchsorted(starts_N, firsts, "left"), np.searchsorted(starts_N, lasts, "left")
    for low, high, last, label in zip(
        low_M.tolist(), high_M.tolist(), lasts.tolist(), (trial[2] for trial in trials), strict=True
    ):
        for index in range(low, high):
            if ends_N[index] <= last:
                labels[index] = label
    return tuple(labels)


def _trials(recording: Recording) -> list[tuple[int, int, str]]:
    """(first, last + 1, label) in samples, by onset; stretches marked bad are no trials."""
    rate = recording.sfreq
    return [
        (round(event.onset * rate), round((event.onset + event.duration) * rate), event.label)
        for event in sorted(recording.events, key=lambda event: event.onset)
        if not event.is_bad
    ]


def _cut_trials(trials: Sequence[tuple[int, int, str]], segments: Sequence[tuple[int, int]], recipe: Recipe) -> Cut:
    """One window from the start of each trial, with its label. A shorter trial is stretched, or the window runs on beyond it.

    Most stimulus markers last no longer than one sample: the window is still that of the stimulus.
    """
    rows: list[tuple[int, int, str]] = []
    for first, last, label in trials:
        # a trial that begins in a gap has no first sample
        end = next((stop for start, stop in segments if start <= first < stop), None)
        if end is None:
            continue
        inside = min(last, end) - first
        if inside >= recipe.window:
            rows.append((first, recipe.window, label))
        elif recipe.short == "stretch" and inside >= 2:
            rows.append((first, inside, label))
        elif first + recipe.window <= end:
            rows.append((first, recipe.window, label))
    starts_N, lengths_N = (np.array([row[column] for row in rows], np.int64) for column in (0, 1))
    return Cut(starts_N, lengths_N, tuple(row[2] for row in rows))


def draw(cut: Cut, recording: str, seed: int) -> np.ndarray:
    """A number for each window that decides the seeded draw: (N,) uint64, the same whatever else is drawn."""
    digests = [hashlib.blake2b(f"{seed}|{recording}|{start}".encode(), digest_size=8).digest() for start in cut.starts_N.tolist()]
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def stretch(signal_CT: np.ndarray, samples: int = 512) -> np.ndarray:
    """Linear interpolation to `samples` samples from end to end, as the paper's released code does with short recordings."""
    n_samples = signal_CT.shape[1]
    if n_samples < 2:
        raise SignalError(f"{n_samples} samples cannot be stretched (least 2)", "leave the recording out: --short skip")
    places = np.linspace(0.0, n_samples - 1.0, samples)
    left = np.minimum(places.astype(np.int64), n_samples - 2)
    share = places - left
    return (signal_CT[:, left] * (1 - share) + signal_CT[:, left + 1] * share).astype(signal_CT.dtype)


def make_windows(signal_CT: np.ndarray, cut: Cut, rows: ChannelPlan, window: int = 512) -> np.ndarray:
    """The windows of a cut, padded: (N, channels, window) float32."""
    out = np.empty((len(cut), rows.channels, window), np.float32)
    for index, (start, length) in enumerate(zip(cut.starts_N.tolist(), cut.lengths_N.tolist(), strict=True)):
        piece_CT = signal_CT[:, start : start + length]
        rows.fill(piece_CT if length == window else stretch(piece_CT, window), out[index])
    return out


@dataclass(frozen=True)
class ChannelPlan:
    """How the rows of a window are filled from a recording's channels.

    pad_map: source channel of each row, -1 for none. weights: (channels, C) when rows are interpolated instead.
    """

    pad_map: tuple[int, ...]
    weights: np.ndarray | None = None

    @property
    def channels(self) -> int:
        return len(self.pad_map)

    @property
    def distinct(self) -> ChannelPlan:
        """The first rows, of which all others are repeats in order; this plan itself where rows are not repeated so."""
        count = len(set(self.pad_map))
        repeats = self.weights is None and self.pad_map[count:] == self.pad_map[: self.channels - count]
        return ChannelPlan(self.pad_map[:count]) if repeats else self

    def fill(self, piece_CT: np.ndarray, out_CT: np.ndarray) -> None:
        """Write one padded window."""
        if self.weights is not None:
            out_CT[...] = (self.weights @ piece_CT.astype(np.float64)).astype(np.float32)
            return
        rows = np.array(self.pad_map)
        known = rows >= 0
        if known.all():
            # `clip`: with the default, NumPy goes through a buffer of its own to leave `out` alone on an error
            np.take(piece_CT, rows, axis=0, out=out_CT, mode="clip")
        else:
            out_CT[...] = 0.0
            out_CT[known] = piece_CT[rows[known]]


def plan_channels(recording: Recording, recipe: Recipe) -> ChannelPlan:
    """Which channel goes where, for one recording."""
    n_channels = len(recording.channels)
    if recipe.mode == "spline":
        known = known_positions(recording)
        weights = np.zeros((recipe.channels, n_channels))
        targets_N3 = montage_directions(recipe.channels)
        # channels without a place have no part in it
        weights[:, known] = spline_weights(directions(recording.positions_C3[known]), targets_N3)
        return ChannelPlan((-1,) * recipe.channels, weights)
    order = list(range(n_channels))
    if n_channels > recipe.channels:
        order = spread_channels(recording.channels, recording.positions_C3, recipe.channels)[0]
    if recipe.channel_order == "canonical":
        ranked = canonical_order(recording.channels, recording.positions_C3)
        order = sorted(order, key=ranked.index)
    rows = np.array(order)[pad_map(len(order), recipe.channels)]
    if recipe.mode == "zeros":
        rows = np.where(np.arange(recipe.channels) < len(order), rows, -1)
    return ChannelPlan(tuple(rows.tolist()))


# ours: a spline through fewer electrodes says nothing about the places between them
LEAST_POSITIONS = 8


def known_positions(recording: Recording) -> np.ndarray:
    """Which channels have a position: (C,) bool."""
    return np.asarray(np.isfinite(recording.positions_C3).all(axis=1))
