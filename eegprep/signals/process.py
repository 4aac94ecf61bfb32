"""What happens to one recording between its file and its windows. The three steps and `build` both go through here.

Shapes: N windows, C channels, T samples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eegprep.errors import SignalError, ToolkitError
from eegprep.recording import Facts, FilterRecord, Finding, Processed, Recording, Spectra
from eegprep.signals import filters, gates
from eegprep.signals.recipe import Recipe
from eegprep.signals.spectra import summarise


def process(recording: Recording, recipe: Recipe) -> Processed:
    """Gates, band-pass by the Nyquist rule, notch, resampling, the gate of units."""
    recording = gates.gate_raw(recording, recipe)
    facts = Facts(recording.original_sfreq, len(recording.channels))
    if recording.quarantined:
        return Processed(recording, facts)
    # the band has to fit the lower of both rates: the filter below is also what keeps resampling from aliasing
    rate = min(recording.sfreq, recipe.resample or recording.sfreq)
    try:
        band = filters.effective_band(rate, recipe.low, recipe.high, recipe.nyquist)
    except ToolkitError as error:
        if recipe.nyquist == "error":
            raise SignalError(f"{recording.name}: {error.problem}", error.fix) from None
        return Processed(_quarantine(recording, "nyquist", rate / 2, recipe.high, error.problem), facts)
    if band is None:
        message = f"{recipe.high:g} Hz does not fit {rate:g} Hz sampling (Nyquist frequency {rate / 2:g} Hz; --nyquist skip)"
        return Processed(_quarantine(recording, "nyquist", rate / 2, recipe.high, message), facts)
    before = recording
    recording = _filter(recording, band, recipe)
    spectra = _spectra(before, recording)
    # only now: before the filter, offset and drift are larger than any EEG and hide the unit
    off_scale = gates.off_scale(spectra.std, recipe)
    if off_scale:
        recording = gates.drop_off_scale(recording, recipe, spectra.std, off_scale)
        facts = replace(facts, channels=len(recording.channels))
        if recording.quarantined:
            return Processed(recording, facts)
        # spectra are medians over channels: the dropped ones must not be in them
        before = gates.take_channels(before, np.setdiff1d(np.arange(len(before.channels)), off_scale))
        spectra = _spectra(before, recording)
    deviations = [value for value in spectra.std if value is not None]
    amplitude = float(np.median(deviations)) if deviations else 0.0
    recording = gates.gate_units(recording, recipe, amplitude)
    facts = replace(facts, amplitude=amplitude)
    return Processed(recording, facts, FilterRecord(band.low, band.high, band.changed), spectra)


def _spectra(before: Recording, after: Recording) -> Spectra:
    return summarise(before.signal_CT, before.sfreq, after.signal_CT, after.sfreq, before.segments, after.segments)


def _filter(recording: Recording, band: filters.Band, recipe: Recipe) -> Recording:
    segments, sfreq, name = recording.segments, recording.sfreq, recording.name
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
    # last: filtering at the recorded rate keeps the transition where the recipe says
    if recipe.resample is not None and not filters.same_rate(sfreq, recipe.resample):
        signal_CT = filters.resample(signal_CT, sfreq, recipe.resample, segments=segments)
        segments = tuple(filters.scaled(segment, recipe.resample / sfreq) for segment in segments)
        sfreq = recipe.resample
    # what the recorder had cut off already stays cut off
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
