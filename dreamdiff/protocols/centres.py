"""Class centres for concepts that training never shows: the harder protocol of NICE (Song et al. 2024) and Gifford et al. (2022).

A concept's centre is the mean direction of pictures of it that no judged trial showed, so that the EEG has to name the concept and not find its own picture
again. Such pictures are others of the concept in the store, or in a folder `FOLDER/CONCEPT/*`; where there are none, the shown picture never stands in for them.
Shapes: R groups of repetitions, K concepts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamdiff.alignment.targets import ImageTarget
from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.judging import VectorJudge, unit
from dreamdiff.metrics.measurement import Measurement, mean_measurement
from dreamdiff.pairs.decoding import decode_image
from dreamdiff.pairs.encoding import read_each
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.ranking import hits_at
from dreamdiff.sameness.copies import find_copies, sketch
from eegprep.errors import DataError
from eegprep.provenance import sha256_file

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
MOST = 20  # pictures of a concept; more move its centre little


def concept_centres(
    store: Pairs, target: ImageTarget, judge: VectorJudge, train: Ints, test: Ints, folder: Path | None
) -> tuple[Ints, Array, str]:
    """Concepts of the judged trials that training never shows, their centres (K, D), and what these were made of.

    Raises:
        DataError: some of them have no picture but the shown ones; the first is named.
    """
    held = np.setdiff1d(np.unique(store.labels[test]), np.unique(store.labels[train]))
    if len(held) < 2:
        raise DataError("fewer than 2 concepts of the judged trials are unknown to training", "use a split by concept")
    images, first = np.unique(store.image, return_index=True)
    label, shown = store.labels[first], np.unique(store.image[test])
    centres, counts, without = [], [], []
    for concept in held:
        others = np.setdiff1d(images[label == concept], shown)[:MOST]
        if folder is not None:
            files = _files(folder, store.classes[concept])
            arrays, digests = (
                [decode_image(path.read_bytes(), path.name) for path in files],
                [sha256_file(path) for path in files],
            )
        else:
            arrays, digests = read_each(store, others.tolist()), [store.image_sha256[k] for k in others]
        own = read_each(store, np.intersect1d(images[label == concept], shown).tolist())
        kept = _no_copies(own, arrays)
        arrays, digests = [arrays[k] for k in kept], [digests[k] for k in kept]
        if not arrays:
            without.append(store.classes[concept])
            continue
        centres.append(unit(judge.directions(np.asarray(target.compute(arrays, digests))).mean(0)))
        counts.append(len(arrays))
    if without:
        place = f"in {folder}" if folder is not None else "but the shown ones in the store"
        raise DataError(
            f"{len(without)} of {len(held)} concepts have no pictures {place} (the first is {without[0]})",
            "give --centres FOLDER with FOLDER/CONCEPT/*.jpg",
        )
    return held, np.stack(centres), f"{min(counts)} to {max(counts)} pictures each, none of them shown to the judged trials"


def centre_measurements(
    name: str, mean_RD: Array, label_R: Ints, held: Ints, centres_KD: Array, made_of: str, drawn: Array, space: str, seed: int
) -> list[Measurement]:
    """Top 1 and top 5 among the centres, of groups whose concept is one of them."""
    keep = np.isin(label_R, held)
    if not keep.any():
        return []
    scores_RK = mean_RD[keep] @ centres_KD.T
    truth_R = np.searchsorted(held, label_R[keep])
    return [
        mean_measurement(
            f"concept-centres/{name}/top-{k}", f"{len(held)}-way: nearest centre of a concept that training never shows, {made_of}, in {space} space",
            hits_at(scores_RK, truth_R, k)[:, None], seed=seed, floor=k / len(held), groups_N=drawn[:, keep] if np.ndim(drawn) == 2 else drawn[keep],
        )
        for k in (1, 5)
        if k < len(held)
    ]  # fmt: skip


def _no_copies(shown: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> list[int]:
    """Which of `others` are no copy of a shown picture, in whatever size or compression."""
    copies = find_copies([sketch(picture) for picture in (*shown, *others)])
    same = {one.second - len(shown) for one in copies if one.first < len(shown) <= one.second}
    return [k for k in range(len(others)) if k not in same]


def _files(folder: Path, concept: str) -> Sequence[Path]:
    """Pictures of a concept; THINGS numbers its folders (`00002_antelope`)."""
    places = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name in (concept, concept.replace(" ", "_"))]
    places = places or [
        path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.partition("_")[2] == concept.replace(" ", "_")
    ]
    return [path for place in places for path in sorted(place.iterdir()) if path.suffix.lower() in ENDINGS][:MOST]
