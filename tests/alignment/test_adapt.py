"""`adapt`: which trials of a new person are read, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from world import make_world

from dreamdiff.alignment.adapt import adapt, chosen_trials, epochs_for, minutes_of
from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.prepare import align, learned_from
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import DataError, UsageError
from eegprep.settings import resolve

SMALL = ["front.rate=64", "front.seconds=0.625", "loop.device=cpu", "loop.epochs=1", "optim.warmup_epochs=0.5"]


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    pairs, target = make_world(folder, people=2, trials=3, test_trials=1)
    align(pairs, folder / "run", resolve(AlignConfig, presets=ALIGN_PRESETS, preset="tiny", assignments=SMALL), targets=[target])
    return folder / "run", target


def adapt_config():
    return resolve(AlignConfig, presets=ALIGN_PRESETS, preset="adapt", assignments=SMALL)


def test_minutes_are_those_of_the_recording(tmp_path):
    """A trial every two seconds: three minutes hold the trials that began in them, and no test trial."""
    pairs, _ = make_world(tmp_path, people=1, trials=12)
    store = Pairs.open(pairs)
    train = store.split()["train"]

    chosen = chosen_trials(store, train, 3.0, None)

    assert set(chosen) <= set(train)
    assert store.onset[chosen].max() <= 180 < store.onset[np.setdiff1d(train, chosen)].min()
    assert minutes_of(store, chosen) <= 3.0


def test_unlabelled_trials_are_the_first_ones(tmp_path):
    pairs, _ = make_world(tmp_path, people=2, trials=3)
    store = Pairs.open(pairs)

    chosen = chosen_trials(store, store.split()["train"], None, 7)

    assert [(store.person[chosen] == person).sum() for person in (0, 1)] == [7, 7]


def test_fewer_epochs_for_more_trials(tmp_path):
    pairs, _ = make_world(tmp_path, people=1, trials=12)
    store = Pairs.open(pairs)
    train = store.split()["train"]

    assert epochs_for(store, train[store.labels[train] == 0][:1]) == 40
    assert epochs_for(store, train) == 4


def test_an_adapted_model_knows_everybody_and_what_it_learned_from(others, tmp_path):
    run, _ = others
    pairs, _ = make_world(tmp_path, people=1, first_person=7, trials=3, test_trials=1)
    store = Pairs.open(pairs)

    result = adapt(run, pairs, tmp_path / "run", adapt_config(), minutes=0.7)

    model = AlignedEncoder.from_pretrained(tmp_path / "run")
    assert model.config.people == ("p0", "p1", "p7")
    assert result.labelled and result.trials == len(chosen_trials(store, store.split()["train"], 0.7, None))
    assert len(learned_from(model, store, store.split()["train"])) == result.trials
    assert model.encode(store.eeg([0]), person="p7").shape == (1, 12)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"minutes": 1.0, "unlabelled": 5}, UsageError, "both given"),
        ({"minutes": 0.0}, UsageError, "no time"),
        ({"minutes": 0.001}, DataError, "at least 2"),
        ({"unlabelled": 1}, UsageError, "too few"),
    ],
)
def test_what_does_not_fit_is_refused(others, tmp_path, options, error, words):
    run, _ = others
    pairs, _ = make_world(tmp_path, people=1, first_person=7, trials=2, test_trials=1)

    with pytest.raises(error, match=words):
        adapt(run, pairs, tmp_path / "run", adapt_config(), **options)
