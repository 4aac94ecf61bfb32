"""Settings of `dreamdiff generate`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from eegprep.settings import Settings


class GenerateConfig(Settings):
    """How images are made.

    samples: images per trial, with seeds `seed`, `seed` + 1, ...
    scheduler: a short name (dpm-solver++, pndm, ddim, ...) or a diffusers class. guidance: None takes the model's own.
    """

    steps: int = Field(default=20, ge=1)
    samples: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    scheduler: str = "dpm-solver++"
    guidance: float | None = Field(default=None, ge=0)
    batch_size: int = Field(default=8, ge=1)
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


GENERATE_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # the authors' sampling: 250 steps of PLMS, five images per trial, no guidance
    "paper": {"steps": 250, "samples": 5, "scheduler": "pndm", "guidance": 1.0},
}
