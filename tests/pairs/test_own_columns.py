"""Tables of one's own: columns of other names, people that no column names, onsets that are no seconds; what a design can show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dreamdiff.pairs.images import middle_square
from dreamdiff.pairs.importers.design import describe_design
from dreamdiff.pairs.importers.own_columns import not_seconds, own_names, people_of
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from eegprep.errors import DataError

NEEDED = ("recording", "onset", "image", "label")


def table(*columns: str) -> pd.DataFrame:
    return pd.DataFrame([["x"] * len(columns)], columns=list(columns), dtype=object)


def test_columns_go_by_the_names_that_are_given():
    """And a column of people by a usual name is found."""
    made = own_names(
        table("file", "start", "image", "category", "participant"),
        {"recording": "file", "onset": "start", "label": "category"},
        NEEDED,
        Path("t.csv"),
    )
    assert set(made.columns) == {*NEEDED, "subject"}


def test_what_is_meant_stands_in_the_fix():
    """A table of a stimulus program, as it is."""
    with pytest.raises(DataError, match=r"no column 'recording' \(found: file, onset, stimulus, category\)") as error:
        own_names(table("file", "onset", "stimulus", "category"), {}, NEEDED, Path("t.csv"))
    assert error.value.fix.endswith("--columns recording=file,image=stimulus,label=category")
    with pytest.raises(DataError, match="no column 'nothing'"):
        own_names(table("file"), {"recording": "nothing"}, NEEDED, Path("t.csv"))


def test_without_a_column_of_people_recordings_are_named_as_everywhere():
    """Two people must not become one in silence."""
    people, said = people_of(["lab/P01_run1.bdf", "lab/P01_run2.bdf", "lab/P02_run1.bdf"])

    assert people == {"lab/P01_run1.bdf": "P01", "lab/P01_run2.bdf": "P01", "lab/P02_run1.bdf": "P02"}
    assert said.startswith("names: 3 recordings of 2 people") and said.endswith("or a column 'subject' in the table")
    assert set(people_of(["a-1.bdf", "b-1.bdf"], "^.")[0].values()) == {"a", "b"}


@pytest.mark.parametrize(
    ("onsets", "said"),
    [
        ([1024.0, 31180.0], "onsets up to 31180 do not fit a recording of 66 s; are they samples at 512 Hz? They would then end at 60.9 s"),
        ([2000.0, 60900.0], "are they ms? They would then end at 60.9 s"),
        ([1.0, 1e9], "onsets up to 1e+09 do not fit a recording of 66 s"),
    ],
)  # fmt: skip
def test_onsets_that_are_no_seconds_are_named_as_what_they_are(onsets, said):
    """By all of them, not by the first."""
    problem = not_seconds(pd.Series(onsets), 66.0, 512.0)

    assert problem is not None and said in problem[0]
    assert not_seconds(pd.Series([1.0, 65.0]), 66.0, 512.0) is None


def test_a_circle_stays_a_circle():
    """The middle square, as CLIP sees it: a picture of 40 x 20 with a disc of 16 pixels in the middle."""
    y, x = np.mgrid[:20, :40]
    disc = ((y - 9.5) ** 2 + (x - 19.5) ** 2 < 64).astype(np.uint8) * 255
    made = middle_square(np.repeat(disc[..., None], 3, axis=2), 40)[..., 0] > 127

    height, width = made.any(1).sum(), made.any(0).sum()
    assert made.shape == (40, 40) and abs(int(height) - int(width)) <= 1 and abs(int(height) - 32) <= 1


def test_what_was_recorded_and_what_it_can_show_is_said(tmp_path):
    """Two people, four pictures of two categories, three times each; Wilson's interval of 1 in 2 for two pictures by hand."""
    rng = np.random.default_rng(0)
    with PairsWriter(tmp_path / "p.zarr", recipe={}, classes=["cat", "dog"], provenance="recorded", licence="CC0") as writer:
        writer.set_images(rng.integers(0, 255, (4, 8, 8, 3), dtype=np.uint8), [f"{k}.png" for k in range(4)])
        for person in ("anna", "ben"):
            with writer.subject(person, "1", {"sfreq": 2048.0, "t0": 0.0}) as trials:
                image = np.repeat(np.arange(4), 3)
                trials.add(rng.normal(0, 10, (12, 128, 512)).astype("float32"), image=image, label=image // 2)
        writer.finish({"train": range(12), "test": [12, 13, 14, 18, 19, 20]})

    said = "\n".join(describe_design(Pairs.open(tmp_path / "p.zarr")))

    assert "recorded: 24 trials of 2 people, 4 pictures of 2 categories, each picture 3 times a person" in said
    assert "windows: 250 ms (512 samples at 2048 Hz)" in said and "--resample 512 makes windows of 1000 ms" in said
    assert "allows: trial, person; not stimulus (2 pictures in the smallest category (least 3))" in said
    # (0.5 + z2/4) / (1 + z2/2) -+ z / (1 + z2/2) sqrt(0.25/2 + z2/16), z = 1.96
    assert "test part: 6 trials of 2 pictures; an accuracy at chance (50.0%) would have the interval [9.5%, 90.5%]" in said
