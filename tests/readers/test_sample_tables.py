"""Tables, arrays and XDF: what headsets and labs share instead of recordings."""

from __future__ import annotations

import struct

import h5py
import numpy as np
import pytest
from eeg_files import NAMES, eeg
from scipy.io import savemat

from eegprep.errors import SourceError
from eegprep.readers.content import Reading, to_recording
from eegprep.readers.formats import open_content
from eegprep.readers.tables import rate_of
from eegprep.recording import Origin


def read(path, **options):
    reading = Reading(**options)
    return to_recording(open_content(path, reading), Origin("made", "1"), reading)


def write_table(path, columns, lines=(), delimiter=","):
    rows = zip(*columns.values(), strict=True)
    text = [*lines, delimiter.join(columns), *(delimiter.join(str(cell) for cell in row) for row in rows)]
    path.write_text("\n".join(text) + "\n")
    return path


def codes(recording):
    return [f.code for f in recording.findings]


# ------------------------------------------------------------------------------------------------------------ tables


def test_a_headset_table_has_a_rate_a_gap_and_markers(tmp_path):
    """The rate is the number of samples over their time without the gap, the gap is a seam, AUX is no electrode."""
    x_CT, n = eeg(4, 5120, 256.0), 5120
    times = 1.7e9 + np.arange(n) / 256 + 100.0 * (np.arange(n) >= 2560)
    marks = np.zeros(n, int)
    marks[[512, 3000]] = 1, 2
    names = ["TP9", "AF7", "AF8", "TP10"]
    columns = {
        "timestamps": [f"{t:.6f}" for t in times],
        **dict(zip(names, x_CT.round(3), strict=True)),
        "Right AUX": [0.0] * n,
        "Marker0": marks,
    }

    recording = read(write_table(tmp_path / "a.csv", columns))

    assert recording.sfreq == 256.0 and list(recording.channels) == names
    assert recording.segments == ((0, 2560), (2560, 5120))
    assert [(e.onset, e.label) for e in recording.events] == [(2.0, "1"), (3000 / 256, "2")]
    np.testing.assert_allclose(recording.signal_CT, x_CT, atol=1e-3)
    assert codes(recording) == ["rate", "unit_assumed", "not_eeg"]


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_stamps_in_packets_that_go_backwards_give_the_true_rate(tmp_path, scale):
    """Twelve samples share a packet; each packet comes up to 30 ms early or late, and the median step says 250 Hz."""
    rng, n = np.random.default_rng(0), 6000
    arrival = np.repeat(np.arange(n // 12) * 12 / 256 + rng.uniform(-0.03, 0.03, n // 12), 12)
    times = np.round(arrival + np.tile(np.arange(12) * 0.004, n // 12), 3)
    assert np.diff(times).min() < 0 and np.median(np.diff(times)) == pytest.approx(0.004)

    sfreq, estimate, gaps = rate_of(times)

    assert sfreq == 256.0 and abs(estimate - 256) < 1 and gaps == ()
    columns = {"time": [f"{t * scale:.3f}" for t in times], "Fz": eeg(1, n, 256.0)[0]}
    assert read(write_table(tmp_path / "a.csv", columns)).sfreq == 256.0


def test_a_short_loss_shifts_all_later_stamps_and_is_a_gap():
    """25 samples of 256 Hz are missing, in stamps that jitter by 20 ms."""
    index = np.concatenate([np.arange(3000), np.arange(3025, 6000)])
    times = index / 256 + np.random.default_rng(1).uniform(-0.01, 0.01, len(index))

    assert rate_of(times)[2] == (3000,)


def test_rate_unit_and_names_come_from_where_exporters_write_them(tmp_path):
    """OpenBCI's comment lines and packet numbers, Emotiv's prefixes, a unit behind the name, a semicolon and a decimal comma."""
    x_CT, n = eeg(8, 1000, 250.0), 1000
    index = np.arange(n) % 256
    columns = {"Sample Index": index, **{f"EXG Channel {i}": row for i, row in enumerate(x_CT)}, "Accel Channel 0": [0.1] * n}
    lines = ["%OpenBCI Raw EXG Data", "%Number of channels = 8", "%Sample Rate = 250 Hz"]
    openbci = read(write_table(tmp_path / "a.txt", columns, lines, ", "))
    assert openbci.sfreq == 250.0 and len(openbci.channels) == 8 and openbci.segments == ((0, 1000),)
    lost = {name: [value for row, value in enumerate(column) if not 400 <= row < 420] for name, column in columns.items()}
    assert read(write_table(tmp_path / "b.txt", lost, lines, ", ")).segments == ((0, 400), (400, 980))

    columns = {"Timestamp": 5 + np.arange(n) / 128, "EEG.Counter": np.arange(n) % 128, "EEG.AF3": x_CT[0] + 4200, "EEG.T7": x_CT[1] + 4200,
               "CQ.AF3": [4] * n, "POW.AF3.Theta": np.abs(x_CT[2]), "EEG.Battery": [90] * n}  # fmt: skip
    emotiv = read(write_table(tmp_path / "c.csv", columns, ["title: a, sampling rate:eeg_128, labels"]))
    assert emotiv.sfreq == 128.0 and emotiv.channels == ("AF3", "T7") and abs(emotiv.offsets[0] - 4200) < 200

    columns = {
        "Cz [mV]": [f"{v / 1000:.6f}".replace(".", ",") for v in x_CT[0]],
        "Pz [mV]": [f"{v / 1000:.6f}".replace(".", ",") for v in x_CT[1]],
    }
    comma = read(write_table(tmp_path / "d.csv", columns, delimiter=";"), sfreq=250.0)
    np.testing.assert_allclose(comma.signal_CT, x_CT[:2], atol=1e-3)
    assert comma.channels == ("Cz", "Pz") and "unit_assumed" not in codes(comma)


def test_openbci_without_names_and_mind_monitor_with_dates(tmp_path):
    """An older text of OpenBCI says only how many channels it has; Mind Monitor writes dates, band powers, and events as rows."""
    x_CT, n = eeg(8, 1000, 250.0), 1000
    lines = [
        "%OpenBCI Raw EEG Data",
        "%Number of channels = 8",
        "%Sample Rate = 250.0 Hz",
        "%Other Columns = EEG data in microvolts",
    ]
    rows = [f"{i % 256}, " + ", ".join(f"{v:.3f}" for v in x_CT[:, i]) + ", 0.1, 0.2, 0.3, 10:00:00.000" for i in range(n)]
    (tmp_path / "a.txt").write_text("\n".join([*lines, *rows]) + "\n")
    openbci = read(tmp_path / "a.txt")
    np.testing.assert_allclose(openbci.signal_CT, x_CT, atol=1e-3)
    assert openbci.sfreq == 250.0 and openbci.segments == ((0, 1000),)

    stamps = [f"2026-05-01 10:00:{k // 256:02d}.{round(k % 256 / 256 * 1000):03d}" for k in range(n)]
    table = ["TimeStamp,Delta_TP9,RAW_TP9,RAW_AF7,RAW_AF8,RAW_TP10,AUX_RIGHT,Accelerometer_X,HSI_TP9,Battery,Elements"]
    for k in range(n):
        table.append(f"{stamps[k]},0.5,{x_CT[0, k]:.3f},{x_CT[1, k]:.3f},{x_CT[2, k]:.3f},{x_CT[3, k]:.3f},800.0,0.1,1.0,90.0,")
        if k == 500:
            table.append(f"{stamps[k]},,,,,,,,,,/muse/elements/blink")
    (tmp_path / "b.csv").write_text("\n".join(table) + "\n")
    muse = read(tmp_path / "b.csv")
    assert muse.channels == ("TP9", "AF7", "AF8", "TP10") and muse.sfreq == 256.0
    assert [(e.onset, e.label) for e in muse.events] == [(501 / 256, "/muse/elements/blink")]
    np.testing.assert_allclose(muse.signal_CT, x_CT[:4], atol=1e-3)


def test_a_label_column_gives_trials_that_end_at_gaps(tmp_path):
    """Trials of 1 s cut out of a session, two of the same label in a row."""
    n, rate = 1024, 256
    times = np.concatenate([trial * 10 + np.arange(rate) / rate for trial in range(4)])
    columns = {
        "Time:256Hz": times,
        "Fz": eeg(1, n, rate)[0],
        "Label": np.repeat(["p", "p", "t", "p"], rate),
        "Stage": ["thinking"] * n,
    }

    recording = read(write_table(tmp_path / "a.csv", columns))

    assert recording.segments == tuple((k * rate, (k + 1) * rate) for k in range(4))
    assert [(e.onset, e.duration, e.label) for e in recording.events] == [(0, 1, "p"), (1, 1, "p"), (2, 1, "t"), (3, 1, "p")]


def test_a_column_that_counts_rows_is_no_channel(tmp_path):
    """The index of a data frame, beside channels with names of their own."""
    x_CT = eeg(2, 500, 100.0)
    path = write_table(tmp_path / "a.csv", {"": range(500), "left": x_CT[0], "right": x_CT[1]})

    assert read(path, sfreq=100.0).channels == ("left", "right")


def test_a_table_without_a_rate_says_which_option_gives_it(tmp_path):
    """And what is no table of samples is named so."""
    path = write_table(tmp_path / "a.csv", {"Cz": eeg(1, 500, 100.0)[0], "Pz": eeg(1, 500, 100.0, 1)[0]})
    with pytest.raises(SourceError, match="neither a time column nor a rate") as caught:
        read(path)
    assert "--sfreq" in caught.value.fix
    assert read(path, sfreq=100.0).sfreq == 100.0
    (tmp_path / "b.csv").write_text("name,age\nanna,twelve\n")
    with pytest.raises(SourceError, match="no table of samples"):
        read(tmp_path / "b.csv")


# ------------------------------------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize("kind", ["mat", "transposed", "mat73", "npy"])
def test_an_array_is_read_with_what_the_person_says(tmp_path, kind):
    """Channels by samples or the other way round; without the options, the reason names them all."""
    x_CT, path = eeg(8, 4000, 200.0), tmp_path / "a.mat"
    if kind == "npy":
        path = tmp_path / "a.npy"
        np.save(path, x_CT)
    elif kind == "mat73":
        with h5py.File(path, "w") as file:
            file["eeg"] = x_CT.T  # MATLAB stores the last axis first
    else:
        savemat(path, {"eeg": x_CT.T if kind == "transposed" else x_CT, "note": "x"})

    with pytest.raises(SourceError, match=r"its rate \(sfreq\) and its unit and its channel names") as caught:
        read(path)
    assert caught.value.fix.count("--") == 3
    recording = read(path, sfreq=200.0, unit="mV", channel_names=tuple(NAMES[:8]))

    assert recording.channels == tuple(NAMES[:8]) and recording.sfreq == 200.0
    np.testing.assert_allclose(
        recording.signal_CT + np.array(recording.offsets or [0.0] * 8)[:, None], x_CT * 1e3, rtol=1e-4, atol=1e-2
    )


def test_rate_and_names_beside_an_array_are_used_and_trials_are_stretches(tmp_path):
    """Three axes: channels, samples, trials."""
    x_CT = eeg(4, 1200, 100.0)
    trials = x_CT.reshape(4, 3, 400).transpose(0, 2, 1)
    savemat(tmp_path / "a.mat", {"EEG": {"signals": trials, "fs": 100.0, "channels": np.array(NAMES[:4], dtype=object)}})

    recording = read(tmp_path / "a.mat", unit="uV")

    assert recording.channels == tuple(NAMES[:4]) and recording.sfreq == 100.0
    assert recording.segments == ((0, 400), (400, 800), (800, 1200))
    np.testing.assert_allclose(recording.signal_CT, x_CT, atol=1e-4)


def test_an_eeglab_structure_inside_a_mat_file_has_rate_and_names(tmp_path):
    """EEG.data, EEG.srate, EEG.chanlocs.labels; only the unit is not said."""
    x_CT = eeg(4, 1000, 250.0)
    places = np.array([(name,) for name in NAMES[:4]], dtype=[("labels", object)])
    savemat(tmp_path / "a.mat", {"EEG": {"data": x_CT, "srate": 250.0, "chanlocs": places}})

    recording = read(tmp_path / "a.mat", unit="uV")

    assert recording.channels == tuple(NAMES[:4]) and recording.sfreq == 250.0
    np.testing.assert_allclose(recording.signal_CT, x_CT, atol=1e-4)


def test_a_fieldtrip_structure_is_read_trial_by_trial(tmp_path):
    """label, fsample, trial and time."""
    x_CT = eeg(3, 1000, 250.0)
    trial, time = np.empty(2, object), np.empty(2, object)
    trial[:], time[:] = [x_CT[:, :400], x_CT[:, 400:]], [np.arange(400) / 250, np.arange(600) / 250]
    savemat(tmp_path / "a.mat", {"data": {"label": np.array(NAMES[:3], object), "fsample": 250.0, "trial": trial, "time": time}})

    recording = read(tmp_path / "a.mat", unit="uV")

    assert recording.channels == tuple(NAMES[:3]) and recording.segments == ((0, 400), (400, 1000))
    np.testing.assert_allclose(recording.signal_CT, x_CT, atol=1e-4)


def test_a_wrong_number_of_names_is_refused_with_both_numbers(tmp_path):
    """Seven names for eight channels."""
    savemat(tmp_path / "a.mat", {"eeg": eeg(8, 400, 200.0)})
    with pytest.raises(SourceError, match="7 channel names for an array of 8 x 400"):
        read(tmp_path / "a.mat", sfreq=200.0, unit="uV", channel_names=tuple(NAMES[:7]))


# --------------------------------------------------------------------------------------------------------------- XDF


def write_xdf(path, x_CT, times, names, marks):
    """A file with one EEG stream and one of markers."""

    def chunk(tag, content):
        size = len(content) + 2
        return b"\x04" + struct.pack("<I", size) + struct.pack("<H", tag) + content

    def number(value):
        return b"\x04" + struct.pack("<I", value)

    about = "".join(f"<channel><label>{n}</label><unit>microvolts</unit><type>EEG</type></channel>" for n in names)
    eeg_info = f"<info><name>cap</name><type>EEG</type><channel_count>{len(names)}</channel_count><nominal_srate>256</nominal_srate><channel_format>double64</channel_format><desc><channels>{about}</channels></desc></info>"  # fmt: skip
    mark_info = "<info><name>m</name><type>Markers</type><channel_count>1</channel_count><nominal_srate>0</nominal_srate><channel_format>string</channel_format><desc/></info>"  # fmt: skip
    samples = b"".join(
        b"\x08" + struct.pack("<d", t) + column.astype("<f8").tobytes() for t, column in zip(times, x_CT.T, strict=True)
    )
    events = b"".join(b"\x08" + struct.pack("<d", t) + b"\x01" + bytes([len(text)]) + text.encode() for t, text in marks)
    one, two = struct.pack("<I", 1), struct.pack("<I", 2)
    path.write_bytes(
        b"XDF:" + chunk(1, b"<info><version>1.0</version></info>") + chunk(2, one + eeg_info.encode()) + chunk(2, two + mark_info.encode())
        + chunk(3, one + number(len(times)) + samples) + chunk(3, two + number(len(marks)) + events)
        + chunk(6, one + b"<info/>") + chunk(6, two + b"<info/>")
    )  # fmt: skip
    return path


@pytest.mark.parametrize("damage", ["another file", "a billion samples", "a damaged length", "no XML"])
def test_an_xdf_file_that_is_none_is_an_error_of_our_own(tmp_path, damage):
    """The reader makes room for every sample that a chunk promises, and raises what comes out of its own insides."""
    pytest.importorskip("pyxdf")
    times = 1000 + np.arange(600) / 100
    path = write_xdf(tmp_path / "a.xdf", np.zeros((2, 600)), times, ["Cz", "Pz"], [])
    whole = path.read_bytes()
    if damage == "another file":
        path.write_bytes(b"\x80\x04pickle")
    elif damage == "a billion samples":
        place = whole.index(b"\4" + (600).to_bytes(4, "little"))
        path.write_bytes(whole[: place + 1] + (10**9).to_bytes(4, "little") + whole[place + 5 :])
    elif damage == "a damaged length":
        path.write_bytes(whole[:4] + b"\x77" + whole[5:])
    else:
        path.write_bytes(whole.replace(b"<channel_count>", b"<channel_coun"))

    with pytest.raises(SourceError, match=r"a.xdf: damaged, or not an XDF file"):
        read(path)


def test_xdf_is_read_where_pyxdf_is_installed(tmp_path):
    """Units and names of the stream, a gap, and markers of the other stream at their samples."""
    pytest.importorskip("pyxdf")
    x_CT = eeg(3, 2560, 256.0)
    times = 1000 + np.arange(2560) / 256 + 5.0 * (np.arange(2560) >= 1280)
    path = write_xdf(tmp_path / "a.xdf", x_CT, times, ["Cz", "Pz", "HEOG"], [(1002.0, "face"), (1012.5, "house")])

    recording = read(path)

    assert recording.channels == ("Cz", "Pz") and recording.sfreq == 256.0
    assert recording.segments == ((0, 1280), (1280, 2560))
    assert [(e.onset, e.label) for e in recording.events] == [(2.0, "face"), (7.5, "house")]
    np.testing.assert_allclose(recording.signal_CT, x_CT[:2], atol=1e-4)
