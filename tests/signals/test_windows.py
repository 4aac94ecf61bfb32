"""Cropping and padding, against the paper's released rule and against MNE-Python's spline."""

from __future__ import annotations

from dataclasses import replace

import mne
import numpy as np
import pytest
from eeg_files import eeg, names, recording
from hypothesis import given, settings
from hypothesis import strategies as st
from mne.channels.interpolation import _make_interpolation_matrix
from scipy.interpolate import interp1d

from eegprep.errors import SignalError, UsageError
from eegprep.signals.channels import (
    canonical_name,
    canonical_order,
    directions,
    misplaced,
    montage_directions,
    other_names,
    spread_channels,
    standard_positions,
)
from eegprep.signals.recipe import make_recipe
from eegprep.signals.sphere import spline_weights
from eegprep.signals.windows import crop, draw, make_windows, pad_channels, pad_map, plan_channels, plan_cut, stretch


@given(
    n_channels=st.integers(1, 300),
    n_samples=st.integers(0, 3000),
    window=st.integers(1, 600),
    stride=st.integers(1, 700),
)
@settings(max_examples=80, deadline=None)
def test_crop_gives_every_window_that_fits_and_no_other(n_channels, n_samples, window, stride):
    """Checked against slicing by hand, for any shape."""
    signal_CT = np.arange(n_channels * n_samples, dtype=np.float32).reshape(n_channels, n_samples)

    windows_NCT = crop(signal_CT, window, stride)

    expected = [signal_CT[:, start : start + window] for start in range(0, n_samples - window + 1, stride)]
    assert windows_NCT.shape == (len(expected), n_channels, window)
    for ours, theirs in zip(windows_NCT, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(n_channels=st.integers(1, 300), rows=st.integers(1, 300))
@settings(max_examples=80, deadline=None)
def test_padding_is_the_released_rule_for_any_number_of_channels(n_channels, rows):
    """Up to `rows` channels: `arange(rows) % n`. More: evenly spaced, from the first to the last."""
    chosen = pad_map(n_channels, rows)

    if n_channels <= rows:
        np.testing.assert_array_equal(chosen, np.arange(rows) % n_channels)
    else:
        steps = np.diff(chosen)
        assert len(chosen) == rows and chosen[0] == 0 and (rows == 1 or chosen[-1] == n_channels - 1)
        assert rows < 2 or (steps.min() >= 1 and steps.max() - steps.min() <= 1)


def test_pad_channels_works_on_one_window_and_on_many():
    """The channel axis is the last but one, whatever stands before it."""
    windows_NCT = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)

    padded = pad_channels(windows_NCT, 12)

    np.testing.assert_array_equal(padded, windows_NCT[:, np.arange(12) % 5])
    np.testing.assert_array_equal(pad_channels(windows_NCT[0], 12), padded[0])


def cap(name: str) -> tuple[list[str], np.ndarray]:
    """Names and head coordinates of one of MNE-Python's caps."""
    montage = mne.channels.make_standard_montage(name)
    info = mne.create_info(montage.ch_names, 100.0, "eeg").set_montage(montage, verbose="error")
    return list(montage.ch_names), np.array([channel["loc"][:3] for channel in info["chs"]])


def test_electrodes_of_a_large_cap_are_the_same_in_every_recording():
    """Whatever the seed, session and run; without places evenly in channel order."""
    made = recording(eeg(256, 600, 200.0), channels=[f"E{k + 1}" for k in range(256)])

    maps = {plan_channels(replace(made, run=str(n), subject=str(n)), make_recipe(seed=n)).pad_map for n in range(8)}

    (only,) = maps
    assert (
        (only[0] == 0 and only[-1] == 255 and set(np.diff(only)) == {2, 3})
        or set(np.diff(only)) == {1, 2, 3}
        or set(np.diff(only)) == {2}
    )


@pytest.mark.parametrize("name", ["GSN-HydroCel-256", "biosemi256", "colin27_1005"])
def test_electrodes_that_are_kept_cover_the_head(name):
    """No electrode of the cap is far from one that is kept, and where they were measured on a person changes nothing."""
    if name not in mne.channels.get_builtin_montages():
        pytest.skip(f"MNE-Python {mne.__version__} has no cap {name}")
    names, places_C3 = cap(name)
    unit_C3 = directions(places_C3)

    kept, how = spread_channels(names, places_C3, 128)
    shaken, _ = spread_channels(names, places_C3 + np.random.default_rng(0).normal(0, 3e-3, places_C3.shape), 128)

    gap_C = np.degrees(np.arccos(np.clip(unit_C3 @ unit_C3[kept].T, -1, 1))).min(axis=1)
    assert how == "spread over the head" and len(set(kept)) == 128 and kept == sorted(kept)
    assert gap_C.max() < 20
    assert kept == shaken


