"""A table of one's own: recording, onset, image, label. Shapes: N trials, R repetitions, C channels, T samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from dreamdiff.eeg_input import inside, prepare, starts_of
from dreamdiff.pairs.importers.epochs import electrodes_of, rows_of, without_baseline
from dreamdiff.pairs.importers.importer import BATCH, CHANNELS, SAMPLES, Batch, ImportConfig, chosen, hashed
from dreamdiff.pairs.importers.own_columns import not_seconds, own_names, people_of
from dreamdiff.pairs.importers.rows import TrialRows, check_columns, check_filled, onsets_of, row_number
from dreamdiff.pairs.importers.table_file import read_table
from eegprep.errors import DataError
from eegprep.readers.content import Reading
from eegprep.recording import Origin, Recording, positions_to_json
from eegprep.signals.recipe import Recipe
from eegprep.signals.windows import ChannelPlan, Cut, make_windows, plan_channels
from eegprep.sources.reading import read_file, scaled

_NEEDED = ("recording", "onset", "image", "label")


def _read_table(source: Path, columns: Mapping[str, str] = MappingProxyType({})) -> pd.DataFrame:
    """The rows of a trial table under the project's names of columns; every cell is still text."""
    return own_names(read_table(source, [*_NEEDED, *columns.values()]), columns, _NEEDED, source)


