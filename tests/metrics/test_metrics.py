"""Every metric against hand-computed cases, a second implementation, and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from dreamdiff.metrics import accuracy as m_accuracy
from dreamdiff.metrics import distances as m_distances
from dreamdiff.metrics import measurement as m_measurement
from dreamdiff.metrics import similarity as m
from eegprep.errors import DataError

RNG = np.random.default_rng


def noise_images(n: int, s: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Generated and shown images with nothing in common."""
    rng = RNG(seed)
    return (
        rng.integers(0, 256, (n, s, size, size, 3)).astype(np.uint8),
        rng.integers(0, 256, (n, size, size, 3)).astype(np.uint8),
    )


def noise_scores(n: int, s: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities of generated and shown images with nothing in common."""
    rng = RNG(seed)
    return rng.dirichlet(np.ones(k), (n, s)), rng.dirichlet(np.ones(k), n)


def covers(found: m_measurement.Measurement, value: float) -> bool:
    return found.low <= value <= found.high


# intervals


def test_interval_of_many_trials_is_the_normal_one():
    """For a mean of many independent values the bootstrap must agree with mean +- 1.96 standard errors."""
    values = RNG(0).normal(5, 2, 4000)

    low, high = m_measurement.bootstrap_interval(values, 0)

    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_interval_is_wider_when_trials_share_an_image():
    """Ten repetitions of an image are not ten independent trials: the honest interval is about sqrt(10) wider."""
    per_image = RNG(1).normal(0, 1, 60)
    values, groups = np.repeat(per_image, 10), np.repeat(np.arange(60), 10)

    free = np.diff(m_measurement.bootstrap_interval(values, 0))[0]
    grouped = np.diff(m_measurement.bootstrap_interval(values, 0, groups_N=groups))[0]

    assert grouped / free == pytest.approx(np.sqrt(10), rel=0.15)


def test_interval_covers_the_truth_19_times_in_20():
    """A 95 % interval that covers less is a lie; 200 repetitions give 95 % with a standard error of 1.5 %."""
    rng = RNG(2)
    covered = 0
    for i in range(200):
        values = (rng.random(100) < 0.3).astype(float)
        low, high = m_measurement.bootstrap_interval(values, i, resamples=400)
        covered += low <= 0.3 <= high

    assert covered / 200 == pytest.approx(0.95, abs=0.05)


def test_no_hit_in_50_trials_does_not_give_an_interval_of_zero_width():
    """Resampling zeros gives zeros; Wilson's interval for 0 of 50 ends at 7.1 %."""
    result = m_measurement.mean_measurement("x", "p", np.zeros((50, 1)), seed=0, floor=0.02)

    assert (result.low, result.high) == (0.0, pytest.approx(0.0713, abs=0.0005))


def test_interval_repeats_with_its_seed_and_refuses_no_trials():
    """A reported interval must be reproducible, and an empty split must not give one."""
    values = RNG(3).random(50)

    assert m_measurement.bootstrap_interval(values, 7) == m_measurement.bootstrap_interval(values, 7)
    assert m_measurement.bootstrap_interval(values, 7) != m_measurement.bootstrap_interval(values, 8)
    with pytest.raises(DataError, match="0 trials"):
        m_measurement.bootstrap_interval(np.zeros(0), 0)


def test_measurement_carries_all_that_is_needed_to_read_it():
    """A number without protocol, n, seed, interval and floor cannot be compared with another."""
    result = m_measurement.mean_measurement("x", "protocol", np.array([[0.2, 0.4], [1.0, 0.0]]), seed=3, floor=0.1)
    plain = result.to_json()

    assert result.value == pytest.approx(0.4)  # mean over samples first, never the best of them (0.7)
    assert {"protocol", "n", "seed", "low", "high", "floor", "above_floor", "better", "unit"} <= set(plain)
    assert plain["n"] == 2 and plain["seed"] == 3 and "values_N" not in plain


def test_above_floor_means_the_whole_interval():
    """A value above its floor whose interval is not, is no evidence."""
    floor_inside = m_measurement.Measurement("x", "p", 0.6, 0.4, 0.8, 9, 0, 0.5)
    assert floor_inside.above_floor is False
    assert m_measurement.Measurement("x", "p", 0.6, 0.55, 0.8, 9, 0, 0.5).above_floor is True
    assert m_measurement.Measurement("x", "p", 0.6, 0.55, 0.8, 9, 0, 0.9, better="lower").above_floor is True
    assert m_measurement.Measurement("x", "p", 0.6, 0.55, 0.8, 9, 0, None).above_floor is None


# n-way accuracy


def literal_n_way(pred_SNK: np.ndarray, classes_N: np.ndarray, n_way: int, draws: int, seed: int) -> float:
    """The published procedure in its own terms: numpy's global generator, a list of the other classes, choice."""
    np.random.seed(seed)  # noqa: NPY002
    columns = []
    for pred_NK in pred_SNK:
        items = []
        for scores, true in zip(pred_NK, classes_N, strict=True):
            others = [c for c in range(len(scores)) if c != true]
            hits = []
            for _ in range(draws):
                picked = np.random.choice(others, n_way - 1, replace=False)  # noqa: NPY002
                hits.append(scores[true] > scores[picked].max())
            items.append(np.mean(hits))
        columns.append(np.mean(items))
    return float(np.mean(columns))


@pytest.mark.parametrize("seed", [0, 2022])
def test_n_way_draws_are_the_published_ones_for_a_numpy_seed(seed):
    """The paper's 45.8 % can only be compared with a number from the same draws."""
    pred, truth = noise_scores(4, 3, 200, seed=5)
    pred[:, :, :] += truth[:, None] * RNG(1).random((4, 3, 1))

    result = m_accuracy.n_way_accuracy(pred, truth, n_way=50, draws=20, seed=seed)

    assert result.value == pytest.approx(literal_n_way(pred.transpose(1, 0, 2), truth.argmax(1), 50, 20, seed), abs=1e-12)


def test_n_way_by_hand():
    """Truth is the classifier's opinion of the shown image; with all classes drawn the rank alone decides."""
    truth = np.array([[0.1, 0.7, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1]])  # classes 1 and 0
    pred = np.array([[[0.1, 0.5, 0.3, 0.1]], [[0.2, 0.5, 0.2, 0.1]]])  # ranks 1 and (tied) 2-3

    assert m_accuracy.n_way_accuracy(pred, truth, n_way=4, top_k=1, draws=1).value == pytest.approx(0.5)
    assert m_accuracy.n_way_accuracy(pred, truth, n_way=4, top_k=2, draws=1).value == pytest.approx(0.75)  # the tie counts half
    assert m_accuracy.n_way_accuracy(pred, truth, n_way=4, top_k=3, draws=1).value == pytest.approx(1.0)


def test_n_way_draws_estimate_the_closed_form():
    """An independent derivation (hypergeometric) of what 50 draws estimate."""
    pred, truth = noise_scores(30, 1, 120, seed=8)
    expected = np.diag(m_accuracy.expected_n_way(pred[:, 0], truth.argmax(1), n_way=10, top_k=2)).mean()

    result = m_accuracy.n_way_accuracy(pred, truth, n_way=10, top_k=2, draws=2000)

    assert result.value == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("n_way", "top_k"), [(50, 1), (50, 5), (10, 1)])
