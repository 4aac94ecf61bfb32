"""One self-contained page about a store: who and what is in it, how it looks before and after filtering, what was left out and
why, and what its licences and authors ask for.

Everything comes from the records that `build` wrote; no window is read. C channels.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import catalogue, recordings_store, store
from .errors import StoreError
from .page import Page
from .pictures import head_map
from .summary import SUMMARY_FREQS

PANELS = 12  # data sets drawn, the largest first; tables list all
LISTED = 300  # rows of a list of recordings
INK, SOFT, BLUE, RED, GREY = "#1d2430", "#5b6575", "#0b6bcb", "#c0392b", "#9aa4b2"


@dataclass(frozen=True)
class Facts:
    """What the store says.

    recordings: records of what is in it, each with dataset, subject and person. left_out: the same of what is not.
    citations: text by data set, where a manifest gave one.
    """

    path: str
    root: Mapping[str, Any]
    recordings: tuple[Mapping[str, Any], ...]
    left_out: tuple[Mapping[str, Any], ...]
    citations: Mapping[str, str] = field(default_factory=dict)

    @property
    def datasets(self) -> list[str]:
        """Names, the one with most windows (in a recordings store, most recordings) first."""
        weight: Counter[str] = Counter()
        for record in self.recordings:
            weight[record["dataset"]] += record.get("windows", 1)
        for record in self.left_out:
            weight[record["dataset"]] += 0
        return [name for name, _ in sorted(weight.items(), key=lambda item: (-item[1], item[0]))]

    def of(self, dataset: str) -> list[Mapping[str, Any]]:
        """Records of one data set."""
        return [record for record in self.recordings if record["dataset"] == dataset]


def report(path: str | Path, out: str | Path) -> Path:
    """Write the page about a corpus or a recordings store.

    Args:
        path: the store, a folder.
        out: the HTML file to write.

    Raises:
        StoreError: `path` is no store of ours, or holds nothing at all.
    """
    facts = gather(Path(path))
    if not facts.recordings and not facts.left_out:
        raise StoreError(f"{path}: no recording is in it, and none was left out", "run the build again; nothing to report yet")
    compose(facts).write(Path(out))
    return Path(out)


def gather(root: Path) -> Facts:
    """Read the records of a store."""
    node = store.read_node(root / "zarr.json").get("attributes", {})
    if node.get("format") not in (store.FORMAT, recordings_store.FORMAT):
        raise StoreError(
            f"{root}: holds {node.get('format')!r}, which is no store of ours", "give a corpus or a recordings store"
        )
    recordings: list[Mapping[str, Any]] = []
    left_out: list[Mapping[str, Any]] = []
    citations: dict[str, str] = {}
    for dataset, subject in recordings_store.subjects(root):
        attributes = recordings_store.group_attributes(root, dataset, subject)
        who = {"dataset": dataset, "subject": subject, "person": attributes.get("person") or f"{dataset}/{subject}"}
        recordings += [record | who for record in _records(root, dataset, subject, attributes)]
        left_out += [record | who for record in attributes.get("left_out", [])]
        if attributes.get("citation"):
            citations[dataset] = attributes["citation"]
    for key, entry in node.get("left_out", {}).items():  # subjects without one usable recording have no group
        dataset, _, subject = key.partition("/")
        who = {"dataset": dataset, "subject": subject, "person": catalogue.person_of(dataset, subject)}
        facts = entry.get("facts") or []
        for number, record in enumerate(entry.get("recordings", [])):
            left_out.append({"facts": facts[number]} | record | who if number < len(facts) else record | who)
    return Facts(str(root), node, tuple(recordings), tuple(left_out), citations)


def compose(facts: Facts) -> Page:
    """The page, section by section."""
    page = Page(f"EEG corpus {Path(facts.path).name}", _lead(facts))
    _verdict(page, facts)
    _datasets(page, facts)
    _channels_and_rates(page, facts)
    _spectra(page, facts)
    _topographies(page, facts)
    _amplitudes(page, facts)
    _findings(page, facts)
    _licences(page, facts)
    _recipe(page, facts)
    return page


def _records(root: Path, dataset: str, subject: str, attributes: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    if "recordings" in attributes:
        yield from attributes["recordings"]
        return
    for name in recordings_store.array_names(root, dataset, subject):
        node = store.read_node(root / dataset / subject / name / "zarr.json")
        session, _, run = name.partition(".")
        yield {**node["attributes"], "session": session, "run": run, "n_samples": node["shape"][1]}


# -- what is in it ----------------------------------------------------------------------------------------------------------


def _lead(facts: Facts) -> str:
    windows = sum(record.get("windows", 0) for record in facts.recordings)
    people = len({record["person"] for record in facts.recordings})
    parts = [
        f"{windows:,} windows" if "windows" in (facts.recordings or ({},))[0] else "",
        f"{people:,} people",
        f"{len(facts.recordings):,} recordings",
        f"{_hours(facts.recordings):.1f} hours",
        f"{len(facts.left_out):,} recordings left out" if facts.left_out else "nothing left out",
    ]
    return ", ".join(part for part in parts if part) + "."


def _verdict(page: Page, facts: Facts) -> None:
    """The two things that people get wrong first: sharing, and people in several data sets."""
    closed = {name: catalogue.licence_terms(name) for name in _licence_names(facts.recordings) if not catalogue.is_open(name)}
    if closed:
        said = "; ".join(f"{name}: {', '.join(terms)}" for name, terms in closed.items())
        page.text(
            f"Not everything here may be shared freely; the table of licences below says which data sets. {said}.", "warning"
        )
    elif facts.recordings:
        page.text("Every licence in this corpus allows to share it with attribution; the list of authors is below.", "verdict")
    several = {who: sorted(names) for who, names in _datasets_of_people(facts.recordings).items() if len(names) > 1}
    if several:
        page.text(
            f"{len(several)} people appear in several data sets, for instance {next(iter(several))} in "
            f"{', '.join(next(iter(several.values())))}. Split by person, not by data set.",
            "warning",
        )
    unclear = sorted({name for name in facts.datasets if _known(name) and _known(name).same_people == "no"})  # type: ignore[union-attr]
    if unclear:
        page.text(
            f"In {', '.join(unclear)} people overlap with other data sets of the same family, and nobody published who is who: "
            "keep such a family on one side of a split.",
            "warning",
        )


def _datasets(page: Page, facts: Facts) -> None:
    page.heading("Subjects and windows")
    page.table([_dataset_row(facts, name) for name in facts.datasets])
    windows = {name: list(_sum_by(facts.of(name), "person", "windows").values()) for name in facts.datasets if facts.of(name)}
    if any(sum(values) for values in windows.values()):
        page.figure(_people_figure(windows), "Windows that each person gives. A balanced draw gives everybody the same.")


def _dataset_row(facts: Facts, name: str) -> dict[str, Any]:
    own = facts.of(name)
    per_person = list(_sum_by(own, "person", "windows").values())
    row: dict[str, Any] = {
        "data set": name,
        "subjects": len({record["subject"] for record in own}),
        "recordings": len(own),
        "left out": sum(record["dataset"] == name for record in facts.left_out),
        "hours": round(_hours(own), 2),
    }
    if any(per_person):
        low, high = min(per_person), max(per_person)
        row |= {"windows": sum(per_person), "per person": f"{low:,}" if low == high else f"{low:,} to {high:,}"}
    channels, rates = _counts(_n_channels(record) for record in own), _counts(record["sfreq"] for record in own)
    row |= {"channels": channels, "rate (Hz)": rates, "licence": ", ".join(_licence_names(own))}
    return row


def _people_figure(windows: Mapping[str, Sequence[int]]) -> Figure:
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


def _channels_and_rates(page: Page, facts: Facts) -> None:
    if not facts.recordings:
        return
    page.heading("Channels and sampling rates, as observed")
    figure = Figure(figsize=(9, 2.8))
    left, right = figure.subplots(1, 2)
    _bars(left, Counter(_n_channels(record) for record in facts.recordings), "EEG channels in the recording")
    _bars(
        right,
        Counter(round(record.get("original_sfreq", record["sfreq"]), 2) for record in facts.recordings),
        "rate as recorded (Hz)",
    )
    figure.tight_layout()
    page.figure(figure, "Recordings by what was found in the files; what a catalogue declares is not used.")
    declared = [row for name in facts.datasets if (row := _declared_row(name, facts.of(name)))]
    if declared:
        page.text("These data sets differ from what MOABB's catalogue declares for them:")
        page.table(declared)


def _declared_row(name: str, own: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    entry = _known(name)
    if entry is None or not own:
        return None
    channels = {_n_channels(record) for record in own}
    rates = {record.get("original_sfreq", record["sfreq"]) for record in own}
    same_rate = entry.sfreq is None or all(math.isclose(rate, entry.sfreq, rel_tol=1e-3) for rate in rates)
    if channels == {entry.channels} and same_rate:
        return None
    return {
        "data set": name,
        "declared channels": entry.channels,
        "observed channels": _counts(_n_channels(record) for record in own),
        "declared rate (Hz)": entry.sfreq,
        "observed rates (Hz)": _counts(record.get("original_sfreq", record["sfreq"]) for record in own),
    }


# -- how it looks -----------------------------------------------------------------------------------------------------------


def _spectra(page: Page, facts: Facts) -> None:
    drawn = [name for name in facts.datasets if any("summary" in record for record in facts.of(name))]
    if not drawn:
        return
    page.heading("Spectra before and after filtering")
    columns = min(3, len(drawn[:PANELS]))
    rows = math.ceil(len(drawn[:PANELS]) / columns)
    figure = Figure(figsize=(4.2 * columns if columns > 1 else 6.5, 3.2 * rows + 0.3))
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, name in zip(panels, drawn, strict=False):
        _spectrum_panel(axes, name, [record for record in facts.of(name) if "summary" in record])
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


def _spectrum_panel(axes: Any, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    freqs = np.asarray(SUMMARY_FREQS)
    highest = 0.0
    for key, colour, label in (("psd_before", GREY, "before"), ("psd_after", BLUE, "after")):
        table = np.array([[np.nan if v is None else v for v in record["summary"][key]] for record in records], float)
        table[table <= 0] = np.nan
        known = np.isfinite(table).any(axis=0)
        if not known.any():
            continue
        low, middle, high = np.nanpercentile(table[:, known], [10, 50, 90], axis=0)
        axes.fill_between(freqs[known], low, high, color=colour, alpha=0.25, lw=0)
        axes.plot(freqs[known], middle, color=colour, lw=1.6, label=label)
        highest = max(highest, float(np.nanmax(high)))
    bands = sorted({tuple(record["band"]) for record in records})
    for low_hz, high_hz in bands:
        axes.axvspan(max(low_hz, freqs[0]), min(high_hz, freqs[-1]), color=BLUE, alpha=0.08 / len(bands) + 0.02, lw=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
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


def _topographies(page: Page, facts: Facts) -> None:
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


def _mean_power(records: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean power of each channel name in dB against its recording's median channel, and its position."""
    powers: dict[str, list[float]] = defaultdict(list)
    places: dict[str, list[float]] = {}
    for record in records:
        deviation = [value or np.nan for value in record.get("summary", {}).get("std", [])]
        if len(deviation) != len(record.get("positions") or []) or not np.isfinite(deviation).any():
            continue
        decibels = 20 * np.log10(np.asarray(deviation, float) / np.nanmedian(deviation))
        for channel, value, place in zip(record["channels"], decibels, record["positions"], strict=True):
            if np.isfinite(value) and None not in place:
                powers[channel].append(float(value))
                places.setdefault(channel, place)
    names = sorted(powers)
    return np.array([np.mean(powers[name]) for name in names]), np.array([places[name] for name in names], float).reshape(-1, 3)


