"""`eegprep datasets`: a table for people, JSON for programs, a manifest for `build`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import eegprep_app, run


def test_the_table_is_tab_separated_where_it_is_piped(capsys: pytest.CaptureFixture[str]) -> None:
    """So that `cut` and `sort` work; messages go to standard error."""
    assert run(eegprep_app, "eegprep", ["datasets"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()

    assert len(lines) == 109
    assert lines[0].split("\t") == ["class", "paradigm", "task", "subjects", "sessions", "channels", "rate", "licence", "size"]
    assert ["PhysionetMI", "imagery", "motor imagery", "109", "1", "64", "160", "ODC-By-1.0", "3.7 GB"] in [
        line.split("\t") for line in lines
    ]
    assert "108 data sets, 2560 subjects" in err
    assert "not measured" in err


def test_json_is_one_document_with_everything_declared(capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes in bytes, rates in Hz."""
    assert run(eegprep_app, "eegprep", ["datasets", "--json", "--min-channels", "100", "--licence", "CC BY 4.0"]) == 0
    records = json.loads(capsys.readouterr().out)

    assert {record["licence"] for record in records} == {"CC-BY-4.0"}
    assert all(record["channels"] >= 100 for record in records)
    assert next(r for r in records if r["class"] == "Schirrmeister2017")["size"] > 10**10


def test_notes_are_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """They are long."""
    run(eegprep_app, "eegprep", ["datasets", "--name", "Kaneshiro", "--notes"])

    assert "first trial lost" in capsys.readouterr().out


def test_a_manifest_can_be_written_and_is_ready_to_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a filter to a corpus in two commands."""
    path = tmp_path / "mine.toml"

    assert run(eegprep_app, "eegprep", ["datasets", "--paradigm", "ssvep", "--manifest", str(path)]) == 0
    assert f"eegprep build {path}" in capsys.readouterr().err
    assert 'spec = "moabb:Wang2016"' in path.read_text()


def test_an_unknown_paradigm_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, with the choices."""
    assert run(eegprep_app, "eegprep", ["datasets", "--paradigm", "sleep"]) == 2
    assert "imagery" in capsys.readouterr().err
