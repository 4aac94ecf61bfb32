"""Simulated viewing with sources behind another network: what the dials promise, and that the answer is there but not linear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamdiff.simulation.backgrounds import PinkBackground, Stretch
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.images import ImageSet
from dreamdiff.simulation.people import EVOKED_WINDOW
from dreamdiff.simulation.simulate import simulate
from dreamdiff.simulation.viewing import DrivenBrain, Viewer, bent, parted
from eegprep.errors import UsageError
from eegprep.signals.filters import band_pass


def image_set(classes: int = 5, each: int = 6, width: int = 40) -> ImageSet:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(classes), each)
    features = rng.standard_normal((classes, width))[labels] + 0.6 * rng.standard_normal((classes * each, width))
    return ImageSet(
        images_NHWC=rng.integers(0, 256, (classes * each, 8, 8, 3), dtype=np.uint8), labels_N=labels,
        names=tuple(f"i{k}" for k in range(classes * each)), held_out_N=np.arange(classes * each) % each >= each - 2,
        classes=tuple(f"c{k}" for k in range(classes)), features_ND=features, licence="CC0-1.0",
    )  # fmt: skip


IMAGES = image_set()


def config(**changes: object) -> SimulateConfig:
    return SimulateConfig(**{"people": 1, "trials": 10, "background": "pink", "sfreq": 128.0, **changes})  # type: ignore[arg-type]


def viewer(number: int = 0, **changes: object) -> Viewer:
    settings = config(**changes)
    return Viewer(number, settings, IMAGES, DrivenBrain(IMAGES, settings), PinkBackground())


def everything(subject: Viewer) -> tuple[np.ndarray, np.ndarray]:
    """Response and background of all trials."""
    noise = np.concatenate([subject.noise(block) for block in range(subject.n_blocks)])
    return subject.evoked(np.arange(len(subject.image_N))), noise


@pytest.mark.parametrize(("snr", "drift", "sfreq"), [(-20.0, 0.0, 128.0), (-6.0, 0.4, 128.0), (3.0, 0.0, 256.0)])
def test_the_ratio_of_filtered_response_to_filtered_background_is_the_one_asked_for(snr: float, drift: float, sfreq: float):
    subject = viewer(snr=snr, drift=drift, sfreq=sfreq)
    evoked, noise = everything(subject)
    time_T = subject.t0 + np.arange(subject.samples) / subject.sfreq
    inside = (time_T >= EVOKED_WINDOW[0]) & (time_T < EVOKED_WINDOW[1])
    ratio = np.mean(evoked[:, :, inside] ** 2) / np.mean(noise[:, :, inside] ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(snr, abs=0.05)


def test_what_is_written_is_the_filtered_sum_of_background_and_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Filter and cut the recording with the responses in it: the same as the store to float32."""
    stored = simulate(tmp_path / "p.zarr", config(snr=-3.0), images=IMAGES)
    subject = viewer(snr=-3.0)
    scale, stretches = subject.scale, []
    original = PinkBackground.stretches

    def watched(self, *arguments):
        for stretch in original(self, *arguments):
            stretches.append(stretch)
            yield stretch

    monkeypatch.setattr(PinkBackground, "stretches", watched)
    subject._kept.clear()
    amplifier = _amplifier_noise(subject)
    subject.noise(0)
    stretch: Stretch = stretches[0]
    trials = np.flatnonzero(subject.block_N == 0)
    recording_CT = stretch.signal_CT + amplifier(stretch.signal_CT.shape) + scale * subject._response(trials, stretch)
    filtered_CT = band_pass(recording_CT, 128.0, *subject.background.pass_band(128.0))
    filtered_CT -= filtered_CT.mean(axis=0)
    windows = np.stack([filtered_CT[:, first : first + 128] for first in stretch.first_N])
    np.testing.assert_allclose(stored.eeg(range(len(trials))), windows, atol=2e-4)


