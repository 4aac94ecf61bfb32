"""Draws the figures of a store's report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eegprep.inspection.page import Page
from eegprep.inspection.pictures import head_map
from eegprep.inspection.store_facts import Listed, ListedOut, StoreFacts
from eegprep.recording import Spectra
from eegprep.signals.spectra import SUMMARY_FREQS
from eegprep.store.records import CorpusRecording

PANELS = 12  # data sets drawn, the largest first; tables list all

INK, SOFT, BLUE, RED, GREY = "#1d2430", "#5b6575", "#0b6bcb", "#c0392b", "#9aa4b2"


def people_figure(windows: Mapping[str, Sequence[int]]) -> Figure:
    names = list(windows)[:40]
    figure = Figure(figsize=(9, 0.6 + 0.34 * max(2, len(names))))
    axes = figure.subplots()
    for row, name in enumerate(names):
        counts = np.asarray(windows[name], float)
        offsets = np.random.default_rng(row).uniform(-0.22, 0.22, len(counts))  # so that equal counts do not hide each other
        axes.plot(counts, row + offsets, "o", ms=4, alpha=0.6, color=BLUE, mec="none")
        if len(counts) > 1:
            axes.plot([np.median(counts)] * 2, [row - 0.35, row + 0.35], color=INK, lw=1.5)
    axes.set_yticks(range(len(names)), [f"{name}  ({len(windows[name])})" for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("windows a person (bar: median); number of people in brackets", fontsize=8)
    _plain(axes)
    return figure


def spectra_figure(page: Page, facts: StoreFacts) -> None:
    measured = {name: _with_spectra(facts.of(name)) for name in facts.datasets}
    drawn = [name for name, records in measured.items() if records]
    if not drawn:
        return
    page.heading("Spectra before and after filtering")
    columns = min(3, len(drawn[:PANELS]))
    rows = math.ceil(len(drawn[:PANELS]) / columns)
    figure = Figure(figsize=(4.2 * columns if columns > 1 else 6.5, 3.2 * rows + 0.3))
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, name in zip(panels, drawn, strict=False):
        _spectrum_panel(axes, name, measured[name])
    for axes in panels[len(drawn) :]:
        axes.axis("off")
    panels[0].legend(fontsize=8, frameon=False, loc="lower left")
    figure.tight_layout()
    more = f" The {PANELS} largest of {len(drawn)} data sets." if len(drawn) > PANELS else ""
    page.figure(
        figure,
        "Power spectral density, median over channels; line: median over recordings, shade: 10th to 90th percentile. "
        f"Blue background: effective band, so what the signal holds, after clipping to each sampling rate.{more}",
    )


def _with_spectra(recordings: Iterable[Listed]) -> list[tuple[CorpusRecording, Spectra]]:
    """The recordings that were filtered, with what was measured of each."""
    made = [(listed.record, listed.record.made) for listed in recordings]
    return [(record, details.spectra) for record, details in made if details is not None and details.spectra is not None]


def _spectrum_panel(axes: Any, name: str, records: Sequence[tuple[CorpusRecording, Spectra]]) -> None:
    freqs = np.asarray(SUMMARY_FREQS)
    highest = 0.0
    before, after = [spectra.psd_before for _, spectra in records], [spectra.psd_after for _, spectra in records]
    for rows, colour, label in ((before, GREY, "before"), (after, BLUE, "after")):
        table = np.array([[np.nan if v is None else v for v in row] for row in rows], float)
        # the axis is logarithmic
        table[table <= 0] = np.nan
        known = np.isfinite(table).any(axis=0)
        if not known.any():
            continue
        low, middle, high = np.nanpercentile(table[:, known], [10, 50, 90], axis=0)
        axes.fill_between(freqs[known], low, high, color=colour, alpha=0.25, lw=0)
        axes.plot(freqs[known], middle, color=colour, lw=1.6, label=label)
        highest = max(highest, float(np.nanmax(high)))
    bands = sorted({record.band for record, _ in records if record.band is not None})
    for low_hz, high_hz in bands:
        axes.axvspan(max(low_hz, freqs[0]), min(high_hz, freqs[-1]), color=BLUE, alpha=0.08 / len(bands) + 0.02, lw=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    # what a filter leaves of the stop band lies many decades below, and would squeeze the rest
    axes.set_ylim(highest * 1e-8, highest * 4)
    axes.set_xlim(freqs[0], freqs[-1])
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100, 200, 500], ["1", "2", "5", "10", "20", "50", "100", "200", "500"], fontsize=7)
    axes.minorticks_off()
    axes.set_title(f"{name}\n{_bands(bands)}", fontsize=9)
    axes.set_xlabel("Hz", fontsize=8)
    axes.set_ylabel("µV²/Hz", fontsize=8)
    _plain(axes)


def _bands(bands: Sequence[tuple[float, ...]]) -> str:
    shown = [f"{low:g}-{high:g} Hz" for low, high in bands[:3]]
    return ", ".join(shown) + (f" and {len(bands) - 3} more" if len(bands) > 3 else "")


def topography_figure(page: Page, facts: StoreFacts) -> None:
    maps = []
    for name in facts.datasets:
        values_C, positions_C3 = _mean_power(facts.of(name))
        if len(values_C) >= 4:
            maps.append((name, values_C, positions_C3))
    if not maps:
        return
    page.heading("Where the power is")
    shown = maps[:PANELS]
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(3.1 * columns if columns > 1 else 4.2, 2.9 * rows + 0.2))
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, (name, values_C, positions_C3) in zip(panels, shown, strict=False):
        head_map(axes, values_C, positions_C3, label="dB")
        axes.set_title(f"{name} ({len(values_C)})", fontsize=9)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    figure.tight_layout()
    page.figure(
        figure,
        "Power after filtering against the median channel of the recording, mean over recordings, seen from above, nose up; "
        "channels in brackets. A ring of high power at the rim is muscle, at the front eyes; a single spot is a bad electrode.",
    )


def _mean_power(recordings: Sequence[Listed]) -> tuple[np.ndarray, np.ndarray]:
    """Mean power of each channel name in dB against its recording's median channel, and its position."""
    powers: dict[str, list[float]] = defaultdict(list)
    places: dict[str, np.ndarray] = {}
    for record, spectra in _with_spectra(recordings):
        deviation = [value or np.nan for value in spectra.std]
        positions_C3 = record.made.positions_C3 if record.made is not None else np.empty((0, 3))
        if len(deviation) != len(positions_C3) or not np.isfinite(deviation).any():
            continue
        # against the recording's own median: amplifiers and caps differ more than people do
        decibels = 20 * np.log10(np.asarray(deviation, float) / np.nanmedian(deviation))
        for channel, value, place in zip(record.channels, decibels, positions_C3, strict=True):
            if np.isfinite(value) and np.isfinite(place).all():
                powers[channel].append(float(value))
                places.setdefault(channel, place)
    names = sorted(powers)
    return np.array([np.mean(powers[name]) for name in names]), np.array([places[name] for name in names], float).reshape(-1, 3)


