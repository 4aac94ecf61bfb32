"""What happens to one recording between its file and its windows. The three steps and `build` both go through here.

Shapes: N windows, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import filters, quality, windows
from .errors import SignalError, ToolkitError
from .raws import Unreadable
from .recipe import Recipe
from .recording import Finding, Recording
from .store import plain_json
from .summary import summarise
from .windows import ChannelPlan, Cut

# windows made at once: 8 MB
_BATCH = 32


@dataclass(frozen=True)
class Processed:
    """A recording after gates and filters.

    extra: JSON values that go into the corpus with it (filter, summary). facts: what decides which settings touch it.
    """

    recording: Recording
    extra: dict[str, Any]
    facts: dict[str, Any]

    @property
    def usable(self) -> bool:
        return not quality.quarantined(self.recording)


def process(recording: Recording, recipe: Recipe) -> Processed:
    """Gates, band-pass by the Nyquist rule, notch, resampling, the gate of units."""
    facts: dict[str, Any] = {"original_sfreq": recording.original_sfreq, "amplitude": None}
    recording = quality.gate_raw(recording, recipe)
    facts["channels"] = len(recording.channels)
    if quality.quarantined(recording):
        return Processed(recording, {}, facts)
    rate = min(recording.sfreq, recipe.resample or recording.sfreq)
    try:
        band = filters.effective_band(rate, recipe.low, recipe.high, recipe.nyquist)
    except ToolkitError as error:
        if recipe.nyquist == "error":
            raise SignalError(f"{recording.name}: {error.problem}", error.fix) from None
        return Processed(_quarantine(recording, "nyquist", rate / 2, recipe.high, error.problem), {}, facts)
    if band is None:
        message = f"{recipe.high:g} Hz does not fit {rate:g} Hz sampling (Nyquist frequency {rate / 2:g} Hz; --nyquist skip)"
        return Processed(_quarantine(recording, "nyquist", rate / 2, recipe.high, message), {}, facts)
    before = recording
    recording = _filter(recording, band, recipe)
    extra: dict[str, Any] = {
        "filter": {"low": band.low, "high": band.high, "clipped": band.changed, "design": "firwin, Hamming, zero phase"},
        "summary": summarise(
            before.signal_CT, before.sfreq, recording.signal_CT, recording.sfreq, before.segments, recording.segments
        ),
    }
    # one stretch: the summary has the deviations already
    deviations = extra["summary"]["std"] if len(recording.segments) == 1 else []
    facts["amplitude"] = float(np.median(deviations)) if deviations else quality.typical_amplitude(recording)
    recording = quality.gate_units(recording, recipe, facts["amplitude"])
    return Processed(recording, plain_json(extra), plain_json(facts))


def _filter(recording: Recording, band: filters.Band, recipe: Recipe) -> Recording:
    segments = recording.segments or ((0, recording.signal_CT.shape[1]),)
    sfreq, name = recording.sfreq, recording.name
    signal_CT = filters.band_pass(recording.signal_CT, sfreq, band.low, band.high, segments=segments)
    findings: list[Finding] = []
    if band.changed:
        message = f"upper edge {band.upper(sfreq):g} Hz instead of {recipe.high:g} at {sfreq:g} Hz"
        findings.append(Finding("nyquist", name, None, sfreq, 2 * recipe.high, "noted", message))
    line_hz = recording.line_freq if recipe.notch == "auto" else recipe.notch
    if line_hz is not None:
        signal_CT = filters.notch(signal_CT, sfreq, float(line_hz), band.upper(sfreq), segments=segments)
    elif recipe.notch == "auto":
        findings.append(Finding("notch", name, None, None, None, "noted", "line frequency unknown, nothing was removed"))
    if recipe.resample is not None and not filters.same_rate(sfreq, recipe.resample):
        signal_CT = filters.resample(signal_CT, sfreq, recipe.resample, segments=segments)
        segments = tuple(filters.scaled(segment, recipe.resample / sfreq) for segment in segments)
        sfreq = recipe.resample
    upper = min(recording.band[1], band.upper(recording.sfreq), sfreq / 2)
    return replace(
        recording,
        signal_CT=signal_CT,
        sfreq=sfreq,
        segments=segments,
        band=(max(recording.band[0], band.low), upper),
        findings=(*recording.findings, *findings),
    )


def _quarantine(recording: Recording, code: str, value: float, limit: float, message: str) -> Recording:
    finding = Finding(code, recording.name, None, value, limit, "quarantined", message)
    return replace(recording, findings=(*recording.findings, finding))


def quarantine_record(item: Recording | Unreadable) -> dict[str, Any]:
    """What is kept of a recording that is left out."""
    if isinstance(item, Unreadable):
        return {"recording": item.name, "findings": [vars(item.finding)], "sources": [vars(s) for s in item.sources]}
    findings = [vars(finding) for finding in item.findings]
    return {"recording": item.name, "findings": findings, "sources": [vars(source) for source in item.sources]}


@dataclass
class _Piece:
    """A recording and where its windows lie."""

    record: dict[str, Any]
    rows: ChannelPlan
    cut: Cut
    order: np.ndarray
    signal_CT: np.ndarray


def cut_subject(items: Iterable[Processed], recipe: Recipe, writer: Any, left_out: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the windows of a subject's recordings, in order; with a cap, a seeded draw over all of them.

    Returns:
        the facts of every recording that was looked at, see `Processed`.
    """
    pieces: list[_Piece] = []
    facts = []
    for item in items:
        recording = quality.gate_cut(item.recording, recipe)
        shortest = min((last - first for first, last in recording.segments), default=0)
        total = len(windows.plan_cut(recording, recipe))
        facts.append({**item.facts, "shortest": shortest, "total": total})
        if quality.quarantined(recording):
            left_out.append(quarantine_record(recording))
            continue
        piece = _piece(replace(item, recording=recording), recipe)
        if recipe.max_per_subject is None:
            _write_piece(piece, recipe, writer)
        else:
            pieces = _draw([*pieces, piece], recipe.max_per_subject)
        del piece, recording, item
    for piece in pieces:
        _write_piece(piece, recipe, writer)
    return facts


