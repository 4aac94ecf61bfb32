"""What stands before every encoder of aligned models: a stretch of time at one rate, and channels whitened for each person.

    trial (C, T) at its stored rate -> resampled, cut (C, W) -> R_p^(-1/2) x      R_p: covariance of person p's own trials

The root is symmetric, so that rows stay electrodes. R_p is the covariance of what is left after the person's mean trial is
taken off, with a share `shrink` of its mean variance added to the diagonal: repeated channels and average references have no
full rank. No label is used, so a new person needs unlabelled trials only.

Source: He and Wu 2020 (Euclidean alignment); Guggenmos et al. 2018 (multivariate noise normalisation).
Shapes: N trials, B batch, P people, C channels, T samples as stored, W samples that the encoder reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from pydantic import Field
from scipy.signal import resample_poly
from torch import Tensor, nn

from dreamdiff.encoders.config import Align
from dreamdiff.whitening import inverse_root
from eegprep.errors import ModelError
from eegprep.settings import Settings, suggest

NEW = -1  # number of somebody who is not among the people


class FrontEndConfig(Settings):
    """What trials look like, and what the encoder gets.

    channels, samples, sfreq (Hz), t0 (s from image onset to the first sample), unit, names (of the channels): of the trials as
        stored; no names where they were not known.
    rate (Hz), start (s from image onset), window (samples at `rate`): of what the encoder reads.
    align: `person` whitens by the person's own trials; `none` divides by one standard deviation for all.
    """

    channels: int = Field(default=128, ge=1)
    samples: int = Field(default=512, ge=1)
    sfreq: float = Field(default=512.0, gt=0)
    t0: float = 0.0
    unit: str = "uV"
    names: tuple[str, ...] = ()
    rate: float = Field(default=128.0, gt=0)
    start: float = 0.0
    window: int = Field(default=76, ge=1)
    align: Align = "person"
    shrink: float = Field(default=1e-3, ge=0)


class FrontEnd(nn.Module):
    """Cutting and whitening; its matrices are fitted to trials without labels, and stored with the model.

    people: names, in the order of the numbers that `forward` takes. `NEW` stands for somebody else, who gets the whitening of all
    people together until `add` is given trials of theirs.
    """

    whitener_PCC: Tensor  # the last one is that of all people together
    cut_TW: Tensor

    def __init__(self, config: FrontEndConfig, people: Sequence[str] = ()) -> None:
        super().__init__()
        self.config, self.people = config, tuple(people)
        # one more than people: somebody new has a place before `fit` as well
        eye = torch.eye(config.channels).repeat(len(self.people) + 1, 1, 1)
        self.register_buffer("whitener_PCC", eye)
        # not stored: it follows from the configuration
        self.register_buffer("cut_TW", torch.from_numpy(_cutting(config)), persistent=False)

    def numbers(self, person: str | Sequence[str] | None, rows: int) -> Tensor:
        """(rows,) number of each row's person; `NEW` where None.

        Raises:
            ModelError: a name that this model has not seen, or another count of names than rows.
        """
        if person is None:
            return torch.full((rows,), NEW)
        names = [person] * rows if isinstance(person, str) else [str(name) for name in person]
        if len(names) != rows:
            raise ModelError(f"{len(names)} names of people for {rows} trials", "give one name for all trials, or one for each")
        unknown = next((name for name in names if name not in self.people), None)
        if unknown is not None:
            raise ModelError(
                f"this model has not seen {unknown!r}{suggest(unknown, self.people)}",
                f"use person=None for somebody new, or one of: {', '.join(self.people) or 'nobody'}",
            )
        place = {name: number for number, name in enumerate(self.people)}
        return torch.tensor([place[name] for name in names])

    def cut(self, eeg_BCT: Tensor) -> Tensor:
        """(B, C, T) uV -> (B, C, W): resampled to the encoder's rate, from `start` on.

        Raises:
            ModelError: trials of another shape.
        """
        expected = (self.config.channels, self.config.samples)
        if eeg_BCT.ndim != 3 or tuple(eeg_BCT.shape[1:]) != expected:
            raise ModelError(
                f"EEG of shape {tuple(eeg_BCT.shape)} does not fit a model for trials of {expected[0]} channels and "
                f"{expected[1]} samples ({self.config.sfreq:g} Hz)",
                "give trials as in the pairs that it was trained on",
            )
        return eeg_BCT @ self.cut_TW.to(eeg_BCT.dtype)

    def forward(self, eeg_BCT: Tensor, person_B: Tensor | None = None) -> Tensor:
        """(B, C, T) uV and numbers of people -> (B, C, W) in units of the background's standard deviation."""
        x_BCW = self.cut(eeg_BCT)
        if person_B is None or len(self.whitener_PCC) == 1:
            return self.whitener_PCC[-1].to(x_BCW.dtype) @ x_BCW
        out_BCW = torch.empty_like(x_BCW)
        # person by person: gathering a (C, C) matrix for every trial would take more memory than the trials
        for number in torch.unique(person_B).tolist():
            own_rows = person_B == number
            out_BCW[own_rows] = self.whitener_PCC[number].to(x_BCW.dtype) @ x_BCW[own_rows]
        return out_BCW

    @torch.no_grad()
    def fit(self, covariance_PCC: Tensor) -> None:
        """Set the whitening of all people from their covariances, and of somebody new from the mean of them."""
        known = covariance_PCC.double()
        # in float64: covariances of repeated channels are nearly singular
        every = torch.cat([known, known.mean(0, keepdim=True)])
        self.whitener_PCC.copy_(torch.stack([self.whitener_of(covariance) for covariance in every]))

    @torch.no_grad()
    def add(self, name: str, covariance_CC: Tensor) -> None:
        """Take a new person in (or replace the whitening of one who is known), before the one of all people together."""
        own = self.whitener_of(covariance_CC.double()).to(self.whitener_PCC)[None]
        if name in self.people:
            self.whitener_PCC[self.people.index(name)] = own[0]
            return
        self.people = (*self.people, name)
        self.whitener_PCC = torch.cat([self.whitener_PCC[:-1], own, self.whitener_PCC[-1:]])

    def whitener_of(self, covariance_CC: Tensor) -> Tensor:
        """R^(-1/2) of the shrunk covariance; without alignment one over the mean standard deviation."""
        channels = len(covariance_CC)
        mean_variance = covariance_CC.trace() / channels
        if float(mean_variance) <= 0:
            return torch.eye(channels, dtype=torch.double)  # a flat recording is left as it is
        if self.config.align == "none":
            return torch.eye(channels, dtype=torch.double, device=covariance_CC.device) / mean_variance.sqrt()
        return torch.from_numpy(inverse_root(covariance_CC.cpu().numpy(), self.config.shrink)).to(covariance_CC.device)


