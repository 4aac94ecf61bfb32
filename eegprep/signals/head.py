"""Models the head as a sphere: standard electrode positions, dipoles in it, and what they show at the scalp.

Used to simulate EEG whose answer is known. The forward solution is MNE-Python's: four concentric shells (brain, CSF, skull,
scalp), Berg and Scherg's approximation (Electroencephalogr. Clin. Neurophysiol. 90, 1994).
Shapes: C channels, S sources, 3 head coordinates (m; x right, y front, z up).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import mne
import numpy as np

from eegprep.errors import SignalError
from eegprep.signals.sphere import fit_centre

HEAD_RADIUS = 0.095  # m, the sphere that the standard montage lies on

# the 128 electrodes of a Brain Products 10-05 cap: the caps that ImageNet-EEG was recorded with
_MONTAGE = "brainproducts-RNP-BA-128"

_REFERENCE_AND_GROUND = ("FCz", "Fpz")

# brain, CSF, skull, scalp: MNE's default radii (relative to the scalp) and conductivities (S/m)
_RADII, _SIGMAS = (0.90, 0.92, 0.97, 1.0), (0.33, 1.0, 0.004, 0.33)


@dataclass(frozen=True)
class Electrodes:
    """Names, and positions in head coordinates, m, on a sphere of `HEAD_RADIUS` around the origin."""

    names: tuple[str, ...]
    positions_C3: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@lru_cache
def _placed() -> dict[str, np.ndarray]:
    """All electrodes of the cap, reference and ground included, on the sphere."""
    places = mne.channels.make_standard_montage(_MONTAGE).get_positions()["ch_pos"]
    return dict(zip(places, on_sphere(np.array(list(places.values()))), strict=True))


def standard_electrodes() -> Electrodes:
    """128 electrodes with 10-05 names, spread over the whole head."""
    placed = {name: xyz for name, xyz in _placed().items() if name not in _REFERENCE_AND_GROUND}
    return Electrodes(tuple(placed), np.array(list(placed.values())))


def known_electrodes(names: Sequence[str]) -> tuple[list[int], Electrodes]:
    """Which of the channel names have a place on this head, and those places. Case and trailing dots do not matter."""
    table = {name.upper(): (name, xyz) for name, xyz in _placed().items()}
    known = [(index, table[key]) for index, name in enumerate(names) if (key := name.strip().rstrip(".").upper()) in table]
    places = np.array([xyz for _, (_, xyz) in known]).reshape(-1, 3)
    return [index for index, _ in known], Electrodes(tuple(name for _, (name, _) in known), places)


def on_sphere(positions_C3: np.ndarray, centre_3: np.ndarray | None = None) -> np.ndarray:
    """Positions moved along their radius onto the sphere of `HEAD_RADIUS`; without a centre, around the best-fitting one."""
    positions_C3 = np.asarray(positions_C3, dtype=np.float64)
    centred = positions_C3 - (fit_centre(positions_C3) if centre_3 is None else centre_3)
    return HEAD_RADIUS * centred / np.linalg.norm(centred, axis=1, keepdims=True)


def lead_field(sources_S3: np.ndarray, moments_S3: np.ndarray, electrodes: Electrodes | None = None) -> np.ndarray:
    """Scalp potential of unit current dipoles, average reference.

    Args:
        sources_S3: positions, m; inside the brain, that is within 0.9 x HEAD_RADIUS of the origin.
        moments_S3: directions; normalised here.
        electrodes: default `standard_electrodes()`.

    Returns:
        (C, S) uV per nAm.

    Raises:
        SignalError: a source lies outside the brain.
    """
    electrodes = electrodes or standard_electrodes()
    sources_S3 = np.atleast_2d(np.asarray(sources_S3, dtype=np.float64))
    depth = np.linalg.norm(sources_S3, axis=1)
    limit = _RADII[0] * HEAD_RADIUS
    if (depth >= limit).any():
        raise SignalError(
            f"source {int(depth.argmax())} lies {1000 * depth.max():.1f} mm from the centre of the head, outside the brain "
            f"({1000 * limit:.1f} mm)",
            "move it inwards",
        )
    directions = np.atleast_2d(np.asarray(moments_S3, dtype=np.float64))
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    sphere = mne.make_sphere_model((0.0, 0.0, 0.0), HEAD_RADIUS, relative_radii=_RADII, sigmas=_SIGMAS, verbose="error")
    places = mne.setup_volume_source_space(pos={"rr": sources_S3, "nn": directions}, sphere=sphere, verbose="error")
    forward = mne.make_forward_solution(
        _info(electrodes), trans=None, src=places, bem=sphere, meg=False, mindist=0.0, verbose="error"
    )
    # per source, three columns for a moment along x, y and z; V per Am -> uV per nAm is 1e6 * 1e-9
    free_CS3 = forward["sol"]["data"].reshape(len(electrodes), len(sources_S3), 3) * 1e-3
    potential_CS = np.einsum("csk,sk->cs", free_CS3, directions)
    # average reference: the solution itself has none
    return potential_CS - potential_CS.mean(axis=0)


def _info(electrodes: Electrodes) -> mne.Info:
    # a rate is asked for, but plays no part in a forward solution
    info = mne.create_info(list(electrodes.names), 1000.0, "eeg")
    places = dict(zip(electrodes.names, electrodes.positions_C3, strict=True))
    montage = mne.channels.make_dig_montage(
        places, nasion=(0.0, HEAD_RADIUS, 0.0), lpa=(-HEAD_RADIUS, 0.0, 0.0), rpa=(HEAD_RADIUS, 0.0, 0.0), coord_frame="head"
    )
    info.set_montage(montage)
    return info
