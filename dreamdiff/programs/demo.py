"""Everything in a row on what ships with the package: recordings, corpus, models, pictures, controls, one page.

Every step is the same function that the commands call, so every step can be killed and taken up again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import eegprep
from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
from dreamdiff.alignment.prepare import align
from dreamdiff.evaluation.retrieve import retrieve
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.prepare import finetune
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.programs.demo_config import MANIFEST, SFREQ, STRIDE, WINDOW, DemoConfig, Folders, claim
from dreamdiff.programs.demo_page import write_page
from dreamdiff.programs.demo_paper import PaperRoute, paper_route
from dreamdiff.programs.demo_pictures import DemoPictures, make_pictures
from dreamdiff.protocols.config import RetrieveConfig
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.simulate import simulate
from dreamdiff.training.task import FitResult
from eegprep.folders import cache_folder
from eegprep.recording import ProgressCallback
from eegprep.settings import resolve

# name of each step, and seconds on two free cores: only the ratios matter, for the time that is left
STEPS = (
    ("corpus of genuine recordings", 12),
    ("masked-signal pre-training on it", 55),
    ("simulated EEG-image pairs", 40),
    ("EEG to image vectors, two encoders", 40),
    ("pictures by a frozen generator, and which part they owe their accuracy to", 95),
    ("the paper's route", 75),
    ("retrieval with its certificate, and the page", 25),
)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class DemoResult:
    """What a demo ends with. says: the result in one sentence, with chance and interval."""

    page: Path
    says: str
    next_commands: tuple[str, ...]


@dataclass
class _Steps:
    """Says which step begins on the progress bar, and leaves one line for each that has ended."""

    progress: ProgressCallback | None
    tell: Tell | None
    began: float = field(default_factory=time.monotonic)
    step: int = 0
    started: float = 0.0

    def begin(self) -> None:
        self.started = time.monotonic()
        if self.progress is not None:
            self.progress(0, 0, f"[{self.step + 1}/{len(STEPS)}] {STEPS[self.step][0]}")

    def end(self, made: str) -> None:
        took, spent = time.monotonic() - self.started, time.monotonic() - self.began
        self.step += 1
        known, left = (sum(seconds for _, seconds in part) for part in (STEPS[: self.step], STEPS[self.step :]))
        rest = f", about {max(1, round(left * spent / known / 60))} min left" if left else ""
        if self.tell is not None:
            self.tell(f"[{self.step}/{len(STEPS)}] {STEPS[self.step - 1][0]}: {made} ({_clock(took)}{rest})")


def run(
    out: str | Path, config: DemoConfig | None = None, *, progress: ProgressCallback | None = None, tell: Tell | None = None
) -> DemoResult:
    """Run all steps and write the page; run again to take up a demo that was stopped.

    Args:
        out: folder of the demo; it is created.
        config: sizes.
        tell: takes one line for each step that has ended.

    Raises:
        StoreError: `out` holds something else.
    """
    config = config or DemoConfig()
    folders = Folders(Path(out))
    claim(folders.out)
    steps = _Steps(progress, tell)
    prepare(folders, config, progress, steps)
    pairs = Pairs.open(folders.pairs)
    steps.begin()
    pictures = make_pictures(pairs, folders.aligned, folders.paper_encoder, folders.pictures, config, progress=progress)
    steps.end(f"{len(pictures.shown)} drawings on the page")
    steps.begin()
    paper = _paper_route(folders, config, pictures, progress)
    steps.end(f"fine-tuned; {paper.says}")
    steps.begin()
    judged = retrieve(
        folders.aligned, folders.pairs, folders.retrieval, RetrieveConfig(seed=config.seed, device=config.device), offline=True
    )
    says = write_page(folders, config, pictures, paper, judged)
    steps.end(str(folders.page))
    return DemoResult(folders.page, says, _next(folders))


def prepare(folders: Folders, config: DemoConfig, progress: ProgressCallback | None = None, steps: _Steps | None = None) -> None:
    """The steps up to the aligned encoders: corpus, pre-training, pairs, alignment."""
    steps = steps or _Steps(progress, None)
    steps.begin()
    eegprep.build(MANIFEST, folders.corpus, offline=True, window=WINDOW, stride=STRIDE, resample=SFREQ, progress=progress)
    steps.end(f"{len(eegprep.Corpus.open(folders.corpus))} windows of one second")
    steps.begin()
    shape = (f"model.encoder.window={WINDOW}", f"augment.shift={STRIDE}")
    pretraining = resolve(
        PretrainConfig, presets=PRETRAIN_PRESETS, preset="tiny", assignments=[*shape, *config.pretrain], options=config.loop
    )
    finished(pretrain(folders.corpus, folders.pretrained, pretraining, progress=progress))
    steps.end("the paper's encoder, small")
    steps.begin()
    dials = SimulateConfig(
        people=config.people, trials=config.trials, snr=config.snr, seed=config.seed, sfreq=SFREQ, test_share=config.test_share
    )
    pairs = simulate(folders.pairs, dials, progress=progress)
    steps.end(f"{len(pairs)} trials of {len(pairs.subjects)} people")
    steps.begin()
    choice = resolve(AlignConfig, presets=ALIGN_PRESETS, preset="jitter", assignments=config.align, options=config.loop)
    for encoder, run_folder in (("conv", folders.aligned), (f"msm:{folders.pretrained}", folders.paper_encoder)):
        finished(
            align(folders.pairs, run_folder, choice, encoder=encoder, targets=("embedded",), progress=progress, offline=True)
        )
    steps.end("a convolution, and the paper's encoder")


def _paper_route(folders: Folders, config: DemoConfig, pictures: DemoPictures, progress: ProgressCallback | None) -> PaperRoute:
    tuning = resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset="demo", assignments=config.finetune, options=config.loop)
    finished(
        finetune(
            folders.pairs, str(folders.pretrained), "embedded", "embedded", folders.finetuned, tuning, progress=progress, offline=True
        )
    )  # fmt: skip
    return paper_route(Pairs.open(folders.pairs), folders.finetuned, pictures, folders.paper, config, progress=progress)


def _next(folders: Folders) -> tuple[str, ...]:
    return (
        f"dreamdiff app --model {folders.aligned} --pairs {folders.pairs}",
        f"dreamdiff generate --model {folders.aligned} --eeg {folders.pairs} --select test --sd embedded --out pictures",
    )


def model_and_pairs(*, device: str = "auto", progress: ProgressCallback | None = None) -> tuple[Path, Path]:
    """The aligned encoder of the demo and its pairs, from the user's cache folder; made there on the first call."""
    folder = cache_folder(f"demo-{metadata.version('eeg-dreamdiff')}")
    claim(folder)
    folders = Folders(folder)
    prepare(folders, DemoConfig(device=device), progress)
    return folders.aligned, folders.pairs


def finished(result: FitResult) -> None:
    """A training that was asked to stop ends early and without an error; the steps after it need it whole."""
    if not result.finished:
        raise KeyboardInterrupt


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