def test_n_way_is_at_chance_on_noise(n_way, top_k):
    """k / n for scores with no information."""
    result = m_accuracy.n_way_accuracy(*noise_scores(300, 2, 300, seed=1), n_way=n_way, top_k=top_k)

    assert covers(result, top_k / n_way)
    assert top_k / n_way * 0.95 < result.floor < top_k / n_way + 2 / 300  # a guesser may draw the image itself: 1 in 300
    assert result.above_floor is False


def test_n_way_floor_is_what_a_class_guesser_reaches():
    """40 classes shown and perfect images of a random one: 1/40 + 39/40 x 2 %, 4.5 % and not the nominal 2 %."""
    rng = RNG(0)
    shown, guessed = np.repeat(np.arange(40), 10), rng.integers(40, size=400)
    scores = rng.dirichlet(np.ones(1000), 400) * 0.1
    truth, pred = scores.copy(), np.roll(scores, 1, axis=0)[:, None]
    truth[np.arange(400), shown] += 0.9
    pred[np.arange(400), 0, guessed] += 0.9

    result = m_accuracy.n_way_accuracy(pred, truth, n_way=50, draws=50)

    assert result.floor == pytest.approx(1 / 40 + 39 / 40 * (1 - 49 / 999) / 49, abs=0.004)
    assert covers(result, result.floor)


