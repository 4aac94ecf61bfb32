"""Gates: what keeps a recording or a channel out of the corpus, and what is only noted. Shapes: C channels, T samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from eegprep.recording import Finding, Recording
from eegprep.signals.channels import canonical_name, other_names, spread_channels
from eegprep.signals.recipe import Recipe
from eegprep.signals.windows import LEAST_POSITIONS, known_positions, plan_cut

# ours: a channel whose range is a millionth of the recording's is dead, in whatever unit the file is
_FLAT_FRACTION = 1e-6

# ours: fewer channels than the paper used (30-128) is worth a note
_PAPER_CHANNELS = 30

# ours: what the median channel of an EEG is near after a 5-95 Hz filter, uV; only used to name the missing factor
_TYPICAL_UV = 10.0


# ours: a channel this many times stronger or weaker than the median channel is in another unit, or has no contact
_UNIT_RATIO = 100.0

# ours: a recording is split at samples that are NaN while that costs no more than this share of it; else channels are dropped
_LOST_SHARE = 0.1


def gate_raw(recording: Recording, recipe: Recipe) -> Recording:
    """Drop channels that are not EEG, flat, copies or mostly NaN; split at NaN; quarantine what is too small. Before the filter."""
    if not recording.segments:  # nothing to look at: every stretch is marked as skipped
        message = f"0 samples without a seam (least {recipe.window})"
        return _with(recording, [Finding("too_short", recording.name, None, 0, recipe.window, "quarantined", message)])
    keep = np.ones(len(recording.channels), bool)
    findings: list[Finding] = []

    def drop(
        code: str, rows: Iterable[int], message: str, values: Sequence[float] | None = None, limit: float | None = None
    ) -> None:
        for row in rows:
            keep[row] = False
            value = None if values is None else float(values[row])
            findings.append(Finding(code, recording.name, recording.channels[row], value, limit, "dropped channel", message))

    # other organs first: the limits below are medians over what is left, and an ECG in mV would move them
    names = recording.channels
    drop(
        "not_eeg",
        [i for i, other in enumerate(other_names(names)) if other and names[i] not in recording.named],
        "typed as EEG, but the name says otherwise",
    )
    if recipe.select_channels:
        chosen = {canonical_name(name).casefold() for name in recipe.select_channels}
        drop(
            "not_selected",
            [i for i, name in enumerate(names) if keep[i] and canonical_name(name).casefold() not in chosen],
            "is not among --select-channels",
        )
        absent = len(chosen) - len({canonical_name(name).casefold() for name in names} & chosen)
        if absent:
            message = f"{absent} of {len(chosen)} channels of --select-channels are not in the recording"
            findings.append(Finding("select_channels", recording.name, None, absent, len(chosen), "noted", message))
    range_C = _ranges(recording)
    if not np.isfinite(range_C[keep]).all():
        recording, dropped, share_C, more = _without_lost_samples(recording, keep & ~np.isfinite(range_C), keep, recipe.window)
        drop("not_finite", dropped, "holds NaN or infinity (share of samples)", share_C.tolist(), 0.0)
        findings += more
        range_C = _ranges(recording)
    # flat before copies: dead channels are equal to each other, and "flat" is the truer reason
    limit = _FLAT_FRACTION * float(np.median(range_C[keep])) if keep.any() else 0.0
    drop("flat", np.flatnonzero(keep & ~(range_C > limit)), "does not move (range, uV)", range_C.tolist(), limit)
    drop("duplicate", _copies(recording.signal_CT, np.flatnonzero(keep)), "is an exact copy of an earlier channel")
    if not keep.all():
        recording = take_channels(recording, np.flatnonzero(keep))
    return _with(recording, [*findings, *_size_findings(recording, recipe, findings)])


def take_channels(recording: Recording, rows: np.ndarray) -> Recording:
    """The recording with these channels, in this order."""
    return replace(
        recording,
        signal_CT=recording.signal_CT[rows],
        channels=tuple(recording.channels[row] for row in rows),
        positions_C3=recording.positions_C3[rows],
        offsets=tuple(recording.offsets[row] for row in rows) if recording.offsets else (),
    )


def _ranges(recording: Recording) -> np.ndarray:
    """(C,) uV between the lowest and the highest value inside the segments; NaN where a value is not finite."""
    signal_CT = recording.signal_CT
    whole = recording.segments == ((0, signal_CT.shape[1]),)
    pieces = [signal_CT] if whole else [signal_CT[:, first:last] for first, last in recording.segments]
    if not pieces:
        return np.zeros(len(signal_CT))
    highest_C = np.maximum.reduce([piece.max(axis=1) for piece in pieces]).astype(float)
    lowest_C = np.minimum.reduce([piece.min(axis=1) for piece in pieces]).astype(float)
    known_C = np.isfinite(highest_C) & np.isfinite(lowest_C)
    return np.where(known_C, np.where(known_C, highest_C, 0.0) - np.where(known_C, lowest_C, 0.0), np.nan)


def _without_lost_samples(
    recording: Recording, holed_C: np.ndarray, keep_C: np.ndarray, window: int
) -> tuple[Recording, list[int], np.ndarray, list[Finding]]:
    """Split a recording where samples are NaN or infinite, as a lost link leaves them.

    Where most channels are lost nothing was recorded: that is a seam. A channel that is lost for longer than the others is dropped;
    a short loss of its own splits the recording for all, unless that costs too much of it.

    Args:
        holed_C: channels with such samples. keep_C: channels that count. window: samples; what a seam costs at most.

    Returns:
        recording with 0 for what is lost and segments without it; channels to drop; share of lost samples; findings.
    """
    n_samples, kept = recording.signal_CT.shape[1], np.flatnonzero(keep_C)
    lost = {row: ~np.isfinite(recording.signal_CT[row]) for row in np.flatnonzero(holed_C).tolist()}
    share_C = np.zeros(len(keep_C))
    for row, lost_T in lost.items():
        share_C[row] = lost_T.mean()
    # the lower median: of two channels, the better one is the measure
    middle = float(np.sort(share_C[kept])[(len(kept) - 1) // 2])
    dropped = [row for row in lost if share_C[row] > 0.5 and share_C[row] > middle]
    rest = [row for row in lost if row not in dropped]
    counts_T = np.sum([lost[row] for row in rest], axis=0) if rest else np.zeros(n_samples, int)
    # most channels are lost at once where a link broke: nothing was recorded then
    cut_T = counts_T * 2 > len(kept) - len(dropped)
    # the cheapest losses first, so that what may be spent keeps as many channels as possible
    spent = 0
    for own_T, row in sorted(((lost[row] & ~cut_T, row) for row in rest), key=lambda item: (_cost(item[0], window), item[1])):
        spent += _cost(own_T, window)
        if spent > _LOST_SHARE * n_samples:
            dropped.append(row)
        else:
            cut_T = cut_T | own_T
    findings = []
    if cut_T.any():
        segments = tuple(
            (max(first, start), min(last, stop))
            for first, last in recording.segments
            for start, stop in _runs(~cut_T)
            if max(first, start) < min(last, stop)
        )
        seconds = int(cut_T.sum()) / recording.sfreq
        message = f"{seconds:g} s in {len(_runs(cut_T))} places hold NaN or infinity; the recording is split there"
        if segments:
            findings.append(Finding("not_finite", recording.name, None, seconds, 0.0, "noted", message))
        else:
            findings.append(Finding("not_finite", recording.name, None, seconds, 0.0, "quarantined", _ALL_LOST, _ALL_LOST_FIX))
        signal_CT = np.where(cut_T, np.float32(0), recording.signal_CT)
        recording = replace(recording, signal_CT=signal_CT, segments=segments)
    return recording, sorted(dropped), share_C, findings


_ALL_LOST = "all samples hold NaN or infinity"
_ALL_LOST_FIX = "export the recording again with its values, or exclude it"


def _runs(mask_T: np.ndarray) -> list[tuple[int, int]]:
    """(first, last + 1) of each stretch in which the mask is set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask_T, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _cost(lost_T: np.ndarray, window: int) -> int:
    """Samples that a split costs at most: what is lost, and the rest of a window at each place."""
    return int(lost_T.sum()) + window * len(_runs(lost_T))