def test_places_that_no_electrode_can_have_are_found():
    """The origin, one place for several, beyond the head; every standard cap passes."""
    for name in ("biosemi256", "GSN-HydroCel-257", "GSN-HydroCel-129", "easycap-M1"):
        assert misplaced(cap(name)[1]) == [""] * len(cap(name)[0])
    wrong = np.array([[0, 0, 0], [0, 0, 0.13], [0, 0, 0.13], [90, 0, 40], [np.nan] * 3, [0.08, 0, 0.04]])

    assert misplaced(wrong) == ["at the origin", *["in the place of another one"] * 2, "outside a head", "", ""]


@pytest.mark.parametrize("n_samples", [2, 3, 100, 511, 512])
def test_stretching_is_linear_interpolation_from_end_to_end(n_samples):
    """The released code stretches short recordings with scipy's interp1d."""
    signal_CT = eeg(3, n_samples, 200.0)
    places = np.linspace(0, 1, n_samples)

    ours = stretch(signal_CT, 512)

    np.testing.assert_allclose(ours, interp1d(places, signal_CT)(np.linspace(0, 1, 512)), atol=1e-9)


def test_a_label_is_kept_only_when_the_window_lies_inside_the_trial():
    """A window that shows half a trial and half a pause must not train a classifier."""
    made = recording(
        eeg(2, 3000, 200.0), events=[(0.0, 2.56, "exact"), (5.0, 2.0, "short"), (10.0, 5.0, "long"), (0.0, 15.0, "BAD")]
    )

    cut = plan_cut(made, make_recipe(stride=256))

    labels = dict(zip(cut.starts_N.tolist(), cut.labels_N, strict=True))
    assert labels[0] == "exact" and labels[256] is None
    assert labels[1024] is None  # 5.0 s plus 2.0 s is shorter than a window
    assert labels[2048] == "long" and labels[2304] == "long" and 2560 not in labels


def test_no_window_crosses_a_seam():
    """Joined trials jump; a window across the jump shows a step that no brain made."""
    made = replace(recording(eeg(2, 3000, 200.0)), segments=((0, 1000), (1000, 1700), (2000, 3000)))

    cut = plan_cut(made, make_recipe(stride=100))

    for start in cut.starts_N.tolist():
        assert any(first <= start and start + 512 <= last for first, last in made.segments)
    assert len(cut) == 5 + 2 + 5


def test_one_window_per_trial_starts_at_the_cue():
    """A window keeps its stimulus's label when the trial is shorter: it runs on, or is stretched."""
    made = recording(eeg(2, 3000, 200.0), events=[(0.0, 4.0, "a"), (5.0, 1.0, "b"), (14.0, 4.0, "c")])

    skip = plan_cut(made, make_recipe(windows="trials"))
    stretched = plan_cut(made, make_recipe(windows="trials", short="stretch"))

    assert skip.starts_N.tolist() == [0, 1000] and skip.labels_N == ("a", "b")
    assert stretched.starts_N.tolist() == [0, 1000, 2800] and stretched.labels_N == ("a", "b", "c")
    assert stretched.lengths_N.tolist() == [512, 200, 200]


def test_short_recordings_are_left_out_or_stretched():
    """The paper stretches; the default leaves out, because a stretched rhythm has another frequency."""
    made = recording(eeg(2, 300, 200.0))

    assert len(plan_cut(made, make_recipe())) == 0
    cut = plan_cut(made, make_recipe(short="stretch"))
    windows_NCT = make_windows(made.signal_CT, cut, plan_channels(made, make_recipe()))
    np.testing.assert_allclose(windows_NCT[0, :2], stretch(made.signal_CT), atol=1e-5)


def test_zeros_fill_the_rows_beyond_the_recording():
    """The map says -1 where no channel stands."""
    made = recording(eeg(3, 512, 200.0))
    recipe = make_recipe(mode="zeros", channels=5)

    rows = plan_channels(made, recipe)
    window_CT = make_windows(made.signal_CT, plan_cut(made, recipe), rows)[0]

    assert rows.pad_map == (0, 1, 2, -1, -1)
    np.testing.assert_array_equal(window_CT[:3], made.signal_CT)
    assert not window_CT[3:].any()


