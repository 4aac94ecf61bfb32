"""The paper samples with PLMS; the diffusers scheduler that stands for it must take the same steps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.stable_diffusion import SD15_CONFIG


def plms(model, start, alpha_bar, steps):
    """Pseudo linear multistep sampling, from Liu et al. 2022 (equations 11 to 13), on the authors' time grid 1, 1 + c, ...

    The first step is a pseudo improved Euler step, then Adams-Bashforth of order 2, 3, 4; the last step goes to alpha_bar[0].
    """
    grid = np.arange(0, 1000, 1000 // steps) + 1
    before = np.concatenate([alpha_bar[:1], alpha_bar[grid[:-1]]])

    def move(x, eps, k):
        clean = (x - np.sqrt(1 - alpha_bar[grid[k]]) * eps) / np.sqrt(alpha_bar[grid[k]])
        return np.sqrt(before[k]) * clean + np.sqrt(1 - before[k]) * eps

    x, past = start, []
    for k in reversed(range(len(grid))):
        eps = model(x, grid[k])
        if len(past) == 0:
            ahead = model(move(x, eps, k), grid[max(k - 1, 0)])
            step = (eps + ahead) / 2
        elif len(past) == 1:
            step = (3 * eps - past[-1]) / 2
        elif len(past) == 2:
            step = (23 * eps - 16 * past[-1] + 5 * past[-2]) / 12
        else:
            step = (55 * eps - 59 * past[-1] + 37 * past[-2] - 9 * past[-3]) / 24
        x, past = move(x, step, k), [*past[-2:], eps]
    return x


def toy_model(x, t):
    """A smooth, nonlinear stand-in for the U-Net."""
    return np.tanh(0.8 * x + 0.3 * np.sin(t / 150)) + 0.1 * x


@pytest.mark.parametrize("steps", [10, 50, 250])
def test_pndm_with_the_papers_settings_follows_plms(steps):
    """250 steps are the paper's; fewer would show a wrong start or a wrong order more clearly."""
    scheduler = make_scheduler("pndm", json.loads((SD15_CONFIG / "scheduler" / "scheduler_config.json").read_text()))
    beta = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    start = np.random.default_rng(0).normal(size=(1, 4, 4, 4))

    scheduler.set_timesteps(steps)
    x = torch.from_numpy(start)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.from_numpy(toy_model(x.numpy(), int(t))), t, x).prev_sample

    np.testing.assert_allclose(x.numpy(), plms(toy_model, start, np.cumprod(1 - beta), steps), atol=2e-4)


def test_without_the_papers_settings_pndm_is_another_sampler():
    """The settings matter: the same class with its own defaults ends elsewhere."""
    import diffusers

    start = np.random.default_rng(0).normal(size=(1, 4, 4, 4))
    scheduler = diffusers.PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True)
    beta = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    scheduler.set_timesteps(10)
    x = torch.from_numpy(start)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.from_numpy(toy_model(x.numpy(), int(t))), t, x).prev_sample

    assert np.abs(x.numpy() - plms(toy_model, start, np.cumprod(1 - beta), 10)).max() > 1e-3


def test_pndm_calls_the_model_once_more_than_there_are_steps():
    """The first step of PLMS costs two evaluations: 251 in all for the paper's 250."""
    scheduler = make_scheduler("pndm", json.loads((SD15_CONFIG / "scheduler" / "scheduler_config.json").read_text()))
    scheduler.set_timesteps(250)

    assert len(scheduler.timesteps) == 251
    assert scheduler.timesteps[0] == 997
    assert scheduler.timesteps[-1] == 1
