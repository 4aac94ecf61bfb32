"""Listing: what a source holds, in place, with names under which people and recordings stay apart."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mne
import numpy as np
import pytest
from eeg_files import eeg, names, write_edf

from eegprep.catalogue.manifests import load
from eegprep.download import data_folder
from eegprep.errors import SourceError
from eegprep.sources.files import find_recordings
from eegprep.sources.listing import list_tasks, who_is_who
from eegprep.sources.naming import Named, read_name, settle


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """A good EDF file to copy."""
    return write_edf(tmp_path_factory.mktemp("one") / "a.edf", eeg(4, 1200, 100.0), 100.0)


def put(source: Path, folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / path)


def listed(*specs: str) -> dict[str, list[str]]:
    """Names of recordings by subject."""
    return {
        task.name: [f"{r.session}.{r.run}" for r in task.recordings] for task in list_tasks(load(list(specs)).sources, Path())
    }


def found(target: object) -> list[str]:
    """Names of what a target holds, relative."""
    root, recordings = find_recordings(str(target))
    return [path.relative_to(root).as_posix() for path in recordings]


# ------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["berlin/sub-01_eeg.edf", "oslo/sub-01_eeg.edf"], [("berlin-01", "0"), ("oslo-01", "0")]),
        (["berlin/S001R01.edf", "oslo/S001R01.edf"], [("berlin-S001", "0"), ("oslo-S001", "0")]),
        (["berlin_sub-01.edf", "oslo_sub-01.edf"], [("berlin-01", "0"), ("oslo-01", "0")]),
        (["berlin/sub-01_eeg.edf", "oslo/sub-02_eeg.edf"], [("01", "0"), ("02", "0")]),
        (["S001/S001R01.edf", "S001/S001R02.edf"], [("S001", "0"), ("S001", "0")]),
        (["sub-01/ses-1/eeg/sub-01_ses-1_eeg.edf", "sub-01/ses-2/eeg/sub-01_ses-2_eeg.edf"], [("01", "1"), ("01", "2")]),
        (["sub-01/ses-1/rest.edf", "sub-01/ses-2/rest.edf"], [("sub-01", "1"), ("sub-01", "2")]),
        (["anna/session 1/x.edf", "anna/session 2/x.edf"], [("anna", "1"), ("anna", "2")]),
        (["sub-m\u00fcller_run-1.edf", "sub-m\u00f6ller_run-1.edf"], [("muller", "0"), ("moller", "0")]),
        (["P01_lab_run1.bdf", "P01_lab_run2.bdf", "P02_ben_run1.bdf"], [("P01", "0"), ("P01", "0"), ("P02", "0")]),
        (["Subject02_1.edf", "Subject02_2.edf", "Subject06_1.edf"], [("Subject02", "0"), ("Subject02", "0"), ("Subject06", "0")]),
        (["lab_session1.edf", "lab_session2.edf"], [("lab", "1"), ("lab", "2")]),
        (["anna_day2_run1.edf", "anna_day2_run2.edf"], [("anna", "2"), ("anna", "2")]),
        (["controls/S01.edf", "controls/S02.edf", "patients/S03.edf"], [("S01", "0"), ("S02", "0"), ("S03", "0")]),
        (["controls/S01.edf", "patients/S01.edf"], [("controls-S01", "0"), ("patients-S01", "0")]),
        (["lab_01.edf", "lab_02.edf"], [("lab_01", "0"), ("lab_02", "0")]),
        (["\u674e.edf", "\u738b.edf"], [("u674e", "0"), ("u738b", "0")]),
    ],
)
def test_people_are_told_apart_and_sessions_kept_together(paths, expected):
    """Two sites with a sub-01 each are two people; one person's sessions are one person's."""
    settled = settle([read_name(Path(path)) for path in paths])

    assert [(name.subject, name.session) for name in settled] == expected


@pytest.mark.parametrize(
    "paths",
    [
        ["muller.edf", "m\u00fcller.edf", "mu\u0308ller 2.edf"],
        ["a b.edf", "a-b.edf", "a_b.edf", "a.b.edf", "a(b).edf"],
        ["x/a/b.edf", "x-a/b.edf", "x/a-b.edf"],
        ["sub-01_task-rest_eeg.edf", "sub-01_task-rest_eeg.bdf", "sub-01_task-rest_eeg.set"],
        ["anna/rest 1.edf", "anna/rest-1.edf", "anna/rest(1).edf"],
        ["one/sub-01_run-1.edf", "two/sub-01_run-1.edf", "sub-01_run-1.edf"],
        ["n" * 240 + "1.edf", "n" * 240 + "2.edf"],
    ],
)
def test_no_two_recordings_share_a_name_whatever_they_are_called(paths):
    """Names on disk are longer and richer than names in a store."""
    settled = settle([read_name(Path(path)) for path in paths])
    full = [f"{name.subject}/{name.session}.{name.run}" for name in settled]

    assert len(set(full)) == len(paths)
    assert all(name.isascii() and len(part) < 130 for name in full for part in name.split("/"))


def test_a_pattern_decides_who_it_is_and_recordings_still_stay_apart():
    """The user says that one person was in both rooms."""
    settled = settle([read_name(Path(f"{room}/x_p7.edf"), r"p(?P<subject>\d+)") for room in ("a", "b")])

    assert [name.subject for name in settled] == ["7", "7"]
    assert len({name.run for name in settled}) == 2


def test_patterns_for_the_person_and_the_session_must_fit_every_name():
    """A file that they do not fit would be a person by accident."""
    named = read_name(Path("P01/x-anna-s2.edf"), subject_pattern="x-([a-z]+)", session_pattern=r"s(\d)")
    assert (named.subject, named.session, named.run) == ("anna", "2", "x--s2")
    assert read_name(Path("P01/x.edf"), subject_pattern=r"P\d+").subject == "P01"
    with pytest.raises(SourceError, match=r"ben\.edf: --subject-pattern .* fits nowhere in this name"):
        read_name(Path("ben.edf"), subject_pattern=r"P\d+")


def test_a_table_of_participants_says_which_file_is_whose(tmp_path, recording):
    """And has to name every file, each once; a table without files, as in BIDS, says nothing."""
    put(recording, tmp_path / "lab", "a.edf", "b.edf", "c.edf")
    table = tmp_path / "lab/participants.tsv"
    table.write_text("participant_id\tage\nsub-anna\t30\n")
    assert len(listed(f"files:{tmp_path}/lab/*.edf")) == 3

    table.write_text("participant_id\tfile\tsession\nsub-anna\ta.edf\t1\nsub-anna\tb.edf\t2\nsub-ben\tc.edf\t1\n")
    tasks = list_tasks(load(f"files:{tmp_path}/lab/*.edf").sources, Path())
    assert {task.subject: [item.session for item in task.recordings] for task in tasks} == {"anna": ["1", "2"], "ben": ["1"]}
    assert who_is_who(tasks)[0].startswith("names: 3 recordings of 2 people, by the table of participants (anna of a.edf)")
    for rows, message in (("anna\ta.edf\n", "b.edf: not in the table"), ("anna\ta.edf\nben\ta.edf\n", "a.edf a second time")):
        table.write_text(f"participant_id\tfile\n{rows}")
        with pytest.raises(SourceError, match=message):
            listed(f"files:{tmp_path}/lab/*.edf")


def test_who_is_told_apart_by_place_says_so():
    """If it is one person after all, the finding tells where to look."""
    settled = settle(
        [
            Named("01", "0", "0", Path("a/1"), ("a",)),
            Named("01", "0", "0", Path("b/1"), ("b",)),
            Named("02", "0", "0", Path("b/2"), ("b",)),
        ]
    )

    assert settled[0].alike == settled[1].alike == ("a", "b") and settled[2].alike == ()


def test_fetch_and_build_use_the_same_names(tmp_path, recording):
    """Both take them from the one listing, sources of one data set in two folders included."""
    put(recording, tmp_path, "set/part1/1.0.0/sub-01.edf", "set/part2/1.0.0/sub-02.edf")

    assert listed(f"files:{tmp_path}/set/part1/1.0.0/*.edf", f"files:{tmp_path}/set/part2/1.0.0/*.edf") == {
        "set/01": ["0.0"],
        "set/02": ["0.0"],
    }


# ----------------------------------------------------------------------------------------------------------- listing


def test_remembered_hashes_are_read_and_written_once_for_all_people(tmp_path, recording, monkeypatch):
    """Once for each of them made a plan of ten thousand people take hours."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *args, **kwargs: str(tmp_path / "cache"))
    for number in range(6):
        shutil.copy(recording, tmp_path / f"sub-{number}.edf")
        os.utime(tmp_path / f"sub-{number}.edf", (1e9, 1e9))
    written = []
    monkeypatch.setattr(data_folder, "write_json", lambda path, content: written.append(len(content)))

    names_of_people = listed(f"files:{tmp_path}/*.edf")

    assert len(names_of_people) == 6 and written == [6]


