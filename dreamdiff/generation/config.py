"""Settings of `dreamdiff generate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from dreamdiff.devices import Device, Precision
from eegprep.settings import Settings


class GenerateConfig(Settings):
    """How images are made."""

    steps: int = Field(default=20, ge=1, description="Sampler steps per image")
    samples: int = Field(default=1, ge=1, description="Images per trial, made with consecutive seeds from `seed` on")
    seed: int = Field(default=0, ge=0, description="Random seed of the first image of each trial")
    scheduler: str = Field(
        default="dpm-solver++",
        description="Sampler: dpm-solver++, pndm (the paper's PLMS), ddim, ..., a diffusers class, or own (the pipeline's)",
    )
    guidance: float | None = Field(default=None, ge=0, description="Guidance scale [default: the model's own]")
    batch_size: int = Field(default=8, ge=1, description="Images made at once")
    device: Device = Field(
        default="auto",
        description="Device: auto, cpu, cuda, cuda:N or mps; `auto` takes a GPU where there is one, a device that is not there is an error",
    )
    precision: Precision = Field(default="fp32", description="Precision of the networks: fp32, bf16 or fp16 (GPU only)")
    sd: str | None = Field(
        default=None, description="Frozen generator for a run of `train align`: folder, hub name, or `embedded`"
    )
    adapter: str | None = Field(
        default=None, description="Adapter of the frozen generator for image vectors: folder or file; `embedded` brings its own"
    )
    adapter_scale: float = Field(default=1.0, ge=0, description="Weight of the adapter's attention")
    prompt: str = Field(default="", description="Text prompt that is given together with the image vector")
    prior: bool = Field(
        default=False, description="Pull image vectors towards the adapter's training pictures before images are made"
    )

    def recipe(self, device: str = "cpu") -> dict[str, Any]:
        """What pictures depend on besides trial and seed; dials of frozen generators only where they are used.

        device: kind of the device that they are made on; on a CPU it reads as it did when nothing else could be asked for.
        """
        content = self.model_dump(mode="json", exclude={"samples", "seed"}) | {"device": "auto" if device == "cpu" else device}
        return {
            name: value for name, value in content.items() if name not in FROZEN or value != type(self).model_fields[name].default
        }


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
