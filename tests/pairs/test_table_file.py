"""Tables as spreadsheets write them: text stays text, nothing is counted twice."""

from __future__ import annotations

import pandas as pd
import pytest

from dreamdiff.pairs.importers.table_file import numbers, read_table
from eegprep.errors import DataError

NEEDED = ("recording", "onset", "image", "label")
ROWS = [["r.fif", "2", "a.png", "007"], ["r.fif", "7", "b.png", "NA"]]


def write(path, rows=ROWS, sep=",", encoding="utf-8", newline="\n", head=NEEDED, extra=()):
    lines = [sep.join(head), *(sep.join(row) for row in rows), *extra, ""]
    path.write_bytes(newline.join(lines).encode(encoding))
    return path


@pytest.mark.parametrize(
    "form",
    [
        {}, {"sep": ";"}, {"sep": "\t"}, {"sep": ", "}, {"sep": "|"}, {"encoding": "utf-8-sig"}, {"newline": "\r\n"}, {"newline": "\r"},
        {"sep": "\t", "encoding": "utf-16"}, {"extra": ("", "", ",,,")},
    ],
    ids=str,
)  # fmt: skip
def test_separators_encodings_and_line_ends_are_found(tmp_path, form):
    """And `007` and `NA` are labels, not a number and a gap."""
    result = read_table(write(tmp_path / "t.txt", **form), NEEDED)

    assert result.to_numpy().tolist() == ROWS and result.columns.tolist() == list(NEEDED)


def test_latin_1_quotes_and_decimal_commas(tmp_path):
    """A German spreadsheet's CSV."""
    rows = [["r.fif", "2,5", "a.png", "caf\u00e9"], ["r.fif", "7", "b.png", '"dog; big"']]
    result = read_table(write(tmp_path / "t.csv", rows, sep=";", encoding="latin-1"), NEEDED)

    assert result["label"].tolist() == ["caf\u00e9", "dog; big"]
    assert numbers(result["onset"], decimal_comma=True).tolist() == [2.5, 7.0]


def test_a_column_twice_and_a_row_too_long_are_refused(tmp_path):
    """pandas renames the second one in silence."""
    with pytest.raises(DataError, match="2 columns are called 'label'"):
        read_table(write(tmp_path / "t.csv", head=("recording", "onset", "label", "label")), NEEDED)
    with pytest.raises(DataError, match="row 2 has 5 cells, the header 4"):
        read_table(write(tmp_path / "t.csv", [ROWS[0], [*ROWS[1], "more"]]), NEEDED)
    (tmp_path / "b.csv").write_bytes(b"a,b\0c\n")
    with pytest.raises(DataError, match="not a text table"):
        read_table(tmp_path / "b.csv", NEEDED)


def test_a_parquet_table_gives_the_same_text(tmp_path):
    """Whole numbers without a point, gaps as empty cells."""
    pd.DataFrame({"recording": ["r", "r"], "onset": [2, 7], "image": ["a", None], "label": ["007", "NA"]}).to_parquet(
        tmp_path / "t.parquet"
    )

    result = read_table(tmp_path / "t.parquet", NEEDED)

    assert result.to_numpy().tolist() == [["r", "2", "a", "007"], ["r", "7", "", "NA"]]