def test_links_and_what_was_not_fetched_are_listed_in_place(tmp_path, recording):
    """A git-annex tree: links into the store of content, and links that lead nowhere yet."""
    put(recording, tmp_path, "annex/objects/MD5E-1.edf")
    study = tmp_path / "study"
    study.mkdir()
    (study / "sub-01.edf").symlink_to("../annex/objects/MD5E-1.edf")
    (study / "sub-02.edf").symlink_to("../.git/annex/objects/MD5E-2.edf")
    (study / "sub-03.edf").write_text("/annex/objects/MD5E-s99--3.edf\n")
    (study / "sub-04.edf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")

    good, *lost = list_tasks(load(f"files:{study}/*.edf").sources, Path())

    assert good.files[0].name == "sub-01.edf" and good.recordings[0].problem is None
    assert [task.subject for task in lost] == ["02", "03", "04"]
    for task in lost:
        problem = task.recordings[0].problem
        assert problem is not None and "not been fetched" in problem.problem and "datalad get" in problem.fix


@pytest.mark.parametrize(
    "name", ["study [2024]/a [1].edf", "study [2024]/*.edf", "study [2024]", "study*/a [[]1].edf", "*/a [1].edf"]
)
def test_what_exists_by_a_name_is_meant_literally(tmp_path, recording, name):
    """File managers write brackets into names; a pattern is only what names no file."""
    put(recording, tmp_path, "study [2024]/a [1].edf")

    assert [Path(path).name for path in found(tmp_path / name)] == ["a [1].edf"]


