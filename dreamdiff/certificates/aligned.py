"""The certificate of an aligned encoder: all rows are vectors of the same trials, judged alike.

Shapes: N trials, M training pictures, G gallery pictures, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from dreamdiff.alignment.data import front_end_of, person_numbers, pieces
from dreamdiff.alignment.model import AlignedEncoder, Head
from dreamdiff.alignment.targets import ImageTarget
from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.closed_form import ridge_vectors
from dreamdiff.certificates.judging import VectorJudge
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
from dreamdiff.encoders.kinds import build_encoder
from dreamdiff.metrics.measurement import units
from dreamdiff.origin import space_name
from dreamdiff.pairs.reader import Pairs
from dreamdiff.training.task import mix
from eegprep.errors import ModelError
from eegprep.recording import ProgressCallback


@dataclass(frozen=True)
class PictureVectors:
    """Vectors of a store's pictures in a target's space: those of training trials, and those that test trials showed.

    taught_MD with taught_label_M; train_ND: of every training trial; gallery_GD: the different test pictures, gallery: their numbers;
    picture_N: which of them each test trial showed.
    """

    taught_MD: Array
    taught_label_M: Ints
    train_ND: Array
    gallery_GD: Array
    gallery: Ints
    picture_N: Ints

    @classmethod
    def of(cls, pairs: Pairs, target: ImageTarget, train: Ints, test: Ints) -> PictureVectors:
        """Compute them; test pictures are read here, for judging only."""
        numbers = np.unique(pairs.image[np.concatenate([train, test])])
        row = np.full(len(pairs.image_sha256), -1)
        row[numbers] = np.arange(len(numbers))
        # in pieces: pictures of thousands of trials do not fit into memory at once
        vectors = np.concatenate([_vectors(pairs, target, part) for part in np.array_split(numbers, -(-len(numbers) // 64))])
        train_images, first = np.unique(pairs.image[train], return_index=True)
        gallery, picture = np.unique(pairs.image[test], return_inverse=True)
        return cls(
            vectors[row[train_images]], pairs.labels[train][first], vectors[row[pairs.image[train]]], vectors[row[gallery]], gallery,
            picture.astype(np.int64),
        )  # fmt: skip

    def judge(self, classes: int, space: str) -> VectorJudge:
        """Judges vectors of this space against these pictures."""
        return VectorJudge.of(self.taught_MD, self.taught_label_M, classes, self.gallery_GD, space)


def certify_aligned(
    model: AlignedEncoder, pairs: Pairs, train: Ints, test: Ints, pictures: PictureVectors, *, target: int = 0, seed: int = 0,
    progress: ProgressCallback | None = None,
) -> tuple[Certificate, Array]:  # fmt: skip
    """The certificate, and the vectors of the system as it is, (N, D).

    Args:
        train, test: positions; closed-form decoders are fitted to the first, all rows measured on the second.
    """
    judge = pictures.judge(len(pairs.classes), space_name(model.target_names[target]))
    vectors, rows = encoder_rows(model, pairs, test, target, seed), []
    for name, (part, description, found_ND) in vectors.items():
        rows.append(Row(name, part, description, judge.predict(found_ND)))
    if progress:
        progress(1, 3, "certificate: ridge")
    rows += closed_form_rows(model, pairs, train, test, pictures, judge)
    rows += limit_rows(pictures, judge, seed)
    label_N = pairs.labels[test]
    truth = judge.truth(label_N, pictures.picture_N)
    floors, protocols = judge.floors(label_N), judge.protocols()
    # trials whose concepts training never showed have no right category: a measure without truth is none
    rows = [replace(row, predicted={name: values for name, values in row.predicted.items() if name in truth}) for row in rows]
    certificate = Certificate(
        tuple(rows), truth, {name: floors[name] for name in truth}, {name: protocols[name] for name in truth},
        dict.fromkeys(truth, units(label_N, pairs.person[test], pictures.picture_N)),
        seed=seed,
    )  # fmt: skip
    return certificate, vectors[WHOLE][2]


@torch.no_grad()
def encoder_rows(
    model: AlignedEncoder, pairs: Pairs, test: Ints, target: int, seed: int
) -> Mapping[str, tuple[Part, str, Array]]:
    """Row -> part, description and vectors (N, D): the encoder's tokens as they are, zeroed, of other trials, of an untrained one."""
    model = model.eval()
    device = model.front.whitener_PCC.device
    person = person_numbers(pairs, model.front.people)
    head = cast(Head, model.heads[target])
    parts: list[torch.Tensor] = []
    fresh: list[torch.Tensor] = []
    untrained = _untrained(model, seed)
    for part in pieces(test):
        x_BCW = front_end_of(pairs, part, model.front, person).to(device)
        numbers = torch.from_numpy(person[part]).to(device)
        parts.append(model.tokens(x_BCW, numbers))
        if untrained is not None:
            fresh.append(untrained.to(device)(x_BCW))
    # the encoder runs once: rows differ in what the head is given, not in rounding
    tokens_NLD = torch.cat(parts)
    order = np.random.default_rng(seed).permutation(len(test))
    others = np.empty(len(test), np.int64)
    others[order] = np.roll(order, 1)  # a cycle: no trial keeps its own

    def read(tokens: torch.Tensor) -> Array:
        return head.restore(head(tokens)).float().cpu().numpy()

    whole = read(tokens_NLD)
    result: dict[str, tuple[Part, str, Array]] = {
        WHOLE: ("system", "EEG of the trial through front end, encoder and head", whole),
        ZEROED: ("control", "the same head, with zeros in place of the encoder's output", read(torch.zeros_like(tokens_NLD))),
        OTHERS: ("control", "the encoder's output of another trial", read(tokens_NLD[torch.from_numpy(others)])),
        path_row("encoder"): ("path", "the only path from EEG to vector", whole),
    }
    if fresh:
        result[RANDOM] = ("control", "an untrained encoder of the same shape in place of this one", read(torch.cat(fresh)))
    return result


