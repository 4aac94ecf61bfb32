"""The band-pass, against MNE-Python and against theory."""

from __future__ import annotations

import mne
import numpy as np
import pytest
import scipy.signal
from eeg_files import eeg
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eegprep.errors import SignalError
from eegprep.signals import filters
from eegprep.signals.filters import band_pass, design_band_pass, effective_band, notch, resample, same_rate

RATES = [62.5, 100.0, 128.0, 160.0, 191.0, 200.0, 250.0, 256.00012, 500.0, 512.0, 1000.0, 2048.0]


@pytest.mark.parametrize("sfreq", RATES)
def test_taps_are_those_of_mne_python(sfreq):
    """Everybody in the field filters with this design; a corpus filtered otherwise could not be compared with theirs."""
    band = effective_band(sfreq)

    ours = design_band_pass(sfreq, band.low, band.high)

    theirs = mne.filter.create_filter(None, sfreq, band.low, band.high, verbose="error")
    np.testing.assert_allclose(ours, theirs, atol=1e-14)


@given(
    sfreq=st.sampled_from(RATES),
    n_channels=st.integers(1, 5),
    n_samples=st.integers(1, 9000),
    seed=st.integers(0, 99),
    offset=st.floats(-500, 500),
)
@settings(max_examples=40, deadline=None)
def test_output_equals_mne_python_edges_included(sfreq, n_channels, n_samples, seed, offset):
    """Any length and rate, from one sample on: 1e-6 of the standard deviation for float32, 1e-12 for float64."""
    signal_CT = eeg(n_channels, n_samples, sfreq, seed) + offset
    band = effective_band(sfreq)
    theirs = mne.filter.filter_data(signal_CT.copy(), sfreq, band.low, band.high, verbose="error")

    exact = band_pass(signal_CT, sfreq, band.low, band.high)
    single = band_pass(signal_CT.astype(np.float32), sfreq, band.low, band.high)

    size = max(np.abs(signal_CT).max(), 1.0)
    assert exact.dtype == np.float64 and single.dtype == np.float32
    np.testing.assert_allclose(exact, theirs, atol=1e-12 * size)
    np.testing.assert_allclose(single, theirs, atol=1e-6 * size)


def test_genuine_length_of_many_blocks_equals_mne_python_within_a_millionth():
    """The signal is cut into blocks for the FFT; a fault at a block's edge would show every 8,192 samples."""
    signal_CT = eeg(3, 60_000, 1000.0)
    theirs = mne.filter.filter_data(signal_CT.copy(), 1000.0, 5.0, 95.0, verbose="error")

    ours = band_pass(signal_CT.astype(np.float32), 1000.0, 5.0, 95.0)

    assert np.abs(ours - theirs).max() < 1e-6 * signal_CT.std()


def in_float64(signal_CT, filter_K):
    """The same filter by SciPy, whole rows at once."""
    half, n_samples = len(filter_K) // 2, signal_CT.shape[1]
    reach = min(half, n_samples - 1)
    extended_CT = np.pad(signal_CT.astype(np.float64), ((0, 0), (reach, reach)), mode="reflect", reflect_type="odd")
    extended_CT = np.pad(extended_CT, ((0, 0), (half - reach, half - reach)))
    return scipy.signal.oaconvolve(extended_CT, filter_K[None], mode="valid", axes=1)