def _amplitudes(page: Page, facts: Facts) -> None:
    passed = {name: [a for record in facts.of(name) if (a := _amplitude(record)) is not None] for name in facts.datasets}
    refused = {
        name: [a for record in facts.left_out if record["dataset"] == name and (a := _amplitude(record)) is not None]
        for name in facts.datasets
    }
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


def _amplitude(record: Mapping[str, Any]) -> float | None:
    """µV; of a recording that was left out, what the gate measured."""
    deviation = [value for value in record.get("summary", {}).get("std", []) if value is not None]
    if deviation:
        return float(np.median(deviation))
    value = record.get("facts", {}).get("amplitude")
    return float(value) if value is not None and np.isfinite(value) else None


# -- what was found ---------------------------------------------------------------------------------------------------------


def _findings(page: Page, facts: Facts) -> None:
    page.heading("What the gates found")
    every = [finding for record in (*facts.recordings, *facts.left_out) for finding in record.get("findings", [])]
    counted = Counter((finding["code"], finding["action"]) for finding in every)
    if counted:
        page.table(
            [
                {"code": code, "action": action, "times": times, "example": _example(every, code, action)}
                for (code, action), times in sorted(counted.items())
            ]
        )
    else:
        page.text("Nothing.")
    if not facts.left_out:
        page.text("No recording was left out.")
        return
    page.text(f"{len(facts.left_out)} recordings were left out:")
    rows = []
    for record in facts.left_out[:LISTED]:
        reasons = [f for f in record.get("findings", []) if f["action"] == "quarantined"] or record.get("findings", [])
        reason = reasons[-1] if reasons else {}
        rows.append(
            {
                "recording": record.get("recording", f"{record['dataset']}/{record['subject']}"),
                "code": reason.get("code"),
                "value": reason.get("value"),
                "limit": reason.get("limit"),
                "reason": reason.get("message"),
            }
        )
    page.table(rows)
    if len(facts.left_out) > LISTED:
        page.text(f"The first {LISTED}; `eegprep inspect --json` lists all.")


