"""The forward model against theory: a homogeneous-sphere limit, symmetry, a multi-shell series, and MNE's own splines."""

from __future__ import annotations

import mne
import numpy as np
import pytest
from numpy.polynomial.legendre import Legendre

from eegprep.errors import SignalError
from eegprep.signals.head import HEAD_RADIUS, known_electrodes, lead_field, on_sphere, standard_electrodes
from eegprep.signals.sphere import spline_weights

RADII, SIGMAS = (0.90, 0.92, 0.97, 1.0), (0.33, 1.0, 0.004, 0.33)


def test_there_are_128_electrodes_with_names_in_their_places():
    """The store promises 128 standard positions; names let people find the back of the head."""
    electrodes = standard_electrodes()
    place = dict(zip(electrodes.names, electrodes.positions_C3, strict=True))

    assert len(electrodes) == len(set(electrodes.names)) == 128
    np.testing.assert_allclose(np.linalg.norm(electrodes.positions_C3, axis=1), HEAD_RADIUS, rtol=1e-9)
    assert np.argmax(electrodes.positions_C3[:, 2]) == electrodes.names.index("Cz")
    assert place["Oz"][1] < -0.09 and place["T7"][0] < -0.09 and place["Fp1"][1] > 0.08
    np.testing.assert_allclose(place["O1"] * [-1, 1, 1], place["O2"], atol=1e-6)
    distances = np.linalg.norm(electrodes.positions_C3[:, None] - electrodes.positions_C3, axis=2) + np.eye(128)
    assert distances.min() > 0.01


def shells_potential(depth: float, angle: np.ndarray, terms: int = 120) -> np.ndarray:
    """Surface potential of a radial dipole (1 Am) at relative radius `depth` in concentric shells of scalp radius 1 m, in V.

    Solved degree by degree: in shell j the potential is (A_j r^n + B_j r^-(n+1)) P_n(cos angle); potential and current are
    continuous at every boundary, no current leaves the scalp. The source term of a radial dipole in an infinite medium of
    conductivity s is sum_n n d^(n-1) r^-(n+1) P_n / (4 pi s). Textbook electrostatics, no code in common with MNE.
    """
    total = np.zeros_like(angle)
    shells = len(RADII)
    for n in range(1, terms):
        size = 2 * shells - 1  # A_1 (regular part), then A_j, B_j of the outer shells
        system, right = np.zeros((size, size)), np.zeros(size)
        source = n * depth ** (n - 1) / (4 * np.pi * SIGMAS[0])

        def columns(j: int) -> list[tuple[int, str]]:
            return [(0, "A")] if j == 0 else [(2 * j - 1, "A"), (2 * j, "B")]

        row = 0
        for j in range(shells - 1):
            r = RADII[j]
            for sign, shell in ((1, j), (-1, j + 1)):
                for column, kind in columns(shell):
                    value = r**n if kind == "A" else r ** -(n + 1)
                    slope = n * r ** (n - 1) if kind == "A" else -(n + 1) * r ** -(n + 2)
                    system[row, column] += sign * value
                    system[row + 1, column] += sign * SIGMAS[shell] * slope
            if j == 0:
                right[row] -= source * r ** -(n + 1)
                right[row + 1] += SIGMAS[0] * source * (n + 1) * r ** -(n + 2)
            row += 2
        for column, kind in columns(shells - 1):
            system[row, column] = n if kind == "A" else -(n + 1)
        scale = np.abs(system).max(axis=0)
        solution = np.linalg.solve(system / scale, right) / scale
        total += (solution[-2] + solution[-1]) * Legendre.basis(n)(np.cos(angle))
    return total


@pytest.mark.parametrize("depth", [0.4, 0.6, 0.75])
def test_a_radial_dipole_has_the_potential_of_the_shell_series(depth: float):
    """MNE approximates four shells by a few dipoles (Berg and Scherg); the series is the exact answer, within 4 %."""
    electrodes = standard_electrodes()
    direction = np.array([0.2, -0.9, 0.3]) / np.linalg.norm([0.2, -0.9, 0.3])
    angle = np.arccos(electrodes.positions_C3 @ direction / HEAD_RADIUS)

    exact = shells_potential(depth, angle) / HEAD_RADIUS**2 * 1e-9 * 1e6  # V per Am at radius 1 m -> uV per nAm
    exact -= exact.mean()
    ours = lead_field(depth * HEAD_RADIUS * direction, direction)[:, 0]

    assert np.corrcoef(ours, exact)[0, 1] > 0.9995
    np.testing.assert_allclose(ours, exact, atol=0.04 * np.abs(exact).max())


