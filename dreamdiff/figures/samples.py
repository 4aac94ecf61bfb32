"""Figures 3, 4 and 6 of the paper: what was shown beside what a model draws, beside Brain2Image, and where it fails.

Trials are taken evenly from all classes by a seed, so that nobody picks the pretty ones; the page says which and how many.
Shapes: N trials, S samples a trial, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamdiff.arrays import Array, Ints
from dreamdiff.baselines.features import Problem
from dreamdiff.baselines.run import run_baseline
from dreamdiff.evaluation.evaluate import choose_trials, evenly, make_scorer, read_images, split_name
from dreamdiff.evaluation.failures import count_failures, failures, pick_failures
from dreamdiff.evaluation.result import Material
from dreamdiff.evaluation.scorer import clip_width, load_networks
from dreamdiff.figures.numbers import check_number
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.files import generate_to_folder
from dreamdiff.generation.generate import load_pipeline
from dreamdiff.origin import PictureOrigin, picture_origin
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.config import EvaluateConfig
from eegprep.errors import DataError, ModelError
from eegprep.inspection.page import Page
from eegprep.recording import ProgressCallback
from eegprep.words import count

SHOWN = 12  # trials on a page where no number is given
OF_FIGURE_4 = ("airliner", "jack-o'-lantern", "panda")
OTHER_NAMES = {"giant panda": "panda"}  # ImageNet's own name
BRAIN2IMAGE = ("brain2image-vae", "brain2image-gan")


@dataclass(frozen=True)
class Drawn:
    """Trials, what was shown in them, and what the model drew."""

    store: Pairs
    train: Ints
    chosen: Ints
    truth_NHWC: Array
    images_NSHWC: Array
    origin: PictureOrigin

    def label(self, row: int) -> str:
        """Class of the image that was shown."""
        return self.store.classes[int(self.store.labels[self.chosen[row]])]

    def name(self, row: int) -> str:
        """Person and trial."""
        position = self.chosen[row]
        return f"{self.store.subjects[int(self.store.person[position])]}, trial {int(self.store.trial[position])}"


def draw_figure(
    number: int, model: str | Path, pairs: str | Path, out: Path, config: EvaluateConfig | None = None, *, images: Path | None = None,
    say: Callable[[str], None] | None = None, progress: ProgressCallback | None = None,
) -> Path:  # fmt: skip
    """Write `figure-NUMBER.html` into `out`; images that are there already are kept.

    Args:
        number: 3, 4 or 6. model: run of `dreamdiff train finetune`, or a pipeline folder.
        pairs: store. images: folder of its image files, if they have moved.
        config: of the evaluation; samples a trial are three at least in Figure 3, as in the paper.

    Raises:
        UsageError: another figure. DataError: no trial of the classes of Figure 4. ModelError: Figure 6 without a judge.
    """
    check_number(number)
    config = config or EvaluateConfig()
    if number == 3 and config.samples < 3:
        config = config.model_copy(update={"samples": 3})
    write = {3: _figure3, 4: _figure4, 6: _figure6}[number]
    page = write(model, pairs, out, config, images, say, progress)
    file = out / f"figure-{number}.html"
    page.write(file)
    return file


def _draw(
    model: str | Path, pairs: str | Path, out: Path, config: EvaluateConfig, images: Path | None, say: Callable[[str], None] | None,
    progress: ProgressCallback | None, *, classes: Sequence[int] | None = None,
) -> Drawn:  # fmt: skip
    """Generate for the trials of the page; of some classes where they are named."""
    making = GenerateConfig(
        steps=config.steps, samples=config.samples, seed=config.seed, scheduler=config.scheduler, guidance=config.guidance,
        batch_size=config.batch_size, device=config.device, precision=config.precision,
    )  # fmt: skip
    pipeline = load_pipeline(model, making)
    store, _ = Pairs.open(pairs, images=images).at_model_rate(pipeline.details.signal, pipeline.encoder.config.window)
    parts, every = choose_trials(store, config.model_copy(update={"trials": None}))
    if classes is not None:
        every = every[np.isin(store.labels[every], classes)]
    chosen = evenly(every, store.labels, config.trials or SHOWN, config.seed)
    generate_to_folder(
        model,
        pairs,
        out / "images",
        making,
        trials=[int(i) for i in store.indices[chosen]],
        images=images,
        say=say,
        progress=progress,
    )
    size = pipeline.image_size
    origin = picture_origin(
        pipeline.details.training, model=Path(model).resolve().name, generator=None, eeg=store.provenance, licence=store.licence
    )
    made = read_images(out / "images", store.indices[chosen], making, size)
    return Drawn(store, parts["train"], chosen, store.images(chosen, size=size), made, origin)


def _page(number: int, title: str, lead: str, drawn: Drawn, config: EvaluateConfig) -> Page:
    page = Page(f"Figure {number}: {title}", lead)
    origin = drawn.origin.sentence
    page.text(f"{origin[:1].upper()}{origin[1:]}.", "warning" if "simulated" in (drawn.origin.eeg, drawn.origin.training) else "")
    name, part = split_name(config.split)
    page.text(
        f"{count(len(drawn.chosen), 'trial')} of part {part!r} of split {name!r}, evenly from all classes, drawn with seed {config.seed}; "
        f"{count(config.samples, 'sample')} a trial, {count(config.steps, 'step')}. No sample was picked."
    )
    return page


def _figure3(
    model: str | Path, pairs: str | Path, out: Path, config: EvaluateConfig, images: Path | None, say: Callable[[str], None] | None,
    progress: ProgressCallback | None,
) -> Page:  # fmt: skip
    drawn = _draw(model, pairs, out, config, images, say, progress)
    page = _page(
        3,
        "the image that was seen, and samples from EEG",
        "Left: shown. Beside it: drawn from the EEG of that trial.",
        drawn,
        config,
    )
    page.sets(
        [(drawn.truth_NHWC[row], f"{drawn.label(row)}, shown"), *((image, f"sample {k + 1}") for k, image in enumerate(samples))]
        for row, samples in enumerate(drawn.images_NSHWC)
    )
    return page


def _figure4(
    model: str | Path, pairs: str | Path, out: Path, config: EvaluateConfig, images: Path | None, say: Callable[[str], None] | None,
    progress: ProgressCallback | None,
) -> Page:  # fmt: skip
    store = Pairs.open(pairs, images=images)
    labels = labels_of(store, OF_FIGURE_4)
    missing = [name for name in OF_FIGURE_4 if name not in labels]
    if not labels:
        raise DataError(
            f"{pairs}: holds none of the classes of Figure 4 ({', '.join(OF_FIGURE_4)})",
            "use --figure 3, which takes all classes",
        )
    drawn = _draw(model, pairs, out, config, images, say, progress, classes=list(labels.values()))
    problem = Problem(drawn.store, drawn.train, drawn.chosen, drawn.truth_NHWC.shape[1], samples=1, seed=config.seed)
    beside = [
        run_baseline(name, problem, generator=None, clip=None, epochs=config.baseline_epochs, progress=progress)
        for name in BRAIN2IMAGE
    ]
    lead = "Brain2Image (Kavasidis et al. 2017) is trained here on the same trials; its own images were never published with their EEG."
    page = _page(4, "beside Brain2Image", lead, drawn, config)
    if missing:
        page.text(f"The pairs hold no {' and no '.join(missing)}, which the paper shows here.", "warning")
    for name, label in labels.items():
        rows = [row for row in range(len(drawn.chosen)) if drawn.store.labels[drawn.chosen[row]] == label]
        page.heading(name)
        page.sets(
            [
                (drawn.truth_NHWC[row], "shown"), (drawn.images_NSHWC[row, 0], "DreamDiffusion"),
                *((one.images_NSHWC[row, 0], one.name) for one in beside),
            ]
            for row in rows
        )  # fmt: skip
        if not rows:
            page.text("No trial of the split shows it.")
    return page


def _figure6(
    model: str | Path, pairs: str | Path, out: Path, config: EvaluateConfig, images: Path | None, say: Callable[[str], None] | None,
    progress: ProgressCallback | None,
) -> Page:  # fmt: skip
    drawn = _draw(model, pairs, out, config, images, say, progress)
    making = GenerateConfig(samples=config.samples, seed=config.seed)
    networks = load_networks(config, clip_width(load_pipeline(model, making)))
    scorer = make_scorer(drawn.store, drawn.train, drawn.chosen, drawn.truth_NHWC.shape[1], networks, config)
    if scorer.judge is None:
        raise ModelError("Figure 6 needs a classifier that calls each image something", "leave --classifier out, or name one")
    judged = scorer.judge_scores(drawn.images_NSHWC)
    labels = drawn.store.labels[drawn.chosen]
    material = Material(
        drawn.truth_NHWC, drawn.images_NSHWC, labels, drawn.store.classes, [drawn.name(row) for row in range(len(labels))],
        np.zeros(len(labels)), judged, None, drawn.truth_NHWC, np.arange(len(labels)), drawn.store.person[drawn.chosen],
    )  # fmt: skip
    wrong = failures(material)
    lead = "Samples that the judge calls something else, by what they share with the image that was shown: its shape, its colours, both, neither."
    page = _page(6, "failures by shape and colour", lead, drawn, config)
    shares = count_failures(wrong, material)
    right = 1 - sum(shares.values())
    page.table(
        [
            {"shared with the shown image": kind, "share of all samples": f"{100 * share:.0f} %"}
            for kind, share in {**shares, "(the judge calls it by its class)": right}.items()
        ]
    )
    classes = drawn.store.classes
    for kind in ("shape and colour", "shape", "colour", "neither"):
        mine = [one for one in pick_failures(wrong) if one.kind == kind]
        if mine:
            page.heading(f"{kind} as shown" if kind != "neither" else "neither shape nor colour as shown")
            page.sets(
                [
                    (drawn.truth_NHWC[one.trial], f"{classes[one.true]}, shown"),
                    (drawn.images_NSHWC[one.trial, one.sample], f"called {classes[one.called]}"),
                ]
                for one in mine
            )  # fmt: skip
    if not wrong:
        page.text("The judge calls every sample by its class.")
    return page


def labels_of(store: Pairs, names: Sequence[str]) -> dict[str, int]:
    """Numbers of the classes of these names; ImageNet's names count, and the first of several synonyms."""
    own = {
        OTHER_NAMES.get(short, short): label
        for label, text in enumerate(store.classes)
        for short in [text.split(",")[0].strip().lower()]
    }
    return {name: own[name] for name in names if name in own}
