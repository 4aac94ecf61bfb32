"""benchmarks/picture_category.py on tiny simulated stand-ins for the genuine recordings: planted answers, doubles, and nothing before the event."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import mne
import numpy as np
import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "picture_category.py"
RATE, PICTURES, EVERY = 256, 52, 0.9  # Hz, pictures of a recording, s


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module."""
    specification = importlib.util.spec_from_file_location("picture_category", BENCHMARK)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def muse_file(file, seed):
    """A table as the experiment writes it: noise, and 0.2 s after a face a dip at TP9 and TP10."""
    rng = np.random.default_rng(seed)
    samples = round((PICTURES * EVERY + 2) * RATE)
    signal = 12 * rng.standard_normal((5, samples))
    marker = np.zeros(samples, int)
    dip = -25 * np.exp(-(((np.arange(RATE) / RATE - 0.2) / 0.04) ** 2))
    for picture in range(PICTURES):
        start = round((1 + picture * EVERY) * RATE)
        marker[start] = 1 + rng.integers(2)
        if marker[start] == 2:
            signal[np.ix_([0, 3], range(start, start + RATE))] += dip
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = np.column_stack([1000 + np.arange(samples) / RATE, signal.T.round(3), marker])
    np.savetxt(file, rows, fmt="%.6g", delimiter=",", comments="", header="timestamps,TP9,AF7,AF8,TP10,Right AUX,Marker0")


def test_house_and_face_are_told_apart_after_the_picture_only(benchmark, tmp_path):
    """Two recordings of one person, the second also under another session's name; another person has nothing to hold out."""
    muse_file(tmp_path / "a/session1/one.csv", 1)
    muse_file(tmp_path / "a/session1/two.csv.csv", 2)
    shutil.copytree(tmp_path / "a/session1", tmp_path / "a/session2")
    (tmp_path / "a/session2/one.csv").unlink()
    muse_file(tmp_path / "b/session1/only.csv", 3)

    found = benchmark.muse(tmp_path)

    assert found["notes"][0].startswith("a/session2/two.csv.csv and a/session1/two.csv.csv are the same recording")
    assert found["notes"][1].startswith("b: one usable recording")
    numbers = found["people"]["a"]
    assert numbers["recordings"] == 2 and numbers["pictures"] == 2 * PICTURES
    assert numbers["after the picture"]["low"] > 0.7
    assert numbers["before the picture"]["low"] < 0.5 < numbers["before the picture"]["high"]
    assert abs(numbers["training labels permuted"]["auc"] - 0.5) < 0.25
    parts = {row["name"]: row for row in numbers["carriers"]["rows"]}
    assert parts["2 temporal electrodes"]["accuracy"] > parts["2 frontal electrodes"]["accuracy"] + 0.2


def flicker_file(folder, seed):
    """Four trials of each frequency at eight channels; event 1 is rest."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat([1, 2, 3, 4], 4))
    rate, length = 128.0, 10 * 128
    signal = 5 * rng.standard_normal((8, (len(codes) + 1) * length))
    events = []
    for number, code in enumerate(codes.tolist()):
        start = number * length + length // 2
        events.append([start, 0, code])
        if code != 1:
            wave = np.sin(2 * np.pi * {2: 13.0, 3: 21.0, 4: 17.0}[code] * np.arange(5 * 128) / rate)
            signal[:, start : start + 5 * 128] += rng.uniform(1, 3, (8, 1)) * wave
    folder.mkdir(parents=True)
    info = mne.create_info(["Oz", "O1", "O2", "PO3", "POz", "PO7", "PO8", "PO4"], rate, "eeg")
    mne.io.RawArray(signal * 1e-6, info, verbose="error").save(folder / "record_raw.fif", verbose="error")
    mne.write_events(folder / "record-eve.fif", np.array(events), verbose="error")


def test_the_flicker_is_recovered_through_reading_and_filtering_and_not_before_it(benchmark, tmp_path):
    """No training: canonical correlation with sines; two folders with one recording count once."""
    flicker_file(tmp_path / "subject03", 1)
    shutil.copytree(tmp_path / "subject03", tmp_path / "subject07")

    found = benchmark.ssvep(tmp_path)

    assert "subject07/record_raw.fif and subject03/record_raw.fif are the same recording" in found["notes"][0]
    assert list(found["people"]) == ["subject03"]
    during, before = found["people"]["subject03"].values()
    assert (during["accuracy"], during["trials"]) == (1.0, 12)
    assert before["low"] < 1 / 3 < before["high"]


def test_canonical_correlation_of_a_sine_is_found_at_its_own_frequency(benchmark):
    time_T = np.arange(512) / 128.0
    x_CT = np.random.default_rng(0).standard_normal((3, 512)) + np.sin(2 * np.pi * 17 * time_T)

    assert benchmark.strongest(x_CT, 128.0, [13.0, 21.0, 17.0]) == 17.0
