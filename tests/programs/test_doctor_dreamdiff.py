"""`dreamdiff doctor`: facts for a bug report, and a failure that can be seen."""

from __future__ import annotations

import json

import pytest
import torch

from cli._app import dreamdiff_app
from cli.main import run
from cli.model import doctor as dreamdiff_doctor
from dreamdiff.programs import doctor
from eegprep.inspection.loader_check import Check


@pytest.fixture
def quick(monkeypatch):
    """The self-test has its own tests; here it answers at once."""
    result = [Check("threads", True, "0.1 s")]
    monkeypatch.setattr(doctor, "check_reader", lambda timeout: list(result))
    monkeypatch.setattr(doctor, "check_stream", lambda timeout: [])
    return result


def test_the_facts_are_json_and_complete(quick, capsys):
    """What a maintainer asks for first."""
    assert run(dreamdiff_app, "dreamdiff", ["doctor", "--json"]) == 0

    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0] or facts["versions"]["torch"].startswith("2")
    assert facts["versions"]["eeg-dreamdiff"] and facts["devices"][0]["device"] == "cpu"
    assert facts["ok"] is True and facts["checks"] == [{"name": "threads", "ok": True, "detail": "0.1 s"}]


def test_offline_switches_are_shown(quick, capsys, monkeypatch):
    """Half of all "it downloads" reports are a variable that is not set."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert run(dreamdiff_app, "dreamdiff", ["doctor"]) == 0
    out = capsys.readouterr().out
    assert "HF_HUB_OFFLINE\t1" in out and "threads\tyes" in out


def test_a_failed_check_is_exit_code_1(quick, capsys):
    """Scripts ask the exit code."""
    quick.append(Check("fork", False, "hung: no answer in 60 s"))

    assert run(dreamdiff_app, "dreamdiff", ["doctor"]) == 1
    assert "fork\tNO\thung: no answer in 60 s" in capsys.readouterr().out


def test_a_foreign_eegprep_is_named_before_anything_is_imported(monkeypatch, capsys):
    """With the wrong package in place our own cannot be imported: doctor must still say so."""
    monkeypatch.setattr(dreamdiff_doctor, "foreign_eegprep", lambda: "0.4.0")

    assert run(dreamdiff_app, "dreamdiff", ["doctor"]) == 1
    assert "another package called 'eegprep' (version 0.4.0)" in capsys.readouterr().err


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    """Extras are optional."""
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))

    assert doctor.versions()["no-such-package"] is None


def test_workers_that_fail_are_reported(monkeypatch):
    """Any failure of a worker is a finding, with its first line."""

    class Broken:
        def set_epoch(self, epoch):
            pass

        def loader(self, *args, **options):
            raise RuntimeError("worker died\nlong story")

    check = doctor._check_workers(Broken(), torch.arange(3), "fork", 1.0)

    assert check == Check("stream, 2 workers by fork", False, "RuntimeError: worker died")
