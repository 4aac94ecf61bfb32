"""The EEG that a model reads: how its trials were cut, filtered and laid out, and the same for any other recording.

`pairs import --kind table`, `generate --eeg FILE` and the page's upload all go through `prepare`, `inside` and `rows_for`, so a trial is the same
array whichever way it comes. Shapes: C channels, T samples, R rows of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from eegprep.errors import DataError, ModelError
from eegprep.recording import Recording
from eegprep.settings import Settings
from eegprep.signals import gates
from eegprep.signals.channels import canonical_name, directions
from eegprep.signals.filters import resample, same_rate, scaled
from eegprep.signals.process import process
from eegprep.signals.recipe import Recipe
from eegprep.signals.sphere import spline_weights
from eegprep.signals.windows import LEAST_POSITIONS, ChannelPlan

CapMatch = Literal["auto", "name", "spline"]


class FilterConfig(Settings):
    """The filter of the training recordings as it was asked for, so that another recording gets the same."""

    low: float = Field(description="Lower edge of the pass band, Hz")
    high: float = Field(description="Upper edge of the pass band, Hz")
    nyquist: Literal["clip", "highpass", "error"] = Field(default="clip", description="When the upper edge does not fit the rate")
    resample: float | None = Field(default=None, description="Common rate, Hz")


class CapConfig(Settings):
    """The electrodes of some training recordings, and which of them each row of a window shows (-1: none)."""

    channels: tuple[str, ...] = Field(description="Names, in the order of the recording")
    positions: tuple[tuple[float | None, float | None, float | None], ...] = Field(
        default=(), description="Head coordinates, m; null where unknown"
    )
    rows: tuple[int, ...] = Field(description="Channel that each row shows")

    @property
    def shown(self) -> tuple[str | None, ...]:
        """Electrode of each row."""
        return tuple(None if row < 0 else self.channels[row] for row in self.rows)


class RateShare(Settings):
    """How many windows of one sampling rate a model was trained on."""

    sfreq: float = Field(description="Hz")
    windows: int = Field(description="Windows or trials")


class SignalConfig(Settings):
    """What the EEG has to be, as it was for training: rate, first sample relative to the image, pass band, unit, electrodes."""

    sfreq: float | None = Field(default=None, description="Hz; of several rates the one that most windows had")
    rates: tuple[RateShare, ...] = Field(default=(), description="All rates that it was trained at, the most common first")
    window_ms: float | None = Field(default=None, description="Length of a window at `sfreq`, ms")
    t0: float | None = Field(default=None, description="First sample, s from the onset of the image")
    band: tuple[float, float] | None = Field(default=None, description="Pass band, Hz")
    unit: str = "uV"
    reference: str = Field(default="", description="Reference electrode, as the recordings name it")
    filter: FilterConfig | None = Field(default=None, description="How the recordings were filtered")
    caps: tuple[CapConfig, ...] = Field(default=(), description="Electrodes of the training recordings; none when unknown")
    baseline_ms: tuple[float, float] | None = Field(default=None, description="Stretch whose mean was taken off each channel, ms")

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Models without a baseline are written as before there was one."""
        content: dict[str, Any] = write(self)
        return {key: value for key, value in content.items() if key != "baseline_ms" or value is not None}


def signal_of(attributes: Sequence[Mapping[str, Any]], settings: Mapping[str, Any] | None = None) -> SignalConfig:
    """What a model that is trained on these pairs has to be given.

    Args:
        attributes: of each subject of a pairs store.
        settings: of the import, where it filtered the recordings (`--kind table`).
    """
    first = attributes[0]
    caps: dict[tuple[str | None, ...], CapConfig] = {}
    for subject in attributes:
        for facts in subject.get("recordings") or [subject]:
            if facts.get("channels") and facts.get("pad_map"):
                cap = CapConfig(
                    channels=tuple(facts["channels"]),
                    positions=tuple(map(tuple, facts.get("positions") or ())),
                    rows=tuple(facts["pad_map"]),
                )
                caps.setdefault(cap.shown, cap)
    filtered = {key: settings[key] for key in ("low", "high", "nyquist", "resample") if key in (settings or {})}  # type: ignore[index]
    references = {facts.get("reference", "") for subject in attributes for facts in subject.get("recordings") or [subject]}
    return SignalConfig(
        sfreq=first.get("sfreq"),
        t0=first.get("t0"),
        band=tuple(first["band"]) if first.get("band") else None,
        unit=first.get("unit", "uV"),
        reference=references.pop() if len(references) == 1 else "",
        filter=FilterConfig(**filtered) if {"low", "high"} <= set(filtered) else None,
        caps=tuple(caps.values()),
        baseline_ms=(settings or {}).get("baseline_ms"),
    )


