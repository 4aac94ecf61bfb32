"""Triggers, annotations and stimulus logs to the table of `pairs import`: what fits is matched, what does not is an error with both numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from eeg_files import eeg, write_edf
from PIL import Image

from dreamdiff.pairs.importers.trial_log import code_of, match_events, parse_columns, read_log
from dreamdiff.pairs.importers.trial_table import make_table
from eegprep.errors import DataError, UsageError
from eegprep.recording import Event
from eegprep.steps.origin import Choice

NAMES = ("dog_01.png", "dog_02.png", "shoe_01.png", "shoe_02.png")
ORDER = (2, 0, 3, 1, 0, 2)  # picture of each trial


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Two people with a run each: six pictures a run, half a second after whole seconds, code = picture + 1; logs that start 100 s earlier."""
    (tmp_path / "stimuli").mkdir()
    for name in NAMES:
        Image.new("RGB", (8, 6)).save(tmp_path / "stimuli" / name)
    for person in ("P01", "P02"):
        events = [(k + 1.5, 0.0, str(picture + 1)) for k, picture in enumerate(ORDER)]
        write_edf(tmp_path / f"{person}_run1.edf", eeg(2, 1000, 100.0), 100.0, events=[(0.25, 0.0, "99"), *events])
        rows = [f"{NAMES[p]},{NAMES[p].split('_')[0]},{p + 1},{k + 101.5 + 0.004 * (k % 2)}" for k, p in enumerate(ORDER)]
        (tmp_path / f"{person}_run1_log.csv").write_text("\n".join(["image_file,category,trigger,time", *rows]) + "\n")
    return tmp_path


def table(lab: Path, log: str = "*_log.csv", **more):
    return make_table(f"files:{lab}/*.edf", lab, log=log, **more)


def rewrite(file: Path, keep) -> None:
    """Give a log other columns or rows: `keep` maps the list of rows (dictionaries) to a new one."""
    with file.open() as text:
        rows = keep(list(csv.DictReader(text)))
    file.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n")


def test_codes_are_compared_row_by_row_and_the_clock_of_the_log_is_shown(lab):
    """The table is what one would have written by hand: time of the trigger, picture, category, person."""
    made = table(lab)
    made.write(lab / "trials.csv")

    with (lab / "trials.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 12 and {row["subject"] for row in rows} == {"P01", "P02"}
    assert [rows[0][name] for name in ("recording", "onset", "image", "label", "trial")] == [
        "P01_run1.edf", "1.5", "stimuli/shoe_01.png", "shoe", "1",
    ]  # fmt: skip
    assert [float(row["onset"]) for row in rows[:6]] == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert [row["image"] for row in rows[6:]] == [f"stimuli/{NAMES[p]}" for p in ORDER]
    assert "2 recordings of 2 people" in made.notes[0]
    assert (
        "6 events, codes equal column 'trigger' row by row; onset minus 'time' (s) is -100.002 s, at most 2 ms" in made.notes[1]
    )


def test_a_list_of_what_codes_mean_serves_every_recording(lab):
    """One row a code; pictures without their ending, in another folder, columns with names of their own."""
    rows = [f"{k + 1};{Path(name).stem};{name[0]}" for k, name in enumerate(NAMES)]
    (lab / "codes.csv").write_text("\n".join(["nr;bild;art", *rows]) + "\n")
    columns = {"trigger": "nr", "image": "bild", "label": "art"}

    made = table(lab, "codes.csv", columns=columns, images=lab / "stimuli")

    assert [row["image"] for row in made.rows[:6]] == [f"stimuli/{NAMES[p]}" for p in ORDER]
    assert made.rows[0]["label"] == "s" and "6 events by code, column 'nr'" in made.notes[1]


def test_without_codes_events_and_rows_are_matched_one_by_one_by_count(lab):
    """Which events are pictures has to be said where there are others; the numbers of both are in the error."""
    for file in lab.glob("*_log.csv"):
        rewrite(file, lambda rows: [{k: v for k, v in row.items() if k in ("image_file", "category")} for row in rows])

    with pytest.raises(DataError, match=r"P01_run1.edf: 7 events \(.*99: 1.*\), P01_run1_log.csv has 6 rows") as error:
        table(lab)
    assert "--events" in error.value.fix
    made = table(lab, events=("1", "2", "3", "4"))
    assert [row["image"] for row in made.rows[:6]] == [f"stimuli/{NAMES[p]}" for p in ORDER] and "6 of 6" in made.notes[1]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda rows: rows[:-1], "6 events with codes of P02_run1_log.csv, which has 5 rows; the first difference is at row 6: 3 in the recording, nothing"),
        (lambda rows: [*rows[1:], rows[0]], "the first difference is at row 1: 3 in the recording, 1 in the log"),
        (lambda rows: [{**row, "image_file": f"x{row['image_file']}"} for row in rows], "4 of 4 pictures are not near it, the first is xshoe_01.png"),
        (lambda rows: [{k: v for k, v in row.items() if k != "image_file"} for row in rows], "no column that names the pictures"),
    ],
)  # fmt: skip
def test_a_log_that_does_not_fit_is_never_shifted_into_place(lab, keep, message):
    """One lost trigger, and every later picture would be that of its neighbour."""
    rewrite(lab / "P02_run1_log.csv", keep)

    with pytest.raises(DataError, match=message):
        table(lab)


