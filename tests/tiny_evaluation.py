"""A pipeline with random weights and a small simulated store, made once per test process."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from tiny_models import CLIP_WIDTH, CONTEXT_WIDTH, tiny_clip, tiny_stable_diffusion

from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig
from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.pairs.reader import Pairs
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.images import ImageSet
from dreamdiff.simulation.simulate import simulate

CLASSES = ("banana", "daisy", "pizza", "canoe", "iron", "broom")


def small_images(classes: tuple[str, ...] = CLASSES) -> ImageSet:
    """Six images of each class in a colour of its own, with features of a class part and a part of their own."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(classes)), 6)
    features = rng.normal(size=(len(classes), 32))[labels] + 0.5 * rng.normal(size=(len(labels), 32))
    colours = rng.integers(0, 256, (len(classes), 3))[labels][:, None, None]
    pixels = np.clip(colours + rng.normal(0, 30, (len(labels), 32, 32, 3)), 0, 255).astype(np.uint8)
    names = tuple(f"image-{i}" for i in range(len(labels)))
    return ImageSet(pixels, labels, names, np.arange(len(labels)) % 3 == 0, classes, features)


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="dreamdiff-tests-"))


@cache
def tiny_pairs() -> Path:
    """One person, six classes, a strong response."""
    simulate(
        folder() / "pairs.zarr",
        SimulateConfig(sources="linear", snr=0, people=1, trials=12, background="pink"),
        images=small_images(),
    )
    return folder() / "pairs.zarr"


@cache
def tiny_parts() -> tuple[Path, Path]:
    """Folders of a tiny Stable Diffusion and of a tiny CLIP whose text states it reads."""
    clip = tiny_clip(folder() / "clip")
    content = json.loads((clip / "open_clip_config.json").read_text())
    content["model_cfg"]["text_cfg"] |= {"width": CONTEXT_WIDTH, "heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_file(open_clip.model.CLIP(**content["model_cfg"]).state_dict(), clip / "open_clip_model.safetensors")
    (clip / "open_clip_config.json").write_text(json.dumps(content))
    return tiny_stable_diffusion(folder() / "sd"), clip


@cache
def tiny_pipeline() -> Path:
    """A pipeline folder with random weights that fits the tiny parts."""
    sd = load_stable_diffusion(str(tiny_parts()[0]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = EEGEncoder(EncoderConfig(width=16, depth=1, heads=2))
        conditioner = Conditioner(
            ConditionerConfig(tokens_in=encoder.tokens, width_in=16, context_width=CONTEXT_WIDTH, clip_width=CLIP_WIDTH)
        )
    store = Pairs.open(tiny_pairs())
    details = PipelineConfig(
        classes=CLASSES, training={"pairs": store.fingerprint, "split": "default", "provenance": store.provenance}
    )
    scheduler = make_scheduler("dpm-solver++", sd.scheduler.config)
    DreamDiffusionPipeline(sd.unet, sd.vae, scheduler, encoder, conditioner, details).save_pretrained(folder() / "model")
    return folder() / "model"