@given(
    sfreq=st.sampled_from(RATES),
    n_samples=st.integers(2, 30_000),
    seed=st.integers(0, 999),
    level=st.sampled_from([0.0, 90.0, -900.0, 20_000.0, 300_000.0]),
    drift=st.sampled_from([0.0, 50.0, 5_000.0, 100_000.0]),
    pop=st.sampled_from([0.0, 3_000.0]),
    low=st.sampled_from([0.5, 5.0, None]),
)
@example(sfreq=160.0, n_samples=307, seed=0, level=300_000.0, drift=100_000.0, pop=0.0, low=0.5)  # shorter than the filter
@settings(max_examples=80, deadline=None)
def test_float32_agrees_with_float64_whatever_the_level(sfreq, n_samples, seed, level, drift, pop, low):
    """1e-5 of each channel's deviation: amplifiers without a high-pass have levels of tens of mV, drift, and jumps."""
    signal_CT = eeg(3, n_samples, sfreq, seed)
    time_T = np.linspace(0, 1, n_samples)
    signal_CT[0] += level + drift * np.sin(2.2 * time_T)
    signal_CT[1, n_samples // 3 :] += pop
    signal_CT = signal_CT.astype(np.float32)
    band = effective_band(sfreq)

    ours = band_pass(signal_CT, sfreq, low, band.high)

    exact = in_float64(signal_CT, design_band_pass(sfreq, low, band.high))
    assert ours.dtype == np.float32
    # a pass band from 0 Hz on keeps the level, of which float32 has its own step
    step_C = 0.0 if low else np.spacing(np.abs(signal_CT).max(axis=1))
    # what is shorter than the filter is mostly its ringing, and a deviation says nothing about that
    size_C = exact.std(axis=1) if n_samples > sfreq else np.sqrt((exact**2).mean(axis=1))
    limit_C = 1e-5 * size_C + np.spacing(np.abs(exact).max(axis=1).astype(np.float32)) + step_C
    assert (np.abs(ours - exact).max(axis=1) <= limit_C).all()


def test_a_block_under_a_drift_is_done_in_float64(monkeypatch):
    """Where float32 would not do, and only there: the drift of one channel must not slow the others down."""
    signal_CT = eeg(4, 40_000, 500.0).astype(np.float32)
    signal_CT[2, 20_000:] += np.linspace(0, 80_000, 20_000, dtype=np.float32)
    exact = in_float64(signal_CT, design_band_pass(500.0, 5.0, 95.0))
    relative = lambda: (np.abs(band_pass(signal_CT, 500.0, 5.0, 95.0) - exact).max(axis=1) / exact.std(axis=1)).tolist()  # noqa: E731

    assert max(relative()) < 1e-5
    monkeypatch.setattr(filters, "_MOST_FOR_FLOAT32", np.inf)
    without = relative()
    assert without[2] > 1e-5 and max(without[:2] + without[3:]) < 1e-5


def test_how_many_rows_are_filtered_together_decides_about_no_bit():
    """Transforms are made in groups; a channel that is dropped must not change the others."""
    signal_CT = eeg(67, 9000, 200.0).astype(np.float32)

    together = band_pass(signal_CT, 200.0)

    np.testing.assert_array_equal(together, np.concatenate([band_pass(row_1T, 200.0) for row_1T in signal_CT[:, None]]))


def test_a_rhythm_in_the_band_stays_in_place_and_slow_drift_goes():
    """A phase shift would misalign EEG and image; drift fifty times larger than the rhythm is normal at an electrode."""
    time_T = np.arange(0, 20, 1 / 256)
    rhythm_T, drift_T = 10 * np.sin(2 * np.pi * 10 * time_T), 500 * np.sin(2 * np.pi * 0.3 * time_T)

    out_T = band_pass((rhythm_T + drift_T)[None], 256.0)[0]

    middle = slice(5 * 256, -5 * 256)
    stop_band = 10 ** (-53 / 20)  # of a Hamming window
    np.testing.assert_allclose(out_T[middle], rhythm_T[middle], atol=500 * stop_band)


def test_segments_are_filtered_each_on_its_own():
    """Trials that somebody joined have a jump between them; a filter across it smears the jump over both."""
    signal_CT = eeg(2, 3000, 200.0)
    signal_CT[:, 1000:] += 400.0

    out_CT = band_pass(signal_CT, 200.0, segments=((0, 1000), (1000, 3000)))

    np.testing.assert_array_equal(out_CT[:, :1000], band_pass(signal_CT[:, :1000], 200.0))
    np.testing.assert_array_equal(out_CT[:, 1000:], band_pass(signal_CT[:, 1000:], 200.0))


@pytest.mark.parametrize(
    ("sfreq", "policy", "expected"),
    [
        (250.0, "clip", (5.0, 95.0)),
        (200.0, "skip", (5.0, 95.0)),
        (160.0, "clip", (5.0, 72.0)),
        (128.0, "clip", (5.0, 57.6)),
        (160.0, "highpass", (5.0, None)),
    ],
)
def test_the_upper_edge_follows_the_nyquist_rule(sfreq, policy, expected):
    """400 people of the paper's corpus were recorded at 160 Hz or less, where 95 Hz does not exist."""
    band = effective_band(sfreq, policy=policy)

    assert (band.low, band.high) == pytest.approx(expected) if expected[1] else (band.low, band.high) == expected


def test_skip_leaves_a_slow_recording_out():
    """`None` says so without an error, because it is a choice."""
    assert effective_band(160.0, policy="skip") is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: effective_band(160.0, policy="error"), "5-95 Hz band does not fit 160 Hz .*80 Hz"),
        (lambda: effective_band(10.0), "no part of a 5-95 Hz band fits 10 Hz .*4.5 Hz"),
        (lambda: effective_band(250.0, 95.0, 5.0), "from 95 to 5 Hz is empty"),
        (lambda: band_pass(np.zeros((1, 10)), 160.0), "95 Hz does not fit 160 Hz"),
        (lambda: band_pass(np.zeros(10), 250.0), "1 dimensions cannot be filtered"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(call, message):
    """The numbers tell what to change."""
    with pytest.raises(SignalError, match=message):
        call()


def test_resampling_keeps_a_rhythm_and_its_place():
    """1000 Hz to 250 Hz: the same sine at the new times."""
    time_T = np.arange(0, 8, 1 / 1000)
    out_CT = resample(np.sin(2 * np.pi * 12 * time_T)[None], 1000.0, 250.0)

    expected_T = np.sin(2 * np.pi * 12 * np.arange(0, 8, 1 / 250))
    assert out_CT.shape == (1, 2000)
    np.testing.assert_allclose(out_CT[0, 100:-100], expected_T[100:-100], atol=1e-2)


def test_rates_that_an_amplifier_misreports_are_the_same():
    """Nine public data sets report 256.00005 to 256.00013 Hz; resampling them would only add noise."""
    signal_CT = eeg(1, 100, 256.0)

    assert same_rate(256.00013, 256.0)
    assert resample(signal_CT, 256.00013, 256.0) is signal_CT


def test_the_notch_takes_the_line_frequency_and_leaves_the_alpha_rhythm():
    """Off by default, as in the paper; when asked for, only the line goes."""
    time_T = np.arange(0, 10, 1 / 250)
    alpha_T, line_T = np.sin(2 * np.pi * 10 * time_T), 5 * np.sin(2 * np.pi * 50 * time_T)

    out_T = notch((alpha_T + line_T)[None], 250.0, 50.0, 95.0)[0]

    middle = slice(750, -750)
    np.testing.assert_allclose(out_T[middle], alpha_T[middle], atol=0.05)
