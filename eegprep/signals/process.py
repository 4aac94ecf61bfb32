"""What happens to one recording between its file and its windows. The three steps and `build` both go through here.

Shapes: N windows, C channels, T samples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from eegprep import recording as quality_recording
from eegprep.errors import SignalError, ToolkitError
from eegprep.provenance import plain_json
from eegprep.recording import Finding, Processed, Recording
from eegprep.signals import filters
from eegprep.signals import gates as quality
from eegprep.signals.recipe import Recipe
from eegprep.signals.spectra import summarise


def process(recording: Recording, recipe: Recipe) -> Processed:
    """Gates, band-pass by the Nyquist rule, notch, resampling, the gate of units."""
    facts: dict[str, Any] = {"original_sfreq": recording.original_sfreq, "amplitude": None}
    recording = quality.gate_raw(recording, recipe)
    facts["channels"] = len(recording.channels)
    if quality_recording.quarantined(recording):
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
