"""A new person's vectors turned onto the gallery without labels: transductive, because all judged trials are used together.

Between people, predicted vectors differ by a rotation more than by anything else, and a rotation can be guessed from the two clouds alone: match
each vector with the picture that also matches it (by CSLS, which takes away that some pictures are near to everything), find the orthogonal map
that brings the matched pairs together, and repeat. A free linear map fits noise and was worse than none in print (20.0 against 28.2 % of 200).

Such a number belongs beside the others, never among them: its name says `transductive`.
Sources: Conneau et al. 2018 (CSLS, Procrustes refinement); Schoenemann 1966 (orthogonal Procrustes); SCORE (arXiv 2608.19134) for EEG.
Shapes: N vectors, G gallery pictures, D width; all of length 1.
"""

from __future__ import annotations

import numpy as np

from dreamdiff.arrays import Array, Floats

NEIGHBOURS = 10
ROUNDS = 8
PULL = 0.3  # of the identity against the matched pairs: directions that no pair fixes stay as they are


def csls(vectors_ND: Array, gallery_GD: Array, neighbours: int = NEIGHBOURS) -> Floats:
    """(N, G) cosines, less the mean cosine of each side to its nearest neighbours on the other."""
    cosine_NG = np.asarray(vectors_ND, float) @ np.asarray(gallery_GD, float).T
    of_n, of_g = (min(neighbours, size) for size in (cosine_NG.shape[1], cosine_NG.shape[0]))
    near_N = np.sort(cosine_NG, axis=1)[:, -of_n:].mean(1, keepdims=True)
    near_G = np.sort(cosine_NG, axis=0)[-of_g:].mean(0, keepdims=True)
    return np.asarray(2 * cosine_NG - near_N - near_G)


def orthogonal_map(from_MD: Array, to_MD: Array, pull: float = PULL) -> Floats:
    """(D, D) rotation or reflection R that minimises |from R - to|, drawn towards the identity by `pull` times the number of pairs."""
    cross_DD = np.asarray(from_MD, float).T @ np.asarray(to_MD, float)
    left, _, right = np.linalg.svd(cross_DD + pull * len(from_MD) / len(cross_DD) * np.eye(len(cross_DD)))
    return np.asarray(left @ right)


def recovered(vectors_ND: Array, gallery_GD: Array, rounds: int = ROUNDS) -> Floats:
    """The vectors after the map that their own matches with the gallery give; the vectors themselves where nothing matches."""
    given = np.asarray(vectors_ND, float)
    turned = given
    for _ in range(rounds):
        scores_NG = csls(turned, gallery_GD)
        best_N, best_G = scores_NG.argmax(1), scores_NG.argmax(0)
        mutual = np.flatnonzero(best_G[best_N] == np.arange(len(given)))
        if len(mutual) < 2:
            break
        turned = given @ orthogonal_map(given[mutual], np.asarray(gallery_GD)[best_N[mutual]])
    return turned
