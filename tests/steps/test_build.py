"""The steps and `build`: equal results, resuming, recipes that change, one bad recording, several workers."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import mne
import numpy as np
import pytest
import zarr
from eeg_files import eeg, names, recording, write_edf, write_people
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import eegprep
from eegprep import pool
from eegprep.catalogue.manifests import shipped_folder
from eegprep.errors import SourceError, StoreError, UsageError
from eegprep.inspection.verify import trace, verify
from eegprep.locks import store_lock
from eegprep.pool import Budget, parse_bytes
from eegprep.readers import edf
from eegprep.signals import recipe as jobs_recipe
from eegprep.signals.filters import effective_band
from eegprep.signals.recipe import make_recipe
from eegprep.signals.windows import stretch
from eegprep.steps import jobs
from eegprep.steps.build import build_raw, fetch, filter_recordings, pad, plan
from eegprep.steps.subject import cut_subject, run_subject
from eegprep.store import group as group_writer

SAMPLE = shipped_folder() / "sample/MNE-eegbci-data/files/eegmmidb/1.0.0"


def tree(root: Path) -> dict[str, str]:
    """SHA-256 of every file of a store, hidden ones included."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def arrays(root: Path, group: str) -> dict[str, np.ndarray]:
    opened = zarr.open_group(root, mode="r")[group]
    return {name: opened[name][:] for name in ("windows", "recording", "start", "label")}


def group(root: Path, name: str) -> dict:
    return json.loads((root / name / "zarr.json").read_text())["attributes"]


