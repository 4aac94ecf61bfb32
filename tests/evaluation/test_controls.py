"""Controls: at chance where there is nothing, far above it where drift names the class, and the first line says which."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt
from sklearn.linear_model import RidgeClassifier

from dreamdiff import linear as k_linear
from dreamdiff.baselines import features as k_features
from dreamdiff.evaluation import decoding_controls as k
from dreamdiff.evaluation import generation_controls as k_generation_controls
from dreamdiff.metrics.measurement import mean_measurement
from dreamdiff.pairs.audit import audit
from dreamdiff.pairs.splits import Exchange, Trials
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.images import ImageSet
from dreamdiff.simulation.simulate import simulate
from eegprep.errors import DataError

RNG = np.random.default_rng
CLASSES = 6


def table(n: int, *, time: np.ndarray | None = None, **other: np.ndarray) -> Trials:
    zeros = np.zeros(n, np.int64)
    return Trials(
        person=zeros,
        session=zeros,
        block=other.get("block", zeros),
        stimulus=other.get("stimulus", np.arange(n)),
        concept=other.get("concept", np.arange(n) % 4),
        time=np.arange(n, dtype=float) * 2 if time is None else time,
    )


def small_images() -> ImageSet:
    """Six images of each of six classes, features with a class part and a part of their own."""
    rng = RNG(0)
    labels = np.repeat(np.arange(CLASSES), 6)
    features = rng.normal(size=(CLASSES, 32))[labels] + 0.5 * rng.normal(size=(len(labels), 32))
    names = tuple(f"image-{i}" for i in range(len(labels)))
    pixels = rng.integers(0, 256, (len(labels), 16, 16, 3)).astype(np.uint8)
    return ImageSet(pixels, labels, names, np.arange(len(labels)) % 3 == 0, tuple(f"class {i}" for i in range(CLASSES)), features)


def judged(tmp_path, *, order: str, drift: float) -> k.DecodingControls:
    """Simulate one person, audit the default split (test images are new), and run all decoding controls."""
    config = SimulateConfig(
        sources="linear", snr=-4, people=1, trials=30, block_order=order, drift=drift, background="pink", seed=1
    )
    pairs = simulate(tmp_path / "pairs.zarr", config, images=small_images())
    parts = pairs.split()
    train, test = parts["train"], parts["test"]
    features = k_features.extract_features(pairs.eeg, pairs.trials, train, sfreq=512, t0=-0.2, real_channels=128)
    report = audit(pairs.trials, train, test, split="default")
    return k.decoding_controls(features, pairs.trials, train, test, classes=CLASSES, audit=report)


# the demonstration


def test_randomised_order_without_drift_is_called_clean_and_every_control_is_at_chance(tmp_path):
    """A true result must survive its controls, or nobody will run them."""
    found = judged(tmp_path, order="random", drift=0.0)

    others = [c for c in found.controls if c.kind != "result"]
    assert {c.name for c in others} >= {"noise", "pre-stimulus", "band power", "channel means", "below 5 Hz", "pseudo-blocks"}
    for control in others:
        assert control.measurement.low <= control.measurement.floor <= control.measurement.high, control.name
        assert not control.above_chance(len(others)), control.name
    assert found["eeg"].measurement.value > 0.4 and found["eeg"].p < 0.001
    assert found.verdict == "clean" and found.sentence.startswith("no leak found")


def test_class_blocks_with_drift_let_a_decoder_without_stimulus_score_high_and_the_first_line_says_so(tmp_path):
    """The field's published numbers on ImageNet-EEG come from such a design."""
    found = judged(tmp_path, order="class", drift=0.3)

    assert found["pre-stimulus"].measurement.value > 0.4
    assert found["band power"].measurement.value > 0.8
    assert found["pseudo-blocks"].measurement.value > 0.3
    assert found["noise"].measurement.value < 0.35
    assert found.verdict == "leaks"
    assert found.sentence.startswith("NOT EVIDENCE OF DECODING: a decoder that was given only ")
    assert "before" in found.sentence.partition(" names the class")[0]
    assert "one block" in found.left_out["labels shuffled by block"]


# the light decoder


def test_ridge_decoder_agrees_with_scikit_learn():
    """Same model, same strength, another implementation."""
    rng = RNG(0)
    x, y = rng.normal(size=(60, 30)), rng.integers(0, 3, 60)
    x[np.arange(60), y] += 1.5
    mine = k_linear.RidgeDecoder().fit(x[:40], y[:40])
    standard = (x - x[:40].mean(0)) / x[:40].std(0)

    theirs = RidgeClassifier(alpha=mine.fitted.penalty * 30).fit(standard[:40], y[:40])

    np.testing.assert_array_equal(mine.predict(x[40:]), theirs.predict(standard[40:]))


