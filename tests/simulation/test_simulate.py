"""Simulated pairs: the answer that is put in can be found again, and nothing else names the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from pydantic import ValidationError

from dreamdiff.pairs.reader import Pairs
from dreamdiff.simulation.backgrounds import SAMPLES, SFREQ, GenuineBackground, PinkBackground
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.images import ImageSet
from dreamdiff.simulation.people import EVOKED_WINDOW, T0, Brain, Person, principal_components, waves
from dreamdiff.simulation.simulate import simulate
from eegprep.errors import DataError, SignalError, UsageError
from eegprep.recording import Recording
from eegprep.signals.head import known_electrodes, standard_electrodes
from eegprep.sources.reading import read_source

TIME = T0 + np.arange(SAMPLES) / SFREQ
BEFORE, EARLY = TIME <= 0, (TIME > 0.05) & (TIME < 0.45)


def image_set(classes: int = 5, each: int = 4, width: int = 24, within: float = 0.4) -> ImageSet:
    """Random vectors around class centres; the last two images of a class are held out."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(classes), each)
    features = rng.standard_normal((classes, width))[labels] + within * rng.standard_normal((classes * each, width))
    return ImageSet(
        images_NHWC=rng.integers(0, 256, (classes * each, 8, 8, 3), dtype=np.uint8), labels_N=labels,
        names=tuple(f"i{k}" for k in range(classes * each)), held_out_N=np.arange(classes * each) % each >= each - 2,
        classes=tuple(f"c{k}" for k in range(classes)), features_ND=features, licence="CC0-1.0",
    )  # fmt: skip


IMAGES = image_set()


def config(**changes: object) -> SimulateConfig:
    return SimulateConfig(**{"sources": "linear", "people": 1, "trials": 10, "background": "pink", **changes})  # type: ignore[arg-type]


def person(**changes: object) -> Person:
    settings = config(**changes)
    return Person(0, settings, IMAGES, Brain(IMAGES, settings.seed), PinkBackground())


def features(pairs: Pairs, window: np.ndarray, step: int = 12) -> np.ndarray:
    """Downsampled EEG of a part of the window, channels decorrelated."""
    eeg_NCT = pairs.eeg()[:, :, window]
    covariance = np.einsum("nct,ndt->cd", eeg_NCT, eeg_NCT)
    values, vectors = np.linalg.eigh(covariance / eeg_NCT[:, 0].size)
    white = np.einsum("ck,nct->nkt", vectors[:, -40:] / np.sqrt(values[-40:]), eeg_NCT)
    length = white.shape[2] // step * step
    return white[:, :, :length].reshape(len(white), 40, -1, step).mean(3).reshape(len(white), -1)


