"""What a table of one's own calls its columns, who its people are, and in what its onsets are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dreamdiff.pairs.importers.trial_log import column_of
from eegprep.errors import DataError
from eegprep.sources.naming import explain, read_name, settle


def own_names(table: pd.DataFrame, columns: Mapping[str, str], needed: Sequence[str], file: Path) -> pd.DataFrame:
    """The table with the columns that `--columns` names under our names; a column of people under a usual name is `subject`.

    Raises:
        DataError: a needed column is not there; what probably is meant stands in the fix.
    """
    for what in columns:
        column_of(table, what, columns, file)
    renamed = table.drop(columns=[what for what, name in columns.items() if what in table and what != name])
    renamed = renamed.rename(columns={name: what for what, name in columns.items()})
    if "subject" not in renamed:
        person = column_of(renamed, "subject", {}, file)
        renamed = renamed if person is None else renamed.rename(columns={person: "subject"})
    missing = [name for name in needed if name not in renamed]
    if missing:
        meant = {name: column_of(renamed, name, {}, file) for name in missing}
        known = ",".join(f"{name}={column or '...'}" for name, column in meant.items())
        listed = ", ".join(map(str, table.columns)) or "none"
        raise DataError(
            f"{file.name}: there is no column {missing[0]!r} (found: {listed})",
            f"give the columns {', '.join(needed)}, or name them: --columns {known}",
        )
    return renamed


def people_of(recordings: Sequence[str], subject_pattern: str = "", session_pattern: str = "") -> tuple[dict[str, str], str]:
    """Whose each recording is, by its name, and a sentence that says so: where a table has no column of people."""
    names = list(dict.fromkeys(recordings))
    read = [read_name(Path(name), "", subject_pattern, session_pattern) for name in names]
    subjects = [name.subject for name in settle(read)]
    rules = explain(list(zip(read, subjects, strict=True)))
    return dict(zip(names, subjects, strict=True)), f"{rules}, or a column 'subject' in the table"


def not_seconds(onsets: pd.Series, seconds: float, sfreq: float) -> tuple[str, str] | None:
    """(problem, fix) where onsets lie so far outside a recording that they must be in samples or ms; None where they may be seconds.

    Args:
        seconds: length of the recording. sfreq: its rate as it was recorded, Hz.
    """
    last = float(onsets.max())
    if last <= 2 * seconds:
        return None
    # the unit in which the last onset comes nearest to the end
    units = {f"samples at {sfreq:g} Hz": sfreq, "ms": 1e3, "us": 1e6}
    fitting = {name: last / factor for name, factor in units.items() if last / factor <= seconds}
    problem = f"onsets up to {last:g} do not fit a recording of {seconds:g} s"
    if not fitting:
        return problem, "give seconds from the first sample of each recording"
    name = max(fitting, key=lambda unit: fitting[unit])
    return (
        f"{problem}; are they {name}? They would then end at {fitting[name]:.1f} s",
        f"give seconds: divide the column by {units[name]:g}",
    )
