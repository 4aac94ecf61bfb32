"""Files of strangers cost bounded time and memory, and a header names nothing outside of its folder."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from eeg_files import eeg, write_edf

import eegprep
from eegprep import patterns
from eegprep.catalogue.subjects import parse_subjects
from eegprep.errors import SourceError, ToolkitError, UsageError
from eegprep.pool import parse_bytes
from eegprep.readers import edf
from eegprep.readers.formats import open_content
from eegprep.readers.sizes import held_bytes, struct_fields
from eegprep.settings import read_toml
from eegprep.signals.recipe import make_recipe
from eegprep.sources import companions

# ----------------------------------------------------------------------------------------------------------- annotations


@pytest.mark.parametrize(
    "text",
    [b"+" + b"1" * 10**6, b"+" * 10**6, b"+1\x14" * 300_000, b"+1\x15" * 300_000, b"+1" + b"\x14" * 10**6, b"+1\x14\n" * 250_000],
    ids=["digits", "signs", "onsets", "durations", "separators", "newlines"],
)
def test_a_megabyte_of_hostile_annotations_takes_linear_time(text):
    """Thirty-two kilobytes of digits took longer than anybody waits."""
    began = time.process_time()

    assert list(edf._annotation_lists(text + b"\0" + b"+1.5\x152\x14left\x14\0"))[-1][1:] == (1.5, 2.0, [b"left"])
    assert time.process_time() - began < 5


def test_annotation_lists_are_those_of_the_standard():
    """Onset, duration, several texts; the first, empty one of a record says when it began."""
    content = b"+0\x14\x14\0\0\0+1.5\x150.25\x14a\x14b\x14\0-2\x14\x14c\x14\0+3\x14no end\0"

    assert list(edf._annotation_lists(content)) == [
        (0, 0.0, 0.0, [b""]),
        (7, 1.5, 0.25, [b"a", b"b"]),
        (22, -2.0, 0.0, [b"", b"c"]),
    ]


# ----------------------------------------------------------------------------------------------------------------- rates


def with_duration(path: Path, text: str) -> Path:
    content = bytearray(path.read_bytes())
    content[244:252] = text.ljust(8).encode()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("duration", ["0", "-1", "1e-300", "1e-6", "nan", "inf", "1e300"])
def test_an_impossible_record_duration_costs_that_recording_only(tmp_path, duration):
    """It ended the whole build with an error of NumPy."""
    for person in (1, 2):
        write_edf(tmp_path / f"sub-0{person}_run-1.edf", eeg(4, 1600, 200.0, person), 200.0)
    with_duration(tmp_path / "sub-02_run-1.edf", duration)

    summary = eegprep.build(f"files:{tmp_path}/*.edf", tmp_path / "c.zarr")

    assert summary.recordings == 1 and len(summary.quarantined) == 1
    with pytest.raises(SourceError, match=r"Hz|rate"):
        open_content(tmp_path / "sub-02_run-1.edf")


# ------------------------------------------------------------------------------------------------------------ companions


def brain_vision(folder: Path, data: str = "own.eeg", marker: str = "own.vmrk") -> Path:
    folder.mkdir(parents=True)
    lines = ["Brain Vision Data Exchange Header File Version 1.0", "[Common Infos]", f"DataFile={data}", f"MarkerFile={marker}"]
    lines += ["DataFormat=BINARY", "DataOrientation=MULTIPLEXED", "NumberOfChannels=2", "SamplingInterval=5000"]
    lines += ["[Binary Infos]", "BinaryFormat=INT_16", "[Channel Infos]", "Ch1=C3,,0.1,uV", "Ch2=C4,,0.1,uV"]
    (folder / "own.vhdr").write_text("\n".join(lines) + "\n")
    (folder / "own.vmrk").write_text("Brain Vision Data Exchange Marker File, Version 1.0\n[Marker Infos]\n")
    return folder / "own.vhdr"


def samples(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((eeg(2, 1600, 200.0).T * 10).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("how", ["relative", "absolute", "link"])
def test_a_header_cannot_make_a_file_elsewhere_into_eeg(tmp_path, how):
    """Whoever downloads a data set has other files on the same machine."""
    secret = samples(tmp_path / "private/secret.eeg")
    header = brain_vision(
        tmp_path / "given", {"relative": "../private/secret.eeg", "absolute": str(secret), "link": "link.eeg"}[how]
    )
    if how == "link":
        (header.parent / "link.eeg").symlink_to(secret)

    with pytest.raises(ToolkitError):
        eegprep.build(f"files:{header}", tmp_path / "c.zarr")


@pytest.mark.parametrize("home", ["elsewhere", "given/.git/annex/objects/a"])
def test_links_of_git_annex_and_of_a_whole_recording_are_followed(tmp_path, home):
    """How DataLad keeps data, and how people link a recording into a folder of theirs."""
    real = brain_vision(tmp_path / home / "r")
    samples(real.with_suffix(".eeg"))
    given = tmp_path / "given"
    given.mkdir(exist_ok=True)
    for ending in (".vhdr", ".vmrk", ".eeg"):
        (given / f"own{ending}").symlink_to(real.with_suffix(ending))

    assert eegprep.build(f"files:{given}/own.vhdr", tmp_path / "c.zarr", window=128, stride=128).windows == 12


def test_a_file_name_that_is_not_utf8_is_a_message(tmp_path):
    """No record of the file could be written; the name is shown escaped."""
    write_edf(tmp_path / "a.edf", eeg(4, 1600, 200.0), 200.0)
    (tmp_path / "a.edf").rename(tmp_path / "sub-\udcff\udcfe.edf")

    with pytest.raises(SourceError, match=r"udcff.*not UTF-8"):
        eegprep.build(f"files:{tmp_path}/*.edf", tmp_path / "c.zarr")


# ----------------------------------------------------------------------------------------------------------------- sizes


def test_a_compressed_file_counts_by_what_it_holds(tmp_path):
    """One byte after the other: gzip with two members and something behind them, MATLAB 5 and 7.3."""
    (tmp_path / "a.fif.gz").write_bytes(gzip.compress(bytes(3_000_000)) + gzip.compress(bytes(2_000_000)) + b"behind")
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.zeros(500_000), "y": np.zeros(250_000, np.float32)}, do_compression=True)
    import h5py

    with h5py.File(tmp_path / "b.mat", "w") as file:
        file.create_dataset("EEG/data", data=np.zeros(400_000), compression="gzip")
    (tmp_path / "plain.edf").write_bytes(b"x" * 100)

    assert held_bytes(tmp_path / "a.fif.gz") == 5_000_000
    assert 5_000_000 < held_bytes(tmp_path / "a.mat") < 5_001_000
    assert held_bytes(tmp_path / "b.mat") == 3_200_000
    assert held_bytes(tmp_path / "plain.edf") == 100


def test_max_memory_refuses_a_compressed_file_before_it_is_read(tmp_path):
    """By what it unfolds to: the file itself is a few hundred kilobytes."""
    (tmp_path / "a_raw.fif.gz").write_bytes(gzip.compress(bytes(200_000_000), 1))

    with pytest.raises(UsageError, match=r"--max-memory allows 0\.6 GB"):
        eegprep.build(f"files:{tmp_path}/*.fif.gz", tmp_path / "c.zarr", max_memory="600MB")


def test_a_table_that_unfolds_to_hundreds_of_times_its_size_does_not_fill_the_disk(tmp_path):
    """It is unpacked into a temporary folder."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,2,3\n" * 20_000_000, 1))

    with pytest.raises(SourceError, match="unfolds to more than"):
        open_content(tmp_path / "a.csv.gz")