# ------------------------------------------------------------------------------------------------------------ one path


def prepare(recording: Recording, recipe: Recipe) -> Recording:
    """A recording after the gates, the filter and the change of rate that all trials go through.

    Raises:
        DataError: a gate keeps it out.
    """
    made = process(recording, recipe).recording
    if made.quarantined:
        reasons = [finding.message or finding.code for finding in made.findings if finding.quarantines]
        fixes = [finding.fix for finding in made.findings if finding.quarantines and finding.fix]
        raise DataError(
            f"{recording.name}: cannot be used ({'; '.join(reasons)})", (fixes or ["repair or leave out the recording"])[0]
        )
    return made


def prepare_for(recording: Recording, signal: SignalConfig) -> Recording:
    """`prepare` with the settings of a model's training recordings; another rate is brought to the model's.

    Raises:
        DataError: a gate keeps it out. ModelError: the model's unit is not uV.
    """
    if signal.unit != "uV":
        raise ModelError(
            f"the model was trained on EEG in {signal.unit!r}, {recording.name} is in uV",
            "import the recording as pairs in that unit",
        )
    filtering = signal.filter or (None if signal.band is None else FilterConfig(low=signal.band[0], high=signal.band[1]))
    if filtering is not None:
        rate = filtering.resample or (None if signal.sfreq is None or same_rate(recording.sfreq, signal.sfreq) else signal.sfreq)
        return prepare(recording, Recipe(low=filtering.low, high=filtering.high, nyquist=filtering.nyquist, resample=rate))
    made = gates.gate_raw(recording, Recipe())
    if made.quarantined:
        raise DataError(f"{recording.name}: cannot be used (no EEG channel is left)", "give another recording")
    if signal.sfreq is None or same_rate(made.sfreq, signal.sfreq):
        return made
    # no filter is known: only the rate is brought into line
    factor = signal.sfreq / made.sfreq
    return replace(
        made, signal_CT=resample(made.signal_CT, made.sfreq, signal.sfreq, segments=made.segments), sfreq=signal.sfreq,
        segments=tuple(scaled(segment, factor) for segment in made.segments),
    )  # fmt: skip


def starts_of(onsets: Iterable[float], offset: float, sfreq: float) -> np.ndarray:
    """First samples (int64) of the windows of trials with these onsets, s."""
    return np.round((np.asarray(list(onsets), float) + offset) * sfreq).astype(np.int64)


def inside(recording: Recording, starts_N: np.ndarray, samples: int) -> np.ndarray:
    """Which windows lie wholly in the recording and between its seams: (N,) bool."""
    fits_N = np.zeros(len(starts_N), dtype=bool)
    for first, last in recording.segments:
        fits_N |= (starts_N >= first) & (starts_N + samples <= last)
    return fits_N


# ---------------------------------------------------------------------------------------------------------- electrodes