def trial_covariance(cut_NCW: Tensor) -> Tensor:
    """(C, C) covariance over trials and time of what is left after the mean trial is taken off.

    The mean trial holds what all images share; it says nothing about the background that is to be whitened.
    """
    rest_NCW = (cut_NCW - cut_NCW.mean(0)) if len(cut_NCW) > 1 else cut_NCW
    rest_CM = rest_NCW.double().transpose(0, 1).flatten(1)
    return rest_CM @ rest_CM.T / rest_CM.shape[1]


def _cutting(config: FrontEndConfig) -> np.ndarray:
    """(T, W) float32: resampling by a polyphase filter and cutting, both linear in time, as one matrix.

    Raises:
        ModelError: the trials do not cover the window.
    """
    # whole numbers for the polyphase filter: 256.00013 Hz is 256
    ratio = Fraction(config.rate / config.sfreq).limit_denominator(1000)
    # the answer to each single sample: what is linear is known by that
    whole_TS = resample_poly(np.eye(config.samples), ratio.numerator, ratio.denominator, axis=1)
    first = round((config.start - config.t0) * config.rate)
    last = first + config.window
    if first < 0 or last > whole_TS.shape[1]:
        raise ModelError(
            f"trials from {config.t0:g} to {config.t0 + config.samples / config.sfreq:g} s do not hold the window from "
            f"{config.start:g} to {config.start + config.window / config.rate:.3g} s",
            "set front.start and front.seconds so that the trials hold the window",
        )
    return np.ascontiguousarray(whole_TS[:, first:last], dtype=np.float32)
