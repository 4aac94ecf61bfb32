"""Public pairs by name, from an archive in this process."""

from __future__ import annotations

import json

import archive_server
import pytest
from eeg_files import eeg, names, write_edf

from cli import main


@pytest.fixture
def archive(monkeypatch, tmp_path):
    with archive_server.serving() as running:
        monkeypatch.setenv("EEGPREP_MIRRORS", running.mirrors)
        monkeypatch.chdir(tmp_path)
        yield running


def published(folder, archive, target: str, licence: str) -> None:
    place = folder / "sub-01" / "eeg"
    write_edf(place / "sub-01_task-images_eeg.edf", eeg(4, 2500, 250), 250, names(4))
    (place / "sub-01_task-images_events.tsv").write_text("onset\tduration\tstim_file\n1.0\t0.1\tcat.png\n")
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "x", "License": licence, "BIDSVersion": "1.9.0"}))
    archive.nemar_manifest(target, folder)


def run(*arguments: str) -> int:
    return main.run(main.dreamdiff_app, "dreamdiff", ["pairs", "fetch", *arguments, "--data-dir", "data"])


def test_the_eeg_comes_with_checksums_and_the_words_for_its_pictures(archive, tmp_path, capsys):
    published(tmp_path / "src", archive, "nm000232", "CC BY 4.0")

    assert run("things-eeg2", "--subjects", "1") == 0
    said = capsys.readouterr()
    assert "1 people" in said.out and "CC-BY-4.0" in said.out
    assert "password" in said.err and "things-initiative.org" in said.err and "--kind bids --images PICTURES" in said.err
    assert (tmp_path / "data/nemar/nm000232/sub-01/eeg/sub-01_task-images_eeg.edf").is_file()


def test_a_licence_without_derivatives_is_shown_and_has_to_be_accepted(archive, tmp_path, capsys):
    published(tmp_path / "src", archive, "nm000134", "CC-BY-NC-ND-4.0")

    assert run("alljoined-1.6m", "--dry-run") == 0
    assert "CC-BY-NC-ND-4.0" in capsys.readouterr().out
    assert run("alljoined-1.6m") == 1
    err = capsys.readouterr().err
    assert "must not be shared" in err and "--accept CC-BY-NC-ND-4.0" in err
    assert not [request for request in archive.requests if request.endswith(".edf")]
    assert run("alljoined-1.6m", "--accept", "CC-BY-NC-ND-4.0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == 3


def test_damage_on_the_way_is_an_error(archive, tmp_path, capsys):
    published(tmp_path / "src", archive, "nm000232", "CC0")
    path = next(path for path in archive.files if path.endswith("_eeg.edf"))
    archive.files[path] = archive.files[path][:-1] + b"\x01"

    assert run("things-eeg2") == 1
    assert "SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "data/nemar/nm000232/sub-01/eeg/sub-01_task-images_eeg.edf").exists()


def test_an_unknown_name_is_wrong_usage_and_asks_nobody(archive, capsys):
    assert run("things-eeg3") == 2
    assert "things-eeg2" in capsys.readouterr().err
    assert archive.requests == []
