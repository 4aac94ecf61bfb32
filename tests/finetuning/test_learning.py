"""The whole of fine-tuning and generation on simulated pairs: the right category on held-out trials, chance without the right EEG."""

from __future__ import annotations

import numpy as np
import pytest

from dreamdiff import embedded
from dreamdiff.diffusion.clip import load_clip
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.prepare import finetune
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.generate import generate, load_pipeline
from dreamdiff.generation.trials import open_trials
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.simulate import simulate
from eegprep.settings import resolve

COUNT = 60  # held-out trials that are generated


@pytest.mark.slow
def test_held_out_trials_give_their_category_and_shuffled_eeg_gives_chance(tmp_path):
    """40 categories, chance 2.5 %. Test trials show drawings that training never showed; the judge is the embedded CLIP's captions.

    With the EEG of other trials the same images are as often right as by guessing.
    """
    pairs = simulate(tmp_path / "pairs.zarr", SimulateConfig(sources="linear", people=1, trials=30, background="pink"))
    settings = resolve(
        FinetuneConfig, presets=FINETUNE_PRESETS, preset="demo",
        assignments=["loop.max_steps=4", "preview_trials=0", "validate_trials=20", "loop.device=cpu"],
    )  # fmt: skip
    finetune(pairs.path, "random:tiny", "embedded", "embedded", tmp_path / "run", settings, offline=True)
    config = GenerateConfig(steps=8, guidance=3.0, batch_size=20, device="cpu")
    pipeline = load_pipeline(tmp_path / "run", config)
    trials = open_trials(pairs.path, pipeline, "test")
    trials = trials.take(np.linspace(0, len(trials) - 1, COUNT).astype(int))

    clip = load_clip("embedded")
    images = [image.image for image in generate(pipeline, trials, config)]
    nearest = (clip.encode_images(images) @ clip.encode_text(embedded.captions()).T).argmax(dim=1).numpy()
    truth = np.array([pairs.classes.index(label) for label in trials.labels])
    shuffled = np.random.default_rng(0).permutation(truth)

    assert (nearest == truth).mean() > 0.25
    assert (nearest == shuffled).mean() < 0.15
