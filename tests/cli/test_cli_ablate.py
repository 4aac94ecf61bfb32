"""Both tables of the paper by one command."""

from __future__ import annotations

import json

import pytest

from cli.main import dreamdiff_app, run
from dreamdiff.programs import ablations


@pytest.fixture
def asked(monkeypatch):
    """What was run, with tables of a word."""
    calls: list[str] = []

    def rows(out, wanted, settings, progress):
        calls.append(f"rows {','.join(wanted)}")
        (out / "table2.md").write_text(f"second {wanted[0]}")
        return [{"row": "1"}]

    def first(out, settings, progress):
        calls.append("table 1")
        (out / "table1.md").write_text("first FID")
        return [{"metric": "FID"}]

    monkeypatch.setattr(ablations, "ablate", rows)
    monkeypatch.setattr(ablations, "table1", first)
    return calls


@pytest.mark.parametrize(
    ("table", "calls", "printed"),
    [
        ("all", ["rows 1", "table 1"], ["second 1", "first FID"]),
        ("1", ["table 1"], ["first FID"]),
        ("2", ["rows 1"], ["second 1"]),
    ],
)
def test_one_command_makes_both_tables_or_either(asked, tmp_path, capsys, table, calls, printed):
    """The rows first: the full model of Table 1 is one of them, and is not trained twice."""
    assert run(dreamdiff_app, "dreamdiff", ["ablate", "--quick", "--rows", "1", "--table", table, "--out", str(tmp_path)]) == 0

    assert asked == calls
    assert capsys.readouterr().out.split("\n")[:-1] == printed
    assert (tmp_path / "tables.html").is_file()


def test_both_tables_as_json_are_told_apart(asked, tmp_path, capsys):
    """By name, as each has rows of its own."""
    assert (
        run(dreamdiff_app, "dreamdiff", ["ablate", "--quick", "--rows", "1", "--table", "all", "--out", str(tmp_path), "--json"])
        == 0
    )

    assert json.loads(capsys.readouterr().out) == {"table1": [{"metric": "FID"}], "table2": [{"row": "1"}]}
