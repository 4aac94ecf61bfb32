"""Reads a table as a spreadsheet writes it; every cell stays the text that it is (`007`, `NA`, `1e5`), an empty cell is "".

Separator and encoding are found from the content: `,` `;` tab or `|`; UTF-8 with or without a byte order mark, UTF-16, else Latin-1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eegprep.errors import DataError, missing_path

SEPARATORS = (",", ";", "\t", "|")
_MOST_CELL = 1 << 20  # characters


def read_table(source: Path, needed: Sequence[str]) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as text. The index counts rows below the header from 0, blank ones too.

    Args:
        needed: columns that must be there; they decide which separator it is.

    Raises:
        DataError: missing, not a table, a column twice or not there.
    """
    if not source.is_file():
        raise missing_path(source, DataError)
    if source.suffix.lower() in {".parquet", ".pq"}:
        table = _parquet(source)
    else:
        table = _text(source, needed)
    twice = [name for name in dict.fromkeys(table.columns) if list(table.columns).count(name) > 1]
    if twice:
        raise DataError(
            f"{source.name}: {list(table.columns).count(twice[0])} columns are called {twice[0]!r}",
            "rename or remove one of them",
        )
    return table


def numbers(cells: pd.Series, decimal_comma: bool) -> pd.Series:
    """Cells as numbers, NaN where they are not; `2,5` counts where the comma is not the separator."""
    text = cells.astype(str).str.strip()
    if decimal_comma:
        text = text.str.replace(r"^(-?\d+),(\d+)$", r"\1.\2", regex=True)
    return pd.to_numeric(text, errors="coerce")


def _parquet(source: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(source, dtype_backend="numpy_nullable")
    except (ValueError, OSError, ImportError) as error:
        raise DataError(f"{source.name}: cannot be read as a table ({error})", "give a CSV or Parquet file") from None
    plain = {str(name): ["" if pd.isna(value) else str(value) for value in table[name]] for name in table.columns}
    return pd.DataFrame(plain, dtype=object)


def _text(source: Path, needed: Sequence[str]) -> pd.DataFrame:
    text = _decoded(source.read_bytes(), source).replace("\r\n", "\n").replace("\r", "\n")
    header_line = next((line for line in text.split("\n") if line.strip()), "")
    # csv.Sniffer guesses from cells too, and takes letters for separators
    separator = max(SEPARATORS, key=lambda mark: (_known(header_line, mark, needed), header_line.count(mark)))
    csv.field_size_limit(_MOST_CELL)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise DataError(f"{source.name}: cannot be read as a table ({error})", "give a CSV or Parquet file") from None
    filled = [(line, row) for line, row in rows if any(row)]
    if not filled:
        raise DataError(f"{source.name}: 0 rows (at least 1 is needed)", "give one row per trial")
    (first, header), *body = filled
    for line, row in body:
        if any(row[len(header) :]):
            raise DataError(
                f"{source.name}: row {line - first} has {len(row)} cells, the header {len(header)}",
                "put text with separators in quotes",
            )
    cells = [[*row, *[""] * (len(header) - len(row))][: len(header)] for _, row in body]
    return pd.DataFrame(cells, columns=header, index=[line - first - 1 for line, _ in body], dtype=object)


def _known(header: str, separator: str, needed: Sequence[str]) -> int:
    """How many of the needed columns a separator gives."""
    cells = {cell.strip().strip('"') for cell in header.split(separator)}
    return sum(name in cells for name in needed)


def _decoded(content: bytes, source: Path) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        # Latin-1 last: it reads any bytes
        encodings = ("utf-8-sig", "latin-1")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text
    raise DataError(f"{source.name}: not a text table in UTF-8, UTF-16 or Latin-1", "save it as CSV in UTF-8")
