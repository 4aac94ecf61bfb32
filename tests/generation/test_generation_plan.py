"""`generate --dry-run`: what it would take, and that the estimate is what making the pictures really takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_generate import make_model
from test_generate_aligned import WIDTH
from tiny_aligned import aligned_run
from tiny_generators import tiny_adapter, tiny_sd15
from tiny_models import tiny_stable_diffusion
from tiny_pairs import CHANNELS, SAMPLES, tiny_pairs

from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.generate import load_maker
from dreamdiff.generation.plan import batch_memory, generation_plan
from dreamdiff.memory import allocated_peak


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """Folder with pairs.zarr, model/ (fine-tuned), run/ (aligned), sd15/ and its adapter."""
    folder = tmp_path_factory.mktemp("plan")
    tiny_pairs(folder / "pairs.zarr", per_class=6)
    tiny_stable_diffusion(folder / "sd")
    make_model(folder / "model", folder / "sd")
    tiny_sd15(folder / "sd15")
    tiny_adapter(folder / "ip.safetensors", folder / "sd15", WIDTH, image_encoder="clip:tiny")
    aligned_run(folder / "run", {"name": "clip:tiny", "fingerprint": "1", "width": WIDTH})
    return folder


def config(parts: Path, model: str, **changes: object) -> GenerateConfig:
    own = {"sd": str(parts / "sd15"), "adapter": str(parts / "ip.safetensors")} if model == "run" else {}
    return GenerateConfig.model_validate({"batch_size": 32, "steps": 2, "device": "cpu", "scheduler": "ddim", **own, **changes})


@pytest.mark.parametrize(("model", "guidance"), [("model", 1.0), ("run", 1.0), ("run", 3.0)])
def test_the_estimate_is_what_a_batch_takes(parts, model, guidance) -> None:
    """Within 15 % of PyTorch's own record of allocations on the CPU, weights apart."""
    settings = config(parts, model, guidance=guidance)
    maker = load_maker(parts / model, settings)
    estimate = batch_memory(maker, settings)
    eeg = np.zeros((settings.batch_size, CHANNELS, SAMPLES), np.float32)
    dice = [torch.Generator().manual_seed(k) for k in range(len(eeg))]

    def batch() -> None:
        kind = {"output_type": "pt"} if isinstance(maker, DreamDiffusionPipeline) else {}
        maker(eeg, num_inference_steps=2, guidance_scale=guidance, generator=dice, **kind)

    batch()
    peak = allocated_peak(batch)
    assert estimate.passing == pytest.approx(peak, rel=0.15)
    assert estimate.trained == estimate.kept == 0 < estimate.passing


def test_guidance_and_larger_batches_take_more(parts) -> None:
    """Two rows a picture, and twice the pictures; weights stay what they are."""
    maker = load_maker(parts / "run", config(parts, "run"))
    plain, guided = (batch_memory(maker, config(parts, "run", guidance=scale)) for scale in (1.0, 3.0))
    small = batch_memory(maker, config(parts, "run", guidance=1.0, batch_size=16))

    assert plain.weights == guided.weights == small.weights
    assert guided.passing >= plain.passing == pytest.approx(2 * small.passing, rel=0.1)


def test_half_precision_weighs_half(parts) -> None:
    full, half = (
        generation_plan(parts / "run", parts / "pairs.zarr", config(parts, "run", precision=name), select="test")
        for name in ("fp32", "bf16")
    )

    assert half.memory_bytes < 0.7 * full.memory_bytes
    assert (full.trials, full.pictures) == (6, 6)


def test_a_dry_run_says_memory_and_writes_nothing(parts, tmp_path, capsys) -> None:
    """Before any picture is made, and also without --out."""
    from cli.main import dreamdiff_app, run

    options = ["--model", str(parts / "model"), "--eeg", str(parts / "pairs.zarr"), "--select", "test", "--samples", "2"]

    assert (
        run(dreamdiff_app, "dreamdiff", ["generate", *options, "--out", str(tmp_path / "out"), "--device", "cpu", "--dry-run"])
        == 0
    )

    said = capsys.readouterr()
    assert "pictures: 12 of 6 trials, 32 x 32 pixels" in said.err + said.out
    assert "memory: needs about 0.0 GB; this machine has" in said.err + said.out
    assert not (tmp_path / "out").exists()
