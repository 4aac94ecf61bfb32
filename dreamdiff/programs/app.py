"""What the web page does, without any widget: trials or an upload, their EEG and its map over the head, images for several seeds, a guess.

`dreamdiff.web` puts widgets around a `Studio`. Shapes: N trials, S images of a trial, C channels, T samples, K categories.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dreamdiff.certificates.check import model_digest
from dreamdiff.estimators.carriers_figure import carriers_figure
from dreamdiff.generation.aligned import AlignedPipeline
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.files import origin_of, trained_on
from dreamdiff.generation.generate import generator_for, load_maker, render
from dreamdiff.generation.trials import Montage, TrialSet, open_trials
from dreamdiff.metrics.judges import CentroidJudge, ImageClassifier, load_classifier
from dreamdiff.origin import PictureOrigin, png
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import UsageError
from eegprep.inspection.pictures import head_map, traces
from eegprep.provenance import installed
from eegprep.sealed import read_object
from eegprep.settings import validated
from eegprep.sources.file_reading import FileReading

# one file a recording; the companions belong to BrainVision and EEGLAB
RECORDINGS = (".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".cnt", ".xdf", ".csv", ".tsv", ".mat")

COMPANIONS = (".eeg", ".vmrk", ".dat", ".fdt")

UPLOADS = "dreamdiff-uploads-"  # how the folder of uploads begins

IMAGE_SIZE = 256  # pixels on the page
PICTURES_OF_A_CLASS = 20  # of the training part, from which the guess learns what a category looks like
NEIGHBOURS = 5  # training pictures beside the generated ones
SHARPNESS = 0.1  # ours: cosines are divided by this before the softmax of the guess; nothing calibrates it


@dataclass(frozen=True)
class Shown:
    """Trials that can be chosen, and what is known of the rows of each."""

    trials: TrialSet
    montage: Callable[[int], Montage]
    uploaded: bool = False


@dataclass(frozen=True)
class Made:
    """Images of one trial: (S, H, W, 3) uint8, what made them, and where they come from."""

    images_SHWC: np.ndarray
    seeds: tuple[int, ...]
    settings: dict[str, object]
    origin: PictureOrigin

    def archive(self) -> bytes:
        """A ZIP file with a PNG for each seed, and seeds and settings as JSON."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
            for image, seed in zip(self.images_SHWC, self.seeds, strict=True):
                file.writestr(f"seed-{seed}.png", png(image, {"dreamdiff": "settings.json", **self.origin.notes()}))
            origin = {**self.origin.model_dump(mode="json"), "sentence": self.origin.sentence}
            file.writestr("settings.json", json.dumps({**self.settings, "seeds": list(self.seeds), "origin": origin}, indent=2))
        return content.getvalue()


@dataclass(frozen=True)
class _Training:
    """What training pictures look like: features of some of each category, by the embedded classifier."""

    classifier: ImageClassifier
    judge: CentroidJudge
    features_ND: np.ndarray
    pictures: np.ndarray
    labels: np.ndarray


