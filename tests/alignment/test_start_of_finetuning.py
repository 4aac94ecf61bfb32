"""`train finetune` starts from an aligned encoder: whole trials in, the same tokens out, and a pipeline that can be read again."""

from __future__ import annotations

import numpy as np
import torch
from tiny_alignment import make_pairs, small_config
from tiny_models import tiny_clip, tiny_stable_diffusion

from dreamdiff.alignment.model import AlignedEncoder, fronted_encoder
from dreamdiff.alignment.prepare import align
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.finetuning import prepare as finetuning
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.pairs.reader import Pairs
from eegprep.settings import resolve


def test_an_aligned_run_is_where_fine_tuning_starts(tmp_path):
    pairs, target = make_pairs(tmp_path)
    align(pairs, tmp_path / "aligned", small_config("loop.epochs=2", "maps=shared"), targets=[target])
    store, model = Pairs.open(pairs), AlignedEncoder.from_pretrained(tmp_path / "aligned")
    eeg = torch.from_numpy(store.eeg([0, 1, 2]))
    whole = fronted_encoder(tmp_path / "aligned")
    expected = model.tokens(model.front(eeg), torch.full((3,), -1))
    assert torch.allclose(whole(eeg), expected, atol=1e-5)

    config = resolve(
        FinetuneConfig, presets=FINETUNE_PRESETS, preset="tiny",
        assignments=["loop.device=cpu", "loop.max_steps=2", "validation.preview_trials=0", "validation.select=last"],
    )  # fmt: skip
    sd, clip = tiny_stable_diffusion(tmp_path / "sd"), tiny_clip(tmp_path / "clip")
    task = finetuning.prepare(pairs, str(tmp_path / "aligned"), str(sd), str(clip), tmp_path / "run", config, offline=True)
    finetuning.fit_task(task)

    task.module.eval()
    again = DreamDiffusionPipeline.from_pretrained(tmp_path / "run")
    result = again.encode(store.eeg([0, 1])).clip_BD
    assert tuple(again.encoder.front.whitener_PCC.shape) == (1, 6, 6)
    np.testing.assert_allclose(result.numpy(), task.pipeline().encode(store.eeg([0, 1])).clip_BD.detach().numpy(), atol=1e-5)


def test_a_pipeline_with_a_front_end_moves_and_says_where_it_is(tmp_path):
    """diffusers asks every part for its device and type."""
    pairs, target = make_pairs(tmp_path)
    align(pairs, tmp_path / "aligned", small_config("loop.max_steps=1"), targets=[target])

    encoder = fronted_encoder(tmp_path / "aligned").to(torch.float64)

    assert (encoder.device, encoder.dtype) == (torch.device("cpu"), torch.float64)