def test_left_out_error_is_that_of_really_leaving_out():
    """The closed form chooses the strength; by brute force on ten trials."""
    rng = RNG(1)
    kernel_root = rng.normal(size=(10, 4))
    kernel, y = kernel_root @ kernel_root.T, rng.normal(size=(10, 2))
    brute = []
    for i in range(10):
        rest = np.delete(np.arange(10), i)
        dual = np.linalg.solve(kernel[np.ix_(rest, rest)] + 0.5 * np.eye(9), y[rest])
        brute.append((kernel[i, rest] @ dual - y[i]) ** 2)
    assert k_linear.Dual(kernel, y).left_out_error(0.5) == pytest.approx(np.mean(brute))


def test_decoder_survives_constant_features_and_refuses_one_trial():
    """Channels can be flat, and filtered means are all but zero."""
    x = np.zeros((8, 3))
    x[:, 1] = [0, 0, 0, 0, 1, 1, 1, 1]
    assert k_linear.RidgeDecoder().fit(x, [0] * 4 + [1] * 4).predict(x).tolist() == [0] * 4 + [1] * 4
    with pytest.raises(DataError, match="1 training trials"):
        k_linear.RidgeDecoder().fit(x[:1], [0])


# features


def test_band_power_sees_the_band_of_a_rhythm():
    """A 10 Hz rhythm ten times larger raises the alpha band of its channel by log 100 and leaves the others."""
    t = np.arange(512) / 256
    eeg = RNG(0).normal(0, 1, (1, 2, 512))
    louder = eeg.copy()
    eeg[0, 1] += np.sin(2 * np.pi * 10 * t)
    louder[0, 1] += 100 * np.sin(2 * np.pi * 10 * t)

    change = (k_features.band_power(louder, 256) - k_features.band_power(eeg, 256)).reshape(-1, 2)

    assert change[2, 1] > 6 and np.abs(change[:, 0]).max() < 1e-9 and np.abs(change[4, 1]) < 0.5


def test_slow_part_is_blind_above_5_hz_and_whole_below():
    """Against a filter of another kind."""
    t = np.arange(512) / 256
    slow, fast = np.sin(2 * np.pi * 2 * t), np.sin(2 * np.pi * 20 * t)
    sos = butter(8, 5, fs=256, output="sos")

    assert np.abs(k_features.slow_part(fast[None, None], 256)).max() < 1e-6
    expected = k_features.time_course(sosfiltfilt(sos, slow + fast)[None, None], bins=16)
    np.testing.assert_allclose(k_features.slow_part((slow + fast)[None, None], 256)[:, 3:-3], expected[:, 3:-3], atol=0.05)


def test_time_course_and_means_by_hand():
    """Means of equal stretches, channel by channel."""
    eeg = np.arange(16.0).reshape(1, 2, 8)

    np.testing.assert_allclose(k_features.time_course(eeg, bins=2), [[1.5, 5.5, 9.5, 13.5]])
    np.testing.assert_allclose(k_features.channel_means(eeg), [[3.5, 11.5]])


def test_whitened_training_trials_are_white():
    """Noise normalisation with the training covariance: the identity by definition."""
    rng = RNG(0)
    eeg = np.einsum("cd,ndt->nct", rng.normal(size=(4, 4)), rng.normal(size=(50, 4, 64))).astype(np.float32)
    w = k_features._whitening(lambda rows: eeg[rows], np.zeros(50, int), np.arange(50), 4)[0]
    white = np.einsum("cd,ndt->nct", w, eeg)

    np.testing.assert_allclose(np.einsum("nct,ndt->cd", white, white) / (50 * 64), np.eye(4), atol=0.02)


def test_without_samples_before_onset_the_prestimulus_control_is_said_to_be_left_out():
    """A control that silently is not there reads like one that was passed."""
    eeg = RNG(0).normal(size=(12, 3, 128)).astype(np.float32)
    found = k_features.extract_features(lambda rows: eeg[rows], table(12), np.arange(8), sfreq=128, t0=0.02, real_channels=3)

    assert "pre-stimulus" not in found.sets
    assert found.left_out["pre-stimulus"] == "the store holds 0 samples before image onset (16 are needed)"


# altered labels and trials


def test_shuffling_by_trial_keeps_each_persons_labels():
    """A shuffle across persons would also destroy who saw what how often."""
    labels, person = np.arange(40), np.repeat([0, 1], 20)
    out = k.shuffle_by_trial(labels, RNG(0), person)

    assert sorted(out[:20]) == list(range(20)) and (out != labels).sum() > 30


