"""The paper's route in the demo: encoder and U-Net fine-tuned together, and what its pictures owe to the encoder.

Shapes: G groups (the repetitions of one picture in one person), C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.pipeline import TaughtVectors, certify_pipeline
from dreamdiff.certificates.records import WHOLE, ZEROED, Certificate
from dreamdiff.devices import choose_device
from dreamdiff.diffusion.clip import load_clip
from dreamdiff.evaluation.evaluate import evenly
from dreamdiff.evaluation.retrieve import groups_of
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.generate import generator_for, load_pipeline, render
from dreamdiff.metrics.judges import CentroidJudge, ImageClassifier, load_classifier
from dreamdiff.pairs.reader import Pairs
from dreamdiff.programs.demo_config import DemoConfig
from dreamdiff.programs.demo_pictures import BATCH, DemoPictures, Share, by_category, publish_report
from eegprep.recording import ProgressCallback

CERTIFIED_TRIALS = 160  # single trials, four of each category


@dataclass(frozen=True)
class PaperRoute:
    """Pictures of averaged trials, shares right as it is and with the encoder's output set to zero, and the certificate of h(y)."""

    made: Array
    whole: Share
    zeroed: Share
    certificate: Certificate

    @property
    def says(self) -> str:
        """In one line."""
        return f"{self.whole} right, {self.zeroed} with its encoder zeroed"


def paper_route(
    pairs: Pairs, model: Path, pictures: DemoPictures, out: Path, config: DemoConfig, *, progress: ProgressCallback | None = None
) -> PaperRoute:
    """Pictures of the groups that the page shows; the EEG of repetitions is averaged, since this route has no vector to average.

    `out` gets a report with the certificate of the vectors h(y) of single trials.
    """
    making = GenerateConfig(steps=config.steps, batch_size=BATCH, device=config.device)
    pipeline = load_pipeline(model, making)
    test = pairs.splits["test"]
    groups = by_category(groups_of(pairs, test, "all", config.seed), pairs.labels[test], pairs.person[test])[
        : len(pictures.shown)
    ]
    eeg = np.stack([pairs.eeg(test[group]).mean(0) for group in groups])
    numbers = [int(pairs.indices[test[group[0]]]) for group in groups]
    certificate, judged_trials = _certify(pipeline, pairs, config)
    whole = _draw(pipeline, eeg, numbers, making)
    if progress is not None:
        progress(1, 2, "pictures of the paper's route")
    forward = pipeline.encoder.forward
    pipeline.encoder.forward = lambda *given, **more: torch.zeros_like(forward(*given, **more))  # type: ignore[method-assign]
    zeroed = _draw(pipeline, eeg, numbers, making)
    network = load_classifier().to(choose_device(config.device))
    judge = _judge(pairs, network)
    labels = np.array([pairs.labels[test[group[0]]] for group in groups])
    images = np.array([pairs.image[test[group[0]]] for group in groups])

    def share(made: Array) -> Share:
        return Share.of(judge.scores(network.read(made).features_ND).argmax(1) == labels, images, config.seed)

    result = PaperRoute(whole, share(whole), share(zeroed), certificate)
    named = {f"{name}, pictures of averages": part.measured for name, part in ((WHOLE, result.whole), (ZEROED, result.zeroed))}
    out.mkdir(parents=True, exist_ok=True)
    publish_report(
        out, pairs, judged_trials, model, certificate, {name: replace(m, name=name) for name, m in named.items()}
    )  # fmt: skip
    return result


def _certify(pipeline: Any, pairs: Pairs, config: DemoConfig) -> tuple[Certificate, Ints]:
    """What each part is worth to h(y), on single trials of all categories; pictures of every row would take minutes."""
    train, test = pairs.splits["train"], evenly(pairs.splits["test"], pairs.labels, CERTIFIED_TRIALS, config.seed)
    clip = load_clip("embedded", offline=True)
    numbers = np.unique(pairs.image[np.concatenate([train, test])])
    row = np.full(len(pairs.image_sha256), -1)
    row[numbers] = np.arange(len(numbers))
    encoded = np.asarray(clip.encode_images([pairs.load_images([number])[0] for number in numbers]))
    taught, first = np.unique(pairs.image[train], return_index=True)
    vectors = TaughtVectors(
        encoded[row[taught]], pairs.labels[train][first], encoded[row[pairs.image[train]]], encoded[row[pairs.image[test]]],
        "the space of the embedded CLIP",
    )  # fmt: skip
    return certify_pipeline(pipeline, pairs, train, test, test, pictures=None, vectors=vectors, seed=config.seed), test


def _draw(pipeline: Any, eeg_GCT: Array, numbers: Sequence[int], config: GenerateConfig) -> Array:
    parts = []
    for start in range(0, len(eeg_GCT), BATCH):
        rows = slice(start, start + BATCH)
        parts.append(render(pipeline, eeg_GCT[rows], [generator_for(number, 0) for number in numbers[rows]], config))
    return np.concatenate(parts)


def _judge(pairs: Pairs, network: ImageClassifier) -> CentroidJudge:
    train: Ints = pairs.splits["train"]
    train_images, first = np.unique(pairs.image[train], return_index=True)
    features = network.read(pairs.load_images(train_images, size=64)).features_ND
    return CentroidJudge(features, pairs.labels[train][first], len(pairs.classes))
