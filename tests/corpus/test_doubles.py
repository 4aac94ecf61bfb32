"""A recording that lies in two folders is found, whatever the folders are called."""

from __future__ import annotations

import numpy as np

import eegprep
from eegprep.corpus.doubles import same_recordings
from eegprep.inspection.describe import describe


def corpus_of(path, subjects):
    entries = [{"windows": windows, "subject": name} for name, windows in subjects.items()]
    return eegprep.from_arrays(path, entries, sfreq=100.0, pad_to=4)


def noise(seed, windows=3):
    return 10 * np.random.default_rng(seed).standard_normal((windows, 4, 64)).astype(np.float32)


def test_two_folders_with_the_same_recording_are_named(tmp_path):
    """As in a public SSVEP set, where the folders of subject 3 and subject 7 hold one recording."""
    corpus = corpus_of(tmp_path / "c.zarr", {"subject03": noise(1), "subject01": noise(0), "subject07": noise(1)})

    (double,) = same_recordings(corpus)

    assert double.recordings == ("arrays/subject03#0", "arrays/subject07#0")
    assert double.windows == 3
    assert "of different subjects are the same recording" in double.sentence
    assert describe(tmp_path / "c.zarr")["doubles"] == [double.sentence]


def test_one_sample_makes_another_recording(tmp_path):
    """Equal in number and in all windows but one."""
    changed = noise(1)
    changed[1, 2, 30] += 1e-3
    corpus = corpus_of(tmp_path / "c.zarr", {"a": noise(1), "b": changed, "c": noise(1, windows=4)})

    assert same_recordings(corpus) == []
