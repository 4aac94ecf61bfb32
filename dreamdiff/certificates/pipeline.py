"""The certificate of a fine-tuned pipeline: pictures made, and vectors h(y) read, with each part silenced, exchanged or alone.

Every row changes what the encoder gives and nothing else: the noise of a trial, the sampler and the judge stay the same.
Shapes: N trials, B batch, C channels, T samples, D width of a vector.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

import numpy as np
import torch

from dreamdiff.alignment.config import FrontChoice
from dreamdiff.alignment.data import front_config
from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.closed_form import ridge_vectors
from dreamdiff.certificates.judging import CATEGORY, VectorJudge
from dreamdiff.certificates.records import (
    GUESS,
    ORACLE,
    OTHERS,
    RANDOM,
    RIDGE,
    WHITENED,
    WHOLE,
    ZEROED,
    Certificate,
    Part,
    Row,
    path_row,
)
from dreamdiff.diffusion.conditioner import Context
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.metrics.accuracy import prior_floor
from dreamdiff.metrics.measurement import units
from dreamdiff.pairs.reader import Pairs
from dreamdiff.training.task import mix
from eegprep.recording import ProgressCallback

IMAGES, VECTORS = "category of the pictures", "category of the vectors"
CLOSED_FORM = "closed form"


@dataclass(frozen=True)
class PictureJudge:
    """What the pictures of some trials are judged by.

    generate: positions of trials -> (N, H, W, 3) pictures, one a trial, always from the same noise. classify: pictures -> (N,) category.
    shown: positions -> the pictures that were shown. taught: (M, H, W, 3) training pictures. name: of the judge.
    """

    generate: Callable[[Ints], Array]
    classify: Callable[[Array], Ints]
    shown: Callable[[Ints], Array]
    taught_MHWC: Array
    name: str


@dataclass(frozen=True)
class TaughtVectors:
    """Vectors of the training pictures, their labels, and those of each training and test trial's picture, in the space of h(y)."""

    taught_MD: Array
    taught_label_M: Ints
    train_ND: Array
    test_ND: Array
    space: str


def certify_pipeline(
    pipeline: DreamDiffusionPipeline, pairs: Pairs, train: Ints, test: Ints, some: Ints, *, pictures: PictureJudge | None,
    vectors: TaughtVectors | None, missing: str = "", seed: int = 0, progress: ProgressCallback | None = None,
) -> Certificate:  # fmt: skip
    """All rows.

    Args:
        test: positions whose vectors are judged. some: those of them for which pictures are made.
        pictures, vectors: None where there is no judge, or no vector h(y); `missing` says why.
    """
    judge = None if vectors is None else VectorJudge.of(
        vectors.taught_MD, vectors.taught_label_M, len(pairs.classes), vectors.test_ND[:1], vectors.space
    )  # fmt: skip
    paths = ("encoder",) if pipeline.conditioner.linear is None else ("encoder", CLOSED_FORM)
    rows = []
    variants = encoder_variants(pipeline, seed, paths)
    for number, (name, (part, description, change)) in enumerate(variants.items()):
        if progress:
            progress(number, len(variants), f"certificate: {name}")
        predicted: dict[str, Ints] = {}
        with encoding(pipeline, pairs, test, change):
            if pictures is not None:
                predicted[IMAGES] = pictures.classify(pictures.generate(some))
            if judge is not None:
                predicted[VECTORS] = judge.predict(_vectors(pipeline, pairs, test))[CATEGORY]
        rows.append(Row(name, part, description, predicted, "" if predicted else missing or "there is no judge"))
    rows += _closed_forms(pairs, train, test, vectors, judge, missing)
    rows += _limits(pairs, some, pictures, vectors, judge, seed, missing)
    truth, floors, protocols, groups = {}, {}, {}, {}
    for measure, positions, protocol in (
        (IMAGES, some, "" if pictures is None else f"{len(pairs.classes)}-way, {pictures.name}"),
        (VECTORS, test, "" if judge is None else judge.protocols()[CATEGORY]),
    ):
        if any(measure in row.predicted for row in rows):
            truth[measure] = np.asarray(pairs.labels[positions], np.int64)
            floors[measure] = prior_floor(truth[measure], len(pairs.classes))
            protocols[measure] = protocol
            groups[measure] = units(pairs.labels[positions], pairs.person[positions], pairs.image[positions])
    return Certificate(tuple(rows), truth, floors, protocols, groups, paths, seed)


Change = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, bool]]
"""EEG, what the encoder says of it, what it says of the others' EEG -> what the conditioner is given, and whether the closed form works."""


