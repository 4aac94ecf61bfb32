"""A view of BrainVision recordings: windows are read by stretches of the data file, and equal those of `build`."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pybv
import pytest
import zarr
from eeg_files import eeg

import eegprep
from eegprep.errors import StoreError
from eegprep.inspection.verify import verify
from eegprep.readers import frames
from eegprep.sources.reading import read_file

RATE, CHANNELS = 250.0, 6


def write_brainvision(
    folder: Path, name: str = "sub-01", *, kind: str = "binary_int16", samples: int = 10_037, level: float = 0.0
):
    """A recording whose length is no whole number of blocks, with two seams; `level`, uV: of a DC-coupled amplifier."""
    signal_CT = eeg(CHANNELS, samples, RATE) + level * np.arange(CHANNELS)[:, None]
    events = [{"onset": onset, "duration": 1, "type": "Stimulus", "description": 1} for onset in (700, 3200, 9000)]
    names = ["Fp1", "Fp2", "C3", "C4", "O1", "O2"]
    pybv.write_brainvision(
        data=signal_CT * 1e-6, sfreq=RATE, ch_names=names, fname_base=name, folder_out=folder, events=events, fmt=kind, resolution=0.1
    )  # fmt: skip
    markers = folder / f"{name}.vmrk"
    markers.write_text(markers.read_text("utf-8").rstrip("\n") + "\nMk9=New Segment,,4001,1,0,20240506103000000000\n", "utf-8")
    return folder / f"{name}.vhdr"


def both(folder: Path, **settings) -> tuple[eegprep.Corpus, eegprep.Corpus]:
    source = f"files:{folder}/*.vhdr"
    eegprep.index(source, folder / "view.zarr", **settings)
    eegprep.build(source, folder / "corpus.zarr", **settings)
    view, corpus = (eegprep.Corpus.open(folder / f"{name}.zarr") for name in ("view", "corpus"))
    assert view.recordings.equals(corpus.recordings)
    np.testing.assert_array_equal(view.column("start"), corpus.column("start"))
    return view, corpus


def differences_N(view: eegprep.Corpus, corpus: eegprep.Corpus) -> np.ndarray:
    """Of every window, the largest one in standard deviations of the window."""
    left, right = view[:], corpus[:]
    return np.abs(left - right).max(axis=(1, 2)) / right.std(axis=(1, 2))


@pytest.mark.parametrize(("kind", "level"), [("binary_int16", 0.0), ("binary_float32", 0.0), ("binary_float32", 900.0)])
@pytest.mark.parametrize(
    "chosen", [{}, {"window": 300, "stride": 83, "low": 1.0, "high": 40.0, "select_channels": ["C4", "Fp1", "O2"]}]
)
def test_windows_agree_with_those_of_build_edges_and_seams_included(tmp_path, kind, level, chosen):
    write_brainvision(tmp_path, kind=kind, level=level)

    view, corpus = both(tmp_path, **chosen)

    assert differences_N(view, corpus).max() < 1e-5
    assert len(view) > 15 and all(source is not None for source in view._shards._piecewise.values())


def test_a_window_takes_a_stretch_of_the_file_and_not_the_whole(tmp_path, monkeypatch):
    write_brainvision(tmp_path, samples=60_000)
    view, _ = both(tmp_path)
    taken = []
    read = frames.read_stretch
    monkeypatch.setattr(
        frames, "read_stretch", lambda path, size, first, last: taken.append(last - first) or read(path, size, first, last)
    )  # fmt: skip

    view.read([0, 40])

    assert len(taken) == 2 and max(taken) < (tmp_path / "sub-01.eeg").stat().st_size / 3


@pytest.mark.parametrize(
    ("old", "new"),
    [("DataOrientation=MULTIPLEXED", "DataOrientation=VECTORIZED"), ("Ch3=C3,,0.1", "Ch3=C3,,0.2")],
    ids=["another layout", "another resolution"],
)
def test_another_layout_is_read_whole_and_another_resolution_by_stretches(tmp_path, old, new):
    header = write_brainvision(tmp_path)
    assert old in header.read_text("utf-8")
    header.write_text(header.read_text("utf-8").replace(old, new), "utf-8")
    if "VECTORIZED" in new:
        data = header.with_suffix(".eeg")
        data.write_bytes(np.fromfile(data, "<i2").reshape(-1, CHANNELS).T.tobytes())

    view, corpus = both(tmp_path)

    assert differences_N(view, corpus).max() < 1e-5
    assert [source is not None for source in view._shards._piecewise.values()] == ["VECTORIZED" not in new]


def test_damage_stops_only_the_windows_that_it_touches(tmp_path):
    data = write_brainvision(tmp_path, samples=60_000).with_suffix(".eeg")
    view, corpus = both(tmp_path)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)

    refused = 0
    for index in range(len(view)):
        try:
            np.testing.assert_allclose(view[index], corpus[index], atol=1e-5 * corpus[index].std())
        except StoreError as error:
            assert "sub-01.eeg: block" in error.problem and "index the recordings again" in error.fix
            refused += 1
    assert 1 <= refused < len(view) / 4
    assert [problem.code for problem in verify(tmp_path / "view.zarr").problems] == ["altered"]

    data.write_bytes(content[:-12])
    with pytest.raises(StoreError, match="when it was indexed it had"):
        view.read([0])


@pytest.mark.parametrize("kind", ["binary_int16", "binary_float32"])
def test_plain_zarr_reads_the_data_file_through_references(tmp_path, kind):
    header = write_brainvision(tmp_path, kind=kind)
    eegprep.index(f"files:{header}", tmp_path / "view.zarr")
    (path,) = (tmp_path / "view.zarr").rglob("references.json")
    store = zarr.storage.FsspecStore(
        fsspec.filesystem("reference", fo=json.loads(path.read_text()), asynchronous=True), read_only=True
    )
    (array,) = (array for _, array in zarr.open_group(store, mode="r").arrays())

    values_CT = np.asarray(array[:]).T * np.array(array.attrs["uV_per_step"])[:, None]

    read_CT = read_file(header).signal_CT
    np.testing.assert_allclose(values_CT - values_CT[:, :1], read_CT - read_CT[:, :1], atol=1e-3)
