"""One rule for the sampling rate: known rates as they are, others resampled and said, what is too short refused."""

import numpy as np
import pytest

import eegprep
from dreamdiff.eeg_input import RateShare, SignalConfig
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from dreamdiff.rates import ModelWindows, plan_rate
from eegprep.corpus.rates import corpus_rates, count_rates, several_rates
from eegprep.corpus.reader import Corpus
from eegprep.errors import ModelError


def tone(sfreq, samples, hz=10.0, channels=2):
    """(channels, samples): a 10 Hz wave that begins at its first sample."""
    return (20 * np.sin(2 * np.pi * hz * np.arange(samples) / sfreq) * np.ones((channels, 1))).astype(np.float32)


def test_a_wave_keeps_its_frequency_at_the_rate_of_the_model():
    """3.2 s at 160 Hz, read by a model of 1 s at 512 Hz: the first second of the same 10 Hz wave."""
    plan = plan_rate("x", 160.0, 512, SignalConfig(sfreq=512.0), 512)

    made = plan.apply(tone(160.0, 512)[None])

    assert made.shape == (1, 2, 512) and made.dtype == np.float32
    np.testing.assert_allclose(
        made[0, :, 40:], tone(512.0, 512)[:, 40:], atol=1.3
    )  # MNE rounds its padding: up to half a sample of the new rate
    assert "160 Hz" in plan.note and "512 Hz" in plan.note and "3200 ms" in plan.note and "1000" in plan.note


def test_copies_of_a_channel_stay_copies_and_all_rows_are_resampled():
    """A window of 64 channels is filled with copies; they are resampled once and come out where they were."""
    rng = np.random.default_rng(0)
    trial = eegprep.band_pass(rng.normal(0, 10, (3, 512)).astype(np.float32), 160.0, 5, 60)
    plan = plan_rate("x", 160.0, 512, SignalConfig(sfreq=320.0), 512)

    whole = plan.apply(trial[None])[0]
    padded = plan.apply(trial[np.arange(8) % 3][None])[0]

    np.testing.assert_array_equal(padded, whole[np.arange(8) % 3])


@pytest.mark.parametrize("sfreq", [160.0, 128.0, None])
def test_rates_that_the_model_was_trained_at_are_read_as_they_are(sfreq):
    """The paper's corpus has many; a model keeps all of them."""
    signal = SignalConfig(sfreq=160.0, rates=(RateShare(sfreq=160.0, windows=9), RateShare(sfreq=128.0, windows=1)))

    plan = plan_rate("x", sfreq, 512, signal, 512, strict=True)

    assert plan.to is None and plan.note == ""


def test_what_is_too_short_is_refused_for_use_and_read_sample_by_sample_for_training():
    """1 s for an encoder of 3.2 s: as ImageNet-EEG for the paper's encoder, and in words."""
    signal = SignalConfig(sfreq=160.0)

    with pytest.raises(ModelError, match=r"512 samples \(1000 ms\) are shorter than the model's 512 \(3200 ms\)") as raised:
        plan_rate("x", 512.0, 512, signal, 512)
    trained = plan_rate("x", 512.0, 512, signal, 512, trainable=True)

    assert "at least 1639 samples" in raised.value.fix
    assert trained.to is None and "7.81 ms instead of 25" in trained.note


def test_strict_refuses_another_rate():
    """Both numbers, and how to get there."""
    with pytest.raises(ModelError, match="sampled at 128 Hz, the model was trained at 512 Hz") as raised:
        plan_rate("x", 128.0, 512, SignalConfig(sfreq=512.0), 512, strict=True)
    assert "--resample 512" in raised.value.fix


def test_the_most_common_rate_comes_first_and_nearly_equal_ones_are_one():
    """Amplifiers report 256.00013 Hz."""
    assert count_rates([(128.0, 5), (256.00013, 4), (256.0, 3), (float("nan"), 9)]) == {256.00013: 7, 128.0: 5}
    assert several_rates("c", {160.0: 10}) == ""
    assert several_rates("c", {160.0: 10, 128.0: 2}).endswith("a token of 4 samples lasts 25 and 31.2 ms")


def corpus_of_two_rates(folder):
    eegprep.from_arrays(folder / "a.zarr", [{"windows": np.stack([tone(160.0, 512)] * 3), "subject": "a"}], sfreq=160.0, pad_to=2)
    eegprep.from_arrays(folder / "b.zarr", [{"windows": np.stack([tone(128.0, 512)] * 2), "subject": "b"}], sfreq=128.0, pad_to=2)
    eegprep.merge([folder / "a.zarr", folder / "b.zarr"], folder / "c.zarr")
    return Corpus.open(folder / "c.zarr")


def test_a_corpus_of_two_rates_is_read_at_that_of_the_model(tmp_path):
    """Every window at its own rate before, at one afterwards."""
    corpus = corpus_of_two_rates(tmp_path)

    windows = ModelWindows(corpus, SignalConfig(sfreq=512.0), 512)

    assert corpus_rates(corpus) == {160.0: 3, 128.0: 2} and len(windows.notes) == 2
    for made in windows.read(np.arange(5)):
        np.testing.assert_allclose(
            made[:, 40:], tone(512.0, 512)[:, 40:], atol=1.3
        )  # MNE rounds its padding: up to half a sample of the new rate


def pairs_of_two_rates(path):
    with PairsWriter(path, recipe={}, classes=["x"], provenance="recorded", licence="CC0-1.0", channels=2) as writer:
        writer.set_images(np.zeros((1, 8, 8, 3), np.uint8), ["x.png"])
        for name, sfreq, n in (("a", 160.0, 3), ("b", 200.0, 2)):
            with writer.subject(name, "1", {"sfreq": sfreq, "t0": 0.0}) as trials:
                trials.add(np.stack([tone(sfreq, 512)] * n), image=np.zeros(n, int), label=np.zeros(n, int))
        writer.finish({"train": [0, 1, 2], "val": [3], "test": [4]})
    return Pairs.open(path)


def test_pairs_of_two_rates_become_those_of_one_model(tmp_path):
    """Trials, shape and attributes; a selection of them stays there."""
    pairs = pairs_of_two_rates(tmp_path / "p.zarr")

    made, notes = pairs.at_model_rate(SignalConfig(sfreq=512.0), 256)

    assert made.eeg_shape == (2, 256) and len(notes) == 2 and pairs.eeg_shape == (2, 512)
    assert {name: facts["sfreq"] for name, facts in made.attributes.items()} == {"a": 512.0, "b": 512.0}
    for trial in (*made.eeg(), *made.select(subjects=["b"]).eeg()):
        np.testing.assert_allclose(
            trial[:, 40:], tone(512.0, 256)[:, 40:], atol=1.3
        )  # MNE rounds its padding: up to half a sample of the new rate
    assert made.content_sha256 == pairs.content_sha256


def test_without_a_rate_of_the_model_the_most_common_one_is_taken(tmp_path):
    """Two people at 160 and 200 Hz: 200 Hz windows are shorter in time, so that the others have to be there whole."""
    pairs = pairs_of_two_rates(tmp_path / "p.zarr")

    with pytest.raises(ModelError, match="subject b: sampled at 200 Hz, the model was trained at 160 Hz"):
        pairs.at_model_rate(SignalConfig())
