"""The real channels of corpus windows: padding taken off, positions beside them, different caps side by side.

Shapes: B batch, N windows, C channels of the widest cap in a batch, R rows of a stored window, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamdiff.encoders.positions import check_positions
from dreamdiff.whitening import WhiteningConfig, to_rate_and_band, whitener
from eegprep.corpus.reader import Corpus
from eegprep.corpus.views import source_rows
from eegprep.errors import DataError, ModelError
from eegprep.signals.channels import canonical_name
from eegprep.signals.spectra import spread

WHITENING_WINDOWS = 200  # ours: so many windows of a person, evenly spread, give the covariance of 64 channels to a few per cent


@dataclass(frozen=True)
class Cap:
    """What is real in the windows of one recording.

    rows_C: rows of a stored window. positions_C3: m. names: of the channels. sfreq: Hz. band: Hz, what the filter left.
    """

    rows_C: np.ndarray
    positions_C3: np.ndarray
    names: tuple[str, ...]
    sfreq: float
    band: tuple[float, float] | None


class TrueChannels:
    """Finds the real channels of every window of a corpus; recordings are looked at once.

    Args:
        electrodes: names of those to keep; all when empty.

    Raises:
        DataError: windows whose rows are interpolated and so belong to no electrode, or a recording without any of `electrodes`.
        ModelError: positions that are missing, zero or doubled.
    """

    def __init__(self, corpus: Corpus, electrodes: Sequence[str] = ()) -> None:
        self.corpus, self.electrodes = corpus, {canonical_name(name).casefold() for name in electrodes}
        everything = np.arange(len(corpus))
        group_N, recording_N = corpus.group_of(everything), corpus.column("recording")
        pairs_N = group_N.astype(np.int64) * (int(recording_N.max(initial=0)) + 1) + recording_N
        _, first, self.cap_N = np.unique(pairs_N, return_index=True, return_inverse=True)
        self.caps = [self._cap(int(index)) for index in first]
        table = corpus.subjects
        person_of = dict(zip(table["dataset"] + "/" + table["subject"], table["person"], strict=True))
        self.person_N = np.array([person_of[corpus.keys[group]] for group in group_N], object).astype(str)

    def take(self, index_B: np.ndarray, eeg_BRT: Tensor) -> dict[str, Tensor]:
        """`eeg` (B, C, T), `positions` (B, C, 3) m and `channel_mask` (B, C); absent channels are 0, NaN and False."""
        caps = [self.caps[self.cap_N[int(index)]] for index in index_B]
        widest = max(len(cap.rows_C) for cap in caps)
        eeg = eeg_BRT.new_zeros((len(caps), widest, eeg_BRT.shape[-1]))
        positions = torch.full((len(caps), widest, 3), float("nan"))
        mask = torch.zeros((len(caps), widest), dtype=torch.bool)
        for row, cap in enumerate(caps):
            channels = len(cap.rows_C)
            eeg[row, :channels] = eeg_BRT[row, torch.from_numpy(cap.rows_C)]
            positions[row, :channels] = torch.from_numpy(cap.positions_C3).float()
            mask[row, :channels] = True
        return {"eeg": eeg, "positions": positions, "channel_mask": mask}

    def _cap(self, index: int) -> Cap:
        record = self.corpus.record(index)
        what = f"{self.corpus.url}: {record.get('session', '?')}.{record.get('run', '?')}"
        if record.get("pad_mode") == "spline":
            raise DataError(
                f"{what}: rows are interpolated (--mode spline) and belong to no electrode",
                "build the corpus with --mode replicate",
            )
        rows_C, names = source_rows(record, self.corpus.channels)
        if self.electrodes:
            keep = [i for i, name in enumerate(names) if canonical_name(name).casefold() in self.electrodes]
            if not keep:
                raise DataError(
                    f"{what}: has none of the {len(self.electrodes)} electrodes asked for", "name electrodes that it has"
                )
            rows_C, names = rows_C[keep], [names[i] for i in keep]
        place = dict(zip(record["channels"], record.get("positions") or [], strict=False))
        unknown = [np.nan] * 3
        positions_C3 = np.array([[np.nan if v is None else v for v in (place.get(name) or unknown)] for name in names], float)
        try:
            check_positions(torch.from_numpy(positions_C3)[None], torch.ones(1, len(names), dtype=torch.bool), names)
        except ModelError as error:
            raise ModelError(f"{what}: {error.problem}", error.fix) from None
        band = record.get("band")
        return Cap(rows_C, positions_C3, tuple(names), float(record["sfreq"]), None if band is None else (band[0], band[1]))


class Whitened:
    """Windows of a corpus as an encoder with a front end reads them: real channels, its rate and band, whitened by person and cap."""

    def __init__(self, corpus: Corpus, config: WhiteningConfig, electrodes: Sequence[str] = ()) -> None:
        self.corpus, self.config = corpus, config
        self.true = TrueChannels(corpus, electrodes)
        self._whitener: dict[tuple[str, tuple[str, ...]], Tensor] = {}
        keys_N = np.array([f"{p}\0{c}" for p, c in zip(self.true.person_N, self.true.cap_N, strict=True)], object)
        # recordings of one person with the same electrodes share a covariance: there is more to measure it by
        groups: dict[tuple[str, tuple[str, ...]], list[np.ndarray]] = {}
        for key in sorted(set(keys_N)):
            members = np.flatnonzero(keys_N == key)
            cap = self.true.caps[self.true.cap_N[members[0]]]
            groups.setdefault((str(self.true.person_N[members[0]]), cap.names), []).append(members)
        for group, parts in groups.items():
            members = np.concatenate(parts)
            chosen = members[spread(len(members), WHITENING_WINDOWS)]
            windows = (
                np.concatenate([self._prepared(np.array([i])) for i in chosen]) if len(parts) > 1 else self._prepared(chosen)
            )
            self._whitener[group] = torch.from_numpy(whitener(windows, config.align, config.shrinkage)).float()

    def batch(self, index_B: np.ndarray, eeg_BRT: Tensor) -> dict[str, Tensor]:
        """As `TrueChannels.take`, prepared and whitened, with `length` (B,) samples that are real."""
        taken = self.true.take(index_B, eeg_BRT[..., :1])
        # cap by cap, as windows of one recording are filtered and resampled together
        prepared: list[np.ndarray] = [np.empty(0)] * len(index_B)
        cap_B = self.true.cap_N[index_B]
        for number in np.unique(cap_B).tolist():
            cap, own_rows = self.true.caps[number], np.flatnonzero(cap_B == number)
            for row, x_CT in zip(
                own_rows, self._prepare(eeg_BRT[own_rows][:, torch.from_numpy(cap.rows_C)].numpy(), cap), strict=True
            ):
                prepared[row] = x_CT
        longest = max(x_CT.shape[-1] for x_CT in prepared)
        eeg = torch.zeros((len(prepared), taken["eeg"].shape[1], longest))
        for row, x_CT in enumerate(prepared):  # type: ignore[assignment]
            matrix = self._whitener[(str(self.true.person_N[int(index_B[row])]), self.true.caps[cap_B[row]].names)]
            eeg[row, : x_CT.shape[0], : x_CT.shape[1]] = matrix @ torch.from_numpy(x_CT)
        return {**taken, "eeg": eeg, "length": torch.tensor([x_CT.shape[-1] for x_CT in prepared])}

    def read(self, index_B: np.ndarray) -> dict[str, Tensor]:
        """`batch` of windows read now."""
        return self.batch(index_B, torch.from_numpy(self.corpus.read(index_B)))

    def _prepared(self, index_B: np.ndarray) -> np.ndarray:
        cap = self.true.caps[self.true.cap_N[int(index_B[0])]]
        return self._prepare(self.corpus.read(index_B)[:, cap.rows_C], cap)

    def _prepare(self, windows_NCT: np.ndarray, cap: Cap) -> np.ndarray:
        """Rate and band, unless the corpus was built with them already."""
        low, high = self.config.band or (0.0, np.inf)
        done = cap.sfreq == self.config.sfreq and (
            self.config.band is None or (cap.band is not None and cap.band[0] >= low - 0.01 and cap.band[1] <= high + 0.01)
        )
        return windows_NCT if done else to_rate_and_band(windows_NCT, cap.sfreq, self.config)
