"""Takagi and Nishimoto: both regressions read the simulated response, and the layout survives image to image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_evaluation import tiny_pairs, tiny_parts
from tiny_pairs import tiny_pairs as plain_pairs

from dreamdiff.baselines import takagi as t
from dreamdiff.baselines.features import Problem
from dreamdiff.diffusion.clip import load_clip
from dreamdiff.diffusion.frozen_generator import FrozenGenerator, caption
from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from dreamdiff.finetuning.data import image_moments
from dreamdiff.linear import ridge
from dreamdiff.pairs.reader import Pairs


@pytest.fixture(scope="module")
def problem():
    store = Pairs.open(tiny_pairs())
    parts = store.split()
    return Problem(store, parts["train"], parts["test"], size=32, samples=2, steps=10)


@pytest.fixture(scope="module")
def generator():
    sd, clip = tiny_parts()
    return FrozenGenerator(load_stable_diffusion(str(sd)), load_clip(str(clip)))


def test_the_predicted_layout_is_nearer_to_its_own_picture_than_to_others(tmp_path, generator):
    """Pictures of a class look alike in this store, so the latent of the shown picture must be predictable from a strong response."""
    store = Pairs.open(plain_pairs(tmp_path / "pairs.zarr"))
    problem = Problem(store, store.split()["train"], store.split()["test"], size=32)
    predicted = t.predicted_latents(problem, generator).reshape(len(problem.test), -1)
    images = problem.store.images(problem.test, size=generator.sd.image_size)
    with torch.no_grad():
        shown = image_moments(generator.sd.vae, images).chunk(2, dim=1)[0].flatten(1).numpy()
    predicted, shown = predicted - predicted.mean(0), shown - shown.mean(0)
    nearness = (predicted @ shown.T) / np.linalg.norm(predicted, axis=1)[:, None] / np.linalg.norm(shown, axis=1)
    other = problem.store.labels[problem.test][:, None] != problem.store.labels[problem.test]

    assert np.diag(nearness).mean() > nearness[other].mean() + 0.5


def test_states_by_few_directions_equal_ridge_on_all_numbers(problem, generator):
    """The shortcut for K captions must give what the regression onto L x D numbers gives."""
    store = problem.store
    texts = [caption(store.classes[label]) for label in store.labels[problem.train]]
    targets = generator.text_states(texts).cpu().numpy().astype(float)
    x_train, x_test = problem.features()

    direct = ridge(x_train, targets.reshape(len(targets), -1)).predict(x_test).reshape(-1, *targets.shape[1:])

    np.testing.assert_allclose(t.predicted_states(problem, generator), direct, atol=1e-6)


def test_little_strength_keeps_the_layout_and_full_strength_loses_it(problem, generator):
    """Image to image: what is noised little stays where it was."""
    some = Problem(problem.store, problem.train, problem.test[:3], size=32, samples=1, steps=10)
    latents = t.predicted_latents(problem, generator)[:3]
    states = t.predicted_states(problem, generator)[:3]

    little, full = (
        t.image_to_image(some, generator, latents, states, strength=strength, guidance=1.0)[:, 0].astype(float)
        for strength in (0.1, 1.0)
    )
    kept = t.image_to_image(some, generator, latents, states, strength=0.1, guidance=1.0)[:, 0].astype(float)

    start = t.to_uint8(t.decode(generator.sd.vae, torch.from_numpy(latents).float())).astype(float)
    np.testing.assert_array_equal(little, kept)
    assert np.abs(little - start).mean() < np.abs(full - start).mean()


def test_one_baseline_by_name_gives_pictures_of_the_judged_size(problem, generator):
    """Samples of a trial differ in their noise."""
    from dreamdiff.baselines.run import run_baseline

    made = run_baseline("takagi", problem, generator=generator, clip=generator.clip).images_NSHWC

    assert made.shape == (len(problem.test), 2, 32, 32, 3) and made.dtype == np.uint8
    assert (made[:, 0] != made[:, 1]).any()