def test_sizes_are_those_of_real_evoked_responses():
    """10 to 50 nAm of cortex make 1 to 20 uV at the scalp."""
    peak = np.abs(lead_field([[0.0, -0.070, 0.005]], [[0.0, -1.0, 0.0]])).max()

    assert 0.1 < peak < 0.5  # uV per nAm


def test_an_occipital_dipole_is_seen_at_the_back():
    """V1, pointing backwards: the maximum is over Oz, and the sign is positive there."""
    electrodes = standard_electrodes()
    field = lead_field([[0.0, -0.072, 0.004]], [[0.0, -1.0, 0.0]], electrodes)[:, 0]

    assert electrodes.names[int(field.argmax())] in {"Oz", "POO1", "POO2", "OI1h", "OI2h", "POz", "Iz"}


def test_potentials_add_up_turn_over_and_mirror():
    """Linearity and the symmetry of a sphere."""
    electrodes = standard_electrodes()
    place, moment, mirror = np.array([0.03, -0.05, 0.02]), np.array([0.2, -1.0, 0.5]), np.array([-1.0, 1.0, 1.0])
    unit = moment / np.linalg.norm(moment)
    field = lead_field(place, moment)[:, 0]

    np.testing.assert_allclose(lead_field(place, -moment)[:, 0], -field, atol=1e-9)
    parts = lead_field(np.tile(place, (3, 1)), np.eye(3))
    np.testing.assert_allclose(parts @ unit, field, atol=1e-7)
    np.testing.assert_allclose(field.mean(), 0, atol=1e-9)
    pairs = (
        [electrodes.names.index(name) for name in ("O1", "P3", "C5", "F7")],
        [electrodes.names.index(n) for n in ("O2", "P4", "C6", "F8")],
    )
    mirrored = lead_field(place * mirror, moment * mirror)[:, 0]
    np.testing.assert_allclose(mirrored[pairs[0]], field[pairs[1]], atol=1e-5)


def test_a_source_outside_the_brain_is_refused():
    """With the place and the limit in mm."""
    with pytest.raises(SignalError, match=r"source 1 lies 90\.0 mm from the centre of the head, outside the brain \(85\.5 mm\)"):
        lead_field([[0, 0, 0.05], [0, 0, 0.09]], [[0, 0, 1.0], [0, 0, 1.0]])


def test_names_are_found_whatever_their_case_and_dots():
    """EEGMMIDB writes `Fc5.`, others `OZ`."""
    picks, electrodes = known_electrodes(["Fc5.", "EOG", "OZ", "Fcz.", "T9"])

    assert picks == [0, 2, 3] and electrodes.names == ("FC5", "Oz", "FCz")
    assert known_electrodes(["x"])[1].positions_C3.shape == (0, 3)


def test_splines_agree_with_mne():
    """A second implementation of Perrin et al. 1989."""
    from mne.channels.interpolation import _make_interpolation_matrix

    positions = standard_electrodes().positions_C3
    ours = spline_weights(positions[::2] / HEAD_RADIUS, positions / HEAD_RADIUS)

    np.testing.assert_allclose(ours, _make_interpolation_matrix(positions[::2], positions), atol=1e-6)
    np.testing.assert_allclose(ours.sum(axis=1), 1, atol=1e-6)


def test_splines_bring_back_the_field_of_a_dipole():
    """64 electrodes are enough for a source 25 mm below the scalp."""
    electrodes = standard_electrodes()
    field = lead_field([[0.03, -0.06, 0.02]], [[0.3, -1.0, 0.2]])[:, 0]
    directions = electrodes.positions_C3 / HEAD_RADIUS
    back = spline_weights(directions[::2], directions) @ field[::2]

    assert np.corrcoef(back, field)[0, 1] > 0.97


def test_positions_of_any_head_are_moved_onto_the_sphere():
    """Template positions are not centred on the origin and not on a sphere."""
    montage = mne.channels.make_standard_montage("easycap-M1")
    positions = np.array(list(montage.get_positions()["ch_pos"].values())) * 1.07 + [0.003, -0.01, 0.04]
    placed = on_sphere(positions)

    np.testing.assert_allclose(np.linalg.norm(placed, axis=1), HEAD_RADIUS)
    np.testing.assert_allclose(placed, on_sphere((positions - [0.003, -0.01, 0.04]) / 1.07), atol=1e-9)
    with pytest.raises(SignalError, match="3 electrode positions, 3 of them known, do not define a head"):
        on_sphere(positions[:3])
