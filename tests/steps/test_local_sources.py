"""Local sources through the whole build: what is replaced is read again, what is odd is a finding, what is lost is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mne
import numpy as np
import pytest
import zarr
from eeg_files import eeg, names, write_edf
from mne.filter import filter_data

import eegprep
from eegprep.errors import SourceError, StoreError, UsageError
from eegprep.steps.build import fetch, fetch_plan

RATE = 200


def signal(seed: int, n_channels: int = 4, seconds: int = 12) -> np.ndarray:
    return eeg(n_channels, seconds * RATE, RATE, seed)


def filtered(signal_CT: np.ndarray) -> np.ndarray:
    return filter_data(np.array(signal_CT, float), RATE, 5.0, 95.0, verbose="error")


def build(out: Path, *sources: object, **options: object):
    return eegprep.build([str(source) for source in sources], out, offline=True, **options)


def group(out: Path, name: str):
    return zarr.open_group(out, mode="r")[name]


def findings(out: Path, name: str) -> str:
    return " | ".join(f"{f['code']}: {f['message']}" for r in group(out, name).attrs["recordings"] for f in r["findings"])


def raw_of(signal_CT: np.ndarray) -> mne.io.RawArray:
    return mne.io.RawArray(signal_CT * 1e-6, mne.create_info(names(len(signal_CT)), RATE, "eeg"), verbose="error")


def bids(root: Path, subject: str, signal_CT: np.ndarray, **tables: str) -> None:
    """One recording `task-x` with sidecars beside it."""
    stem = root / f"sub-{subject}/eeg/sub-{subject}_task-x"
    write_edf(stem.with_name(f"{stem.name}_eeg.edf"), signal_CT, RATE)
    for name, text in tables.items():
        stem.with_name(f"{stem.name}_{name}.tsv").write_text(text)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))


def test_samples_that_were_replaced_beside_their_header_are_read_again(tmp_path):
    """The key of a subject holds everything that was read."""
    for seed, folder in ((1, tmp_path / "set"), (2, tmp_path / "new")):
        folder.mkdir()
        mne.export.export_raw(folder / "rec.vhdr", raw_of(signal(seed)), verbose="error")
    build(tmp_path / "c.zarr", f"files:{tmp_path}/set/*")
    before = group(tmp_path / "c.zarr", "set/rec")["windows"][:]

    shutil.copy(tmp_path / "new/rec.eeg", tmp_path / "set/rec.eeg")
    summary = build(tmp_path / "c.zarr", f"files:{tmp_path}/set/*")
    after = group(tmp_path / "c.zarr", "set/rec")

    assert summary.built == 1 and not np.array_equal(before, after["windows"][:])
    np.testing.assert_allclose(after["windows"][0][:4], filtered(signal(2))[:, :512], atol=0.2)
    assert {s["name"] for s in after.attrs["recordings"][0]["sources"]} == {"rec.vhdr", "rec.eeg", "rec.vmrk"}


def test_a_header_that_names_its_old_files_is_read_with_a_finding(tmp_path):
    """As a file and under BIDS."""
    folder = tmp_path / "study/sub-01/eeg"
    folder.mkdir(parents=True)
    mne.export.export_raw(folder / "old.vhdr", raw_of(signal(3)), verbose="error")
    for ending in ("vhdr", "eeg", "vmrk"):
        (folder / f"old.{ending}").rename(folder / f"sub-01_task-x_eeg.{ending}")

    for number, source in enumerate((f"bids:{tmp_path}/study", f"files:{folder}/*.vhdr")):
        out = tmp_path / f"{number}.zarr"
        build(out, source)

        np.testing.assert_allclose(group(out, "study/01")["windows"][1][:4], filtered(signal(3))[:, 512:1024], atol=0.2)
        assert "renamed: the header names old.eeg" in findings(out, "study/01")


def test_a_recording_that_broke_off_is_read_up_to_there_and_says_so(tmp_path):
    """Samples, and markers that lie behind the end."""
    raw = raw_of(signal(4))
    raw.set_annotations(mne.Annotations([1.0, 11.0], [0.5, 0.5], ["Stimulus/S  1"] * 2))
    mne.export.export_raw(tmp_path / "rec.vhdr", raw, verbose="error")
    content = (tmp_path / "rec.eeg").read_bytes()
    (tmp_path / "rec.eeg").write_bytes(content[: len(content) * 3 // 4 + 3])

    build(tmp_path / "c.zarr", f"files:{tmp_path}/rec.vhdr", dataset="set")

    output = findings(tmp_path / "c.zarr", "set/rec")
    assert (
        "cut: rec.eeg is incomplete: it ends in the middle of a sample" in output
        and "1 of 2 markers lie behind its end" in output
    )


def test_types_go_to_channels_by_name_whatever_the_order_of_the_table(tmp_path):
    """No signal under another channel's name, and what differs is said."""
    rows = [f"{name.upper()}\t{'eog' if name == 'F7' else 'EEG'}\tuV\n" for name in names(4)]
    bids(tmp_path / "b", "01", signal(5), channels="name\ttype\tunits\n" + "".join(rows[::-1]))

    build(tmp_path / "c.zarr", tmp_path / "b")
    made = group(tmp_path / "c.zarr", "b/01")

    assert made.attrs["recordings"][0]["channels"] == ["Fp1", "Fp2", "F3"]
    np.testing.assert_allclose(made["windows"][0][:3], filtered(signal(5))[[0, 1, 3], :512], atol=0.1)
    assert "the order and the spelling" in findings(tmp_path / "c.zarr", "b/01")