def ridge_accuracy(x: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """One-against-all ridge regression, solved in its dual form."""
    mean, scale = x[train].mean(0), x[train].std(0) + 1e-9
    a, b = (x[train] - mean) / scale, (x[test] - mean) / scale
    target = np.eye(labels.max() + 1)[labels[train]]
    weights = a.T @ np.linalg.solve(a @ a.T + a.shape[1] * np.eye(len(a)), target - target.mean(0))
    return float(((b @ weights).argmax(1) == labels[test]).mean())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    return simulate(tmp_path_factory.mktemp("sim") / "pairs.zarr", config(people=2, trials=30, snr=-4.0), images=IMAGES)


# -------------------------------------------------------------------------------------------------- what is promised


@pytest.mark.parametrize("snr", [-20.0, -6.0, 3.0])
@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_the_signal_to_noise_ratio_is_the_one_asked_for(snr: float, drift: float):
    """Measured on the arrays themselves, by the definition in the module."""
    subject = person(snr=snr, drift=drift)
    inside = (EVOKED_WINDOW[0] <= TIME) & (EVOKED_WINDOW[1] > TIME)
    scale = subject.scale  # keeps the background in memory for the blocks below
    evoked = subject.evoked(np.arange(len(subject.image_N)))[:, :, inside]
    noise = np.concatenate([subject.noise(block) for block in range(subject.n_blocks)])[:, :, inside]

    assert scale > 0
    assert 10 * np.log10(np.mean(evoked**2) / np.mean(noise**2)) == pytest.approx(snr, abs=0.05)


def test_what_is_written_is_background_plus_response(tmp_path: Path):
    """No other step in between."""
    store = simulate(tmp_path / "p.zarr", config(), images=IMAGES)
    subject = person()
    noise, evoked = subject.noise(0), subject.evoked(np.flatnonzero(subject.block_N == 0))

    np.testing.assert_allclose(store.eeg(range(len(noise))), noise + evoked, atol=1e-4)


def test_nothing_is_evoked_before_the_image():
    """A control that sees only the pre-stimulus interval has to come out at chance."""
    evoked = person().evoked(np.arange(20))

    assert (evoked[:, :, BEFORE] == 0).all()
    assert np.square(evoked[:, :, EARLY]).sum() > 0.9 * np.square(evoked).sum()


def test_the_response_lies_inside_the_pass_band():
    """The paper's 5-95 Hz must not remove what is put in."""
    power = np.square(np.abs(np.fft.rfft(person().evoked(np.arange(40)), axis=2))).mean((0, 1))
    frequency = np.fft.rfftfreq(SAMPLES, 1 / SFREQ)

    assert power[(frequency >= 5) & (frequency <= 95)].sum() / power.sum() > 0.85
    assert 6 <= frequency[power.argmax()] <= 14


def test_the_response_is_largest_over_occipital_and_temporal_electrodes_and_of_a_plausible_size():
    """Sources are in visual cortex; single-trial responses are a few uV on the average channel."""
    subject = person(snr=-10.0)
    rms = np.sqrt(np.square(subject.evoked(np.arange(50))).mean((0, 2)))
    places = standard_electrodes().positions_C3
    best = np.argsort(rms)[-12:]

    assert (places[best, 1] < -0.03).all()  # all behind the ears
    assert rms[places[:, 1] < -0.05].mean() > 1.5 * rms[places[:, 1] > 0.03].mean()
    peak = np.abs(subject.evoked(np.arange(50)).mean(0)).max()
    assert 2 < peak < 40


def test_waves_peak_between_100_and_350_ms():
    """Latencies of visual evoked potentials, with the delays of the areas added."""
    shape = waves(TIME, np.zeros(1))[0]
    late = waves(TIME, np.array([0.056]))[0]

    peaks = TIME[np.abs(shape).argmax(axis=1)]
    np.testing.assert_allclose(peaks, [0.110, 0.170, 0.260], atol=0.004)
    np.testing.assert_allclose(TIME[np.abs(late).argmax(axis=1)] - peaks, 0.056, atol=0.004)


def test_source_amplitudes_are_linear_in_the_clip_vector():
    """What makes a linear decoder of the CLIP vector the right answer: without jitter, response = affine map of components."""
    subject = person()
    subject.gain_N[:], subject.shift_N[:] = 1.0, 0.0
    evoked = subject.evoked(np.arange(50)).reshape(50, -1)[:, ::7]
    z = np.column_stack([np.ones(50), subject.components_NK[subject.image_N[:50]]])
    residual = evoked - z @ np.linalg.lstsq(z, evoked, rcond=None)[0]

    assert np.linalg.matrix_rank(z) < 50  # so that a perfect fit means something
    assert np.square(residual).sum() < 1e-8 * np.square(evoked).sum()


def test_components_are_a_linear_map_of_the_features():
    """Also in the width of a real CLIP (768), with fewer images than dimensions."""
    rng = np.random.default_rng(0)
    features_ND = rng.standard_normal((30, 768)) * np.linspace(3, 0.1, 768)
    scores = principal_components(features_ND, 48)
    centred = features_ND - features_ND.mean(0)
    weights = np.linalg.lstsq(centred, scores, rcond=None)[0]

    assert scores.shape == (30, 29)
    np.testing.assert_allclose(centred @ weights, scores, atol=1e-6)
    assert np.mean(scores**2) == pytest.approx(1)
    with pytest.raises(DataError, match="all images have the same feature vector"):
        principal_components(np.ones((5, 8)), 4)


# ----------------------------------------------------------------------------------------------------------- the store


def test_the_store_says_that_it_is_simulated_and_how(pairs: Pairs):
    """Nobody may take these for recordings."""
    attributes = pairs.attributes["sim01"]

    assert pairs.provenance == "simulated" and pairs.recipe["kind"] == "simulated" and pairs.recipe["snr"] == -4.0
    assert attributes["sfreq"] == 512 and attributes["t0"] == -0.2 and attributes["blocks"] == "recorded"
    assert attributes["channels"] == list(standard_electrodes().names) and attributes["snr_db"] == -4.0
    assert zarr.open_group(pairs.path, mode="r").attrs["provenance"] == "simulated"


def test_test_trials_show_drawings_that_training_never_shows(pairs: Pairs):
    """The design: images, not only trials, are held out, for validation and test apart."""
    shown = {name: set(pairs.image[positions].tolist()) for name, positions in pairs.splits.items()}

    assert not shown["train"] & (shown["val"] | shown["test"]) and not shown["val"] & shown["test"]
    assert all(not IMAGES.held_out_N[image] for image in shown["train"])
    assert all(IMAGES.held_out_N[image] for image in shown["val"] | shown["test"])
    assert [len(pairs.splits[name]) / len(pairs) for name in ("train", "val", "test")] == pytest.approx([0.7, 0.1, 0.2])
    for positions in pairs.splits.values():
        assert (np.bincount(pairs.labels[positions], minlength=5) > 0).all()
    np.testing.assert_array_equal(IMAGES.labels_N[pairs.image], pairs.labels)


def test_windows_of_neighbouring_trials_do_not_overlap(pairs: Pairs):
    """A shared sample would carry one trial's response into another."""
    for number in range(2):
        for session in (0, 1):
            onset = pairs.onset[(pairs.person == number) & (pairs.session == session)]
            assert (np.diff(np.sort(onset)) >= SAMPLES / SFREQ).all() and len(onset) > 10


def test_a_held_out_image_is_decoded_far_above_chance_and_shuffled_labels_are_not(pairs: Pairs):
    """The answer is there: 5 classes, chance 20 %, with a plain ridge regression."""
    x = features(pairs, EARLY)
    train, test = pairs.splits["train"], pairs.splits["test"]
    shuffled = pairs.labels.copy()
    shuffled[train] = np.random.default_rng(0).permutation(shuffled[train])

    assert ridge_accuracy(x, pairs.labels, train, test) > 0.6
    assert ridge_accuracy(x, shuffled, train, test) < 0.36


def test_the_interval_before_the_image_decodes_at_chance(pairs: Pairs):
    """Randomised order, no drift: nothing outside the response names the class. 60 test trials: chance + 3 sd is 0.355."""
    x = features(pairs, BEFORE)

    assert ridge_accuracy(x, pairs.labels, pairs.splits["train"], pairs.splits["test"]) < 0.36


def test_random_order_is_clean_and_class_blocks_are_found(tmp_path: Path, pairs: Pairs):
    """The two designs, through the audit that users run."""
    blocks = simulate(tmp_path / "b.zarr", config(people=2, block_order="class"), images=IMAGES)

    assert pairs.audit("default").verdict == "clean" and pairs.audit("stimulus").verdict == "clean"
    result = blocks.audit("default")
    assert result.verdict == "leaks" and result.block_design == "class blocks" and result.blocks_per_class == 1.0
    assert any("the block alone" in leak for leak in result.leaks)


def test_with_class_blocks_and_drift_the_interval_before_the_image_names_the_class(tmp_path: Path):
    """The known artefact, with no information about the image at all (-60 dB): power per channel before onset."""
    accuracy = {}
    for order, drift in (("class", 0.5), ("random", 0.5), ("class", 0.0)):
        store = simulate(
            tmp_path / f"{order}{drift}", config(trials=16, snr=-60.0, block_order=order, drift=drift), images=IMAGES
        )
        x = np.log(np.square(store.eeg()[:, :, BEFORE]).mean(2))
        accuracy[order, drift] = ridge_accuracy(x, store.labels, store.splits["train"], store.splits["test"])

    assert accuracy["class", 0.5] > 0.7
    assert accuracy["random", 0.5] < 0.5 and accuracy["class", 0.0] < 0.5


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another(tmp_path: Path):
    """A demo must be repeatable."""
    stores = [simulate(tmp_path / f"{k}.zarr", config(trials=3, seed=seed), images=IMAGES) for k, seed in enumerate((1, 1, 2))]
    files = [{p.relative_to(s.path): p.read_bytes() for p in sorted(s.path.rglob("*")) if p.is_file()} for s in stores]

    assert files[0] == files[1]
    assert not np.array_equal(stores[0].eeg(), stores[2].eeg())


def test_background_that_does_not_fit_in_memory_is_made_again_the_same(monkeypatch):
    """Blocks are kept between measuring and writing only as far as there is room."""
    kept = person()
    kept_scale, kept_block = kept.scale, kept.eeg(1)
    monkeypatch.setattr("dreamdiff.simulation.people._KEEP_BYTES", 0)
    remade = person()

    assert remade.scale == pytest.approx(kept_scale, rel=1e-9) and not remade._noise
    np.testing.assert_array_equal(remade.eeg(1), kept_block)


# ---------------------------------------------------------------------------------------------------------- background


def test_background_from_recordings_keeps_their_power_spectrum():
    """Genuine background is the point: rhythms and amplitude of the recording, at all 128 electrodes."""
    recording = next(iter(read_source("sample")))
    background = GenuineBackground([recording])
    windows_NCT = background.windows(np.arange(20) * 1.1, np.random.default_rng(0), 0)
    filtered = background._filtered[0][0]

    assert windows_NCT.shape == (20, 128, 512)
    assert windows_NCT.std() == pytest.approx(filtered.std(), rel=0.35)
    spectrum = np.square(np.abs(np.fft.rfft(windows_NCT * np.hanning(512), axis=2))).mean((0, 1))
    frequency = np.fft.rfftfreq(SAMPLES, 1 / SFREQ)
    assert spectrum[frequency > 75].sum() < 0.01 * spectrum.sum()  # 160 Hz recordings hold nothing above 72 Hz
    assert spectrum[(frequency >= 7) & (frequency <= 14)].mean() > 2 * spectrum[(frequency >= 30) & (frequency <= 60)].mean()


def test_recorded_electrodes_keep_their_signal():
    """A smoothing spline would remove the small-scale activity that makes single trials hard, and flatter every decoder."""
    recording = next(iter(read_source("sample")))
    spline_CC = GenuineBackground([recording])._filtered[0][2]
    names = [name.rstrip(".").upper() for name in recording.channels]
    shared = [(k, name) for k, name in enumerate(standard_electrodes().names) if name.upper() in names]
    picks, _ = known_electrodes(recording.channels)
    place = {names[pick]: column for column, pick in enumerate(picks)}

    assert len(shared) > 55
    for row, name in shared:
        expected = np.zeros(len(picks))
        expected[place[name.upper()]] = 1
        np.testing.assert_allclose(spline_CC[row], expected, atol=0.05)


def test_a_block_longer_than_the_recording_goes_on_in_another_stretch():
    """Every window is inside a recording, none crosses its end."""
    rng = np.random.default_rng(0)
    names = standard_electrodes().names[:32]
    recording = Recording(
        signal_CT=rng.standard_normal((32, 160 * 8)).astype(np.float32), sfreq=160.0, channels=names, dataset="d", subject="1",
        session="0", run="0", positions_C3=np.full((32, 3), np.nan), original_sfreq=160.0,
    )  # fmt: skip
    windows_NCT = GenuineBackground([recording]).windows(np.arange(30) * 1.05, rng, 0)

    assert np.isfinite(windows_NCT).all() and (windows_NCT.std(axis=2) > 0.05).all()


def test_pink_background_has_a_1_over_f_spectrum_inside_the_band():
    """10 uV rms over channels; log power falls by one decade per decade."""
    windows_NCT = PinkBackground().windows(np.zeros(60), np.random.default_rng(0), 0)
    power = np.square(np.abs(np.fft.rfft(windows_NCT, axis=2))).mean((0, 1))
    frequency = np.fft.rfftfreq(SAMPLES, 1 / SFREQ)
    inside = (frequency >= 5) & (frequency <= 95)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]

    assert slope == pytest.approx(-1, abs=0.05)
    assert windows_NCT.std() == pytest.approx(10, rel=0.05)
    assert power[~inside].max() < 1e-6 * power[inside].min()


