"""Alignment, log-power maps, mirror and CSP as scikit-learn steps."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.linalg import eigvalsh
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from dreamdiff.estimators.checks import mirror_map
from dreamdiff.estimators.steps import CSP, EventCovariances, LogPower, Mirror, PersonAlignment
from dreamdiff.whitening import WhiteningConfig, covariances, inverse_root, riemannian_mean, tangent_vectors, to_rate_and_band
from eegprep.errors import DataError, SignalError, UsageError

NAMES = ["F3", "F4", "C3", "Cz", "C4", "P3", "P4"]
RATE = 100.0


def rhythms(trials: int = 60, seed: int = 0, mix_seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Left and right imagery as the textbooks have it: 10 Hz is weaker at C4 for left (0), at C3 for right (1)."""
    rng = np.random.default_rng(seed)
    y = np.arange(trials) % 2
    time = np.arange(300) / RATE
    x = 5 * rng.standard_normal((trials, len(NAMES), 300))
    for trial, label in enumerate(y):
        for name in ("C3", "C4"):
            strong = (name == "C3") == (label == 0)
            x[trial, NAMES.index(name)] += (8 if strong else 2) * np.sin(2 * np.pi * 10 * time + rng.uniform(0, 6))
    if mix_seed is not None:
        x *= np.exp(np.random.default_rng(mix_seed).standard_normal((len(NAMES), 1)))  # another amplifier, other contacts
    return x.astype(np.float32), y


def test_alignment_makes_the_mean_covariance_the_identity_for_every_person():
    """He and Wu 2020, equation 10; without shrinkage exactly."""
    x, _ = rhythms()
    person = np.repeat(["a", "b"], 30)
    x[30:] *= 7

    out = PersonAlignment(shrinkage=0.0).fit_transform(x, groups=person)

    for name in ("a", "b"):
        assert np.allclose(covariances(out[person == name]).mean(0), np.eye(7), atol=1e-3)


def test_riemannian_alignment_centres_the_riemannian_mean():
    x, _ = rhythms(40)

    out = PersonAlignment("riemann", shrinkage=0.0).fit_transform(x)

    assert np.allclose(riemannian_mean(covariances(out)), np.eye(7), atol=1e-3)


def test_the_riemannian_mean_of_two_matrices_is_their_geometric_mean():
    """Closed form: A^(1/2) (A^(-1/2) B A^(-1/2))^(1/2) A^(1/2)."""
    rng = np.random.default_rng(0)
    a, b = (m @ m.T + np.eye(4) for m in rng.standard_normal((2, 4, 4)))
    values, vectors = np.linalg.eigh(a)
    root, inverse = (vectors * np.sqrt(values)) @ vectors.T, (vectors / np.sqrt(values)) @ vectors.T
    inner, turns = np.linalg.eigh(inverse @ b @ inverse)
    expected = root @ (turns * np.sqrt(inner)) @ turns.T @ root

    assert np.allclose(riemannian_mean(np.stack([a, b])), expected, atol=1e-6)


def test_the_inverse_root_survives_an_average_reference():
    """An average reference makes the covariance singular; shrinkage keeps the root finite, and silence stays silence."""
    x = rhythms()[0][0].astype(float)
    singular = np.cov(x - x.mean(0))

    assert np.isfinite(inverse_root(singular)).all()
    assert np.array_equal(inverse_root(np.zeros((3, 3))), np.eye(3))


def test_log_power_of_a_sine_is_that_of_its_amplitude():
    """A sine of amplitude A has power A^2 / 2 in its own band."""
    time = np.arange(1000) / RATE
    x = np.tile(4.0 * np.sin(2 * np.pi * 10 * time), (2, 1, 1)).reshape(2, 1, 1000)

    features = LogPower(RATE, ((8.0, 13.0), (20.0, 30.0)), align="none", centre=False).fit_transform(x)

    assert features[0, 0] == pytest.approx(np.log(8.0), abs=0.05)
    assert features[0, 1] < np.log(0.05)


def test_mirror_is_antisymmetric():
    """A map that equals its mirror image gives zero, and exchanging left and right turns the sign."""
    step = Mirror(NAMES).fit(None)
    features = np.random.default_rng(0).standard_normal((5, 14))
    order = np.concatenate([mirror_map(NAMES), mirror_map(NAMES) + 7])

    assert np.allclose(step.transform(features), -step.transform(features[:, order]))
    assert np.allclose(step.transform(features + features[:, order]), 0)