# -------------------------------------------------------------------------------------------------- patterns, settings


@pytest.mark.parametrize("pattern", [r"(?P<subject>(a+)+)$", r"(?P<subject>(?:a*)*)c", r"^(?P<subject>(\w+\s?)*)!"])
def test_a_pattern_that_needs_exponential_time_is_stopped(pattern):
    """In a second, with the pattern in the message; or it is found out to fit nowhere."""
    began = time.monotonic()
    try:
        assert patterns.search(pattern, "sub-" + "a" * 40 + "_run-1.edf") is None
    except UsageError as error:
        assert json.dumps(pattern)[1:10] in json.dumps(error.problem)
    assert time.monotonic() - began < 10


def test_patterns_do_what_they_say():
    """Named groups, and None for one that took no part."""
    assert patterns.search(r"S(?P<subject>\d+)(?:R(?P<run>\d+))?", "S001R04.edf") == {"subject": "001", "run": "04"}
    assert patterns.search(r"S(?P<subject>\d+)(?:R(?P<run>\d+))?", "S001.edf") == {"subject": "001", "run": None}
    with pytest.raises(UsageError, match="not a regular expression"):
        patterns.search("(?P<subject>", "a")


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 50_000 + "]" * 50_000, "a = " + "{b=" * 20_000 + "1" + "}" * 20_000, "a" + ".a" * 200_000 + " = 1",
     "[a" + ".a" * 200_000 + "]", "a = {a" + ".a" * 200_000 + " = 1}", "seed = " + "9" * 500_000, 'title = "a\0b"'],
    ids=["arrays", "tables", "key", "header", "inline key", "number", "NUL"],
)  # fmt: skip
def test_a_toml_file_of_absurd_depth_or_length_is_a_message(tmp_path, text):
    """Within a second or two."""
    (tmp_path / "m.toml").write_text(text)
    began = time.process_time()

    with pytest.raises(UsageError):
        read_toml(tmp_path / "m.toml")
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "settings",
    [{"channels": 10**9}, {"channels": 10**4, "window": 10**6}, {"window": 10**10}, {"notch": 1e-6}, {"notch": float("nan")}, {"resample": 1e9},
     {"resample": 1e-9}, {"low": 1e-12}, {"low": float("nan")}],
    ids=str,
)  # fmt: skip
def test_absurd_settings_are_refused_before_anything_is_read(settings):
    """Value and limit."""
    with pytest.raises(UsageError, match=next(iter(settings)) + "|values a window"):
        make_recipe(**settings)


