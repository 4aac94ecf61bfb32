"""Which seconds, electrodes and frequencies carry an accuracy: a control for any figure of a decoder.

The same decoder is given the stretch before the event, windows that slide over the rest, groups of electrodes, bands, and everything. A figure
that the first moments after the event or the frontal electrodes explain may be about what appeared on the screen, or about eye
movements: for imagined movements (PhysioNet eegmmidb) the first second after the cue decodes the side of the target.

Shapes: N trials, C channels, T samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from dreamdiff.arrays import Array, Ints
from dreamdiff.estimators.light import light_decoder
from dreamdiff.estimators.scores import judge
from dreamdiff.spectra import CORPUS_BANDS, band_pass
from eegprep.recording import ProgressCallback
from eegprep.signals.channels import canonical_name

Kind = Literal["whole", "before", "window", "later", "electrodes", "band"]
Decoder = Callable[[Array, Ints, Array, Array, Array, float], Ints]
"""(windows (N, C, T), labels, person of each, training rows, test rows, Hz) -> labels of the test rows."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "frontal": ("Fp", "AF", "F5", "F6", "F7", "F8", "F9", "F10"),
    "central": ("FC", "C", "CP"),
    "temporal": ("FT", "T", "TP"),
    "posterior": ("P", "PO", "O", "I"),
}
WINDOWS = 5  # stretches that the time after the event is parted into; windows slide by half of one
SHORTEST = 8  # samples of a stretch
SHARE = 2 / 3  # ours: of what the whole has above chance; a part that reaches it explains the figure


@dataclass(frozen=True)
class Carrier:
    """What a stretch of time, a group of electrodes or a band of frequencies reaches alone: balanced accuracy and its 95 % interval.

    first, last: s after the event. chance_low, chance_high: where 95 % of scores lie with shuffled labels.
    """

    name: str
    kind: Kind
    first: float
    last: float
    electrodes: int
    accuracy: float
    low: float
    high: float
    chance_low: float
    chance_high: float

    @property
    def above_chance(self) -> bool:
        """Whether neither interval reaches the other."""
        return self.low > self.chance_high


@dataclass(frozen=True)
class Carriers:
    """All rows, the one with everything first, and what they warn of. left_out: what could not be looked at, and why."""

    rows: tuple[Carrier, ...]
    warnings: tuple[str, ...]
    left_out: Mapping[str, str]
    trials: int
    chance: float
    interval_over: str

    def __getitem__(self, name: str) -> Carrier:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def table(self) -> list[dict[str, str]]:
        """The rows for people, shares in percent."""
        return [
            {
                "part": row.name, "accuracy": f"{row.accuracy:.1%}", "interval": f"{row.low:.1%} to {row.high:.1%}",
                "shuffled labels": f"{row.chance_low:.1%} to {row.chance_high:.1%}",
            }
            for row in self.rows
        ]  # fmt: skip

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "rows": [asdict(row) for row in self.rows], "warnings": list(self.warnings), "left_out": dict(self.left_out),
            "trials": self.trials, "chance": self.chance, "interval_over": self.interval_over,
        }  # fmt: skip


