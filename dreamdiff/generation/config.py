"""Settings of `dreamdiff generate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from dreamdiff.devices import Device, Precision
from eegprep.settings import Settings


class GenerateConfig(Settings):
    """How images are made."""

    steps: int = Field(default=20, ge=1, description="Sampler steps")
    samples: int = Field(default=1, ge=1, description="Images per trial, with seeds `seed`, `seed` + 1, ...")
    seed: int = Field(default=0, ge=0, description="Seed of the first image of each trial")
    scheduler: str = Field(
        default="dpm-solver++", description="Sampler: dpm-solver++, pndm (the paper's PLMS), ddim, ..., a diffusers class, or own"
    )
    guidance: float | None = Field(default=None, ge=0, description="Guidance scale; the model's own when not given")
    batch_size: int = Field(default=8, ge=1, description="Images made at once")
    device: Device = Field(
        default="auto", description="`auto` takes a GPU where there is one; `cuda`, `cuda:1` or `mps` demands that one"
    )
    precision: Precision = Field(default="fp32", description="Precision of the networks; fp16 on a GPU only")
    sd: str | None = Field(default=None, description="Frozen generator for a run of `train align`")
    adapter: str | None = Field(default=None, description="Its adapter for image vectors")
    adapter_scale: float = Field(default=1.0, ge=0, description="Weight of the adapter's attention")
    prompt: str = Field(default="", description="Text beside the image vector")
    prior: bool = Field(default=False, description="Pull vectors towards the adapter's training pictures")

    def recipe(self, device: str = "cpu") -> dict[str, Any]:
        """What pictures depend on besides trial and seed; dials of frozen generators only where they are used.

        device: kind of the device that they are made on; on a CPU it reads as it did when nothing else could be asked for.
        """
        content = self.model_dump(mode="json", exclude={"samples", "seed"}) | {"device": "auto" if device == "cpu" else device}
        return {
            name: value for name, value in content.items() if name not in FROZEN or value != type(self).model_fields[name].default
        }


class FileReading(Settings):
    """What a person says of an EEG file that does not say it, as `eegprep build` takes it."""

    sfreq: float | None = Field(default=None, gt=0, description="Rate, Hz")
    unit: str = Field(default="", description="Unit of channels whose file does not say it: uV, mV or V")
    channel_names: tuple[str, ...] = Field(default=(), description="Names of channels, or which are EEG")
    scale: float | None = Field(default=None, gt=0, description="Factor for all values")

    @property
    def given(self) -> dict[str, Any]:
        """What was said, as plain JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)


FROZEN = ("sd", "adapter", "adapter_scale", "prompt", "prior")  # dials of frozen generators

GENERATE_PRESETS: dict[str, Mapping[str, Any]] = {
    "default": {},
    # SDXL-Turbo: its own scheduler, no guidance
    "turbo": {"steps": 4, "scheduler": "own", "guidance": 1.0},
    # Figure 3 shows three images per trial; 250 steps of PLMS without guidance are the released code's, the paper names none
    "paper": {"steps": 250, "samples": 3, "scheduler": "pndm", "guidance": 1.0},
    # the authors' sampling script: five images per trial
    "released": {"steps": 250, "samples": 5, "scheduler": "pndm", "guidance": 1.0},
}