def _piece(item: Processed, recipe: Recipe) -> _Piece:
    recording = item.recording
    cut, rows = windows.plan_cut(recording, recipe), windows.plan_channels(recording, recipe)
    described = recording.describe()
    del described["events"]
    record = {
        "session": recording.session,
        "run": recording.run,
        "n_channels": len(recording.channels),
        "n_samples": recording.signal_CT.shape[1],
        "pad_map": list(rows.pad_map),
        "pad_mode": recipe.mode,
        **described,
        **item.extra,
    }
    stretched = [[int(s), int(n)] for s, n in zip(cut.starts_N, cut.lengths_N, strict=True) if n != recipe.window]
    if stretched:
        record["stretched"] = stretched
    return _Piece(record, rows, cut, windows.draw(cut, recording.name, recipe.seed), recording.signal_CT)


def _draw(pieces: list[_Piece], cap: int) -> list[_Piece]:
    """The windows with the `cap` smallest numbers; recordings without one are let go."""
    everything = np.concatenate([piece.order for piece in pieces])
    if len(everything) <= cap:
        return pieces
    limit = np.partition(everything, cap - 1)[cap - 1]
    kept = []
    for piece in pieces:
        chosen = np.flatnonzero(piece.order <= limit)
        if len(chosen):
            kept.append(replace(piece, cut=piece.cut.take(chosen), order=piece.order[chosen]))
    return kept


def _write_piece(piece: _Piece, recipe: Recipe, writer: Any) -> None:
    index = writer.add_recording(piece.record)
    for first in range(0, len(piece.cut), _BATCH):
        part = piece.cut.take(np.arange(first, min(first + _BATCH, len(piece.cut))))
        padded = windows.make_windows(piece.signal_CT, part, piece.rows, recipe.window)
        writer.add(padded, index, part.starts_N, part.labels_N)


def run_subject(items: Iterable[Recording | Unreadable], recipe: Recipe, left_out: list[dict[str, Any]]) -> Iterator[Processed]:
    """Process one recording after the other; those that are left out are noted in `left_out`."""
    for item in items:
        if isinstance(item, Unreadable):
            left_out.append(quarantine_record(item))
            continue
        processed = process(item, recipe)
        del item
        if processed.usable:
            yield processed
        else:
            left_out.append(quarantine_record(processed.recording) | {"facts": processed.facts})
