"""The gates: what is dropped, what is quarantined, and what is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from eeg_files import eeg, names, recording

from eegprep.errors import SignalError
from eegprep.signals import gates as quality
from eegprep.signals.process import process
from eegprep.signals.recipe import make_recipe
from eegprep.sources.moabb import joined_segments
from eegprep.steps.subject import run_subject


def codes(made):
    return {(finding.code, finding.channel, finding.action) for finding in made.findings}


def test_channels_that_are_not_eeg_dead_or_copied_are_dropped_and_named():
    """Each with its own reason; the others keep their order."""
    signal_CT = eeg(6, 2000, 200.0)
    signal_CT[1, 50] = np.nan
    signal_CT[2] = 7.0
    signal_CT[4] = signal_CT[0]

    gated = quality.gate_raw(recording(signal_CT, channels=["Fz", "Cz", "Pz", "EOG", "Oz", "C3"]), make_recipe())

    assert gated.channels == ("Fz", "C3")
    np.testing.assert_array_equal(gated.signal_CT, signal_CT[[0, 5]].astype(np.float32))
    assert codes(gated) >= {
        ("not_finite", "Cz", "dropped channel"),
        ("flat", "Pz", "dropped channel"),
        ("not_eeg", "EOG", "dropped channel"),
        ("duplicate", "Oz", "dropped channel"),
    }
    nan = next(finding for finding in gated.findings if finding.code == "not_finite")
    assert nan.value == pytest.approx(1 / 2000)


def test_a_lost_link_splits_the_recording_and_says_so():
    """2 s of NaN in all channels and 1 s in one of them: three stretches, all channels kept, nothing filtered across."""
    signal_CT = eeg(4, 12000, 200.0)
    signal_CT[:, 3000:3400] = np.nan
    signal_CT[2, 5000:5200] = np.inf
    done = process(recording(signal_CT), make_recipe())

    assert done.usable and len(done.recording.channels) == 4
    assert done.recording.segments == ((0, 3000), (3400, 5000), (5200, 12000))
    assert np.isfinite(done.recording.signal_CT).all()
    (finding,) = [f for f in done.recording.findings if f.code == "not_finite"]
    assert finding.value == 3.0 and finding.action == "noted"
    alone = process(recording(signal_CT[:, 5200:]), make_recipe()).recording.signal_CT
    np.testing.assert_array_equal(done.recording.signal_CT[:, 5200:], alone)


def test_a_channel_that_is_mostly_lost_costs_itself_only():
    """And one that is lost in many places is dropped instead of cutting the recording to pieces."""
    signal_CT = eeg(5, 12000, 200.0)
    signal_CT[1, 2000:] = np.nan
    signal_CT[3, ::100] = np.nan
    gated = quality.gate_raw(recording(signal_CT), make_recipe())

    assert gated.segments == ((0, 12000),) and gated.channels == tuple(np.array(names(5))[[0, 2, 4]])
    assert {f.channel: round(float(f.value), 3) for f in gated.findings if f.code == "not_finite"} == {
        names(5)[1]: 0.833,
        names(5)[3]: 0.01,
    }


def test_a_recording_of_nothing_but_nan_is_named_so():
    """Not as one with too few channels."""
    gated = quality.gate_raw(recording(np.full((3, 2000), np.nan)), make_recipe())

    first = next(f for f in gated.findings if f.action == "quarantined")
    assert first.code == "not_finite" and "NaN" in first.message


@pytest.mark.parametrize("factor", [1e-3, 1e3, 1e6])
def test_one_channel_in_another_unit_is_dropped_and_the_others_stay(factor):
    """The gate looks at each channel, not at the median alone."""
    signal_CT = eeg(6, 4000, 200.0)
    signal_CT[4] *= factor
    done = process(recording(signal_CT), make_recipe())
    without = process(recording(np.delete(signal_CT, 4, axis=0), channels=list(np.delete(names(6), 4))), make_recipe())

    assert done.usable and ("units", names(6)[4], "dropped channel") in codes(done.recording)
    np.testing.assert_array_equal(done.recording.signal_CT, without.recording.signal_CT)
    assert done.spectra == without.spectra and done.facts == without.facts
    assert not process(recording(signal_CT), make_recipe(min_channels=6)).usable


def test_what_lies_between_stretches_enters_no_statistic():
    """Half of the recording is a pause filled with zeros; amplitude and flatness are those of the rest."""
    signal_CT = eeg(4, 8000, 200.0)
    signal_CT[3] = 500.0
    signal_CT[:, 4000:] = 0.0
    done = process(replace(recording(signal_CT), segments=((0, 4000),)), make_recipe())
    alone = process(recording(signal_CT[:, :4000]), make_recipe())

    assert ("flat", names(4)[3], "dropped channel") in codes(done.recording)
    assert done.spectra.std == alone.spectra.std and done.facts.amplitude == alone.facts.amplitude


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e6])
def test_a_wrong_unit_is_quarantined_with_the_factor_it_would_take(factor):
    """Half a dozen public loaders are a power of ten off; DreamDiffusion's users saw values from 10 to 100,000."""
    done = process(recording(eeg(4, 4000, 200.0, uv=10.0) * factor), make_recipe())

    assert not done.usable
    finding = next(f for f in done.recording.findings if f.code == "units")
    assert finding.action == "quarantined"
    assert f"a factor of {1 / factor:g} would fit" in finding.message


