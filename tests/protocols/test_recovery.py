"""A rotation between people is found without labels, and nothing is found in noise."""

from __future__ import annotations

import numpy as np
from scipy.stats import special_ortho_group

from dreamdiff.protocols.recovery import csls, orthogonal_map, recovered


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cloud(noise: float, turn: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """200 pictures of 32 numbers, and what is read of them: noise, then a rotation of `turn` of the way to a random one."""
    rng = np.random.default_rng(seed)
    gallery = unit(rng.normal(size=(200, 32)))
    far = special_ortho_group.rvs(32, random_state=seed)
    left, _, right = np.linalg.svd((1 - turn) * np.eye(32) + turn * far)
    return unit((gallery + noise * rng.normal(size=gallery.shape)) @ (left @ right)), gallery


def top1(vectors: np.ndarray, gallery: np.ndarray) -> float:
    return float((csls(vectors, gallery).argmax(1) == np.arange(len(vectors))).mean())


def test_a_rotation_between_people_is_undone_without_labels():
    """SCORE's largest single step: 35.8 to 48.8 of 200."""
    for seed in range(3):
        vectors, gallery = cloud(0.12, 0.5, seed)
        assert top1(recovered(vectors, gallery), gallery) > top1(vectors, gallery) + 0.1


def test_known_pairs_give_the_rotation_itself():
    """Orthogonal Procrustes, against the rotation that made the pairs."""
    rotation = special_ortho_group.rvs(8, random_state=0)
    one = np.random.default_rng(0).normal(size=(50, 8))
    np.testing.assert_allclose(orthogonal_map(one, one @ rotation, pull=0.0), rotation, atol=1e-9)


def test_noise_stays_at_chance():
    """It is transductive, not clairvoyant: without a relation there is nothing to recover."""
    rng = np.random.default_rng(1)
    hits = [
        top1(recovered(unit(rng.normal(size=(100, 32))), gallery := unit(rng.normal(size=(100, 32)))), gallery) for _ in range(5)
    ]
    assert np.mean(hits) < 0.04
