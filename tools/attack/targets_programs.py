"""Commands around training: tables of trials, pairs that are a view of a corpus, the rows of the paper's tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import recordings
from campaign import Command
from harness import tree
from PIL import Image
from targets_training import weights
from tiny_evaluation import folder, tiny_pairs, tiny_parts

import eegprep
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs
from dreamdiff.pairs.importers.trial_table import make_table
from dreamdiff.programs.ablate_config import AblateConfig
from dreamdiff.programs.ablations import ablate
from eegprep import atomic


def _pictures(folder: Path) -> None:
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 20, 90)).save(folder / f"{number}.png")


def _log(inputs: Path) -> None:
    """Two recordings whose annotations name pictures, and the pictures."""
    _pictures(inputs / "pictures")
    for person in range(2):
        marks = b"".join(b"+%d\x15%d\x14%d.png\x14\0" % (4 * number + 2, 1, number % 4) for number in range(6))
        (inputs / f"{person}.edf").write_bytes(recordings.edf(32, 128, person, annotations=b"+0\x14\x14\0" + marks))
    lines = ["onset,image", *(f"{4 * number + 2},{number % 4}.png" for number in range(6))]
    for person in range(2):
        (inputs / f"{person}_log.csv").write_text("\n".join(lines) + "\n")


def _table(inputs: Path, out: Path) -> None:
    table = make_table(f"files:{inputs}/*.edf", inputs, log="*_log.csv", images=inputs / "pictures")
    atomic.write_text(out, table.frame.to_csv(index=False))


def _corpus_and_trials(inputs: Path) -> None:
    _pictures(inputs / "pictures")
    eegprep.build(recordings.people(inputs / "rec", 2), inputs / "c.zarr")
    windows = len(eegprep.Corpus.open(inputs / "c.zarr"))
    rows = [f"{number},{number % 4}.png,{'cat' if number % 2 else 'dog'}" for number in range(windows)]
    (inputs / "trials.csv").write_text("\n".join(["window,image,label", *rows]) + "\n")


def _view(inputs: Path, out: Path) -> None:
    trials, images = str(inputs / "trials.csv"), str(inputs / "pictures")
    import_pairs(inputs / "c.zarr", out, ImportConfig(kind="corpus", trials=trials, images=images, split_by="trial"))


def _ablatable(inputs: Path) -> None:
    """Pairs of the length that the rows' encoders read, and the parts of a generator; the folder of the tests goes with its process."""
    shutil.copytree(tiny_pairs(), inputs / "pairs.zarr")
    for name, made in zip(("sd", "clip"), tiny_parts(), strict=True):
        shutil.copytree(made, inputs / name)
    shutil.rmtree(folder())


def _ablate(inputs: Path, out: Path) -> None:
    config = AblateConfig(
        pairs=str(inputs / "pairs.zarr"), sd=str(inputs / "sd"), clip=str(inputs / "clip"), pretrain_steps=2, finetune_epochs=1,
        trials=4, samples=1, steps=1, baseline_epochs=1, device="cpu",
    )  # fmt: skip
    ablate(out, ("full", "3"), config)


def _rows(out: Path) -> dict[str, str]:
    """Weights of every run, and what was measured; logs hold times."""
    table = json.loads((out / "table2.json").read_text())["rows"]
    return weights(out) | {row["row"]: json.dumps(row["values"], sort_keys=True) for row in table}


COMMANDS = [
    Command("pairs table", _log, _table, tree, share=0.3),
    Command("pairs of a corpus", _corpus_and_trials, _view, share=0.5),
    Command("ablate", _ablatable, _ablate, _rows, share=0.05),
]
