"""Crop and pad to (128, 512). Shapes: N windows, C channels, T samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import SignalError


def crop(signal_CT: np.ndarray, window: int = 512, stride: int | None = None) -> np.ndarray:
    """All windows of `window` samples, `stride` apart, that lie inside the signal.

    Args:
        signal_CT: (channels, samples).
        window, stride: samples; `stride` is `window` when left out.

    Returns:
        (N, C, T) view of `signal_CT`; N is 0 when the signal is shorter than a window.
    """
    stride = window if stride is None else stride
    if window < 1 or stride < 1:
        raise SignalError(f"window {window} and stride {stride} samples do not make windows (least 1)", "set --window and --stride")
    if signal_CT.shape[-1] < window:
        return np.empty((0, signal_CT.shape[0], window), signal_CT.dtype)
    return np.lib.stride_tricks.sliding_window_view(signal_CT, window, axis=1)[:, ::stride].swapaxes(0, 1)


def window_starts(segments: Sequence[tuple[int, int]], window: int, stride: int) -> np.ndarray:
    """First samples (int64) of all windows that lie inside one of the segments."""
    parts = [np.arange(first, last - window + 1, stride, dtype=np.int64) for first, last in segments]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def pad_map(n_channels: int, channels: int = 128, rng: np.random.Generator | None = None) -> np.ndarray:
    """Which source channel each of the `channels` output rows shows: (channels,) int64.

    Replicated in order, `arange(channels) % n_channels`, as the paper's released code does. More source channels than rows:
    a contiguous block that starts where `rng` says, or at 0 without one.
    """
    if n_channels < 1:
        raise SignalError("a recording with 0 channels cannot be padded (least 1)", "leave the recording out")
    if n_channels <= channels:
        return np.arange(channels) % n_channels
    start = 0 if rng is None else int(rng.integers(n_channels - channels + 1))
    return np.arange(start, start + channels)


def pad_channels(windows: np.ndarray, channels: int = 128) -> np.ndarray:
    """Bring the channel axis (last but one) to `channels` rows by replication.

    Args:
        windows: (..., C, T).

    Returns:
        (..., channels, T), the dtype of `windows`.
    """
    return np.take(windows, pad_map(windows.shape[-2], channels), axis=-2)