def _amplifier_noise(subject: Viewer):
    """The same draw as the subject's, after the background's own draws."""
    rng = np.random.default_rng([subject.config.seed, 4, subject.number, 0])
    rows = np.flatnonzero(subject.block_N == 0)
    onsets = subject.onset_N[rows] - subject.onset_N[rows[0]]
    list(PinkBackground.stretches(subject.background, onsets, rng, 0, 128.0, 1.0))
    return lambda shape: rng.standard_normal(shape, dtype=np.float32)


def test_almost_nothing_lies_before_the_picture_and_most_lies_in_the_half_second_after_it():
    evoked, _ = everything(viewer())
    time_T = viewer().t0 + np.arange(128) / 128
    power_T = (evoked**2).mean((0, 1))
    assert power_T[time_T < -0.05].mean() < 0.01 * power_T[(time_T > 0) & (time_T < 0.5)].mean()
    assert power_T[(time_T > 0.05) & (time_T < 0.5)].sum() > 0.9 * power_T.sum()


@pytest.mark.parametrize(("sfreq", "length"), [(128.0, 0.8), (256.0, 1.0), (512.0, 1.0)])
def test_rate_and_length_of_windows_are_dials(tmp_path: Path, sfreq: float, length: float):
    store = simulate(tmp_path / "p.zarr", config(sfreq=sfreq, length=length, trials=4), images=IMAGES)
    assert store.eeg_shape == (128, round(sfreq * length))
    facts = store.attributes["sim01"]
    assert facts["sfreq"] == sfreq
    assert facts["t0"] == pytest.approx(-0.2, abs=0.5 / sfreq)
    assert facts["simulation"]["sources"] == "network"


def test_without_an_own_part_pictures_of_a_category_evoke_the_same():
    alike = DrivenBrain(IMAGES, config(own=0.0)).components_NK
    for label in range(5):
        rows = alike[IMAGES.labels_N == label]
        np.testing.assert_allclose(rows, rows[:1].repeat(len(rows), 0), atol=1e-12)
    different = DrivenBrain(IMAGES, config(own=2.0)).components_NK

    def within(h: np.ndarray) -> float:
        return float(np.mean([h[IMAGES.labels_N == label].var(0).sum() for label in range(5)]))

    assert within(different) > within(DrivenBrain(IMAGES, config(own=0.5)).components_NK) > within(alike) + 1e-3


def test_parts_add_up_to_the_components():
    z = np.random.default_rng(0).standard_normal((30, 7))
    whole = parted(z, IMAGES.labels_N, 1.0, 1.0)
    np.testing.assert_allclose(whole, z, atol=1e-12)
    np.testing.assert_allclose(parted(z, IMAGES.labels_N, 1.0, 0.0) + parted(z, IMAGES.labels_N, 0.0, 1.0), z, atol=1e-12)


def test_the_common_dial_scales_what_every_picture_evokes():
    time_T = np.arange(60) / 128
    one, three, none = (viewer(common=c).source_activity(np.arange(20), time_T) for c in (1.0, 3.0, 0.0))
    np.testing.assert_allclose(three - none, 3 * (one - none), atol=1e-9)


def test_the_map_from_components_to_sources_is_not_linear():
    """The best linear map leaves a good part of it over, in pictures that it was not fitted to."""
    z = np.random.default_rng(1).standard_normal((4000, 24))
    h = bent(z, seed=0)
    assert np.mean(h**2) == pytest.approx(1)
    half = len(z) // 2
    x = np.c_[z, np.ones(len(z))]
    weights, *_ = np.linalg.lstsq(x[:half], h[:half], rcond=None)
    left = np.square(h[half:] - x[half:] @ weights).mean()
    assert 0.15 < left < 0.7


def test_latency_jitter_and_anatomy_are_dials():
    assert viewer(jitter=20.0).shift_N.std() == pytest.approx(0.020, rel=0.3)
    assert viewer(jitter=0.0).shift_N.std() == 0

    def unlike(anatomy: float) -> float:
        first, second = (viewer(number, anatomy=anatomy).lead_CS for number in (0, 1))
        return float(np.linalg.norm(first - second))

    assert unlike(20.0) > unlike(0.0) > 0  # directions of sources differ even when places do not