def test_n_way_refuses_what_does_not_fit():
    """More ways than classes, or scores of two classifiers."""
    pred, truth = noise_scores(3, 1, 20)
    with pytest.raises(DataError, match="50-way top-1 does not fit a classifier of 20"):
        m_accuracy.n_way_accuracy(pred, truth)
    with pytest.raises(DataError, match=r"\(3, 1, 20\).*\(3, 19\)"):
        m_accuracy.n_way_accuracy(pred, truth[:, :19], n_way=5)


# within the shown categories


def test_shown_classes_by_hand_and_against_the_label():
    """The label in the data set decides, whatever the classifier sees in the shown image."""
    scores = np.array([[[0.9, 0.05, 0.05], [0.2, 0.5, 0.3]], [[0.1, 0.2, 0.7], [0.3, 0.4, 0.3]]])
    labels = np.array([0, 2])

    result = m_accuracy.shown_classes_accuracy(scores, labels, top_k=1)

    np.testing.assert_allclose(result.values_N, [0.5, 0.5])
    assert m_accuracy.shown_classes_accuracy(scores, labels, top_k=2).value == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    np.testing.assert_allclose(m_accuracy.confusion(scores, labels), [[0.5, 0.5, 0], [0, 0, 0], [0, 0.5, 0.5]])


@pytest.mark.parametrize("top_k", [1, 5])
def test_shown_classes_are_at_chance_on_noise(top_k):
    """k / 40 for scores with no information and balanced labels."""
    result = m_accuracy.shown_classes_accuracy(RNG(0).random((400, 2, 40)), np.repeat(np.arange(40), 10), top_k=top_k)

    assert covers(result, top_k / 40)
    assert result.floor == pytest.approx(top_k / 40)


def test_shown_classes_floor_follows_the_class_frequencies():
    """With one class in half of the trials a guesser does far better than 1 / C; measured on a guesser."""
    labels = np.array([0] * 50 + [1] * 25 + [2] * 25)
    assert m_accuracy.prior_floor(labels, 3) == pytest.approx(0.25 + 0.0625 + 0.0625)

    rng = RNG(4)
    keys = np.log([0.5, 0.25, 0.25]) + rng.gumbel(size=(100, 400, 3))
    result = m_accuracy.shown_classes_accuracy(keys, labels, top_k=2)
    assert result.value == pytest.approx(m_accuracy.prior_floor(labels, 3, 2), abs=0.02)


# picture against picture


def test_psnr_and_ssim_agree_with_scikit_image():
    """An implementation by other people, on images that are related and on images that are not."""
    images, truth = noise_images(5, 2)
    images[:, 0] = np.clip(truth + RNG(1).normal(0, 20, truth.shape), 0, 255).astype(np.uint8)

    expect_psnr = np.mean([[peak_signal_noise_ratio(t, i) for i in row] for row, t in zip(images, truth, strict=True)])
    expect_ssim = np.mean(
        [
            [
                structural_similarity(
                    t, i, data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
                )
                for i in row
            ]
            for row, t in zip(images, truth, strict=True)
        ]
    )
    assert m.psnr(images, truth).value == pytest.approx(expect_psnr, abs=1e-9)
    assert m.ssim(images, truth).value == pytest.approx(expect_ssim, abs=1e-6)


