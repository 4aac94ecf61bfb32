"""The EDF and BDF reader: MNE-Python's answers on what both read right, and the right ones where MNE-Python gives others."""

from __future__ import annotations

import mne
import numpy as np
import odd_edf
import pytest
from eeg_files import NAMES, eeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eegprep.errors import SourceError
from eegprep.readers import edf
from eegprep.readers.content import Reading, to_recording
from eegprep.readers.raws import from_raw
from eegprep.recording import Origin

UNITS = {"uV": 1.0, "\u00b5V": 1.0, "mV": 1e3}


def read(path, **options):
    return to_recording(edf.read(path), Origin("made", "1"), **options)


@st.composite
def files(draw):
    """Legal and odd files: EEG in uV or mV and other units, one rate, equal names, empty ranges, lying record counts, annotations."""
    seconds, each = draw(st.sampled_from([0.5, 1.0, 2.0])), draw(st.integers(8, 60))
    records, rng = draw(st.integers(1, 5)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draw(st.sampled_from([16, 24]))
    signals = []
    for number in range(draw(st.integers(1, 4))):
        bottom = draw(st.integers(-(2 ** (bits - 1)), -1))
        top = draw(st.integers(1, 2 ** (bits - 1) - 1))
        low = draw(st.integers(-5000, 4000))
        high = low + draw(st.integers(0, 9000)) * draw(st.sampled_from([1, -1]))
        prefix = draw(st.sampled_from(["", "EEG ", "EOG "])) if number else draw(st.sampled_from(["", "EEG "]))
        signals.append(
            odd_edf.Signal(
                prefix + NAMES[draw(st.integers(0, number))], rng.integers(bottom, top, records * each, endpoint=True), each,
                draw(st.sampled_from([*sorted(UNITS), "%", ""])) if number else "uV", (low, high), (bottom, top),
                draw(st.sampled_from(["", "HP:0.1Hz LP:3Hz", "HP:DC LP:N/A"])),
            )
        )  # fmt: skip
    start = draw(st.sampled_from([0.0, 0.5, 100.0]))
    texts = [odd_edf.text(start + record * seconds) for record in range(records)]
    for _ in range(draw(st.integers(0, 5))):
        record = draw(st.integers(0, records - 1))
        onset = start + draw(st.integers(0, int(8 * records * seconds) - 1)) / 8
        duration = draw(st.sampled_from([None, 0.25, 1.0]))
        note = draw(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12))
        texts[record] += odd_edf.text(onset, note, duration=duration)
    header = draw(
        st.sampled_from([{}, {"records": "-1"}, {"records": "1"}, {"patient": "X \u00e4 ? ?"}, {"start": "99.99.9999.99.99"}])
    )
    options = {"seconds": seconds, "reserved": f"{'BDF' if bits == 24 else 'EDF'}+C", "texts": texts, "header": header}
    return signals, options, bits


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=files())
def test_files_come_out_as_mne_python_reads_them(tmp_path, made):
    """Signals, names, rate, band and events."""
    signals, options, bits = made
    path = odd_edf.write(tmp_path / f"a.{'bdf' if bits == 24 else 'edf'}", signals, **options)
    reader = mne.io.read_raw_bdf if bits == 24 else mne.io.read_raw_edf
    raw = reader(path, infer_types=True, preload=True, verbose="error")
    picks = [pick for pick in mne.pick_types(raw.info, eeg=True) if signals[pick].unit in UNITS]

    recording = read(path)

    assert recording.channels == tuple(raw.ch_names[pick] for pick in picks)
    assert recording.sfreq == raw.info["sfreq"]
    offsets_C = np.array(recording.offsets or [0.0] * len(picks))
    right_CT = raw.get_data(picks) * 1e6
    # float32 of what is left after the offset was taken off
    np.testing.assert_allclose(
        recording.signal_CT + offsets_C[:, None], right_CT, rtol=0, atol=2e-7 * np.abs(right_CT).max() + 1e-6
    )
    ours = sorted((round(e.onset, 6), round(e.duration, 6), e.label) for e in recording.events)
    notes = raw.annotations
    theirs = sorted(
        (round(float(onset), 6), round(float(duration), 6), str(label))
        for onset, duration, label in zip(notes.onset, notes.duration, notes.description, strict=True)
    )
    assert ours == theirs


def test_signals_of_another_rate_leave_eeg_at_its_own(tmp_path):
    """ECG at five times the rate, and EEG at half of it, in one file."""
    eeg_CT, ecg_T = eeg(4, 4000, 200.0), eeg(1, 20000, 1000.0)[0]
    signals = [odd_edf.of_values(f"EEG {name}", row, 200) for name, row in zip(NAMES, eeg_CT, strict=False)]
    signals += [odd_edf.of_values("ECG", ecg_T, 1000), odd_edf.of_values("EEG Oz", eeg(1, 2000, 100.0)[0], 100)]

    recording = read(odd_edf.write(tmp_path / "a.edf", signals))

    assert recording.sfreq == 200.0 and recording.channels == tuple(NAMES[:4])
    np.testing.assert_allclose(recording.signal_CT, [signal.values for signal in signals[:4]], atol=1e-3)
    assert {(f.code, f.channel) for f in recording.findings} == {("rate", "Oz"), ("not_eeg", "ECG")}


