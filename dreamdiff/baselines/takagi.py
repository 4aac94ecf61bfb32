"""Takagi and Nishimoto (CVPR 2023), "High-resolution image reconstruction with latent diffusion models from human brain activity", on EEG.

Nothing is trained but two ridge regressions; the generator stays as it is:

1. EEG -> z, the VAE latent of the picture that was shown. Decoded, it is a blurred layout.
2. EEG -> c, what the U-Net's cross-attention reads: here the text states of the caption of the class.
3. Image to image: the decoded layout is encoded again, noised up to 80 % of the schedule, and denoised under c with guidance 5.

The paper predicts z from early and c from higher visual cortex; EEG has no such division, so both read the same whitened time courses.
Its captions are five people's descriptions of each picture; EEG sets name categories only, so what is within a category reaches the picture
through z alone. Shapes: N trials, K classes, L tokens, D width, H W latent pixels.
"""

from __future__ import annotations

import numpy as np
import torch

from dreamdiff.arrays import Array, Floats, Ints
from dreamdiff.baselines.features import Baseline, Problem, by_person
from dreamdiff.devices import place_of
from dreamdiff.diffusion.frozen_generator import FrozenGenerator, caption, resized
from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.sampling import Condition, decode, guided_sample, start_noise, to_uint8
from dreamdiff.finetuning.data import image_moments
from dreamdiff.linear import ridge

STRENGTH = 0.8  # of the schedule that the layout is noised to (authors' code)
GUIDANCE = 5.0  # authors' code
BATCH = 16


def takagi(problem: Problem, generator: FrozenGenerator) -> Baseline:
    """Pictures of the test trials by two ridge regressions and image to image."""
    latents_NCHW = predicted_latents(problem, generator)
    states_NLD = predicted_states(problem, generator)
    return Baseline(
        "Takagi and Nishimoto", "ridge regression from EEG to the VAE latent (layout) and to the text states, then image to image by the frozen generator",
        image_to_image(problem, generator, latents_NCHW, states_NLD),
    )  # fmt: skip


def predicted_latents(problem: Problem, generator: FrozenGenerator) -> Floats:
    """(N, C, H, W): z of the test trials, scaled as the U-Net reads it."""
    store, vae = problem.store, generator.sd.vae
    images, member = np.unique(store.image[problem.train], return_inverse=True)
    side = generator.sd.image_size
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            moments = image_moments(vae, store.load_images(images[start : start + BATCH], size=side))
            parts.append(moments.chunk(2, dim=1)[0].numpy() * float(vae.config.scaling_factor))
    latents = np.concatenate(parts)
    flat = _predicted(problem, latents.reshape(len(latents), -1)[member])
    return flat.reshape(-1, *latents.shape[1:])


def predicted_states(problem: Problem, generator: FrozenGenerator) -> Floats:
    """(N, L, D): c of the test trials.

    The states of K captions span at most K - 1 directions around their mean. Ridge is linear in its targets, so it is fitted in these directions,
    with the same penalty and the same result as on all L x D numbers.
    """
    store = problem.store
    labels, member = np.unique(problem.labels_train, return_inverse=True)
    states_KLD = generator.text_states([caption(store.classes[label]) for label in labels]).cpu().numpy().astype(float)
    flat_KE = states_KLD.reshape(len(labels), -1)
    mean_E = flat_KE.mean(0)
    left_KR, size_R, right_RE = np.linalg.svd(flat_KE - mean_E, full_matrices=False)
    return (_predicted(problem, (left_KR * size_R)[member]) @ right_RE + mean_E).reshape(-1, *states_KLD.shape[1:])


def _predicted(problem: Problem, targets_ME: Floats) -> Floats:
    """Targets of the test trials, by ridge regression per person."""
    store = problem.store
    x_train, x_test = problem.features()
    out = np.zeros((len(problem.test), targets_ME.shape[1]))
    for rows, here in by_person(store.person[problem.train], store.person[problem.test]):
        out[here] = ridge(x_train[rows], targets_ME[rows]).predict(x_test[here])
    return out


@torch.no_grad()
def image_to_image(
    problem: Problem,
    generator: FrozenGenerator,
    latents_NCHW: Floats,
    states_NLD: Floats,
    *,
    strength: float = STRENGTH,
    guidance: float = GUIDANCE,
) -> Array:
    """(N, S, H, W, 3): the layouts redrawn under the predicted conditions."""
    sd, samples = generator.sd, problem.samples
    device = place_of(sd.unet)[0]
    empty = generator.text_states([""])
    scheduler = make_scheduler("ddim", sd.scheduler.config)
    numbers: Ints = np.repeat(problem.store.indices[problem.test], samples)
    rows = np.repeat(np.arange(len(latents_NCHW)), samples)
    parts = []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        layout = to_uint8(decode(sd.vae, torch.from_numpy(latents_NCHW[some]).float().to(device)))
        clean = (image_moments(sd.vae, layout).chunk(2, dim=1)[0] * sd.vae.config.scaling_factor).to(device)
        dice = [
            # primes: no two of (seed, trial, sample) share a seed
            torch.Generator().manual_seed(1_000_003 * problem.seed + 1009 * int(numbers[start + k]) + (start + k) % samples)
            for k in range(len(some))
        ]
        states = torch.from_numpy(states_NLD[some]).float()
        latents = guided_sample(
            sd.unet, scheduler, start_noise(tuple(clean.shape[1:]), dice, len(some), device), Condition(states),
            Condition(empty.expand(len(some), -1, -1)), scale=guidance, steps=problem.steps, clean_BCHW=clean, strength=strength,
        )  # fmt: skip
        parts.append(to_uint8(decode(sd.vae, latents)))
    made = resized(np.concatenate(parts), problem.size)
    return made.reshape(-1, samples, *made.shape[1:])