def test_shuffling_by_block_moves_whole_blocks():
    """All trials of a block keep one common label."""
    blocks = np.repeat([3, 5, 9], 4)
    out = k.shuffle_by_block(np.repeat([0, 1, 2], 4), blocks, RNG(3))

    assert all(len(set(out[blocks == b])) == 1 for b in (3, 5, 9)) and sorted(set(out)) == [0, 1, 2]


def test_pseudo_blocks_follow_time_and_nothing_else():
    """Stretches of equal length in the order of recording, whatever the order of the store."""
    order = RNG(0).permutation(40)
    labels = k.pseudo_blocks(table(40, time=order * 1.0), 4, RNG(1))

    in_time = labels[np.argsort(order)]
    assert sorted(set(labels)) == [0, 1, 2, 3]
    assert all(len(set(in_time[i : i + 10])) == 1 for i in (0, 10, 20, 30))
    assert (k.pseudo_blocks(table(40, time=np.full(40, np.nan)), 4, RNG(1)) == -1).all()
    assert (k.pseudo_blocks(table(9), 4, RNG(1)) == -1).all()  # too short for two stretches


def test_neighbours_never_overlap_the_trial():
    """Rapid presentation: windows of 1 s every 0.4 s; a neighbour's window must not hold this trial's response."""
    trials = table(10, time=np.arange(10) * 0.4)
    found = k_features.neighbours(trials, 1.0)

    assert found[5].tolist() == [2, 8] and found[0].tolist() == [-1, 3] and found[9].tolist() == [6, -1]
    assert k_features.neighbours(table(3, time=np.array([0.0, np.nan, 1.0])), 1.0) is None


def test_swaps_stay_in_or_leave_the_class():
    """Every trial gets another trial's EEG."""
    labels = RNG(0).integers(0, 4, 60)
    inside, outside = (
        k_generation_controls.swap_within_classes(labels, RNG(1)),
        k_generation_controls.swap_across_classes(labels, RNG(1)),
    )

    assert (labels[inside] == labels).all() and (inside != np.arange(60)).all()
    assert (labels[outside] != labels).all()
    with pytest.raises(DataError, match="1 class"):
        k_generation_controls.swap_across_classes(np.zeros(5), RNG(0))


def test_noise_has_each_channels_spread_and_no_trial_in_it():
    """Noise of another size would be outside what the network has ever seen."""
    eeg = RNG(0).normal(size=(50, 3, 100)) * np.array([1, 10, 100])[None, :, None] + 5
    noise = k_generation_controls.noise_like(eeg, RNG(1))

    np.testing.assert_allclose(noise.std((0, 2)), eeg.std((0, 2)), rtol=0.05)
    assert abs(np.corrcoef(noise.ravel(), eeg.ravel())[0, 1]) < 0.05


# judging


