"""Seams and events, whichever way a format tells of them: nothing crosses a seam, and each event is told once."""

from __future__ import annotations

import json

import mne
import numpy as np
import odd_edf
import pybv
import pytest
from eeg_files import NAMES, eeg
from scipy.io import savemat

from eegprep.readers.content import Reading
from eegprep.readers.raws import from_raw
from eegprep.readers.triggers import merge_lines, trigger_events
from eegprep.recording import Event
from eegprep.sources.reading import read_source

RATE, SAMPLES = 200.0, 6000


def read(spec):
    (recording,) = read_source(spec)
    return recording


def told(recording):
    return [(event.onset, event.duration, event.label) for event in recording.events]


def made_raw(notes=(), **more):
    info = mne.create_info(NAMES[:4], RATE, "eeg")
    raw = mne.io.RawArray(eeg(4, SAMPLES, RATE) * 1e-6, info, verbose="error", **more)
    return raw.set_annotations(mne.Annotations(*zip(*notes, strict=True)) if notes else None)


def write_set(path, kinds, latencies, trials=1):
    """An EEGLAB file; latencies count samples from 1."""
    x_CT = eeg(4, SAMPLES, RATE)
    epochs = np.array(range(1, len(kinds) + 1)) if trials > 1 else np.ones(len(kinds), int)
    columns = [("type", object), ("latency", object), ("duration", object), ("epoch", object)]
    events = np.array(list(zip(kinds, latencies, [0.0] * len(kinds), epochs.tolist(), strict=True)), dtype=columns)
    epoch = np.array([(k + 1, kind, 0.0) for k, kind in enumerate(kinds)] if trials > 1 else [],
                     dtype=[("event", object), ("eventtype", object), ("eventlatency", object)])  # fmt: skip
    points = SAMPLES // trials
    data = x_CT if trials == 1 else x_CT.reshape(4, trials, points).transpose(0, 2, 1)
    savemat(path, {
        "data": data.astype("f4"), "srate": RATE, "nbchan": 4, "pnts": points, "trials": trials, "xmin": 0.0, "xmax": (points - 1) / RATE,
        "chanlocs": np.array([(name,) for name in NAMES[:4]], dtype=[("labels", object)]), "event": events, "epoch": epoch,
        "setname": "x", "times": [], "icawinv": [], "icaweights": [], "icasphere": [], "ref": "common", "filename": path.name, "comments": "",
    })  # fmt: skip
    return path


