"""Writes the demo's HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pydantic import Field

import eegprep
from dreamdiff.evaluation.result import Evaluation
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pretraining.pretrain import read_validation
from dreamdiff.simulation.config import SimulateConfig
from eegprep.inspection.page import Page
from eegprep.inspection.pictures import head_map, traces
from eegprep.recording import Recording
from eegprep.settings import Settings
from eegprep.sources.reading import read_source

MANIFEST = "sample.toml"

STRIDE = 64  # samples; overlapping windows: ten minutes of EEG are little to learn from

SIMULATED = (
    "The recordings, the corpus and the pre-training on this page are genuine. The EEG-image pairs are simulated: public EEG with "
    "image identity may not be shipped. What the images show is that the software finds an answer that is known to be there, "
    "not that brains can be read."
)


class DemoConfig(Settings):
    """Sizes of the demo; the defaults end within ten minutes on two cores."""

    people: int = Field(default=2, description="Simulated people")
    trials: int = Field(default=20, description="Simulated trials per category and person")
    snr: float = Field(default=SimulateConfig(sources="linear").snr, description="Evoked power over background power, dB")
    pretrain: tuple[str, ...] = Field(
        default=("data.validation=recording", "loop.tracker=none"), description="Further settings of pre-training, as KEY=VALUE"
    )
    finetune: tuple[str, ...] = Field(default=(), description="Further settings of fine-tuning, as KEY=VALUE")
    shown: int = Field(default=40, description="Held-out trials on the page, spread over the categories")
    samples: int = Field(default=2, description="Images per trial on the page")
    evaluated: int = Field(default=160, description="Held-out trials that the accuracy is measured on, at most")
    controlled: int = Field(default=40, description="Held-out trials for each control")
    steps: int = Field(default=20, description="Sampler steps per image")
    seed: int = Field(default=0, description="Seed of everything random")


@dataclass(frozen=True)
class Folders:
    """Where the steps of a demo write."""

    out: Path

    @property
    def corpus(self) -> Path:
        return self.out / "corpus.zarr"

    @property
    def pretrained(self) -> Path:
        return self.out / "pretrained"

    @property
    def pairs(self) -> Path:
        return self.out / "pairs.zarr"

    @property
    def finetuned(self) -> Path:
        return self.out / "finetuned"

    @property
    def evaluation(self) -> Path:
        return self.out / "evaluation"

    @property
    def images(self) -> Path:
        return self.evaluation / "images"  # the evaluation keeps what is there

    @property
    def page(self) -> Path:
        return self.out / "index.html"


# ---------------------------------------------------------------------------------------------- the page


def write_page(folders: Folders, config: DemoConfig, chosen: np.ndarray, found: Evaluation) -> None:
    """Pictures of every stage on one page."""
    pairs = Pairs.open(folders.pairs)
    page = Page("From EEG to pictures: the demo", "What ships with the package, run from the recordings to the images.")
    page.text(SIMULATED, "warning")
    _recordings_part(page)
    _corpus_part(page, folders)
    _pretraining_part(page, folders)
    _pairs_part(page, pairs)
    _images_part(page, folders, config, pairs, chosen)
    _scores_part(page, found)
    page.heading("The same by hand")
    page.code(_commands(config))
    page.write(folders.page)


def _recordings_part(page: Page) -> None:
    first: Recording = next(iter(read_source(MANIFEST)))
    band = (5.0, 0.45 * first.sfreq)
    filtered_CT = eegprep.band_pass(first.signal_CT, first.sfreq, *band)
    start = 10 * int(first.sfreq)
    stretch = slice(start, start + 512)
    figure = Figure(figsize=(11, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    traces(upper, first.signal_CT[:, stretch], first.sfreq, first.channels, start=10.0, most=12)
    traces(lower, filtered_CT[:, stretch], first.sfreq, first.channels, start=10.0, most=12)
    upper.set_title("as recorded", loc="left")
    lower.set_title(f"after the {band[0]:g}-{band[1]:g} Hz band-pass", loc="left")
    page.heading("1. Genuine recordings")
    page.text(
        f"{first.name}: {len(first.channels)} channels at {first.sfreq:g} Hz, from the PhysioNet EEG Motor Movement/Imagery Dataset "
        f"(ODC-BY 1.0; Schalk et al. 2004, Goldberger et al. 2000). At this rate 95 Hz cannot be represented, so the upper edge is "
        f"clipped to {band[1]:g} Hz and the corpus says so."
    )
    page.figure(figure, "512 samples of 12 of the channels, before and after filtering.")


def _corpus_part(page: Page, folders: Folders) -> None:
    corpus = eegprep.Corpus.open(folders.corpus)
    window_CT = corpus.read([len(corpus) // 2])[0]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    limit = float(np.percentile(np.abs(window_CT), 99))
    picture = axes.imshow(window_CT, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_xlabel("sample")
    axes.set_ylabel("row")
    figure.colorbar(picture, ax=axes, label="µV")
    page.heading("2. The corpus")
    page.text(f"{len(corpus)} windows of 128 rows and 512 samples in a zarr store that plain zarr opens.")
    page.table([{k: v for k, v in row.items() if k != "windows_shape"} for row in _rows(corpus.subjects)])
    page.figure(figure, "One window: 64 channels, repeated from row 64 on as the paper fills up missing channels.")


def _pretraining_part(page: Page, folders: Folders) -> None:
    found = read_validation(folders.pretrained)
    page.heading("3. Masked signal modelling")
    page.text(
        "Three quarters of the tokens are hidden and rebuilt. Errors below are mean squared errors on hidden tokens of recordings "
        "that were not trained on."
    )
    page.table([{"predictor": key, "value": value} for key, value in found.items() if isinstance(value, int | float)])
    for name, caption in (
        ("loss.png", "Training and held-out loss."),
        ("reconstruction.png", "Original, hidden and rebuilt signal of a held-out window."),
    ):
        page.png((folders.pretrained / name).read_bytes(), caption)


def _pairs_part(page: Page, pairs: Pairs) -> None:
    subject = pairs.subjects[0]
    facts = pairs.attributes[subject]
    train = pairs.select(split="train", subjects=[subject])
    mean_CT = train.eeg().mean(axis=0)
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    time_T = float(facts["t0"]) + np.arange(mean_CT.shape[1]) / float(facts["sfreq"])
    left.plot(1000 * time_T, mean_CT.T, lw=0.5, color="#1d2430", alpha=0.5)
    left.set_xlabel("time after the image (ms)")
    left.set_ylabel("µV")
    peak = int(np.argmax(mean_CT.std(axis=0)))
    places = np.array([[np.nan if v is None else v for v in row] for row in facts["positions"]], dtype=float)
    head_map(right, mean_CT[:, peak], places, label=f"µV at {1000 * time_T[peak]:.0f} ms")
    page.heading("4. Simulated EEG-image pairs")
    page.text(
        f"Simulated. {len(pairs)} trials of {len(pairs.subjects)} people and {len(pairs.classes)} categories. Dipoles in occipito-temporal "
        f"cortex, driven by the CLIP vector of each drawing, on background from the genuine recordings; signal-to-noise ratio of one "
        f"trial {facts['snr_db']:g} dB. Test trials show drawings that training trials never show.",
        "warning",
    )
    page.figure(figure, f"Mean response of {subject} over {len(train)} training trials (simulated), and its map over the head.")


def _images_part(page: Page, folders: Folders, config: DemoConfig, pairs: Pairs, chosen: np.ndarray) -> None:
    page.heading("5. Fine-tuning")
    page.text(
        "EEG encoder, projector and cross-attention are trained; the rest of the generator and CLIP stay as they are. The projector starts "
        "from a linear map that is fitted in closed form on the training trials, EEG to CLIP vectors of the drawings, and attends from there to "
        "captions of the 40 category names. This start is ours, not the paper's, and does most of the decoding. The generator is the small embedded model, not Stable Diffusion: it draws "
        "64-pixel icons of 40 categories."
    )
    page.png((folders.finetuned / "loss.png").read_bytes(), "Training and validation loss.")
    page.heading("6. Images for held-out trials")
    page.text(
        f"The first held-out trial of each category, in order, none left out: the drawing that was shown, then {config.samples} images "
        "from the (simulated) EEG of that one trial."
    )
    cells: list[tuple[np.ndarray, str]] = []
    from PIL import Image

    for number, shown in zip(chosen, pairs.images(chosen, size=64), strict=True):
        cells.append((shown, f"seen: {pairs.classes[int(pairs.labels[number])]}"))
        for k in range(config.samples):
            with Image.open(folders.images / f"trial-{int(number):06d}_seed-{config.seed + k}.png") as image:
                cells.append((np.asarray(image.convert("RGB")), f"from EEG, seed {config.seed + k}"))
    page.grid(cells)


def _scores_part(page: Page, found: Evaluation) -> None:
    page.heading("7. Accuracy, chance and controls")
    page.text(found.first_line, "verdict")
    page.text(
        "Means over all images, never the best of several; 95 % bootstrap intervals over trials. The judge names the category whose "
        "training drawings are nearest in the features of an ImageNet classifier that had no part in the training. The floor is what "
        "somebody reaches who knows how often each category is shown and nothing of the EEG."
    )
    rows = [_score_row("EEG of the trial", m) for m in found.measurements]
    wanted = {"noise", "across classes"}
    rows += [_score_row(f"control: {c.told}", m) for c in found.generation if c.name in wanted for m in c.measurements]
    page.table(rows)
    page.text(
        "All measurements, the confusion matrix, the controls of the decoder and the audit of the split: evaluation/report.html."
    )


def _score_row(what: str, m: Any) -> dict[str, object]:
    return {
        "images from": what,
        "measurement": m.name,
        "value": m.value,
        "interval": f"{m.low:.3g} to {m.high:.3g}",
        "floor": m.floor,
        "n": m.n,
    }


def _rows(table: Any) -> list[dict[str, object]]:
    return [{str(k): v for k, v in row.items()} for row in table.reset_index().to_dict("records")]


def _commands(config: DemoConfig) -> str:
    return (
        f"eegprep build sample.toml --out corpus.zarr --stride {STRIDE}\n"
        f"dreamdiff train msm --store corpus.zarr --out pretrained --preset tiny {' '.join('--set ' + a for a in config.pretrain)}\n"
        f"dreamdiff pairs simulate --out pairs.zarr --people {config.people} --trials {config.trials} --seed {config.seed}\n"
        "dreamdiff train finetune --pairs pairs.zarr --encoder pretrained --sd embedded --clip embedded --out finetuned --preset demo\n"
        f"dreamdiff generate --model finetuned --eeg pairs.zarr --out images --select test --samples {config.samples}\n"
        "dreamdiff evaluate --model finetuned --pairs pairs.zarr --out evaluation\n"
        "dreamdiff app --model finetuned --pairs pairs.zarr"
    )
