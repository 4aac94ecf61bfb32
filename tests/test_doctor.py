"""`eegprep doctor` finds what is wrong, and says so without breaking."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import eegprep_app, run
from eegprep import catalogue, doctor, network
from eegprep.doctor import Check, examine
from eegprep.errors import StoreError


def named(checks: list[Check], name: str) -> Check:
    (found,) = [check for check in checks if check.name == name]
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the self-tests, which start processes."""
    monkeypatch.setattr(doctor, "_try_loader", lambda: "")
    monkeypatch.setattr(doctor, "_try_filter", lambda: "")


def test_this_installation_is_well_and_is_examined_without_a_socket(tmp_path: Path) -> None:
    """The environment that runs the tests has everything; the loader answers in threads, after fork and after spawn."""
    with network.no_network(everywhere=True) as guard:
        checks = examine(tmp_path)

    assert [check for check in checks if check.state == "failed"] == []
    assert named(checks, "loader self-test").found == "40 windows read back equal in threads, fork and spawn"
    assert named(checks, "zarr").state == "ok"
    assert named(checks, "data folder").found.startswith(str(tmp_path))
    assert guard.refused == []


def test_old_and_missing_packages_are_named_with_both_versions(quick: None) -> None:
    """The floor in pyproject has a reason; pip does not keep it for a later install."""
    needs = ["numpy>=99", "not-a-package-of-anyone>=1.0", "zarr>=3.1", "unneeded>=1; extra == 'app'"]

    checks = examine(requirements=needs)

    assert named(checks, "numpy").state == "failed"
    assert "(needs >=99)" in named(checks, "numpy").found
    assert named(checks, "not-a-package-of-anyone").found == "not installed (needs >=1.0)"
    assert named(checks, "not-a-package-of-anyone").fix == "pip install 'not-a-package-of-anyone>=1.0'"
    assert named(checks, "zarr").state == "ok"
    assert "unneeded" not in [check.name for check in checks]


def test_a_checkout_that_was_never_installed_is_said_to_be_one(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no requirement was ever looked at."""
    monkeypatch.setattr(doctor, "DISTRIBUTION", "eeg-dreamdiff-not-there")

    check = named(examine(), "eeg-dreamdiff-not-there")

    assert (check.state, check.fix) == ("failed", "pip install -e .")


def test_a_foreign_eegprep_fails_the_examination(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyPI's eegprep has the same import name; `doctor` is the command that still runs beside it."""
    folder = tmp_path / "eegprep-0.4.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: eegprep\nVersion: 0.4.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert run(eegprep_app, "eegprep", ["doctor", "--json"]) == 1
    (check,) = [line for line in json.loads(capsys.readouterr().out) if line["name"] == "foreign eegprep"]
    assert check["state"] == "failed"
    assert "'eegprep' 0.4.0 is installed as well" in check["found"]
    assert check["fix"].startswith("pip uninstall eegprep")


def test_when_the_foreign_package_is_the_one_imported_the_cure_is_still_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of ours can be imported then, not even the examination."""
    monkeypatch.setitem(sys.modules, "eegprep.doctor", None)  # what `import` sees when it is not there
    monkeypatch.setattr("cli.eegprep_doctor.foreign_eegprep", lambda: "0.4.0")

    assert run(eegprep_app, "eegprep", ["doctor"]) == 1
    assert "pip uninstall eegprep" in capsys.readouterr().err


def test_a_table_is_printed_and_the_exit_code_is_0_when_all_is_well(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings do not fail."""
    monkeypatch.setattr(doctor, "_optional", lambda: [Check("mffpy", "warning", "not installed", "pip install mffpy")])

    assert run(eegprep_app, "eegprep", ["doctor"]) == 0
    assert "mffpy\twarning\tnot installed\tpip install mffpy" in capsys.readouterr().out


def test_a_data_folder_that_cannot_be_written_is_a_warning(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading from it is fine."""
    monkeypatch.setattr(os, "access", lambda *args: False)

    check = named(examine(tmp_path / "a" / "b"), "data folder")

    assert check.state == "warning"
    assert "cannot be written" in check.found


def test_passwords_of_proxies_are_not_printed(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """People paste this report into issues."""
    monkeypatch.setenv("HTTPS_PROXY", "http://anna:secret@proxy:3128")

    assert "HTTPS_PROXY=http://***@proxy:3128" in named(examine(), "network").found


def test_a_moabb_that_cannot_be_read_fails(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its import raises."""
    monkeypatch.setattr(catalogue, "entries", lambda: (_ for _ in ()).throw(AttributeError("numpy has no float")))

    assert named(examine(), "catalogue").found == "MOABB cannot be read: AttributeError: numpy has no float"


def _hang(corpus: object, queue: object) -> None:
    time.sleep(600)


def _die(corpus: object, queue: object) -> None:
    os._exit(7)


@pytest.mark.parametrize(
    ("answer", "found"),
    [(_hang, "a reader in a process started by fork had not answered after 1 s"), (_die, "started by fork ended with status 7")],
)
def test_a_reader_that_hangs_or_dies_after_fork_is_found(
    answer: Callable[[object, object], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadlock that zarrs users meet on Linux must end in a message, not in a hanging doctor."""
    monkeypatch.setattr(doctor, "_answer", answer)
    monkeypatch.setattr(doctor, "PATIENCE_S", 1.0)

    check = named(examine(requirements=[]), "loader self-test")

    assert check.state == "failed"
    assert found in check.found


def test_a_loader_that_reads_wrong_numbers_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equality is checked, not only that something comes back."""
    monkeypatch.setattr(doctor.Corpus, "read", lambda self, indices: [0.0])

    assert named(examine(requirements=[]), "loader self-test").state == "failed"


def test_a_filter_that_moves_the_rhythm_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero phase is the point of it."""
    monkeypatch.setattr(doctor, "_try_loader", lambda: "")
    monkeypatch.setattr(doctor, "band_pass", lambda signal_CT, *args: signal_CT)

    check = named(examine(requirements=[]), "filter self-test")

    assert check.state == "failed"
    assert "uV wrong" in check.found


def test_an_error_of_ours_brings_its_own_fix(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """Problem and fix as everywhere."""

    def trial() -> str:
        raise StoreError("the temporary folder is full", "free disk space")

    monkeypatch.setattr(doctor, "_try_loader", trial)
    check = named(examine(requirements=[]), "loader self-test")

    assert (check.found, check.fix) == ("the temporary folder is full", "free disk space")