def test_a_folder_is_searched_and_what_is_no_recording_left_alone(tmp_path, recording):
    """Notes, tables, pictures and the hidden files of macOS lie beside recordings."""
    put(recording, tmp_path, "deep/er/a.edf", "B.EDF", "._B.EDF")
    for name in ("notes.txt", "people.tsv", "p.csv", "cap.png", ".DS_Store"):
        (tmp_path / name).write_text("x")

    assert found(tmp_path) == ["B.EDF", "deep/er/a.edf"]
    assert found(f"{tmp_path}/**/*") == ["B.EDF", "deep/er/a.edf", "p.csv"]


def test_links_in_a_circle_give_each_recording_once(tmp_path, recording):
    """Two links back would be 2^40 paths for a plain glob."""
    put(recording, tmp_path, "a/rec.edf")
    (tmp_path / "a/back").symlink_to(tmp_path)
    (tmp_path / "a/again").symlink_to(tmp_path / "a")

    assert found(tmp_path) == found(f"{tmp_path}/**/*.edf") == ["a/rec.edf"]


def test_a_recording_that_is_a_folder_is_one_item(tmp_path, recording):
    """EGI writes folders; what is in them is no recording of its own, and all of it is hashed."""
    put(recording, tmp_path, "a.edf")
    (tmp_path / "b.mff").mkdir()
    (tmp_path / "b.mff/info.xml").write_text("<x/>")
    (tmp_path / "b.mff/signal1.bin").write_bytes(b"1")

    assert found(f"{tmp_path}/*") == found(tmp_path) == found(f"{tmp_path}/**/*") == ["a.edf", "b.mff"]
    task = next(task for task in list_tasks(load(f"files:{tmp_path}/*").sources, Path()) if task.subject == "b")
    assert [file.name for file in task.files] == ["b.mff/info.xml", "b.mff/signal1.bin"]


def test_a_file_that_cannot_be_read_is_its_own_problem(tmp_path, recording, monkeypatch):
    """A disk fault while hashing costs that file; the others are listed."""
    put(recording, tmp_path, "a.edf", "b.edf")
    plain = Path.open

    def faulty(self, *arguments, **options):
        if self.name == "b.edf":
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", faulty)
    first, second = list_tasks(load(f"files:{tmp_path}/*.edf").sources, Path())

    assert first.recordings[0].problem is None
    assert "may not read" in str(second.recordings[0].problem) and "Permission denied" not in str(second.recordings[0].problem)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, recording):
    """Instead of being passed over in silence."""
    put(recording, tmp_path, "a/rec.edf", "b/rec.edf")
    (tmp_path / "b").chmod(0)

    assert found(f"{tmp_path}/*/*.edf") == ["a/rec.edf", "b"]


# -------------------------------------------------------------------------------------------------------- companions


def brainvision(folder: Path, name: str) -> None:
    info = mne.create_info(names(4), 100.0, "eeg")
    raw = mne.io.RawArray(eeg(4, 1200, 100.0) * 1e-6, info, verbose="error")
    raw.set_annotations(mne.Annotations([2.0], [0.5], ["Stimulus/S  1"]))
    mne.export.export_raw(folder / f"{name}.vhdr", raw, verbose="error", overwrite=True)


def test_samples_and_markers_are_among_the_files_of_a_recording(tmp_path):
    """A replaced .eeg or .vmrk must rebuild; neither is a recording of its own."""
    brainvision(tmp_path, "rec")

    (task,) = list_tasks(load(f"files:{tmp_path}/*").sources, Path())

    assert [file.name for file in task.files] == ["rec.eeg", "rec.vhdr", "rec.vmrk"]


