"""What MOABB's own metadata declares about each of its data sets, without downloading and mostly without importing MOABB.

Everything here is *declared*. What a recording holds is counted when it is read (`sources`, `quality`), and only that is stored.

Importing MOABB takes seconds. The table is therefore kept: as a snapshot in the package for the MOABB release that it was made
with, and in the user's cache folder for any other. Both name the MOABB version and the form of the table; a different installed
version, or a development version, makes a new one. MOABB has no download sizes: those come from `data/catalogue_extra.csv`
(NEMAR's own summary, as shipped in the wheel eegdash 0.9.1; PhysionetMI's is computed), like the notes on people who appear in
several classes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from eegprep.atomic import write_text
from eegprep.catalogue.licences import OPEN_LICENCES, spdx
from eegprep.errors import SourceError, UsageError
from eegprep.folders import cache_folder
from eegprep.settings import suggest

CATALOGUE_FORM = 1  # raised whenever `Entry` or what fills it changes

PARADIGMS = ("cvep", "imagery", "p300", "rstate", "ssvep")

_TASK_OF_PARADIGM = {"cvep": "flicker", "imagery": "motor imagery", "p300": "oddball", "rstate": "rest", "ssvep": "flicker"}
# classes whose people did something else than their paradigm says
_OTHER_TASKS = {
    "Kaneshiro2015": "viewing", "Gao2026": "visual imagery", "Shin2017B": "mental arithmetic", "Wairagkar2018": "movement",
    **dict.fromkeys(("AguileraRodriguez2025", "Nguyen2017_L", "Nguyen2017_S", "Nguyen2017_SL", "Nguyen2017_V"), "inner speech"),
    **dict.fromkeys(("Nieto2022", "Pressel2016"), "inner speech"), "Cattan2019_PHMD": "music",
}  # fmt: skip
TASKS = tuple(sorted({*_TASK_OF_PARADIGM.values(), *_OTHER_TASKS.values()}))

COLUMNS = ("class", "paradigm", "task", "subjects", "sessions", "channels", "rate", "licence", "size")


@dataclass(frozen=True)
class Entry:
    """One MOABB class, as declared.

    channels: EEG channels; sfreq, line_freq, band: Hz; interval: s from the cue; bytes, hours: of the mirror's copy (NEMAR).
    same_people: "yes": equal ids within `person_family` are one person; "no": people overlap, but ids do not tell; "": none.
    """

    name: str
    code: str
    paradigm: str
    subjects: tuple[int | str, ...]
    sessions: int
    channels: int | None
    other_channels: int
    sfreq: float | None
    licence: str
    licence_declared: str
    doi: str
    title: str
    repository: str
    data_url: str
    interval: tuple[float, float] | None
    classes: tuple[str, ...]
    reference: str
    line_freq: float | None
    montage: str
    band: tuple[float | None, float | None]
    file_format: str
    nemar_id: str
    bytes: int | None = None
    hours: float | None = None
    recordings: int | None = None
    observed_channels: str = ""
    observed_rates: str = ""
    person_family: str = ""
    same_people: str = ""
    joined_epochs: bool = False
    may_hide_errors: bool = False
    note: str = ""

    @property
    def n_subjects(self) -> int:
        return len(self.subjects)

    @property
    def task(self) -> str:
        """What people did: MOABB's paradigms put looking at pictures and inner speech under imagery."""
        return _OTHER_TASKS.get(self.name, _TASK_OF_PARADIGM[self.paradigm])

    def row(self) -> dict[str, object]:
        """What the table of `eegprep datasets` shows."""
        return {
            "class": self.name,
            "paradigm": self.paradigm,
            "task": self.task,
            "subjects": self.n_subjects,
            "sessions": self.sessions,
            "channels": self.channels,
            "rate": self.sfreq,
            "licence": self.licence,
            "size": format_bytes(self.bytes),
            "note": self.note,
        }

    def record(self) -> dict[str, object]:
        """The same and everything else, for programs: rate in Hz, size in bytes or None."""
        more = {key: value for key, value in asdict(self).items() if key not in ("name", "bytes", "sfreq", "subjects")}
        return self.row() | {"size": self.bytes, "subject_ids": list(self.subjects), **more}


