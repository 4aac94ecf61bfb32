"""Every format once through the whole chain: a folder of files becomes one corpus, and each recording has its own signal."""

from __future__ import annotations

import gzip

import mne
import numpy as np
import other_formats
from eeg_files import NAMES, eeg, write_edf
from scipy.io import savemat

import eegprep
from eegprep.signals.filters import band_pass

RATE, SAMPLES = 256, 2560


def test_a_folder_of_every_format_becomes_one_corpus(tmp_path):
    """GDF, CNT, EGI, Persyst, Nihon Kohden, CSV, .mat, .npy, gzip, EDF and epochs: the windows are those of the filtered signal."""
    folder, signals = tmp_path / "study", {}
    folder.mkdir()

    def signal(name, n_channels=6):
        signals[name] = eeg(n_channels, SAMPLES, RATE, len(signals))
        return signals[name]

    other_formats.gdf(folder / "gdf.gdf", signal("gdf"), RATE, NAMES[:6])
    other_formats.cnt(folder / "cnt.cnt", signal("cnt"), RATE, NAMES[:6])
    other_formats.egi(folder / "egi.raw", signal("egi", 20), RATE)
    other_formats.persyst(folder / "persyst.lay", signal("persyst"), RATE, NAMES[:6])
    other_formats.nihon(folder / "nihon.eeg", signal("nihon"), RATE)
    columns = {"time": np.arange(SAMPLES) / RATE, **dict(zip(NAMES, signal("csv"), strict=False))}
    np.savetxt(folder / "csv.csv", np.array(list(columns.values())).T, "%.6f", ",", header=",".join(columns), comments="")
    savemat(folder / "mat.mat", {"data": signal("mat"), "fs": float(RATE), "channels": np.array(NAMES[:6], object)})
    np.save(folder / "npy.npy", signal("npy"))
    packed = write_edf(tmp_path / "x.edf", signal("gz"), RATE)
    (folder / "gz.edf.gz").write_bytes(gzip.compress(packed.read_bytes()))
    write_edf(folder / "edf.edf", signal("edf"), RATE)
    raw = mne.io.RawArray(signal("epochs") * 1e-6, mne.create_info(NAMES[:6], RATE, "eeg"), verbose="error")
    mne.make_fixed_length_epochs(raw, 2.5, preload=True, verbose="error").save(folder / "epochs-epo.fif", verbose="error")

    summary = eegprep.build(f"files:{folder}/*", tmp_path / "c.zarr", unit="uV", sfreq=float(RATE))

    assert summary.quarantined == () and summary.recordings == len(signals)
    corpus = eegprep.Corpus.open(tmp_path / "c.zarr")
    starts, subjects = corpus.column("start"), [key.split("/")[1] for key in corpus.keys]
    for group, subject in enumerate(subjects):
        name = subject.removesuffix("-epo")
        segments = tuple((k, k + 640) for k in range(0, SAMPLES, 640)) if name == "epochs" else None
        right_CT = band_pass(signals[name], RATE, 5.0, 95.0, segments=segments)
        rows = np.flatnonzero(corpus.group_of(np.arange(len(corpus))) == group)
        assert len(rows) == (4 if name == "epochs" else 5), name
        for window_CT, start in zip(corpus.read(rows), starts[rows], strict=True):
            np.testing.assert_allclose(window_CT[: len(right_CT)], right_CT[:, start : start + 512], atol=0.1, err_msg=name)