@pytest.mark.parametrize(
    ("tables", "said", "labels"),
    [
        ({"events": ""}, "events.tsv is empty (0 bytes), so there is no column 'onset'", []),
        ({"events": "onset,duration,trial_type\n2.0,6.0,face\n"}, "commas between its columns", ["face"]),
        ({"events": "onset;duration;trial_type\n2,5;6,0;face\n"}, "semicolons between its columns", ["face"]),
        ({"events": "onset\tduration\ttrial_type\nn/a\tn/a\tx\n2\t6\tface\n"}, "1 of 2 rows have no onset", ["face"]),
        ({"events": "time\tlabel\n1\ta\n"}, "no column 'onset' (its columns: time, label)", []),
        ({"events": "sample\tduration\tvalue\n400\t6\t7\n"}, "its samples were taken", ["7"]),
        ({"channels": "name\ttype\nA\tEEG\nB\tEEG\n"}, "names none of the 4 channels", []),
        ({"channels": "type\nEEG\n"}, "no column 'name'", []),
        ({"channels": "name\ttype\nFp1\tEEG\nQ9\tEEG\n"}, "has rows that the recording lacks: Q9", []),
        ({"electrodes": "name\tx\ty\n"}, "lacks one of the columns x, y, z", []),
    ],
)  # fmt: skip
def test_odd_sidecars_are_findings_and_cost_no_recording(tmp_path, tables, said, labels):
    """The signal decides."""
    bids(tmp_path / "b", "01", signal(6), **tables)

    summary = build(tmp_path / "c.zarr", tmp_path / "b")

    assert summary.exit_code == 0 and group(tmp_path / "c.zarr", "b/01")["windows"].shape[0] == 4
    assert said in findings(tmp_path / "c.zarr", "b/01")
    assert list(group(tmp_path / "c.zarr", "b/01").attrs["labels"]) == labels


