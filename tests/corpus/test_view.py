"""A view of recordings against the corpus that `build` makes of them: the same windows, without their bytes on disk."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from eeg_files import eeg, write_edf, write_people
from hypothesis import given, settings
from hypothesis import strategies as st

import eegprep
from eegprep.corpus import references
from eegprep.errors import StoreError
from eegprep.inspection.verify import verify
from eegprep.readers.integers import find_integers
from eegprep.signals.filters import PieceFilter, band_pass
from eegprep.sources.reading import read_file


def largest_difference(view: eegprep.Corpus, corpus: eegprep.Corpus) -> float:
    """Of all windows, in standard deviations of the window."""
    left, right = view[:], corpus[:]
    return float((np.abs(left - right).max(axis=(1, 2)) / right.std(axis=(1, 2))).max())


def both(source: str, folder: Path, **settings) -> tuple[eegprep.Corpus, eegprep.Corpus]:
    eegprep.index(source, folder / "view.zarr", **settings)
    eegprep.build(source, folder / "corpus.zarr", **settings)
    view, corpus = (eegprep.Corpus.open(folder / f"{name}.zarr") for name in ("view", "corpus"))
    for column in ("recording", "start", "label"):
        np.testing.assert_array_equal(view.column(column), corpus.column(column))
    assert view.recordings.equals(corpus.recordings) and view.subjects.equals(corpus.subjects)
    return view, corpus


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"), 2, runs=2)


@pytest.mark.parametrize(
    ("chosen", "piecewise"),
    [
        ({}, True),
        ({"window": 300, "stride": 77, "low": 1.0, "high": 40.0, "channels": 6, "mode": "zeros"}, True),
        ({"windows": "trials", "max_per_subject": 3, "scale": 2.0}, True),
        ({"resample": 128.0}, False),
        ({"notch": 50.0}, False),
        ({"window": 4000, "short": "stretch"}, False),
    ],
)
def test_windows_agree_with_those_of_build_within_1e_5_of_their_deviation(tmp_path, people, chosen, piecewise):
    """Whether a window is made alone or its recording is filtered whole, and first and last windows like all others."""
    view, corpus = both(people, tmp_path, **chosen)

    assert largest_difference(view, corpus) < 1e-5
    made_alone = [source is not None for source in view._shards._piecewise.values()]
    assert made_alone and all(made_alone) == piecewise
    assert not list((tmp_path / "view.zarr").rglob("windows"))


def test_24_bit_files_agree_too(tmp_path):
    """Levels of an amplifier that is DC-coupled must not eat the digits of float32."""
    signal_CT = eeg(3, 9 * 512, 512.0) + np.array([[0.0], [-800.0], [2800.0]])
    write_edf(tmp_path / "sub-01.bdf", signal_CT, 512)

    view, corpus = both(f"files:{tmp_path}/*.bdf", tmp_path)

    assert largest_difference(view, corpus) < 1e-5
    assert all(source is not None for source in view._shards._piecewise.values())


@given(
    seconds=st.integers(3, 9),
    start=st.integers(0, 600),
    length=st.integers(2, 500),
    low=st.sampled_from([1.0, 5.0]),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_a_piece_is_filtered_as_the_whole_is_edges_included(seconds, start, length, low, seed):
    """Any place and length: the margin of the filter decides, reflected at the ends of the stretch."""
    whole_CT = eeg(2, seconds * 200, 200.0, seed).astype(np.float32)
    start = min(start, whole_CT.shape[1] - length)
    piece = PieceFilter(200.0, low, 40.0, length)
    if whole_CT.shape[1] <= piece.margin:
        return
    reach = piece.reach(start, (0, whole_CT.shape[1]))

    def fill(out_CT):
        out_CT[...] = whole_CT[:, slice(*reach)]

    expected = band_pass(whole_CT, 200.0, low, 40.0)[:, start : start + length]
    np.testing.assert_allclose(piece.apply(fill, 2, start, reach), expected, atol=1e-5 * whole_CT.std())


def test_the_map_to_integers_is_compared_with_the_recording(tmp_path):
    """A channel that is not a multiple of the file's integers must go the way through the reader."""
    path = tmp_path / "a.edf"
    write_edf(path, eeg(3, 2000, 200.0), 200)
    recording = read_file(path)

    found, checksums = find_integers(recording, path)
    recording.signal_CT[1] *= np.linspace(1, 1.1, 2000, dtype=np.float32)

    assert len(found.places) == 3 and len(checksums) == found.records
    assert find_integers(recording, path) is None


