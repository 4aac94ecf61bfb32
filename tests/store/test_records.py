"""Every record has one JSON form, and comes back from it as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from eeg_files import eeg, recording

from eegprep.provenance import plain_json
from eegprep.recording import CutFacts, Event, Facts, Finding, LeftOut, Recording, SourceFile
from eegprep.signals.gates import gate_raw
from eegprep.signals.process import process
from eegprep.signals.recipe import make_recipe
from eegprep.store.commit import Commit, StoredFile
from eegprep.store.records import CorpusRecording, LeftOutSubject, SubjectGroup

FINDING = Finding("units", "A/1/0.0", None, 2e7, 300.0, "quarantined", "a factor of 1e-06 would fit")
FILE = SourceFile("a.edf", 10, "0" * 64)
FACTS = Facts(250.0, 64, 20.0, CutFacts(5000, 9))


def through_json(content: object) -> object:
    return json.loads(json.dumps(plain_json(content)))


@pytest.mark.parametrize(
    "record",
    [
        FINDING,
        FILE,
        Event(0.5, 1.0, "left"),
        FACTS,
        replace(FACTS, cut=None, amplitude=None),
        LeftOut("A/1/0.0", (FINDING,), (FILE,), FACTS),
        LeftOut("A/1/0.0", (FINDING,)),
        LeftOutSubject("key", (FACTS,), (LeftOut("A/1/0.0", (FINDING,)),)),
        Commit("key", {"windows/c/0": StoredFile(3, "f" * 64)}, "a" * 64, 2),
        Commit("key", {}, "a" * 64),
    ],
)
def test_a_record_comes_back_from_json(record):
    """Stores are read by other versions: what is written must say all that there is."""
    assert type(record).from_json(through_json(record.to_json())) == record


def test_a_recording_comes_back_from_json():
    """NaN positions and an open upper edge have no number in JSON."""
    made = recording(eeg(3, 500, 200.0), events=[(0.0, 1.0, "left")])
    made = replace(made, findings=(FINDING,), sources=(FILE,), offsets=(1.0, 2.0, 3.0), header={"meas_date": None})

    place = {"dataset": "made", "subject": "1", "session": "0", "run": "0"}
    again = Recording.from_json(through_json(made.to_json()), made.signal_CT, **place)

    assert again.to_json() == made.to_json() and again.band == made.band == (0.0, float("inf"))
    np.testing.assert_array_equal(again.positions_C3, made.positions_C3)
    assert again.events == made.events and again.segments == made.segments == ((0, 500),)


def test_what_a_corpus_keeps_of_a_recording_comes_back_from_json():
    """Cut from a recording, and given as arrays, of which less is known."""
    item = process(recording(eeg(4, 4000, 200.0)), make_recipe())
    made = CorpusRecording.of(item, range(4), "replicate", [(0, 300)])
    given = replace(made, made=None, windows=3)

    for record in (made, given):
        again = CorpusRecording.from_json(through_json(record.to_json()))
        assert plain_json(again.to_json()) == plain_json(record.to_json())
    assert made.seconds == 20.0 and given.seconds is None
    assert CorpusRecording.from_json(through_json(made.to_json())).made.spectra == item.spectra


def test_a_group_without_optional_attributes_is_read():
    """`from_arrays` writes neither facts nor a citation; the person is then the subject itself."""
    group = SubjectGroup.from_json({"dataset": "A", "subject": "1"})

    assert (group.name, group.person, group.commit, group.recordings) == ("A/1", "A/1", None, ())


def test_no_segment_means_no_usable_sample():
    """A recording of which every stretch was skipped is left out with that reason, not filtered as if it were whole."""
    gated = gate_raw(replace(recording(eeg(4, 2000, 200.0)), segments=()), make_recipe())

    assert gated.quarantined
    assert [(f.code, f.value, f.limit) for f in gated.findings if f.quarantines] == [("too_short", 0, 512)]
