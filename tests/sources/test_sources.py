"""Reading: real MOABB classes on format-true files, BIDS, every kind of file, and Raw objects."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import mne
import mne_bids
import moabb_fixtures
import numpy as np
import pytest
from eeg_files import eeg, names, write_edf

from eegprep.catalogue import moabb as catalogue
from eegprep.catalogue.manifests import load, parse_source, shipped_folder
from eegprep.corpus.reader import Corpus
from eegprep.download.data_folder import hash_files
from eegprep.errors import SourceError
from eegprep.readers.raws import from_raw
from eegprep.recording import Unreadable
from eegprep.signals.channels import canonical_name, standard_positions
from eegprep.sources import moabb as moabb_source
from eegprep.sources.listing import Task, file_names, list_tasks
from eegprep.sources.moabb import moabb_events
from eegprep.sources.reading import read_source, read_task
from eegprep.steps.build import build, plan

SAMPLE = shipped_folder() / "sample/MNE-eegbci-data/files/eegmmidb/1.0.0"


def made_raw(n_channels=4, n_samples=2000, sfreq=200.0, seed=0, **more):
    info = mne.create_info(names(n_channels), sfreq, "eeg")
    return mne.io.RawArray(eeg(n_channels, n_samples, sfreq, seed) * 1e-6, info, verbose="error", **more)


def read(spec, **options):
    return list(read_source(spec, **options))


# ------------------------------------------------------------------------------------------------------------- files


def test_genuine_recordings_come_out_as_mne_reads_them():
    """Microvolts, EEG only, and the event at sample 0 that MOABB's own pipeline loses."""
    (made,) = read(f"files:{SAMPLE}/S001/S001R04.edf")
    raw = mne.io.read_raw_edf(SAMPLE / "S001/S001R04.edf", preload=True, verbose="error")

    np.testing.assert_allclose(made.signal_CT, raw.get_data() * 1e6, rtol=1e-6)
    assert made.signal_CT.dtype == np.float32 and made.sfreq == 160.0
    assert len(made.events) == len(raw.annotations) == 30
    assert made.events[0].onset == 0.0 and made.events[0].label == "T0"
    assert made.sources[0].sha256 == "3d161f88e1c00632585287d2ce584c2bc0f08862438eb255ea8723e00fac693d"
    assert np.isfinite(made.positions_C3).all()


def test_the_sample_manifest_names_people_and_runs():
    """Subject 1 with three runs, subject 88 at another rate."""
    manifest = load("sample")
    tasks = list_tasks(manifest.sources, Path())

    assert [task.name for task in tasks] == ["PhysionetMI/1", "PhysionetMI/88"]
    runs = list(read_task(tasks[0]))
    assert [item.run for item in runs] == ["04", "06", "08"]
    assert {item.licence for item in runs} == {"ODC-By-1.0"}
    assert {item.person for item in runs} == {"PhysionetMI/1"}


@pytest.mark.parametrize("ending", [".edf", ".bdf", ".fif", ".vhdr", ".set"])
def test_every_usual_format_gives_the_same_recording(tmp_path, ending):
    """Five formats, one signal: within the resolution of 16 bits for EDF."""
    raw = made_raw(seed=3)
    path = tmp_path / f"a{ending}"
    if ending in (".edf", ".bdf"):
        write_edf(path, raw.get_data() * 1e6, 200.0)
    elif ending == ".fif":
        raw.save(tmp_path / "a_raw.fif", verbose="error")
        path = tmp_path / "a_raw.fif"
    else:
        mne.export.export_raw(path, raw, verbose="error")

    (made,) = read(f"files:{path}")

    np.testing.assert_allclose(made.signal_CT, raw.get_data() * 1e6, atol=0.06)
    assert made.channels == tuple(names(4))


def test_the_table_of_places_is_that_of_mne_python():
    """It is a copy, so that workers need not import the library for it."""
    known = mne.channels.get_builtin_montages()
    # MNE 1.13 gave the montage another name, and the old one warns
    montage = mne.channels.make_standard_montage("colin27_1005" if "colin27_1005" in known else "standard_1005")
    info = mne.create_info(montage.ch_names, 100.0, "eeg").set_montage(montage, verbose="error")

    ours = standard_positions(montage.ch_names)

    assert [canonical_name(name) for name in ("Cz", "POO10h")] == ["Cz", "POO10h"]
    np.testing.assert_allclose(ours, [channel["loc"][:3] for channel in info["chs"]], atol=1e-9)