def rows_for(
    channels: Sequence[str], positions_C3: np.ndarray, signal: SignalConfig, rows: int, source: str, match: CapMatch = "name"
) -> tuple[ChannelPlan, str]:
    """How the rows that a model reads are filled from other channels, and a sentence where something is not as in training.

    Electrodes go by name, so that a row shows the place that it showed in training; channels that the model does not know are left
    out.

    Args:
        channels, positions_C3: of the recording, or of the rows of a store.
        rows: of a window. source: for messages.
        match: where electrodes are missing, "spline" interpolates all rows from those that are there, "name" refuses, and "auto"
            interpolates where enough places are known and refuses otherwise.

    Raises:
        ModelError: electrodes of the model are missing, or too few have a known place.
    """
    if not signal.caps:
        # as the reference code pads: channels again, in their order
        plan = ChannelPlan(tuple((np.arange(rows) % len(channels)).tolist()))
        return (
            plan,
            f"the model does not say which electrodes it was trained with: the {len(channels)} of {source} are taken in their order",
        )
    # reversed: of two channels of one name the first wins
    places = {_key(name): index for index, name in reversed(list(enumerate(channels)))}
    missing = [
        [name for name in dict.fromkeys(cap.shown) if name is not None and _key(name) not in places] for cap in signal.caps
    ]
    # people of one study may have worn different caps: the one that fits best counts
    best = min(range(len(signal.caps)), key=lambda number: (len(missing[number]), _unlike(signal.caps[number], channels)))
    cap, lost = signal.caps[best], missing[best]
    if not lost:
        plan = ChannelPlan(tuple(-1 if name is None else places[_key(name)] for name in cap.shown))
        same = _unlike(cap, channels) == 0
        used = len({row for row in cap.rows if row >= 0})
        return (
            plan,
            ""
            if same
            else f"{used} of {len(channels)} channels of {source} are used: those that the model was trained with, by name",
        )
    if match == "spline" or (match == "auto" and _can_spline(cap, positions_C3)):
        return _spline(cap, positions_C3, source), (
            f"{len(lost)} of {len(cap.channels)} electrodes of the model are not in {source} ({', '.join(lost[:3])}, ...): all rows are "
            "interpolated by spherical splines (--cap name refuses that)"
        )
    total = len({name for name in cap.shown if name is not None})
    raise ModelError(
        f"{source}: {len(lost)} of the {total} electrodes that the model was trained with are missing ({', '.join(lost[:5])}"
        f"{', ...' if len(lost) > 5 else ''})",
        "use a recording of that cap, or "
        + ("interpolate with --cap spline" if match == "name" else "one whose electrodes have known places"),
    )


def _key(name: str) -> str:
    return canonical_name(name).casefold()


def _unlike(cap: CapConfig, channels: Sequence[str]) -> int:
    """How many names are in one cap and not in the other."""
    return len({_key(name) for name in cap.channels} ^ {_key(name) for name in channels})


def _targets(cap: CapConfig) -> np.ndarray | None:
    """(C, 3) places of the model's electrodes, m; None where one that is shown has none."""
    targets = np.array([[np.nan if value is None else value for value in row] for row in cap.positions], float).reshape(-1, 3)
    whole = len(targets) == len(cap.channels) and np.isfinite(targets[[row for row in cap.rows if row >= 0]]).all()
    return targets if whole else None


def _can_spline(cap: CapConfig, positions_C3: np.ndarray) -> bool:
    return _targets(cap) is not None and int(np.isfinite(positions_C3).all(axis=1).sum()) >= LEAST_POSITIONS


def _spline(cap: CapConfig, positions_C3: np.ndarray, source: str) -> ChannelPlan:
    known = np.isfinite(positions_C3).all(axis=1)
    targets = _targets(cap)
    if targets is None:
        raise ModelError(
            "the places of the model's electrodes are not known", "use a recording of the cap that it was trained with"
        )
    if known.sum() < LEAST_POSITIONS:
        raise ModelError(
            f"{source}: {int(known.sum())} of {len(known)} channels have a known place (least {LEAST_POSITIONS} for --cap spline)",
            "give the electrodes' positions, or use a recording of the cap that the model was trained with",
        )
    to_channels = np.zeros((len(cap.channels), len(known)))
    to_channels[:, known] = spline_weights(directions(positions_C3[known]), directions(np.nan_to_num(targets)))
    weights = np.zeros((len(cap.rows), len(known)))
    shown = np.array(cap.rows) >= 0
    weights[shown] = to_channels[np.array(cap.rows)[shown]]
    return ChannelPlan((-1,) * len(cap.rows), weights)
