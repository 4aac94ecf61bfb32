"""Splits hold whole groups apart, and say when they can't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamdiff.pairs.splits import FACTORS, PARTS, Trials, split
from eegprep.errors import DataError, UsageError


def random_trials(
    people: int = 3, sessions: int = 2, classes: int = 5, images: int = 6, repeats: int = 4, *, block: int = 20, seed: int = 0
) -> Trials:
    """Every person sees every image `repeats` times in random order; blocks of `block` trials, numbered within the session."""
    rng = np.random.default_rng(seed)
    n = classes * images * repeats
    columns: dict[str, list[np.ndarray]] = {name: [] for name in Trials.__dataclass_fields__}
    for person in range(people):
        stimulus = rng.permutation(np.repeat(np.arange(classes * images), repeats))
        session = np.arange(n) * sessions // n
        within = np.arange(n) - np.searchsorted(session, session)
        values = {
            "person": np.full(n, person), "session": session, "block": within // block,
            "stimulus": stimulus, "concept": stimulus // images, "time": within * 1.1,
        }  # fmt: skip
        for name, array in values.items():
            columns[name].append(array)
    return Trials(**{name: np.concatenate(parts) for name, parts in columns.items() if parts})


@pytest.mark.parametrize("factor", FACTORS)
def test_no_group_is_in_two_parts_and_no_trial_is_lost(factor: str):
    """The definition of a split by that factor."""
    trials = random_trials()
    parts = split(trials, factor)
    groups = trials.groups(factor)

    assert sorted(np.concatenate([parts[name] for name in PARTS]).tolist()) == list(range(len(trials)))
    in_parts = [set(groups[parts[name]].tolist()) for name in PARTS]
    assert all(in_parts)
    assert not (in_parts[0] & in_parts[2]) and not (in_parts[1] & in_parts[2]) and not (in_parts[0] & in_parts[1])


@settings(max_examples=40, deadline=None)
@given(
    people=st.integers(1, 4), classes=st.integers(1, 6), images=st.integers(2, 5), repeats=st.integers(1, 3),
    factor=st.sampled_from(["trial", "stimulus"]), seed=st.integers(0, 5),
)  # fmt: skip
def test_every_class_is_in_training_and_in_test(people, classes, images, repeats, factor, seed):
    """A class without training trials can only be guessed; one without test trials is not measured."""
    trials = random_trials(people, 1, classes, images, repeats, seed=seed)
    parts = split(trials, factor, seed=seed)

    for name in ("train", "test"):
        assert set(trials.concept[parts[name]].tolist()) == set(range(classes))
    if factor == "stimulus":
        assert not set(trials.stimulus[parts["train"]].tolist()) & set(trials.stimulus[parts["test"]].tolist())


def test_shares_are_about_what_was_asked():
    """10 images a class: 8 train, 1 val, 1 test."""
    trials = random_trials(images=10, repeats=2)
    parts = split(trials, "stimulus", fractions=(0.6, 0.2, 0.2))

    assert [len(parts[name]) / len(trials) for name in PARTS] == pytest.approx([0.6, 0.2, 0.2])


def test_a_seed_gives_one_split_and_another_seed_another():
    """Results must be repeatable, and their spread over splits measurable."""
    trials = random_trials()
    first, again, other = (split(trials, "stimulus", seed=seed)["test"].tolist() for seed in (1, 1, 2))

    assert first == again != other


def test_with_two_people_validation_comes_from_the_one_that_trains():
    """Otherwise nobody would be left to select on but the test person."""
    trials = random_trials(people=2)
    parts = split(trials, "person")
    persons = {name: set(trials.person[parts[name]].tolist()) for name in PARTS}

    assert persons["val"] == persons["train"] and not persons["test"] & persons["train"]
    assert len(parts["val"]) == 5 * round(0.1 * 24)  # a tenth of the 24 trials of each class


def test_a_joint_split_is_new_in_both_factors():
    """New person *and* new image: the strictest claim; trials new in one only would leak and are left out."""
    trials = random_trials(people=3, images=6)
    parts = split(trials, "person+stimulus")

    for factor in ("person", "stimulus"):
        groups = trials.groups(factor)
        assert not set(groups[parts["train"]].tolist()) & set(groups[parts["test"]].tolist())
    assert 0 < sum(len(parts[name]) for name in PARTS) < len(trials)


def test_blocks_and_sessions_count_within_the_person():
    """Block 0 of one person is not block 0 of another."""
    trials = random_trials(people=2, sessions=2)

    assert len(np.unique(trials.groups("session"))) == 4
    assert len(np.unique(trials.groups("block"))) == len(
        np.unique(np.stack([trials.person, trials.session, trials.block]), axis=1).T
    )


def test_what_is_unknown_cannot_be_split_by():
    """ImageNet-EEG does not say which session a trial is from."""
    trials = random_trials()
    session = trials.session.copy()
    session[:7] = -1
    unknown = Trials(trials.person, session, trials.block, trials.stimulus, trials.concept, trials.time)

    with pytest.raises(DataError, match="the session is unknown for 7 of 360 trials"):
        split(unknown, "session")
    assert (unknown.groups("session")[:7] == -1).all()


def test_requests_that_make_no_sense_are_refused():
    """With the number that does not fit."""
    trials = random_trials(people=1, sessions=1)
    with pytest.raises(DataError, match="there is 1 person, it needs 2 or more"):
        split(trials, "person")
    with pytest.raises(DataError, match="there is 1 session"):
        split(trials, "session")
    with pytest.raises(UsageError, match="no factor 'peron'; did you mean 'person'"):
        split(trials, "peron")
    with pytest.raises(UsageError, match=r"fractions \(0.9, 0.2, 0.1\) do not part the trials"):
        split(trials, "trial", fractions=(0.9, 0.2, 0.1))
    lonely = Trials(*(np.zeros(4, int),) * 3, np.arange(4), np.arange(4), np.arange(4.0))
    with pytest.raises(DataError, match="there is 4 stimulus in 4 concepts, one of them needs 2 or more"):
        split(lonely, "stimulus")
    two = Trials(np.array([0, 0, 1, 1]), *(np.zeros(4, int),) * 2, np.array([0, 1, 0, 1]), np.zeros(4, int), np.arange(4.0))
    train, test = (int(two.person[split(two, "person")[name]][0]) for name in ("train", "test"))
    assert {train, test} == {0, 1}
    with pytest.raises(DataError, match="columns of the trial table differ in length"):
        Trials(*(np.zeros(4, int),) * 5, np.zeros(3))


def test_a_joint_split_without_test_trials_is_an_error():
    """One image per person: no trial is new in both and comparable."""
    trials = Trials(np.array([0, 1, 2]), *(np.zeros(3, int),) * 2, np.array([0, 1, 2]), np.zeros(3, int), np.arange(3.0))
    messages = []
    for seed in range(20):
        try:
            split(trials, "person+stimulus", seed=seed)
        except DataError as error:
            messages.append(str(error))
    assert any("no trial is left for" in message for message in messages)