def format_bytes(count: int | None) -> str:
    """`1.9 GB` (powers of 1000), or an empty string when nobody declares a size."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count} B"
    power = min(int(math.log10(count) // 3), 5)
    return f"{count / 1000**power:.1f} {' kMGTP'[power]}B"


def entries() -> tuple[Entry, ...]:
    """Every MOABB class, by name."""
    return tuple(_table().values())


def entry(name: str) -> Entry:
    """One class; SourceError with a did-you-mean for an unknown name. Case, `-` and `_` do not matter."""
    table = _table()
    if name in table:
        return table[name]
    folded = {_fold(known): known for known in table} | {_fold(e.code): e.name for e in table.values()}
    if _fold(name) in folded:
        return table[folded[_fold(name)]]
    hint = suggest(_fold(name), folded)
    if hint:
        near = folded[hint.split("'")[1]]
        hint = f"; did you mean {near!r}?"
    raise SourceError(
        f"MOABB {moabb_version()} has no data set {name!r} among its {len(table)}{hint}",
        "see `eegprep datasets --min-channels 1`",
    )


def share_given(name: str, options: Mapping[str, object]) -> float:
    """Share of a set's recordings that its class gives with these options: PhysionetMI's 14 runs a person hold 6 of imagery,
    6 of movement and 2 of rest."""
    return len(_physionet_runs(options)) / 14 if name == "PhysionetMI" else 1.0


def _physionet_runs(options: Mapping[str, object]) -> tuple[int, ...]:
    """Numbers of the runs that PhysionetMI gives with these options."""
    imagined = (4, 6, 8, 10, 12, 14) if options.get("imagined", True) else ()
    return (*imagined, *((3, 5, 7, 9, 11, 13) if options.get("executed", False) else ()))


def known_files(name: str, subject: str, options: Mapping[str, object]) -> tuple[str, ...]:
    """Names of a subject's files under MOABB's data folder, where they follow from its number; empty for all other classes."""
    if name != "PhysionetMI":
        return ()
    person = f"S{int(subject):03d}"
    folder = f"MNE-eegbci-data/files/eegmmidb/1.0.0/{person}"
    return tuple(f"{folder}/{person}R{run:02d}.edf" for run in sorted(_physionet_runs(options)))


def search(
    *,
    min_channels: int = 0,
    max_channels: int | None = None,
    min_rate: float = 0.0,
    max_rate: float | None = None,
    paradigm: str | None = None,
    task: str | None = None,
    licences: Iterable[str] = (),
    name: str = "",
) -> list[Entry]:
    """Classes that declare at least / at most so many EEG channels and Hz, one paradigm or task, and one of the licences.

    Args:
        licences: SPDX ids in any spelling; "open" stands for all licences that allow sharing derivatives.
        name: part of the class name.

    Raises:
        UsageError: a paradigm that MOABB does not have, or a task that no class has.
    """
    if task is not None and task not in TASKS:
        raise UsageError(f"there is no task {task!r}{suggest(task, TASKS)}", f"choose one of: {', '.join(TASKS)}")
    if paradigm is not None and paradigm not in PARADIGMS:
        hint = suggest(paradigm, PARADIGMS)
        raise UsageError(f"there is no paradigm {paradigm!r}{hint}", f"choose one of: {', '.join(PARADIGMS)}")
    accepted = {spdx(licence) for licence in licences if licence != "open"}
    if "open" in set(licences):
        accepted |= set(OPEN_LICENCES)
    return [
        e
        for e in entries()
        if (e.channels or 0) >= min_channels
        and (max_channels is None or (e.channels or 0) <= max_channels)
        and (e.sfreq or 0.0) >= min_rate
        and (max_rate is None or (e.sfreq or 0.0) <= max_rate)
        and (paradigm is None or e.paradigm == paradigm)
        and (task is None or e.task == task)
        and (not accepted or e.licence in accepted)
        and name.lower() in e.name.lower()
    ]


def person_of(name: str, subject: str) -> str:
    """Identity across classes: equal for one person wherever MOABB's ids, or the authors' own codes, tell.

    Where people overlap but nobody says who is who (`same_people` = "no"), ids stay apart; split such families as a whole.
    """
    codes = _people().get(name)
    if codes and subject.isdigit() and 1 <= int(subject) <= len(codes):
        return f"Berlin/{codes[int(subject) - 1]}"
    known = _extra().get(name)
    if known is None or known["same_people"] != "yes":
        return f"{name}/{subject}"
    return f"{known['person_family']}/{subject}"


def people(chosen: Iterable[Entry]) -> set[str]:
    """Distinct people in several classes."""
    return {person_of(e.name, str(subject)) for e in chosen for subject in e.subjects}


def total_bytes(chosen: Iterable[Entry]) -> int:
    """Declared bytes of several classes; a deposit that backs several classes counts once."""
    # a dictionary: classes of one deposit share its id
    return sum({e.nemar_id or e.name: e.bytes or 0 for e in chosen}.values())


def totals(chosen: Sequence[Entry]) -> str:
    """One line under a table."""
    unsized = sum(e.bytes is None for e in chosen)
    size = format_bytes(total_bytes(chosen)) if unsized < len(chosen) else "size unknown"
    return (
        f"{len(chosen)} data sets, {sum(e.n_subjects for e in chosen)} subjects, {len(people(chosen))} different people as far as "
        f"ids tell, {size} ({unsized} without a declared size); declared by MOABB {moabb_version()} and NEMAR, not measured"
    )


def moabb_version() -> str:
    """The installed release, read without importing it."""
    return metadata.version("moabb")


def cache_file() -> Path:
    """Where the table for the installed MOABB is kept."""
    return cache_folder(f"catalogue-{CATALOGUE_FORM}-moabb-{moabb_version()}.json")


def snapshot_text(table: Iterable[Entry]) -> str:
    """The table as JSON, one class a line, with what decides whether it may be used."""
    lines = [json.dumps(asdict(e), ensure_ascii=False) for e in table]
    head = f'{{"form": {CATALOGUE_FORM}, "moabb": {json.dumps(moabb_version())}, "entries": [\n'
    return head + ",\n".join(lines) + "\n]}\n"


@lru_cache(maxsize=1)
def _table() -> dict[str, Entry]:
    # a development version changes without changing its number
    if not _is_release(moabb_version()):
        return {e.name: e for e in ask_moabb()}
    for text in _kept():
        kept = _read_kept(text)
        if kept is not None:
            return {e.name: e for e in kept}
    fresh = ask_moabb()
    with suppress(OSError):  # a home folder that cannot be written only costs time
        write_text(cache_file(), snapshot_text(fresh))
    return {e.name: e for e in fresh}


def _kept() -> Iterable[str]:
    shipped = resources.files("eegprep") / "data" / "catalogue.json"
    for place in (shipped, cache_file()):
        try:
            yield place.read_text(encoding="utf-8")
        except OSError:
            continue


def _read_kept(text: str) -> list[Entry] | None:
    """The kept table if it belongs to the installed MOABB and to this form, else None."""
    try:
        content = json.loads(text)
        if content["form"] != CATALOGUE_FORM or content["moabb"] != moabb_version():
            return None
        return [_entry_from_json(item) for item in content["entries"]]
    except (ValueError, KeyError, TypeError):
        return None


def _entry_from_json(item: Mapping[str, Any]) -> Entry:
    known = {f.name for f in fields(Entry)}
    if set(item) != known:
        raise ValueError("another form")
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
    return Entry(**plain)


def _is_release(version: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)*(\.post[0-9]+)?", version) is not None


def ask_moabb() -> list[Entry]:
    """Import MOABB and read the metadata of each class; opens no socket."""
    from moabb.datasets.utils import dataset_dict

    extra = _extra()
    table = []
    for name, dataset_class in sorted(dataset_dict.items(), key=lambda item: item[0].lower()):
        # MOABB's own test data
        if not name.startswith("Fake"):
            table.append(_entry(name, dataset_class(), extra.get(name)))
    return table


def _entry(name: str, dataset: Any, extra: Mapping[str, str] | None) -> Entry:
    declared = dataset.metadata
    acquisition, document, filters = declared.acquisition, declared.documentation, declared.preprocessing
    types = dict(acquisition.channel_types or {})
    events = getattr(dataset, "event_id", None) or {}
    extra = extra or {}
    return Entry(
        name=name,
        code=dataset.code,
        paradigm=dataset.paradigm,
        subjects=tuple(_plain(subject) for subject in dataset.subject_list),
        sessions=int(dataset.n_sessions or 1),
        channels=int(types["eeg"]) if types.get("eeg") else None,
        other_channels=sum(int(count) for kind, count in types.items() if kind != "eeg"),
        sfreq=_number(acquisition.sampling_rate),
        licence=spdx(document.license),
        licence_declared=document.license or "",
        doi=document.doi or dataset.doi or "",
        title=_first_line(type(dataset).__doc__),
        repository=document.repository or "",
        data_url=document.data_url or "",
        interval=_pair(dataset.interval),
        classes=tuple(str(label) for label in events),
        reference=str(acquisition.reference or ""),
        line_freq=_number(acquisition.line_freq),
        montage=str(acquisition.montage or ""),
        band=(_number(getattr(filters, "highpass_hz", None)), _number(getattr(filters, "lowpass_hz", None))),
        file_format=str(declared.file_format or ""),
        nemar_id=dataset.nemar_id or "",
        bytes=int(extra["nemar_bytes"]) if extra.get("nemar_bytes") else None,
        hours=float(extra["nemar_hours"]) if extra.get("nemar_hours") else None,
        recordings=int(extra["nemar_recordings"]) if extra.get("nemar_recordings") else None,
        observed_channels=extra.get("nemar_channels", ""),
        observed_rates=extra.get("nemar_rates", ""),
        person_family=extra.get("person_family", name),
        same_people=extra.get("same_people", ""),
        joined_epochs=extra.get("joined_epochs") == "yes",
        may_hide_errors=extra.get("may_hide_errors") == "yes",
        note=extra.get("note", ""),
    )


def _plain(subject: Any) -> int | str:
    return subject if isinstance(subject, str) else int(subject)


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _pair(value: Any) -> tuple[float, float] | None:
    return None if value is None or len(value) != 2 else (float(value[0]), float(value[1]))


def _first_line(doc: str | None) -> str:
    lines = [line.strip() for line in (doc or "").strip().splitlines()]
    return lines[0] if lines else ""


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=1)
def _extra() -> dict[str, dict[str, str]]:
    text = (resources.files("eegprep") / "data" / "catalogue_extra.csv").read_text(encoding="utf-8")
    return {row["name"]: row for row in csv.DictReader(io.StringIO(text))}


@lru_cache(maxsize=1)
def _people() -> dict[str, list[str]]:
    content = json.loads((resources.files("eegprep") / "data" / "people.json").read_text(encoding="utf-8"))
    return {name: codes for name, codes in content.items() if isinstance(codes, list)}
