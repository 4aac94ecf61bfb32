"""Rows of a table of trials, wherever their EEG comes from: columns of a store, names to numbers, splits.

Shapes: N trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dreamdiff.pairs.importers.importer import ImportConfig, Reader, split_by
from dreamdiff.pairs.importers.table_file import numbers
from dreamdiff.pairs.splits import PARTS
from eegprep.errors import DataError


class TrialRows(Reader):
    """Rows with subject, image, label and onset, in the order in which they are stored; optional session, block, trial, split."""

    config: ImportConfig
    table: pd.DataFrame
    table_file: Path

    def total(self, subject: str) -> int:
        return int((self.table["subject"] == subject).sum())

    def columns(self, rows: pd.DataFrame, session: int) -> dict[str, np.ndarray]:
        columns = {
            "image": np.array([self.image_names.index(str(name)) for name in rows["image"]]),
            "label": np.array([self.classes.index(str(name)) for name in rows["label"]]),
            "onset": rows["onset"].to_numpy(),
            "session": np.full(len(rows), session),
            "trial": rows.index.to_numpy(),
        }
        for name in ("session", "block", "trial"):
            if name in rows:
                columns[name] = self._numbered(name, rows)
        return columns

    def _numbered(self, name: str, rows: pd.DataFrame) -> np.ndarray:
        """Numbers of a column of numbers or names, in sorted order over the whole table; -1 for empty cells."""
        filled = [value for value in self.table[name].unique() if value]
        parsed = numbers(pd.Series(filled, dtype=object), decimal_comma=True)
        known = (
            sorted(filled) if parsed.isna().any() else [filled[place] for place in np.argsort(parsed.to_numpy(), kind="stable")]
        )
        return np.array([known.index(value) if value else -1 for value in rows[name]], dtype=np.int64)

    def splits(self) -> dict[str, np.ndarray]:
        if "split" in self.table:
            named = self.table["split"]
            wrong = sorted(set(named) - set(PARTS))
            if wrong:
                raise DataError(f"{self.table_file.name}: {wrong[0]!r} in the column 'split'", f"use {', '.join(PARTS)}")
            return {part: np.flatnonzero((named == part).to_numpy()) for part in PARTS}
        label = np.array([self.classes.index(str(name)) for name in self.table["label"]])
        image = np.array([self.image_names.index(str(name)) for name in self.table["image"]])
        person = np.array([self.subjects.index(name) for name in self.table["subject"]])
        return split_by(self.config, concept=label, stimulus=self.same_picture(image), person=person)


def check_filled(table: pd.DataFrame, file: Path, asked: Sequence[str]) -> None:
    """Raise DataError for the first empty cell in columns that must be filled."""
    for row, cells in table[list(asked)].iterrows():
        empty = [name for name in asked if not cells[name]]
        if empty:
            raise DataError(
                f"{file.name}: row {row_number(row)} has an empty cell in the column {empty[0]!r}", "fill it, or remove the row"
            )


def check_columns(table: pd.DataFrame, file: Path, needed: Sequence[str]) -> None:
    """Raise DataError for a column that is not there, or a table without rows."""
    missing = [name for name in needed if name not in table]
    if missing:
        raise DataError(
            f"{file.name}: there is no column {missing[0]!r} (found: {', '.join(map(str, table.columns)) or 'none'})",
            f"give the columns {', '.join(needed)}",
        )
    if len(table) == 0:
        raise DataError(f"{file.name}: 0 rows (least 1)", "give one row per trial")


def onsets_of(table: pd.DataFrame, file: Path) -> pd.Series:
    """The column `onset` as numbers, s.

    Raises:
        DataError: the first that is no time from the first sample on.
    """
    onset = numbers(table["onset"], decimal_comma=True)
    wrong = onset.isna() | (onset < 0) | (onset == math.inf)
    if wrong.any():
        row = wrong.idxmax()
        raise DataError(
            f"{file.name}: row {row_number(row)} has the onset {str(table['onset'].loc[row])!r}",
            "give seconds from the first sample",
        )
    return onset.astype(float)


def row_number(label: object) -> int:
    """Number of a row below the header, counted from 1."""
    return int(str(label)) + 1