def amplitude_figure(page: Page, facts: StoreFacts) -> None:
    passed = {name: _amplitudes_of(facts.of(name)) for name in facts.datasets}
    refused = {name: _refused_amplitudes(lost for lost in facts.left_out if lost.dataset == name) for name in facts.datasets}
    names = [name for name in facts.datasets if passed[name] or refused[name]][:40]
    if not names:
        return
    page.heading("Amplitude gate")
    recipe = facts.root.get("recipe") or {}
    low, high = recipe.get("min_uv", 1.0), recipe.get("max_uv", 300.0)
    figure = Figure(figsize=(9, 0.9 + 0.34 * max(2, len(names))))
    axes = figure.subplots()
    axes.axvspan(max(low, 1e-12), high, color=BLUE, alpha=0.08, lw=0)
    for row, name in enumerate(names):
        offsets = np.random.default_rng(row).uniform(-0.22, 0.22, len(passed[name]))
        axes.plot(passed[name], row + offsets, "o", ms=4, alpha=0.6, color=BLUE, mec="none")
        axes.plot(refused[name], [row] * len(refused[name]), "x", ms=6, color=RED)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    everything = [a for name in names for a in passed[name] + refused[name] if a > 0]
    axes.set_xlim(min([low / 2 or 0.5, *(a / 2 for a in everything)]), max([high * 2, *(a * 2 for a in everything)]))
    axes.set_xlabel("median channel standard deviation of a recording after filtering (µV)", fontsize=8)
    _plain(axes)
    page.figure(
        figure,
        f"The gate lets {low:g} to {high:g} µV through (blue). Crosses were left out. A data set that lies apart by a factor of "
        "1000 or 10 has its unit wrong.",
    )


def _amplitudes_of(recordings: Iterable[Listed]) -> list[float]:
    """Median channel standard deviation of each recording after filtering, uV."""
    deviations = [[value for value in spectra.std if value is not None] for _, spectra in _with_spectra(recordings)]
    return [float(np.median(values)) for values in deviations if values]


def _refused_amplitudes(left_out: Iterable[ListedOut]) -> list[float]:
    """The same of recordings that were left out, as the gate measured it, uV."""
    facts = [lost.record.facts for lost in left_out]
    return [fact.amplitude for fact in facts if fact is not None and fact.amplitude is not None]


def bar_figure(axes: Any, counted: Mapping[float, int], label: str) -> None:
    values = sorted(counted)
    axes.bar(range(len(values)), [counted[value] for value in values], color=BLUE, width=0.7)
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values], fontsize=8, rotation=90 if len(values) > 12 else 0)
    axes.set_xlim(-0.9, max(len(values), 4) - 0.1)
    axes.set_ylabel("recordings", fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(label, fontsize=8)
    _plain(axes)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, colors=SOFT)
