"""Tables that fit the terminal: no word is cut, equal facts stand once."""

from __future__ import annotations

import pytest

from cli._tables import fold, fold_findings, lines

ROWS = [
    {"dataset": "PhysionetMI", "recording": f"0.{run:02d}", "sfreq": 160.0, "seconds": 125, "files": [f"S001/S001R{run:02d}.edf"]}
    for run in (4, 6, 8)
]
LONG = [
    {"name": "first", "path": "a/very/long/path/without/any/space/that/is/wider/than/the/terminal.edf", "value": 1},
    {"name": "second", "path": "b.edf", "value": 2},
]


def words(rows: list[dict]) -> set[str]:
    return {
        word
        for row in rows
        for value in row.values()
        for word in str(value).replace("[", "").replace("]", "").replace("'", "").split()
    }


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_table_fits_the_terminal_and_keeps_every_word_that_it_shows_whole(width):
    """A cell of three letters and dots says nothing."""
    text = lines("corpus.zarr", ROWS, width=width)

    assert max(map(len, text)) <= width
    shown = {word.strip(";:,") for line in text for word in line.split()}
    assert {"0.04", "0.06", "0.08", "160", "125"} <= shown
    assert not any("..." in line or "…" in line for line in text)


def test_a_column_that_is_equal_in_every_row_stands_once_above_a_table_that_is_too_wide():
    """Three times the same data set takes the room of what differs."""
    text = lines("corpus.zarr", ROWS, width=44)

    assert sum("PhysionetMI" in line for line in text) == 1
    assert sum("PhysionetMI" in line for line in lines("corpus.zarr", ROWS, width=0)) == 3


def test_a_word_wider_than_the_terminal_stays_whole():
    """A path is copied from the screen into the next command."""
    text = lines("files", LONG, width=50)

    assert sum(LONG[0]["path"] in line for line in text) == 1
    assert words(LONG) <= {word for line in text for word in line.split()}


def test_wide_shows_every_column():
    """`--wide` is for a pager or a wide window."""
    header = lines("corpus.zarr", ROWS, width=0)[1].split()

    assert header == ["dataset", "recording", "sfreq", "seconds", "files"]


def test_equal_findings_are_one_row_with_their_number():
    """32 equal lines hide the one that counts."""
    findings = [{"code": "not_eeg", "recording": f"lab/{run}", "value": None, "message": "EXG1"} for run in range(32)] + [
        {"code": "flat", "recording": "lab/3", "value": 0.0, "message": "A7"}
    ]

    rows = fold(findings)

    assert [(row["times"], row["code"], row["recording"]) for row in rows] == [
        (32, "not_eeg", "lab/0 and 31 more"),
        (1, "flat", "lab/3"),
    ]


def test_values_of_equal_findings_become_a_range():
    """The message is one, the measured values differ."""
    rows = fold([{"code": "nyquist", "recording": f"a/{rate}", "value": rate, "limit": 190} for rate in (128, 160, 140)])

    assert [(row["times"], row["value"]) for row in rows] == [(3, "128 to 160")]


def test_flat_channels_of_a_cap_are_one_row_and_what_was_left_out_is_named_one_by_one():
    """480 lines about one loose cable say less than one; a recording that is missing is worth a line each."""
    flat = [
        {
            "code": "flat",
            "recording": f"lab/{run}",
            "channel": f"E{n}",
            "value": n / 1e9,
            "action": "dropped channel",
            "message": "m",
        }
        for run in range(4)
        for n in range(101, 221)
    ]
    lost = [
        {"code": "unreadable", "recording": f"lab/{run}", "channel": None, "value": None, "action": "quarantined", "message": "m"}
        for run in (7, 8)
    ]

    first, *rest = fold_findings([*flat, *lost])

    assert (first["times"], first["channel"], first["recording"]) == (480, "120 channels, E101 to E220", "lab/0 and 3 more")
    assert [row["recording"] for row in rest] == ["lab/7", "lab/8"]


def test_names_of_channels_that_do_not_count_on_are_listed_in_part():
    """And a few are all listed."""
    row = {"code": "flat", "recording": "lab/1", "value": 0.0, "action": "dropped channel", "message": "m"}

    (many,) = fold_findings([{**row, "channel": name} for name in ("Fp1", "Fp2", "AF7", "Cz")])
    (few,) = fold_findings([{**row, "channel": name} for name in ("Fp1", "Cz")])

    assert (many["channel"], few["channel"]) == ("4 channels, Fp1, Fp2, AF7 ...", "Fp1, Cz")


def test_a_table_that_leaves_columns_out_and_wraps_says_which_and_a_block_leaves_none_out():
    """The plan of a build at 60 and at 40 columns."""
    rows = [
        {
            "dataset": name,
            "recordings": n,
            "bytes": size,
            "licence": f"CC-BY-{n}.0",
            "note": f"windows of {n} subjects from the catalogue",
        }
        for name, n, size in (("PhysionetMI", 6, "900.0 MB"), ("Weibo2014", 10, "1.7 GB"))
    ]

    wrapped, blocks = lines("plan", rows, width=60), lines("plan", rows, width=40)

    assert wrapped[-1] == "(--wide also shows: licence, recordings)" and max(map(len, wrapped)) <= 60
    assert any("   1.7 GB  windows" in line for line in wrapped)  # sizes end in one column, as numbers do
    assert any(line.startswith("licence") for line in blocks) and max(map(len, blocks)) <= 40