def test_every_recording_has_exactly_one_log(lab):
    """And a file that is not there is said so."""
    (lab / "P02_run1_log.csv").rename(lab / "other_log.csv")
    with pytest.raises(DataError, match=r"P02_run1.edf: 0 of 2 logs begin with its name"):
        table(lab)
    with pytest.raises(DataError, match=r"nothing\.csv does not exist"):
        table(lab, "nothing.csv")


def test_people_of_a_table_are_named_by_the_pattern_that_was_given(lab):
    """As everywhere else."""
    made = table(lab, choice=Choice(subject_pattern="run(1)"))

    assert {row["subject"] for row in made.rows} == {"1"} and "by the pattern that was given" in made.notes[0]


def test_events_of_a_bids_folder_that_name_pictures_are_the_table(tmp_path):
    """`stim_file` counts from `stimuli/`; rows without a picture are left out, and counted."""
    (tmp_path / "stimuli").mkdir()
    for name in NAMES:
        Image.new("RGB", (8, 6)).save(tmp_path / "stimuli" / name)
    write_edf(tmp_path / "sub-anna/eeg/sub-anna_task-see_eeg.edf", eeg(2, 1000, 100.0), 100.0)
    (tmp_path / "dataset_description.json").write_text("{}")
    lines = ["onset\tduration\ttrial_type\tstim_file", "0.5\t0\tfixation\tn/a"]
    lines += [f"{k + 1.5}\t0.5\t{NAMES[p].split('_')[0]}\t{NAMES[p]}" for k, p in enumerate(ORDER)]
    (tmp_path / "sub-anna/eeg/sub-anna_task-see_events.tsv").write_text("\n".join(lines) + "\n")

    made = make_table(f"bids:{tmp_path}", tmp_path)

    assert [(row["onset"], row["image"], row["label"], row["subject"]) for row in made.rows[:2]] == [
        ("1.5", "stimuli/shoe_01.png", "shoe", "anna"), ("2.5", "stimuli/dog_01.png", "dog", "anna"),
    ]  # fmt: skip
    assert "6 of 7 rows of sub-anna_task-see_events.tsv name a picture in column 'stim_file'" in made.notes[-1]


@pytest.mark.parametrize(
    ("label", "code"), [("Stimulus/S  5", "5"), ("005", "5"), ("S 12", "12"), ("STI 014/7", "7"), ("dog", "dog"), ("1.5", "1.5")]
)
def test_codes_are_read_out_of_markers(label, code):
    """BrainVision, Neuroscan and trigger channels write one number in several ways."""
    assert code_of(label) == code


def test_times_in_ms_are_told_and_another_log_is_suspected(tmp_path):
    """A clock that wanders by more than 50 ms is that of another run, or lost frames."""
    file = tmp_path / "log.csv"
    file.write_text("image,time\n" + "".join(f"a.png,{1000 * k + 300 * (k == 3)}\n" for k in range(6)))
    events = [Event(k + 2.0, 0.0, "1") for k in range(6)]

    how = match_events(events, read_log(file), {}, "a.bdf", file).how

    assert (
        "onset minus 'time' (ms) is +2.000 s, at most 300 ms from that (more than 50 ms: is it the log of this recording?)" in how
    )


def test_columns_are_given_as_pairs():
    """What is not of that form is named."""
    assert parse_columns("recording=file, image=stim") == {"recording": "file", "image": "stim"} and parse_columns(None) == {}
    with pytest.raises(UsageError, match="'image' is not of the form NAME=COLUMN"):
        parse_columns("image")
