"""The certificate of an evaluation: the judges of the report, handed to `certificates.pipeline`."""

from __future__ import annotations

import numpy as np

from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.pipeline import PictureJudge, TaughtVectors, certify_pipeline
from dreamdiff.certificates.records import Certificate
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.evaluation.scorer import ImageScorer, clip_width
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.generate import generator_for, render
from dreamdiff.pairs.reader import Pairs
from eegprep.recording import ProgressCallback


def certify_evaluation(
    pipeline: DreamDiffusionPipeline, store: Pairs, train: Ints, chosen: Ints, some: Ints, scorer: ImageScorer,
    generate_config: GenerateConfig, *, seed: int, progress: ProgressCallback | None = None,
) -> Certificate:  # fmt: skip
    """Rows for the trials `chosen` (vectors) and `some` of them (one picture each, from the noise of the report's first sample)."""
    size = pipeline.image_size

    def generate(positions: Ints) -> Array:
        parts = []
        for start in range(0, len(positions), generate_config.batch_size):
            rows = positions[start : start + generate_config.batch_size]
            generators = [generator_for(int(store.indices[row]), generate_config.seed) for row in rows]
            parts.append(render(pipeline, store.eeg(rows), generators, generate_config))
        return np.concatenate(parts)

    def classify(images_NHWC: Array) -> Ints:
        return scorer.judge_scores(images_NHWC[:, None])[:, 0].argmax(1).astype(np.int64)

    training_images, first = np.unique(store.image[train], return_index=True)
    pictures, vectors, missing = None, None, []
    if scorer.judge is not None:
        name = f"nearest centroid of training pictures in {scorer.networks.classifier.name} features"  # type: ignore[union-attr]
        shown = lambda positions: store.images(positions, size=size)  # noqa: E731
        pictures = PictureJudge(generate, classify, shown, store.load_images(training_images, size=size), name)
    else:
        missing.append("there is no judge of pictures")
    clip = scorer.networks.clip
    if clip is not None and clip_width(pipeline) == clip.width:
        everything = np.unique(store.image[np.concatenate([train, chosen])])
        row = np.full(len(store.image_sha256), -1)
        row[everything] = np.arange(len(everything))
        encoded = np.asarray(clip.encode_images([store.load_images([number])[0] for number in everything]))
        vectors = TaughtVectors(
            encoded[row[training_images]], store.labels[train][first], encoded[row[store.image[train]]], encoded[row[store.image[chosen]]],
            f"the space of {clip.name}",
        )  # fmt: skip
    else:
        missing.append("the model has no CLIP head, or the CLIP that judges has another width")
    return certify_pipeline(
        pipeline, store, train, chosen, some, pictures=pictures, vectors=vectors, missing="; ".join(missing), seed=seed,
        progress=progress,
    )  # fmt: skip
