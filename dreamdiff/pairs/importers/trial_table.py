"""The table of `pairs import` out of recordings and stimulus logs, or out of a BIDS folder whose events name the pictures."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dreamdiff.pairs.importers.table_file import numbers, read_table
from dreamdiff.pairs.importers.trial_log import Matched, column_of, match_events, read_log
from eegprep.atomic import write_text
from eegprep.errors import DataError, UsageError, missing_path
from eegprep.folders import default_data_dir
from eegprep.recording import Event, ProgressCallback, Unreadable
from eegprep.sources.bids import sidecars_of
from eegprep.sources.listing import Listed, Task, list_tasks, who_is_who
from eegprep.sources.reading import read_task
from eegprep.steps.inputs import load_sources
from eegprep.steps.origin import Choice

COLUMNS = ("recording", "onset", "image", "label", "subject", "session", "trial", "trigger")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".ppm")
_ABSENT = ("", "n/a", "na", "nan", "none")


@dataclass(frozen=True)
class TrialTable:
    """Rows with the columns of `COLUMNS` as text, and what was found out on the way, one sentence a line.

    Paths of recordings and images are relative to `folder`.
    """

    folder: Path
    rows: tuple[Mapping[str, str], ...]
    notes: tuple[str, ...]

    def write(self, out: Path) -> None:
        """As CSV; a column that says nothing is left out."""
        used = [name for name in COLUMNS if any(row.get(name) for row in self.rows)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(used)
        writer.writerows([row.get(name, "") for name in used] for row in self.rows)
        write_text(out, text.getvalue())

    @property
    def frame(self) -> pd.DataFrame:
        """As `read_table` would give it."""
        used = [name for name in COLUMNS if any(row.get(name) for row in self.rows)]
        return pd.DataFrame([[row.get(name, "") for name in used] for row in self.rows], columns=used, dtype=object)


def make_table(
    sources: str | Path | Sequence[str | Path],
    folder: Path,
    *,
    log: str | None = None,
    images: Path | None = None,
    columns: Mapping[str, str] | None = None,
    events: Sequence[str] = (),
    choice: Choice | None = None,
    progress: ProgressCallback | None = None,
) -> TrialTable:
    """One row for each picture that was shown.

    Args:
        sources: recordings, as `eegprep build` takes them.
        folder: where the table will be; paths are relative to it.
        log: name or pattern of the stimulus logs, here or beside the recordings; without one, the events of BIDS recordings name the pictures.
        images: folder of the pictures; looked for near the logs when not given.
        columns: names of the log's columns where they are not the usual ones.
        events: labels of the events that are pictures.
        choice: subjects, patterns for names of people, and how files are read.

    Raises:
        DataError: a recording that cannot be read or has no log; rows and events that do not fit; a picture that is not there.
    """
    manifest = load_sources(sources, choice or Choice())
    tasks = list_tasks(manifest.sources, default_data_dir(), offline=True)
    moabb = next((task.source.spec for task in tasks if task.source.kind == "moabb"), None)
    if moabb is not None:
        raise UsageError(f"{moabb}: MOABB's recordings have no stimulus log here", "give files or a BIDS folder")
    logs = _find_logs(log, tasks)
    total = sum(len(task.recordings) for task in tasks)
    rows: list[Mapping[str, str]] = []
    notes, done = list(who_is_who(tasks)), 0
    for task in tasks:
        for listed, recording in zip(task.recordings, read_task(task), strict=True):
            if isinstance(recording, Unreadable):
                raise DataError(f"{listed.main}: {recording.error.problem}", recording.error.fix)
            path = Path(task.root) / listed.main
            named = _from_bids(task, path, columns or {}) if log is None else None
            if named is not None:
                table, matched = named
                file = Path(path.name)
            else:
                file = _log_of(path, logs, log)
                table = _own_rows(read_log(file), columns or {}, file, path)
                matched = match_events(recording.events, table, columns or {}, listed.main, file, events)
            rows += trial_rows(matched, table, columns or {}, file, path, folder, task, listed, images)
            notes.append(f"{listed.main}: {matched.how}" + ("" if named else f" ({file.name})"))
            done += 1
            if progress is not None:
                progress(done, total, listed.main)
    if not rows:
        raise DataError(
            "no picture was shown in any recording", "give the log with --log, or name the column with --columns image=..."
        )
    return TrialTable(folder, tuple(rows), tuple(notes))


def trial_rows(
    matched: Matched, table: pd.DataFrame, columns: Mapping[str, str], file: Path, path: Path, folder: Path, task: Task, listed: Listed,
    images: Path | None, near: Sequence[Path] = (),
) -> list[Mapping[str, str]]:  # fmt: skip
    """Rows with the columns of `COLUMNS`, of one recording.

    Args:
        table: of the log, file: its name. path: of the recording. folder: paths are relative to it.
        images: folder of the pictures. near: folders to look in where that is None; near the log and the recording when not given.
    """
    image, label, subject = (column_of(table, what, columns, file) for what in ("image", "label", "subject"))
    if image is None:
        raise DataError(
            f"{file.name}: there is no column that names the pictures (found: {', '.join(map(str, table.columns))})",
            "name it with --columns image=COLUMN",
        )
    names = [str(cell) for cell in table[image]]
    places = _find_images(dict.fromkeys(names), images, near or [file.parent, path.parent, folder, Path(task.root)], file)
    relative = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    rows: list[Mapping[str, str]] = []
    for number, (event, row) in enumerate(zip(matched.events, matched.rows, strict=True), 1):
        picture = places[names[row]]
        kind = str(table[label].iloc[row]) if label is not None else picture.parent.name
        rows.append(
            {
                "recording": relative,
                "onset": f"{event.onset:.9f}".rstrip("0").rstrip("."),
                "image": Path(os.path.relpath(picture.resolve(), folder.resolve())).as_posix(),
                "label": kind,
                "subject": str(table[subject].iloc[row]) if subject is not None else task.subject,
                "session": "" if listed.session == "0" else listed.session,
                "trial": str(number),
                "trigger": event.label,
            }
        )
    return rows


# -------------------------------------------------------------------------------------------------------------- logs


def _find_logs(log: str | None, tasks: Sequence[Task]) -> list[Path]:
    """Files of a name or pattern: here, else in the folders of the recordings."""
    if log is None:
        return []
    own = [Path.cwd(), *dict.fromkeys((Path(task.root) / listed.main).parent for task in tasks for listed in task.recordings)]
    for base in own:
        pattern = Path(log).expanduser()
        anchor = Path(pattern.anchor) if pattern.is_absolute() else base
        inner = str(pattern.relative_to(pattern.anchor)) if pattern.is_absolute() else str(pattern)
        result = [anchor / inner] if (anchor / inner).is_file() else sorted(path for path in anchor.glob(inner) if path.is_file())
        if base is not own[0] and not pattern.is_absolute():
            result = sorted({path for folder in own[1:] for path in folder.glob(inner) if path.is_file()})
        if result:
            return result
    raise missing_path(Path(log), DataError)


def _log_of(path: Path, logs: Sequence[Path], log: str | None) -> Path:
    """The log that is named after a recording; one log alone is everybody's."""
    if log is None:
        raise DataError(
            f"{path.name}: nothing says which picture was shown when",
            "give the stimulus logs with --log, for instance --log '*_log.csv'",
        )
    stem = path.name.split(".")[0].casefold()
    own = [file for file in logs if file.stem.casefold().startswith(stem)]
    longer = [file for file in own if file.parent == path.parent] or own
    if len(longer) == 1 or (not longer and len(logs) == 1):
        return (longer or list(logs))[0]
    exact = [file for file in longer if not file.stem.casefold()[len(stem) : len(stem) + 1].isalnum()]
    if len(exact) == 1:
        return exact[0]
    raise DataError(
        f"{path.name}: {len(exact or longer)} of {len(logs)} logs begin with its name (exactly 1 is needed; the first log is {logs[0].name})",
        f"name the log after the recording, for instance {path.name.split('.')[0]}_log.csv",
    )