def test_triggers_become_events_where_there_are_no_annotations():
    """BioSemi files have a Status channel and nothing else; the trigger at sample 0 counts."""
    raw = made_raw(n_channels=2, n_samples=1000, sfreq=100.0)
    stim = mne.io.RawArray(np.zeros((1, 1000)), mne.create_info(["Status"], 100.0, "stim"), verbose="error")
    stim._data[0, [0, 1, 500]] = [7, 7, 9]

    made = from_raw(raw.add_channels([stim], force_update_info=True))

    assert [(event.onset, event.label) for event in made.events] == [(0.0, "7"), (5.0, "9")]


def test_only_channels_of_type_eeg_come_out(tmp_path):
    """EDF labels carry the type; EOG must not be padded into a corpus of EEG."""
    write_edf(tmp_path / "a.edf", eeg(3, 2000, 200.0), 200.0, ["EEG Fp1", "EOG left", "EEG Cz"])

    (made,) = read(f"files:{tmp_path}/a.edf")

    assert made.channels == ("Fp1", "Cz")


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("S001R04.edf", r"S0*(?P<subject>\d+)R(?P<run>\d+)", ("1", "0", "04")),
        ("sub-07_ses-b_task-rest_run-2_eeg.vhdr", "", ("07", "b", "task-rest_run-2_eeg")),
        ("S088/S088R10.edf", "", ("S088", "0", "10")),
        ("anna/night 1.edf", "", ("anna", "0", "night-1")),
        ("anna.edf", "", ("anna", "0", "0")),
        ("study/anna/x.edf", "", ("study-anna", "0", "x")),
    ],
)
def test_subject_session_and_run_come_from_pattern_bids_names_or_folders(path, pattern, expected):
    """Splits by person are only as good as this."""
    assert file_names(Path(path), pattern) == expected


def test_a_large_offset_is_taken_off_before_float32(tmp_path):
    """On 20,000 uV of electrode offset float32 has steps of 0.002 uV; in the band that would be a hundred times too coarse."""
    signal_CT = eeg(2, 4000, 200.0)
    info = mne.create_info(["Fz", "Cz"], 200.0, "eeg")
    signal_CT[0] += 20_000.25
    raw = mne.io.RawArray(signal_CT * 1e-6, info, verbose="error")

    made = from_raw(raw)

    assert abs(made.offsets[0] - 20_000) < 100 and made.offsets[1] == 0
    restored = made.signal_CT.astype(float) + np.array(made.offsets)[:, None]
    np.testing.assert_allclose(restored, signal_CT, atol=1e-5)


def test_names_birthdays_and_dates_are_dropped_unless_asked_for():
    """A corpus is shared; headers of clinical files hold patients' names."""
    raw = made_raw()
    raw.set_meas_date(datetime(2020, 5, 4, tzinfo=UTC))
    raw.info["subject_info"] = {"his_id": "Erika Muster", "last_name": "Muster"}

    assert "Muster" not in str(from_raw(raw).describe()) and "2020" not in str(from_raw(raw).describe())
    kept = from_raw(raw, keep_private=True)
    assert kept.header["subject_info"]["last_name"] == "Muster" and kept.header["meas_date"].startswith("2020-05-04")


def test_seams_that_the_file_names_split_the_recording():
    """Filters and windows must not cross them."""
    raw = made_raw()
    raw.set_annotations(mne.Annotations([2.5, 6.0, 1.0], [0.0, 1.0, 1.0], ["boundary", "BAD_ACQ_SKIP", "left"]))

    made = from_raw(raw)

    assert made.segments == ((0, 500), (500, 1200), (1400, 2000))
    assert [event.label for event in made.events] == ["left"]


def test_events_of_a_cropped_raw_are_counted_from_its_own_first_sample():
    """MNE keeps onsets relative to the file's start."""
    raw = made_raw()
    raw.set_annotations(mne.Annotations([5.0], [1.0], ["a"]))

    made = from_raw(raw.crop(4.0, 9.0))

    assert made.events[0].onset == pytest.approx(1.0)


