"""THINGS-EEG1 (Grootswagers et al. 2022, OpenNeuro ds003825): 50 people, 63 electrodes, 22,248 images in rapid sequences.

A BIDS folder whose `events.tsv` names the image (`stim`), its concept (`object`), the targets (`istarget`) and the 200 images that were shown twelve
times (`isteststim`). Onsets stand there in samples at 1 kHz, not in seconds. The test part is these 200 images; their concepts are in training with
other images, so that this is no test of unseen concepts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dreamdiff.pairs.importers.bids import BidsTrials
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.layouts.things import held_out
from dreamdiff.pairs.importers.trial_table import pictures_shown

SFREQ = 1000.0  # Hz, of all its recordings
LONGEST_S = 6 * 3600.0  # onsets beyond are samples: no recording lasts as long
YES = ("1", "1.0", "true", "True")


class ThingsEEG1(BidsTrials):
    """Rows of its events without the targets."""

    def __init__(self, source: Path, config: ImportConfig) -> None:
        named = {"image": "stim", "label": "object", **config.columns}
        self._targets = 0
        self._in_samples = False
        super().__init__(source, config.model_copy(update={"columns": named}))
        extra = [f"{self._targets} targets were left out"]
        if self._in_samples:
            extra.append(f"onsets are samples at {SFREQ:g} Hz in these files and were divided by it")
        self.said = (*self.said, *extra)
        concepts = np.unique(self.table.loc[self.table["split"] == "train", "label"].astype(str))
        held = set(held_out(np.random.default_rng(config.seed), concepts).tolist())
        in_validation = (self.table["split"] == "train") & self.table["label"].isin(held)
        self.table.loc[in_validation, "split"] = "val"

    def _shown(self, file: Path) -> tuple[pd.DataFrame, list[float], str | None, int]:
        table, onsets, image, total = pictures_shown(file, self.config.columns)
        if image is None:
            return table, onsets, image, total
        target = table["istarget"].isin(YES) if "istarget" in table else pd.Series(False, index=table.index)
        self._targets += int(target.sum())
        if onsets and max(onsets) > LONGEST_S:
            self._in_samples = True
            onsets = [onset / SFREQ for onset in onsets]
        kept = np.flatnonzero(~target.to_numpy())
        return table.iloc[kept].reset_index(drop=True), [onsets[k] for k in kept], image, total

    def _parts(self, table: pd.DataFrame) -> list[str]:
        if "isteststim" not in table:
            return ["train"] * len(table)
        return ["test" if cell in YES else "train" for cell in table["isteststim"]]
