"""Windows of a corpus bound to images by a table: a view, which copies no EEG. Shapes: N trials, C channels, T samples.

A row names its window by number (`window`), or by `recording` and `onset` (s from the first sample of the recording). The stretch from
there on is then one window, or lies across two that follow each other: the same samples as a trial window cut with the recipe of the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dreamdiff.eeg_input import starts_of
from dreamdiff.pairs.format import REFERENCES
from dreamdiff.pairs.importers.importer import Batch, ImportConfig, chosen, hashed
from dreamdiff.pairs.importers.rows import TrialRows, check_columns, check_filled, onsets_of, row_number
from dreamdiff.pairs.importers.table_file import numbers, read_table
from dreamdiff.pairs.view import RecordingWindows, relative_url
from eegprep.corpus.reader import Corpus
from eegprep.errors import DataError, UsageError
from eegprep.settings import suggest

FEW = 5  # rows that a message lists

KEPT = (
    "session",
    "run",
    "sfreq",
    "original_sfreq",
    "channels",
    "pad_map",
    "positions",
    "reference",
    "band",
    "findings",
    "licence",
)


class CorpusTrials(TrialRows):
    """Rows of image, label, and window or recording and onset; optional subject, session, block, trial, split."""

    def __init__(self, source: Path, config: ImportConfig) -> None:
        if config.trials is None:
            raise UsageError("--kind corpus binds windows to images by a table", "give it with --trials trials.csv")
        self.config, self.table_file = config, Path(config.trials)
        self.source = re.sub(r"^([a-z][a-z0-9]+):/(?=[^/])", r"\1://", str(source))  # of an address a Path makes one slash of two
        self.corpus = Corpus.open(self.source)
        table = read_table(self.table_file, ("image", "label"))
        by_window = "window" in table and "recording" not in table
        needed = ("window", "image", "label") if by_window else ("recording", "onset", "image", "label")
        check_columns(table, self.table_file, needed)
        check_filled(table, self.table_file, [*needed, *(name for name in ("subject", "split") if name in table)])
        self._asked: tuple[str, ...] = ()
        self._found: dict[tuple[int, int], RecordingWindows] = {}
        self._names = person_names([str(key) for key in self.corpus.keys])
        table = self._by_window(table) if by_window else self._by_recording(table)
        self.subjects = chosen([name for name in self._names if name in set(table["subject"])], config.subjects, source)
        table = table[table["subject"].isin(self.subjects)]
        order = {name: number for number, name in enumerate(self.subjects)}
        # rows in the order in which they are stored: by subject as in the corpus, recording, time
        table = table.assign(place=table["subject"].map(order)).sort_values(["place", "number", "onset"], kind="stable")
        self.table = table.reset_index(drop=True)
        self._check_twice()
        self.classes = sorted(self.table["label"].unique())
        self.image_names = sorted(self.table["image"].unique())
        self.image_folder = Path(config.images) if config.images else self.table_file.parent
        self.sources = hashed(self.table_file)
        self.licence = self._licence()

    def view_of(self, out: Path) -> dict[str, object]:
        """The root attribute `corpus` of the view at `out`."""
        corpus = self.corpus
        return {
            "url": relative_url(out, self.source), "identity": corpus.identity, "windows": len(corpus),
            "channels": corpus.channels, "samples": corpus.samples, "recipe": corpus.attributes.get("fingerprint"),
        }  # fmt: skip

    def filtered(self) -> dict[str, object]:
        """How the recordings of the corpus were filtered, so that a model can treat another recording alike; nothing where it is not known."""
        recipe = self.corpus.attributes.get("recipe")
        if not isinstance(recipe, dict) or not {"low", "high"} <= set(recipe):
            return {}
        nyquist = recipe.get("nyquist", "clip")
        return {
            **{name: recipe.get(name) for name in ("low", "high", "resample")},
            "nyquist": "error" if nyquist == "skip" else nyquist,
        }

    def batches(self, subject: str) -> Iterator[Batch]:
        mine = self.table[self.table["subject"] == subject]
        if len(mine):
            references = {name: mine[name].to_numpy() for name in REFERENCES}
            sessions = {number: place for place, number in enumerate(sorted(mine["number"].unique()))}
            columns = self.columns(mine, 0)
            if "session" not in mine:
                columns["session"] = np.array([sessions[number] for number in mine["number"]])
            yield Batch(references, columns)

    def attributes(self, subject: str) -> Mapping[str, Any]:
        mine = self.table[self.table["subject"] == subject]
        records = self.corpus.attributes_of(self.corpus.keys[int(mine["group"].iloc[0])])["recordings"]
        facts = [
            {name: record[name] for name in KEPT if record.get(name) is not None}
            for record in (records[number] for number in sorted(mine["number"].unique()))
        ]
        rates = sorted({float(fact["sfreq"]) for fact in facts})
        if len(rates) > 1:
            raise DataError(
                f"subject {subject}: recordings at {' and '.join(f'{rate:g}' for rate in rates)} Hz",
                "build the corpus with --resample, or leave one of them out",
            )
        same = all(
            fact.get("pad_map") == facts[0].get("pad_map") and fact.get("channels") == facts[0].get("channels") for fact in facts
        )
        bands = [fact["band"] for fact in facts if fact.get("band")]
        shown = {name: facts[0].get(name) if same else None for name in ("channels", "pad_map", "positions")}
        return {
            "sfreq": rates[0], "t0": 0.0 if "window" in self._asked else self.config.offset, "unit": "uV", "recordings": facts,
            "band": [max(band[0] for band in bands), min(band[1] for band in bands)] if bands else None,
            "n_channels": max((len(fact.get("channels") or ()) for fact in facts), default=0) or self.corpus.channels,
            "blocks": "recorded" if "block" in self.table else "unknown", "sources": self.sources, **shown,
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------- rows to windows

    def _by_window(self, table: pd.DataFrame) -> pd.DataFrame:
        """Windows by number, whole; the onset is that of the window."""
        self._asked = ("window",)
        asked = numbers(table["window"], decimal_comma=False)
        wrong = asked.isna() | (asked < 0) | (asked >= len(self.corpus)) | (asked != asked.round())
        if wrong.any():
            row = wrong.idxmax()
            raise DataError(
                f"{self.table_file.name}: row {row_number(row)} names window {table['window'].loc[row]!r}, the corpus has 0..{len(self.corpus) - 1}",
                "give numbers of windows as `Corpus` counts them",
            )
        window_N = asked.to_numpy(np.int64)
        group_N, number_N = self.corpus.group_of(window_N), self.corpus.column("recording")[window_N]
        start_N = self.corpus.column("start")[window_N]
        rate_N = [self._record(int(g), int(r))["sfreq"] for g, r in zip(group_N, number_N, strict=True)]
        zeros = np.zeros(len(table), np.int32)
        return self._with_subject(table, group_N).assign(
            number=number_N, onset=start_N / np.array(rate_N), window=window_N, offset=zeros, second=zeros - 1, resume=zeros
        )

    def _by_recording(self, table: pd.DataFrame) -> pd.DataFrame:
        """Stretches from an onset on, in one window or across two."""
        self._asked = ("recording", "onset")
        onset_N = onsets_of(table, self.table_file)
        known = self._aliases()
        rows: list[tuple[int, int, int, int, int, int]] = []
        lost: list[str] = []
        said_N = table["subject"] if "subject" in table else [""] * len(table)
        for row, name, onset, said in zip(table.index, table["recording"], onset_N, said_N, strict=True):
            group, number = self._recording(str(name), known, row, str(said))
            windows = self._windows(group, number)
            start = int(starts_of([onset], self.config.offset, float(self._record(group, number)["sfreq"]))[0])
            result = windows.find(start)
            if result is None:
                lost.append(f"row {row_number(row)} ({name} at {onset:g} s)")
                result = (0, 0, -1, 0)
            rows.append((group, number, *result))
        if lost:
            listed = ", ".join(lost[:FEW]) + (f" and {len(lost) - FEW} more" if len(lost) > FEW else "")
            raise DataError(
                f"{self.table_file.name}: the windows of {Path(self.source).name} do not hold {len(lost)} of {len(table)} trials whole: {listed}",
                "remove these rows, change --offset, or build the corpus with --windows trials",
            )
        group_N, number_N, window_N, offset_N, second_N, resume_N = np.array(rows, np.int64).reshape(-1, 6).T
        return self._with_subject(table, group_N).assign(
            number=number_N, onset=onset_N, window=window_N, offset=offset_N, second=second_N, resume=resume_N
        )

    def _with_subject(self, table: pd.DataFrame, group_N: np.ndarray) -> pd.DataFrame:
        """The subject of each row as the corpus has it; a table that says another is refused."""
        own = pd.Series([self._names[int(group)] for group in group_N], index=table.index, dtype=object)
        if "subject" in table:
            same = [self._is(int(group), said) for said, group in zip(table["subject"], group_N, strict=True)]
            if not all(same):
                row = table.index[same.index(False)]
                raise DataError(
                    f"{self.table_file.name}: row {row_number(row)} is of subject {table['subject'].loc[row]!r}, its recording of {own.loc[row]!r}",
                    "write the subject as the corpus names it, or leave the column out",
                )
        return table.assign(subject=own, group=group_N)

    def _is(self, group: int, subject: str) -> bool:
        """Whether a table's name of a person is that of a group."""
        key = str(self.corpus.keys[group])
        return subject in (self._names[group], key, key.rpartition("/")[2])

    def _aliases(self) -> dict[str, set[tuple[int, int]]]:
        """What a recording can be called: dataset/subject/session.run, its ends, and the names of its files."""
        known: dict[str, set[tuple[int, int]]] = {}
        for group, key in enumerate(self.corpus.keys):
            for number, record in enumerate(self.corpus.attributes_of(key)["recordings"]):
                run = f"{record.get('session')}.{record.get('run')}"
                files = [str(source["name"]) for source in record.get("sources", ())]
                for name in (
                    f"{key}/{run}",
                    f"{key.rpartition('/')[2]}/{run}",
                    run,
                    *files,
                    *(Path(file).name for file in files),
                ):
                    known.setdefault(name, set()).add((group, number))
        return known

    def _recording(self, name: str, known: Mapping[str, set[tuple[int, int]]], row: object, subject: str) -> tuple[int, int]:
        value = known.get(name) or known.get(Path(name).name) or known.get(Path(name).stem) or set()
        if len(value) > 1 and subject:  # the same name in the folder of every person
            value = {(group, number) for group, number in value if self._is(group, subject)} or value
        if len(value) == 1:
            return next(iter(value))
        if not value:
            raise DataError(
                f"{self.table_file.name}: row {row_number(row)} names the recording {name!r}, which {Path(self.source).name} does not hold{suggest(name, known)}",
                "write SUBJECT/SESSION.RUN as `eegprep inspect` shows it, or the name of the file that it was made of",
            )
        both = sorted(f"{self.corpus.keys[group]}/{self._record(group, number).get('run')}" for group, number in value)
        raise DataError(
            f"{self.table_file.name}: row {row_number(row)} names {name!r}, and {len(value)} recordings are called so ({', '.join(both[:FEW])})",
            "write DATASET/SUBJECT/SESSION.RUN",
        )

    def _record(self, group: int, number: int) -> Mapping[str, Any]:
        record: Mapping[str, Any] = self.corpus.attributes_of(self.corpus.keys[group])["recordings"][number]
        return record

    def _windows(self, group: int, number: int) -> RecordingWindows:
        """The whole windows of a recording; those that were stretched show another length of time."""
        if not self._found:
            self._columns = {name: self.corpus.column(name) for name in ("recording", "start")}
            self._group_N = self.corpus.group_of(np.arange(len(self.corpus)))
        if (group, number) not in self._found:
            record = self._record(group, number)
            here = np.flatnonzero((self._group_N == group) & (self._columns["recording"] == number))
            start_N = self._columns["start"][here]
            stretched = {int(first) for first, _ in record.get("stretched", ())}
            kept = np.array([int(start) not in stretched for start in start_N], bool)
            order = np.argsort(start_N[kept], kind="stable")
            segments = record.get("segments") or [(0, int(start_N.max(initial=0)) + self.corpus.samples)]
            self._found[group, number] = RecordingWindows(here[kept][order], start_N[kept][order], self.corpus.samples, segments)
        return self._found[group, number]

    def _check_twice(self) -> None:
        """A stretch that is counted twice, with one label or two, would be in training and in test."""
        again = self.table.duplicated(["window", "offset"])
        if again.any():
            row = self.table.loc[again.idxmax()]
            raise DataError(
                f"{self.table_file.name}: {int(again.sum()) + 1} rows are the same trial (subject {row['subject']}, {row['onset']:g} s)",
                "keep one row a trial",
            )

    def _licence(self) -> str:
        """Of the EEG as the corpus says it, and of the images where `--licence` says it."""
        matches = {
            str(self._record(int(group), int(number)).get("licence") or "unknown")
            for group, number in zip(self.table["group"], self.table["number"], strict=True)
        }
        eeg = ", ".join(sorted(matches))
        return eeg if self.config.licence == "unknown" else f"{eeg} (EEG), {self.config.licence} (images)"


def person_names(keys: Sequence[str]) -> list[str]:
    """A name for each `dataset/subject`: the subject's own where no other data set has it."""
    own = [key.rpartition("/")[2] for key in keys]
    return [name if own.count(name) == 1 else key.replace("/", "-") for name, key in zip(own, keys, strict=True)]