def write_bad(kind, folder):
    path = folder / "a.edf"
    if kind == "not eeg":
        path.write_text("hello")
    elif kind == "text":
        path = folder / "a.txt"
        path.write_text("hello")
    elif kind == "png":
        path = folder / "a.set"
        path.write_bytes(b"\x89PNG\r\n" * 100)
    elif kind == "truncated":
        content = (SAMPLE / "S001/S001R04.edf").read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "cut in the header":
        path.write_bytes((SAMPLE / "S001/S001R04.edf").read_bytes()[:3000])
    elif kind == "no eeg":
        write_edf(path, eeg(2, 2000, 200.0), 200.0, ["EOG left", "EMG chin"])
    elif kind == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("not eeg", "not an EDF"),
        ("text", "no table of samples"),
        ("png", "cannot be read"),
        ("truncated", "truncated, 1,298,448 bytes where its header promises 2,596,896"),
        ("cut in the header", "not an EDF"),
        ("no eeg", "0 of 2 channels are EEG"),
        ("empty", "not an EDF"),
    ],
)
def test_a_bad_file_says_what_is_wrong_with_it(tmp_path, kind, message):
    """MNE reads a truncated EDF without a word; the header tells how long it has to be."""
    path = write_bad(kind, tmp_path)

    with pytest.raises(SourceError, match=message):
        read(f"files:{path}")


def test_one_bad_file_does_not_take_the_others_with_it(tmp_path):
    """It comes out as what it is, between the good ones."""
    write_edf(tmp_path / "sub-1_run-1.edf", eeg(2, 2000, 200.0), 200.0)
    (tmp_path / "sub-1_run-2.edf").write_bytes(b"broken")
    write_edf(tmp_path / "sub-1_run-3.edf", eeg(2, 2000, 200.0), 200.0)
    (task,) = list_tasks([parse_source(f"files:{tmp_path}/*.edf")], tmp_path)

    items = list(read_task(task))

    assert [isinstance(item, Unreadable) for item in items] == [False, True, False]
    assert items[1].finding.action == "quarantined" and "not an EDF" in items[1].finding.message


def test_a_file_that_changed_since_it_was_listed_is_not_read(tmp_path):
    """The hash on record would then belong to other bytes."""
    path = write_edf(tmp_path / "a.edf", eeg(2, 2000, 200.0), 200.0)
    (task,) = list_tasks([parse_source(f"files:{path}")], tmp_path)
    write_edf(path, eeg(2, 2000, 200.0, seed=9), 200.0)

    (item,) = read_task(task)

    assert isinstance(item, Unreadable) and "has changed" in item.error.problem


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("files:/nowhere/*.edf", "no file matches"),
        ("bids:{tmp}", "0 recordings"),
    ],
)
def test_a_source_without_recordings_is_an_error(tmp_path, spec, message):
    """Rather than an empty corpus."""
    with pytest.raises(SourceError, match=message):
        read(spec.format(tmp=tmp_path))


# -------------------------------------------------------------------------------------------------------------- BIDS


def test_a_bids_folder_is_read_by_mne_bids(tmp_path):
    """Channel types from channels.tsv, events from events.tsv, one recording a run."""
    raw = made_raw(n_channels=3)
    raw.set_channel_types({"F7": "eog"}, verbose="error")
    raw.info["line_freq"] = 50
    raw.set_annotations(mne.Annotations([0.0, 4.0], [2.0, 2.0], ["left", "right"]))
    raw.save(tmp_path / "x_raw.fif", verbose="error")
    source = mne.io.read_raw_fif(tmp_path / "x_raw.fif", verbose="error")
    for subject in ("01", "02"):
        for run in ("1", "2"):
            place = mne_bids.BIDSPath(subject=subject, session="a", task="t", run=run, root=tmp_path / "bids", datatype="eeg")
            mne_bids.write_raw_bids(source, place, format="BrainVision", allow_preload=True, overwrite=True, verbose="error")

    made = read(f"bids:{tmp_path}/bids")

    assert [(item.subject, item.session, item.run) for item in made] == [
        ("01", "a", "t-1"), ("01", "a", "t-2"), ("02", "a", "t-1"), ("02", "a", "t-2"),
    ]  # fmt: skip
    assert made[0].channels == ("Fp1", "Fp2")
    assert [(event.onset, event.label) for event in made[0].events] == [(0.0, "left"), (4.0, "right")]
    np.testing.assert_allclose(made[0].signal_CT, raw.get_data(picks="eeg") * 1e6, atol=0.1)
    assert any(file.name.endswith("_channels.tsv") for file in made[0].sources)


