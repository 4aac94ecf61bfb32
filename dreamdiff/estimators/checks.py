"""What every estimator asks of its input: shape, finite values, known electrodes, one rate.

Shapes: N windows, C channels, T samples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from eegprep.errors import DataError, UsageError
from eegprep.signals.channels import canonical_name, standard_positions

VOLTS = 1e-3  # uV: a median amplitude below a nanovolt says that the data are in volts


def check_windows(x: object, channels: int | None = None, samples: int | None = None) -> np.ndarray:
    """(N, C, T) float32 as given, or an error that says what is wrong.

    Raises:
        DataError: another number of dimensions, channels or samples, no windows, or values that are not finite.
    """
    x_NCT = np.asarray(x)
    if x_NCT.ndim != 3 or 0 in x_NCT.shape:
        raise DataError(f"EEG of shape {x_NCT.shape}, expected (windows, channels, samples)", "give a three-dimensional array")
    for what, expected, given in (("channels", channels, x_NCT.shape[1]), ("samples", samples, x_NCT.shape[2])):
        if expected is not None and given != expected:
            raise DataError(
                f"windows of {given} {what}, expected {expected}", f"give windows with the {what} of the data given to fit"
            )
    x_NCT = x_NCT.astype(np.float32, copy=False)
    finite_N = np.isfinite(x_NCT).all(axis=(1, 2))
    if not finite_N.all():
        bad = int(np.flatnonzero(~finite_N)[0])
        raise DataError(f"window {bad} of {len(x_NCT)} holds NaN or infinity", "leave such windows out, or repair them first")
    return x_NCT


def check_microvolts(x_NCT: np.ndarray) -> None:
    """Refuse data in volts, as MNE and MOABB give them without a factor.

    Raises:
        DataError: the median amplitude is below a nanovolt.
    """
    middle = float(np.median(np.abs(x_NCT)))
    if 0 < middle < VOLTS:
        raise DataError(f"median amplitude {middle:.2g} uV: these data look like volts", "multiply by 1e6, or pass unit='V'")


def check_groups(groups: object, windows: int) -> np.ndarray:
    """A person for every window; without groups all are one person's."""
    if groups is None:
        return np.zeros(windows, int)
    group_N = np.asarray(groups)
    if group_N.shape != (windows,):
        raise DataError(f"groups of shape {group_N.shape} for {windows} windows", "give one person per window")
    return group_N


def places_of(channels: Sequence[str] | None, positions: object, count: int) -> np.ndarray:
    """(C, 3) m: as given, or from the 10-05 system by name.

    Raises:
        UsageError: neither names nor positions, another number of them, or names without a known place.
    """
    if positions is not None:
        places_C3 = np.asarray(positions, float)
        if places_C3.shape != (count, 3):
            raise UsageError(f"positions of shape {places_C3.shape} for {count} channels", f"give ({count}, 3) in m")
        return places_C3
    if channels is None:
        raise UsageError(
            "the encoder needs to know its electrodes", "pass channels=[...] (10-05 names) or positions=(channels, 3) in m"
        )
    if len(channels) != count:
        raise UsageError(f"{len(channels)} channel names for windows of {count} channels", "name every channel, in order")
    places_C3 = standard_positions(list(channels))
    unknown = [name for name, place in zip(channels, places_C3, strict=True) if not np.isfinite(place).all()]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UsageError(
            f"no place is known for {', '.join(unknown[:3])}{more}",
            "pass positions=(channels, 3) in m, or leave those channels out",
        )
    return places_C3


def mirror_map(channels: Sequence[str]) -> np.ndarray:
    """For each channel the index of its mirror image across the midline: C3 and C4, Cz and Cz.

    Raises:
        UsageError: a channel whose mirror image was not recorded.
    """
    names = [canonical_name(name).upper() for name in channels]

    def other(name: str) -> str:
        parts = re.fullmatch(r"([A-Z]+)(\d+)(H?)", name)
        if not parts:
            return name
        number = int(parts[2])
        # odd numbers lie left, even ones right; z has no number
        return f"{parts[1]}{number + (1 if number % 2 else -1)}{parts[3]}"

    missing = [name for name in names if other(name) not in names]
    if missing:
        raise UsageError(
            f"{missing[0]} has no mirror image among the channels ({other(missing[0])} is missing; {len(missing)} such channels)",
            "leave those channels out, or use the map without Mirror",
        )
    return np.array([names.index(other(name)) for name in names])
