"""The positions encoder behind the interface that public benchmarks ask for: (B, C, T) in, (B, outputs) out.

- Open EEG Bench: `model_cls="dreamdiff.yardsticks.model.YardstickModel"`, `checkpoint_path` a file of `save_checkpoint`; the head is `final_layer`.
- NeuralBench: an instance without `n_outputs`; `forward` takes `channel_positions` and any width and length (`neuralbench.evaluate.check_model`).
- braindecode: the signature of `EEGModuleMixin` (n_outputs, n_chans, chs_info, n_times, input_window_seconds, sfreq), so that it fits
  `braindecode.EEGClassifier`.

No benchmark says whose window is whose, so nobody can be whitened by their own windows, which is what earns most (see the page Evidence): each window
is band-passed, brought to the encoder's rate, and scaled to unit variance. Expect less than from `EEGFeatures`, which knows people.

Shapes: B batch, C channels, T samples, D width, K outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from dreamdiff.encoders.positions import FARTHEST, HEAD_RADIUS, PositionsConfig, PositionsEncoder
from dreamdiff.estimators.checks import places_of
from dreamdiff.estimators.features import load_positions_encoder
from eegprep import atomic
from eegprep.errors import UsageError


class YardstickModel(nn.Module):
    """A positions encoder with its front end, and a linear layer where outputs are asked for.

    Args:
        n_outputs: K; None gives the mean over tokens, (B, D), for a benchmark that brings its own head.
        n_chans, n_times, input_window_seconds, sfreq: of the windows, as in braindecode; one of the last three follows from the others.
        chs_info: `info["chs"]` of MNE: names and places of the channels. Not needed where `forward` is given `channel_positions`.
        model: run or folder of an encoder of kind "positions"; None is the one in the package, "scratch" a fresh one.

    Raises:
        UsageError: the rate does not follow, or a channel has no known place.
    """

    def __init__(
        self, n_outputs: int | None = None, n_chans: int | None = None, chs_info: Sequence[Mapping[str, Any]] | None = None,
        n_times: int | None = None, input_window_seconds: float | None = None, sfreq: float | None = None,
        model: str | Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if sfreq is None and n_times and input_window_seconds:
            sfreq = n_times / input_window_seconds
        if sfreq is None or not sfreq > 0:
            raise UsageError(f"sfreq={sfreq}: the sampling rate of the windows is needed", "pass sfreq=... in Hz")
        if chs_info is not None and n_chans is not None and len(chs_info) != n_chans:
            raise UsageError(f"chs_info of {len(chs_info)} channels, n_chans={n_chans}", "describe every channel")
        self.n_outputs, self.n_chans, self.n_times, self.sfreq = n_outputs, n_chans, n_times, float(sfreq)
        if model == "scratch":
            self.encoder = PositionsEncoder(PositionsConfig())
        else:
            self.encoder = copy.deepcopy(load_positions_encoder(model))
        self.encoder.mask_token.requires_grad_(False)  # hides tokens in pre-training only
        self.places_C3: Tensor | None
        self.register_buffer("places_C3", None if chs_info is None else _places(chs_info), persistent=False)
        self.final_layer = nn.Identity() if n_outputs is None else nn.Linear(self.encoder.width, n_outputs)

    def forward(self, x: Tensor, channel_positions: Tensor | None = None) -> Tensor:
        """(B, K) or, without `n_outputs`, (B, D).

        Args:
            x: (B, C, T), in any unit.
            channel_positions: (B, C, 3) or (C, 3), in any unit of length; a channel whose three numbers are equal or not finite has
                no place and is left out. Places of `chs_info` when left out.
        """
        places = self.places_C3 if channel_positions is None else channel_positions
        if places is None:
            raise UsageError("no channel has a place", "pass channel_positions, or chs_info when the model is made")
        places_BC3 = places.to(x.device, x.dtype).expand(len(x), -1, -1)
        if places_BC3.shape[1] != x.shape[1]:
            raise UsageError(f"{places_BC3.shape[1]} places for {x.shape[1]} channels", "give one place per channel")
        known_BC = torch.isfinite(places_BC3).all(-1) & (places_BC3.amax(-1) != places_BC3.amin(-1))
        if not bool(known_BC.any(1).all()):
            raise UsageError("a window without a single channel that has a place", "check channel_positions")
        places_BC3 = _in_metres(torch.where(known_BC[..., None], places_BC3, torch.zeros_like(places_BC3)), known_BC)
        eeg_BCT = self._front_end(x, known_BC)
        tokens = self.encoder(eeg_BCT, places_BC3, known_BC, check=False)
        return self.final_layer(tokens.mean())

    def _front_end(self, x_BCT: Tensor, known_BC: Tensor) -> Tensor:
        """The encoder's band and rate by the discrete Fourier transform, then unit variance over the known channels of each window."""
        front = self.encoder.config.front_end
        samples = x_BCT.shape[-1]
        expected = max(1, round(samples * front.sfreq / self.sfreq))
        spectrum = torch.fft.rfft(x_BCT - x_BCT.mean(-1, keepdim=True))
        frequency = torch.fft.rfftfreq(samples, 1 / self.sfreq).to(x_BCT.device)
        if front.band is not None:
            low, high = front.band
            spectrum = spectrum * ((frequency >= low) & (frequency <= high))
        kept = min(spectrum.shape[-1], expected // 2 + 1)
        eeg_BCT = torch.fft.irfft(spectrum[..., :kept], n=expected) * (expected / samples)
        weight = known_BC[..., None].to(eeg_BCT.dtype)
        variance_B = (eeg_BCT.square() * weight).sum((1, 2)) / (weight.sum((1, 2)) * expected)
        eeg_BCT = eeg_BCT / variance_B.clamp_min(1e-30).sqrt()[:, None, None]
        short = self.encoder.config.token - expected
        if short > 0:  # a window shorter than one token is played on from its start
            eeg_BCT = eeg_BCT[..., torch.arange(self.encoder.config.token, device=x_BCT.device) % expected]
        return eeg_BCT

    def save_checkpoint(self, file: str | Path) -> None:
        """The weights as one safetensors file, for benchmarks that load a state dictionary into a fresh model."""
        content = {name: value.contiguous() for name, value in self.state_dict().items()}
        atomic.write_bytes(Path(file), save(content))


def _places(chs_info: Sequence[Mapping[str, Any]]) -> Tensor:
    """(C, 3) m: the places in the information, where all channels have one, else those of their names in the 10-05 system."""
    found_C3 = np.array([np.asarray(info.get("loc", np.zeros(12)), float)[:3] for info in chs_info])
    if not (np.isfinite(found_C3).all() and (np.abs(found_C3).max(1) > 0).all()):
        found_C3 = places_of([str(info["ch_name"]) for info in chs_info], None, len(chs_info))
    return torch.from_numpy(found_C3).float()


def _in_metres(places_BC3: Tensor, known_BC: Tensor) -> Tensor:
    """Places whose median distance from the centre cannot be that of an electrode in metres are scaled to a head."""
    radius_BC = torch.where(known_BC, places_BC3.norm(dim=-1), torch.nan)
    middle_B = radius_BC.nanmedian(dim=1).values
    strange_B = (middle_B > FARTHEST) | (middle_B < HEAD_RADIUS / 4)
    return torch.where(strange_B[:, None, None], places_BC3 * (HEAD_RADIUS / middle_B)[:, None, None], places_BC3)
