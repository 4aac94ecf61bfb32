"""An encoder with its front end built in: whole trials in uV in, tokens out, so that it can stand where the paper's encoder stands.

`train finetune --encoder ALIGN_RUN` starts from one. The paper's route has no place for the name of a person: a model of one person keeps
that person's whitening and map, a model of several gets those of all of them together.
Shapes: B batch, C channels, T samples of a trial as stored, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from dreamdiff.eeg_input import SignalConfig
from dreamdiff.encoders.encoder import scale_input
from dreamdiff.encoders.frontend import FrontEnd, FrontEndConfig
from dreamdiff.encoders.kinds import build_encoder
from dreamdiff.encoders.weights import Placed, save_folder, with_signal
from eegprep.settings import Settings


class FrontedConfig(Settings):
    """channels, window: of a trial as stored. encoder: section of the encoder behind the front end. scaling: of `scale`."""

    kind: Literal["fronted"] = "fronted"
    channels: int = Field(ge=1)
    window: int = Field(ge=1)  # samples of a trial as stored
    front: FrontEndConfig
    encoder: Mapping[str, Any]
    scaling: Literal["robust"] = "robust"


class FrontedEncoder(Placed):
    """Front end, then an encoder of any kind."""

    Config = FrontedConfig

    def __init__(self, config: FrontedConfig) -> None:
        super().__init__()
        self.config = config
        # of the trials that it was aligned on; the front end brings them to the rate of the encoder behind it
        self.signal = SignalConfig(sfreq=config.front.sfreq, t0=config.front.t0, unit=config.front.unit)
        self.front = FrontEnd(config.front)
        self.inner = build_encoder(config.encoder)

    @property
    def tokens(self) -> int:
        """Tokens that `forward` returns."""
        return int(self.inner.tokens)  # type: ignore[arg-type]

    @property
    def width(self) -> int:
        """Size of each token."""
        return int(self.inner.width)  # type: ignore[arg-type]

    @property
    def blocks(self) -> list[nn.Module]:
        """What `loop.compile` compiles."""
        return list(getattr(self.inner, "blocks", []))

    @property
    def gradient_checkpointing(self) -> bool:
        """Of the encoder behind the front end."""
        return bool(getattr(self.inner, "gradient_checkpointing", False))

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        self.inner.gradient_checkpointing = on  # type: ignore[assignment]

    def scale(self, eeg_BCT: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """Trials in robust units, which the closed-form path of the conditioner reads."""
        return scale_input(eeg_BCT, "robust", scale_B)

    def forward(self, eeg_BCT: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """(B, C, T) uV -> (B, L, D)."""
        # `scale_B` has no part: whitening brings its own unit
        return self.inner(self.front(eeg_BCT))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        content = {"architecture": "FrontedEncoder", "version": 1, "encoder": self.config.model_dump(mode="json")}
        save_folder(Path(folder), with_signal(content, self.signal), self.state_dict())