def encoder_variants(pipeline: DreamDiffusionPipeline, seed: int, paths: tuple[str, ...]) -> dict[str, tuple[Part, str, Change]]:
    """Row -> part, description, and what replaces the encoder's output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, "untrained"))
        untrained = type(pipeline.encoder)(pipeline.encoder.config).eval().to(next(pipeline.encoder.parameters()).device)
    result: dict[str, tuple[Part, str, Change]] = {
        WHOLE: ("system", "EEG of the trial through all parts", lambda eeg, own, other: (own, True)),
        ZEROED: ("control", "zeros in place of the encoder's output", lambda eeg, own, other: (torch.zeros_like(own), True)),
        OTHERS: ("control", "the encoder's output of another trial", lambda eeg, own, other: (other, True)),
        RANDOM: ("control", "an untrained encoder in place of this one", lambda eeg, own, other: (untrained(eeg), True)),
        path_row("encoder"): ("path", "the encoder without any closed form", lambda eeg, own, other: (own, False)),
    }
    if CLOSED_FORM in paths:
        result[path_row(CLOSED_FORM)] = (
            "path", "the closed form with the encoder's output at zero", lambda eeg, own, other: (torch.zeros_like(own), True),
        )  # fmt: skip
    return result


@contextlib.contextmanager
def encoding(pipeline: DreamDiffusionPipeline, pairs: Pairs, test: Ints, change: Change) -> Iterator[None]:
    """The pipeline's `encode` with `change` applied; the other trial of each is the next one of another category."""
    place = next(pipeline.encoder.parameters())
    following = other_category(pairs.labels[test])
    partner = {int(position): int(test[row]) for position, row in zip(test, following, strict=True)}
    # the pipeline is only given arrays: their content says which trial they are
    known = {_digest(pairs.eeg([int(position)])[0]): int(position) for position in test}

    @torch.no_grad()
    def encode(eeg_NCT: Any) -> Context:
        eeg = np.ascontiguousarray(np.asarray(eeg_NCT, np.float32))
        others = pairs.eeg([partner[known[_digest(trial)]] for trial in eeg])
        own, other = (torch.from_numpy(x).to(place.device, place.dtype) for x in (eeg, others))
        latent, closed_form = change(own, pipeline.encoder(own), pipeline.encoder(other))
        conditioner = pipeline.conditioner
        scaled = cast(Any, pipeline.encoder).scale(own) if conditioner.linear is not None and closed_form else None
        return conditioner(latent, scaled)

    # on the object, not the class: another pipeline of this process goes on as it is
    pipeline.__dict__["encode"] = encode
    try:
        yield
    finally:
        del pipeline.__dict__["encode"]


def _digest(trial_CT: Array) -> bytes:
    return blake2b(np.ascontiguousarray(trial_CT, np.float32).tobytes(), digest_size=16).digest()


def other_category(label_N: Ints) -> Ints:
    """For each trial the row of the next one, round the end, that is of another category; its own where there is none."""
    n = len(label_N)
    out = np.arange(n)
    for row in range(n):
        for step in range(1, n):
            if label_N[(row + step) % n] != label_N[row]:
                out[row] = (row + step) % n
                break
    return out


def _vectors(pipeline: DreamDiffusionPipeline, pairs: Pairs, test: Ints, batch: int = 32) -> Array:
    parts = [pipeline.encode(pairs.eeg(part)).clip_BD for part in np.array_split(test, -(-len(test) // batch))]
    return torch.cat([cast(torch.Tensor, part) for part in parts]).float().cpu().numpy()


def _closed_forms(
    pairs: Pairs, train: Ints, test: Ints, vectors: TaughtVectors | None, judge: VectorJudge | None, missing: str
) -> list[Row]:
    attributes = pairs.attributes[pairs.subjects[0]]
    sfreq, t0 = float(attributes.get("sfreq") or 0.0), float(attributes.get("t0") or 0.0)
    rows = []
    for name, whiten in ((RIDGE, False), (WHITENED, True)):
        description = f"ridge regression per person to the same vectors, {'whitened' if whiten else 'not whitened'}"
        if vectors is None or judge is None or not sfreq or len(train) < 3:
            reason = missing or ("the pairs do not say their rate" if not sfreq else f"there are {len(train)} training trials")
            rows.append(Row(name, "closed form", description, {}, reason))
            continue
        end, rate = t0 + pairs.eeg_shape[1] / sfreq, min(128.0, sfreq)
        # from the onset of the picture on, where the trial reaches that far
        start = max(0.0, t0) if end > 0 else t0
        front = front_config(pairs, FrontChoice(start=start, seconds=min(0.6, end - start)), rate=rate, patch=2)
        result = ridge_vectors(pairs, front, train, test, vectors.train_ND, whiten=whiten)
        rows.append(Row(name, "closed form", description, {VECTORS: judge.predict(result)[CATEGORY]}))
    return rows


def _limits(
    pairs: Pairs, some: Ints, pictures: PictureJudge | None, vectors: TaughtVectors | None, judge: VectorJudge | None, seed: int,
    missing: str,
) -> list[Row]:  # fmt: skip
    rng = np.random.default_rng(mix(seed, "random vector"))
    oracle: dict[str, Ints] = {}
    guess: dict[str, Ints] = {}
    if pictures is not None:
        oracle[IMAGES] = pictures.classify(pictures.shown(some))
        guess[IMAGES] = pictures.classify(pictures.taught_MHWC[rng.integers(0, len(pictures.taught_MHWC), len(some))])
    if vectors is not None and judge is not None:
        oracle[VECTORS] = judge.predict(vectors.test_ND)[CATEGORY]
        guess[VECTORS] = judge.predict(vectors.taught_MD[rng.integers(0, len(vectors.taught_MD), len(vectors.test_ND))])[CATEGORY]
    return [
        Row(ORACLE, "limit", "the picture that was shown, and its true vector", oracle, "" if oracle else missing),
        Row(GUESS, "limit", "a training picture drawn at random, and its vector", guess, "" if guess else missing),
    ]