def test_psnr_by_hand():
    """Off by 10 grey levels everywhere: 20 log10(25.5) dB; identical images stay finite."""
    truth = np.full((2, 8, 8, 3), 100, np.uint8)
    images = np.stack([truth + 10, truth], axis=1).astype(np.uint8)

    np.testing.assert_allclose(m.psnr(images[:, :1], truth).value, 20 * np.log10(25.5))
    np.testing.assert_allclose(m.psnr(images[:, 1:], truth).value, 10 * np.log10(255**2 * 12))


@pytest.mark.parametrize("metric", [m.psnr, m.ssim])
def test_picture_metrics_meet_their_floor_on_noise(metric):
    """The floor is another shown image; unrelated images of the same kind must come out there."""
    result = [metric(*noise_images(40, 2, size=16, seed=seed)) for seed in range(12)]

    assert sum(covers(one, one.floor) for one in result) >= 10  # of 12 intervals of 95 %


def test_pictures_in_other_units_are_refused():
    """Images in 0..1 against images in 0..255 give a number, and it is wrong."""
    images, truth = noise_images(2, 1)
    with pytest.raises(DataError, match=r"float32 and shown ones uint8"):
        m.psnr(images.astype(np.float32) / 255, truth)
    with pytest.raises(DataError, match=r"\(2, 1, 32, 32, 3\) and shown ones \(2, 16, 32, 3\)"):
        m.psnr(images, truth[:, :16])


# features


def test_similarity_by_hand_and_on_noise():
    """45 degrees is 0.707; unrelated features come out at the floor."""
    result = m.feature_similarity(np.array([[[1.0, 1.0]], [[0.0, 2.0]]]), np.array([[3.0, 0.0], [0.0, 1.0]]), space="CLIP")
    assert result.value == pytest.approx((np.sqrt(0.5) + 1) / 2)
    assert result.floor == pytest.approx(0.0)

    rng = RNG(0)
    blind = m.feature_similarity(rng.normal(1, 1, (300, 2, 16)), rng.normal(1, 1, (300, 16)), space="CLIP")
    assert covers(blind, blind.floor)


def test_identification_by_hand():
    """Own image nearest: 1; farthest: 0; trials of the same image are no wrong answers."""
    similarity = np.array([[[0.9, 0.1, 0.2]], [[0.5, 0.1, 0.4]], [[0.3, 0.3, 0.3]]])
    np.testing.assert_allclose(m.pairwise_identification(similarity, space="x").values_N, [1.0, 0.0, 0.5])

    same = m.pairwise_identification(similarity, space="x", image_N=np.array([0, 0, 1]))
    np.testing.assert_allclose(same.values_N, [1.0, 0.0, 0.5])
    with pytest.raises(DataError, match="1 image"):
        m.pairwise_identification(similarity, space="x", image_N=np.zeros(3))


@pytest.mark.parametrize("kind", ["mse", "pcc"])
def test_identification_is_at_one_half_on_noise(kind):
    """The only metric of the authors' that has a chance level of its own."""
    images, truth = noise_images(150, 2, size=16)

    result = m.pairwise_identification(m.pixel_similarity(images, truth, kind), space=kind)

    assert covers(result, 0.5) and result.floor == 0.5