def test_what_a_table_at_the_root_says_reaches_everybody_and_changing_it_rebuilds(tmp_path):
    """Inherited sidecars; line frequency and reference come from the description."""
    root = tmp_path / "b"
    for subject in ("01", "02"):
        bids(root, subject, signal(7))
    (root / "task-x_eeg.json").write_text(json.dumps({"PowerLineFrequency": 60, "EEGReference": "Cz"}))
    build(tmp_path / "c.zarr", root)

    (root / "task-x_channels.tsv").write_text("name\ttype\nFp1\tEOG\n")
    summary = build(tmp_path / "c.zarr", root)
    record = group(tmp_path / "c.zarr", "b/02").attrs["recordings"][0]

    assert summary.built == 2 and record["channels"] == ["Fp2", "F7", "F3"]
    assert (record["line_freq"], record["reference"]) == (60.0, "Cz")
    assert {s["name"] for s in record["sources"]} >= {"task-x_channels.tsv", "task-x_eeg.json"}


def test_positions_of_a_cap_come_out_in_head_coordinates(tmp_path):
    """Millimetres, and axes as EEGLAB has them: x to the front, y to the left."""
    bids(tmp_path / "b", "01", signal(8), electrodes="name\tx\ty\tz\nFp1\t80\t30\t40\nFp2\tn/a\tn/a\tn/a\n")
    (tmp_path / "b/sub-01/eeg/sub-01_coordsystem.json").write_text(
        json.dumps({"EEGCoordinateSystem": "EEGLAB", "EEGCoordinateUnits": "mm"})
    )

    fetched = fetch(str(tmp_path / "b"), tmp_path / "r.zarr", offline=True)
    places = zarr.open_group(tmp_path / "r.zarr", mode="r")["b/01/0.x"].attrs["positions"]

    assert fetched.exit_code == 0
    np.testing.assert_allclose(places[0], [-0.03, 0.08, 0.04])


def test_not_fetched_content_is_named_and_the_rest_built(tmp_path):
    """Exit code 3; fetching it later builds it and nothing else."""
    write_edf(tmp_path / "set/sub-01.edf", signal(9), RATE)
    (tmp_path / "set/sub-02.edf").symlink_to("../.git/annex/objects/MD5E-2.edf")

    first = build(tmp_path / "c.zarr", tmp_path / "set")
    write_edf(tmp_path / ".git/annex/objects/MD5E-2.edf", signal(10), RATE)
    second = build(tmp_path / "c.zarr", tmp_path / "set")

    assert first.exit_code == 3 and first.quarantined == ("set/02/0.0",)
    assert second.exit_code == 0 and (second.built, second.skipped) == (1, 1)


def test_people_of_two_sites_have_the_same_names_by_fetch_and_by_build(tmp_path):
    """And the finding says where both were found."""
    for seed, site in ((11, "berlin"), (12, "oslo")):
        write_edf(tmp_path / f"set/{site}/sub-01_eeg.edf", signal(seed), RATE)

    build(tmp_path / "c.zarr", f"files:{tmp_path}/set/*/*.edf")
    fetch(f"files:{tmp_path}/set/*/*.edf", tmp_path / "r.zarr", offline=True)

    for store in ("c.zarr", "r.zarr"):
        assert sorted(name for name, _ in group(tmp_path / store, "set").members()) == ["berlin-01", "oslo-01"]
    assert "people: this subject was found in 2 places (berlin, oslo)" in findings(tmp_path / "c.zarr", "set/oslo-01")


def test_a_wrong_scale_is_cured_from_the_command_and_kept_as_a_finding(tmp_path):
    """Microvolts stored as volts: the gate names the factor, the option takes it, and repeating it does nothing."""
    raw_of(signal(13) * 1e6).save(tmp_path / "rec_raw.fif", verbose="error")
    with pytest.raises(SourceError, match="a factor of 1e-06 would fit") as raised:
        build(tmp_path / "c.zarr", tmp_path / "rec_raw.fif")
    assert "--scale 1e-06" in raised.value.fix

    build(tmp_path / "c.zarr", tmp_path / "rec_raw.fif", scale=1e-6, dataset="set")
    again = build(tmp_path / "c.zarr", tmp_path / "rec_raw.fif", scale=1e-6, dataset="set")
    made = group(tmp_path / "c.zarr", "set/rec_raw")

    np.testing.assert_allclose(made["windows"][0][:4], filtered(signal(13))[:, :512], atol=0.05)
    assert "scale: all values were multiplied by 1e-06" in findings(tmp_path / "c.zarr", "set/rec_raw") and again.built == 0
    with pytest.raises(UsageError, match="--scale 0"):
        build(tmp_path / "d.zarr", tmp_path / "rec_raw.fif", scale=0.0)