@pytest.mark.parametrize(("reserved", "ending"), [("EDF+D", "edf"), ("EDF+C", "edf"), ("BDF+D", "bdf")])
def test_a_pause_between_records_is_a_seam_and_events_follow_the_clock(tmp_path, reserved, ending):
    """Eight records, a pause of 50 s, eight more; whatever the header claims, the clock of the records decides."""
    began = [2.0 * r if r < 8 else 50.0 + 2.0 * r for r in range(16)]
    texts = [odd_edf.text(t) for t in began]
    texts[0] += odd_edf.text(30.0, "in the pause") + odd_edf.text(14.0, "into the pause", duration=10.0)
    texts[9] += odd_edf.text(68.5, "go", duration=4.0)
    signals = [odd_edf.of_values(name, row, 400) for name, row in zip(NAMES, eeg(3, 6400, 200.0), strict=False)]

    recording = read(odd_edf.write(tmp_path / f"a.{ending}", signals, seconds=2.0, reserved=reserved, texts=texts))

    assert recording.segments == ((0, 3200), (3200, 6400))
    assert [(e.onset, e.duration, e.label) for e in recording.events] == [(14.0, 2.0, "into the pause"), (18.5, 4.0, "go")]
    assert [f.code for f in recording.findings] == ["events_outside"]


def test_a_raw_of_such_a_file_has_the_same_seams_and_events(tmp_path):
    """`from_raw` of what MNE-Python opens, cropped too: MNE-Python joins the records and knows units but two."""
    began = [2.0 * r if r < 8 else 50.0 + 2.0 * r for r in range(16)]
    texts = [odd_edf.text(t) for t in began]
    texts[9] += odd_edf.text(68.5, "go", duration=4.0)
    x_CT = eeg(4, 6400, 200.0)
    signals = [
        odd_edf.of_values(name, row * factor, 400, unit, physical=(-3000 * factor, 3000 * factor))
        for name, row, (unit, factor) in zip(NAMES, x_CT, {"uV": 1, "nV": 1e3, "%": 1, "": 1}.items(), strict=False)
    ]
    path = odd_edf.write(tmp_path / "a.edf", signals, seconds=2.0, reserved="EDF+D", texts=texts)
    raw = mne.io.read_raw_edf(path, verbose="error")

    whole, cropped = from_raw(raw), from_raw(raw.copy().crop(6.0))

    assert whole.channels == cropped.channels == tuple(NAMES[:2])
    np.testing.assert_allclose(whole.signal_CT, x_CT[:2], atol=0.1)
    assert whole.segments == ((0, 3200), (3200, 6400)) and cropped.segments == ((0, 2000), (2000, 5200))
    assert [(e.onset, e.label) for e in whole.events] == [(18.5, "go")] and cropped.events[0].onset == 12.5


def test_texts_in_latin_1_with_line_feeds_and_channels(tmp_path):
    """What is no UTF-8 is Latin-1; a line feed is a space; a text about several channels is one event."""
    texts = [odd_edf.text(float(r)) for r in range(10)]
    texts[2] += odd_edf.text(2.0, "ge\u00f6ffnet".encode("latin-1"), duration=1.0) + odd_edf.text(3.0, "one\ntwo", "three")
    texts[5] += odd_edf.text(5.0, "spike@@Fp1", duration=1.0) + odd_edf.text(5.0, "spike@@Fp2", duration=1.0)
    texts[6] += odd_edf.text(6.0, "mail@@example")
    signals = [odd_edf.of_values(name, row, 100) for name, row in zip(NAMES, eeg(2, 1000, 100.0), strict=False)]

    recording = read(odd_edf.write(tmp_path / "a.edf", signals, reserved="EDF+C", texts=texts))

    assert [(e.onset, e.label) for e in recording.events] == [
        (2.0, "ge\u00f6ffnet"), (3.0, "one two"), (3.0, "three"), (5.0, "spike"), (6.0, "mail@@example"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "tail", "says"),
    [
        ({"records": "-1"}, b"", "-1 records"),
        ({"records": "6"}, b"", "6 records, the file holds 10"),
        ({"bytes": "256"}, b"", "256 bytes"),
        ({"bytes": "abc"}, b"", "0 bytes"),
        ({"records": ""}, b"", "-1 records"),
        ({"bytes": "1024"}, b"", "1,024 bytes"),
        ({}, b"xyz", "3 bytes after the last record"),
    ],
)
def test_a_header_that_contradicts_the_file_is_a_finding(tmp_path, header, tail, says):
    """The file decides; nothing is read from the wrong place."""
    signals = [odd_edf.of_values(name, row, 100) for name, row in zip(NAMES, eeg(2, 1000, 100.0), strict=False)]

    recording = read(odd_edf.write(tmp_path / "a.edf", signals, header=header, tail=tail))

    np.testing.assert_allclose(recording.signal_CT, [signal.values for signal in signals], atol=1e-3)
    assert [f.code for f in recording.findings] == ["header"] and says in recording.findings[0].message