def test_pixel_similarity_by_definition():
    """Against numpy's own mean and correlation of pixels, image by image."""
    images, truth = noise_images(4, 2, size=16)

    mse, pcc = (m.pixel_similarity(images, truth, kind) for kind in ("mse", "pcc"))

    a, b = images[2, 1].astype(float), truth[3].astype(float)
    assert mse[2, 1, 3] == pytest.approx(-((a - b) ** 2).mean())
    assert pcc[2, 1, 3] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_retrieval_by_hand():
    """Nearest, second and third of three."""
    gallery = np.eye(3)
    embeddings = np.array([[1.0, 0.2, 0.1], [1.0, 0.9, 0.1], [0.9, 0.5, 0.1]])
    truth = np.array([0, 1, 2])

    np.testing.assert_allclose(m.retrieval(embeddings, gallery, truth).values_N, [1, 0, 0])
    np.testing.assert_allclose(m.retrieval(embeddings, gallery, truth, top_k=2).values_N, [1, 1, 0])
    np.testing.assert_allclose(m.retrieval(embeddings, gallery, truth, ways=2).values_N, [1, 0.5, 0])
    with pytest.raises(DataError, match="200-way retrieval does not fit a gallery of 3"):
        m.retrieval(embeddings, gallery, truth, ways=200)


@pytest.mark.parametrize("top_k", [1, 5])
def test_200_way_retrieval_is_at_chance_on_noise(top_k):
    """0.5 % and 2.5 % in the THINGS-EEG2 protocol."""
    rng = RNG(0)
    result = m.retrieval(rng.normal(size=(600, 8)), rng.normal(size=(300, 8)), rng.integers(300, size=600), ways=200, top_k=top_k)

    assert result.floor == pytest.approx(top_k / 200)
    assert covers(result, result.floor)
    assert "200-way" in result.protocol


def test_retrieval_closed_form_is_the_mean_over_drawn_galleries():
    """Drawing 20 of 60 images many times, by brute force."""
    rng = RNG(5)
    gallery, truth = rng.normal(size=(60, 6)), np.arange(60)
    embeddings = gallery + rng.normal(0, 1.5, gallery.shape)

    similarity = m.cosine_similarity(embeddings[:, None], gallery)[:, 0]
    drawn = []
    for _ in range(400):
        for n in range(60):
            others = rng.choice(np.delete(np.arange(60), n), 19, replace=False)
            drawn.append(similarity[n, n] > similarity[n, others].max())
    assert m.retrieval(embeddings, gallery, truth, ways=20).value == pytest.approx(np.mean(drawn), abs=0.01)


def test_repetitions_are_averaged_per_image():
    """The 80-repetition mean, by hand."""
    mean, images = m.average_repetitions(np.array([[1.0, 0], [3, 2], [5, 5]]), np.array([7, 7, 2]))

    np.testing.assert_allclose(images, [2, 7])
    np.testing.assert_allclose(mean, [[5, 5], [2, 1]])


# distances between sets


