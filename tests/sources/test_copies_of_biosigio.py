"""Copies that `biosigio` itself writes, as NEMAR runs it, against the EDF files that they are made from."""

from __future__ import annotations

from pathlib import Path

import archive_server
import biosigio
import mne
import numpy as np
import pytest
import zarr
from archive_server import CHANNELS
from biosigio import bids

import eegprep
from eegprep.readers import serving_copy
from eegprep.readers.content import Reading

SETTINGS = {"low": 5.0, "high": 95.0, "channels": CHANNELS, "window": 512}


def copy_of(edf: Path, store: Path) -> Path:
    """A copy as NEMAR makes it: the suffix of the file says that it is EEG, events.tsv gives the events."""
    recording = biosigio.Recording.from_file(str(edf), mixed_rate="resample")
    bids.apply_events_tsv(recording, str(edf).replace("_eeg.edf", "_events.tsv"))
    for channel in recording.channels.values():
        channel["modality"] = "EEG"
    recording.to_zarr(str(store), dtype="int16", modality_rates={"EEG": 250})
    return store


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A data set at NEMAR, and the copies of its recordings; the steps of the signal, uV, by person and channel."""
    source = archive_server.dataset(tmp_path / "src")
    with archive_server.serving() as running:
        monkeypatch.setenv("EEGPREP_MIRRORS", running.mirrors)
        running.nemar_manifest("nm000001", source)
        paths = sorted(path.relative_to(source).as_posix() for path in source.glob("sub-*/eeg/*.edf"))
        stores = [copy_of(source / path, tmp_path / "work" / path.replace(".edf", ".zarr")) for path in paths]
        running.put_tree(tmp_path / "work", "/zarr/nm000001/zarr")
        running.nemar_index("nm000001", paths)
        yield source, [np.array(zarr.open_group(store, mode="r")["eeg_250hz/0"].attrs["scale"]) for store in stores]


def test_a_copy_is_its_recording_to_half_a_step_of_the_copy(tmp_path):
    edf = archive_server.dataset(tmp_path / "src", people=1) / "sub-01" / "eeg" / "sub-01_task-rest_eeg.edf"
    store = copy_of(edf, tmp_path / "sub-01_task-rest_eeg.zarr")
    step_C = np.array(zarr.open_group(store, mode="r")["eeg_250hz/0"].attrs["scale"])
    raw = mne.io.read_raw_edf(edf, preload=True, verbose=False)

    content = serving_copy.read(store, Reading())
    signal_CT, _ = content.read(range(CHANNELS), np.ones(CHANNELS))
    assert [channel.name for channel in content.channels] == raw.ch_names
    error_C = np.abs(signal_CT - raw.get_data(units="uV")).max(axis=1)
    float32 = np.spacing(np.abs(signal_CT).max())
    assert (error_C <= step_C / 2 + float32).all() and (error_C > step_C / 4).all()


def test_a_build_from_a_copy_differs_by_the_filtered_rounding_of_the_copy_and_by_nothing_else(served, tmp_path):
    """Rounding is noise of step / sqrt(12); the filter lets a part of it through, and adds up at most sum |h| of its half steps."""
    source, steps = served
    eegprep.build("nemar:nm000001", tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    eegprep.build(f"bids:{source}", tmp_path / "b.zarr", dataset="nm000001", **SETTINGS)

    impulse_T = np.zeros((1, 10_000))
    impulse_T[0, 5000] = 1
    taps = eegprep.band_pass(impulse_T, 250.0, 5.0, 95.0)
    one, other = (eegprep.Corpus.open(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    assert one.column("label").tolist() == other.column("label").tolist() and len(one) > 10
    for number, step_C in enumerate(steps, 1):
        key = f"nm000001/{number:02d}"
        ours, theirs = (zarr.open_group(tmp_path / name, mode="r")[f"{key}/windows"][:] for name in ("a.zarr", "b.zarr"))
        error = np.abs(ours.astype(float) - theirs)
        assert (error.max(axis=(0, 2)) <= np.abs(taps).sum() * step_C / 2 + 1e-5).all()
        rms_C = np.sqrt((error**2).mean(axis=(0, 2)))
        share = rms_C / (step_C / np.sqrt(12) * np.sqrt((taps**2).sum()))
        assert (share > 0.9).all() and (share < 1.1).all(), share  # 1: rounding, through the filter
        assert one.attributes_of(key)["recordings"][0]["channels"] == other.attributes_of(key)["recordings"][0]["channels"]


@pytest.mark.parametrize(("label", "name"), [("EEG Fz", "Fz"), ("Fz", "Fz")])
def test_names_and_kinds_are_those_of_the_recording(tmp_path, label, name):
    """`biosigio` keeps labels of EDF whole, and writes OTHER where one does not hold EEG."""
    source = archive_server.dataset(tmp_path / "src", people=1, labels=[label, "Cz", "EOG left", "Pulse"])
    edf = source / "sub-01" / "eeg" / "sub-01_task-rest_eeg.edf"
    copy_of(edf, tmp_path / "sub-01_task-rest_eeg.zarr")

    for where in (edf, tmp_path / "sub-01_task-rest_eeg.zarr"):
        eegprep.fetch(str(where), tmp_path / f"{where.suffix[1:]}.store")
        root = zarr.open_group(tmp_path / f"{where.suffix[1:]}.store", mode="r")
        (array,) = (item for _, dataset in root.groups() for _, person in dataset.groups() for _, item in person.arrays())
        assert array.attrs["channels"] == [name, "Cz"], where
