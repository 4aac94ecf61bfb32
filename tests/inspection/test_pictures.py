"""Traces and head maps: where things are drawn, and that unknown positions are said to be unknown."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from eegprep.inspection.pictures import head_map, project, traces


def cap(n=64, radius=0.095, centre=(0.0, 0.01, 0.04)):
    """Points on the upper part of a sphere that is not centred on the origin, as digitised heads are."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4 * n, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = points[points[:, 2] > -0.2][:n]
    points[:5] = [[0, 0, 1], [-1, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0]]
    return points * radius + centre


def test_vertex_is_the_centre_and_the_ears_the_circle():
    """A shifted sphere must not shift the picture: left is left, front is up."""
    vertex, left, right, front, back = project(cap())[:5]

    np.testing.assert_allclose(vertex, [0, 0], atol=1e-6)
    np.testing.assert_allclose([left, right, front, back], [[-1, 0], [1, 0], [0, 1], [0, -1]], atol=1e-6)


def test_a_head_with_an_occipital_source_is_hottest_at_the_back():
    """The drawn field, not only the dots, has its maximum where the values have."""
    positions = cap()
    values = np.exp(-(np.linalg.norm(project(positions) - [0, -1], axis=1) ** 2) / 0.1)
    axes = Figure().subplots()

    assert head_map(axes, values, positions)

    mesh = axes.collections[0]
    drawn = np.asarray(mesh.get_array()).reshape(120, 120)
    row, _ = np.unravel_index(np.nanargmax(drawn), drawn.shape)
    assert row < 30  # rows go from the back of the head to the front


@pytest.mark.parametrize("known", [0, 3])
def test_unknown_positions_are_said_to_be_unknown(known):
    """Three points are not a map; nothing is invented for the rest."""
    positions = np.full((16, 3), np.nan)
    positions[:known] = cap()[:known]
    axes = Figure().subplots()

    assert not head_map(axes, np.ones(16), positions)
    assert axes.texts[0].get_text() == "electrode positions are not known"


def test_traces_name_channels_and_time():
    """The x axis is in seconds from the start that was given."""
    axes = Figure().subplots()

    traces(axes, np.random.default_rng(0).normal(size=(3, 320)), 160.0, ["C3", "Cz", "C4"], start=10.0)

    assert [label.get_text() for label in axes.get_yticklabels()] == ["C3", "Cz", "C4"]
    assert axes.get_xlim() == pytest.approx((10.0, 10.0 + 319 / 160))