@pytest.mark.parametrize("text", ["9" * 400 + "GB", "1..2GB", "GB", "1e9", "-1GB"])
def test_amounts_of_memory_that_are_none_are_refused(text):
    """As a message."""
    with pytest.raises(UsageError, match="is not an amount of memory"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["1-999999999", "1-" + "9" * 5000])
def test_a_range_of_a_billion_subjects_is_refused(text):
    """Before it is written out."""
    with pytest.raises(UsageError, match="limit"):
        parse_subjects(text)


def test_a_set_file_without_a_field_of_eeg_is_refused_by_the_name_of_the_field(tmp_path):
    eeg_of_eeglab = {"data": np.zeros((8, 500), np.float32), "srate": 128.0, "nbchan": 8, "pnts": 500, "trials": 1}
    scipy.io.savemat(tmp_path / "bare.set", {"EEG": eeg_of_eeglab}, do_compression=True)

    with pytest.raises(SourceError, match="no field 'chanlocs'"):
        open_content(tmp_path / "bare.set")


def test_a_small_set_file_that_unfolds_to_much_is_not_unfolded_to_look_for_its_companion(tmp_path, monkeypatch):
    packed = {"data": np.zeros((8, 2_000_000), np.float32), "srate": 128.0, "nbchan": 8, "pnts": 2_000_000, "trials": 1}
    scipy.io.savemat(tmp_path / "zeros.set", {"EEG": packed}, do_compression=True)
    monkeypatch.setattr(scipy.io, "loadmat", lambda *_, **__: pytest.fail("the samples were unfolded"))

    assert (tmp_path / "zeros.set").stat().st_size < 1_000_000
    assert companions.parts_of(tmp_path / "zeros.set").files == (tmp_path / "zeros.set",)


@pytest.mark.parametrize("packed", [True, False])
def test_the_fields_of_a_matlab_structure_are_read_from_its_first_bytes(tmp_path, packed):
    eeg_of_eeglab = {"data": np.zeros((8, 100)), "srate": 1.0, "a_longer_name": 3}
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.arange(5), "EEG": eeg_of_eeglab}, do_compression=packed)

    assert struct_fields(tmp_path / "a.mat", "EEG") == ("data", "srate", "a_longer_name")
    assert struct_fields(tmp_path / "a.mat", "x") == ()