def only_dataset(root: Path) -> str:
    (name,) = [path.name for path in root.iterdir() if path.is_dir()]
    return name


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A SOURCE of four people with two runs each."""
    return write_people(tmp_path_factory.mktemp("people"), 4, runs=2)


# --------------------------------------------------------------------------------------------------- what comes out


def test_windows_of_genuine_recordings_are_those_of_mne_cropped_and_replicated(tmp_path):
    """The whole chain against the script that a lab would write: read, filter, slice, repeat."""
    eegprep.build(f"files:{SAMPLE}/S001/*.edf", tmp_path / "c.zarr")

    raw = mne.io.read_raw_edf(SAMPLE / "S001/S001R04.edf", preload=True, verbose="error").filter(5.0, 72.0, verbose="error")
    filtered_CT = raw.get_data() * 1e6
    expected = np.stack([filtered_CT[np.arange(128) % 64, start : start + 512] for start in range(0, 20_000 - 511, 512)])
    made = arrays(tmp_path / "c.zarr", only_dataset(tmp_path / "c.zarr") + "/S001")
    assert made["windows"].dtype == np.float32 and made["windows"].shape[1:] == (128, 512)
    deviation_C = filtered_CT.std(axis=1)[np.arange(128) % 64]
    assert (np.abs(made["windows"][:39] - expected).max(axis=(0, 2)) / deviation_C).max() < 1e-5


def test_three_steps_and_build_give_identical_arrays(tmp_path, people):
    """Whoever looks at what lies in between must not get another corpus."""
    settings = {"high": 45.0, "resample": 150.0, "mode": "zeros", "channel_order": "canonical", "max_per_subject": 5, "seed": 3}
    recipe = make_recipe(**settings)

    eegprep.build(people, tmp_path / "one.zarr", **settings)
    fetch(people, tmp_path / "r.zarr")
    filter_recordings(tmp_path / "r.zarr", tmp_path / "f.zarr", recipe=recipe)
    pad(tmp_path / "f.zarr", tmp_path / "three.zarr", recipe=recipe)

    dataset = only_dataset(tmp_path / "one.zarr")
    for subject in ("01", "02", "03", "04"):
        one, three = (arrays(tmp_path / store_name, f"{dataset}/{subject}") for store_name in ("one.zarr", "three.zarr"))
        assert len(one["windows"]) == 5
        for name, values in one.items():
            np.testing.assert_array_equal(values, three[name])


def test_every_window_can_be_traced_and_made_again(tmp_path, people):
    """File, run and sample; and the bits are those that the sources give today."""
    eegprep.build(people, tmp_path / "c.zarr")

    found = trace(tmp_path / "c.zarr", 7)
    corpus = eegprep.Corpus.open(tmp_path / "c.zarr")
    file = Path(people.removeprefix("files:")).parent / found["sources"][0]["name"]
    raw = mne.io.read_raw_edf(file, preload=True, verbose="error").filter(5.0, 95.0, verbose="error")
    again = raw.get_data()[np.arange(128) % 4, found["start"] : found["start"] + 512] * 1e6
    np.testing.assert_allclose(corpus.read([7])[0], again, atol=1e-4)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == found["sources"][0]["sha256"]
    assert verify(tmp_path / "c.zarr", deep=True).problems == ()


def test_labels_and_the_effective_band_are_in_the_corpus(tmp_path):
    """128 Hz: 57.6 Hz, clipped and said."""
    write_edf(tmp_path / "a.edf", eeg(4, 2560, 128.0), 128.0, events=[(0.0, 8.0, "left"), (10.0, 4.5, "right")])

    summary = eegprep.build(f"files:{tmp_path}/a.edf", tmp_path / "c.zarr")

    attributes = group(tmp_path / "c.zarr", only_dataset(tmp_path / "c.zarr") + "/a")
    record = attributes["recordings"][0]
    assert record["band"] == [5.0, 57.6] and record["filter"]["clipped"] and record["pad_map"] == (np.arange(128) % 4).tolist()
    assert attributes["labels"] == ["left"] and record["windows"] == 5
    assert [finding.code for finding in summary.findings] == ["few_channels", "nyquist"]


def test_of_more_than_128_channels_the_same_are_kept_everywhere_and_named(tmp_path):
    """Two sessions of one cap; `--max-channels` leaves such recordings out, `--select-channels` chooses."""
    for session in (1, 2):
        channels = [f"E{k + 1}" for k in range(200)]
        write_edf(tmp_path / f"set/sub-01_ses-{session}.edf", eeg(200, 1200, 200.0, seed=session), 200.0, channels)

    eegprep.build(f"files:{tmp_path}/set/*", tmp_path / "c.zarr", seed=4)
    first, second = group(tmp_path / "c.zarr", "set/01")["recordings"]

    assert first["pad_map"] == second["pad_map"] and first["n_channels"] == 200
    (said,) = [f["message"] for f in first["findings"] if f["code"] == "many_channels"]
    assert said.startswith("128 of 200 channels kept, evenly spaced in channel order") and "E1, E3, E4 ... E200" in said
    with pytest.raises(SourceError, match=r"200 EEG channels \(most 128\)"):
        eegprep.build(f"files:{tmp_path}/set/*", tmp_path / "d.zarr", max_channels=128)
    eegprep.build(f"files:{tmp_path}/set/*", tmp_path / "e.zarr", select_channels=("e7", "E9", "Q1"))
    chosen = group(tmp_path / "e.zarr", "set/01")["recordings"][0]
    assert chosen["channels"] == ["E7", "E9"]
    assert any("1 of 3 channels of --select-channels are not" in f["message"] for f in chosen["findings"])


def test_settings_that_are_new_and_unused_leave_recipe_and_fingerprint_as_they_were(monkeypatch):
    """Or every corpus of 0.1.0 would be another recipe's for another reason than the filter's precision."""
    plain = make_recipe()
    monkeypatch.setattr(jobs_recipe, "ALGORITHM", 1)

    assert {"max_channels", "select_channels"} & set(plain.model_dump(mode="json")) == set()
    assert jobs_recipe.recipe_fingerprint(plain) == "755ae534775412bac15b33f293650c0f6e0d748c3565f7c5545f21339f24535d"
    assert make_recipe(max_channels=64).model_dump(mode="json")["max_channels"] == 64


@pytest.mark.parametrize("place", ["one place", "origin"])
def test_electrodes_in_one_place_are_unknown_named_and_refused_where_places_are_needed(tmp_path, place):
    """A broken montage file gave 128 equal rows, or rows four times too large, without a word."""
    raw = mne.io.RawArray(eeg(32, 4000, 200.0) * 1e-6, mne.create_info(names(32), 200.0, "eeg"), verbose="error")
    where = (0.0, 0.0, 0.09) if place == "one place" else (0.0, 0.0, 0.0)
    montage = mne.channels.make_dig_montage({name: np.array(where) for name in raw.ch_names}, coord_frame="head")
    raw.set_montage(montage, verbose="error").save(tmp_path / "a_raw.fif", verbose="error")

    with pytest.raises(SourceError, match="0 of 32 channels have a known place"):
        eegprep.build(f"files:{tmp_path}/a_raw.fif", tmp_path / "c.zarr", mode="spline")
    eegprep.build(f"files:{tmp_path}/a_raw.fif", tmp_path / "d.zarr", dataset="set")
    record = group(tmp_path / "d.zarr", "set/a_raw")["recordings"][0]

    assert any(f["code"] == "positions" and f["message"].startswith("32 of 32 electrodes") for f in record["findings"])
    assert record["positions"] == [[None] * 3] * 32


def test_raw_objects_become_a_corpus(tmp_path):
    """For whoever has loaded and cleaned recordings already."""
    info = mne.create_info(names(4), 200.0, "eeg")
    raws = {str(i): mne.io.RawArray(eeg(4, 2000, 200.0, i) * 1e-6, info, verbose="error") for i in range(2)}

    summary = build_raw(raws, tmp_path / "c.zarr", dataset="mine")

    assert summary.windows == 6 and set(eegprep.Corpus.open(tmp_path / "c.zarr").keys) == {"mine/0", "mine/1"}
    assert build_raw(raws, tmp_path / "c.zarr", dataset="mine").built == 0
    assert eegprep.build(raws["0"], tmp_path / "d.zarr").windows == 3


@given(
    n_channels=st.integers(1, 300),
    n_samples=st.integers(2, 3000),
    sfreq=st.sampled_from([62.5, 128.0, 160.0, 200.0, 250.0, 256.00013, 1000.0]),
    window=st.integers(2, 700),
    stride=st.integers(1, 700),
    short=st.sampled_from(["skip", "stretch"]),
    mode=st.sampled_from(["replicate", "zeros"]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_any_recording_gives_the_windows_of_the_plain_rule(n_channels, n_samples, sfreq, window, stride, short, mode):
    """Every channel count from 1 to 300, rate and length, against MNE, slices and one line of numpy."""
    recipe = make_recipe(window=window, stride=stride, short=short, mode=mode)
    signal_CT = eeg(n_channels, n_samples, sfreq, n_samples).astype(np.float32)
    channels = [f"E{i}" for i in range(n_channels)]
    writer = _Collect()
    left_out = []

    cut_subject(run_subject([recording(signal_CT, sfreq, channels)], recipe, left_out), recipe, writer, left_out)

    if left_out:
        codes = {finding.code for finding in left_out[0].reasons}
        assert codes <= {"units", "too_short"} and ("units" in codes or (n_samples < window and short == "skip"))
        return
    band = effective_band(sfreq)
    filtered_CT = mne.filter.filter_data(signal_CT.astype(float), sfreq, band.low, band.high, verbose="error")
    rows = np.array(writer.records[0]["pad_map"])
    starts = list(range(0, n_samples - window + 1, stride)) or [0]
    made = np.concatenate(writer.windows)
    assert made.shape == (len(starts), 128, window) and writer.starts == starts
    for window_CT, start in zip(made, starts, strict=True):
        piece = filtered_CT[:, start : start + window]
        piece = piece if piece.shape[1] == window else stretch(piece, window)
        expected = np.where((rows >= 0)[:, None], piece[np.maximum(rows, 0)], 0.0)
        np.testing.assert_allclose(window_CT, expected, atol=2e-6 * max(1.0, np.abs(signal_CT).max()))


class _Collect:
    """Takes what a corpus would."""

    def __init__(self):
        self.records, self.windows, self.starts = [], [], []

    def add_recording(self, record):
        self.records.append(record)
        return 0

    def add(self, windows_NCT, recording, starts_N, labels_N, *, repeat):
        self.windows.append(windows_NCT[:, np.arange(128) % windows_NCT.shape[1]] if repeat else windows_NCT)
        self.starts += starts_N.tolist()


def test_a_balanced_draw_reaches_its_target(tmp_path, people):
    """`target_windows` of a manifest, shared out evenly over people."""
    (tmp_path / "m.toml").write_text(f'target_windows = 12\n[[source]]\nspec = "{people}"\n')

    assert plan(tmp_path / "m.toml", tmp_path / "c.zarr")[0].windows == 12

    summary = eegprep.build(tmp_path / "m.toml", tmp_path / "c.zarr")

    assert summary.windows == 12 and summary.subjects == 4


def test_a_lock_file_names_everything_and_repeats_the_build(tmp_path):
    """Data set, subjects, runs, hashes, settings, versions; the second corpus has the same bytes."""
    source = write_people(tmp_path / "people", 2, runs=2)

    eegprep.build(source, tmp_path / "a.zarr", subjects="01-02", high=45.0, lock=tmp_path / "a.lock.toml")
    summary = eegprep.build(tmp_path / "a.lock.toml", tmp_path / "b.zarr")

    text = (tmp_path / "a.lock.toml").read_text()
    for file in (tmp_path / "people").iterdir():
        assert f'"{file.name}" = "{hashlib.sha256(file.read_bytes()).hexdigest()}"' in text
    assert "# subject 01: 0.run-1, 0.run-2" in text and f'mne = "{mne.__version__}"' in text and "high = 45.0" in text
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr") and summary.exit_code == 0


def test_a_lock_file_refuses_other_bytes_and_notes_other_versions(tmp_path):
    """A repetition with other data is none; with other libraries it may be, but that is said."""
    source = write_people(tmp_path / "people", 2)
    eegprep.build(source, tmp_path / "a.zarr", lock=tmp_path / "lock.toml")
    text = (tmp_path / "lock.toml").read_text()
    (tmp_path / "lock.toml").write_text(text.replace(f'mne = "{mne.__version__}"', 'mne = "1.0"'))
    write_edf(tmp_path / "people/sub-01_run-1.edf", eeg(4, 2400, 200.0, 55), 200.0)

    summary = eegprep.build(tmp_path / "lock.toml", tmp_path / "b.zarr")

    assert next((f.code, f.recording, f.limit) for f in summary.findings) == ("software", "mne", "1.0")
    assert summary.exit_code == 3 and summary.recordings == 1
    assert any("the manifest has" in finding.message for finding in summary.findings)


# ----------------------------------------------------------------------------------------------------------- resuming


def test_running_again_does_nothing_and_changes_no_byte(tmp_path, people):
    """Also the quarantine list is remembered."""
    first = eegprep.build(people, tmp_path / "c.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c.zarr").rglob("*")}

    second = eegprep.build(people, tmp_path / "c.zarr")

    assert (first.built, second.built, second.windows) == (4, 0, first.windows)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c.zarr").rglob("*")} == before
    assert second.findings == first.findings


def test_a_new_person_is_added_and_nobody_is_built_again(tmp_path):
    """A study grows."""
    source = write_people(tmp_path / "p", 2)
    eegprep.build(source, tmp_path / "c.zarr")
    write_edf(tmp_path / "p/sub-03_run-1.edf", eeg(4, 2400, 200.0, 7), 200.0)

    assert eegprep.build(source, tmp_path / "c.zarr").built == 1


def test_a_changed_file_rebuilds_its_subject_only(tmp_path):
    """Recognised by its hash, not by its name."""
    source = write_people(tmp_path / "p", 3)
    eegprep.build(source, tmp_path / "c.zarr")
    write_edf(tmp_path / "p/sub-02_run-1.edf", eeg(4, 2400, 200.0, 77), 200.0)

    assert eegprep.build(source, tmp_path / "c.zarr").built == 1


# ------------------------------------------------------------------------------------------------------- what is bad


def test_one_bad_recording_never_loses_the_others(tmp_path):
    """Within a subject and between subjects: listed, stored, exit code 3, remembered."""
    source = write_people(tmp_path / "p", 2, runs=2)
    (tmp_path / "p/sub-01_run-2.edf").write_bytes(b"broken")
    write_edf(tmp_path / "p/sub-03_run-1.edf", eeg(4, 2400, 200.0, uv=1e-3), 200.0)

    first = eegprep.build(source, tmp_path / "c.zarr")
    again = eegprep.build(source, tmp_path / "c.zarr")

    assert first.exit_code == again.exit_code == 3 and again.built == 0
    assert set(first.quarantined) == set(again.quarantined) and len(first.quarantined) == 2
    assert first.recordings == 3
    assert "unreadable" in {finding.code for finding in first.findings if finding.action == "quarantined"}
    dataset = only_dataset(tmp_path / "c.zarr")
    assert group(tmp_path / "c.zarr", f"{dataset}/01")["left_out"][0]["findings"][0]["code"] == "unreadable"
    assert f"{dataset}/03" in json.loads((tmp_path / "c.zarr/zarr.json").read_text())["attributes"]["left_out"]


def test_a_data_set_that_is_left_out_whole_does_not_stop_the_others(tmp_path):
    """No empty folder stays behind; the corpus opens, and says who is missing."""
    good = write_people(tmp_path / "good", 2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/sub-01_run-1.edf").write_bytes(b"broken")

    summary = eegprep.build([good, f"files:{tmp_path}/bad/*.edf"], tmp_path / "c.zarr")

    assert summary.exit_code == 3
    corpus = eegprep.Corpus.open(tmp_path / "c.zarr")
    assert set(corpus.subjects["dataset"]) == {"good"} and len(corpus) == summary.windows
    assert not (tmp_path / "c.zarr/bad").exists()
    assert list(json.loads((tmp_path / "c.zarr/zarr.json").read_text())["attributes"]["left_out"]) == ["bad/01"]
    assert verify(tmp_path / "c.zarr").problems == ()


def test_what_an_early_step_left_out_is_known_to_the_last(tmp_path):
    """The corpus lists everybody who is missing, whichever step it was."""
    source = write_people(tmp_path / "p", 2)
    (tmp_path / "p/sub-03_run-1.edf").write_bytes(b"broken")

    assert fetch(source, tmp_path / "r.zarr").exit_code == 3
    filter_recordings(tmp_path / "r.zarr", tmp_path / "f.zarr")
    pad(tmp_path / "f.zarr", tmp_path / "c.zarr")

    left_out = json.loads((tmp_path / "c.zarr/zarr.json").read_text())["attributes"]["left_out"]
    assert list(left_out) == ["p/03"] and "not an EDF" in left_out["p/03"]["recordings"][0]["findings"][0]["message"]
    eegprep.build(source, tmp_path / "b.zarr")
    assert list(json.loads((tmp_path / "b.zarr/zarr.json").read_text())["attributes"]["left_out"]) == ["p/03"]


def test_a_disk_that_cannot_be_read_costs_that_file_only(tmp_path, monkeypatch):
    """Unlike a disk that cannot be written: that stops the run."""
    source = write_people(tmp_path / "p", 2)
    read = edf.read

    def failing(path):
        if "sub-01" in path.name:
            raise OSError(errno.EIO, "injected", str(path))
        return read(path)

    monkeypatch.setattr(edf, "read", failing)
    summary = eegprep.build(source, tmp_path / "c.zarr")

    assert summary.exit_code == 3 and summary.recordings == 1 and "injected" in summary.findings[0].message


@pytest.mark.parametrize("command", [eegprep.build, fetch])
def test_when_nothing_can_be_used_nothing_is_left(tmp_path, command):
    """No empty store, no lock, no leftover."""
    (tmp_path / "a.edf").write_bytes(b"broken")

    with pytest.raises(SourceError, match=r"no recording could be used: .*not an EDF"):
        command(f"files:{tmp_path}/a.edf", tmp_path / "out/c.zarr")

    assert [path.name for path in tmp_path.rglob("*")] in (["a.edf", "out"], ["out", "a.edf"])


def test_a_store_with_finished_work_survives_an_error(tmp_path, people):
    """A mistake in the second command must not take away what the first made."""
    eegprep.build(people, tmp_path / "c.zarr")
    before = tree(tmp_path / "c.zarr")
    (tmp_path / "a.edf").write_bytes(b"broken")

    with pytest.raises(SourceError):
        eegprep.build(f"files:{tmp_path}/a.edf", tmp_path / "c.zarr")

    groups = {name: digest for name, digest in tree(tmp_path / "c.zarr").items() if name != "zarr.json"}
    assert groups == {name: digest for name, digest in before.items() if name != "zarr.json"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_or_failing_disk_stops_the_run_and_keeps_finished_work(tmp_path, people, monkeypatch, number):
    """Not a quarantine: the recordings are good. Afterwards the same command ends with the same bytes."""
    eegprep.build(people, tmp_path / "whole.zarr")
    append, calls = group_writer.WindowsWriter.append, []

    def failing(self, window_CT):
        calls.append(1)
        if len(calls) == 15:
            raise OSError(number, "injected", "windows")
        append(self, window_CT)

    monkeypatch.setattr(group_writer.WindowsWriter, "append", failing)
    with pytest.raises(OSError, match="injected"):
        eegprep.build(people, tmp_path / "c.zarr")
    monkeypatch.undo()

    finished = eegprep.build(people, tmp_path / "c.zarr")

    assert finished.skipped == 1
    assert tree(tmp_path / "c.zarr") == tree(tmp_path / "whole.zarr")


def test_two_builders_on_one_store_do_not_meet(tmp_path, people):
    """The second is told; the first is not disturbed."""
    (tmp_path / "c.zarr").mkdir()
    with store_lock(tmp_path / "c.zarr"), pytest.raises(StoreError, match="another process is writing"):
        eegprep.build(people, tmp_path / "c.zarr")

    assert eegprep.build(people, tmp_path / "c.zarr").subjects == 4


# ------------------------------------------------------------------------------------------------ workers, memory, plan


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_processes_give_the_same_bytes_as_one(tmp_path, people, method, monkeypatch):
    """Whoever works and however it was started, the store is the same."""
    monkeypatch.setattr(pool, "start_method", lambda: method)
    eegprep.build(people, tmp_path / "one.zarr")

    summary = eegprep.build(people, tmp_path / "two.zarr", workers=2)

    assert summary.built == 4 and tree(tmp_path / "one.zarr") == tree(tmp_path / "two.zarr")


@pytest.mark.slow
def test_joined_recordings_give_the_same_bytes_however_they_are_built(tmp_path):
    """Each piece between two seams is filtered on its own, here in one process and in two."""
    (tmp_path / "j").mkdir()
    for person in (1, 2):
        pieces = [
            mne.io.RawArray(eeg(8, n, 200.0, seed=10 * person + n) * 1e-6, mne.create_info(8, 200.0, "eeg")) for n in (1100, 1700)
        ]
        mne.concatenate_raws(pieces).save(tmp_path / f"j/sub-0{person}_raw.fif", verbose="error")

    trees = []
    for count in (1, 2):
        summary = eegprep.build(f"files:{tmp_path}/j/*.fif", tmp_path / f"{count}.zarr", workers=count)
        assert "joined" in {finding.code for finding in summary.findings}
        trees.append(tree(tmp_path / f"{count}.zarr"))
    assert trees[0] == trees[1]


@pytest.mark.slow
def test_an_error_in_a_worker_reaches_the_caller(tmp_path, people):
    """With its problem and fix, not as a traceback of a pool."""
    with pytest.raises(SourceError, match="no recording could be used"):
        eegprep.build(people, tmp_path / "c.zarr", workers=2, min_uv=1e6, max_uv=1e7)


def test_a_process_with_other_threads_is_not_forked():
    """A lock that another thread holds at that moment would stay shut in the copy for ever."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert pool.start_method() == "spawn"
    finally:
        stop.set()
        thread.join()


