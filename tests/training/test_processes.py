"""Several processes over gloo learn what one process with the whole batch learns, in every stage; moments may be spread over them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dreamdiff.training.history import read_history

BATCH = 8
ROOT = Path(__file__).parents[2]


def stages(folder: Path, processes: int, shard: bool) -> None:
    """Four steps of each stage, `BATCH` samples in all; what a launched process runs too."""
    from alignment.tiny_alignment import make_pairs, small_config
    from tiny_models import tiny_stable_diffusion
    from tiny_pairs import CHANNELS, SAMPLES

    from dreamdiff.alignment.prepare import align
    from dreamdiff.encoders.config import EncoderConfig
    from dreamdiff.encoders.encoder import EEGEncoder
    from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
    from dreamdiff.finetuning.prepare import finetune
    from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
    from dreamdiff.pretraining.pretrain import pretrain
    from eegprep.corpus.export import from_arrays
    from eegprep.settings import resolve

    torch.set_num_threads(1)
    shared = folder.parent / "shared"
    if not shared.exists():  # made before anything is launched
        shared.mkdir()
        make_pairs(shared)
        tiny_stable_diffusion(shared / "sd")
        torch.manual_seed(0)
        EEGEncoder(EncoderConfig(channels=CHANNELS, window=SAMPLES, width=16, depth=1, heads=2)).save_pretrained(
            shared / "encoder"
        )
        windows = torch.randn(40, 6, 64, generator=torch.Generator().manual_seed(1)).numpy() * 10
        from_arrays(shared / "corpus.zarr", windows, sfreq=128.0, pad_to=6, licence="CC0-1.0")
    each = BATCH // processes
    loop = ["loop.device=cpu", "loop.tracker=none", "loop.max_steps=4", f"loop.shard_optimizer={str(shard).lower()}"]
    sizes = ["channels=6", "window=64", "width=16", "depth=1", "heads=2"]
    model = [*(f"model.encoder.{size}" for size in sizes), *(f"model.decoder.{size}" for size in sizes[2:])]
    pretraining = [*loop, *model, f"data.batch_size={each}", "data.validation=none"]
    pretrain(
        shared / "corpus.zarr",
        folder / "msm",
        resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset="tiny", assignments=pretraining),
    )
    # losses that compare the samples of a batch have more to compare in a larger one: left out here
    aligning = small_config(*loop, f"batch_size={each}", "loss.contrastive=0", "dropout=0")
    align(shared / "pairs.zarr", folder / "align", aligning, targets=(f"vectors:{shared / 'vectors.npz'}",), offline=True)
    tuning = [*loop, f"data.batch_size={each}", "losses.w_clip=0", "losses.guidance_dropout=0.2", "validation.preview_trials=0",
              "validation.select=last"]  # fmt: skip
    config = resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset="tiny", assignments=tuning)
    finetune(
        shared / "pairs.zarr", str(shared / "encoder"), str(shared / "sd"), "none", folder / "finetune", config, offline=True
    )


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_history(folder) if "loss" in line]


@pytest.mark.slow
def test_every_stage_learns_the_same_on_two_and_on_four_processes(tmp_path) -> None:
    """Also with the moments of AdamW spread over the processes, whose checkpoints are those of one."""
    from safetensors.torch import load_file

    stages(tmp_path / "one", 1, False)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    for processes, shard in ((2, True), (4, False)):
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            str(processes),
            "--master-port",
            "0",
            "--standalone",
        ]
        out = tmp_path / f"on-{processes}"
        done = subprocess.run(
            [*launch, __file__, str(out), json.dumps([processes, shard])],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        for stage in ("msm", "align", "finetune"):
            assert len(losses(out / stage)) == 4
            assert losses(out / stage) == pytest.approx(losses(tmp_path / "one" / stage), rel=1e-4), (processes, stage)
            one, many = (
                load_file(folder / stage / "checkpoints/step-00000004/optimizer.safetensors")
                for folder in (tmp_path / "one", out)
            )
            assert one.keys() == many.keys()
            for name in one:
                torch.testing.assert_close(many[name], one[name], rtol=2e-2, atol=1e-5)


if __name__ == "__main__":
    stages(Path(sys.argv[1]), *json.loads(sys.argv[2]))