# ------------------------------------------------------------------------------------------------------------- MOABB


@pytest.fixture(scope="module")
def moabb_data(tmp_path_factory):
    """Format-true files of real MOABB classes, and genuine ones of PhysionetMI beside them."""
    root = tmp_path_factory.mktemp("mne_data")
    for write in (moabb_fixtures.cho2017, moabb_fixtures.kaneshiro2015, moabb_fixtures.shin2017a, moabb_fixtures.mamem1):
        write(root)
    moabb_fixtures.grosse_wentrup(root)
    moabb_fixtures.schirrmeister(root)
    moabb_fixtures.physionet_mi(root, 2, n_trials=3)
    return root


def moabb_task(root: Path, name: str, subject: str) -> Task:
    """What `list_tasks` gives, without the process of its own in which MOABB is asked for the files."""
    source = parse_source(f"moabb:{name}").model_copy(update={"subjects": (subject,)})
    files = [path for path in root.rglob("*") if path.is_file() and ".eegprep" not in path.parts]
    return Task(source, subject, tuple(hash_files(files, root)), str(root), f"{name}/{subject}")


# class: (recordings, channels, Hz, segments of the first)
MOABB = {
    "PhysionetMI": (6, 64, 160.0, 1),
    "Cho2017": (1, 64, 512.0, 8),
    "MAMEM1": (2, 256, 250.0, 1),
    "Kaneshiro2015": (1, 124, 62.5, 24),
    "GrosseWentrup2009": (1, 128, 500.0, 1),
    "Schirrmeister2017": (2, 126, 500.0, 1),  # 128 with both mastoids
    "Shin2017A": (3, 30, 200.0, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MOABB))
def test_real_moabb_classes_read_without_a_network(moabb_data, name):
    """EEG only, the right unit, every run, seams found, and files that name where it came from."""
    subject = "2" if name == "PhysionetMI" else "1"
    made = list(read_task(moabb_task(moabb_data, name, subject)))

    recordings, channels, sfreq, segments = MOABB[name]
    assert not [item for item in made if isinstance(item, Unreadable)]
    assert len(made) == recordings
    assert {len(item.channels) for item in made} == {channels} and {item.sfreq for item in made} == {sfreq}
    assert len(made[0].segments) == segments
    assert made[0].sources and all((moabb_data / file.name).is_file() for file in made[0].sources)
    assert 5 < np.median(made[0].signal_CT[:, 200:-200].std(axis=1)) < 100
    assert made[0].events and made[0].licence != "unknown"


@pytest.mark.slow
def test_each_run_of_physionet_names_its_own_file(moabb_data):
    """One run is in memory at a time, and its source is the one file that was opened for it."""
    source = parse_source("moabb:PhysionetMI").model_copy(update={"subjects": ("2",)})
    (task,) = list_tasks([source], moabb_data, offline=True)

    opened = [[Path(file.name).stem for file in item.sources] for item in read_task(task)]

    assert opened == [["S002R04"], ["S002R08"], ["S002R12"], ["S002R06"], ["S002R10"], ["S002R14"]]


@pytest.mark.slow
def test_the_first_event_of_a_moabb_recording_is_kept(moabb_data):
    """MOABB's default pipeline drops an event at sample 0: the first of every PhysionetMI run."""
    first = next(iter(read_task(moabb_task(moabb_data, "PhysionetMI", "2"))))

    assert first.events[0].onset == 0.0 and len(first.events) == 6


@pytest.mark.slow
def test_a_damaged_run_of_a_moabb_subject_leaves_the_others(moabb_data, tmp_path):
    """PhysionetMI is loaded run by run, so one truncated file costs one run."""
    shutil.copytree(moabb_data / "MNE-eegbci-data", tmp_path / "MNE-eegbci-data")
    broken = tmp_path / "MNE-eegbci-data/files/eegmmidb/1.0.0/S002/S002R06.edf"
    broken.write_bytes(broken.read_bytes()[:500])
    made = list(read_task(moabb_task(tmp_path, "PhysionetMI", "2")))

    assert [isinstance(item, Unreadable) for item in made] == [False, False, False, True, False, False]