def test_a_quiet_and_a_loud_recording_pass_the_unit_gate():
    """1 to 300 uV: the gate must not throw away real people."""
    for uv in (2.0, 200.0):
        assert process(recording(eeg(4, 4000, 200.0, uv=uv)), make_recipe()).usable


@pytest.mark.parametrize(
    ("made", "options", "code"),
    [
        (recording(eeg(4, 2000, 200.0)), {"min_channels": 5}, "few_channels"),
        (recording(np.zeros((3, 2000))), {}, "few_channels"),
        (recording(eeg(4, 2000, 160.0), 160.0), {"nyquist": "skip"}, "nyquist"),
        (recording(eeg(4, 2000, 10.0), 10.0), {}, "nyquist"),
    ],
)
def test_what_fails_a_gate_is_left_out_with_its_findings(made, options, code):
    """The reason is kept, so that nobody has to guess why a subject is missing."""
    left_out = []

    assert list(run_subject([made], make_recipe(**options), left_out)) == []
    assert code in {finding.code for finding in left_out[0].reasons}


def test_the_nyquist_policy_error_stops_at_the_first_such_recording():
    """Who asks for an error does not want a corpus with a person less."""
    with pytest.raises(SignalError, match=r"made/1/0\.0: a 5-95 Hz band does not fit 160 Hz sampling"):
        process(recording(eeg(4, 2000, 160.0), 160.0), make_recipe(nyquist="error"))


@pytest.mark.parametrize(
    ("made", "options", "code"),
    [
        (recording(eeg(4, 511, 200.0)), {}, "too_short"),
        (replace(recording(eeg(4, 1000, 200.0)), segments=((0, 500), (500, 1000))), {}, "too_short"),
        (recording(eeg(4, 1000, 200.0)), {"windows": "trials"}, "no_trials"),
        (recording(eeg(4, 1000, 200.0)), {"mode": "spline"}, "positions"),
    ],
)
def test_what_gives_no_window_is_left_out(made, options, code):
    """511 samples, seams too close, no event, no known places."""
    assert code in {finding.code for finding in quality.gate_cut(made, make_recipe(**options)).findings}


def test_exactly_one_window_is_enough():
    """The border belongs to the good side."""
    assert not quality.gate_cut(recording(eeg(4, 512, 200.0)), make_recipe()).quarantined


def test_the_effective_band_is_stored():
    """72 Hz at 160 Hz, and never more than the header says was recorded."""
    done = process(replace(recording(eeg(4, 2000, 160.0), 160.0), band=(0.1, 80.0)), make_recipe())
    narrow = process(replace(recording(eeg(4, 2000, 500.0), 500.0), band=(8.0, 40.0)), make_recipe())

    assert done.recording.band == (5.0, 72.0)
    assert narrow.recording.band == (8.0, 40.0)


def test_joined_trials_are_found_by_filling_and_by_cues():
    """The three ways in which public loaders glue trials into a fake continuous recording."""
    trials = eeg(2, 3 * 700, 200.0)
    filling = np.zeros((2, 50))
    buffered = np.hstack([filling, trials[:, :700], filling, filling, trials[:, 700:1400], filling])

    assert joined_segments(buffered, [50, 850], 600) == ((50, 750), (850, 1550))
    assert joined_segments(trials, [100, 800, 1500], 600) == ((0, 700), (700, 1400), (1400, 2100))
    assert joined_segments(trials, [100, 800, 1600], 300) == ((100, 400), (800, 1100), (1600, 1900))


def test_joined_trials_are_filtered_each_on_its_own():
    """The step between two trials is 40 times the signal; none of it may reach the trial beside it."""
    signal_CT = eeg(3, 2000, 200.0)
    alone = process(recording(signal_CT[:, :1000]), make_recipe()).recording.signal_CT
    signal_CT[:, 1000:] += 800.0

    joined = process(replace(recording(signal_CT), segments=((0, 1000), (1000, 2000))), make_recipe()).recording

    np.testing.assert_array_equal(joined.signal_CT[:, :1000], alone)
    assert "joined" in {finding.code for finding in joined.findings}


def test_names_stay_with_their_channels():
    """A dropped channel must not shift the names of those behind it."""
    signal_CT = eeg(5, 1000, 200.0)
    signal_CT[2] = 0.0
    made = recording(signal_CT, channels=names(5))

    gated = quality.gate_raw(made, make_recipe())

    assert gated.channels == tuple(names(5)[:2] + names(5)[3:])
    assert gated.positions_C3.shape == (4, 3)
