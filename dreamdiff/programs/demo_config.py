"""Sizes of the demo and the folders that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from dreamdiff.devices import Device
from eegprep.errors import StoreError
from eegprep.settings import Settings

MANIFEST = "sample.toml"
MARKER = ".dreamdiff-demo"  # says that a folder is ours to write into
SFREQ, WINDOW, STRIDE = 128.0, 128, 64  # Hz; samples of a window, one second; samples from window to window


class DemoConfig(Settings):
    """Sizes of the demo; the defaults are meant for two cores without a GPU."""

    people: int = Field(default=2, ge=1, description="Simulated people")
    trials: int = Field(default=30, ge=5, description="Trials per category and person")
    test_share: float = Field(default=0.4, gt=0, lt=0.8, description="Share of them that is shown after training, to be averaged")
    snr: float = Field(default=-16.0, description="Response over background in one trial, dB")
    pretrain: tuple[str, ...] = Field(
        default=("data.validation=recording", "loop.tracker=none", "loop.max_steps=1200"), description="Settings of `train msm`"
    )
    align: tuple[str, ...] = Field(default=(), description="Settings of `train align`")
    finetune: tuple[str, ...] = Field(default=("loop.max_steps=80",), description="Settings of `train finetune`")
    shown: int = Field(default=40, ge=1, description="Pictures on the page; the first of every category, then the second")
    judged: int = Field(default=80, ge=1, description="Averages whose pictures are judged, at most")
    controlled: int = Field(default=40, ge=1, description="Of those, averages whose pictures are made again for each control")
    device: Device = Field(
        default="auto",
        description="Device: auto, cpu, cuda, cuda:N or mps; `auto` takes a GPU where there is one, a device that is not there is an error",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Precision of training: auto, fp32, bf16 or fp16; `auto` is fp32 on a CPU, bf16 on a GPU that has it, else fp16",
    )
    steps: int = Field(default=20, ge=1, description="Sampler steps of a picture")
    seed: int = Field(default=0, ge=0, description="Random seed of everything")

    @property
    def loop(self) -> dict[str, object]:
        """Device and precision as options of a training."""
        return {"loop.device": self.device, "loop.precision": self.precision}


@dataclass(frozen=True)
class Folders:
    """Where the steps of a demo write."""

    out: Path

    @property
    def corpus(self) -> Path:
        return self.out / "corpus.zarr"

    @property
    def pretrained(self) -> Path:
        return self.out / "pretrained"

    @property
    def pairs(self) -> Path:
        return self.out / "pairs.zarr"

    @property
    def aligned(self) -> Path:
        """The learned convolution."""
        return self.out / "aligned"

    @property
    def paper_encoder(self) -> Path:
        """The paper's encoder, pre-trained on the genuine corpus, aligned the same way."""
        return self.out / "aligned-paper"

    @property
    def finetuned(self) -> Path:
        return self.out / "finetuned"

    @property
    def retrieval(self) -> Path:
        return self.out / "retrieval"

    @property
    def pictures(self) -> Path:
        return self.out / "pictures"

    @property
    def paper(self) -> Path:
        """The report of the paper's route."""
        return self.out / "paper"

    @property
    def page(self) -> Path:
        return self.out / "index.html"


def claim(out: Path) -> None:
    """Make `out`, or stop when it holds something that is not a demo."""
    if out.exists() and not (out / MARKER).exists() and any(out.iterdir()):
        raise StoreError(f"{out}: is not empty and is not a demo folder", "choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
