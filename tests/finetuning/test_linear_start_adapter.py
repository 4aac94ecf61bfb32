"""The linear start with an image adapter in place of attention over captions, on the embedded generator."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_clip

from dreamdiff.diffusion.adapters import has_adapter, load_adapter
from dreamdiff.diffusion.clip import load_clip
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.encoders.encoder import EEGEncoder, EncoderConfig
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.linear_start import adapter_for
from dreamdiff.finetuning.prepare import fit_task, prepare
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.simulate import simulate
from eegprep.errors import ModelError
from eegprep.settings import resolve


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Simulated pairs of one person, few trials, and a small encoder for them."""
    folder = tmp_path_factory.mktemp("adapter")
    simulate(folder / "pairs.zarr", SimulateConfig(people=1, trials=3, sfreq=128, snr=0, background="pink"))
    torch.manual_seed(0)
    EEGEncoder(EncoderConfig(channels=128, window=128, patch=8, width=16, depth=1, heads=2)).save_pretrained(folder / "encoder")
    return folder


def started(parts, out, *assignments: str):
    always = [
        "loop.device=cpu", "loop.max_steps=2", "data.batch_size=4", "validation.select=last", "validation.preview_trials=0",
        f"data.cache={parts / 'cache'}",
    ]  # fmt: skip
    config = resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset="demo", assignments=[*always, *assignments])
    return prepare(parts / "pairs.zarr", str(parts / "encoder"), "embedded", "embedded", out, config, offline=True)


def test_a_run_reads_back_as_it_was_and_only_the_adapter_is_not_trained(parts, tmp_path):
    """diffusers would lose the adapter with the U-Net; it comes back with the conditioner, bit for bit."""
    task = started(parts, tmp_path / "run")
    shipped = load_adapter("embedded").tensors
    trained = {name for name, value in task.module.named_parameters() if value.requires_grad}
    assert has_adapter(task.module.unet)
    assert any("attn2.to_k" in name for name in trained) and not any("_ip" in name for name in trained)

    fit_task(task)

    pipe = DreamDiffusionPipeline.from_pretrained(tmp_path / "run")
    eeg = task.data.pairs.eeg([0, 1, 2])
    dice = lambda: [torch.Generator().manual_seed(s) for s in range(3)]  # noqa: E731
    here = task.pipeline()(eeg, num_inference_steps=2, generator=dice(), output_type="latent").images
    there = pipe(eeg, num_inference_steps=2, generator=dice(), output_type="latent").images
    assert torch.equal(here, there)
    for name, value in pipe.conditioner.adapter.tensors.items():
        assert torch.equal(value, shipped[name])
    pipe.save_pretrained(tmp_path / "again")
    once_more = DreamDiffusionPipeline.from_pretrained(tmp_path / "again")
    assert torch.equal(once_more(eeg, num_inference_steps=2, generator=dice(), output_type="latent").images, there)


def test_the_adapter_reads_the_direction_of_the_linear_map(parts, tmp_path):
    """Trial by trial: another trial's EEG changes no other row, and "no EEG" is the zero vector."""
    task = started(parts, tmp_path / "run")
    pipe, pairs = task.pipeline(), task.data.pairs

    context = pipe.encode(pairs.eeg([0, 1]))

    bridge = pipe.conditioner.bridge
    torch.testing.assert_close(context.image_BD, bridge.direction(context.clip_BD))
    torch.testing.assert_close(context.image_BD.norm(dim=1), torch.ones(2))
    assert not pipe.conditioner.null(2).image_BD.any()
    assert torch.equal(bridge.keys_KD, load_adapter("embedded").words.keys_KD)
    other = pipe.encode(pairs.eeg([0, 5]))
    assert torch.equal(other.image_BD[0], context.image_BD[0]) and not torch.equal(other.image_BD[1], context.image_BD[1])


def test_captions_are_what_they_were(parts, tmp_path):
    """A run of 0.1.0, or one that asks for captions, has no adapter anywhere."""
    task = started(parts, tmp_path / "run", "start.adapter=captions")

    assert task.module.conditioner.adapter is None and not has_adapter(task.module.unet)
    assert task.pipeline().encode(task.data.pairs.eeg([0])).image_BD is None
    old = {"config": {"start": {"linear_start": True}}, "optim": {}}
    assert task.current_identity(old)["config"]["start"]["adapter"] == "captions"


def test_an_adapter_of_another_clip_is_refused(tmp_path):
    tiny_clip(tmp_path / "clip")
    with pytest.raises(ModelError, match=r"reads vectors of embedded \(128 numbers\)"):
        adapter_for("embedded", "embedded", load_clip(str(tmp_path / "clip")))
    assert adapter_for("own", "/models/stable-diffusion-v1-5", load_clip("embedded")) is None