# ------------------------------------------------------------------------------------------------------------- bad input


def test_dials_out_of_range_are_refused(tmp_path: Path):
    """Before any time is spent."""
    for changes, message in (
        ({"people": 0}, r"--people 0 is too small \(least 1\)"),
        ({"trials": 2}, r"--trials 2 is too small \(least 3\)"),
        ({"drift": -0.1}, r"--drift -0\.1 is too small"),
        ({"snr": 99.0}, r"--snr 99 dB is outside -60\.\.60"),
    ):
        with pytest.raises(UsageError, match=message):
            simulate(tmp_path / "p.zarr", config(**changes), images=IMAGES)
    with pytest.raises(ValidationError, match="block_order"):
        config(block_order="sorted")
    assert not list(tmp_path.iterdir())


def test_images_that_do_not_fit_are_refused(tmp_path: Path):
    """Counts that differ, and a category without held-out drawings."""
    from dataclasses import replace

    with pytest.raises(DataError, match="the image set does not fit together"):
        simulate(tmp_path / "p.zarr", config(), images=replace(IMAGES, names=IMAGES.names[1:]))
    held_out = IMAGES.held_out_N & (IMAGES.labels_N != 2)
    with pytest.raises(DataError, match=r"category 'c2' has 0 held-out images \(least 1\)"):
        simulate(tmp_path / "p.zarr", config(), images=replace(IMAGES, held_out_N=held_out))


