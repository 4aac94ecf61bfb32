"""Which seconds and which electrodes carry an accuracy: planted answers must be found, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from dreamdiff.estimators.carriers import carriers, electrode_groups
from dreamdiff.estimators.carriers_figure import carriers_figure
from dreamdiff.estimators.light import decode, light_decoder
from dreamdiff.estimators.scores import balanced_accuracy, judge

NAMES = ["Fp1", "Fp2", "FC3", "FC4", "C3", "C4", "O1", "O2"]
RATE, FIRST, SAMPLES = 64.0, -0.5, 160  # 0.5 s before the event, 2 s after
PEOPLE, PER_PERSON = 6, 20


def trials(where: tuple[str, ...] = (), seconds: tuple[float, float] = (0.0, 0.0), size: float = 3.0, seed: int = 0):
    """Windows of noise of several people; in `where` and within `seconds` class 1 has a bump more than class 0."""
    rng = np.random.default_rng(seed)
    count = PEOPLE * PER_PERSON
    person_N, label_N = np.repeat(np.arange(PEOPLE), PER_PERSON), np.tile([0, 1], count // 2)
    x_NCT = rng.standard_normal((count, len(NAMES), SAMPLES))
    start, stop = (round((s - FIRST) * RATE) for s in seconds)
    rows = [NAMES.index(name) for name in where]
    if rows and stop > start:
        x_NCT[np.ix_(label_N == 1, rows, range(start, stop))] += size * np.hanning(stop - start)
    return (10 * x_NCT).astype(np.float32), label_N, person_N


def people_held_out(person_N):
    return [(np.flatnonzero(person_N % 2 != k), np.flatnonzero(person_N % 2 == k)) for k in range(2)]


def look(data, **changes):
    x_NCT, label_N, person_N = data
    settings = {"sfreq": RATE, "first": FIRST, "channels": NAMES, **changes}
    return carriers(x_NCT, label_N, person_N, people_held_out(person_N), **settings)


def test_a_late_central_answer_is_found_where_it_is_and_warns_of_nothing():
    """The windows around the answer and the central electrodes carry it; the time before the event and the others do not."""
    found = look(trials(("C3", "C4", "FC3", "FC4"), (1.0, 1.4)))

    assert found.rows[0].above_chance
    assert found["4 central electrodes"].above_chance
    assert not found["2 frontal electrodes"].above_chance
    assert not found["before the event"].above_chance
    best = max((row for row in found.rows if row.kind == "window"), key=lambda row: row.accuracy)
    assert best.first < 1.4 and best.last > 1.0
    assert found.warnings == ()


def test_an_early_frontal_answer_warns_of_both():
    """Eyes that follow the cue: the earliest moments and the frontal electrodes reach what everything reaches."""
    found = look(trials(("Fp1", "Fp2"), (0.0, 0.35), size=4.0))

    assert len(found.warnings) == 2
    assert "the earliest 0.39 s alone reach" in found.warnings[0]
    assert "the 2 frontal electrodes alone reach" in found.warnings[1]
    assert not next(row for row in found.rows if row.kind == "later").above_chance


def test_an_answer_before_the_event_is_always_named():
    """Nothing that follows the event can be there before it."""
    found = look(trials(("O1",), (-0.5, 0.0), size=4.0))

    assert found["before the event"].above_chance
    assert any("before the event tell the labels apart" in text for text in found.warnings)


def test_shuffled_labels_are_at_chance_everywhere():
    """A control that finds something in nothing is worse than none: 17 parts, 95 % intervals."""
    x_NCT, label_N, person_N = trials(("C3", "C4"), (0.5, 1.5))
    found = look((x_NCT, np.random.default_rng(4).permutation(label_N), person_N))

    assert sum(row.above_chance for row in found.rows) <= 1
    assert found.warnings == ()
    assert all(abs(row.accuracy - 0.5) < 0.15 for row in found.rows)


def test_what_cannot_be_looked_at_is_said():
    """No event, no names, too few samples."""
    data = trials()
    assert look(data, first=None).left_out["before the event"] == "the windows do not say when the event was"
    assert look(data, channels=None).left_out["frontal electrodes"] == "the channels have no known names"
    short = look((data[0][:, :, 32:60], *data[1:]), first=0.0)
    assert "28 samples after the event" in short.left_out["sliding window"]
    assert short.left_out["before the event"] == "there are 0 samples before the event (8 are needed)"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["FP1", "AF7", "F7", "F3"], {"frontal": [0, 1, 2]}),
        (["Cz", "CPz", "FC1", "T7"], {"central": [0, 1, 2], "temporal": [3]}),
        (["Oz", "Iz", "PO8", "Pz", "E17"], {"posterior": [0, 1, 2, 3]}),
    ],
)
def test_groups_go_by_the_letters_of_a_name(names, expected):
    """F3 is over the motor areas rather than the eyes, and is in no group; a number of a net says nothing."""
    assert electrode_groups(names) == expected


def test_power_without_a_fixed_phase_is_decoded_too():
    """Imagined movement changes power, not the mean: the decoder takes band power where that predicts better."""
    x_NCT, label_N, person_N = trials()
    time_T, phase_N = np.arange(SAMPLES) / RATE, np.random.default_rng(1).uniform(0, 6.3, len(label_N))
    x_NCT[:, 4] += np.where(label_N == 1, 30.0, 2.0)[:, None] * np.sin(2 * np.pi * 10 * time_T + phase_N[:, None])
    train, test = people_held_out(person_N)[0]

    guess = light_decoder(x_NCT, label_N, person_N, train, test, RATE)

    assert balanced_accuracy(label_N[test], guess) > 0.8


def test_a_person_with_training_trials_has_a_decoder_of_their_own():
    """Two people with opposite codes are both decoded; one decoder for both would find nothing."""
    label_N, person_N = np.tile([0, 1], 40), np.repeat([0, 1], 40)
    values_ND = np.where(person_N == 0, label_N, 1 - label_N)[:, None] + 0.1 * np.random.default_rng(0).standard_normal((80, 1))
    test = np.arange(0, 80, 3)
    train = np.setdiff1d(np.arange(80), test)

    assert (decode([values_ND], label_N, person_N, train, test) == label_N[test]).all()


def test_the_value_is_the_mean_over_labels_and_a_guess_that_is_no_label_is_wrong():
    """Second implementation: one label at a time."""
    label_N, guess_N = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 9, 1, 0, 2])

    value = judge(label_N, guess_N, np.arange(7), "windows", np.random.default_rng(0))[0]

    assert value == balanced_accuracy(label_N, guess_N) == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)


def test_shuffling_stays_within_the_strata_and_intervals_are_over_groups():
    """Pictures are resampled, labels shuffled among the trials of a person: shuffling within a picture would change nothing."""
    label_N = np.repeat([0, 1], 50)
    picture_N, person_N = np.repeat(np.arange(20), 5), np.zeros(100, int)

    value, low, high, chance_low, chance_high = judge(label_N, label_N, picture_N, "groups", np.random.default_rng(0), person_N)

    assert (value, low, high) == (1.0, 1.0, 1.0)
    assert chance_low < 0.5 < chance_high < 0.7


def test_a_rhythm_is_found_in_its_band_and_in_no_other():
    """Alpha that is stronger for one of two labels, over the back of the head."""
    x_NCT, label_N, person_N = trials((), (0.0, 0.0))
    rng = np.random.default_rng(3)
    time = np.arange(SAMPLES) / RATE
    for trial in range(len(x_NCT)):
        wave = np.sin(2 * np.pi * 10.5 * time + rng.uniform(0, 6.28))
        x_NCT[trial] += (25 if label_N[trial] else 5) * wave.astype(np.float32)

    found = look((x_NCT, label_N, person_N))
    bands = {row.name.split(",")[0]: row for row in found.rows if row.kind == "band"}

    assert bands["alpha"].above_chance and bands["alpha"].accuracy > 0.8
    assert not bands["gamma"].above_chance and not bands["beta"].above_chance


def test_trials_too_short_for_a_band_say_so():
    found = look(trials((), (0.0, 0.0)), sfreq=8 * RATE, first=FIRST / 8)

    assert "theta band" in found.left_out


def test_the_figure_has_a_panel_for_when_where_and_in_which_band():
    figure = carriers_figure(look(trials(("C3", "C4"), (1.0, 1.4))).to_json())

    assert [axis.get_title() for axis in figure.axes] == ["when", "where", "in which band"]
    assert len(figure.axes[2].get_xticklabels()) == 4
    assert carriers_figure({"rows": []}) is None