def _own_rows(table: pd.DataFrame, columns: Mapping[str, str], file: Path, path: Path) -> pd.DataFrame:
    """The rows of a log that are of this recording, where a column says so."""
    name = column_of(table, "recording", columns, file)
    if name is None:
        return table
    of_recording = table[
        [Path(str(cell).replace("\\", "/")).name.split(".")[0] == path.name.split(".")[0] for cell in table[name]]
    ]
    if len(of_recording) == 0 and "recording" not in columns:
        return table  # a column of that name that means something else
    return of_recording.reset_index(drop=True)


def _from_bids(task: Task, path: Path, columns: Mapping[str, str]) -> tuple[pd.DataFrame, Matched] | None:
    """The rows of a recording's `events.tsv` that name a picture; None where it is not BIDS."""
    if task.source.kind != "bids":
        return None
    file = events_of(task, path)
    if file is None:
        raise DataError(f"{path.name}: has no events.tsv", "give the stimulus logs with --log")
    table, times, image, total = pictures_shown(file, columns)
    if image is None:
        raise DataError(
            f"{file.name}: there is no column that names the pictures (found: {', '.join(map(str, table.columns))})",
            "name it with --columns image=COLUMN, or give the stimulus logs with --log",
        )
    how = f"{len(table)} of {total} rows of {file.name} name a picture in column {image!r}"
    return table, Matched(tuple(Event(time, 0.0, "") for time in times), tuple(range(len(table))), how)