def test_spline_weights_equal_those_of_mne_python():
    """Perrin's spherical spline, checked against the implementation that the field uses."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((40, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    ours = spline_weights(directions[:30], directions[30:])

    theirs = _make_interpolation_matrix(directions[:30], directions[30:])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_splines_carry_a_smooth_field_to_the_fixed_montage():
    """A field that grows from left to right must do so at the 128 places, too."""
    channels = names(60)
    made = recording(np.ones((60, 512)), channels=channels)
    positions = standard_positions(channels)
    made = replace(made, signal_CT=np.repeat(positions[:, :1] * 100, 512, axis=1).astype(np.float32), positions_C3=positions)
    recipe = make_recipe(mode="spline")

    window_CT = make_windows(made.signal_CT, plan_cut(made, recipe), plan_channels(made, recipe))[0]

    correlation = np.corrcoef(window_CT[:, 0], montage_directions(128)[:, 0])[0, 1]
    assert window_CT.shape == (128, 512) and correlation > 0.97


def test_the_seeded_draw_of_a_window_depends_on_nothing_but_itself():
    """Otherwise one more recording would change which windows of the others are taken."""
    whole = plan_cut(recording(eeg(1, 5120, 200.0)), make_recipe())
    part = whole.take(np.array([3, 7]))

    np.testing.assert_array_equal(draw(part, "a/1/0.0", 5), draw(whole, "a/1/0.0", 5)[[3, 7]])
    assert len(set(draw(whole, "a/1/0.0", 5).tolist())) == len(whole)
    assert not np.array_equal(draw(whole, "a/1/0.0", 5), draw(whole, "a/1/0.0", 6))


@pytest.mark.parametrize(
    ("written", "meant"),
    [("Fc5.", "FC5"), ("EEG Fp1", "Fp1"), ("EEG FP1-Ref", "Fp1"), ("FPZ", "Fpz"), ("T3", "T7"), ("Cz..", "Cz"), ("E12", "E12")],
)
def test_names_of_many_makers_mean_the_same_place(written, meant):
    """4,413 names in MOABB's metadata; these are the families that occur."""
    assert canonical_name(written) == meant


@pytest.mark.parametrize(
    "name", ["EOG1", "HEOG", "VEOl", "EMG_RH", "ECG", "M1", "A2", "Status", "STI 014", "GyroX", "x", "EXG3", "ACC_Y"]
)
def test_channels_that_are_no_eeg_are_known_by_name(name):
    """Loaders type them as EEG; a trigger channel in the corpus is a label leak."""
    assert other_names(["Fp1", "Fp2", name])[2]


@pytest.mark.parametrize("name", ["Fp1", "POz", "Iz", "E128", "T7", "FTT9h", "EEG 001", "17", "CB1", "AFp3h", "Oz.."])
def test_electrodes_are_not_taken_for_something_else(name):
    """A too eager rule would lose data without a word."""
    assert not other_names(["Fp1", "Fp2", name])[2]


def test_a1_is_an_earlobe_unless_the_cap_counts_that_way():
    """BioSemi caps call their electrodes A1 to D32."""
    assert other_names(["Fp1", "A1"]) == [False, True]
    assert not any(other_names([f"A{i}" for i in range(1, 33)]))


def test_canonical_order_goes_from_front_to_back():
    """Row k then lies in about the same place in every data set."""
    channels = ["Oz", "Cz", "unknown", "Fp1", "Fz"]

    order = canonical_order(channels, standard_positions(channels))

    assert [channels[i] for i in order] == ["Fp1", "Fz", "Cz", "Oz", "unknown"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: crop(np.zeros((1, 9)), 0), SignalError, "window of 0 samples"),
        (lambda: pad_map(0), SignalError, "0 channels cannot be padded"),
        (lambda: stretch(np.zeros((1, 1))), SignalError, "1 samples cannot be stretched"),
        (lambda: montage_directions(100), UsageError, "no fixed montage of 100"),
        (lambda: make_recipe(stride=0), UsageError, "'stride' = 0"),
        (lambda: make_recipe(hihg=4), UsageError, "'hihg'; did you mean 'high'"),
    ],
)
def test_what_cannot_be_cut_is_refused(call, error, message):
    """One line that names the value."""
    with pytest.raises(error, match=message):
        call()