@pytest.mark.slow
def test_a_picture_viewing_set_of_moabb_builds_into_labelled_windows(moabb_data, tmp_path):
    """Its 24 trials of half a second are joined without pauses: no window may reach over a seam."""
    assert catalogue.entry("Kaneshiro2015").task == "viewing"
    words = {"subjects": "1", "data_dir": moabb_data, "offline": True}
    by_trial = build("moabb:Kaneshiro2015", tmp_path / "t.zarr", window=32, windows="trials", stride=32, **words)
    stretched = build("moabb:Kaneshiro2015", tmp_path / "s.zarr", short="stretch", windows="trials", **words)

    for summary in (by_trial, stretched):
        labels = Corpus.open(summary.out).labels.tolist()
        assert summary.windows == 24 and len(set(labels)) == 6 and all(labels)


def test_a_plan_counts_what_is_here_from_its_headers_and_says_what_it_only_knows_from_the_catalogue(tmp_path):
    """Of PhysionetMI the folder holds more runs than the class gives; the third person is not in it."""
    moabb_fixtures.physionet_mi(tmp_path, 2, n_trials=6)
    before = sorted(path for path in tmp_path.rglob("*"))
    samples = (int(4.2 * 12) + 4) * 160  # of each of the six runs of imagery; both runs of rest and all else are not given

    (here,) = plan("moabb:PhysionetMI", tmp_path / "c.zarr", subjects="2", data_dir=tmp_path)
    (both,) = plan("moabb:PhysionetMI", tmp_path / "c.zarr", subjects="2,3", data_dir=tmp_path)

    assert (here.recordings, here.windows, here.note) == (6, 6 * (samples // 512), "")
    assert both.note == "1 subject from MOABB's catalogue" and both.windows > here.windows
    assert here.bytes_in == sum(
        path.stat().st_size for path in before if path.suffix == ".edf" and path.stem[-2:] not in ("01", "02")
    )
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_plan_of_fetched_files_counts_what_is_then_built(moabb_data, tmp_path):
    """Formats with a header are counted, also those of a class whose names of files are not known; MATLAB files are declared."""
    words = {"subjects": "1", "data_dir": moabb_data}
    for name in ("Schirrmeister2017", "GrosseWentrup2009", "Cho2017"):
        built = build(f"moabb:{name}", tmp_path / f"{name}.zarr", offline=True, **words)
        (row,) = plan(f"moabb:{name}", tmp_path / "other.zarr", **words)
        counted = (row.recordings, row.windows) == (built.recordings, built.windows)
        assert counted == (name != "Cho2017") == (row.note == "")


def test_moabb_trials_are_intervals_around_the_cue_at_sample_0():
    """Both ways in which loaders mark events: stimulus channel and annotations."""
    raw = made_raw(n_channels=2, n_samples=1000, sfreq=100.0)
    stim = mne.io.RawArray(np.zeros((1, 1000)), mne.create_info(["STI"], 100.0, "stim"), verbose="error")
    stim._data[0, [0, 400, 401]] = [1, 2, 2]
    with_stim = raw.copy().add_channels([stim], force_update_info=True)
    raw.set_annotations(mne.Annotations([0.0, 4.0, 5.0], [0, 0, 0], ["left", "right", "noise"]))

    for given in (with_stim, raw):
        events = moabb_events(given, {"left": 1, "right": [2, 3]}, (0.5, 2.5))
        assert [(event.onset, event.duration, event.label) for event in events] == [(0.5, 2.0, "left"), (4.5, 2.0, "right")]


def test_what_a_loader_only_logs_is_heard():
    """A dozen loaders catch the error of a file, log it, and return the rest."""
    import logging

    with moabb_source._LoaderLog() as output:
        logging.getLogger("moabb.datasets.made").warning("Failed to load session 2: truncated")
        logging.getLogger("moabb.datasets.made").warning("Trials demeaned and stacked")

    assert output.failures == ["Failed to load session 2: truncated"]
