"""One self-contained page about a store: who and what is in it, how it looks before and after filtering, what was left out and
why, and what its licences and authors ask for.

Everything comes from the records that `build` wrote; no window is read. C channels.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from eegprep.catalogue import licences
from eegprep.catalogue import moabb as catalogue
from eegprep.errors import StoreError
from eegprep.inspection.page import Page
from eegprep.inspection.report_figures import amplitude_figure, bar_figure, people_figure, spectra_figure, topography_figure
from eegprep.inspection.store_facts import Listed, StoreFacts, gather
from eegprep.recording import Finding
from eegprep.words import count

LISTED = 300  # rows of a list of recordings


def report(path: str | Path, out: str | Path) -> Path:
    """Write the page about a corpus or a recordings store.

    Args:
        path: the store, a folder.
        out: the HTML file to write.

    Raises:
        StoreError: `path` is not a store of this software, or holds nothing at all.
    """
    facts = gather(Path(path))
    if not facts.recordings and not facts.left_out:
        raise StoreError(f"{path}: no recording is in it, and none was left out", "run the build again; nothing to report yet")
    compose(facts).write(Path(out))
    return Path(out)


def compose(facts: StoreFacts) -> Page:
    """The page, section by section."""
    page = Page(f"EEG corpus {Path(facts.path).name}", _lead(facts))
    _verdict(page, facts)
    _datasets(page, facts)
    _channels_and_rates(page, facts)
    spectra_figure(page, facts)
    topography_figure(page, facts)
    amplitude_figure(page, facts)
    _findings(page, facts)
    _licences(page, facts)
    _recipe(page, facts)
    return page


def _lead(facts: StoreFacts) -> str:
    windows = sum(listed.windows for listed in facts.recordings)
    people = len({listed.person for listed in facts.recordings})
    parts = [
        f"{windows:,} windows" if any(listed.record.windows is not None for listed in facts.recordings) else "",
        count(people, "person"),
        count(len(facts.recordings), "recording"),
        f"{sum(listed.hours for listed in facts.recordings):.1f} hours",
        f"{count(len(facts.left_out), 'recording')} left out" if facts.left_out else "nothing left out",
    ]
    return ", ".join(part for part in parts if part) + "."


def _verdict(page: Page, facts: StoreFacts) -> None:
    """The two things that people get wrong first: sharing, and people in several data sets."""
    closed = {name: licences.licence_terms(name) for name in _licence_names(facts.recordings) if not licences.is_open(name)}
    if closed:
        restrictions = "; ".join(f"{name}: {', '.join(terms)}" for name, terms in closed.items())
        page.text(
            f"Not everything here may be shared freely; the table of licences below says which data sets. {restrictions}.",
            "warning",
        )
    elif facts.recordings:
        page.text("Every licence in this corpus allows sharing it with attribution; the list of authors is below.", "verdict")
    several = {who: sorted(names) for who, names in _datasets_of_people(facts.recordings).items() if len(names) > 1}
    if several:
        page.text(
            f"{count(len(several), 'person')} in several data sets, for instance {next(iter(several))} in "
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


def _datasets(page: Page, facts: StoreFacts) -> None:
    page.heading("Subjects and windows")
    page.table([_dataset_row(facts, name) for name in facts.datasets])
    windows = {name: list(_windows_of_people(facts.of(name)).values()) for name in facts.datasets if facts.of(name)}
    if any(sum(values) for values in windows.values()):
        page.figure(people_figure(windows), "Windows that each person gives. A balanced draw gives everybody the same.")


def _dataset_row(facts: StoreFacts, name: str) -> dict[str, object]:
    own = facts.of(name)
    per_person = list(_windows_of_people(own).values())
    row: dict[str, object] = {
        "data set": name,
        "subjects": len({listed.subject for listed in own}),
        "recordings": len(own),
        "left out": sum(lost.dataset == name for lost in facts.left_out),
        "hours": round(sum(listed.hours for listed in own), 2),
    }
    if any(per_person):
        low, high = min(per_person), max(per_person)
        row |= {"windows": sum(per_person), "per person": f"{low:,}" if low == high else f"{low:,} to {high:,}"}
    channels, rates = _counts(listed.record.n_channels for listed in own), _counts(listed.record.sfreq for listed in own)
    row |= {"channels": channels, "rate (Hz)": rates, "licence": ", ".join(_licence_names(own))}
    return row


def _channels_and_rates(page: Page, facts: StoreFacts) -> None:
    if not facts.recordings:
        return
    page.heading("Channels and sampling rates, as observed")
    figure = Figure(figsize=(9, 2.8))
    left, right = figure.subplots(1, 2)
    bar_figure(left, Counter(listed.record.n_channels for listed in facts.recordings), "EEG channels in the recording")
    bar_figure(
        right,
        Counter(round(listed.record.original_sfreq, 2) for listed in facts.recordings),
        "rate as recorded (Hz)",
    )
    figure.tight_layout()
    page.figure(figure, "Recordings by what was found in the files; what a catalogue declares is not used.")
    declared = [row for name in facts.datasets if (row := _declared_row(name, facts.of(name)))]
    if declared:
        page.text("These data sets differ from what MOABB's catalogue declares for them:")
        page.table(declared)


def _declared_row(name: str, own: Sequence[Listed]) -> dict[str, object] | None:
    entry = _known(name)
    if entry is None or not own:
        return None
    channels = {listed.record.n_channels for listed in own}
    rates = {listed.record.original_sfreq for listed in own}
    # a thousandth: files store rates such as 499.999
    same_rate = entry.sfreq is None or all(math.isclose(rate, entry.sfreq, rel_tol=1e-3) for rate in rates)
    if channels == {entry.channels} and same_rate:
        return None
    return {
        "data set": name,
        "declared channels": entry.channels,
        "observed channels": _counts(listed.record.n_channels for listed in own),
        "declared rate (Hz)": entry.sfreq,
        "observed rates (Hz)": _counts(listed.record.original_sfreq for listed in own),
    }


def _findings(page: Page, facts: StoreFacts) -> None:
    page.heading("What the gates found")
    every = [finding for listed in facts.recordings for finding in listed.record.findings]
    every += [finding for lost in facts.left_out for finding in lost.record.findings]
    counted = Counter((finding.code, finding.action) for finding in every)
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
    page.text(f"{count(len(facts.left_out), 'recording')} left out:")
    rows = []
    for lost in facts.left_out[:LISTED]:
        reasons = lost.record.reasons or lost.record.findings
        reason = reasons[-1] if reasons else None
        rows.append(
            {
                "recording": lost.record.recording,
                "code": reason.code if reason else None,
                "value": reason.value if reason else None,
                "limit": reason.limit if reason else None,
                "reason": reason.message if reason else None,
            }
        )
    page.table(rows)
    if len(facts.left_out) > LISTED:
        page.text(f"The first {LISTED}; `eegprep inspect --json` lists all.")


def _example(findings: Sequence[Finding], code: str, action: str) -> str:
    first = next(finding for finding in findings if (finding.code, finding.action) == (code, action))
    where = f"{first.recording}{' ' + first.channel if first.channel else ''}"
    return f"{where}: {first.message}" if first.message else where


def _licences(page: Page, facts: StoreFacts) -> None:
    if not facts.recordings:
        return
    page.heading("Licences and citations")
    rows = []
    for name in _licence_names(facts.recordings):
        own = [listed for listed in facts.recordings if listed.record.licence == name]
        rows.append(
            {
                "licence": name,
                "freely shareable": "yes" if licences.is_open(name) else "no",
                "terms": ", ".join(licences.licence_terms(name)) or "attribution",
                "windows": sum(listed.windows for listed in own) or None,
                "people": len({listed.person for listed in own}),
                "data sets": ", ".join(sorted({listed.dataset for listed in own})),
            }
        )
    page.table(rows)
    page.text("Cite what you use. Licences are what the data sets declare; read their own pages before publishing.")
    page.table([_citation_row(facts, name) for name in sorted(facts.datasets) if facts.of(name)])


def _citation_row(facts: StoreFacts, name: str) -> dict[str, object]:
    own, entry = facts.of(name), _known(name)
    dois = sorted({listed.record.doi for listed in own if listed.record.doi})
    cited = facts.citations.get(name) or (entry.title if entry else "")
    return {"data set": name, "cite": cited, "doi": ", ".join(f"https://doi.org/{doi}" for doi in dois)}


def _recipe(page: Page, facts: StoreFacts) -> None:
    page.heading("How it was made")
    page.text("The settings that decide every number in the store, and the libraries that worked on it.")
    page.code(json.dumps({"recipe": facts.root.get("recipe"), "software": _software(facts)}, indent=2, ensure_ascii=False))
    if facts.root.get("fingerprint"):
        page.code(f"fingerprint {facts.root['fingerprint']}\n\neegprep verify {facts.path}")


def _software(facts: StoreFacts) -> Mapping[str, Any]:
    if facts.root.get("software"):
        return dict(facts.root["software"])
    return next((listed.record.made.software for listed in facts.recordings if listed.record.made is not None), {})


def _known(name: str) -> catalogue.Entry | None:
    """The catalogue's entry for a data set that is named like one of MOABB's classes."""
    return next((entry for entry in catalogue.entries() if entry.name == name), None)


def _licence_names(recordings: Iterable[Listed]) -> list[str]:
    return sorted({listed.record.licence for listed in recordings})


def _counts(values: Iterable[float]) -> str:
    """`64`, or `62 (150), 64 (225)` where they differ."""
    counted = sorted(Counter(values).items())
    if len(counted) == 1:
        return f"{counted[0][0]:g}"
    return ", ".join(f"{value:g} ({times})" for value, times in counted)


def _windows_of_people(recordings: Iterable[Listed]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for listed in recordings:
        counted[listed.person] += listed.windows
    return counted


def _datasets_of_people(recordings: Iterable[Listed]) -> dict[str, set[str]]:
    datasets: dict[str, set[str]] = defaultdict(set)
    for listed in recordings:
        datasets[listed.person].add(listed.dataset)
    return datasets
