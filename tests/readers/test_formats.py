"""Formats beyond EDF: each once through the reader on a small file, and what is said where a file cannot be read."""

from __future__ import annotations

import gzip

import mne
import numpy as np
import other_formats
import pytest
from eeg_files import NAMES, eeg, write_edf

from eegprep.errors import SourceError
from eegprep.readers import raws
from eegprep.readers.content import Reading, to_recording
from eegprep.readers.formats import open_content
from eegprep.recording import Origin

RATE = 200
MARKS = [(400, 7), (1000, 8)]


def read(path, **options):
    reading = Reading(**options)
    return to_recording(open_content(path, reading), Origin("made", "1"), reading)


def made(n_channels=6, seed=0):
    return eeg(n_channels, 3000, RATE, seed)


def shown(recording):
    return [(event.onset, event.label.split()[-1].removeprefix("ev0")) for event in recording.events]


@pytest.mark.parametrize("kind", ["gdf", "cnt", "cnt32", "egi", "persyst", "nihon"])
def test_every_format_gives_the_same_signal_and_events(tmp_path, kind):
    """uV, names, rate, and the two marks at 2 and 5 s."""
    x_CT, names = made(20 if kind == "egi" else 6), NAMES[:6]
    if kind == "gdf":
        path = other_formats.gdf(tmp_path / "a.gdf", x_CT, RATE, names, MARKS)
    elif kind.startswith("cnt"):
        path = other_formats.cnt(tmp_path / "a.cnt", x_CT, RATE, names, MARKS, bits=32 if kind == "cnt32" else 16)
    elif kind == "egi":
        path, names = other_formats.egi(tmp_path / "a.raw", x_CT, RATE, MARKS), [f"E{number}" for number in range(1, 21)]
    elif kind == "persyst":
        path, names = other_formats.persyst(tmp_path / "a.lay", x_CT, RATE, names, MARKS), [name.upper() for name in names]
    else:
        path, names = other_formats.nihon(tmp_path / "a.eeg", x_CT, RATE, marks=MARKS), other_formats.nihon_names(6)

    recording = read(path)

    assert (recording.sfreq, list(recording.channels)) == (RATE, names)
    np.testing.assert_allclose(recording.signal_CT, x_CT, atol=0.06)
    assert shown(recording) == [(2.0, "7"), (5.0, "8")]
    # a file that says little of the person is read all the same
    assert [f.code for f in recording.findings if f.code not in ("unit_assumed",)] == (["header"] if kind == "persyst" else [])


def test_units_of_gdf_are_those_of_its_header(tmp_path):
    """mV and nV are read as such; a unit that is no voltage is left out."""
    x_CT = made(4)
    scaled_CT = x_CT * np.array([[1.0], [1e-1], [10.0], [1.0]])
    path = other_formats.gdf(tmp_path / "a.gdf", scaled_CT, RATE, NAMES[:4], units=["uV", "mV", "nV", "%"])

    recording = read(path)

    assert recording.channels == tuple(NAMES[:3])
    whole_CT = recording.signal_CT + np.array(recording.offsets)[:, None]
    np.testing.assert_allclose(whole_CT * np.array([[1.0], [1e-3], [1e3]]), scaled_CT[:3], atol=0.06)


def test_a_new_run_inside_a_gdf_file_is_a_seam(tmp_path):
    """Event 0x7FFE."""
    path = other_formats.gdf(tmp_path / "a.gdf", made(), RATE, NAMES[:6], [(0, 0x7FFE), (500, 7), (1200, 0x7FFE)])

    assert read(path).segments == ((0, 1200), (1200, 3000))
    assert shown(read(path)) == [(2.5, "7")]


def test_blocks_of_a_nihon_kohden_file_are_stretches(tmp_path, monkeypatch):
    """Read in pieces that begin in one block and end in the next; and FZ, CZ, PZ are EEG, which MNE-Python types otherwise."""
    x_CT = made(19)
    monkeypatch.setattr(raws, "_CHUNK_VALUES", 19 * 700)

    recording = read(other_formats.nihon(tmp_path / "a.eeg", x_CT, RATE, blocks=2))

    assert recording.segments == ((0, 1500), (1500, 3000)) and list(recording.channels) == other_formats.nihon_names(19)
    np.testing.assert_allclose(recording.signal_CT, x_CT, atol=0.06)


