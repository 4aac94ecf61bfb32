"""The probe: right on labels that are there, at chance on labels that are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import eegprep
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.estimators.scores import balanced_accuracy
from dreamdiff.pretraining.probe import band_power, held_out_guesses, probe
from eegprep.errors import DataError

PEOPLE, WINDOWS, CHANNELS, SAMPLES, RATE = 6, 16, 4, 128, 128.0
ENCODER = EncoderConfig(channels=CHANNELS, window=SAMPLES, width=32, depth=1, heads=2)


def corpus_of(folder, *, told: bool, people: int = PEOPLE):
    """Windows of noise; label "fast" has a 20 Hz rhythm when `told`, else the labels mean nothing."""
    rng = np.random.default_rng(0)
    time_T = np.arange(SAMPLES) / RATE
    entries = []
    for person in range(people):
        labels = rng.permutation(["slow", "fast"] * (WINDOWS // 2))
        noise_NCT = rng.standard_normal((WINDOWS, CHANNELS, SAMPLES)) * (5 + 3 * person)
        phase_N = rng.uniform(0, 2 * np.pi, WINDOWS)
        rhythm_NT = np.sin(2 * np.pi * 20 * time_T + phase_N[:, None]) * (labels == "fast")[:, None] * (10 + 6 * person) * told
        entries.append({"windows": (noise_NCT + rhythm_NT[:, None]).astype(np.float32), "labels": labels.tolist()})
    return eegprep.from_arrays(folder, entries, sfreq=RATE, pad_to=CHANNELS)


def test_labels_that_are_in_the_signal_are_found_in_people_never_seen(tmp_path) -> None:
    """Band power sees a 20 Hz rhythm; its interval lies above chance."""
    report = probe(EEGEncoder(ENCODER), corpus_of(tmp_path / "c.zarr", told=True))

    rows = {(row.features, row.classifier): row for row in report.rows}
    assert len(rows) == 6
    band = rows["band power", "linear"]
    assert band.balanced_accuracy > 0.9
    assert band.low > band.chance_high
    assert (report.chance, report.windows, report.groups, report.interval_over) == (0.5, PEOPLE * WINDOWS, PEOPLE, "groups")
    everything = report.carriers["everything"]  # the light decoder finds the rhythm, in every fifth of the window
    assert everything.above_chance and all(row.above_chance for row in report.carriers.rows if row.kind == "window")
    assert report.carriers.left_out["before the event"] == "the windows do not say when the event was"
    assert json.loads(json.dumps(report.to_dict()))["carriers"]["rows"][0]["name"] == "everything"


def test_labels_that_are_not_in_the_signal_are_not_found(tmp_path) -> None:
    """Although every person is told from every other at a glance (amplitude): nothing leaks from training to test."""
    report = probe(EEGEncoder(ENCODER), corpus_of(tmp_path / "c.zarr", told=False))

    assert not [row for row in report.rows if row.low > row.chance_high]


def test_no_group_is_in_training_and_test_at_once() -> None:
    """A classifier that can only remember groups knows nothing about new ones."""
    group_N = np.repeat(np.arange(5), 8)
    label_N = np.where(group_N % 2 == 0, "a", "b")
    seen: list[tuple[set, set]] = []

    class Spy:
        def fit(self, features, labels):
            self.groups = set(features[:, 0].astype(int))
            return self

        def predict(self, features):
            seen.append((self.groups, set(features[:, 0].astype(int))))
            return np.full(len(features), "a")

    held_out_guesses(Spy(), group_N[:, None].astype(float), label_N, group_N, seed=0)

    assert len(seen) == 5
    assert all(not (train & test) for train, test in seen)
    assert set().union(*(test for _, test in seen)) == set(range(5))


def test_balanced_accuracy_is_the_mean_over_labels() -> None:
    """Guessing the commoner label always gives a half, not nine tenths."""
    label_N = np.array(["a"] * 9 + ["b"])
    assert balanced_accuracy(label_N, np.full(10, "a")) == 0.5


def test_band_power_is_the_logarithm_of_the_mean_square_in_a_band(tmp_path) -> None:
    """A 10 Hz sine of amplitude 4 has power 8 in alpha and none elsewhere."""
    time_T = np.arange(SAMPLES) / RATE
    sine = np.tile(4 * np.sin(2 * np.pi * 10 * time_T), (1, CHANNELS, 1)).astype(np.float32)
    corpus = eegprep.from_arrays(tmp_path / "c.zarr", sine, sfreq=RATE, pad_to=CHANNELS)

    features = band_power(corpus)[0].reshape(-1, CHANNELS)

    np.testing.assert_allclose(features[1], np.log(8), atol=1e-4)
    assert (features[[0, 2, 3]] < np.log(1e-4)).all()


def test_too_few_labels_or_people_are_refused(tmp_path) -> None:
    """With how many there are."""
    corpus = corpus_of(tmp_path / "c.zarr", told=True, people=1)
    with pytest.raises(DataError, match="one person cannot be held out"):
        probe(EEGEncoder(ENCODER), corpus)
    with pytest.raises(DataError, match=r"needs two labels, there are 1 \(fast\)"):
        probe(EEGEncoder(ENCODER), corpus, labels=["fast"])


def test_the_random_encoder_depends_on_the_seed_only(tmp_path) -> None:
    """The reference must be the same for every model that is compared."""
    corpus = corpus_of(tmp_path / "c.zarr", told=True)
    torch.manual_seed(1)
    first = probe(EEGEncoder(ENCODER), corpus, seed=3).rows[2]
    torch.manual_seed(2)
    assert probe(EEGEncoder(ENCODER), corpus, seed=3).rows[2] == first


@pytest.mark.parametrize(("counts", "labels"), [((7, 40), 2), ((2, 3), 2), ((3, 2, 4), 2), ((4, 1), 2), ((3, 3), 1)])
def test_few_windows_give_a_report_that_says_so(tmp_path, counts, labels) -> None:
    """Two people with 7 and 101 windows ended in a traceback; so did a person with one label only."""
    rng = np.random.default_rng(1)
    entries = [
        {
            "windows": 10 * rng.standard_normal((count, CHANNELS, SAMPLES)).astype(np.float32),
            "labels": ["a" if labels == 1 and person == 0 else "ab"[k % 2] for k in range(count)],
        }
        for person, count in enumerate(counts)
    ]

    report = probe(EEGEncoder(ENCODER), eegprep.from_arrays(tmp_path / "c.zarr", entries, sfreq=RATE, pad_to=CHANNELS))

    assert len(report.rows) == 6 and all(0 <= row.balanced_accuracy <= 1 for row in report.rows)
    assert any(
        f"fewer than 15 windows (the smallest on {min(sum(counts) - count for count in counts)})" in note for note in report.notes
    )
    assert labels == 2 or any("one label only" in note for note in report.notes)


def test_a_recording_under_two_names_is_held_out_whole(tmp_path) -> None:
    """Otherwise the probe would be tested on what it was trained on; the report says which people are one."""
    rng = np.random.default_rng(3)
    windows = [10 * rng.standard_normal((8, CHANNELS, SAMPLES)).astype(np.float32) for _ in range(3)]
    labels = ["a", "b"] * 4
    entries = [
        {"windows": windows[k], "labels": labels, "subject": name} for k, name in ((0, "s1"), (1, "s3"), (2, "s5"), (1, "s7"))
    ]
    corpus = eegprep.from_arrays(tmp_path / "c.zarr", entries, sfreq=RATE, pad_to=CHANNELS)

    report = probe(EEGEncoder(ENCODER), corpus)

    assert report.groups == 3
    assert "arrays/s3 and arrays/s7 are held out together" in report.notes[0]