def events_of(task: Task, path: Path) -> Path | None:
    """The `events.tsv` that holds for a recording of a BIDS folder."""
    root = next(root for root in (Path(one.target) for one in (task.source, *task.also)) if path.is_relative_to(root))
    return sidecars_of(root, path).events


def pictures_shown(file: Path, columns: Mapping[str, str]) -> tuple[pd.DataFrame, list[float], str | None, int]:
    """The rows of an `events.tsv` that name a picture, their onsets (s), the column that does, and how many rows there are.

    Without such a column the table comes back whole, without onsets.

    Raises:
        DataError: a row with a picture has no onset.
    """
    table = read_table(file, ("onset", "duration", "trial_type")).reset_index(drop=True)
    asked = columns.get("image")
    image = column_of(table, "image", {}, file) if asked is None else asked if asked in table else None
    if image is None:
        return table, [], None, len(table)
    shown = [str(cell).strip().casefold() not in _ABSENT for cell in table[image]]
    onset = numbers(table["onset"], decimal_comma=True)
    lost = int((onset.isna() & pd.Series(shown)).sum())
    if lost:
        raise DataError(f"{file.name}: {lost} rows with a picture have no onset", "complete them, or write n/a for their picture")
    return table[shown].reset_index(drop=True), onset[shown].astype(float).tolist(), image, len(table)


# ------------------------------------------------------------------------------------------------------------ images


def _find_images(names: Mapping[str, None], given: Path | None, near: Sequence[Path], file: Path) -> dict[str, Path]:
    """Where each picture lies: below the folder that was given, or the first folder near the log that has all of them.

    A name may be a path, also of Windows, or have no ending.
    """
    bases = [given] if given is not None else _with_folders(near)
    fewest: tuple[int, str] | None = None
    for base in bases:
        listed = {path.name: path for path in sorted(base.iterdir()) if path.suffix.lower() in PICTURES} if base.is_dir() else {}
        stems = {Path(name).stem: path for name, path in listed.items()}
        places = {name: _picture(name, base, listed, stems) for name in names}
        lost = [name for name, place in places.items() if place is None]
        if not lost:
            return {name: place for name, place in places.items() if place is not None}
        if fewest is None or len(lost) < fewest[0]:
            fewest = (len(lost), lost[0])
    assert fewest is not None
    raise DataError(
        f"{file.name}: {fewest[0]} of {len(names)} pictures are not {f'in {given}' if given else 'near it'}, the first is {fewest[1]}",
        "name the folder of the pictures with --images",
    )


def _picture(name: str, base: Path, listed: Mapping[str, Path], stems: Mapping[str, Path]) -> Path | None:
    plain = name.strip().replace("\\", "/")
    last = plain.rpartition("/")[2]
    if plain and not plain.startswith("/") and ".." not in plain.split("/") and (base / plain).is_file():
        return base / plain
    return listed.get(last) or stems.get(last)


def _with_folders(near: Sequence[Path]) -> list[Path]:
    """Folders and what is directly in them, and in their parent, each once."""
    entries: dict[Path, None] = {}
    for folder in near:
        entries[folder] = None
    for folder in (*near, *(folder.parent for folder in near[:2])):
        if folder.is_dir():
            entries.update(
                dict.fromkeys(sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
            )
    return list(entries)
