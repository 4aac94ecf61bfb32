"""Pictures from an aligned encoder before a frozen generator: one trial at a time, resumable, and refused where vectors do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_aligned import aligned_run
from tiny_generators import tiny_adapter, tiny_sd15
from tiny_pairs import tiny_pairs

from dreamdiff.diffusion.adapters import load_adapter
from dreamdiff.generation.aligned import load_aligned_pipeline
from dreamdiff.generation.config import GENERATE_PRESETS, GenerateConfig
from dreamdiff.generation.files import generate_to_folder, replay
from dreamdiff.generation.generate import generator_for
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import ModelError, UsageError
from eegprep.settings import resolve

WIDTH = 12
FAST = {"steps": 2, "batch_size": 3, "device": "cpu", "scheduler": "ddim"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("aligned")
    tiny_sd15(root / "sd")
    tiny_adapter(root / "adapter" / "ip.safetensors", root / "sd", WIDTH, image_encoder="clip:tiny")
    aligned_run(root / "run", {"name": "clip:tiny", "fingerprint": "1", "width": WIDTH})
    tiny_pairs(root / "pairs.zarr", per_class=6)
    return root


def config(parts: Path, **changes: object) -> GenerateConfig:
    return GenerateConfig(**{**FAST, "sd": str(parts / "sd"), "adapter": str(parts / "adapter" / "ip.safetensors"), **changes})  # type: ignore[arg-type]


def test_every_test_trial_gets_the_picture_of_its_own_vector_and_person(parts: Path, tmp_path: Path) -> None:
    """The files are what encoder and generator give one trial at a time."""
    generate_to_folder(parts / "run", parts / "pairs.zarr", tmp_path, config(parts), select="test")
    store = Pairs.open(parts / "pairs.zarr").select(split="test")
    pipe = load_aligned_pipeline(parts / "run", str(parts / "sd"), str(parts / "adapter" / "ip.safetensors"), scheduler="ddim")
    for row, number in enumerate(store.indices):
        person = store.subjects[store.person[row]]
        vector = pipe.aligned.encode(store.eeg([row]), person=person)
        expected = pipe.generator(vector, [generator_for(int(number), 0)], steps=2)[0]
        with Image.open(tmp_path / f"trial-{int(number):06d}_seed-0.png") as image:
            result = np.asarray(image.convert("RGB"))
        assert np.abs(result.astype(int) - expected.astype(int)).max() <= 1
    other = pipe.aligned.encode(store.eeg([0]), person=None)
    assert not torch.allclose(other, pipe.aligned.encode(store.eeg([0]), person=store.subjects[store.person[0]]), atol=1e-3)


def test_a_sidecar_makes_its_picture_again(parts: Path, tmp_path: Path) -> None:
    generate_to_folder(parts / "run", parts / "pairs.zarr", tmp_path, config(parts), trials=[1])
    sidecar = tmp_path / "trial-000001_seed-0.json"
    named = json.loads(sidecar.read_text())["config"]["sd"]
    assert not Path(named).is_absolute() and (tmp_path / named).resolve() == (parts / "sd").resolve()
    assert replay(sidecar)[1]


def test_another_generator_setting_makes_new_pictures_and_the_same_one_keeps_them(parts: Path, tmp_path: Path) -> None:
    file = tmp_path / "trial-000001_seed-0.png"
    generate_to_folder(parts / "run", parts / "pairs.zarr", tmp_path, config(parts), trials=[1])
    before = (file.stat().st_mtime_ns, file.read_bytes())
    generate_to_folder(parts / "run", parts / "pairs.zarr", tmp_path, config(parts), trials=[1])
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before
    generate_to_folder(parts / "run", parts / "pairs.zarr", tmp_path, config(parts, prompt="a cat"), trials=[1])
    assert file.read_bytes() != before[1]


def test_an_adapter_for_other_vectors_is_refused_with_both_names(parts: Path, tmp_path: Path) -> None:
    run = aligned_run(tmp_path / "run", {"name": "efficientnet-lite0", "fingerprint": "1", "width": 1280})
    with pytest.raises(ModelError) as caught:
        generate_to_folder(run, parts / "pairs.zarr", tmp_path / "out", config(parts), select="test")
    assert "clip:tiny" in str(caught.value) and "efficientnet-lite0" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_run_for_another_space_needs_a_generator_named(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no generator was named"):
        generate_to_folder(parts / "run", parts / "pairs.zarr", tmp_path, GenerateConfig(**FAST), select="test")


def test_the_embedded_generator_is_taken_for_the_embedded_target_and_has_a_prior(tmp_path: Path) -> None:
    reads = load_adapter("embedded").reads
    run = aligned_run(tmp_path / "run", {"name": "embedded", "fingerprint": reads.fingerprint, "width": reads.width})
    with_prior, without = (load_aligned_pipeline(run, None, prior=prior, scheduler="dpm-solver++") for prior in (True, False))
    vector = torch.randn(1, reads.width, generator=torch.Generator().manual_seed(0))
    first, second = (pipe.pictures(vector, [generator_for(0, 0)], steps=2) for pipe in (with_prior, without))
    assert first.shape == (1, 64, 64, 3)
    assert not np.array_equal(first, second)
    old = aligned_run(tmp_path / "old", {"name": "embedded", "fingerprint": "0" * 64, "width": reads.width})
    with pytest.raises(ModelError, match="weights"):
        load_aligned_pipeline(old, "embedded")


def test_a_prior_without_training_pictures_is_refused(parts: Path) -> None:
    with pytest.raises(ModelError, match="--prior"):
        load_aligned_pipeline(parts / "run", str(parts / "sd"), str(parts / "adapter" / "ip.safetensors"), prior=True)


def test_options_of_frozen_generators_are_refused_for_a_fine_tuned_run(parts: Path, tmp_path: Path) -> None:
    from generation.test_generate import make_model

    make_model(tmp_path / "model", parts / "sd")
    with pytest.raises(UsageError, match="--adapter"):
        generate_to_folder(tmp_path / "model", parts / "pairs.zarr", tmp_path / "out", GenerateConfig(**FAST, adapter="x"))


def test_the_turbo_preset_takes_the_folders_own_scheduler_without_guidance() -> None:
    chosen = resolve(GenerateConfig, presets=GENERATE_PRESETS, preset="turbo")
    assert (chosen.steps, chosen.scheduler, chosen.guidance) == (4, "own", 1.0)
    assert "sd" not in GenerateConfig().recipe()  # pictures made before these dials existed keep their fingerprint
