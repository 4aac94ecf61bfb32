"""A table of one's own: recording, onset, image, label. Shapes: N trials, R repetitions, C channels, T samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dreamdiff.eeg_input import inside, prepare, starts_of
from dreamdiff.pairs.importers.importer import BATCH, SAMPLES, Batch, ImportConfig, Reader, chosen, hashed, split_by
from dreamdiff.pairs.importers.table_file import numbers, read_table
from dreamdiff.pairs.splits import PARTS
from eegprep.errors import DataError
from eegprep.recording import Origin, Recording, positions_to_json
from eegprep.signals.recipe import Recipe
from eegprep.signals.windows import Cut, make_windows, plan_channels
from eegprep.sources.reading import read_file


class OwnTable(Reader):
    """Rows of recording, onset (s from the first sample), image, label; optional subject, session, block, trial, split."""

    _NEEDED = ("recording", "onset", "image", "label")

    def __init__(self, source: Path, config: ImportConfig) -> None:
        self.config, self.source = config, source
        self.recipe = Recipe(low=config.low, high=config.high, nyquist=config.nyquist, resample=config.resample, min_channels=8)
        table = read_table(source, self._NEEDED)
        self._check(table)
        if "subject" not in table:
            table["subject"] = "1"
        self._check_twice(table)
        found = sorted(table["subject"].unique())
        self.subjects = chosen(found, config.subjects, source)
        table = table[table["subject"].isin(self.subjects)]
        # rows in the order in which they are stored: by subject, recording, onset
        self.table = table.sort_values(["subject", "recording", "onset"], kind="stable").reset_index(drop=True)
        self.classes = sorted(self.table["label"].unique())
        self.image_names = sorted(self.table["image"].unique())
        self.image_folder = Path(config.images) if config.images else source.parent
        self.licence = config.licence
        recordings = [source.parent / name for name in sorted(self.table["recording"].unique())]
        missing = [path for path in recordings if not path.exists()]
        if missing:
            raise DataError(
                f"{source.name}: {len(missing)} of {len(recordings)} recordings are missing, the first is {missing[0].name}",
                "write paths relative to the table",
            )
        self.sources = hashed(source, *(path for path in recordings if path.is_file()))
        self._facts: dict[str, list[dict[str, Any]]] = {}

    def _check(self, table: pd.DataFrame) -> None:
        missing = [name for name in self._NEEDED if name not in table]
        if missing:
            raise DataError(
                f"{self.source.name}: there is no column {missing[0]!r} (found: {', '.join(map(str, table.columns)) or 'none'})",
                f"give the columns {', '.join(self._NEEDED)}",
            )
        if len(table) == 0:
            raise DataError(f"{self.source.name}: 0 rows (least 1)", "give one row per trial")
        asked = [*self._NEEDED, *(name for name in ("subject", "split") if name in table)]
        for row, cells in table[asked].iterrows():
            empty = [name for name in asked if not cells[name]]
            if empty:
                raise DataError(
                    f"{self.source.name}: row {_row(row)} has an empty cell in the column {empty[0]!r}",
                    "fill it, or remove the row",
                )
        onset = numbers(table["onset"], decimal_comma=True)
        wrong = onset.isna() | (onset < 0) | (onset == math.inf)
        if wrong.any():
            row = wrong.idxmax()
            raise DataError(
                f"{self.source.name}: row {_row(row)} has the onset {str(table['onset'].loc[row])!r}",
                "give seconds from the first sample",
            )
        table["onset"] = onset.astype(float)

    def _check_twice(self, table: pd.DataFrame) -> None:
        """A trial that is counted twice, with one label or two, would be in training and in test."""
        key = ["subject", "recording", "onset"]
        again = table.duplicated(key)
        if again.any():
            second = again.idxmax()
            same = (table[key] == table.loc[second, key]).all(axis=1)
            raise DataError(
                f"{self.source.name}: rows {_row(same.idxmax())} and {_row(second)} are the same trial "
                f"({table.loc[second, 'recording']} at {table.loc[second, 'onset']:g} s), and so are {int(again.sum())} in all",
                "remove one of the two rows",
            )

    def total(self, subject: str) -> int:
        return int((self.table["subject"] == subject).sum())

    def batches(self, subject: str) -> Iterator[Batch]:
        mine = self.table[self.table["subject"] == subject]
        self._facts[subject] = []
        for session, (name, rows) in enumerate(mine.groupby("recording", sort=True)):
            recording = self._recording(str(name), subject)
            plan = plan_channels(recording, self.recipe)
            starts_N = self._starts(recording, rows)
            self._facts[subject].append({**_brief(recording), "pad_map": list(plan.pad_map)})
            for first in range(0, len(rows), BATCH):
                part = rows.iloc[first : first + BATCH]
                starts = starts_N[first : first + BATCH]
                cut = Cut(starts, np.full(len(starts), SAMPLES), (None,) * len(starts))
                yield Batch(make_windows(recording.signal_CT, cut, plan, SAMPLES), self._columns(part, session))

    def _columns(self, rows: pd.DataFrame, session: int) -> dict[str, np.ndarray]:
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

    def _recording(self, name: str, subject: str) -> Recording:
        origin = Origin("table", subject, "0", Path(name).stem)
        recording = prepare(read_file(self.source.parent / name, origin), self.recipe)
        if not 8 <= len(recording.channels) <= 256:
            raise DataError(
                f"{name}: {len(recording.channels)} EEG channels are outside 8..256", "remove the rows of this recording"
            )
        rates = {fact["sfreq"] for fact in self._facts[subject]} | {recording.sfreq}
        if len(rates) > 1:
            raise DataError(
                f"subject {subject}: recordings at {' and '.join(f'{rate:g}' for rate in sorted(rates))} Hz",
                "bring them to one rate with --resample",
            )
        return recording

    def _starts(self, recording: Recording, rows: pd.DataFrame) -> np.ndarray:
        """First samples of the windows; all of a window has to lie inside the recording and between its seams."""
        starts_N = starts_of(rows["onset"], self.config.offset, recording.sfreq)
        fits = inside(recording, starts_N, SAMPLES)
        segments = recording.segments
        if not fits.all():
            row = int(np.flatnonzero(~fits)[0])
            start = starts_N[row] / recording.sfreq
            raise DataError(
                f"{recording.name}: the trial at {rows['onset'].iloc[row]:g} s needs {start:.3f} to "
                f"{start + SAMPLES / recording.sfreq:.3f} s, the recording has {recording.signal_CT.shape[1] / recording.sfreq:.3f} s"
                f"{' and seams' if len(segments) > 1 else ''}",
                "remove the row, or change --offset",
            )
        return starts_N

    def attributes(self, subject: str) -> Mapping[str, Any]:
        facts = self._facts[subject]
        same = all(fact["pad_map"] == facts[0]["pad_map"] and fact["channels"] == facts[0]["channels"] for fact in facts)
        return {
            "sfreq": facts[0]["sfreq"], "t0": self.config.offset, "unit": "uV", "recordings": facts,
            "band": [max(f["band"][0] for f in facts), min(f["band"][1] for f in facts)],
            "channels": facts[0]["channels"] if same else None, "n_channels": max(len(f["channels"]) for f in facts),
            "pad_map": facts[0]["pad_map"] if same else None, "positions": facts[0]["positions"] if same else None,
            "blocks": "recorded" if "block" in self.table else "unknown", "sources": self.sources,
        }  # fmt: skip

    def splits(self) -> dict[str, np.ndarray]:
        if "split" in self.table:
            named = self.table["split"]
            wrong = sorted(set(named) - set(PARTS))
            if wrong:
                raise DataError(f"{self.source.name}: {wrong[0]!r} in the column 'split'", f"use {', '.join(PARTS)}")
            return {part: np.flatnonzero((named == part).to_numpy()) for part in PARTS}
        label = np.array([self.classes.index(str(name)) for name in self.table["label"]])
        image = np.array([self.image_names.index(str(name)) for name in self.table["image"]])
        person = np.array([self.subjects.index(name) for name in self.table["subject"]])
        return split_by(self.config, concept=label, stimulus=image, person=person)


def _row(label: object) -> int:
    """Number of a row below the header, counted from 1."""
    return int(str(label)) + 1


def _brief(recording: Recording) -> dict[str, object]:
    return {
        "name": recording.name, "sfreq": recording.sfreq, "original_sfreq": recording.original_sfreq,
        "channels": list(recording.channels), "positions": positions_to_json(np.round(recording.positions_C3, 6)),
        "reference": recording.reference, "band": [b if math.isfinite(b) else None for b in recording.band],
        "findings": [finding.to_json() for finding in recording.findings],
    }  # fmt: skip