def test_recordings_that_cannot_be_background_are_refused():
    """Names without a place, and seconds that are too few."""
    rng = np.random.default_rng(0)

    def recording(names: tuple[str, ...], seconds: float) -> Recording:
        return Recording(
            signal_CT=rng.standard_normal((len(names), round(160 * seconds))).astype(np.float32), sfreq=160.0, channels=names,
            dataset="d", subject="1", session="0", run="0", positions_C3=np.full((len(names), 3), np.nan), original_sfreq=160.0,
        )  # fmt: skip

    with pytest.raises(SignalError, match=r"d/1/0\.0: 2 of 20 channels have a known place \(least 16\)"):
        GenuineBackground([recording(("Oz", "Cz", *(f"E{k}" for k in range(18))), 20)])
    with pytest.raises(SignalError, match=r"3\.0 s are too short for background \(least 5 s\)"):
        GenuineBackground([recording(standard_electrodes().names[:32], 3)])
    with pytest.raises(SignalError, match="there is no background recording"):
        GenuineBackground([])


@pytest.mark.slow
def test_forty_categories_of_shipped_drawings_are_decoded_from_one_trial(tmp_path: Path):
    """The default: 40 classes, genuine background, -6 dB, the embedded CLIP. Possible, and not trivial (chance 2.5 %)."""
    pairs = simulate(tmp_path / "p.zarr", SimulateConfig(sources="linear"))
    accuracy = ridge_accuracy(
        features(pairs, (TIME > 0.02) & (TIME < 0.5)), pairs.labels, pairs.splits["train"], pairs.splits["test"]
    )

    assert len(pairs) == 2400 and len(pairs.classes) == 40
    assert 0.5 < accuracy < 0.95