def test_headers_that_name_their_files_by_an_old_name_or_a_lost_one_say_so(tmp_path):
    """Renamed without mending the pointers, as half of the BIDS data sets are."""
    brainvision(tmp_path, "old")
    for ending in ("vhdr", "eeg"):
        (tmp_path / f"old.{ending}").rename(tmp_path / f"new.{ending}")
    (tmp_path / "old.vmrk").unlink()

    (task,) = list_tasks(load(f"files:{tmp_path}/*").sources, Path())
    codes = dict(task.recordings[0].oddities)

    assert [file.name for file in task.files] == ["new.eeg", "new.vhdr"]
    assert "old.eeg" in codes["renamed"] and "old.vmrk" in codes["markers"]


def test_a_header_never_reads_a_file_outside_its_folder(tmp_path):
    """The bare name counts, whatever path the header writes in front of it."""
    (tmp_path / "in").mkdir()
    brainvision(tmp_path, "secret")
    brainvision(tmp_path / "in", "rec")
    header = tmp_path / "in/rec.vhdr"
    header.write_text(header.read_text().replace("DataFile=rec.eeg", "DataFile=../secret.eeg"))
    (tmp_path / "in/rec.eeg").unlink()

    (task,) = list_tasks(load(f"files:{header}").sources, Path())

    assert "samples are missing" in str(task.recordings[0].problem)


def test_parts_of_a_split_fif_are_one_recording(tmp_path):
    """MNE-Python splits at 2 GB; the parts are named in the file."""
    info = mne.create_info(names(4), 100.0, "eeg")
    raw = mne.io.RawArray(np.zeros((4, 200_000)), info, verbose="error")
    raw.save(tmp_path / "rec_raw.fif", split_size="2MB", buffer_size_sec=10.0, verbose="error")
    other = mne.io.RawArray(np.zeros((4, 1000)), info, verbose="error")
    other.save(tmp_path / "x_raw.fif", verbose="error")
    other.save(tmp_path / "x-1_raw.fif", verbose="error")

    tasks = list_tasks(load(f"files:{tmp_path}/*.fif").sources, Path())

    assert {task.subject: len(task.recordings) for task in tasks} == {"rec_raw": 1, "x-1_raw": 1, "x_raw": 1}
    assert {file.name for file in tasks[0].files} == {path.name for path in tmp_path.glob("rec_raw*.fif")}


@pytest.mark.parametrize(
    ("naming", "lost"), [("neuromag", "rec_raw-1.fif"), ("bids", "rec_split-02_raw.fif"), ("bids", "rec_split-01_raw.fif")]
)
def test_a_split_recording_without_one_of_its_parts_is_refused_whole(tmp_path, naming, lost):
    """Its other parts are no recordings of their own, and what is left of it is not taken for all of it."""
    info = mne.create_info(names(4), 100.0, "eeg")
    raw = mne.io.RawArray(np.zeros((4, 200_000)), info, verbose="error")
    raw.save(tmp_path / "rec_raw.fif", split_size="2MB", buffer_size_sec=10.0, split_naming=naming, verbose="error")
    (tmp_path / lost).unlink()

    recordings = [item for task in list_tasks(load(f"files:{tmp_path}/*.fif").sources, Path()) for item in task.recordings]

    assert recordings and all(item.problem is not None and "part" in item.problem.problem for item in recordings)


def test_sidecars_of_every_level_are_among_the_files(tmp_path, recording):
    """A corrected table at the root holds for everybody, and must rebuild everybody."""
    put(recording, tmp_path, "sub-01/ses-a/eeg/sub-01_ses-a_task-x_eeg.edf", "sub-01/ses-a/eeg/sub-01_ses-a_task-y_eeg.edf")
    for name in (
        "task-x_channels.tsv", "task-y_channels.tsv", "eeg.json", "task-x_eeg.json", "sub-01/sub-01_electrodes.tsv",
        "sub-01/ses-a/sub-01_ses-a_task-x_channels.tsv", "sub-01/ses-a/eeg/sub-01_ses-a_task-x_events.tsv",
    ):  # fmt: skip
        (tmp_path / name).write_text("{}" if name.endswith("json") else "name\n")

    (task,) = list_tasks(load(f"bids:{tmp_path}").sources, Path())
    x, y = ({file.name for file in item.files} for item in task.recordings)

    assert x - y >= {
        "task-x_eeg.json",
        "sub-01/ses-a/sub-01_ses-a_task-x_channels.tsv",
        "sub-01/ses-a/eeg/sub-01_ses-a_task-x_events.tsv",
    }
    assert "task-x_channels.tsv" not in x and "task-y_channels.tsv" in y
    assert {"eeg.json", "sub-01/sub-01_electrodes.tsv"} <= x & y