class Studio:
    """A model, and the trials that it can be shown.

    Args:
        model: run of `dreamdiff train finetune` or of `dreamdiff train align`, or a pipeline folder.
        pairs: store whose test trials (all, if it has no test split) can be chosen; None for uploads only.
        sd, adapter: the frozen generator behind an aligned run, see `GenerateConfig`; without them the small one of the package.
        device, precision: of the networks, see `GenerateConfig`.
    """

    def __init__(
        self, model: str | Path, pairs: str | Path | None = None, *, sd: str | None = None, adapter: str | None = None,
        device: str = "auto", precision: str = "fp32",
    ) -> None:  # fmt: skip
        self.making = validated(GenerateConfig, {"sd": sd, "adapter": adapter, "device": device, "precision": precision})
        self.pipeline = load_maker(model, self.making)
        self.model = Path(model)
        self.store: Pairs | None = None
        self._training: _Training | None = None
        self.pairs: Pairs | None = None
        self.shown: Shown | None = None
        if pairs is not None:
            signal, window = self.pipeline.details.signal, self.pipeline.encoder.config.window
            store, _ = Pairs.open(pairs).at_model_rate(signal, window)
            self.store = store
            select = "test" if "test" in store.splits else None
            self.pairs = store.select(split=select) if select else store
            self.shown = Shown(open_trials(pairs, self.pipeline, select), self._montage)

    @property
    def simulated(self) -> bool:
        """Whether anything shown comes from simulated EEG, which the page must say."""
        return trained_on(self.pipeline).get("provenance") == "simulated" or (
            self.pairs is not None and self.pairs.provenance == "simulated"
        )

    def people(self) -> list[str]:
        """Subjects of the pairs store."""
        return [] if self.pairs is None else [self.pairs.subjects[p] for p in np.unique(self.pairs.person)]

    def trials_of(self, person: str) -> list[tuple[str, int]]:
        """(text, position) of the trials of a person."""
        if self.pairs is None or self.shown is None:
            return []
        number, trials = self.pairs.subjects.index(person), self.shown.trials
        return [(f"{trials.names[p]}: {trials.labels[p]}", int(p)) for p in np.flatnonzero(self.pairs.person == number)]

    def upload(self, files: Sequence[str | Path], reading: FileReading | None = None) -> Shown:
        """Trials of a recording that somebody uploaded, cut after its events as the model's training trials were.

        Args:
            files: the recording and, for formats of several files, its companions. reading: what they do not say.

        Raises:
            UsageError: not exactly one recording.
            SourceError, DataError, ModelError: it cannot be read, or does not fit the model.
        """
        paths = [Path(file) for file in files]
        mains = [path for path in paths if path.suffix.lower() in RECORDINGS]
        strange = [path.name for path in paths if path.suffix.lower() not in RECORDINGS + COMPANIONS]
        if strange or len(mains) != 1:
            raise UsageError(
                f"{strange[0]}: not a kind of file that is read here"
                if strange
                else f"{len(mains)} recordings in the upload (1)",
                f"upload one recording ({', '.join(RECORDINGS)}) with its companion files ({', '.join(COMPANIONS)})",
            )
        with tempfile.TemporaryDirectory(prefix="dreamdiff-upload-") as folder:
            for path in paths:  # the companions must lie beside the header that names them
                shutil.copyfile(path, Path(folder) / path.name)
                _forget(path)
            trials = open_trials(Path(folder) / mains[0].name, self.pipeline, cap="auto", reading=reading)
            eeg_NCT = trials.read(range(len(trials)))
        names = tuple(f"{mains[0].name}: {name}" for name in trials.names)
        montage = trials.montage
        assert montage is not None
        kept = TrialSet(
            mains[0].name, "file", trials.numbers, names, trials.labels, lambda at: eeg_NCT[list(at)], None, None, trials.notes, montage,
            trials.provenance, trials.licence,
        )  # fmt: skip
        return Shown(kept, lambda position: montage, uploaded=True)

    def _montage(self, position: int) -> Montage:
        """Of a trial of the pairs store."""
        assert self.pairs is not None
        facts = self.pairs.attributes[self.pairs.subjects[int(self.pairs.person[position])]]
        rows = np.asarray(facts.get("pad_map") or range(self.pipeline.encoder.config.channels))
        places = np.array([[np.nan if v is None else v for v in row] for row in facts.get("positions") or []], dtype=float)
        names = (
            tuple(str(facts["channels"][row]) for row in rows) if facts.get("channels") else tuple(f"row {row}" for row in rows)
        )
        known = places[rows] if len(places) else np.full((len(rows), 3), np.nan)
        return Montage(names, known, float(facts.get("sfreq") or 1.0), float(facts.get("t0") or 0.0))

    def picture(self, shown: Shown, position: int) -> Figure:
        """The EEG of a trial and its strength over the head."""
        eeg_CT, montage = shown.trials.read([position])[0], shown.montage(position)
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
        traces(left, eeg_CT, montage.sfreq, montage.channels, start=montage.start)
        head_map(right, eeg_CT.std(axis=1), montage.positions_C3, label="standard deviation (µV)", cmap="viridis")
        return figure

    def seen(self, shown: Shown, position: int) -> np.ndarray | None:
        """(H, W, 3) uint8 image that was shown in the trial, if it is known."""
        trials = shown.trials
        return None if trials.seen is None else trials.seen([position], IMAGE_SIZE)[0]

    def facts(self, shown: Shown, position: int) -> str:
        """Rate, length and channels of a trial, and what is not as it was for training."""
        eeg_CT, montage = shown.trials.read([position])[0], shown.montage(position)
        names = list(dict.fromkeys(name for name in montage.channels if name))
        listed = ", ".join(names[:12]) + (f" ... {names[-1]}" if len(names) > 12 else "")
        length, start = 1000 * eeg_CT.shape[1] / montage.sfreq, 1000 * montage.start
        text = f"{len(names)} channels ({listed}), {montage.sfreq:g} Hz, {length:.0f} ms from {start:+.0f} ms"
        return " ".join([f"{text}.", *(f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in shown.trials.notes)])

    def generate(
        self, shown: Shown, position: int, *, samples: int, first_seed: int, steps: int, guidance: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Made:  # fmt: skip
        """Images of one trial for seeds `first_seed`, `first_seed` + 1, ...; progress is told (images that are there, samples)."""
        config = self.making.model_copy(update={"steps": steps, "samples": samples, "seed": first_seed, "guidance": guidance})
        eeg_NCT, number = shown.trials.read([position]), int(shown.trials.numbers[position])
        seeds = tuple(first_seed + k for k in range(samples))
        people = [shown.trials.people[position]] if shown.trials.people else None
        made = []
        for count, seed in enumerate(seeds):
            if progress is not None:
                progress(count, samples)
            made.append(render(self.pipeline, eeg_NCT, [generator_for(number, seed)], config, people)[0])
        settings: dict[str, object] = {
            "trial": shown.trials.names[position], "source": Path(shown.trials.source).name, "model": self.model.name,
            "model_fingerprint": self.pipeline.fingerprint, "steps": steps, "guidance": guidance, "number": number,
            "provenance": "simulated" if self.simulated else "recorded", "software": installed("eeg-dreamdiff", "torch", "diffusers"),
        }  # fmt: skip
        return Made(np.stack(made), seeds, settings, self.origin(shown))

    def origin(self, shown: Shown) -> PictureOrigin:
        """What the images of these trials have to say of themselves."""
        return origin_of(self.pipeline, self.model, shown.trials)

    def guess(self, images_SHWC: np.ndarray) -> dict[str, float]:
        """Probability of each category from generated images: a softmax of cosines to the mean training picture of the category.

        In the features of the embedded classifier, and not calibrated. Empty without pairs, or with one category.
        """
        if self.store is None or len(self.store.classes) < 2:
            return {}
        known = self._known_pictures(self.store)
        scores_K = known.judge.scores(known.classifier.read(images_SHWC).features_ND).mean(0) / SHARPNESS
        weights_K = np.exp(scores_K - scores_K.max())
        return {name: float(weight) for name, weight in zip(self.store.classes, weights_K / weights_K.sum(), strict=True)}

    def neighbours(self, images_SHWC: np.ndarray, count: int = NEIGHBOURS) -> list[tuple[np.ndarray, str]]:
        """Training pictures that look most like the generated images, nearest first, each with its category; none without pairs.

        By the mean cosine of the embedded classifier's features. A generated picture that equals one of them may be a copy.
        """
        if self.store is None or len(self.store.classes) < 2:
            return []
        known = self._known_pictures(self.store)
        own_SD = known.classifier.read(images_SHWC).features_ND - known.judge.mean_D
        theirs_ND = known.features_ND - known.judge.mean_D
        lengths_N = np.linalg.norm(theirs_ND, axis=1) + 1e-12
        nearness_N = ((own_SD / (np.linalg.norm(own_SD, axis=1, keepdims=True) + 1e-12)) @ theirs_ND.T / lengths_N).mean(0)
        nearest = np.argsort(-nearness_N, kind="stable")[:count]
        images = self.store.load_images(known.pictures[nearest], size=IMAGE_SIZE)
        return [(image, str(self.store.classes[int(label)])) for image, label in zip(images, known.labels[nearest], strict=True)]

    def _known_pictures(self, store: Pairs) -> _Training:
        if self._training is not None:
            return self._training
        train = store.splits.get("train", np.arange(len(store)))
        pictures, first = np.unique(store.image[train], return_index=True)
        labels = store.labels[train][first]
        kept = np.concatenate([np.flatnonzero(labels == c)[:PICTURES_OF_A_CLASS] for c in range(len(store.classes))])
        classifier = load_classifier()
        features_ND = classifier.read(store.load_images(pictures[kept], size=IMAGE_SIZE)).features_ND
        judge = CentroidJudge(features_ND, labels[kept], len(store.classes))
        self._training = _Training(classifier, judge, features_ND, pictures[kept], labels[kept])
        return self._training

    def accuracy(self) -> str:
        """How often this model is right, with chance: from a report beside it, of `dreamdiff evaluate`, `retrieve` or `demo`."""
        report = self._report()
        if report is not None:
            return " ".join(f"{str(report[line]).rstrip('.')}." for line in ("first_line", "second_line") if report.get(line))
        classes = [] if self.store is None else self.store.classes
        chance = f"Chance is {1 / len(classes):.1%} ({len(classes)} categories). " if classes else ""
        return (
            f"How often this model is right has not been measured here. {chance}"
            f"`dreamdiff evaluate --model {self.model.name} --pairs PAIRS --out evaluation --controls` does, in a folder beside the model."
        )

    def carried(self) -> Figure | None:
        """What carries the result, when, where and in which band: from the same report; None where there is none."""
        report = self._report()
        try:
            return None if report is None or not report.get("carriers") else carriers_figure(report["carriers"])
        except (KeyError, TypeError, ValueError):
            return None

    @cached_property
    def _digest(self) -> str:
        """Of the model's weights, which may be gigabytes: the page asks for a report more than once."""
        return model_digest(self.model)

    def _report(self) -> dict[str, Any] | None:
        """The first report on this very model that lies beside it, by the digest of the model's weights."""
        if isinstance(self.pipeline, AlignedPipeline) and self.making.sd not in (None, "embedded"):
            # pictures of another generator are right more or less often
            return None
        for file in sorted({*self.model.glob("report.json"), *self.model.parent.glob("*/report.json")}):
            report = read_object(file) or {}
            try:
                if report["identity"]["model"]["sha256"] == self._digest and report["first_line"]:
                    return report
            except (KeyError, TypeError):
                continue
        return None


def _forget(path: Path) -> None:
    """Remove an uploaded file; a file of the person's own, given in a script, stays."""
    if any(part.startswith(UPLOADS) for part in path.parts):
        path.unlink(missing_ok=True)
