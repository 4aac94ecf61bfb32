"""`--device` and `--precision`, which several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

DeviceOption = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps; one that is not there is an error [default: auto]")
]
TrainingPrecision = Annotated[
    str | None,
    typer.Option("--precision", help="auto, fp32, bf16 or fp16; auto is fp32 on a CPU, else bf16 where the GPU has it"),
]
PicturePrecision = Annotated[str | None, typer.Option("--precision", help="Of the networks: fp32, bf16 or fp16 (GPU only)")]
