"""Features of a frozen encoder as a scikit-learn transformer.

Shapes: N windows, C channels, T samples, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dreamdiff.encoders.kinds import read_encoder
from dreamdiff.encoders.positions import PositionsEncoder, check_positions
from dreamdiff.estimators.checks import check_groups, check_microvolts, check_windows, places_of
from dreamdiff.estimators.steps import centred
from dreamdiff.whitening import Align, WhiteningConfig, to_rate_and_band, whiten_each
from eegprep.errors import ModelError, UsageError

UNITS = {"uV": 1.0, "mV": 1e3, "V": 1e6}


def packaged_encoder() -> Path:
    """Folder of the pre-trained encoder in this installation.

    Raises:
        ModelError: none ships with it.
    """
    folder = Path(str(resources.files("dreamdiff").joinpath("embedded/encoder")))
    if not (folder / "config.json").is_file():
        raise ModelError(
            "no pre-trained encoder ships with this installation",
            "pass model=RUN, a run of `dreamdiff train msm --preset positions`",
        )
    return folder


class EEGFeatures(TransformerMixin, BaseEstimator):
    """What a frozen encoder says about windows of EEG, for any classifier.

    Args:
        model: run or folder of an encoder of kind "positions", or such an encoder; None is the one in the package.
        sfreq: Hz, of the windows. The encoder's front end resamples.
        channels: names, in the order of the windows' channels; places come from the 10-05 system.
        positions: (C, 3) m, instead of names.
        align: whiten by the person's own windows: "euclidean", "riemann", "none"; None is as the encoder was trained.
        readout: "electrode": mean over time of every electrode, (N, C x D); "mean": of all tokens, (N, D).
        centre: take off the person's mean features.
        unit: of the windows: "uV", "mV" or "V" (what MNE gives).
        batch_size: windows at once.
        device: where the encoder runs.

    Windows that are given together are one person's, unless `groups` names the people; nothing is learned in `fit`.

    Example:
        make_pipeline(EEGFeatures(sfreq=160.0, channels=names), StandardScaler(), LogisticRegression(C=0.01))
    """

    def __init__(
        self, model: str | Path | PositionsEncoder | None = None, align: Align | None = None, *, sfreq: float | None = None,
        channels: Sequence[str] | None = None, positions: Any = None, readout: Literal["electrode", "mean"] = "electrode",
        centre: bool = True, unit: Literal["uV", "mV", "V"] = "uV", batch_size: int = 64, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.model, self.align, self.sfreq, self.channels, self.positions = model, align, sfreq, channels, positions
        self.readout, self.centre, self.unit, self.batch_size, self.device = readout, centre, unit, batch_size, device

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Load the encoder and check the windows against it; learns nothing."""
        x_NCT = in_microvolts(check_windows(X), self.unit)
        self.encoder_ = load_positions_encoder(self.model)
        self.front_end_ = front_end_of(self.encoder_, self.align)
        self.sfreq_ = require_rate(self.sfreq)
        self.places_C3_ = places_of(self.channels, self.positions, x_NCT.shape[1])
        check_places(self.places_C3_, self.channels)
        self.n_channels_, self.n_samples_ = x_NCT.shape[1:]
        return self

    @torch.no_grad()
    def transform(self, X: Any, groups: Any = None) -> np.ndarray:
        """(N, C x D) or (N, D) float64."""
        check_is_fitted(self)
        x_NCT = in_microvolts(check_windows(X, self.n_channels_, self.n_samples_), self.unit)
        group_N = check_groups(groups, len(x_NCT))
        ready_NCT = prepared(x_NCT, group_N, self.sfreq_, self.front_end_)
        encoder = self.encoder_.to(self.device).eval()
        rows = []
        for first in range(0, len(ready_NCT), self.batch_size):
            eeg = torch.from_numpy(ready_NCT[first : first + self.batch_size]).to(self.device)
            places = torch.from_numpy(self.places_C3_).float().to(self.device).expand(len(eeg), -1, -1)
            tokens = encoder(eeg, places)
            read = tokens.per_electrode().flatten(1) if self.readout == "electrode" else tokens.mean()
            rows.append(read.double().cpu().numpy())
        features_ND = np.concatenate(rows)
        return centred(features_ND, group_N) if self.centre else features_ND

    def fit_transform(self, X: Any, y: Any = None, groups: Any = None) -> np.ndarray:
        """Fit and transform the same windows, with the same people."""
        return self.fit(X, y, groups).transform(X, groups)


def load_positions_encoder(model: str | Path | PositionsEncoder | None) -> PositionsEncoder:
    """The encoder that `model` names.

    Raises:
        ModelError: it is of another kind.
    """
    if isinstance(model, PositionsEncoder):
        return model
    folder = packaged_encoder() if model is None else Path(model)
    encoder = read_encoder(folder)
    if not isinstance(encoder, PositionsEncoder):
        raise ModelError(
            f"{folder}: an encoder of kind {type(encoder).__name__} takes one cap and window only",
            "give a run of `dreamdiff train msm --preset positions`; `dreamdiff probe` judges the others",
        )
    return encoder


def front_end_of(encoder: PositionsEncoder, align: Align | None) -> WhiteningConfig:
    """The encoder's front end, with another alignment where asked for."""
    front_end = encoder.config.front_end
    return front_end if align is None else front_end.model_copy(update={"align": align})


def require_rate(sfreq: float | None) -> float:
    """The sampling rate, which an array does not carry."""
    if sfreq is None or not sfreq > 0:
        raise UsageError(f"sfreq={sfreq}: the sampling rate of the windows is needed", "pass sfreq=... in Hz")
    return float(sfreq)


def check_places(places_C3: np.ndarray, channels: Sequence[str] | None) -> None:
    """Refuse places that no cap has."""
    check_positions(torch.from_numpy(places_C3)[None].double(), torch.ones(1, len(places_C3), dtype=torch.bool), channels)


def in_microvolts(x_NCT: np.ndarray, unit: str) -> np.ndarray:
    """Windows in uV; data that can only be volts are refused when they are called uV."""
    if unit not in UNITS:
        raise UsageError(f"unit={unit!r}", f"choose one of: {', '.join(UNITS)}")
    if unit == "uV":
        check_microvolts(x_NCT)
        return x_NCT
    return x_NCT * np.float32(UNITS[unit])


def prepared(x_NCT: np.ndarray, group_N: np.ndarray, sfreq: float, front_end: WhiteningConfig) -> np.ndarray:
    """Windows as the encoder reads them: its rate and band, whitened by person."""
    ready = to_rate_and_band(x_NCT, sfreq, front_end)
    return whiten_each(ready, group_N, front_end.align, front_end.shrinkage)
