"""The store between the steps: what goes in comes out, and what is lost is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr
from eeg_files import eeg, recording
from hypothesis import given, settings
from hypothesis import strategies as st

from eegprep.errors import StoreError
from eegprep.recording import Event, Finding, SourceFile
from eegprep.store.recordings import RecordingsWriter, array_names, create_recordings, group_attributes, read_recording, subjects
from eegprep.store.records import Provenance


def write(root, *recordings):
    create_recordings(root, "fetched", {})
    with RecordingsWriter(root, "made", "1") as writer:
        for made in recordings:
            writer.add(made)
        writer.commit("key", Provenance("made/1", ""))


@given(n_channels=st.integers(1, 300), n_samples=st.integers(1, 5000))
@settings(max_examples=20, deadline=None)
def test_any_recording_comes_back_bit_for_bit(tmp_path_factory, n_channels, n_samples):
    """The three steps can only equal `build` if nothing is lost in between."""
    root = tmp_path_factory.mktemp("r") / "r.zarr"
    made = replace(
        recording(eeg(n_channels, n_samples, 200.0)),
        events=(Event(0.0, 1.5, "left"),),
        sources=(SourceFile("a.edf", 3, "abc"),),
        findings=(Finding("flat", "made/1/0.0", "Cz", 0.0, 1.0, "dropped channel", "x"),),
        band=(0.1, 80.0),
        offsets=tuple(float(i) for i in range(n_channels)),
        header={"meas_date": "2020"},
    )

    write(root, made)
    back = read_recording(root, "made", "1", "0.0")

    np.testing.assert_array_equal(back.signal_CT, made.signal_CT)
    assert replace(back, signal_CT=None, positions_C3=None) == replace(made, signal_CT=None, positions_C3=None)


def test_plain_zarr_reads_it(tmp_path):
    """No code of ours is needed."""
    made = recording(eeg(3, 1000, 200.0))

    write(tmp_path / "r.zarr", made)
    array = zarr.open_group(tmp_path / "r.zarr", mode="r")["made/1/0.0"]

    np.testing.assert_array_equal(array[:], made.signal_CT)
    assert array.metadata.dimension_names == ("channel", "time") and array.attrs["sfreq"] == 200.0


def test_the_same_recordings_give_the_same_bytes(tmp_path):
    """No time, process number or host name may get into a store."""
    made = recording(eeg(3, 5000, 200.0))
    for name in ("a.zarr", "b.zarr"):
        write(tmp_path / name, made)

    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("a.zarr", "b.zarr")
    )
    assert first == second


def test_a_missing_chunk_is_an_error(tmp_path):
    """Plain zarr would show its fill value."""
    root = tmp_path / "r.zarr"
    write(root, recording(eeg(3, 900_000, 200.0)))
    chunks = sorted((root / "made/1/0.0/c/0").iterdir())
    assert len(chunks) > 1
    chunks[0].unlink()

    with pytest.raises(StoreError, match=f"{len(chunks) - 1} of {len(chunks)} chunks"):
        read_recording(root, "made", "1", "0.0")


def test_nothing_is_visible_before_the_commit(tmp_path):
    """A killed fetch leaves no half subject."""
    root = tmp_path / "r.zarr"
    create_recordings(root, "fetched", {})
    with RecordingsWriter(root, "made", "1") as writer:
        writer.add(recording(eeg(3, 1000, 200.0)))
        assert subjects(root) == []

    assert subjects(root) == [] and group_attributes(root, "made", "1") == {}


def test_names_are_listed(tmp_path):
    """`session.run`."""
    write(tmp_path / "r.zarr", replace(recording(eeg(1, 99, 200.0)), run="3"), recording(eeg(1, 99, 200.0)))

    assert sorted(array_names(tmp_path / "r.zarr", "made", "1")) == ["0.0", "0.3"]


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    """Nobody's files are overwritten."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/a.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    write(tmp_path / "r.zarr", recording(eeg(1, 99, 200.0)))

    with pytest.raises(StoreError, match="not a recordings store"):
        create_recordings(tmp_path / "letters", "fetched", {})
    with pytest.raises(StoreError, match="is a file"):
        create_recordings(tmp_path / "file", "fetched", {})
    with pytest.raises(StoreError, match="holds fetched recordings, not filtered"):
        create_recordings(tmp_path / "r.zarr", "filtered", {})