def _untrained(model: AlignedEncoder, seed: int) -> torch.nn.Module | None:
    if model.config.encoder.get("kind") == "external":
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, "untrained"))
        return build_encoder(model.config.encoder).eval()


def closed_form_rows(
    model: AlignedEncoder, pairs: Pairs, train: Ints, test: Ints, pictures: PictureVectors, judge: VectorJudge
) -> list[Row]:
    """Ridge regression per person, plain and whitened."""
    rows = []
    for name, whiten in ((RIDGE, False), (WHITENED, True)):
        description = f"ridge regression per person on the same stretch of time, {'whitened' if whiten else 'not whitened'}"
        if len(train) < 3:
            rows.append(Row(name, "closed form", description, {}, f"there are {len(train)} training trials"))
            continue
        vectors = ridge_vectors(pairs, model.config.front, train, test, pictures.train_ND, whiten=whiten)
        rows.append(Row(name, "closed form", description, judge.predict(vectors)))
    return rows


def limit_rows(pictures: PictureVectors, judge: VectorJudge, seed: int) -> list[Row]:
    """The two ends of the scale: the true vector, and that of a training picture drawn at random."""
    drawn = np.random.default_rng(mix(seed, "random vector")).integers(0, len(pictures.taught_MD), len(pictures.picture_N))
    return [
        Row(ORACLE, "limit", "the true vector of the picture", judge.predict(pictures.gallery_GD[pictures.picture_N])),
        Row(GUESS, "limit", "the vector of a training picture drawn at random", judge.predict(pictures.taught_MD[drawn])),
    ]


def check_target(model: AlignedEncoder, target: ImageTarget, number: int = 0) -> None:
    """The image encoder must be the one that the model was aligned to.

    Raises:
        ModelError: other weights or another preprocessing.
    """
    space = model.config.targets[number]
    if target.fingerprint != space.fingerprint:
        raise ModelError(
            f"target {space.name!r} has fingerprint {target.fingerprint[:12]} here, the model was aligned to {space.fingerprint[:12]}",
            "use the same weights and preprocessing as in the alignment",
        )


def _vectors(pairs: Pairs, target: ImageTarget, numbers: Ints) -> Array:
    images = [pairs.load_images([number])[0] for number in numbers] if target.cached else []
    return target.compute(images, [pairs.image_sha256[number] for number in numbers])
