"""A table of participants beside the recordings, where it says which file is whose.

`participants.tsv` or `participants.csv` in the folder of a source. One column names files (`file`, `filename` or `recording`), one people
(`participant_id`, `participant`, `participants`, `subject` or `person`); `session` and `run` may be there. A table without a column of files,
as BIDS has it, says nothing here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from eegprep.errors import SourceError
from eegprep.sources.naming import Named

NAMES = ("participants.tsv", "participants.csv")
PEOPLE = ("participant_id", "participant", "participants", "subject", "person")
_FILES = ("file", "filename", "recording")


def read_participants(root: Path) -> dict[str, Mapping[str, str]]:
    """Rows by the name of their file, with `subject`, `session` and `run`; empty where no table says which file is whose.

    Raises:
        SourceError: a row without a file or a person, or a file twice.
    """
    path = next((root / name for name in NAMES if (root / name).is_file()), None)
    if path is None:
        return {}
    text = path.read_text("utf-8-sig", errors="replace")
    header = text.partition("\n")[0]
    rows = list(csv.DictReader(io.StringIO(text), delimiter=max("\t,;", key=header.count)))
    columns = {str(name).strip().casefold(): name for name in (rows[0] if rows else ())}
    file, person = (next((columns[name] for name in known if name in columns), None) for known in (_FILES, PEOPLE))
    if file is None or person is None:
        return {}
    result: dict[str, Mapping[str, str]] = {}
    for number, row in enumerate(rows, 1):
        name, subject = ((row[key] or "").strip() for key in (file, person))
        if not name or not subject or name in result:
            problem = f"{name} a second time" if name in result else f"an empty cell in {(person if name else file)!r}"
            raise SourceError(f"{path}: row {number} has {problem}", "give each file one row with its participant")
        other = {key: (row[columns[key]] or "").strip() for key in ("session", "run") if key in columns}
        result[name] = {"subject": subject.removeprefix("sub-"), **{key: value for key, value in other.items() if value}}
    return result


def named_by(table: Mapping[str, Mapping[str, str]], path: Path, read: Named, root: Path) -> Named:
    """The name of a recording as the table has it; what the table does not say is as it was read.

    Raises:
        SourceError: the table does not list the file.
    """
    row = table.get(path.as_posix()) or table.get(path.name)
    if row is None:
        raise SourceError(
            f"{path.as_posix()}: not in the table of participants of {root}, which has {len(table)} files", "add a row for it"
        )
    subject = row["subject"]
    rest = path.stem.replace(subject, "", 1).strip("_-. ") or "0"
    run = row.get("run") or (read.run if read.subject == subject else rest)
    return Named(subject, row.get("session") or read.session, run, path, explicit=True, rule="participants")
