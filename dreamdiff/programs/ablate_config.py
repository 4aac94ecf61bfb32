"""Settings, presets and rows of `dreamdiff ablate`; importing them loads no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from dreamdiff.devices import Device
from dreamdiff.simulation.config import SimulateConfig
from eegprep.errors import UsageError
from eegprep.settings import Settings

Size = Literal["458", "297", "162", "74", "18.3"]


class AblateConfig(Settings):
    """How the rows are run."""

    scale: Literal["small", "paper"] = Field(
        default="small", description="Encoders that fit one machine (`small`), or the sizes of the `paper`"
    )
    pairs: str | None = Field(default=None, description="Pairs store [default: simulated pairs]")
    store: str | None = Field(
        default=None,
        description="Corpus for pre-training [default: the EEG of the training trials, without labels or images]",
    )
    split: str = Field(default="test", description="Part of a split that is evaluated")
    sd: str = Field(default="embedded", description="Stable Diffusion: embedded, a folder or a file")
    clip: str = Field(default="embedded", description="CLIP: embedded, a folder, or ARCHITECTURE:FILE")
    pretrain_steps: int | None = Field(
        default=1500, ge=1, description="Steps of pre-training; the preset's own length when not set"
    )
    finetune_epochs: float | None = Field(
        default=40, gt=0, description="Epochs of fine-tuning; the preset's own length when not set"
    )
    finetune: tuple[str, ...] = Field(default=(), description="Further settings of fine-tuning, as KEY=VALUE")
    trials: int | None = Field(default=None, ge=2, description="Maximum number of trials to evaluate [default: all]")
    samples: int = Field(default=3, ge=1, description="Images per evaluated trial")
    steps: int = Field(default=20, ge=1, description="Sampler steps per image")
    simulate: SimulateConfig = Field(
        default=SimulateConfig(sources="linear"), description="Simulated pairs, where none are given"
    )
    baseline_epochs: int = Field(default=30, ge=1, description="Passes over the training trials for Brain2Image")
    classifier: str = Field(default="efficientnet-lite0", description="Network that judges images")
    inception: str | None = Field(default=None, description="Weight file of the Inception network")
    lpips: str | None = Field(default=None, description="Weight file of torchvision's AlexNet")
    device: Device = Field(
        default="auto",
        description="Device: auto, cpu, cuda, cuda:N or mps; `auto` takes a GPU where there is one, a device that is not there is an error",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Precision of training and evaluation: auto, fp32, bf16 or fp16; `auto` is fp32 on a CPU, bf16 on a GPU that has it, else fp16",
    )
    seed: int = Field(default=2022, description="Seed of every run")
    workers: int = Field(default=1, ge=1, description="Number of rows that run at the same time")
    scheduler: str | None = Field(
        default=None, description="Dask scheduler to use instead of local processes, e.g. tcp://HOST:8786"
    )


ABLATE_PRESETS: dict[str, Mapping[str, Any]] = {
    # one machine over night
    "default": {},
    # ours: two cores, half an hour
    "quick": {
        "pretrain_steps": 800, "finetune_epochs": 7, "trials": 80, "samples": 1, "steps": 10, "baseline_epochs": 8,
        "simulate": {"sources": "linear", "people": 1, "trials": 20, "snr": 0.0}, "workers": 2,
    },
    # ours: minutes of one core; shows that every row runs and what every figure carries, nothing about accuracy
    "shortest": {
        "pretrain_steps": 10, "finetune_epochs": 0.2, "trials": 20, "samples": 1, "steps": 3, "baseline_epochs": 1,
        "simulate": {"sources": "linear", "people": 1, "trials": 10, "snr": 0.0},
    },
    # the paper's sizes and epochs; for graphics cards, with --store, --sd and --clip
    "paper": {"scale": "paper", "pretrain_steps": None, "finetune_epochs": None, "samples": 5, "steps": 250},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of Table 2. size: millions of parameters as printed. mask: None without pre-training. tuned: E encoder, A attention."""

    name: str
    mask: float | None
    clip: bool
    size: Size
    tuned: Literal["E + A", "E only", "A only"]
    paper: float | None
    shallow: bool = False
    labels: bool = False
    label_input: bool = False


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("full", 0.75, True, "297", "E + A", 45.8),
        Row("1", None, False, "297", "E + A", 4.2),
        Row("2", None, False, "18.3", "E + A", 3.7, shallow=True),
        Row("3", None, True, "297", "E + A", 32.3),
        Row("4", None, True, "18.3", "E + A", 24.5, shallow=True),
        Row("5", 0.25, True, "297", "E + A", 19.7),
        Row("6", 0.5, True, "297", "E + A", 38.3),
        Row("7", 0.85, True, "297", "E + A", 33.4),
        Row("8", 0.75, True, "458", "E + A", 38.5),
        Row("9", 0.75, True, "162", "E + A", 36.6),
        Row("10", 0.75, True, "74", "E + A", 29.8),
        Row("11", 0.75, True, "18.3", "E + A", 28.7),
        Row("12", 0.75, True, "297", "E only", 22.4),
        Row("13", 0.75, False, "297", "E + A", 28.3),
        Row("14", 0.75, False, "297", "A only", 20.9),
        # section 4.4: class labels in place of CLIP vectors, and class labels in place of EEG
        Row("labels", 0.75, False, "297", "E + A", 86.7, labels=True),
        Row("label-input", None, False, "297", "E + A", 97.2, label_input=True),
    )
}

TABLE2 = tuple(name for name in ROWS if not name.startswith("label"))

OF_FIGURE_5 = ("full", "1", "5", "12", "13", "14")


def row_of(name: str) -> Row:
    """A row by its name.

    Raises:
        UsageError: there is none.
    """
    if name not in ROWS:
        raise UsageError(f"Table 2 has no row {name!r}", f"use some of: {', '.join(ROWS)}")
    return ROWS[name]
