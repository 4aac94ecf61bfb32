"""Fits a sphere to electrodes and interpolates on it by spherical splines.

Apart from `head`, which needs MNE: windows and models interpolate without it. Shapes: C electrodes that are known, N places, 3 coordinates.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial.legendre import legval

from eegprep.errors import SignalError


def spline_weights(
    from_C3: np.ndarray, to_N3: np.ndarray, *, stiffness: int = 4, terms: int = 50, noise: float = 1e-5, clip: bool = True
) -> np.ndarray:
    """Weights of the spherical spline that carries potentials at some directions to others: (N, C), rows add up to 1.

    Perrin, Pernier, Bertrand, Echallier (1989), Electroencephalography and Clinical Neurophysiology 72:184-187, equations 1-3
    (with the correction in 76:565), order 4, and a small multiple of the identity against ill-conditioning.

    Args:
        from_C3, to_N3: unit vectors.
        stiffness: m of equation 3. terms: Legendre polynomials in the sum. noise: added to the diagonal, as MNE does.
        clip: hold cosines within 1, which rounding exceeds. Weights differ by 1e-8 without; stores keep what they were made with.
    """
    n = np.arange(1, terms + 1)
    factors = (2 * n + 1) / (n**stiffness * (n + 1) ** stiffness * 4 * np.pi)

    def kernel(cosines: np.ndarray) -> np.ndarray:
        return np.asarray(legval(np.clip(cosines, -1, 1) if clip else cosines, np.concatenate([[0.0], factors])))

    n_from = len(from_C3)
    # the last row and column make the spline's coefficients add up to zero and leave room for a constant (equation 2)
    system = np.ones((n_from + 1, n_from + 1))
    system[:-1, :-1] = kernel(from_C3 @ from_C3.T) + noise * np.eye(n_from)
    system[-1, -1] = 0.0
    targets = np.hstack([kernel(to_N3 @ from_C3.T), np.ones((len(to_N3), 1))])
    weights: np.ndarray = targets @ np.linalg.pinv(system)[:, :n_from]
    return weights


def fit_centre(positions_C3: np.ndarray) -> np.ndarray:
    """Centre of the sphere through the positions: |p|^2 = 2 p.c + (r^2 - |c|^2) is linear in c.

    Raises:
        SignalError: fewer than four positions, or positions that are not finite.
    """
    if len(positions_C3) < 4 or not np.isfinite(positions_C3).all():
        raise SignalError(
            f"{len(positions_C3)} electrode positions, {int(np.isfinite(positions_C3).all(axis=1).sum())} of them known, do not "
            "define a head (4 are needed)",
            "give the recording a montage",
        )
    design = np.column_stack([2 * positions_C3, np.ones(len(positions_C3))])
    solution = np.linalg.lstsq(design, (positions_C3**2).sum(axis=1), rcond=None)[0]
    return solution[:3]