def carriers(
    x_NCT: Array, label_N: Ints, person_N: Array, folds: Sequence[tuple[Array, Array]], *, sfreq: float, first: float | None,
    channels: Sequence[str] | None, decode: Decoder = light_decoder, unit_N: Array | None = None, seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Carriers:  # fmt: skip
    """Decode from parts of the windows, each trial by a decoder that was fitted without its fold.

    Args:
        x_NCT: uV. label_N: integers. person_N: who is whitened together.
        folds: (training rows, test rows); every test row is judged once.
        first: time of the first sample after the event, s, negative when there is EEG before it; None when it is not known.
        channels: 10-05 names of the C channels, None when they are not known.
        decode: the decoder; ridge regression on time courses or band power when left out.
        unit_N: what is resampled together for the intervals (people, pictures); people when left out.
    """
    label_N, person_N = np.asarray(label_N), np.asarray(person_N)
    tested = np.sort(np.concatenate([test for _, test in folds]))
    unit_N = person_N if unit_N is None else np.asarray(unit_N)
    over: Literal["groups", "windows"] = "groups" if len(np.unique(unit_N[tested])) >= 5 else "windows"
    left_out: dict[str, str] = {}
    jobs = _jobs(x_NCT.shape, sfreq, first, channels, left_out)
    rows = []
    for number, (name, kind, (start, stop), chosen) in enumerate(jobs):
        if progress is not None:
            progress(number, len(jobs), f"which part carries it: {name}")
        part = x_NCT[:, :, start:stop] if chosen is None else x_NCT[:, chosen, start:stop]
        guess_N = np.empty_like(label_N)
        for train, test in folds:
            guess_N[test] = decode(part, label_N, person_N, np.asarray(train), np.asarray(test), sfreq)
        rng = np.random.default_rng([seed, number])
        result = judge(label_N[tested], guess_N[tested], unit_N[tested], over, rng, person_N[tested])
        origin = first or 0.0
        rows.append(Carrier(name, kind, origin + start / sfreq, origin + stop / sfreq, part.shape[1], *result))
    for band, (low, high) in _bands(rows[0], sfreq, left_out).items():
        name, start = f"{band}, {low:g} to {high:g} Hz", round((rows[0].first - (first or 0.0)) * sfreq)
        if progress is not None:
            progress(len(jobs), len(jobs), f"which part carries it: {name}")
        part = band_pass(x_NCT[:, :, start:], sfreq, low, high).astype(x_NCT.dtype)
        for train, test in folds:
            guess_N[test] = decode(part, label_N, person_N, np.asarray(train), np.asarray(test), sfreq)
        rng = np.random.default_rng([seed, len(rows)])
        result = judge(label_N[tested], guess_N[tested], unit_N[tested], over, rng, person_N[tested])
        rows.append(Carrier(name, "band", rows[0].first, rows[0].last, part.shape[1], *result))
    chance = 1.0 / len(np.unique(label_N[tested]))
    return Carriers(tuple(rows), tuple(_warnings(rows, chance)), left_out, len(tested), chance, over)


def _bands(whole: Carrier, sfreq: float, left_out: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Bands that the trials can hold: below half the rate, and at least two waves of the lowest frequency long."""
    result = {}
    for name, (low, high) in CORPUS_BANDS.items():
        seconds, top = whole.last - whole.first, min(high, sfreq / 2)
        if top - low < 2 or seconds * low < 2:
            left_out[f"{name} band"] = f"{seconds:.2f} s at {sfreq:g} Hz hold no {low:g} to {high:g} Hz"
        else:
            result[name] = (low, top)
    return result


def electrode_groups(channels: Sequence[str]) -> dict[str, list[int]]:
    """Rows of frontal, central, temporal and posterior electrodes, by the letters of their names."""
    groups: dict[str, list[int]] = {}
    for row, given in enumerate(channels):
        name = canonical_name(given)
        letters = re.sub(r"(\d+|z)$", "", name)
        for group, names in GROUPS.items():
            if name in names or letters in names:
                groups.setdefault(group, []).append(row)
    return groups


def _jobs(
    shape: tuple[int, ...], sfreq: float, first: float | None, channels: Sequence[str] | None, left_out: dict[str, str]
) -> list[tuple[str, Kind, tuple[int, int], list[int] | None]]:
    """(name, kind, samples, rows or None for all) of every part, everything first."""
    _, count, samples = shape
    event = 0 if first is None else int(np.clip(np.ceil(-first * sfreq - 1e-6), 0, samples))
    after, clock = (event, samples), "of the window" if first is None else "after the event"
    jobs: list[tuple[str, Kind, tuple[int, int], list[int] | None]] = [("everything", "whole", after, None)]
    if event >= SHORTEST:
        jobs.append(("before the event", "before", (0, event), None))
    elif first is None:
        left_out["before the event"] = "the windows do not say when the event was"
    else:
        left_out["before the event"] = f"there are {event} samples before the event ({SHORTEST} are needed)"
    width = (samples - event) // WINDOWS
    if width >= SHORTEST:
        origin = 0.0 if first is None else first
        starts = [event + round(half * width / 2) for half in range(2 * WINDOWS - 1)]
        for start in starts:
            name = f"{origin + start / sfreq:.2f} to {origin + (start + width) / sfreq:.2f} s {clock}"
            jobs.append((name, "window", (start, start + width), None))
        jobs.append((f"after the first {width / sfreq:.2f} s", "later", (event + width, samples), None))
    else:
        left_out["sliding window"] = f"{samples - event} samples after the event do not make {WINDOWS} windows of {SHORTEST}"
    groups = {} if channels is None else electrode_groups(channels)
    for group in GROUPS:
        rows = groups.get(group, [])
        if 2 <= len(rows) < count:
            jobs.append((f"{len(rows)} {group} electrodes", "electrodes", after, rows))
        else:
            why = "the channels have no known names" if channels is None else f"{len(rows)} of {count} channels by their names"
            left_out[f"{group} electrodes"] = why
    return jobs


def _warnings(rows: Sequence[Carrier], chance: float) -> list[str]:
    """What a reader must know before believing the figure."""
    whole, result = rows[0], []
    for row in rows:
        if row.kind == "before" and row.above_chance:
            result.append(
                f"the {row.last - row.first:.2f} s before the event tell the labels apart ({_share(row)}, chance up to "
                f"{row.chance_high:.1%}): something else than the response to the event names them"
            )
    if not whole.above_chance:
        return result
    windows, groups = [r for r in rows if r.kind == "window"], [r for r in rows if r.kind == "electrodes"]
    if windows and _explains(windows[0], whole, chance) and windows[0].accuracy >= max(r.accuracy for r in windows):
        early, later = windows[0], next(r for r in rows if r.kind == "later")
        result.append(
            f"the earliest {early.last - early.first:.2f} s alone reach {_share(early)} (everything {whole.accuracy:.1%}, later "
            f"{later.accuracy:.1%}): the response to what appeared, such as its side or brightness, may explain the figure"
        )
    frontal = next((r for r in groups if r.name.endswith("frontal electrodes")), None)
    if frontal and _explains(frontal, whole, chance) and frontal.accuracy >= max(r.accuracy for r in groups):
        result.append(
            f"the {frontal.electrodes} frontal electrodes alone reach {_share(frontal)} (everything {whole.accuracy:.1%}): eye "
            "movements may explain the figure"
        )
    return result


def _explains(part: Carrier, whole: Carrier, chance: float) -> bool:
    return part.above_chance and part.accuracy - chance >= SHARE * (whole.accuracy - chance)


def _share(row: Carrier) -> str:
    return f"{row.accuracy:.1%} [{row.low:.1%}, {row.high:.1%}]"