def test_a_held_out_picture_is_decoded_and_the_time_before_it_is_not(tmp_path: Path):
    """Nearest mean response over training pictures, whitened channels; five categories, chance 20 %."""
    store = simulate(tmp_path / "p.zarr", config(snr=-4.0, trials=40), images=IMAGES)
    eeg, labels, train, test = store.eeg(), store.labels, store.splits["train"], store.splits["test"]
    covariance = np.einsum("nct,ndt->cd", eeg, eeg) / eeg[:, 0].size
    values, vectors = np.linalg.eigh(covariance)
    white = np.einsum("ck,nct->nkt", vectors[:, -60:] / np.sqrt(values[-60:]), eeg)

    def accuracy(window: slice) -> float:
        x = white[:, :, window].reshape(len(white), 60, -1, 2).mean(3).reshape(len(white), -1)
        means = np.stack([x[train][labels[train] == label].mean(0) for label in range(5)])
        return float((((x[test] - x[train].mean(0)) @ (means - means.mean(0)).T).argmax(1) == labels[test]).mean())

    assert accuracy(slice(30, 86)) > 0.45
    assert accuracy(slice(0, 20)) < 0.45


def test_network_dials_are_refused_for_linear_sources_and_old_stores_keep_their_recipe(tmp_path: Path):
    with pytest.raises(UsageError, match="sfreq"):
        simulate(tmp_path / "p.zarr", SimulateConfig(sources="linear", sfreq=128.0), images=IMAGES)
    old = SimulateConfig(sources="linear", snr=-6.0, people=2, trials=20)
    assert old.recipe() == {
        "snr": -6.0, "people": 2, "trials": 20, "block_order": "random", "drift": 0.0, "background": "sample", "seed": 0,
    }  # fmt: skip
    assert (SimulateConfig().snr, SimulateConfig(sources="linear").snr) == (-16.0, -6.0)


def test_the_same_seed_gives_the_same_store_and_a_small_memory_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = simulate(tmp_path / "a.zarr", config(trials=4), images=IMAGES)
    monkeypatch.setattr("dreamdiff.simulation.viewing._KEEP_BYTES", 0)
    second = simulate(tmp_path / "b.zarr", config(trials=4), images=IMAGES)
    np.testing.assert_array_equal(first.eeg(), second.eeg())
    assert not np.array_equal(first.eeg(), simulate(tmp_path / "c.zarr", config(trials=4, seed=1), images=IMAGES).eeg())


@pytest.mark.slow
def test_the_shipped_scores_are_those_of_the_network():
    """Products of rows do not depend on the signs of principal axes."""
    from tools.embedded_model.driver import KEPT, driver_scores

    shipped, made = ImageSet.shipped(network="efficientnet-lite0").features_ND, driver_scores()
    assert shipped.shape == (257, KEPT)
    np.testing.assert_allclose(shipped @ shipped.T, made @ made.T, rtol=1e-3, atol=1e-3 * float(np.square(made).sum(1).mean()))


def test_a_person_is_the_same_in_a_store_of_their_own(tmp_path: Path):
    """A new person has to be somebody of the same world: the third of three is the third alone, and recipes of old stores stay."""
    dials = {"sources": "linear", "trials": 3, "background": "pink"}
    three = simulate(tmp_path / "three.zarr", SimulateConfig(people=3, **dials))
    alone = simulate(tmp_path / "alone.zarr", SimulateConfig(people=1, first_person=3, **dials))

    assert alone.subjects == [three.subjects[2]]
    mine = np.flatnonzero(three.person == 2)
    np.testing.assert_array_equal(alone.eeg(), three.eeg(mine))
    np.testing.assert_array_equal(alone.image, three.image[mine])
    assert "first_person" not in three.recipe and alone.recipe["first_person"] == 3
