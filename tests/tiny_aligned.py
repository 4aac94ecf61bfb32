"""A run of `dreamdiff train align` with random weights, for tests of what comes after it."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_pairs import CHANNELS, SAMPLES

from dreamdiff.alignment.model import AlignedConfig, AlignedEncoder
from dreamdiff.encoders.frontend import FrontEndConfig


def aligned_run(folder: Path, target: dict[str, object], seed: int = 0) -> Path:
    """An encoder with random weights, of the shape of the tiny pairs."""
    front = FrontEndConfig(channels=CHANNELS, samples=SAMPLES, sfreq=128.0, rate=128.0, window=40)
    section = {"kind": "conv", "channels": CHANNELS, "window": 40, "spatial": 4, "filters": 5}
    torch.manual_seed(seed)
    model = AlignedEncoder(AlignedConfig(front=front, encoder=section, people=("a", "b"), targets=(target,)))
    with torch.no_grad():
        model.people.map_PCC.normal_(std=0.3)  # people matter
        model.heads[0].log_length.fill_(1.0)
    model.save_pretrained(folder)
    return folder