def test_a_file_shorter_than_its_header_says_is_refused(tmp_path):
    """Both numbers are named."""
    signals = [odd_edf.of_values("Cz", eeg(1, 1000, 100.0)[0], 100)]
    path = odd_edf.write(tmp_path / "a.edf", signals)
    path.write_bytes(path.read_bytes()[:-7])

    with pytest.raises(SourceError, match=r"truncated, 2,505 bytes where its header promises 2,512"):
        read(path)


def test_units_are_taken_channel_by_channel(tmp_path):
    """nV, mV and V become uV; what is no voltage, missing or garbled is left out and said."""
    x_CT = eeg(8, 1000, 100.0)
    factors = {"uV": 1, "nV": 1e3, "mV": 1e-3, "V": 1e-6, "\u00c2\u00b5V": 1, "%": 1, "": 1, "yV": 1}
    signals = [
        odd_edf.of_values(name, row * factor, 100, unit.encode("latin-1"), physical=(-3000 * factor, 3000 * factor))
        for name, row, (unit, factor) in zip(NAMES, x_CT, factors.items(), strict=False)
    ]
    path = odd_edf.write(tmp_path / "a.edf", signals)

    recording = read(path)

    assert recording.channels == tuple(NAMES[:5])
    np.testing.assert_allclose(recording.signal_CT, x_CT[:5], atol=0.1)
    assert [(f.code, f.channel) for f in recording.findings] == [("unit", name) for name in NAMES[5:8]]
    assert read(path, reading=Reading(unit="uV")).channels == (*NAMES[:5], *NAMES[6:8])


def test_status_of_biosemi_rests_triggers_and_pauses(tmp_path):
    """The resting value 0xFF00 is no event, bits above 16 are no trigger, and bit 16 begins a new epoch."""
    x_CT = eeg(4, 2560, 256.0)
    status_T = np.full(2560, 0x10FF00)
    for sample, code in ((256, 11), (1024, 12), (2000, 11)):
        status_T[sample : sample + 20] += code
    status_T[[0, 1280]] |= 0x010000
    signals = [odd_edf.of_values(name, row, 256, limits=(-(2**23), 2**23 - 1)) for name, row in zip(NAMES, x_CT, strict=False)]
    limits = (-(2**23), 2**23 - 1)
    signals.append(
        odd_edf.Signal("Status", np.where(status_T >= 2**23, status_T - 2**24, status_T), 256, "Boolean", limits, limits)
    )

    recording = read(odd_edf.write(tmp_path / "a.bdf", signals))

    assert [(e.onset, e.label) for e in recording.events] == [(1.0, "11"), (4.0, "12"), (7.8125, "11")]
    assert recording.segments == ((0, 1280), (1280, 2560))


def test_the_person_and_the_date_are_read_only_on_request(tmp_path):
    """With and without the header's private part, everything else is the same."""
    texts = [odd_edf.text(float(r)) + odd_edf.text(r + 0.5, f"note {r}") for r in range(10)]
    signals = [odd_edf.of_values("Cz", eeg(1, 1000, 100.0)[0], 100)]
    header = {"patient": "P7 F 02-MAY-1951 Haagse_Harry"}
    path = odd_edf.write(tmp_path / "a.edf", signals, reserved="EDF+C", texts=texts, header=header)

    open_, kept = read(path), read(path, keep_private=True)

    assert open_.header == {} and open_.events == kept.events
    assert kept.header["subject_info"]["name"] == "Haagse_Harry" and kept.header["meas_date"].startswith("2009-12-24T18:30:00")


def test_fields_padded_with_nul_bytes_mean_the_same(tmp_path):
    """Some devices fill with zeros where the standard wants spaces."""
    signals = [odd_edf.of_values(f"EEG {name}", row, 100) for name, row in zip(NAMES, eeg(2, 1000, 100.0), strict=False)]
    spaces, zeros = (odd_edf.write(tmp_path / f"{len(fill)}{fill[0]}.edf", signals, fill=fill) for fill in (b" ", b"\0"))

    np.testing.assert_array_equal(read(spaces).signal_CT, read(zeros).signal_CT)
    assert read(spaces).channels == read(zeros).channels == ("Fp1", "Fp2")


def test_channels_of_one_name_are_numbered_and_kept(tmp_path):
    """As MNE-Python numbers them."""
    signals = [odd_edf.of_values("Cz", row, 100) for row in eeg(2, 1000, 100.0)]

    assert read(odd_edf.write(tmp_path / "a.edf", signals)).channels == ("Cz-0", "Cz-1")