def bids(folder, recording, events=""):
    """A BIDS folder around one file that is moved into it."""
    place = folder / "bids/sub-01/eeg"
    place.mkdir(parents=True)
    recording.rename(place / f"sub-01_task-x_eeg{recording.suffix}")
    (folder / "bids/dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    if events:
        (place / "sub-01_task-x_events.tsv").write_text(events)
    return f"bids:{folder}/bids"


def test_a_later_new_segment_of_brainvision_is_a_seam_and_no_event(tmp_path):
    """The amplifier was paused; the first marker of that kind only says when the recording began."""
    events = [{"onset": 500, "duration": 1, "type": "Stimulus", "description": 1}]
    pybv.write_brainvision(
        data=eeg(4, SAMPLES, RATE) * 1e-6, sfreq=RATE, ch_names=NAMES[:4], fname_base="a", folder_out=tmp_path, events=events
    )
    markers = tmp_path / "a.vmrk"
    text = markers.read_text("utf-8").rstrip("\n")
    markers.write_text(text + "\nMk3=New Segment,,3001,1,0,20240506103000000000\nMk4=Stimulus,S  1,3501,1,0\n", "utf-8")

    recording = read(f"files:{tmp_path}/a.vhdr")

    assert recording.segments == ((0, 3000), (3000, SAMPLES))
    assert [(onset, label) for onset, _, label in told(recording)] == [(2.5, "Stimulus/S  1"), (17.5, "Stimulus/S  1")]


def test_texts_of_brainvision_in_latin_1_are_read(tmp_path):
    """Older recorders wrote the code page of their machine."""
    events = [{"onset": 500, "duration": 1, "type": "Comment", "description": "x"}]
    pybv.write_brainvision(
        data=eeg(4, SAMPLES, RATE) * 1e-6, sfreq=RATE, ch_names=NAMES[:4], fname_base="a", folder_out=tmp_path, events=events
    )
    for name in ("a.vhdr", "a.vmrk"):
        text = (
            (tmp_path / name)
            .read_text("utf-8")
            .replace("Codepage=UTF-8", "Codepage=ANSI")
            .replace("Comment,x", "Comment,ge\u00f6ffnet")
        )
        (tmp_path / name).write_bytes(text.encode("latin-1"))

    recording = read(f"files:{tmp_path}/a.vhdr")

    assert told(recording) == [(2.5, 1 / RATE, "Comment/ge\u00f6ffnet")] and recording.channels == tuple(NAMES[:4])
    np.testing.assert_allclose(recording.signal_CT, eeg(4, SAMPLES, RATE), atol=0.1)


@pytest.mark.parametrize("latency", [3000.5, 3001.5])
@pytest.mark.parametrize("route", ["file", "BIDS", "BIDS with events"])
@pytest.mark.parametrize("kinds", [["square", "boundary", "rt"], [1, -99, 2]])
def test_a_boundary_of_eeglab_is_a_seam_by_every_route(tmp_path, kinds, route, latency):
    """As text and as the number -99; events.tsv replaces annotations, not seams. Latency 3000.5 lies before sample 3000 from 0."""
    path = write_set(tmp_path / "a.set", kinds, [500.0, latency, 4000.0])
    table = "onset\tduration\ttrial_type\n2.495\t0\tsquare\n19.995\t0\trt\n" if route.endswith("events") else ""

    recording = read(f"files:{path}" if route == "file" else bids(tmp_path, path, table))

    seam = int(latency - 0.5)
    assert recording.segments == ((0, seam), (seam, SAMPLES))
    assert [onset for onset, _, _ in told(recording)] == [2.495, 19.995]
    assert (told(recording)[0][2] == "square") == (route.endswith("events") or kinds[0] == "square")


def test_epochs_of_eeglab_are_stretches_with_their_labels(tmp_path):
    """Ten trials of 3 s, each with its event at its first sample."""
    path = write_set(tmp_path / "a.set", ["face", "house"] * 5, [600.0 * k + 1 for k in range(10)], trials=10)

    recording = read(f"files:{path}")

    assert recording.segments == tuple((600 * k, 600 * k + 600) for k in range(10))
    assert [label for _, _, label in told(recording)] == ["face", "house"] * 5
    np.testing.assert_allclose(recording.signal_CT, eeg(4, SAMPLES, RATE), atol=1e-3)


def test_a_skip_that_began_before_the_first_sample_takes_only_what_lies_inside(tmp_path):
    """In an EDF+ whose clock begins at 100 s, and in a cropped Raw."""
    texts = [odd_edf.text(100.0 + r) for r in range(30)]
    texts[0] += odd_edf.text(95.0, "BAD_ACQ_SKIP", duration=15.0)
    texts[20] += odd_edf.text(120.0, "face", duration=6.0)
    signals = [odd_edf.of_values(name, row, 200) for name, row in zip(NAMES, eeg(4, SAMPLES, RATE), strict=False)]
    path = odd_edf.write(tmp_path / "a.edf", signals, reserved="EDF+C", texts=texts)

    assert read(f"files:{path}").segments == ((2000, SAMPLES),) and told(read(f"files:{path}")) == [(20.0, 6.0, "face")]
    raw = made_raw([(5.0, 15.0, "BAD_ACQ_SKIP")], first_samp=1000)
    assert from_raw(raw).segments == ((0, 1000), (4000, SAMPLES))
    assert from_raw(raw.copy().crop(10.0)).segments == ((2000, SAMPLES - 2000),)


def test_joined_raws_and_rejected_stretches_are_seams():
    """What MNE-Python writes where it joins; a mark without duration rejects nothing."""
    joined = mne.concatenate_raws([made_raw(), made_raw()], verbose="error")
    assert from_raw(joined).segments == ((0, SAMPLES), (SAMPLES, 2 * SAMPLES)) and told(from_raw(joined)) == []
    marked = made_raw([(5.0, 3.0, "bad blink"), (12.0, 0.0, "BAD")])
    assert from_raw(marked).segments == ((0, SAMPLES),)
    assert from_raw(marked, reading=Reading(bad="reject")).segments == ((0, 1000), (1600, SAMPLES))


def test_events_outside_the_signal_are_clipped_or_said(tmp_path):
    """What reaches into the signal is cut to it; what does not is a finding, with a word about milliseconds."""
    table = "onset\tduration\ttrial_type\n-2\t8\tearly\n20\t60\tlate\n500\t1\tlost\n-9\t1\tbefore\n"
    signals = [odd_edf.of_values(name, row, 200) for name, row in zip(NAMES, eeg(4, SAMPLES, RATE), strict=False)]

    recording = read(bids(tmp_path, odd_edf.write(tmp_path / "a.edf", signals), table))

    assert told(recording) == [(0.0, 6.0, "early"), (20.0, 10.0, "late")]
    (finding,) = [f for f in recording.findings if f.code == "events_outside"]
    assert "2 of 4 events" in finding.message
    (tmp_path / "bids/sub-01/eeg/sub-01_task-x_events.tsv").write_text("onset\tduration\ttrial_type\n1500\t0\ta\n9000\t0\tb\n")
    (finding,) = [f for f in read(f"bids:{tmp_path}/bids").findings if f.code == "events_outside"]
    assert "milliseconds" in finding.message


def test_annotations_and_triggers_are_merged_and_told_once():
    """A mark hides nothing; a trigger that an annotation describes is one event; lines and their sum are one event each."""
    raw = made_raw()
    lines = mne.io.RawArray(
        np.zeros((3, SAMPLES)), mne.create_info(["STI 001", "STI 002", "STI 014"], RATE, "stim"), verbose="error"
    )
    lines._data[0, 1000:1010], lines._data[1, 3000:3010] = 1, 1
    lines._data[2, 1000:1010], lines._data[2, 3000:3010] = 1, 2
    raw.add_channels([lines], force_update_info=True)
    raw.set_annotations(mne.Annotations([2.0, 5.0], [0.5, 0.0], ["BAD_blink", "face"]))

    assert told(from_raw(raw)) == [(2.0, 0.5, "BAD_blink"), (5.0, 0.0, "face"), (15.0, 0.0, "2")]


def test_lines_without_a_sum_keep_their_names():
    """Their values alone would be confused."""
    left, right = ("STI 001", [Event(1.0, 0.0, "1")]), ("STI 002", [Event(2.0, 0.0, "1")])

    assert [event.label for event in merge_lines([left, right], 0.01)] == ["STI 001/1", "STI 002/1"]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0, 5, 5, 0, 6, 0], [(2, "5"), (5, "6")]),
        ([7, 7, 0, 0, 9, 9], [(0, "7"), (4, "9")]),
        ([0xFF00, 0xFF00, 0xFF0B, 0xFF00, 0xFF0C, 0xFF00], [(2, "11"), (4, "12")]),
        ([3] * 40 + [4] + [3] * 40 + [5] + [3] * 40, [(40, "4"), (81, "5")]),
        ([1] * 20 + [2] * 20 + [1] * 20, [(0, "1"), (20, "2"), (40, "1")]),
        ([0, 0, 0, 0], []),
        ([], []),
    ],
)
def test_a_trigger_line_rests_where_it_rests(codes, expected):
    """Zero, bits that are always set, or the value that it nearly always has; codes that hold are told once."""
    assert [(round(event.onset), event.label) for event in trigger_events(np.array(codes, int), 1.0)] == expected


def test_a_line_that_changes_all_the_time_is_no_trigger_channel():
    """A sampled voltage under the name of a trigger would be an event a sample."""
    assert trigger_events(np.random.default_rng(0).integers(0, 1000, 5000), 100.0) == []
