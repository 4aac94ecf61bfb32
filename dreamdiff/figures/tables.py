"""Tables 1 and 2 of the paper as one page, from what `dreamdiff ablate` left in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dreamdiff.programs.tables import figures_of, protocols, table1_cells, table2_cells, table2_sentences
from dreamdiff.protocols.frame import report_page

CONTENT = (
    ("Table 2: what each part adds", "table2.json", table2_cells, table2_sentences),
    ("Table 1: beside Brain2Image", "table1.json", table1_cells, lambda rows: protocols(figures_of(rows))),
)


def tables_page(out: Path) -> Path:
    """Write `tables.html` with the tables that are in `out`; under each, the protocol, n, seed and interval of every figure."""
    tables: dict[str, Any] = {
        file: json.loads((out / file).read_text(encoding="utf-8")) for _, file, _, _ in CONTENT if (out / file).is_file()
    }
    simulated = any(table.get("provenance") == "simulated" for table in tables.values())
    page = report_page(
        "The tables of the paper, made again",
        "Printed figures are of other data and other judges: not to be compared in height. In brackets: 95 % intervals.",
        "simulated" if simulated else "",
    )
    for title, file, cells, sentences in CONTENT:
        if file in tables:
            page.heading(title)
            page.table(cells(tables[file]["rows"]))
            for sentence in sentences(tables[file]["rows"]):
                page.text(sentence)
    page.write(out / "tables.html")
    return out / "tables.html"