def _size_findings(recording: Recording, recipe: Recipe, dropped: Sequence[Finding] = ()) -> list[Finding]:
    n_channels, name = len(recording.channels), recording.name
    if n_channels < max(1, recipe.min_channels):
        counts = Counter(finding.code for finding in dropped if finding.channel is not None)
        why = f"; left out: {', '.join(f'{count} {code}' for code, count in counts.items())}" if counts else ""
        message = f"{n_channels} EEG channels (least {recipe.min_channels}{why})"
        fix = "" if n_channels else "exclude the recording: none of its channels can be used"
        return [Finding("few_channels", name, None, n_channels, recipe.min_channels, "quarantined", message, fix)]
    if recipe.max_channels is not None and n_channels > recipe.max_channels:
        message = f"{n_channels} EEG channels (most {recipe.max_channels})"
        fix = "raise --max-channels, or choose channels with --select-channels"
        return [Finding("many_channels", name, None, n_channels, recipe.max_channels, "quarantined", message, fix)]
    findings = []
    if n_channels > recipe.channels and recipe.mode != "spline":
        kept, how = spread_channels(recording.channels, recording.positions_C3, recipe.channels)
        names = [recording.channels[row] for row in kept]
        message = f"{len(kept)} of {n_channels} channels kept, {how}: {', '.join(names[:3])} ... {names[-1]}"
        findings.append(Finding("many_channels", name, None, n_channels, recipe.channels, "noted", message))
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
    findings += _label_findings(recording, recipe)
    known = int(known_positions(recording).sum())
    if recipe.mode == "spline" and known < LEAST_POSITIONS:
        message = f"{known} of {len(recording.channels)} channels have a known place (least {LEAST_POSITIONS} for --mode spline)"
        findings.append(Finding("positions", recording.name, None, known, LEAST_POSITIONS, "quarantined", message))
    return _with(recording, findings)