def feature_sets(n: int, d: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(seed)
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    return (rng.normal(size=(n, 2, d)) @ mix + shift), rng.normal(size=(n, d)) @ mix


def test_frechet_distance_of_gaussians_by_hand():
    """Same covariance, means 2 apart in each of 4 dimensions: 16, up to the error of estimating 4 dimensions from 4,000 rows."""
    fake, real = feature_sets(4000, 4, 2.0)

    assert m_distances.frechet_distance(fake, real, resamples=5).value == pytest.approx(16.0, rel=0.03)
    assert m_distances.frechet_distance(fake - 2.0, real, resamples=5).value == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(("n", "d"), [(60, 16), (20, 30)])
def test_frechet_of_resampled_rows_is_torchmetrics_distance(n, d):
    """The shortcut behind the interval must be the same quantity, with more and with fewer images than features."""
    fake, real = feature_sets(n, d, 0.3)

    shortcut = m_distances._frechet_of_rows(fake.reshape(-1, d), real)(np.arange(n), np.arange(2 * n))

    assert m_distances.frechet_distance(fake, real, minimum=2, resamples=2).value == pytest.approx(shortcut, rel=1e-4)


def test_fid_of_too_few_images_is_refused_and_kid_is_not():
    """300 images against 2,048 features give a number of the size of the bias; 64-d features hide that."""
    fake, real = feature_sets(30, 40, 0.0)

    with pytest.raises(DataError, match=r"30 shown and 60 generated images are too few for 40 features \(at least 41\)"):
        m_distances.frechet_distance(fake, real)
    assert m_distances.kernel_distance(fake, real, resamples=20).name == "kid"


def test_kid_agrees_with_torchmetrics():
    """One subset that holds all images makes torchmetrics' estimate the full one."""
    fake, real = feature_sets(50, 12, 0.4)
    fake = fake[:, :1]
    other = KernelInceptionDistance(feature=m_distances._Given(12), subsets=1, subset_size=50)
    other.update(torch.from_numpy(real), real=True)
    other.update(torch.from_numpy(fake[:, 0]), real=False)

    assert m_distances.kernel_distance(fake, real, resamples=5).value == pytest.approx(float(other.compute()[0]), rel=1e-5)


def test_kid_of_the_same_distribution_is_zero_within_its_interval():
    """An unbiased distance of like with like is zero on average, however few the images."""
    inside = [covers(m_distances.kernel_distance(*feature_sets(40, 30, 0.0, seed=s), resamples=100), 0.0) for s in range(20)]

    assert sum(inside) >= 17


def test_kid_and_inception_score_need_some_images():
    """Two images, and two per part."""
    with pytest.raises(DataError, match="kid: 1 shown and 1 generated"):
        m_distances.kernel_distance(np.zeros((1, 1, 4)), np.zeros((1, 4)))
    with pytest.raises(DataError, match="6 generated images in 10 parts"):
        m_distances.inception_score(noise_scores(6, 1, 5)[0])
    with pytest.raises(DataError, match=r"\(3, 1, 4\) and of shown ones \(3, 5\)"):
        m_distances.kernel_distance(np.zeros((3, 1, 4)), np.zeros((3, 5)))


def test_inception_score_by_hand():
    """C sure and balanced classes score C; one class only scores 1."""
    sure = np.eye(5)[np.tile(np.arange(5), 40)][:, None]

    assert m_distances.inception_score(sure, splits=1, resamples=5).value == pytest.approx(5.0)
    assert m_distances.inception_score(np.repeat(sure[:1], 200, 0), splits=1, resamples=5).value == pytest.approx(1.0)


def test_inception_score_agrees_with_torchmetrics():
    """On the same class scores, in the same order."""
    logits = RNG(0).normal(0, 2, (60, 20))
    torch.manual_seed(0)
    other = InceptionScore(feature=m_distances._Given(20), splits=4)
    other.update(torch.from_numpy(logits))
    expected = float(other.compute()[0])
    torch.manual_seed(0)
    order = torch.randperm(60).numpy()
    p = torch.from_numpy(logits).softmax(1).numpy()

    assert m_distances.inception_of(p[order], 4) == pytest.approx(expected, rel=1e-6)


def test_one_trial_has_no_interval_and_few_trials_no_verdict():
    """Seven of seven numbers of one test trial had one, and two trials were called better than their floor."""
    one = m_measurement.mean_measurement("psnr", "", np.array([[9.2]]), seed=0, floor=8.0, unit="dB")
    assert one.to_json()["low"] is one.to_json()["high"] is one.above_floor is None
    assert one.interval() == "(n = 1: no interval)" and one.between() == ""
    same_image = m_measurement.mean_measurement("x", "", np.ones((4, 1)), seed=0, floor=0.1, groups_N=np.zeros(4))
    assert same_image.to_json()["low"] is None and same_image.above_floor is None
    two = m_measurement.mean_measurement("psnr", "", np.array([[9.1], [9.2]]), seed=0, floor=8.0, unit="dB")
    assert two.above_floor is None and two.to_json()["low"] is not None
    assert m_measurement.mean_measurement("psnr", "", np.full((9, 1), 9.0), seed=0, floor=8.0, unit="dB").above_floor is True
    with pytest.raises(DataError, match=r"too few for a distance between sets \(at least 20 each\)"):
        m_distances.kernel_distance(np.random.default_rng(0).normal(size=(2, 1, 4)), np.random.default_rng(1).normal(size=(2, 4)))
