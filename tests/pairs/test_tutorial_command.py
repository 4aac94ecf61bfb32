"""The command for ImageNet-EEG in the tutorial runs as it stands, on a file of the same form in small."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_stable_diffusion

from cli import main
from cli._app import dreamdiff_app
from dreamdiff.eeg_input import SignalConfig
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.prepare import prepare
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs
from dreamdiff.pairs.reader import Pairs
from dreamdiff.training.task import Draw
from eegprep.settings import resolve

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial-reproduce-the-paper.md"
SYNSETS, EACH, PEOPLE = ("n02389026", "n03888257"), 4, 6


def small_imagenet_eeg(folder):
    """Six people x 8 trials, the split file that numbers trials of one person, and ILSVRC/train."""
    rng = np.random.default_rng(0)
    images = [f"{synset}_{k}" for synset in SYNSETS for k in range(EACH)]
    trials = [
        {
            "eeg": torch.tensor(rng.standard_normal((128, 500)), dtype=torch.float32),
            "image": i,
            "label": i // EACH,
            "subject": person,
        }
        for person in range(1, PEOPLE + 1)
        for i in range(len(images))
    ]
    torch.save({"dataset": trials, "labels": list(SYNSETS), "images": images}, folder / "eeg_5_95_std.pth")
    parts = {"train": [i for i in range(8) if i % EACH < 2], "val": [2, 6], "test": [3, 7]}
    torch.save({"splits": [parts]}, folder / "block_splits_by_image_single.pth")
    for name in images:
        file = folder / "ILSVRC" / "train" / name.partition("_")[0] / f"{name}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(file)


def test_the_import_of_the_tutorial_runs_as_it_stands(tmp_path, monkeypatch):
    """Subject 4 alone, as in all results that the paper prints."""
    (line,) = re.findall(r"^dreamdiff (pairs import eeg_5_95_std\.pth .*)$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE)
    small_imagenet_eeg(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert main.run(dreamdiff_app, "dreamdiff", shlex.split(line)) == 0

    pairs = Pairs.open("pairs.zarr")
    assert pairs.subjects == ["4"] and {name: len(rows) for name, rows in pairs.splits.items()} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }
    assert "subject 4" in TUTORIAL.read_text(encoding="utf-8")


@pytest.mark.parametrize("sfreq", [None, 160.0], ids=["converted", "pre-trained at 160 Hz"])
@pytest.mark.parametrize("preset", ["paper", "released"])
def test_converted_and_released_encoders_train_on_imagenet_eeg(tmp_path, sfreq, preset):
    """440 ms at 1 kHz, stretched to 512 samples: an encoder of 512 samples reads them one by one, whatever its own rate."""
    small_imagenet_eeg(tmp_path)
    config = ImportConfig(kind="imagenet-eeg", subjects=("4",), images=str(tmp_path / "ILSVRC/train"))
    import_pairs(tmp_path / "eeg_5_95_std.pth", tmp_path / "pairs.zarr", config)
    encoder = EEGEncoder(EncoderConfig(width=16, depth=1, heads=2, mlp_ratio=1.0))
    encoder.signal = SignalConfig(sfreq=sfreq)
    encoder.save_pretrained(tmp_path / "encoder")
    tiny_stable_diffusion(tmp_path / "sd")
    settings = resolve(
        FinetuneConfig,
        presets=FINETUNE_PRESETS,
        preset=preset,
        assignments=["loop.device=cpu", "w_clip=0", "preview_trials=0", "select=last"],
    )

    task = prepare(
        tmp_path / "pairs.zarr", str(tmp_path / "encoder"), str(tmp_path / "sd"), None, out=tmp_path / "run", config=settings
    )
    batch = task.data.batch(task.data.parts["train"][:2])

    assert batch["eeg"].shape == (2, 128, 512)
    assert torch.isfinite(task.step(batch, Draw(0, 0, batch["index"]))["loss"])