def test_a_log_in_latin_1_loses_no_event(tmp_path):
    """A text that is no UTF-8 was left out with a warning that nobody sees."""
    path = other_formats.nihon(tmp_path / "a.eeg", made(), RATE, marks=MARKS)
    log = path.with_suffix(".LOG")
    log.write_bytes(log.read_bytes().replace(b"mark 7", b"\xd6ffnen"))

    assert [event.label for event in read(path).events] == ["\u00d6ffnen", "mark 8"]


@pytest.mark.parametrize("bits", [16, 32])
def test_the_sample_size_of_neuroscan_is_found_by_what_gives_an_eeg(tmp_path, bits):
    """A header without the number of samples does not tell 16 from 32 bits."""
    path = other_formats.cnt(tmp_path / "a.cnt", made(), RATE, NAMES[:6], bits=bits, says_samples=False)

    recording = read(path)

    np.testing.assert_allclose(recording.signal_CT, made(), atol=0.06)
    assert [f.code for f in recording.findings] == ["sample_size"]


def test_gzip_is_unpacked_on_the_way(tmp_path):
    """The same recording as from the bare file."""
    path = write_edf(tmp_path / "a.edf", made(), RATE, events=[(2.0, 1.0, "left")])
    packed = tmp_path / "a.edf.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))

    np.testing.assert_array_equal(read(packed).signal_CT, read(path).signal_CT)
    assert read(packed).events == read(path).events


def test_epochs_become_stretches_with_their_labels(tmp_path):
    """MNE-Python's epochs: time zero of each is its event."""
    info = mne.create_info(NAMES[:4], RATE, "eeg")
    data_ECT = made(4)[:, :2400].reshape(4, 8, 300).transpose(1, 0, 2) * 1e-6
    events = np.array([[300 * k + 100, 0, 1 + k % 2] for k in range(8)])
    epochs = mne.EpochsArray(data_ECT, info, events, tmin=-0.5, event_id={"face": 1, "house": 2}, verbose="error")
    epochs.save(tmp_path / "a-epo.fif", verbose="error")

    recording = read(tmp_path / "a-epo.fif")

    assert recording.segments == tuple((300 * k, 300 * k + 300) for k in range(8))
    np.testing.assert_allclose(recording.signal_CT, made(4)[:, :2400], atol=1e-3)
    assert [(e.onset, e.duration, e.label) for e in recording.events[:2]] == [(0.5, 1.0, "face"), (2.0, 1.0, "house")]
    assert "8 epochs of 300 samples" in recording.findings[0].message


def test_averages_and_unknown_files_are_named_for_what_they_are(tmp_path):
    """No advice for programmers, no path of this machine."""
    info = mne.create_info(NAMES[:4], RATE, "eeg")
    mne.EvokedArray(made(4) * 1e-6, info, nave=3).save(tmp_path / "a-ave.fif", verbose="error")
    (tmp_path / "a.xyz").write_bytes(b"nothing")
    (tmp_path / "a.vhdr").write_text("nothing")

    for name, says in (
        ("a-ave.fif", "no recording"),
        ("a.xyz", "not a format"),
        ("a.vhdr", "cannot be read"),
        ("b.edf", "no such file"),
    ):
        with pytest.raises(SourceError, match=says) as caught:
            read(tmp_path / name)
        assert str(tmp_path) not in str(caught.value) and "mne." not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "begin", "package"), [("a.cnt", b"RIFF", "antio"), ("a.cdt", b"\0", "curryreader"), ("a.xdf", b"XDF:", "pyxdf")]
)
def test_a_format_behind_a_package_names_it(tmp_path, name, begin, package):
    """The fix is the command that installs it."""
    try:
        __import__(package)
    except ImportError:
        (tmp_path / name).write_bytes(begin + bytes(64))
        with pytest.raises(SourceError, match=f"needs the package {package}") as caught:
            read(tmp_path / name)
        assert caught.value.fix == f"pip install {package}"