def test_damage_stops_only_the_windows_that_it_touches(tmp_path):
    """One altered byte in the middle of a recording, with everything else as it was."""
    path = tmp_path / "sub-01.edf"
    write_edf(path, eeg(3, 40 * 200, 200.0), 200)
    view, corpus = both(f"files:{tmp_path}/*.edf", tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    refused = 0
    for index in range(len(view)):
        try:
            np.testing.assert_allclose(view[index], corpus[index], atol=1e-5 * corpus[index].std())
        except StoreError as error:
            assert "sub-01.edf: data record" in error.problem and "index the recordings again" in error.fix
            refused += 1
    assert 1 <= refused <= 2 < len(view)
    assert [problem.code for problem in verify(tmp_path / "view.zarr").problems] == ["altered"]


def test_an_altered_recording_that_is_read_whole_is_refused(tmp_path):
    """Another rate: the whole file is read again, and it has the same length and channels."""
    path = tmp_path / "sub-01.edf"
    write_edf(path, eeg(3, 40 * 200, 200.0), 200)
    eegprep.index(f"files:{tmp_path}/*.edf", tmp_path / "view.zarr", resample=128.0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(StoreError, match="has changed: SHA-256"):
        eegprep.Corpus.open(tmp_path / "view.zarr")[0]


def test_a_pipe_in_the_place_of_a_recording_is_not_waited_for(tmp_path, people):
    write_people(tmp_path, 1)
    eegprep.index(f"files:{tmp_path}/*.edf", tmp_path / "view.zarr")
    path = next(tmp_path.glob("*.edf"))
    path.unlink()
    os.mkfifo(path)

    with pytest.raises(StoreError, match="cannot be made"):
        eegprep.Corpus.open(tmp_path / "view.zarr")[0]


def test_a_recording_that_was_cut_or_taken_away_is_named(tmp_path, people):
    write_people(tmp_path, 1)
    eegprep.index(f"files:{tmp_path}/*.edf", tmp_path / "view.zarr")
    view = eegprep.Corpus.open(tmp_path / "view.zarr")
    path = next(tmp_path.glob("*.edf"))
    content = path.read_bytes()

    path.write_bytes(content[:-300])
    with pytest.raises(StoreError, match="when it was indexed it had"):
        view[0]
    path.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        view[0]


def test_a_view_travels_to_worker_processes_and_selects_like_a_corpus(tmp_path, people):
    view, corpus = both(people, tmp_path)
    again = pickle.loads(pickle.dumps(view))

    np.testing.assert_array_equal(again[[3, 0]], view[[3, 0]])
    assert view.select(subjects="02").shape == corpus.select(subjects="02").shape
    assert view.identity != corpus.identity
    assert eegprep.index(people, tmp_path / "view.zarr").built == 0


def test_recordings_that_are_read_whole_are_kept_within_a_limit(tmp_path, people, monkeypatch):
    """Memory must not grow with the number of recordings."""
    eegprep.index(people, tmp_path / "view.zarr", resample=128.0)
    monkeypatch.setattr(references, "KEPT_BYTES", 1)
    view = eegprep.Corpus.open(tmp_path / "view.zarr")

    view[:]

    assert len(view._shards._piecewise) == 4 and len(view._shards._whole) == 1


def test_plain_zarr_reads_the_integers_through_references(tmp_path, people):
    """Without this software: fsspec's reference file system and zarr."""
    eegprep.index(people, tmp_path / "view.zarr")
    (folder,) = (path for path in (tmp_path / "view.zarr").iterdir() if path.is_dir())
    refs = json.loads((folder / "01/references.json").read_text())
    store = zarr.storage.FsspecStore(fsspec.filesystem("reference", fo=refs, asynchronous=True), read_only=True)
    array = zarr.open_group(store, mode="r")["0.run-1"]

    values_CT = np.asarray(array[:]).swapaxes(0, 1).reshape(array.shape[1], -1) * np.array(array.attrs["uV_per_step"])[:, None]

    path = next(Path(people.removeprefix("files:").removesuffix("/*.edf")).glob("sub-01_run-1.edf"))
    read_CT = read_file(path).signal_CT
    np.testing.assert_allclose(values_CT - values_CT[:, :1], read_CT - read_CT[:, :1], atol=1e-3)


@pytest.mark.parametrize(
    "command", [lambda view, out: eegprep.merge([view], out), lambda view, out: eegprep.build("files:x", view)]
)
def test_what_writes_corpora_refuses_a_view(tmp_path, people, command):
    eegprep.index(people, tmp_path / "view.zarr")

    with pytest.raises(eegprep.ToolkitError):
        command(tmp_path / "view.zarr", tmp_path / "out.zarr")


def test_a_corpus_is_not_made_into_a_view(tmp_path, people):
    eegprep.build(people, tmp_path / "c.zarr")

    with pytest.raises(StoreError, match="not a view of recordings"):
        eegprep.index(people, tmp_path / "c.zarr")
