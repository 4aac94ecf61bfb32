"""`eegprep datasets`: a table for people, JSON for programs, a manifest for `build`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import eegprep_app, run


def test_the_table_is_tab_separated_where_it_is_piped(capsys: pytest.CaptureFixture[str]) -> None:
    """So that `cut` and `sort` work; messages go to standard error."""
    assert run(eegprep_app, "eegprep", ["datasets", "--data-dir", "nowhere"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()

    assert len(lines) == 109
    assert lines[0].split("\t") == [
        "class",
        "paradigm",
        "task",
        "subjects",
        "sessions",
        "channels",
        "rate",
        "licence",
        "size",
        "here",
    ]
    assert ["PhysionetMI", "imagery", "motor imagery", "109", "1", "64", "160", "ODC-By-1.0", "3.7 GB", ""] in [
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


def fetched(data_dir: Path, name: str, people: dict[str, list[str]]) -> None:
    """The records and files of a data set that was fetched."""
    files = {file: {"bytes": 1000, "sha256": "0" * 64, "mtime_ns": 0} for own in people.values() for file in own}
    subjects = {f"key/{person}": {"files": own, "provider": "x", "downloads": []} for person, own in people.items()}
    (data_dir / ".eegprep").mkdir(parents=True, exist_ok=True)
    (data_dir / ".eegprep" / f"{name}.json").write_text(json.dumps({"form": 1, "files": files, "subjects": subjects}))
    for file in files:
        (data_dir / file).write_bytes(b"\0" * 1000)


def test_what_is_downloaded_already_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Subjects whose files are all there, as long as they were; archives by their ids."""
    fetched(tmp_path, "PhysionetMI", {"1": ["a.edf", "b.edf"], "2": ["c.edf"], "3": ["d.edf"]})
    fetched(tmp_path, "openneuro-ds000001", {"01": ["e.edf"]})
    (tmp_path / "d.edf").write_bytes(b"cut")
    (tmp_path / ".eegprep" / "broken.json").write_text("{")

    assert run(eegprep_app, "eegprep", ["datasets", "--here", "--data-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    assert [(row[0], row[-1]) for row in rows] == [("PhysionetMI", "2"), ("openneuro:ds000001", "1")]
    assert "2 data sets, 3 subjects, 4.0 kB are here already" in err

    run(eegprep_app, "eegprep", ["datasets", "--here", "--json", "--data-dir", str(tmp_path)])
    assert json.loads(capsys.readouterr().out)[0]["here"] == {"subjects": 2, "bytes": 3000}