def _label_findings(recording: Recording, recipe: Recipe) -> list[Finding]:
    """Where trials are shorter than a window: how labels are lost, or how much of a window lies in its trial."""
    lasting = [round(event.duration * recording.sfreq) for event in recording.events if not event.is_bad]
    if not lasting:
        return []
    name, short = recording.name, sorted(samples for samples in lasting if samples < recipe.window)
    if recipe.windows == "sliding" and len(short) == len(lasting):
        message = (
            f"0 windows have a label: the longest of {len(lasting)} events lasts {short[-1]} samples, a window {recipe.window}; "
            "--windows trials takes a window from the start of each"
        )
        return [Finding("no_labels", name, None, short[-1], recipe.window, "noted", message)]
    if recipe.windows == "trials" and short and recipe.short != "stretch":
        share = short[len(short) // 2] / recipe.window
        message = (
            f"{len(short)} of {len(lasting)} trials are shorter than a window: {share:.2f} of it (median) lies inside the trial"
        )
        return [Finding("short_trials", name, None, share, 1.0, "noted", message)]
    return []


def off_scale(std_C: Sequence[float | None], recipe: Recipe) -> list[int]:
    """Channels whose amplitude is that of another unit, or of none: a hundred times the median channel's, or a hundredth.

    Args:
        std_C: standard deviations after filtering, uV; None where one is not finite.
    """
    known = [value for value in std_C if value is not None]
    middle = float(np.median(known)) if known else 0.0
    if not recipe.min_uv <= middle <= recipe.max_uv:
        return []  # then it is the recording, see `gate_units`
    return [
        row for row, value in enumerate(std_C) if value is None or value > _UNIT_RATIO * middle or value * _UNIT_RATIO < middle
    ]


def drop_off_scale(recording: Recording, recipe: Recipe, std_C: Sequence[float | None], rows: Sequence[int]) -> Recording:
    """Without the channels that `off_scale` found, and with a finding for each."""
    middle = float(np.median([value for value in std_C if value is not None]))
    findings = [
        Finding(
            "units", recording.name, recording.channels[row], std_C[row], _UNIT_RATIO * middle, "dropped channel",
            f"standard deviation more than {_UNIT_RATIO:g} times or less than 1/{_UNIT_RATIO:g} of the median channel's {middle:.3g} uV",
        )
        for row in rows
    ]  # fmt: skip
    recording = take_channels(recording, np.setdiff1d(np.arange(len(recording.channels)), rows))
    few = [finding for finding in _size_findings(recording, recipe, findings) if finding.quarantines]
    return _with(recording, [*findings, *few])


def gate_units(recording: Recording, recipe: Recipe, amplitude: float) -> Recording:
    """Quarantine a recording whose amplitude is not that of an EEG in uV, naming the factor it would take. After the filter.

    Args:
        amplitude: median over channels of the standard deviation, uV.
    """
    if recipe.min_uv <= amplitude <= recipe.max_uv:
        return recording
    limit = recipe.min_uv if amplitude < recipe.min_uv else recipe.max_uv
    fix = ""
    if amplitude == 0:
        message = f"median channel standard deviation 0 uV after filtering (limits {recipe.min_uv:g}-{recipe.max_uv:g})"
    else:
        # a power of ten: units differ by a thousand, and a made-up factor would hide another fault
        factor = 10.0 ** round(math.log10(_TYPICAL_UV / amplitude))
        message = (
            f"median channel standard deviation {amplitude:.3g} uV after filtering "
            f"(limits {recipe.min_uv:g}-{recipe.max_uv:g}); a factor of {factor:g} would fit"
        )
        fix = f"give --scale {factor:g} if the values are in another unit than the file says, or widen --min-uv and --max-uv"
    return _with(recording, [Finding("units", recording.name, None, amplitude, limit, "quarantined", message, fix)])


def _copies(signal_CT: np.ndarray, rows: np.ndarray) -> list[int]:
    """Rows that equal an earlier one, sample for sample; a few samples are compared first, because almost no rows do."""
    step = max(1, signal_CT.shape[1] // 64)
    seen: dict[bytes, list[int]] = {}
    copies = []
    for row in rows.tolist():
        alike = seen.setdefault(signal_CT[row, ::step].tobytes(), [])
        if any(np.array_equal(signal_CT[row], signal_CT[other]) for other in alike):
            copies.append(row)
        else:
            alike.append(row)
    return copies


def _with(recording: Recording, findings: Iterable[Finding]) -> Recording:
    return replace(recording, findings=(*recording.findings, *findings))