def test_a_lock_file_repeats_a_build_of_several_folders(tmp_path):
    """Files that were named one by one, and a pattern, of one data set."""
    for person, folder in ((1, "a"), (2, "b"), (3, "b")):
        write_edf(tmp_path / f"{folder}/sub-0{person}.edf", signal(20 + person), RATE)
    sources = (f"{tmp_path}/a/sub-01.edf", f"files:{tmp_path}/b/*.edf")

    build(tmp_path / "c.zarr", *sources, dataset="set", lock=tmp_path / "lock.toml")
    summary = build(tmp_path / "d.zarr", tmp_path / "lock.toml")

    assert summary.subjects == 3
    for subject in ("01", "02", "03"):
        left, right = (group(tmp_path / store, f"set/{subject}") for store in ("c.zarr", "d.zarr"))
        np.testing.assert_array_equal(left["windows"][:], right["windows"][:])
        assert left.attrs["recordings"][0]["sources"] == right.attrs["recordings"][0]["sources"]


def test_the_plan_of_a_fetch_counts_local_files(tmp_path):
    """Files and BIDS folders need no download, but their bytes are read."""
    bids(tmp_path / "b", "01", signal(14))
    size = (tmp_path / "b/sub-01/eeg/sub-01_task-x_eeg.edf").stat().st_size

    for source in (f"files:{tmp_path}/b/**/*.edf", f"bids:{tmp_path}/b", f"{tmp_path}/b"):
        (row,) = fetch_plan([source])

        assert (row.dataset, row.subjects, row.bytes, row.provider) == ("b", 1, size, "local")


@pytest.mark.parametrize(
    ("windows", "labels", "code", "said"),
    [
        ("sliding", 0, "no_labels", "0 windows have a label: the longest of 2 events lasts 400 samples, a window 512"),
        ("trials", 2, "short_trials", "2 of 2 trials are shorter than a window: 0.78 of it (median) lies inside the trial"),
    ],
)
def test_no_label_of_a_short_trial_is_lost_in_silence(tmp_path, windows, labels, code, said):
    """Trials of 2 s at 200 Hz, windows of 512 samples."""
    write_edf(tmp_path / "set/a.edf", signal(30), RATE, events=[(1.0, 2.0, "left"), (6.0, 2.0, "right")])

    build(tmp_path / "c.zarr", tmp_path / "set", windows=windows)
    made = group(tmp_path / "c.zarr", "set/a")

    assert int((made["label"][:] >= 0).sum()) == labels
    assert f"{code}: {said}" in findings(tmp_path / "c.zarr", "set/a")


def test_a_recording_is_not_stored_again_under_a_better_name(tmp_path):
    """0.1.0 named this data set after its file; the same command would have doubled the store."""
    for person in (1, 2):
        write_edf(tmp_path / f"study/sub-0{person}/rest.edf", signal(40 + person), RATE)
    source = f"files:{tmp_path}/study/*/rest.edf"
    build(tmp_path / "c.zarr", source, dataset="rest.edf")

    with pytest.raises(
        StoreError, match=r"sub-01/rest.edf is in the store as rest.edf/sub-01, .* again as study/sub-01"
    ) as raised:
        build(tmp_path / "c.zarr", source)
    assert "--dataset rest.edf" in raised.value.fix
    assert build(tmp_path / "c.zarr", source, dataset="rest.edf").skipped == 2
    fetch(source, tmp_path / "r.zarr", offline=True, dataset="old")
    with pytest.raises(StoreError, match="in the store as old/sub-01"):
        fetch(source, tmp_path / "r.zarr", offline=True)
