"""Gates: what keeps a recording or a channel out of the corpus, and what is only noted. Shapes: C channels, T samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from eegprep.recording import Finding, Recording
from eegprep.signals.channels import other_names
from eegprep.signals.recipe import Recipe
from eegprep.signals.windows import LEAST_POSITIONS, known_positions, plan_cut

# ours: a channel whose range is a millionth of the recording's is dead, in whatever unit the file is
_FLAT_FRACTION = 1e-6

# ours: fewer channels than the paper used (30-128) is worth a note
_PAPER_CHANNELS = 30

# ours: what the median channel of an EEG is near after a 5-95 Hz filter, uV; only used to name the missing factor
_TYPICAL_UV = 10.0


def gate_raw(recording: Recording, recipe: Recipe) -> Recording:
    """Drop channels that are not EEG, not finite, flat or copies; quarantine what is too small. Before the filter."""
    keep = np.ones(len(recording.channels), bool)
    findings: list[Finding] = []

    def drop(
        code: str, rows: Iterable[int], message: str, values: Sequence[float] | None = None, limit: float | None = None
    ) -> None:
        for row in rows:
            keep[row] = False
            value = None if values is None else float(values[row])
            findings.append(Finding(code, recording.name, recording.channels[row], value, limit, "dropped channel", message))

    names = recording.channels
    drop(
        "not_eeg",
        [i for i, other in enumerate(other_names(names)) if other and names[i] not in recording.named],
        "typed as EEG, but the name says otherwise",
    )
    lowest_C, highest_C = recording.signal_CT.min(axis=1), recording.signal_CT.max(axis=1)
    finite_C = np.isfinite(lowest_C) & np.isfinite(highest_C)
    bad_share_C = np.zeros(len(names))
    for row in np.flatnonzero(~finite_C):
        bad_share_C[row] = 1.0 - np.isfinite(recording.signal_CT[row]).mean()
    drop("not_finite", np.flatnonzero(keep & ~finite_C), "holds NaN or infinity (share of samples)", bad_share_C.tolist(), 0.0)
    range_C = np.where(finite_C, highest_C, 0.0).astype(float) - np.where(finite_C, lowest_C, 0.0)
    limit = _FLAT_FRACTION * float(np.median(range_C[keep])) if keep.any() else 0.0
    drop("flat", np.flatnonzero(keep & (range_C <= limit)), "does not move (range, uV)", range_C.tolist(), limit)
    drop("duplicate", _copies(recording.signal_CT, np.flatnonzero(keep)), "is an exact copy of an earlier channel")
    if not keep.all():
        rows = np.flatnonzero(keep)
        recording = replace(
            recording,
            signal_CT=recording.signal_CT[rows],
            channels=tuple(names[row] for row in rows),
            positions_C3=recording.positions_C3[rows],
            offsets=tuple(recording.offsets[row] for row in rows) if recording.offsets else (),
        )
    return _with(recording, [*findings, *_size_findings(recording, recipe)])


def _size_findings(recording: Recording, recipe: Recipe) -> list[Finding]:
    n_channels, name = len(recording.channels), recording.name
    if n_channels < max(1, recipe.min_channels):
        message = f"{n_channels} EEG channels (least {recipe.min_channels})"
        return [Finding("few_channels", name, None, n_channels, recipe.min_channels, "quarantined", message)]
    if not recording.segments:
        message = f"0 samples without a seam (least {recipe.window})"
        return [Finding("too_short", name, None, 0, recipe.window, "quarantined", message)]
    findings = []
    if n_channels < _PAPER_CHANNELS:
        message = f"{n_channels} EEG channels, fewer than the {_PAPER_CHANNELS} of the paper"
        findings.append(Finding("few_channels", name, None, n_channels, _PAPER_CHANNELS, "noted", message))
    if len(recording.segments) > 1:
        message = f"{len(recording.segments)} stretches with seams between them; filtered and cut inside each"
        findings.append(Finding("joined", name, None, len(recording.segments), 1, "noted", message))
    return findings


def gate_cut(recording: Recording, recipe: Recipe) -> Recording:
    """Quarantine a recording in which no window fits, or that cannot be brought to a fixed montage. After the filter."""
    findings = []
    longest = max((last - first for first, last in recording.segments), default=0)
    if longest < recipe.window and not (recipe.short == "stretch" and longest >= 2):
        message = f"{longest} samples without a seam (least {recipe.window})"
        findings.append(Finding("too_short", recording.name, None, longest, recipe.window, "quarantined", message))
    elif recipe.windows == "trials" and not len(plan_cut(recording, recipe)):
        message = f"0 of {len(recording.events)} events begin a window (least 1)"
        findings.append(Finding("no_trials", recording.name, None, 0, 1, "quarantined", message))
    known = int(known_positions(recording).sum())
    if recipe.mode == "spline" and known < LEAST_POSITIONS:
        message = f"{known} of {len(recording.channels)} channels have a known place (least {LEAST_POSITIONS} for --mode spline)"
        findings.append(Finding("positions", recording.name, None, known, LEAST_POSITIONS, "quarantined", message))
    return _with(recording, findings)


def gate_units(recording: Recording, recipe: Recipe, amplitude: float) -> Recording:
    """Quarantine a recording whose amplitude is not that of an EEG in uV, naming the factor it would take. After the filter.

    Args:
        amplitude: `typical_amplitude` of the recording, uV.
    """
    if recipe.min_uv <= amplitude <= recipe.max_uv:
        return recording
    limit = recipe.min_uv if amplitude < recipe.min_uv else recipe.max_uv
    if amplitude == 0:
        message = f"median channel standard deviation 0 uV after filtering (limits {recipe.min_uv:g}-{recipe.max_uv:g})"
    else:
        factor = 10.0 ** round(math.log10(_TYPICAL_UV / amplitude))
        message = (
            f"median channel standard deviation {amplitude:.3g} uV after filtering "
            f"(limits {recipe.min_uv:g}-{recipe.max_uv:g}); a factor of {factor:g} would fit"
        )
    return _with(recording, [Finding("units", recording.name, None, amplitude, limit, "quarantined", message)])


def typical_amplitude(recording: Recording) -> float:
    """Median over channels of the standard deviation, uV, in all segments together."""
    total = sum(last - first for first, last in recording.segments)
    if total == 0:
        return 0.0
    power_C = np.zeros(len(recording.channels))
    for first, last in recording.segments:
        for channel, row_T in enumerate(recording.signal_CT[:, first:last]):
            exact_T = row_T.astype(np.float64)
            power_C[channel] += exact_T.dot(exact_T) - exact_T.sum() ** 2 / len(exact_T)
    return float(np.median(np.sqrt(np.maximum(power_C, 0.0) / total)))


def _copies(signal_CT: np.ndarray, rows: np.ndarray) -> list[int]:
    """Rows that equal an earlier one, sample for sample; a sparse look first, because hardly any do."""
    step = max(1, signal_CT.shape[1] // 64)
    seen: dict[bytes, list[int]] = {}
    found = []
    for row in rows.tolist():
        alike = seen.setdefault(signal_CT[row, ::step].tobytes(), [])
        if any(np.array_equal(signal_CT[row], signal_CT[other]) for other in alike):
            found.append(row)
        else:
            alike.append(row)
    return found


def _with(recording: Recording, findings: Iterable[Finding]) -> Recording:
    return replace(recording, findings=(*recording.findings, *findings))