def _example(findings: Sequence[Mapping[str, Any]], code: str, action: str) -> str:
    first = next(f for f in findings if (f["code"], f["action"]) == (code, action))
    where = f"{first['recording']}{' ' + first['channel'] if first.get('channel') else ''}"
    return f"{where}: {first['message']}" if first.get("message") else where


# -- what it asks for -------------------------------------------------------------------------------------------------------


def _licences(page: Page, facts: Facts) -> None:
    if not facts.recordings:
        return
    page.heading("Licences and citations")
    rows = []
    for name in _licence_names(facts.recordings):
        own = [record for record in facts.recordings if _licence(record) == name]
        rows.append(
            {
                "licence": name,
                "freely shareable": "yes" if catalogue.is_open(name) else "no",
                "terms": ", ".join(catalogue.licence_terms(name)) or "attribution",
                "windows": sum(record.get("windows", 0) for record in own) or None,
                "people": len({record["person"] for record in own}),
                "data sets": ", ".join(sorted({record["dataset"] for record in own})),
            }
        )
    page.table(rows)
    page.text("Cite what you use. Licences are what the data sets declare; read their own pages before publishing.")
    page.table([_citation_row(facts, name) for name in sorted(facts.datasets) if facts.of(name)])


def _citation_row(facts: Facts, name: str) -> dict[str, Any]:
    own, entry = facts.of(name), _known(name)
    dois = sorted({record["doi"] for record in own if record.get("doi")})
    cited = facts.citations.get(name) or (entry.title if entry else "")
    return {"data set": name, "cite": cited, "doi": ", ".join(f"https://doi.org/{doi}" for doi in dois)}


