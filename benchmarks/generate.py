"""Is our generation as fast as bare diffusers? Equal steps, equal batch, the same weights, alternating in one process.

    python benchmarks/generate.py [--model embedded|tiny] [--steps 20] [--batch 4] [--rounds 5]

Also prints the 20-step default against 250 steps of PLMS, the paper's sampler. Aim: at most 1.05 times bare diffusers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.generate import render


def build(model: str, work: Path) -> DreamDiffusionPipeline:
    """A pipeline around the named Stable Diffusion with an untrained encoder: speed does not depend on training."""
    if model == "tiny":
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from tiny_models import tiny_stable_diffusion

        model = str(tiny_stable_diffusion(work / "sd"))
    sd = load_stable_diffusion(model)
    encoder = EEGEncoder.from_preset("tiny")
    conditioner = Conditioner(ConditionerConfig(width_in=encoder.width, context_width=sd.context_width, clip_width=8))
    pipe = DreamDiffusionPipeline(sd.unet, sd.vae, make_scheduler("dpm-solver++", sd.scheduler.config), encoder, conditioner)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.encoder, pipe.conditioner):
        part.eval().requires_grad_(False)
    return pipe


@torch.no_grad()
def bare(pipe: DreamDiffusionPipeline, tokens: torch.Tensor, steps: int) -> np.ndarray:
    """What a person writes with diffusers alone: noise, the scheduler's loop, the VAE; the context is given."""
    batch, size = len(tokens), int(pipe.unet.config.sample_size)
    noise = torch.cat([torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(k)) for k in range(batch)])
    pipe.scheduler.set_timesteps(steps)
    state = noise * pipe.scheduler.init_noise_sigma
    for t in pipe.scheduler.timesteps:
        eps = pipe.unet(pipe.scheduler.scale_model_input(state, t), t, encoder_hidden_states=tokens).sample
        state = pipe.scheduler.step(eps, t, state).prev_sample
    image = pipe.vae.decode(state / pipe.vae.config.scaling_factor).sample
    return ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def seconds(call: Callable[[], object]) -> float:
    """Process time of one call: other work on the machine does not count."""
    started = time.process_time()
    call()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        pipe = build(options.model, Path(work))
        eeg = (10 * np.random.default_rng(0).normal(size=(options.batch, 128, 512))).astype(np.float32)
        config = GenerateConfig(steps=options.steps, guidance=1.0)

        def ours() -> np.ndarray:
            return render(pipe, eeg, [torch.Generator().manual_seed(k) for k in range(options.batch)], config)

        tokens = pipe.encode(eeg).tokens_BLD
        difference = int(np.abs(ours().astype(int) - bare(pipe, tokens, options.steps)).max())
        times = [(seconds(ours), seconds(lambda: bare(pipe, tokens, options.steps))) for _ in range(options.rounds)]
        ratio = statistics.median(a / b for a, b in times)
        mean_ours, mean_bare = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{options.model}: {options.steps} steps, batch {options.batch}, CPU seconds: ours {mean_ours:.2f} (EEG encoder included), "
              f"bare diffusers {mean_bare:.2f}; ratio {ratio:.3f} (aim 1.05); largest difference {difference} grey levels")  # fmt: skip
        pipe.scheduler = make_scheduler("pndm", pipe.scheduler.config)
        paper = seconds(
            lambda: render(
                pipe,
                eeg,
                [torch.Generator().manual_seed(k) for k in range(options.batch)],
                GenerateConfig(steps=250, guidance=1.0),
            )
        )
        print(
            f"{options.steps} steps of DPM-Solver++ against 250 of PLMS (the paper's): {mean_ours:.2f} against {paper:.2f} CPU seconds, {paper / mean_ours:.1f} times faster"
        )


if __name__ == "__main__":
    main()
