"""EEGFeatures and EEGClassifier as scikit-learn estimators."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from estimators.test_steps import NAMES, RATE, rhythms
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dreamdiff import EEGClassifier, EEGFeatures
from dreamdiff.encoders.positions import PositionsConfig, PositionsEncoder
from eegprep.errors import DataError, ModelError, UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a fresh encoder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    PositionsEncoder(PositionsConfig()).save_pretrained(folder)
    return folder


def test_features_of_a_random_encoder_decode_the_textbook_case(run):
    """Random features of whitened EEG hold the rhythm; with permuted labels nothing is left."""
    x, y = rhythms(80)
    x_new, y_new = rhythms(80, seed=7)
    model = make_pipeline(EEGFeatures(run, sfreq=RATE, channels=NAMES), StandardScaler(), LogisticRegression(C=0.1))

    assert np.mean(clone(model).fit(x, y).predict(x_new) == y_new) > 0.7
    shuffled = np.random.default_rng(1).permutation(y)
    assert abs(np.mean(clone(model).fit(x, shuffled).predict(x_new) == y_new) - 0.5) < 0.25


def test_features_do_not_depend_on_the_batch_or_on_others(run):
    """Each person's windows alone give what they give among others."""
    x, _ = rhythms(20)
    other, _ = rhythms(20, seed=3, mix_seed=4)
    step = EEGFeatures(run, sfreq=RATE, channels=NAMES, batch_size=7).fit(x)

    together = step.transform(np.concatenate([x, other]), groups=np.repeat([0, 1], 20))

    assert np.allclose(together[:20], step.transform(x), atol=1e-5)
    assert together.shape == (40, len(NAMES) * 64)


def test_volts_and_microvolts_give_the_same(run):
    x, _ = rhythms(10)
    expected = EEGFeatures(run, sfreq=RATE, channels=NAMES).fit_transform(x)

    assert np.allclose(EEGFeatures(run, sfreq=RATE, channels=NAMES, unit="V").fit_transform(x * 1e-6), expected, atol=1e-4)
    with pytest.raises(DataError, match="look like volts"):
        EEGFeatures(run, sfreq=RATE, channels=NAMES).fit(x * 1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sfreq": None}, "sampling rate"),
        ({"channels": None}, "know its electrodes"),
        ({"channels": NAMES[:-1]}, "6 channel names for windows of 7"),
        ({"channels": [*NAMES[:-1], "Foo9"]}, "no place is known for Foo9"),
    ],
)
def test_what_an_array_does_not_carry_is_asked_for(run, changes, words):
    """Silently assumed rates and electrodes are how models read nonsense."""
    with pytest.raises(UsageError, match=words):
        EEGFeatures(run, **{"sfreq": RATE, "channels": NAMES, **changes}).fit(rhythms(4)[0])


def test_an_encoder_of_another_kind_is_refused(tmp_path):
    from dreamdiff import EEGEncoder

    EEGEncoder.from_preset("tiny").save_pretrained(tmp_path)

    with pytest.raises(ModelError, match="one cap and window only"):
        EEGFeatures(tmp_path, sfreq=RATE, channels=NAMES).fit(rhythms(4)[0])


def test_the_classifier_learns_clones_and_pickles(run):
    """The textbook case across people, from pre-trained weights and from scratch; equal seeds give equal predictions."""
    x, y = rhythms(80)
    x_new, y_new = rhythms(60, seed=9)
    labels = np.array(["left", "right"])[y]
    model = EEGClassifier(run, sfreq=RATE, channels=NAMES, epochs=12, lr=3e-3, batch_size=16)

    fitted = clone(model).fit(x, labels)

    assert np.mean(fitted.predict(x_new) == np.array(["left", "right"])[y_new]) > 0.8
    assert np.allclose(fitted.predict_proba(x_new).sum(1), 1)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(x_new), fitted.predict_proba(x_new))
    assert np.array_equal(clone(model).fit(x, labels).predict_proba(x_new), fitted.predict_proba(x_new))


def test_a_frozen_encoder_is_not_changed(run):
    """lr_encoder=0 trains the head alone."""
    x, y = rhythms(40)
    fitted = EEGClassifier(run, sfreq=RATE, channels=NAMES, epochs=2, lr_encoder=0.0).fit(x, y)
    before = PositionsEncoder.from_pretrained(run).state_dict()

    assert all(torch.equal(value, before[name]) for name, value in fitted.network_.encoder.state_dict().items())
    assert fitted.network_.head.weight.abs().max() > 0


def test_one_class_is_an_error(run):
    with pytest.raises(DataError, match="1 class"):
        EEGClassifier(run, sfreq=RATE, channels=NAMES).fit(rhythms(4)[0], np.zeros(4))


def test_the_packaged_encoder_works_without_training():
    """`EEGFeatures()` needs no run: a small encoder ships, with a card that names data and licence."""
    from dreamdiff.estimators.features import packaged_encoder

    x, y = rhythms(60)
    x_new, y_new = rhythms(60, seed=8)
    model = make_pipeline(EEGFeatures(sfreq=RATE, channels=NAMES), StandardScaler(), LogisticRegression(C=0.1))

    assert np.mean(model.fit(x, y).predict(x_new) == y_new) > 0.8
    assert "ODC-BY" in (packaged_encoder() / "README.md").read_text()
    assert sum(path.stat().st_size for path in packaged_encoder().iterdir()) < 10_000_000