class OwnTable(TrialRows):
    """Rows of recording, onset (s from the first sample), image, label; optional subject, session, block, trial, split."""

    def __init__(self, source: Path, config: ImportConfig) -> None:
        table = _read_table(source, config.columns)
        self._take(table, source, config, source.parent)
        recordings = [source.parent / name for name in sorted(self.table["recording"].unique())]
        missing = [path for path in recordings if not path.exists()]
        if missing:
            raise DataError(
                f"{source.name}: {len(missing)} of {len(recordings)} recordings are missing, the first is {missing[0].name}",
                "write paths relative to the table",
            )
        self.sources = hashed(source, *(path for path in recordings if path.is_file()))

    def _take(self, table: pd.DataFrame, source: Path, config: ImportConfig, images: Path) -> None:
        """Check the rows and put them into the order in which they are stored.

        Args:
            source: what messages name. images: folder that names of images are relative to, where `--images` gives none.
        """
        self.config, self.source, self.table_file = config, source, source
        self.recipe = Recipe(low=config.low, high=config.high, nyquist=config.nyquist, resample=config.resample, min_channels=8)
        self._check(table)
        if "subject" not in table:
            people, said = people_of(list(table["recording"]), config.subject_pattern, config.session_pattern)
            table["subject"] = [people[name] for name in table["recording"]]
            self.said = (said,)
        self.reading = Reading(sfreq=config.sfreq, unit=config.unit, channel_names=config.channel_names)
        self._check_twice(table)
        result = sorted(table["subject"].unique())
        self.subjects = chosen(result, config.subjects, source)
        table = table[table["subject"].isin(self.subjects)]
        # by subject, recording, onset
        self.table = table.sort_values(["subject", "recording", "onset"], kind="stable").reset_index(drop=True)
        self.classes = sorted(self.table["label"].unique())
        self.image_names = sorted(self.table["image"].unique())
        self.image_folder = Path(config.images) if config.images else images
        self.licence = config.licence
        self._facts: dict[str, list[dict[str, Any]]] = {}

    def _check(self, table: pd.DataFrame) -> None:
        check_columns(table, self.source, _NEEDED)
        check_filled(table, self.source, [*_NEEDED, *(name for name in ("subject", "split") if name in table)])
        table["onset"] = onsets_of(table, self.source)

    def _check_twice(self, table: pd.DataFrame) -> None:
        """A trial that is counted twice, with one label or two, would be in training and in test."""
        key = ["subject", "recording", "onset"]
        again = table.duplicated(key)
        if again.any():
            second = again.idxmax()
            same = (table[key] == table.loc[second, key]).all(axis=1)
            raise DataError(
                f"{self.source.name}: rows {row_number(same.idxmax())} and {row_number(second)} are the same trial "
                f"({table.loc[second, 'recording']} at {table.loc[second, 'onset']:g} s), and so are {int(again.sum())} in all",
                "remove one of the two rows",
            )

    def batches(self, subject: str) -> Iterator[Batch]:
        mine = self.table[self.table["subject"] == subject]
        self._facts[subject] = []
        for session, (name, rows) in enumerate(mine.groupby("recording", sort=True)):
            recording = self._recording(str(name), subject)
            plan, brief = self._plan(recording)
            starts_N = self._starts(recording, rows)
            self._facts[subject].append(brief)
            for first in range(0, len(rows), BATCH):
                part = rows.iloc[first : first + BATCH]
                starts = starts_N[first : first + BATCH]
                cut = Cut(starts, np.full(len(starts), self.samples), (None,) * len(starts))
                eeg_NCT = make_windows(recording.signal_CT, cut, plan, self.samples)
                if self.config.recipe == "image":
                    eeg_NCT = without_baseline(eeg_NCT, recording.sfreq, self.config.offset, self.config.baseline_ms)
                yield Batch(eeg_NCT, self.columns(part, session))

    @property
    def samples(self) -> int:
        """Of a window."""
        return self.config.window_samples if self.config.recipe == "image" else SAMPLES

    @cached_property
    def electrodes(self) -> tuple[str, ...]:
        """image recipe: what the store keeps, by the first recording."""
        first = self.table.iloc[0]
        return electrodes_of(
            self._read(first["recording"], first["subject"]).channels, self.config.electrodes, first["recording"]
        )

    def shape(self) -> tuple[int, int]:
        """(128, 512), or the electrodes and samples of the image recipe."""
        return (len(self.electrodes), self.samples) if self.config.recipe == "image" else (CHANNELS, SAMPLES)

    def _plan(self, recording: Recording) -> tuple[ChannelPlan, dict[str, Any]]:
        """Which channel each row shows, and what the store says of the recording."""
        if self.config.recipe == "paper":
            plan = plan_channels(recording, self.recipe)
            return plan, {**_brief(recording), "pad_map": list(plan.pad_map)}
        rows = rows_of(recording.channels, self.electrodes, recording.name)
        kept = replace(
            recording, channels=tuple(recording.channels[row] for row in rows), positions_C3=recording.positions_C3[list(rows)]
        )
        return ChannelPlan(rows), {**_brief(kept), "pad_map": list(range(len(rows)))}

    def _recording(self, name: str, subject: str) -> Recording:
        recording = prepare(self._read(name, subject), self.recipe)
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

    def _read(self, name: str, subject: str) -> Recording:
        origin = Origin("table", subject, "0", Path(name).stem)
        read = read_file(self.source.parent / name, origin, reading=self.reading)
        return read if self.config.scale is None else scaled(read, self.config.scale)

    def _starts(self, recording: Recording, rows: pd.DataFrame) -> np.ndarray:
        """First samples of the windows; all of a window has to lie inside the recording and between its seams."""
        starts_N = starts_of(rows["onset"], self.config.offset, recording.sfreq)
        fits = inside(recording, starts_N, self.samples)
        segments = recording.segments
        seconds = recording.signal_CT.shape[1] / recording.sfreq
        strange = not_seconds(rows["onset"], seconds, recording.original_sfreq)
        if strange is not None:
            raise DataError(f"{recording.name}: {strange[0]}", strange[1])
        if not fits.all():
            row = int(np.flatnonzero(~fits)[0])
            start = starts_N[row] / recording.sfreq
            raise DataError(
                f"{recording.name}: the trial at {rows['onset'].iloc[row]:g} s needs {start:.3f} to "
                f"{start + self.samples / recording.sfreq:.3f} s, the recording has {recording.signal_CT.shape[1] / recording.sfreq:.3f} s"
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


def _brief(recording: Recording) -> dict[str, object]:
    return {
        "name": recording.name, "sfreq": recording.sfreq, "original_sfreq": recording.original_sfreq,
        "channels": list(recording.channels), "positions": positions_to_json(np.round(recording.positions_C3, 6)),
        "reference": recording.reference, "band": [b if math.isfinite(b) else None for b in recording.band],
        "findings": [finding.to_json() for finding in recording.findings],
    }  # fmt: skip