def test_a_plain_script_may_use_workers_after_zarr_has_started_its_threads(tmp_path, people):
    """`fetch` writes through zarr-python, whose threads stay: the next call spawned its workers, each of which ran the script again."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import eegprep\neegprep.fetch({str(people)!r}, 'r.zarr')\neegprep.build({str(people)!r}, 'c.zarr', workers=2)\n"
    )

    done = subprocess.run([sys.executable, script], check=False, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert len(eegprep.Corpus.open(tmp_path / "c.zarr").subjects) > 1


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_with_a_fix(tmp_path, people, monkeypatch):
    """The kernel does so when memory runs out; what was finished is kept."""
    monkeypatch.setattr(pool, "start_method", lambda: "fork")
    monkeypatch.setattr(jobs.BuildJob, "run", lambda self: os.kill(os.getpid(), signal.SIGKILL))

    with pytest.raises(StoreError, match="worker process was killed"):
        eegprep.build(people, tmp_path / "c.zarr", workers=2)


class _Job:
    def __init__(self, name, memory):
        self.name, self.memory, self.bytes = name, memory, memory


def test_a_memory_budget_that_one_subject_breaks_is_refused_before_work():
    """Both numbers, and what would do."""
    from eegprep.pool import run_jobs

    with pytest.raises(UsageError, match=r"b needs about 3 GB, --max-memory allows 2 GB"):
        run_jobs([_Job("a", 1e9), _Job("b", 3e9)], Budget.make(2, None, "2GB"), None)


def test_jobs_wait_for_memory_that_others_hold():
    """Two of 1 GB fit into 2 GB; the one of 1.5 GB waits."""
    from eegprep.pool import _next

    waiting = [_Job("a", 1.5e9), _Job("b", 1e9), _Job("c", 1e9)]
    budget = Budget.make(3, None, "2GB")

    assert _next(waiting, [0, 1, 2], [], budget) == 0
    assert _next(waiting, [0, 2], [1], budget) == 2
    assert _next(waiting, [0], [1, 2], budget) is None


@pytest.mark.parametrize(("text", "count"), [("4GB", 4_000_000_000), ("512 MiB", 2**29), ("1.5g", 1_500_000_000), (7, 7)])
def test_amounts_of_memory_are_understood(text, count):
    """As people write them."""
    assert parse_bytes(text) == count


def test_a_plan_counts_what_the_build_then_writes(tmp_path, people):
    """From headers only, and nothing is written."""
    (row,) = plan(people, tmp_path / "c.zarr")

    assert not (tmp_path / "c.zarr").exists()
    summary = eegprep.build(people, tmp_path / "c.zarr")
    assert (row.subjects, row.recordings, row.windows) == (summary.subjects, summary.recordings, summary.windows)
    assert row.bytes_out == summary.windows * 128 * 512 * 4
    assert plan(people, tmp_path / "c.zarr")[0].done == 4


def test_jobs_are_known_by_what_they_are_made_of(tmp_path, people):
    """Files, settings and algorithm; not by time or place."""
    eegprep.build(people, tmp_path / "c.zarr")
    dataset = only_dataset(tmp_path / "c.zarr")
    key = group(tmp_path / "c.zarr", f"{dataset}/01")["commit"]["key"]

    eegprep.build(people, tmp_path / "elsewhere/d.zarr")

    assert group(tmp_path / "elsewhere/d.zarr", f"{dataset}/01")["commit"]["key"] == key
    assert jobs_recipe.ALGORITHM >= 1


@pytest.mark.parametrize("name", ["a.lock", "a.toml"])
def test_a_lock_file_is_handed_over_with_the_recordings(tmp_path, name):
    """Whatever its name; no path of this machine stands in it, and it repeats the build in another folder."""
    (tmp_path / "here").mkdir()
    write_people(tmp_path / "here/people", 2)
    eegprep.build(f"files:{tmp_path}/here/people/*.edf", tmp_path / "a.zarr", lock=tmp_path / "here" / name)
    assert str(tmp_path) not in (tmp_path / "here" / name).read_text()

    shutil.move(tmp_path / "here", tmp_path / "there")
    eegprep.build(tmp_path / "there" / name, tmp_path / "b.zarr")

    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


def test_a_lock_of_the_shipped_sample_names_the_package(tmp_path):
    """`files:sample/...` is found on any machine that has the package."""
    eegprep.build("sample.toml", tmp_path / "a.zarr", lock=tmp_path / "a.lock")

    text = (tmp_path / "a.lock").read_text()
    assert 'spec = "files:sample/' in text
    assert str(tmp_path) not in text
    assert eegprep.build(tmp_path / "a.lock", tmp_path / "b.zarr").windows == 148


def test_a_lock_file_with_another_ending_is_refused_before_the_work(tmp_path):
    source = write_people(tmp_path / "people", 1)

    with pytest.raises(UsageError, match="a lock file is a manifest"):
        eegprep.build(source, tmp_path / "a.zarr", lock=tmp_path / "a.json")

    assert not (tmp_path / "a.zarr").exists()


def test_the_reason_of_a_recording_comes_before_that_of_a_file_without_one(tmp_path):
    """A folder of recordings and their event files: the cure is for the recordings."""
    raw = mne.io.RawArray(
        np.random.default_rng(0).standard_normal((8, 4000)) * 5e-3, mne.create_info(8, 200.0, "eeg"), verbose="error"
    )
    (tmp_path / "study").mkdir()
    raw.save(tmp_path / "study/p1_raw.fif", verbose="error")
    mne.write_events(tmp_path / "study/p1-eve.fif", np.array([[100, 0, 1]]), verbose="error")

    with pytest.raises(SourceError, match="would fit") as caught:
        eegprep.build(tmp_path / "study", tmp_path / "c.zarr")

    assert "--scale" in caught.value.fix
