"""A BIDS folder whose events name the pictures: EEG as it was recorded, `events.tsv` with a column of stimuli.

Each recording is read as `eegprep build bids:ROOT` reads it, with all of its sidecars. Standard: Pernet et al. (2019), Scientific Data 6:103.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.table import OwnTable
from dreamdiff.pairs.importers.trial_log import Matched
from dreamdiff.pairs.importers.trial_table import events_of, pictures_shown, trial_rows
from eegprep.catalogue.licences import spdx
from eegprep.errors import DataError, missing_path
from eegprep.folders import default_data_dir
from eegprep.recording import Event, Recording, Unreadable
from eegprep.sealed import read_object
from eegprep.sources.listing import Listed, Task, list_tasks
from eegprep.sources.reading import read_task
from eegprep.steps.inputs import load_sources
from eegprep.steps.origin import Choice
from eegprep.words import count

KEPT = ("recording", "onset", "image", "label", "subject", "session", "trial", "split")
FEW = 3  # recordings that a sentence lists


class BidsTrials(OwnTable):
    """Rows of the `events.tsv` of every recording that name a picture."""

    def __init__(self, source: Path, config: ImportConfig) -> None:
        if not source.is_dir():
            raise missing_path(source, DataError)
        self.config, self.root = config, source.resolve()
        choice = Choice(
            sfreq=config.sfreq, unit=config.unit or None, channel_names=config.channel_names or None, scale=config.scale
        )
        tasks = list_tasks(load_sources(f"bids:{self.root}", choice).sources, default_data_dir(), offline=True)
        self._listed: dict[str, tuple[Task, Listed]] = {}
        rows = self._rows(tasks, config)
        table = pd.DataFrame([[row.get(name, "") for name in KEPT] for row in rows], columns=list(KEPT), dtype=object)
        table = table.drop(columns=[name for name in ("session", "trial", "split") if not (table[name] != "").any()])
        self._take(table, source, config, self.root)
        used = {str(name) for name in self.table["recording"]}
        files = {file.name: file for name in sorted(used) for file in self._listed[name][1].files}
        self.sources = [[Path(file.name).name, file.bytes, file.sha256] for file in files.values()]
        if config.licence == "unknown":
            stated = (read_object(self.root / "dataset_description.json") or {}).get("License")
            self.licence = spdx(stated) if isinstance(stated, str) and stated else "unknown"

    def _rows(self, tasks: list[Task], config: ImportConfig) -> list[Mapping[str, str]]:
        images = Path(config.images).resolve() if config.images else None
        base = images or self.root
        rows: list[Mapping[str, str]] = []
        without: list[str] = []  # recordings whose events name no picture
        columns: dict[str, None] = {}
        total = named = 0
        name = ""
        for task in tasks:
            for listed in task.recordings:
                path = Path(task.root) / listed.main
                file = events_of(task, path)
                table, times, image, events = (pd.DataFrame(), [], None, 0) if file is None else self._shown(file)
                columns.update(dict.fromkeys(map(str, table.columns)))
                if file is None or image is None or not len(table):
                    without.append(path.name)
                    continue
                matched = Matched(tuple(Event(time, 0.0, "") for time in times), tuple(range(len(table))), "")
                near = [self.root / "stimuli", self.root, path.parent]
                trials = trial_rows(matched, table, config.columns, file, path, self.root, task, listed, images, near)
                trials = [{**row, "image": _relative(self.root / row["image"], base)} for row in trials]
                rows += [{**row, "split": part} for row, part in zip(trials, self._parts(table), strict=True)]
                self._listed[trials[0]["recording"]] = (task, listed)
                total, named, name = total + events, named + len(table), image
        if not rows:
            raise DataError(
                f"{self.root.name}: no events.tsv names a picture (columns: {', '.join(columns) or 'none'})",
                "name the column with --stimulus-column COLUMN, or make a table with dreamdiff pairs table --log",
            )
        said = [f"{named} of {total} events of {count(len(self._listed), 'recording')} name a picture in column {name!r}"]
        if without:
            more = f" and {len(without) - FEW} more" if len(without) > FEW else ""
            said.append(f"{count(len(without), 'recording')} without a picture left out: {', '.join(without[:FEW])}{more}")
        self.said = tuple(said)
        return rows

    def _shown(self, file: Path) -> tuple[pd.DataFrame, list[float], str | None, int]:
        """Rows of an `events.tsv` that name a picture, see `pictures_shown`."""
        return pictures_shown(file, self.config.columns)

    def _parts(self, table: pd.DataFrame) -> list[str]:
        """Part of the split of each of these rows; empty where the data set names none."""
        return [""] * len(table)

    def _read(self, name: str, subject: str) -> Recording:
        task, listed = self._listed[name]
        read = next(read_task(replace(task, recordings=(listed,))))
        if isinstance(read, Unreadable):
            raise DataError(read.error.problem, read.error.fix)
        return read


def _relative(image: Path, base: Path) -> str:
    return Path(os.path.relpath(image.resolve(), base.resolve())).as_posix()