def test_mirror_needs_both_sides():
    with pytest.raises(UsageError, match="C4 is missing"):
        Mirror(["C3", "Cz"]).fit(None)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(PersonAlignment(), CSP(2), LinearDiscriminantAnalysis()),
        make_pipeline(LogPower(RATE), LinearDiscriminantAnalysis()),
        make_pipeline(LogPower(RATE), Mirror(NAMES), LinearDiscriminantAnalysis()),
    ],
    ids=["aligned CSP", "log-power map", "mirror"],
)
def test_the_textbook_case_is_decoded_across_people_and_not_with_shuffled_labels(model):
    """Trained on one person, tested on another with another head; chance when labels are permuted."""
    x, y = rhythms(80, mix_seed=1)
    x_new, y_new = rhythms(80, seed=5, mix_seed=2)

    right = np.mean(clone(model).fit(x, y).predict(x_new) == y_new)
    shuffled = np.mean(clone(model).fit(x, np.random.default_rng(0).permutation(y)).predict(x_new) == y_new)

    assert right > 0.85
    assert abs(shuffled - 0.5) < 0.3


def test_steps_work_in_cross_validation_and_survive_pickling():
    """What `moabb.evaluations` does with a pipeline."""
    x, y = rhythms(60)
    model = make_pipeline(PersonAlignment(), CSP(2), LinearDiscriminantAnalysis())

    assert cross_val_score(model, x, y, cv=3).mean() > 0.85
    again = pickle.loads(pickle.dumps(model.fit(x, y)))
    assert np.array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((3, 4)), "expected \\(windows, channels, samples\\)"),
        (np.full((2, 7, 300), np.nan), "window 0 of 2 holds NaN"),
    ],
)
def test_wrong_input_is_named(bad, words):
    with pytest.raises(DataError, match=words):
        PersonAlignment().fit(bad)


def test_a_band_above_nyquist_is_refused():
    with pytest.raises(UsageError, match="20 to 60 Hz at 100 Hz"):
        LogPower(RATE, ((20.0, 60.0),)).fit(rhythms()[0])
    with pytest.raises(SignalError, match="does not fit 60 Hz data"):
        to_rate_and_band(np.zeros((1, 2, 300)), 60.0, WhiteningConfig())


def test_resampling_keeps_a_sine_in_the_band():
    """160 to 80 Hz: the middle of a 10 Hz sine comes out as it went in."""
    time = np.arange(1600) / 160.0
    x = np.sin(2 * np.pi * 10 * time)[None, None]

    out = to_rate_and_band(x, 160.0, WhiteningConfig())

    assert out.shape == (1, 1, 800)
    assert np.allclose(out[0, 0, 200:600], x[0, 0, ::2][200:600], atol=0.05)


def test_tangent_vectors_have_the_riemannian_distance_as_their_length():
    """Barachant et al. 2012: the length of a tangent vector is the distance to the point of contact (second implementation: scipy)."""
    rng = np.random.default_rng(0)
    a, b = (m @ m.T + np.eye(5) for m in rng.standard_normal((2, 5, 5)))

    vector = tangent_vectors(b[None], inverse_root(a, 0.0))[0]

    assert vector.shape == (15,)
    assert np.linalg.norm(vector) == pytest.approx(np.sqrt(np.square(np.log(eigvalsh(b, a))).sum()))


def test_event_covariances_read_the_shape_of_a_response_and_not_its_power():
    """Two classes with responses of opposite sign have equal power: a map of power is at chance, the stacked covariance is not."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    bump = np.exp(-((np.linspace(-2, 2, 60)) ** 2))
    x = (rng.standard_normal((80, 4, 60)) + np.where(y == 1, 1.0, -1.0)[:, None, None] * bump).astype(np.float32)
    model = make_pipeline(EventCovariances(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))

    assert np.mean(clone(model).fit(x[:50], y[:50]).predict(x[50:]) == y[50:]) > 0.9
    power = np.log(np.square(x).mean(-1))
    blind = LinearDiscriminantAnalysis().fit(power[:50], y[:50])
    assert abs(np.mean(blind.predict(power[50:]) == y[50:]) - 0.5) < 0.3
    with pytest.raises(DataError, match="1 class in the labels"):
        EventCovariances().fit(x, np.zeros(80))


def test_alignment_needs_no_fit():
    """MOABB applies a `postprocess_pipeline` without ever fitting it."""
    x, _ = rhythms(10)

    assert np.array_equal(PersonAlignment().transform(x), PersonAlignment().fit_transform(x))
