"""Everything in a row on what ships with the package: recordings, corpus, pre-training, fine-tuning, images, controls, one page.

Every step is the same function that the commands call, so every step can be killed and taken up again.
Shapes: N trials, C channels, T samples, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

import eegprep
from dreamdiff.evaluation.evaluate import evaluate
from dreamdiff.evaluation.report import write_report
from dreamdiff.evaluation.scorer import EvaluateConfig
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.prepare import finetune
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.files import generate_to_folder
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.programs.demo_page import MANIFEST, STRIDE, DemoConfig, Folders, write_page
from dreamdiff.simulation import simulate
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.training.task import FitResult
from eegprep.errors import StoreError
from eegprep.folders import cache_folder
from eegprep.recording import ProgressCallback
from eegprep.settings import resolve

MARKER = ".dreamdiff-demo"  # says that a folder is ours to write into


def run(out: str | Path, config: DemoConfig | None = None, *, progress: ProgressCallback | None = None) -> Path:
    """Run all steps and write the page; run again to take up a demo that was stopped.

    Args:
        out: folder of the demo; it is created.
        config: sizes.

    Returns:
        The page.

    Raises:
        StoreError: `out` holds something else.
    """
    config = config or DemoConfig()
    folders = Folders(Path(out))
    _claim(folders.out)
    prepare(folders, config, progress)
    say = _steps(progress)
    say("images for held-out trials")
    chosen = shown_trials(Pairs.open(folders.pairs), config.shown)
    making = GenerateConfig(steps=config.steps, samples=config.samples, seed=config.seed)
    generate_to_folder(folders.finetuned, folders.pairs, folders.images, making, trials=chosen.tolist(), progress=progress)
    say("accuracy and controls")
    judging = EvaluateConfig(
        samples=1, trials=config.evaluated, steps=config.steps, seed=config.seed, controls=True, control_trials=config.controlled
    )
    found = evaluate(folders.finetuned, folders.pairs, folders.evaluation, judging, progress=progress)
    write_report(found, folders.evaluation / "report.html")
    say("page")
    write_page(folders, config, chosen, found)
    return folders.page


def prepare(folders: Folders, config: DemoConfig, progress: ProgressCallback | None = None) -> None:
    """The steps up to a fine-tuned model: corpus, pre-training, pairs, fine-tuning."""
    say = _steps(progress)
    say("corpus from the sample recordings")
    eegprep.build(MANIFEST, folders.corpus, offline=True, stride=STRIDE, progress=progress)
    say("masked-signal pre-training")
    pretraining = resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset="tiny", assignments=config.pretrain)
    _finished(pretrain(folders.corpus, folders.pretrained, pretraining, progress=progress))
    say("simulated EEG-image pairs")
    dials = SimulateConfig(sources="linear", people=config.people, trials=config.trials, snr=config.snr, seed=config.seed)
    simulate.simulate(folders.pairs, dials, progress=progress)
    say("fine-tuning of the embedded model")
    tuning = resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset="demo", assignments=config.finetune)
    _finished(
        finetune(
            folders.pairs,
            str(folders.pretrained),
            "embedded",
            "embedded",
            folders.finetuned,
            tuning,
            progress=progress,
            offline=True,
        )
    )


def model_and_pairs(*, progress: ProgressCallback | None = None) -> tuple[Path, Path]:
    """The fine-tuned model of the demo and its pairs, from the user's cache folder; made there on the first call."""
    folder = cache_folder(f"demo-{metadata.version('eeg-dreamdiff')}")
    _claim(folder)
    folders = Folders(folder)
    prepare(folders, DemoConfig(), progress)
    return folders.finetuned, folders.pairs


def shown_trials(pairs: Pairs, count: int) -> np.ndarray:
    """Numbers of held-out trials for the page: the first of each category, then the second, ...; nothing is chosen by result."""
    test = pairs.select(split="test")
    rank = np.zeros(len(test), dtype=int)
    for label in np.unique(test.labels):
        mine = np.flatnonzero(test.labels == label)
        rank[mine] = np.arange(len(mine))
    return np.asarray(test.indices)[np.lexsort((test.labels, rank))[:count]]


def _finished(result: FitResult) -> None:
    """A training that was asked to stop ends early and without an error; the steps after it need it whole."""
    if not result.finished:
        raise KeyboardInterrupt


def _claim(out: Path) -> None:
    """Make `out`, or stop when it holds something that is not a demo."""
    if out.exists() and not (out / MARKER).exists() and any(out.iterdir()):
        raise StoreError(f"{out}: is not empty and is not a demo folder", "choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def _steps(progress: ProgressCallback | None) -> Callable[[str], None]:
    def say(what: str) -> None:
        if progress is not None:
            progress(0, 0, what)

    return say