def decoded(hits: float, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(0)
    truth = rng.integers(0, 4, n)
    return np.where(rng.random(n) < hits, truth, rng.integers(0, 4, n)), truth


def single(n: int) -> Exchange:
    """Trials are exchanged one by one."""
    return Exchange(np.arange(n), np.zeros(n, int))


def test_p_value_is_small_for_a_decoder_and_uniform_for_none():
    """Permutations of the test labels: the smallest p is 1 / 4001."""
    assert k._judge("x", *decoded(0.4), np.arange(400), single(400), 0)[1] == pytest.approx(1 / 4001)

    rng = RNG(5)
    ps = [k._judge("x", rng.integers(0, 3, 60), rng.integers(0, 3, 60), np.arange(60), single(60), s)[1] for s in range(12)]
    assert 0.2 < np.mean(ps) < 0.8


def test_balanced_accuracy_is_not_moved_by_the_commonest_class():
    """Always naming the class that fills 90 % of the trials is worth 1 / 2, and no more than chance."""
    truth = np.array([0] * 90 + [1] * 10)
    found, p = k._judge("x", np.zeros(100, int), truth, np.arange(100), single(100), 0)

    assert found.value == pytest.approx(0.5) and found.floor == pytest.approx(0.5) and p == 1.0


def test_time_distance_shows_a_fall():
    """Hits only where a training trial is near."""
    train, test = np.arange(0, 20), np.arange(20, 60)
    time = np.concatenate([np.arange(20) * 1.0, 20 + np.arange(40) * 3.0])
    hits = (time[test] < 60).astype(float)

    bins = k.time_distance(hits, table(60, time=time), train, test)

    assert bins[0].measurement.value == 1.0 and bins[-1].measurement.value == 0.0
    assert bins[0].near == pytest.approx(1.0) and bins[-1].far == pytest.approx(118.0)
    assert k.time_distance(hits, table(60, time=np.full(60, np.nan)), train, test) == []


def test_unknown_block_structure_is_called_unknown():
    """No news is not good news."""
    rng = RNG(0)
    n = 120
    blind = table(n, block=np.full(n, -1), time=np.full(n, np.nan), concept=rng.integers(0, 4, n))
    features = k_features.Features(
        {name: rng.normal(size=(n, 8)) for name in ("eeg", "band power", "channel means", "below 5 Hz")}, {}, 1.0
    )
    report = audit(blind, np.arange(80), np.arange(80, n), split="trial")

    found = k.decoding_controls(features, blind, np.arange(80), np.arange(80, n), classes=4, audit=report)

    assert found.verdict == "unknown" and found.sentence.startswith("UNKNOWN")
    assert "not recorded" in found.left_out["pseudo-blocks"] and "time distance" in found.left_out
    assert found.to_json()["decoders"][0]["name"] == "eeg"
    with pytest.raises(KeyError):
        found["something else"]


@pytest.mark.parametrize(
    ("p", "said"),
    [
        ({"pseudo-blocks": 0.002}, "2 of 3 controls are at chance; pseudo-blocks above; the decoder"),
        ({"pseudo-blocks": 0.002, "below 5 Hz": 0.001}, "1 of 3 controls are at chance; pseudo-blocks and below 5 Hz above; the decoder"),
        ({}, "3 of 3 controls are at chance; the decoder"),
    ],
)  # fmt: skip
def test_where_blocks_are_unknown_the_sentence_counts_what_was_measured(p, said):
    """The same page shows the control in red: "at chance" beside it would be a claim that the report denies."""
    value = mean_measurement("accuracy", "2-way", RNG(0).integers(0, 2, (60, 1)).astype(float), seed=0, floor=0.5)
    rows = (("eeg", "result"), ("pseudo-blocks", "order"), ("below 5 Hz", "drift"), ("labels shuffled by trial", "order"))
    controls = [k.Control(name, kind, "", value, p.get(name, 0.4)) for name, kind in rows]

    verdict, sentence = k._verdict(controls, None)

    assert verdict == "unknown" and said in sentence
    assert {c.name for c in controls[1:] if c.above_chance(3)} == set(p)  # what the report draws in red


def test_blocks_are_shuffled_where_a_class_has_several():
    """Four blocks of each class: labels exchanged among blocks must stop a decoder of stimuli, and not a reader of blocks."""
    rng = RNG(0)
    block = np.repeat(np.arange(16), 10)
    concept = block % 4
    trials = table(160, block=block, concept=concept)
    train, test = np.flatnonzero(np.arange(160) % 5 != 0), np.flatnonzero(np.arange(160) % 5 == 0)
    stimulus = np.eye(4)[concept] * 2 + rng.normal(0, 0.5, (160, 4))
    reader = np.eye(16)[block] * 2 + rng.normal(0, 0.2, (160, 16))
    report = audit(trials, train, test, split="trial")

    def shuffled(eeg: np.ndarray) -> k.Control:
        sets = {"eeg": eeg} | {name: rng.normal(size=(160, 4)) for name in ("band power", "channel means", "below 5 Hz")}
        found = k.decoding_controls(k_features.Features(sets, {}, 1.0), trials, train, test, classes=4, audit=report)
        return found["labels shuffled by block"]

    assert shuffled(reader).measurement.value > 0.9
    assert shuffled(stimulus).measurement.value < 0.7


# generation controls


def test_generation_controls_hand_over_the_altered_eeg():
    """A generator that copies its EEG shows what each control gave it."""
    labels = np.repeat([0, 1], 5)
    eeg = np.arange(10.0)[:, None, None] * np.ones((10, 2, 3))
    given = []

    def generate(signal: np.ndarray) -> np.ndarray:
        given.append(signal)
        return np.zeros((10, 1, 4, 4, 3), np.uint8)

    found = k_generation_controls.generation_controls(
        generate, lambda _: [mean_measurement("m", "p", np.zeros((10, 1)), seed=0, floor=None)], eeg, labels
    )

    assert [c.name for c in found] == ["noise", "across classes", "within classes", "class mean"]
    assert (given[1][:5, 0, 0] >= 5).all() and (given[2][:5, 0, 0] < 5).all() and (given[2][:, 0, 0] != np.arange(10)).all()
    np.testing.assert_allclose(given[3][:, 0, 0], [2] * 5 + [7] * 5)
    assert found[0].to_json()["measurements"][0]["name"] == "m"