def _recipe(page: Page, facts: Facts) -> None:
    page.heading("How it was made")
    page.text("The settings that decide every number in the store, and the libraries that worked on it.")
    page.code(json.dumps({"recipe": facts.root.get("recipe"), "software": _software(facts)}, indent=2, ensure_ascii=False))
    if facts.root.get("fingerprint"):
        page.code(f"fingerprint {facts.root['fingerprint']}\n\neegprep verify {facts.path}")


def _software(facts: Facts) -> Mapping[str, Any]:
    if facts.root.get("software"):
        return dict(facts.root["software"])
    return dict((facts.recordings or ({},))[0].get("software", {}))


# -- small things -----------------------------------------------------------------------------------------------------------


def _known(name: str) -> catalogue.Entry | None:
    """The catalogue's entry for a data set that is named like one of MOABB's classes."""
    return next((entry for entry in catalogue.entries() if entry.name == name), None)


def _licence(record: Mapping[str, Any]) -> str:
    return record.get("licence") or catalogue.UNKNOWN_LICENCE


def _licence_names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({_licence(record) for record in records})


def _n_channels(record: Mapping[str, Any]) -> int:
    return int(record.get("n_channels") or len(record["channels"]))


def _hours(records: Iterable[Mapping[str, Any]]) -> float:
    return sum((record.get("n_samples") or 0) / record["sfreq"] for record in records) / 3600


def _counts(values: Iterable[float]) -> str:
    """`64`, or `62 (150), 64 (225)` where they differ."""
    counted = sorted(Counter(values).items())
    if len(counted) == 1:
        return f"{counted[0][0]:g}"
    return ", ".join(f"{value:g} ({times})" for value, times in counted)


def _sum_by(records: Iterable[Mapping[str, Any]], key: str, value: str) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for record in records:
        found[record[key]] += record.get(value, 0)
    return found


def _datasets_of_people(records: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        found[record["person"]].add(record["dataset"])
    return found


def _bars(axes: Any, counted: Mapping[float, int], label: str) -> None:
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
